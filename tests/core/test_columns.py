"""What is encoded comes back, and no bytes make the decoder do anything but refuse."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegw.core.block import Block
from edgegw.core.columns import decode, encode
from edgegw.core.record import Message
from edgegw.limits import MIB

NOW_MS = 1_800_000_000_000

rows = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.sampled_from(["a", "b/c", "ü"]),
        st.sampled_from(["application/json", "text/plain"]),
        st.binary(max_size=20),
        st.integers(-(10**15), 10**15),
        st.one_of(st.none(), st.integers(NOW_MS + 1, NOW_MS + 10**9)),
    ),
    min_size=1,
    max_size=40,
)


def block(found: list[tuple[int, str, str, bytes, int, int | None]]) -> Block:
    seq, messages = 0, []
    for step, topic, kind, payload, source_us, expires_ms in found:
        seq += step
        messages.append(Message("s", seq, topic, NOW_MS, kind, payload, source_us, expires_ms))
    return Block.of(messages)


def body_with(**changes: object) -> bytes:
    names = [
        "version",
        "origin",
        "first",
        "last",
        "seqs",
        "topics",
        "topic_index",
        "types",
        "type_index",
        "payloads",
        "times",
        "ttls",
    ]
    good = [1, "gw/1/s/1", 1, 9, [1, 2], ["a"], 0, ["text/plain"], 0, [b"x", b"y"], [2, 5], None]
    return bytes(msgpack.packb([changes.get(name, value) for name, value in zip(names, good, strict=True)]))


@given(rows)
def test_round_trip(found: list[tuple[int, str, str, bytes, int, int | None]]) -> None:
    sent = block(found)
    got = decode(encode("gw/1/s/1", 1, sent.seqs[-1] + 3, sent, NOW_MS), 100)
    assert (got.origin, got.first, got.last) == ("gw/1/s/1", 1, sent.seqs[-1] + 3)
    assert got.seqs == sent.seqs
    assert got.topics == sent.topics
    assert got.content_types == sent.content_types
    assert got.payloads == sent.payloads
    assert got.times_us == sent.times_us
    left = None if sent.expires_ms is None else [None if at is None else at - NOW_MS for at in sent.expires_ms]
    assert got.ttls_ms == left


def test_the_good_body_is_good() -> None:
    assert decode(body_with(), 2).payloads == [b"x", b"y"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("version", 2), ("version", None), ("origin", ""), ("origin", 5), ("origin", "x" * 256), ("origin", "a\nb"),
        ("first", 0), ("first", 10), ("first", True), ("last", 2**48 + 1), ("last", 1), ("seqs", []), ("seqs", [1]),
        ("seqs", [1, 3]), ("seqs", [1, 1]), ("seqs", [2, 1, 1, 1]), ("seqs", [1, 10**12]), ("seqs", [0, 2]),
        ("seqs", ["1", 2]), ("seqs", None), ("seqs", [1, -1, 5, 3]), ("topics", []), ("topics", [b"a"]),
        ("topics", ["a", "b"]), ("topic_index", 1), ("topic_index", b"\0"), ("topic_index", b"\0\1"),
        ("topic_index", [0, -1]), ("topic_index", [0, 0.5]), ("types", None), ("type_index", "x"), ("payloads", []),
        ("payloads", ["x", "y"]), ("payloads", [b"x"]), ("payloads", None), ("times", [1, 5]), ("times", [2, 2**63]),
        ("times", [2, None]), ("times", [3, 5]), ("ttls", [1]), ("ttls", [0, 1]), ("ttls", [1.5, 1]), ("ttls", 5),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(column: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(body_with(**{column: value}), 100)


def test_more_than_allowed_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        decode(body_with(), 1)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers(-5, 5) | st.text(), st.lists).map(msgpack.packb)))
def test_any_bytes(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode(body, 100)


@pytest.mark.parametrize(
    "column",
    [b"\x90" * 99_000, b"\x80" * 99_000, b"\xd6\xff\0\0\0\1" * 99_000, b"\xa2ab" * 99_000],
    ids=["array", "map", "time", "text"],
)
def test_a_body_costs_little_more_memory_than_it_has_bytes(column: bytes) -> None:
    count = 99_000
    body = b"\x9c\x01" + (b"\xdd" + count.to_bytes(4, "big") + column) * 3 + b"\x90" * 8
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"\w"):
            decode(body, 50_000)
        assert tracemalloc.get_traced_memory()[1] < 24 * len(body)
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()


@given(rows, st.integers(1, 7), st.integers(1, 400))
def test_pieces_are_the_block(found: list[tuple[int, str, str, bytes, int, int | None]], most: int, most_bytes: int) -> None:
    whole = block(found)
    pieces = whole.pieces(most, most_bytes)
    assert [seq for piece in pieces for seq in piece.seqs] == whole.seqs
    assert all(len(piece) <= most and (len(piece) == 1 or piece.size_bytes <= most_bytes) for piece in pieces)

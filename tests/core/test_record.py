"""Chunks give back what was put in, know when they are damaged, and cost what was estimated."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.record import HEAD_BYTES, JSON, OCTETS, Batch, Chunk, ChunkBuilder, Message, Origin
from edgegw.errors import StoreError

STREAM = "default"
TIMES = st.integers(0, 2**43)
# What an encoded chunk costs beside its messages: its own columns, as many bytes as their numbers take, and a mark.
ENVELOPE_BYTES = 100


def batch_of(n: int, draw: Any) -> Batch:
    names = st.sampled_from(["a", "b/c", "ä", "x" * 70])
    types = st.sampled_from([OCTETS, JSON, "text/plain"])
    each = st.lists(st.none() | TIMES, min_size=n, max_size=n)
    return Batch(
        draw(st.lists(names, min_size=n, max_size=n)),
        draw(st.lists(st.binary(max_size=300), min_size=n, max_size=n)),
        draw(types | st.lists(types, min_size=n, max_size=n)),
        source_us=draw(st.none() | each),
        expires_ms=draw(st.none() | each),
        origins=[Origin("c", i, "max_deliver") for i in range(n)] if draw(st.booleans()) else None,
    )


@st.composite
def batches(draw: Any) -> list[Batch]:
    return [batch_of(n, draw) for n in draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))]


def encoded(builder: ChunkBuilder, marks: dict[int, int] | None = None) -> bytes:
    return builder.encode(stream_number=3, epoch=7, boot=2, mono_ms=99, marks=marks or {})


def built(some: list[Batch], times_ms: list[int], first_seq: int = 10) -> tuple[ChunkBuilder, list[Message]]:
    builder = ChunkBuilder(first_seq, times_ms[0])
    messages: list[Message] = []
    for batch, time_ms in zip(some, times_ms, strict=True):
        builder.add(batch, time_ms)
        for i in range(len(batch)):
            messages.append(
                Message(
                    STREAM,
                    first_seq + len(messages),
                    batch.topics[i],
                    time_ms,
                    batch.content_type(i),
                    batch.payloads[i],
                    batch.source_us[i] if batch.source_us else None,
                    batch.expires_ms[i] if batch.expires_ms else None,
                    batch.origins[i] if batch.origins else None,
                )
            )
    return builder, messages


@given(batches(), st.data())
def test_a_chunk_gives_back_its_messages(some: list[Batch], data: st.DataObject) -> None:
    # Wall clocks may go backwards between two batches.
    times_ms = data.draw(st.lists(TIMES, min_size=len(some), max_size=len(some)))
    builder, messages = built(some, times_ms)
    chunk = Chunk(encoded(builder, {4: 5}))
    assert list(chunk.messages(STREAM, range(chunk.count))) == messages
    assert (chunk.stream_number, chunk.epoch, chunk.boot, chunk.mono_ms, chunk.marks) == (3, 7, 2, 99, {4: 5})
    assert (chunk.first_seq, chunk.last_seq, chunk.count) == (10, 9 + len(messages), len(messages))
    assert [chunk.topic_of(i) for i in range(chunk.count)] == [message.topic for message in messages]
    assert builder.t1_ms == max(times_ms)
    wanted = {topic: sum(message.topic == topic for message in messages) for topic in {message.topic for message in messages}}
    assert builder.topics() == wanted


@given(batches(), st.data())
def test_places_are_those_of_the_wanted_topics_after_a_number(some: list[Batch], data: st.DataObject) -> None:
    builder, messages = built(some, [0] * len(some))
    chunk = Chunk(encoded(builder))
    flags = data.draw(st.lists(st.booleans(), min_size=len(chunk.topics), max_size=len(chunk.topics)))
    after = data.draw(st.integers(0, 40))
    wanted = {topic for topic, flag in zip(chunk.topics, flags, strict=True) if flag}
    found = list(chunk.messages(STREAM, chunk.places(flags, after)))
    assert found == [message for message in messages if message.topic in wanted and message.seq > after]


@given(batches(), TIMES)
def test_expiry(some: list[Batch], now_ms: int) -> None:
    builder, messages = built(some, [0] * len(some))
    chunk = Chunk(encoded(builder))
    times = [message.expires_ms for message in messages]
    assert chunk.expired(now_ms) == [i for i, at in enumerate(times) if at is not None and at <= now_ms]
    known = [at for at in times if at is not None]
    if all(batch.expires_ms is None for batch in some):
        assert builder.expires_ms() is None
    else:
        assert builder.expires_ms() == (max(known) if len(known) == len(times) else 0)
    assert chunk.expire_by_ms(range(chunk.count)) == (max(known) if len(known) == len(times) else None)
    if known:
        assert chunk.expire_by_ms(i for i, at in enumerate(times) if at is not None) == max(known)


@given(batches())
def test_the_estimate_is_not_too_low(some: list[Batch]) -> None:
    """Bounds are kept by the estimate: what it misses, they miss."""
    builder, _ = built(some, [2**41] * len(some))
    assert builder.size_bytes == sum(batch.size_bytes for batch in some)
    assert len(encoded(builder, {1: 1})) <= builder.size_bytes + ENVELOPE_BYTES


def test_the_estimate_counts_every_topic() -> None:
    topics = [f"{n:03}" + "t" * 1000 for n in range(100)]
    batch = Batch(topics, [b""] * 100, OCTETS)
    builder, _ = built([batch], [0])
    assert len(encoded(builder)) - ENVELOPE_BYTES <= batch.size_bytes < len(encoded(builder)) + 1000


def test_a_100_byte_message_costs_little_more() -> None:
    batch = Batch(["plant/temperature"] * 1000, [b"x" * 100] * 1000, OCTETS)
    builder, _ = built([batch], [2**41])
    assert len(encoded(builder)) <= 1000 * 102.5


def test_more_topics_than_a_byte_can_number() -> None:
    topics = [str(n) for n in range(1000)]
    builder, messages = built([Batch(topics, [b""] * 1000, OCTETS)], [0])
    chunk = Chunk(encoded(builder))
    assert list(chunk.messages(STREAM, range(1000))) == messages


# --- damage ---------------------------------------------------------------------------------------


def test_each_flipped_bit_is_seen() -> None:
    builder, _ = built([Batch(["a", "b"], [b"1", b"22"], JSON)], [5])
    blob = encoded(builder)
    for at in range(len(blob)):
        for bit in range(8):
            damaged = bytearray(blob)
            damaged[at] ^= 1 << bit
            with pytest.raises(StoreError) as caught:
                Chunk(bytes(damaged))
            assert caught.value.code == "chunk_corrupt"


def test_each_truncation_is_seen() -> None:
    blob = encoded(built([Batch(["a"], [b"1"], JSON)], [5])[0])
    for size in range(len(blob)):
        with pytest.raises(StoreError) as caught:
            Chunk(blob[:size])
        assert caught.value.code == "chunk_corrupt"
    assert Chunk(blob).count == 1
    assert len(blob) > HEAD_BYTES


# --- batches --------------------------------------------------------------------------------------


def test_a_part_of_a_batch_keeps_all_that_belongs_to_it() -> None:
    batch = Batch(
        ["a", "b", "c", "d"],
        [b"1", b"2", b"3", b"4"],
        [OCTETS, JSON, JSON, OCTETS],
        keys=["k1", None, "k3", "k4"],
        retain=[0, 3],
        source_us=[1, 2, None, 4],
        expires_ms=[None, 20, 30, 40],
        origins=[Origin(name, 1, "r") for name in "wxyz"],
    )
    part = batch.only([1, 3])
    assert (part.topics, part.payloads, part.content_types) == (["b", "d"], [b"2", b"4"], [JSON, OCTETS])
    assert part.keys == [None, "k4"]  # or a batch over two streams would lose its keys
    assert (part.retain, part.source_us, part.expires_ms) == ([1], [2, 4], [20, 40])
    assert part.origins == [Origin("x", 1, "r"), Origin("z", 1, "r")]
    plain = Batch(["a", "b"], [b"1", b"2"], OCTETS).only([1])
    assert (plain.content_type(0), plain.keys, plain.retain, plain.source_us, plain.origins) == (OCTETS, None, None, None, None)


def test_taking_a_part_looks_at_each_retained_message_once() -> None:
    class Places(list[int]):
        visits = 0

        def __iter__(self) -> Any:
            Places.visits += 1
            return super().__iter__()

    batch = Batch(["a"] * 300, [b""] * 300, OCTETS, retain=Places(range(300)))
    assert batch.only(list(range(0, 300, 2))).retain == list(range(150))
    assert Places.visits == 1

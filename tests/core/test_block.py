"""Columns keep together what belongs together."""

from edgegw.core.block import Block
from edgegw.core.record import Message


def block(*seqs: int, ttl: bool = False) -> Block:
    return Block.of(
        [Message("s", seq, f"t/{seq}", seq, "text/plain", b"%d" % seq, None, seq * 10 if ttl else None) for seq in seqs]
    )


def rows(found: Block) -> list[tuple[object, ...]]:
    expires = found.expires_ms or [None] * len(found)
    return list(zip(found.seqs, found.topics, found.content_types, found.payloads, found.times_us, expires, strict=True))


def test_arrival_stands_in_for_a_source_time() -> None:
    messages = [Message("s", 1, "t", 7, "x", b""), Message("s", 2, "t", 7, "x", b"", 5)]
    assert Block.of(messages).times_us == [7000, 5]


def test_parts_and_choices() -> None:
    whole = block(1, 2, 3, 4, ttl=True)
    assert rows(whole.part(1, 3)) == rows(block(2, 3, ttl=True))
    assert rows(whole.only([0, 3])) == rows(block(1, 4, ttl=True))
    assert whole.expired(20) == [0, 1]
    assert block(1).expired(10**15) == []


def test_extend_with_and_without_ttl() -> None:
    for first, second in ((False, True), (True, False), (True, True), (False, False)):
        whole = block(1, 2, ttl=first)
        whole.extend(block(3, ttl=second))
        assert rows(whole) == rows(block(1, 2, ttl=first)) + rows(block(3, ttl=second))

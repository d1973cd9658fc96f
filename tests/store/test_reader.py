"""Reads: pages in order with gaps between them, whatever the sizes of chunks; reads are short and always get on."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.core.record import Gap, Message
from edgegw.errors import StoreError
from edgegw.limits import KIB, READ_BYTES, READ_CHUNKS
from edgegw.store.reader import Page, Range, Reader
from tests.bus_setup import START_MS, HandClock, Shelf, make_terms, publish_job

MANY = 10**9
NAMES = {2: "default"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, StreamConfig(name="s", topics=("s/#",), bytes_max=64 * KIB, age_max_s=0))


@pytest.fixture
def reader(shelf: Shelf) -> Iterator[Reader]:
    found = Reader(shelf.folder / "bus.db")
    found.open()
    yield found
    found.close()


def everything(shelf: Shelf, stream: str = "default", topic_filter: str = "#", after: int = 0) -> Range:
    return Range(stream, shelf.streams[stream].number, topic_filter, after, shelf.streams[stream].head)


def read(reader: Reader, part: Range, most: int = MANY, most_bytes: int = MANY, now_ms: int = START_MS) -> Page:
    return reader.read(part, most, most_bytes, now_ms)


def read_all(
    reader: Reader, part: Range, most: int = MANY, most_bytes: int = MANY, now_ms: int = START_MS
) -> list[Message | Gap]:
    """Page after page; each must get on."""
    items: list[Message | Gap] = []
    while part.after < part.head:
        page = read(reader, part, most, most_bytes, now_ms)
        assert part.after < page.position <= part.head
        items += page.items
        part = part._replace(after=page.position)
    return items


def seqs(items: list[Message | Gap]) -> list[int]:
    return [item.seq for item in items if isinstance(item, Message)]


# --- pages ----------------------------------------------------------------------------------------


def test_a_page_is_in_order_and_says_how_far_it_looked(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1", b"2", topics=["a", "b"])
    shelf.publish(b"3", b"4", topics=["b", "a"])
    assert seqs(read(reader, everything(shelf)).items) == [1, 2, 3, 4]
    assert read(reader, everything(shelf, topic_filter="a")).position == 4
    page = read(reader, everything(shelf, topic_filter="a"), most=1)
    assert (seqs(page.items), page.position) == ([1], 2)
    assert seqs(read(reader, everything(shelf, topic_filter="b", after=2)).items) == [3]
    assert read(reader, everything(shelf, topic_filter="none")) == Page([], 4, [])
    assert read(reader, everything(shelf, after=4)) == Page([], 4, [])


def test_a_read_ends_at_the_head_it_was_given(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1")
    part = everything(shelf)
    shelf.publish(b"2", b"3")
    page = read(reader, part)
    assert (seqs(page.items), page.position) == ([1], 1)


@pytest.mark.parametrize(("most", "most_bytes"), [(MANY, MANY), (1, MANY), (3, MANY), (MANY, 1), (MANY, 2500), (2, 100)])
def test_pages_put_together_are_the_stream(shelf: Shelf, reader: Reader, most: int, most_bytes: int) -> None:
    for n in range(3 * READ_CHUNKS):
        shelf.publish(*[b"x" * 1000] * (n % 4 + 1), topic=f"t/{n % 3}")
    head = shelf.streams["default"].head
    assert seqs(read_all(reader, everything(shelf), most, most_bytes)) == list(range(1, head + 1))
    for after in (0, 7, head - 1):
        some = read_all(reader, everything(shelf, topic_filter="t/1", after=after), most, most_bytes)
        wanted = [chunk.first_seq + i for chunk in shelf.chunks() for i in range(chunk.count) if chunk.topic_of(i) == "t/1"]
        assert seqs(some) == [seq for seq in wanted if seq > after]


def test_a_page_has_at_least_one_message_and_then_so_many_bytes(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(*[b"x" * 1000] * 9)
    assert len(read(reader, everything(shelf), most_bytes=1).items) == 1
    assert len(read(reader, everything(shelf), most_bytes=2500).items) == 3


@pytest.mark.parametrize("size_bytes", [READ_BYTES - 100, READ_BYTES, 2 * READ_BYTES])
def test_after_a_chunk_larger_than_one_read_the_next_is_found(shelf: Shelf, reader: Reader, size_bytes: int) -> None:
    shelf.publish(bytes(size_bytes))
    shelf.publish(b"2")
    shelf.publish(bytes(size_bytes), b"4")
    shelf.publish(b"5")
    assert seqs(read(reader, everything(shelf, after=1)).items)[:1] == [2]
    assert seqs(read_all(reader, everything(shelf))) == [1, 2, 3, 4, 5]
    assert list(reader.pick("default", 2, [1, 2, 3, 4, 5], MANY, START_MS).messages) == [1, 2, 3, 4, 5]


def test_after_a_large_chunk_and_a_gap_the_next_is_found(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, StreamConfig(name="s", topics=("s/#",), bytes_max=READ_BYTES + 64 * KIB))
    shelf.consumer(make_terms(topic_filter="s/held", stream="s"))
    shelf.publish(bytes(READ_BYTES), stream="s", topic="s/held")
    for _ in range(10):
        shelf.publish(bytes(9000), stream="s", topic="s/x")
    stored = shelf.stored("s")
    assert stored[1] > 2
    reader = Reader(tmp_path / "bus.db")
    reader.open()
    assert seqs(read_all(reader, everything(shelf, "s"))) == stored
    assert seqs(read_all(reader, everything(shelf, "s", after=1))) == stored[1:]
    assert reader.count(everything(shelf, "s", after=2)).matched == len(stored) - 1
    reader.close()


def test_messages_come_whole(shelf: Shelf, reader: Reader) -> None:
    shelf.clock.pass_s(1)
    shelf.publish(b"x", topic="a/ä", source_us=[7], expires_ms=[START_MS + 5000])
    message = read(reader, everything(shelf)).items[0]
    wanted = Message("default", 1, "a/ä", START_MS + 1000, "application/octet-stream", b"x", 7, START_MS + 5000)
    assert message == wanted


def test_a_read_holds_no_snapshot_afterwards(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1", retain=[0])
    assert reader._db is not None
    for call in (
        lambda: read(reader, everything(shelf), most=1),
        lambda: reader.count(everything(shelf)),
        lambda: reader.pick("default", 2, [1, 9], MANY, START_MS),
        lambda: reader.seq_at(2, 0, 1, 1),
        lambda: reader.retained("#", NAMES, None, START_MS, 1),
    ):
        call()
        busy, frames, copied = shelf.writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert (busy, frames) == (0, 0), copied
        shelf.publish(b"2")


# --- gaps and expiry ------------------------------------------------------------------------------


def test_gaps_stand_where_messages_are_missing(shelf: Shelf, reader: Reader) -> None:
    shelf.consumer(make_terms(topic_filter="s/held", stream="s"))
    for n in range(1, 41):
        shelf.publish(b"x" * 9000, stream="s", topic="s/held" if n in (1, 20) else "s/x")
    stored = shelf.stored("s")
    assert stored[:2] == [1, 20]
    items = read_all(reader, everything(shelf, "s"))
    assert items[1] == Gap("s", 2, 19, 18, "bytes")
    covered = [seq for item in items for seq in (range(item.first, item.last + 1) if isinstance(item, Gap) else [item.seq])]
    assert covered == list(range(1, 41))
    inside = read_all(reader, everything(shelf, "s", after=7))
    assert inside[0] == Gap("s", 8, 19, 12, "bytes")
    assert [item for item in read_all(reader, everything(shelf, "s", "s/none")) if isinstance(item, Message)] == []


def test_a_stream_without_messages_is_one_gap(tmp_path: Path) -> None:
    clock = HandClock()
    shelf = Shelf(tmp_path, StreamConfig(name="s", topics=("s/#",), age_max_s=1), clock=clock)
    shelf.publish(b"1", b"2", stream="s")
    clock.pass_s(2)
    shelf.tick()
    reader = Reader(tmp_path / "bus.db")
    reader.open()
    assert read(reader, everything(shelf, "s")) == Page([Gap("s", 1, 2, 2, "age")], 2, [])
    assert read(reader, everything(shelf, "s", after=1)) == Page([Gap("s", 2, 2, 1, "age")], 2, [])
    assert reader.count(everything(shelf, "s")) == (0, 2)
    reader.close()


def test_what_is_past_its_ttl_is_a_gap(shelf: Shelf, reader: Reader) -> None:
    at = START_MS + 10
    shelf.publish(b"1", b"2", b"3", b"4", b"5", expires_ms=[None, at, at, at + 1, at], topics=["t", "t", "t", "t", "u"])
    page = read(reader, everything(shelf, topic_filter="t"), now_ms=at)
    assert page.items[1:] == [Gap("default", 2, 3, 2, "ttl"), page.items[2]]
    assert (seqs(page.items), page.expired, page.position) == ([1, 4], [2, 3], 5)
    assert read(reader, everything(shelf), now_ms=at - 1).expired == []


# --- the other reads ------------------------------------------------------------------------------


def test_count(shelf: Shelf, reader: Reader) -> None:
    for n in range(3 * READ_CHUNKS):
        shelf.publish(b"1", b"2", topics=["a", f"b/{n}"])
    part, matched = everything(shelf, topic_filter="a", after=5), 0
    while part.after < part.head:
        counted = reader.count(part)
        assert counted.position > part.after
        matched, part = matched + counted.matched, part._replace(after=counted.position)
    assert matched == 3 * READ_CHUNKS - 3


def test_pick(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1", b"2", b"3", expires_ms=[None, START_MS, None])
    shelf.publish(b"4" * 1000, b"5" * 1000)
    picked = reader.pick("default", 2, [1, 2, 3, 5, 6], MANY, START_MS)
    assert {seq: message.payload[:1] for seq, message in picked.messages.items()} == {1: b"1", 3: b"3", 5: b"5"}
    assert picked.gone == [2, 6]
    assert reader.pick("default", 2, [], MANY, START_MS) == ({}, [])


def test_pick_takes_one_at_least_and_then_so_many_bytes(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(*[b"x" * 1000] * 5)
    assert list(reader.pick("default", 2, [1, 2, 3], 10, START_MS).messages) == [1]
    picked = reader.pick("default", 2, [1, 2, 3, 9], 2500, START_MS)
    assert (list(picked.messages), picked.gone) == ([1, 2], [])  # 9 was not looked at


def test_pick_among_many_that_expired_is_quick(shelf: Shelf, reader: Reader) -> None:
    count = 3000
    shelf.publish(*[b""] * count, expires_ms=[START_MS] * (count - 1) + [None])
    picked = reader.pick("default", 2, list(range(1, count + 1)), MANY, START_MS)
    assert (list(picked.messages), len(picked.gone)) == ([count], count - 1)


def test_seq_at(shelf: Shelf, reader: Reader) -> None:
    number = shelf.streams["default"].number
    for n in range(40):
        shelf.publish(bytes(READ_BYTES if n % 7 == 0 else 10), b"second")
        shelf.clock.pass_s(1)
    head = shelf.streams["default"].head
    for n in range(40):
        assert reader.seq_at(number, START_MS + 1000 * n, 1, head) == 2 * n + 1
        assert reader.seq_at(number, START_MS + 1000 * n - 500, 1, head) == 2 * n + 1
    assert reader.seq_at(number, START_MS + 40_000, 1, head) == head + 1
    assert reader.seq_at(number, 0, 1, head) == 1
    assert reader.seq_at(number, START_MS + 10_000, 1, 10) == 11  # nothing beyond the head it was given
    assert reader.seq_at(99, 0, 1, 0) == 1


def test_seq_at_within_a_chunk(shelf: Shelf, reader: Reader) -> None:
    shelf.turn(*[publish_job(b"x", time_ms=START_MS + n * 10) for n in range(5)])
    assert [reader.seq_at(2, START_MS + ms, 1, 5) for ms in (0, 5, 10, 31, 40)] == [1, 2, 2, 5, 5]


# --- retained values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "wanted"),
    [
        ("#", ["a", "a-b", "a/b", "a/b/c", "a/c", "b/b", "ä"]),
        ("a/#", ["a", "a/b", "a/b/c", "a/c"]),
        ("a/+", ["a/b", "a/c"]),
        ("+", ["a", "a-b", "ä"]),
        ("+/b", ["a/b", "b/b"]),
        ("a/b", ["a/b"]),
        ("a/x", []),
        ("a/+/c", ["a/b/c"]),
        ("ä", ["ä"]),
    ],
)
def test_retained_values_by_filter_and_in_pages(shelf: Shelf, reader: Reader, topic_filter: str, wanted: list[str]) -> None:
    topics = ["b/b", "a/c", "a", "ä", "a/b/c", "a/b", "a-b"]
    shelf.publish(*[topic.encode() for topic in topics], topics=topics, retain=list(range(len(topics))))
    page = reader.retained(topic_filter, NAMES, None, START_MS, 100)
    assert ([message.topic for message in page.messages], page.after) == (wanted, None)
    assert all(message.payload.decode() == message.topic and message.stream == "default" for message in page.messages)
    found: list[str] = []
    after: str | None = None
    while True:
        page = reader.retained(topic_filter, NAMES, after, START_MS, 1)
        found += [message.topic for message in page.messages]
        after = page.after
        if after is None:
            break
    assert found == wanted


def test_retained_values_past_their_ttl_are_not_given(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1", topic="t", retain=[0], expires_ms=[START_MS + 10])
    assert reader.retained("t", NAMES, None, START_MS + 9, 1).messages
    assert not reader.retained("t", NAMES, None, START_MS + 10, 1).messages


def test_a_read_of_retained_values_is_short_even_where_nothing_matches(shelf: Shelf, reader: Reader) -> None:
    for n in range(5):
        shelf.publish(bytes(READ_BYTES // 2), topic=f"t/{n}/x", retain=[0])
    assert reader.retained("+/+/y", NAMES, None, START_MS, 100) == ([], "t/1/x")
    assert reader.retained("+/+/y", NAMES, "t/3/x", START_MS, 100) == ([], None)


# --- life and errors ------------------------------------------------------------------------------


def test_a_closed_reader_says_so(shelf: Shelf, reader: Reader) -> None:
    reader.close()
    reader.close()
    with pytest.raises(StoreError, match="closed"):
        read(reader, everything(shelf)._replace(head=1))


def test_it_cannot_write(reader: Reader) -> None:
    assert reader._db is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM chunk")


def test_what_sqlite_says_is_told_as_ours(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"1")
    shelf.writer._db.execute("ALTER TABLE chunk RENAME TO other")
    with pytest.raises(StoreError) as caught:
        read(reader, everything(shelf))
    assert caught.value.code == "store_failed"


def test_a_file_that_is_no_database_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "bus.db").write_bytes(b"no database " * 1000)
    found = Reader(tmp_path / "bus.db")
    with pytest.raises(StoreError) as caught:
        found.open()
    assert caught.value.code == "store_damaged"


def test_a_damaged_chunk_is_never_delivered(shelf: Shelf, reader: Reader) -> None:
    shelf.publish(b"payload")
    data = bytearray(shelf.writer._db.execute("SELECT data FROM chunk").fetchone()[0])
    data[-20] ^= 1
    shelf.writer._db.execute("UPDATE chunk SET data = ?", (bytes(data),))
    with pytest.raises(StoreError) as caught:
        read(reader, everything(shelf))
    assert caught.value.code == "chunk_corrupt"

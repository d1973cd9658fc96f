"""The connection that only reads; lives in the reader thread.

Each call is one short read transaction of at most a few chunks, decoded here, so that the event loop never waits for a disk
and the WAL can always start over.
"""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from edgegw.core.block import Block
from edgegw.core.record import Chunk, Gap, Message
from edgegw.core.topic import matches
from edgegw.errors import StoreError
from edgegw.limits import BLOCK_CHUNKS, CACHE_KIB, READ_BYTES, READ_CHUNKS
from edgegw.store.faults import store_error
from edgegw.store.streams import row_id, seq_of

# `id + count`: a chunk that ends before the first number wanted is not read, and does not count.
_CHUNKS_FROM = """
    SELECT data FROM chunk
    WHERE id >= coalesce((SELECT max(id) FROM chunk WHERE id <= ?1 AND id >= ?2), ?1) AND id + count > ?1 AND id <= ?3
    ORDER BY id LIMIT ?4
"""
_RETAINED_FROM = "SELECT {} FROM retained WHERE topic >= ? ORDER BY topic"
_RETAINED_AFTER = "SELECT {} FROM retained WHERE topic > ? ORDER BY topic"


class Range(NamedTuple):
    """The messages of a stream that match a filter, after `after` and up to `head`."""

    stream: str
    number: int
    topic_filter: str
    after: int
    head: int


class Page(NamedTuple):
    """What one read found, in order; everything up to `position` was looked at; `expired` were past their TTL."""

    items: list[Message | Gap]
    position: int
    expired: list[int]


class Blocks(NamedTuple):
    """What one read found, as columns; everything up to `position` was looked at; `expired` were past their TTL."""

    blocks: list[Block]
    position: int
    expired: list[int]


class Picked(NamedTuple):
    """The messages found, in order, and the numbers of those that are not there or expired; the rest was not looked at."""

    messages: dict[int, Message]
    gone: list[int]


class Counted(NamedTuple):
    """How many messages matched; everything up to `position` was looked at."""

    matched: int
    position: int


class Retained(NamedTuple):
    """One page of last values; `after` continues."""

    messages: list[Message]
    after: str | None


class Reader:
    """Reads of committed data. Every method runs in the reader thread and raises StoreError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the database that the writer has opened before."""
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            for pragma in (
                "query_only = ON",
                "wal_autocheckpoint = 0",
                "mmap_size = 0",
                f"cache_size = -{CACHE_KIB}",
                "trusted_schema = OFF",
            ):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.Error as exc:
            self.close()
            raise store_error(exc, self._path) from exc

    def close(self) -> None:
        """Close; before the writer does."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def read(self, part: Range, most: int, most_bytes: int, now_ms: int) -> Page:
        """At most `most` matching messages of the range, with the gaps between them."""
        stream, number, topic_filter, after, head = part
        items: list[Message | Gap] = []
        gone: list[int] = []
        position = after
        room_bytes = most_bytes
        for chunk in self._chunks(number, after + 1, head):
            if chunk.first_seq > position + 1:
                items += self._gaps(stream, number, position + 1, chunk.first_seq - 1)
            flags = [matches(topic_filter, topic) for topic in chunk.topics]
            expired = set(chunk.expired(now_ms))
            for message in chunk.messages(stream, chunk.places(flags, after)):
                if message.seq > head or most <= 0 or room_bytes <= 0:
                    return Page(items, message.seq - 1, gone)
                if message.seq - chunk.first_seq in expired:
                    gone.append(message.seq)
                    _add_expired(items, message)
                else:
                    items.append(message)
                    most -= 1
                    room_bytes -= len(message.payload)
                position = message.seq
            position = chunk.last_seq
            if most <= 0 or room_bytes <= 0:
                return Page(items, position, gone)
        if position < head and not self._has_chunk(number, position + 1, head):
            items += self._gaps(stream, number, position + 1, head)
            position = head
        return Page(items, position, gone)

    def blocks(self, part: Range, most: int, most_bytes: int, now_ms: int) -> Blocks:
        """What matches in a few chunks of the range, as blocks of at most `most` messages and `most_bytes`."""
        _, number, topic_filter, after, head = part
        whole: Block | None = None
        expired: list[int] = []
        position = after
        for chunk in self._chunks(number, after + 1, head, BLOCK_CHUNKS):
            flags = [matches(topic_filter, topic) for topic in chunk.topics]
            places = chunk.places(flags, after)
            if chunk.last_seq > head:
                places = [i for i in places if chunk.first_seq + i <= head]
            gone = set(chunk.expired(now_ms))
            if gone:
                expired += [chunk.first_seq + i for i in places if i in gone]
                places = [i for i in places if i not in gone]
            if places:
                block = Block.of_chunk(chunk, places)
                if whole is None:
                    whole = block
                else:
                    whole.extend(block)
            position = min(chunk.last_seq, head)
        if position < head and not self._has_chunk(number, position + 1, head):
            position = head
        return Blocks([] if whole is None else whole.pieces(most, most_bytes), position, expired)

    def count(self, part: Range) -> Counted:
        """How many messages of the range match, a few chunks at a time."""
        _, number, topic_filter, after, head = part
        matched, position = 0, after
        for chunk in self._chunks(number, after + 1, head):
            places = chunk.places([matches(topic_filter, topic) for topic in chunk.topics], after)
            matched += sum(1 for i in places if chunk.first_seq + i <= head)
            position = chunk.last_seq
        if position < head and not self._has_chunk(number, position + 1, head):
            position = head
        return Counted(matched, min(position, head))

    def pick(self, stream: str, number: int, seqs: Iterable[int], most_bytes: int, now_ms: int) -> Picked:
        """These messages, as far as they are stored and not expired; `seqs` ascending. One at least, then `most_bytes`."""
        picked = Picked({}, [])
        chunk: Chunk | None = None
        expired: frozenset[int] = frozenset()
        room_bytes = most_bytes
        for seq in seqs:
            if chunk is None or seq > chunk.last_seq:
                chunk = next(iter(self._chunks(number, seq, seq)), None)
                expired = frozenset() if chunk is None else frozenset(chunk.expired(now_ms))
            if chunk is None or not chunk.first_seq <= seq <= chunk.last_seq or seq - chunk.first_seq in expired:
                picked.gone.append(seq)
                continue
            message = next(chunk.messages(stream, [seq - chunk.first_seq]))
            room_bytes -= len(message.payload) + len(message.topic)
            if room_bytes < 0 and picked.messages:
                break
            picked.messages[seq] = message
        return picked

    def seq_at(self, number: int, time_ms: int, first: int, head: int) -> int:
        """The first message that arrived at `time_ms` or later, else head + 1. By halving: chunks are in order of arrival."""
        low, high, found = first, head + 1, head + 1
        while low < high:
            middle = (low + high) // 2
            row = self._row(
                "SELECT id, count, t1_ms FROM chunk WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
                (row_id(number, middle), row_id(number + 1, 0)),
            )
            if row is None or seq_of(row[0]) > head:
                high = middle
            elif row[2] >= time_ms:
                high, found = middle, seq_of(row[0])
            else:
                low = seq_of(row[0]) + row[1]
        for chunk in self._chunks(number, found, min(found, head)):
            for message in chunk.messages("", range(chunk.count)):
                if message.time_ms >= time_ms:
                    return message.seq
        return found

    def retained(self, topic_filter: str, stream_names: dict[int, str], after: str | None, now_ms: int, most: int) -> Retained:
        """Last values whose topic matches, in the order of topics."""
        literal = "+" not in topic_filter and "#" not in topic_filter
        prefix = topic_filter if literal else topic_filter.split("+", maxsplit=1)[0].split("#", maxsplit=1)[0]
        first = prefix if literal else prefix.removesuffix("/")  # `a/#` matches `a`
        columns = "topic, stream, seq, time_ms, content_type, source_us, expires_ms, payload"
        sql = (_RETAINED_FROM if after is None else _RETAINED_AFTER).format(columns)
        messages: list[Message] = []
        size_bytes = 0
        with closing(self._rows(sql, (first if after is None else max(after, first),))) as rows:
            for topic, number, seq, time_ms, content_type, source_us, expires_ms, payload in rows:
                if (literal and topic != prefix) or not topic.startswith(first):
                    break
                size_bytes += len(payload)  # of what does not match as well: it was read, and a read is short
                if matches(topic_filter, topic) and (expires_ms is None or expires_ms > now_ms):
                    messages.append(
                        Message(stream_names.get(number, ""), seq, topic, time_ms, content_type, payload, source_us, expires_ms)
                    )
                if len(messages) >= most or size_bytes >= READ_BYTES:
                    return Retained(messages, topic)
        return Retained(messages, None)

    def _chunks(self, number: int, first: int, last: int, most: int = READ_CHUNKS) -> list[Chunk]:
        """The chunks from the one that holds `first`, as many as one read may hold."""
        chunks: list[Chunk] = []
        size_bytes = 0
        values = (row_id(number, first), row_id(number, 0), row_id(number, last), most)
        with closing(self._rows(_CHUNKS_FROM, values)) as rows:
            for (data,) in rows:
                chunks.append(Chunk(data))
                size_bytes += len(data)
                if size_bytes >= READ_BYTES:
                    break
        return chunks

    def _has_chunk(self, number: int, first: int, last: int) -> bool:
        row = self._row("SELECT 1 FROM chunk WHERE id >= ? AND id <= ? LIMIT 1", (row_id(number, first), row_id(number, last)))
        return row is not None

    def _gaps(self, stream: str, number: int, first: int, last: int) -> list[Gap]:
        rows = self._rows(
            "SELECT first, last, reason FROM gap WHERE stream = ? AND last >= ? AND first <= ? ORDER BY first",
            (number, first, last),
        )
        clipped = [(max(a, first), min(b, last), reason) for a, b, reason in rows]
        return [Gap(stream, a, b, b - a + 1, reason) for a, b, reason in clipped]

    def _row(self, sql: str, values: tuple[int | str, ...]) -> tuple[Any, ...] | None:
        with closing(self._rows(sql, values)) as rows:
            return next(rows, None)

    def _rows(self, sql: str, values: tuple[int | str, ...]) -> Generator[tuple[Any, ...], None, None]:
        """Holds a read transaction until it is closed."""
        if self._db is None:
            raise StoreError("store_closed", "the store is closed")
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as exc:
            raise store_error(exc, self._path) from exc


def _add_expired(items: list[Message | Gap], message: Message) -> None:
    last = items[-1] if items else None
    if isinstance(last, Gap) and last.reason == "ttl":
        items[-1] = Gap(last.stream, last.first, message.seq, last.messages + 1, "ttl")
    else:
        items.append(Gap(message.stream, message.seq, message.seq, 1, "ttl"))

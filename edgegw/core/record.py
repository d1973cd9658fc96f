"""Messages, and the chunk: the unit in which a stream lies on disk.

A chunk holds the messages of one stream that one commit brought, in order, as columns:

    offset  size  field
    0       2     magic "EC"
    2       1     format version, 1
    3       1     codec of the body: 0 = as it is
    4       4     CRC-32 (IEEE, little endian) of all bytes from offset 8
    8       …     msgpack array, see COLUMNS

Columns instead of records: one `packb` call for a thousand messages instead of a thousand, and 2.5 bytes of overhead for a
100-byte message instead of about 15. A chunk explains itself (stream, base sequence, time, topics): what can be read at all
can be salvaged without the rest of the database.

COLUMNS: stream number, epoch, base sequence, count, arrival of the first in wall-clock ms, boot number, monotonic ms,
marks, topic names, topic index, arrival runs, content types, content type index, payloads, source times, expiries, origins.

    marks          {consumer number: messages it matched in all, after this chunk}: the ledger rides in the chunk
    index          0 = all the first name; bytes or list = one number a message
    arrival runs   [count, ms since the first, count, ms, …]
    source times   null, or a list of µs since 1970 or null
    expiries       null, or a list of wall-clock ms or null
    origins        null, or {index: [consumer, deliveries, reason]} for dead letters
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack

from edgegw.errors import StoreError

MAGIC = b"EC"
VERSION = 1
HEAD_BYTES = 8
JSON = "application/json"
OCTETS = "application/octet-stream"


class Origin(NamedTuple):
    """Where a dead letter comes from."""

    consumer: str
    deliveries: int
    reason: str


class Message(NamedTuple):
    """One stored message. Times: wall-clock ms, and µs since 1970 for the producer's own."""

    stream: str
    seq: int
    topic: str
    time_ms: int
    content_type: str
    payload: bytes
    source_us: int | None = None
    expires_ms: int | None = None
    origin: Origin | None = None


class Gap(NamedTuple):
    """So many `messages` between `first` and `last` are gone; `reason` as in the ledger."""

    stream: str
    first: int
    last: int
    messages: int
    reason: str


class Batch:
    """What one publisher wants stored in one stream, all or nothing: parallel columns, None = no message has one."""

    __slots__ = ("content_types", "expires_ms", "keys", "origins", "payloads", "retain", "size_bytes", "source_us", "topics")

    def __init__(
        self,
        topics: list[str],
        payloads: list[bytes],
        content_types: list[str] | str,
        *,
        keys: list[str | None] | None = None,
        retain: list[int] | None = None,
        source_us: list[int | None] | None = None,
        expires_ms: list[int | None] | None = None,
        origins: list[Origin] | None = None,
    ) -> None:
        self.topics = topics
        self.payloads = payloads
        self.content_types = content_types
        self.keys = keys
        self.retain = retain
        self.source_us = source_us
        self.expires_ms = expires_ms
        self.origins = origins
        self.size_bytes = (
            sum(map(len, payloads)) + RECORD_BYTES * len(payloads) + _names_bytes(topics) + _names_bytes(content_types)
        )
        if source_us is not None:
            self.size_bytes += TIME_BYTES * len(payloads)
        if expires_ms is not None:
            self.size_bytes += TIME_BYTES * len(payloads)
        if origins is not None:
            self.size_bytes += sum(len(origin.consumer) + len(origin.reason) + TIME_BYTES for origin in origins)

    def __len__(self) -> int:
        return len(self.topics)

    def content_type(self, i: int) -> str:
        """The content type of message `i`."""
        return self.content_types if isinstance(self.content_types, str) else self.content_types[i]

    def only(self, keep: list[int]) -> "Batch":
        """The messages at the places `keep`."""
        types = self.content_types
        retain = None if self.retain is None else set(self.retain)
        return Batch(
            [self.topics[i] for i in keep],
            [self.payloads[i] for i in keep],
            types if isinstance(types, str) else [types[i] for i in keep],
            keys=None if self.keys is None else [self.keys[i] for i in keep],
            retain=None if retain is None else [n for n, i in enumerate(keep) if i in retain],
            source_us=None if self.source_us is None else [self.source_us[i] for i in keep],
            expires_ms=None if self.expires_ms is None else [self.expires_ms[i] for i in keep],
            origins=None if self.origins is None else [self.origins[i] for i in keep],
        )


# What a message costs on disk beyond its payload when nothing is special about it; an estimate for the bounds before encoding.
RECORD_BYTES = 8
# A number of msgpack with its marker: a time of its own, or the place and count of a dead letter.
TIME_BYTES = 9


class ChunkBuilder:
    """Collects batches of one stream for one commit."""

    __slots__ = (
        "_expires",
        "_origins",
        "_runs",
        "_sources",
        "_topic_numbers",
        "_topic_of",
        "_type_numbers",
        "_type_of",
        "count",
        "first_seq",
        "payloads",
        "size_bytes",
        "t0_ms",
        "t1_ms",
    )  # fmt: skip

    def __init__(self, first_seq: int, t0_ms: int) -> None:
        self.first_seq = first_seq
        self.t0_ms = self.t1_ms = t0_ms
        self.count = 0
        self.size_bytes = 0
        self.payloads: list[bytes] = []
        self._topic_numbers: dict[str, int] = {}
        self._topic_of: list[int] = []
        self._type_numbers: dict[str, int] = {}
        self._type_of: list[int] = []
        self._runs: list[int] = []
        self._sources: list[int | None] | None = None
        self._expires: list[int | None] | None = None
        self._origins: dict[int, Origin] | None = None

    def add(self, batch: Batch, time_ms: int) -> None:
        """Append the batch, arrived at `time_ms`."""
        before, n = self.count, len(batch.topics)
        self.count = before + n
        self.size_bytes += batch.size_bytes
        self.payloads += batch.payloads
        _number(self._topic_numbers, self._topic_of, batch.topics, n)
        _number(self._type_numbers, self._type_of, batch.content_types, n)
        self._runs += (n, time_ms - self.t0_ms)
        self.t1_ms = max(self.t1_ms, time_ms)
        self._sources = _sparse(self._sources, batch.source_us, before, n)
        self._expires = _sparse(self._expires, batch.expires_ms, before, n)
        if batch.origins is not None:
            self._origins = self._origins or {}
            self._origins.update(enumerate(batch.origins, before))

    def topics(self) -> dict[str, int]:
        """Each topic with its number of messages."""
        if len(self._topic_numbers) == 1:
            return dict.fromkeys(self._topic_numbers, self.count)
        counts = [0] * len(self._topic_numbers)
        for number in self._topic_of:
            counts[number] += 1
        return dict(zip(self._topic_numbers, counts, strict=True))

    def expires_ms(self) -> int | None:
        """None: no message has a TTL; 0: some have; else all have, and this is when the last one expires."""
        if self._expires is None:
            return None
        known = [at for at in self._expires if at is not None]
        return max(known) if len(known) == self.count else 0

    def encode(self, *, stream_number: int, epoch: int, boot: int, mono_ms: int, marks: dict[int, int]) -> bytes:
        """The chunk's bytes."""
        columns = (
            stream_number, epoch, self.first_seq, self.count, self.t0_ms, boot, mono_ms, marks,
            list(self._topic_numbers), _index(self._topic_of, len(self._topic_numbers)), self._runs,
            list(self._type_numbers), _index(self._type_of, len(self._type_numbers)), self.payloads,
            self._sources, self._expires, self._origins,
        )  # fmt: skip
        body: bytes = msgpack.packb(columns)
        return b"%b%c%c%b%b" % (MAGIC, VERSION, 0, zlib.crc32(body).to_bytes(4, "little"), body)


class Chunk:
    """A chunk as read back. Raises StoreError(chunk_corrupt) when its bytes are not what was written."""

    __slots__ = (
        "_expires",
        "_origins",
        "_runs",
        "_sources",
        "_topic_of",
        "_type_of",
        "_types",
        "boot",
        "count",
        "epoch",
        "first_seq",
        "marks",
        "mono_ms",
        "payloads",
        "stream_number",
        "t0_ms",
        "topics",
    )  # fmt: skip

    def __init__(self, blob: bytes) -> None:
        if len(blob) < HEAD_BYTES or blob[:2] != MAGIC or blob[2] != VERSION or blob[3] != 0:
            raise StoreError("chunk_corrupt", "a chunk does not begin as a chunk does")
        body = memoryview(blob)[HEAD_BYTES:]
        if zlib.crc32(body) != int.from_bytes(blob[4:8], "little"):
            raise StoreError("chunk_corrupt", "the CRC-32 of a chunk does not match its bytes")
        (
            self.stream_number, self.epoch, self.first_seq, self.count, self.t0_ms, self.boot, self.mono_ms, self.marks,
            self.topics, self._topic_of, self._runs, self._types, self._type_of, self.payloads,
            self._sources, self._expires, self._origins,
        ) = msgpack.unpackb(body, strict_map_key=False)  # fmt: skip

    @property
    def last_seq(self) -> int:
        """Sequence number of the last message."""
        return int(self.first_seq + self.count - 1)

    def topic_of(self, i: int) -> str:
        """Topic of the message at place `i`."""
        return str(self.topics[self._topic_of[i] if self._topic_of else 0])

    def expired(self, now_ms: int) -> list[int]:
        """Places of the messages whose TTL has passed."""
        if self._expires is None:
            return []
        return [i for i, at in enumerate(self._expires) if at is not None and at <= now_ms]

    def expire_by_ms(self, places: Iterable[int]) -> int | None:
        """When the last of the messages at `places` expires; None when one never does."""
        if self._expires is None:
            return None
        times = [self._expires[i] for i in places]
        return None if None in times else max(times)

    def places(self, wanted_topics: Iterable[bool], after_seq: int) -> Sequence[int]:
        """Places of the messages after `after_seq` whose topic's flag (in the order of `topics`) is set."""
        flags = list(wanted_topics)
        start = max(0, after_seq + 1 - self.first_seq)
        if not self._topic_of:
            return range(start, self.count) if flags[0] else ()
        if all(flags):
            return range(start, self.count)
        topic_of = self._topic_of
        return [i for i in range(start, self.count) if flags[topic_of[i]]]

    def columns(self) -> tuple[list[str], list[str], list[int], list[int | None] | None]:
        """Topics, content types, times in µs (the producer's, else the arrival) and expiries of all messages."""
        topics, topic_of, types, type_of, runs = self.topics, self._topic_of, self._types, self._type_of, self._runs
        times_us: list[int] = []
        for count, ms in zip(runs[::2], runs[1::2], strict=True):
            times_us += [(self.t0_ms + ms) * 1000] * count
        if self._sources is not None:
            times_us = [time_us if us is None else us for time_us, us in zip(times_us, self._sources, strict=True)]
        return (
            [topics[i] for i in topic_of] if topic_of else topics * self.count,
            [types[i] for i in type_of] if type_of else types * self.count,
            times_us,
            self._expires,
        )

    def messages(self, stream: str, places: Iterable[int]) -> Iterator[Message]:
        """The messages at `places` (ascending)."""
        runs, run_end, run_ms, run = self._runs, 0, 0, 0
        topics, topic_of, types, type_of = self.topics, self._topic_of, self._types, self._type_of
        sources, expires, origins = self._sources, self._expires, self._origins
        for i in places:
            while i >= run_end:
                run_end += runs[run]
                run_ms = runs[run + 1]
                run += 2
            origin: Any = origins.get(i) if origins is not None else None
            yield Message(
                stream,
                self.first_seq + i,
                topics[topic_of[i] if topic_of else 0],
                self.t0_ms + run_ms,
                types[type_of[i] if type_of else 0],
                self.payloads[i],
                sources[i] if sources is not None else None,
                expires[i] if expires is not None else None,
                Origin(*origin) if origin is not None else None,
            )


def _number(numbers: dict[str, int], index: list[int], names: list[str] | str, n: int) -> None:
    if isinstance(names, str):
        index += [numbers.setdefault(names, len(numbers))] * n
    elif n == 1:
        index.append(numbers.setdefault(names[0], len(numbers)))
    else:
        for name in dict.fromkeys(names):
            numbers.setdefault(name, len(numbers))
        index += map(numbers.__getitem__, names)


def _names_bytes(names: list[str] | str) -> int:
    if isinstance(names, str):
        return len(names)
    return len(names[0]) if len(names) == 1 else sum(map(len, set(names)))


def _sparse(column: list[int | None] | None, added: list[int | None] | None, before: int, n: int) -> list[int | None] | None:
    if added is None:
        if column is not None:
            column += [None] * n
        return column
    return (column if column is not None else [None] * before) + added


def _index(index: list[int], distinct: int) -> int | bytes | list[int]:
    if distinct == 1:
        return 0
    return bytes(index) if distinct <= 256 else index

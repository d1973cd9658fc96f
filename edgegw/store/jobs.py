"""What the loop asks of the writer thread, and what a commit tells the loop."""

from asyncio import Future
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edgegw.config import StreamConfig
from edgegw.core.cursor import ACKED, Ledger, Terms
from edgegw.core.record import Batch
from edgegw.errors import GatewayError


class Job:
    """One all-or-nothing part of a commit. The writer sets `error` or the job's result; the loop then resolves `future`."""

    __slots__ = ("error", "future", "size_bytes")

    def __init__(self, size_bytes: int = 0) -> None:
        self.error: GatewayError | None = None
        self.future: Future[None] | None = None
        self.size_bytes = size_bytes


class Span(NamedTuple):
    """Who counts, and the range of its numbers that a batch stands for; `seqs` has the number of each message."""

    origin: str
    first: int
    last: int
    seqs: list[int]


class Part:
    """One stream's share of a publish. Result: `first_seq`; with keys also `seqs` and `repeats`, one for each message."""

    __slots__ = ("batch", "first_seq", "places", "repeats", "seqs", "stream", "time_ms")

    def __init__(self, stream: str, batch: Batch, time_ms: int, places: Sequence[int] | None = None) -> None:
        self.stream = stream
        self.batch = batch
        self.time_ms = time_ms
        self.places = places  # of its messages in what the publisher sent; None = a single message
        self.first_seq = 0
        self.seqs: list[int] | None = None
        self.repeats: list[bool] | None = None


class Publish(Job):
    """Store all parts (each of another stream), or none; with a `span`, what did not come before. Result: `repeats`."""

    __slots__ = ("parts", "repeats", "span")

    def __init__(self, parts: list[Part], span: Span | None = None) -> None:
        super().__init__(sum(part.batch.size_bytes for part in parts))
        self.parts = parts
        self.span = span
        self.repeats = 0  # messages of the span that were stored already


class Receipt(NamedTuple):
    """Durable: message `seq` of `stream`; `is_repeat` when its key came before and nothing new was stored."""

    stream: str
    seq: int
    is_repeat: bool


class Tray(Publish):
    """Single messages that arrived in one stream within one loop iteration: parallel columns, and a future for each."""

    __slots__ = ("content_types", "futures", "payloads", "room_bytes", "stream", "time_ms", "topics")

    def __init__(self, stream: str, time_ms: int, room_bytes: int) -> None:
        super().__init__([])
        self.topics: list[str] = []
        self.payloads: list[bytes] = []
        self.content_types: list[str] = []
        self.futures: list[Future[Receipt]] = []
        self.stream = stream
        self.time_ms = time_ms
        self.room_bytes = room_bytes

    def seal(self) -> int:
        """Nothing more comes in; its size in bytes."""
        batch = Batch(self.topics, self.payloads, self.content_types)
        self.parts = [Part(self.stream, batch, self.time_ms)]
        self.size_bytes = batch.size_bytes
        return batch.size_bytes

    def resolve(self) -> None:
        """The commit came back: tell each publisher."""
        if self.error is not None:
            for future in self.futures:
                if not future.done():
                    future.set_exception(self.error)
            return
        stream, seq = self.stream, self.parts[0].first_seq
        make = tuple.__new__  # NamedTuple's own constructor costs as much as the future
        for future in self.futures:
            if not future.done():
                future.set_result(make(Receipt, (stream, seq, False)))
            seq += 1


class Settle(Job):
    """Settle `seqs` (ascending) of a consumer, as ACKED, DEAD (with the `letters` this makes), or lost for the reason `how`."""

    __slots__ = ("deliveries", "floor", "gaps", "how", "letters", "number", "seqs", "spans")

    def __init__(
        self,
        number: int,
        seqs: list[int],
        floor: int,
        how: str = ACKED,
        gaps: Collection[int] = (),
        spans: Collection[tuple[int, int, Sequence[int]]] = (),
    ) -> None:
        super().__init__()
        self.number = number
        self.seqs = seqs
        self.floor = floor
        self.how = how
        self.gaps = gaps  # that were read, by their last
        self.spans = spans  # first, last, and what is settled between them: nothing else there is wanted
        self.deliveries: dict[int, int] = {}
        self.letters: Part | None = None


class Create(Job):
    """Make a consumer that matched `matched` messages in (`floor`, `counted`]; the writer counts what came since."""

    __slots__ = ("counted", "evictions", "floor", "ledger", "matched", "terms")

    def __init__(self, terms: Terms, floor: int, counted: int, matched: int, evictions: int) -> None:
        super().__init__()
        self.terms = terms
        self.floor = floor
        self.counted = counted
        self.matched = matched
        self.evictions = evictions  # of the stream, before the counting began: if it changed since, count again
        self.ledger: Ledger | None = None


class Change(Job):
    """Give a consumer new terms (same stream and filter)."""

    __slots__ = ("number", "terms")

    def __init__(self, number: int, terms: Terms) -> None:
        super().__init__()
        self.number = number
        self.terms = terms


class Delete(Job):
    """Remove a consumer."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Tick(Job):
    """Look after age, TTL, keys and the WAL; also how the watchdog sees that the writer lives."""


class Configure(Job):
    """Work with these streams: new ones are made, with a part of `free_bytes`; those not among them are kept, read-only."""

    __slots__ = ("free_bytes", "streams")

    def __init__(self, streams: Sequence[StreamConfig], free_bytes: int) -> None:
        super().__init__()
        self.streams = streams
        self.free_bytes = free_bytes


class StreamStats(NamedTuple):
    """A stream's ledger and bounds, as committed."""

    name: str
    number: int
    head: int
    rows: int
    size_bytes: int
    first: int
    oldest_ms: int | None
    removed: dict[str, int]
    evictions: int
    bytes_max: int
    rows_max: int
    age_max_s: float
    policy: str
    is_configured: bool


@dataclass(slots=True)
class Outcome:
    """What one commit changed."""

    streams: dict[str, StreamStats] = field(default_factory=dict)
    ledgers: dict[int, Ledger | None] = field(default_factory=dict)  # None = deleted
    epoch: str = ""  # of the store, when it was opened: no other has it, and none of its numbers is used twice in it
    error: GatewayError | None = None  # of the commit as a whole: nothing of it happened
    full: dict[str, GatewayError] = field(default_factory=dict)  # streams that refused a publish
    is_configured: bool = False  # streams came, left, or have other bounds
    wal_bytes: int = 0
    commit_us: int = 0
    written_bytes: int = 0

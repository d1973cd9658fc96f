"""A stream as the writer knows it, and the SQL for its chunks' row numbers."""

from copy import copy
from dataclasses import dataclass, field

from edgegw.core.keys import KeyIndex
from edgegw.core.topic import FilterIndex
from edgegw.store.jobs import StreamStats

SEQ_BITS = 48
DEAD_LETTER = "dead-letter"


def row_id(stream_number: int, seq: int) -> int:
    """The row number of a chunk or key block that begins with `seq`."""
    return stream_number << SEQ_BITS | seq


def seq_of(row: int) -> int:
    """The sequence number in a row number."""
    return row & ((1 << SEQ_BITS) - 1)


@dataclass(slots=True)
class StreamState:
    """Everything about a stream that a commit may change; copied before a turn touches it, put back if the commit fails."""

    name: str
    number: int
    bytes_max: int
    rows_max: int
    age_max_s: float
    policy: str
    is_configured: bool
    head: int = 0  # last sequence number given
    total_bytes: int = 0  # of all chunks ever
    removed_bytes: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    first: int = 1  # no stored message comes before this one
    oldest_ms: int | None = None  # arrival of the newest message in the oldest chunk
    evictions: int = 0  # counts removals of chunks, for whoever must notice one
    # Where eviction under `hold` looks. All chunks before `scan_from` are gone, or a consumer held them when they were looked at,
    # except those with messages from `scan_first` to `scan_last`, which were settled since. At `scan_again_ms` a TTL frees one.
    scan_from: int = 0
    scan_first: int = 0
    scan_last: int = -1
    scan_again_ms: int | None = None
    is_over: bool = False  # its bounds were lowered under what it holds, and eviction has more to do
    key_count: int = 0
    keys: KeyIndex | None = None  # None = not loaded yet
    consumers: FilterIndex[int] = field(default_factory=FilterIndex)  # shared by the copies: not changed by publishes

    @property
    def rows(self) -> int:
        """Messages stored: what was received less what was removed."""
        return self.head - sum(self.removed.values())

    @property
    def size_bytes(self) -> int:
        """Bytes stored."""
        return self.total_bytes - self.removed_bytes

    def look_again(self, first: int, last: int) -> None:
        """A consumer settled some of these: their chunks may go now."""
        if self.scan_first <= self.scan_last:
            first, last = min(first, self.scan_first), max(last, self.scan_last)
        self.scan_first, self.scan_last = first, last

    def look_at_all(self) -> None:
        """Any chunk may go now."""
        self.scan_from, self.scan_first, self.scan_last, self.scan_again_ms = 0, 0, -1, None

    @property
    def is_beyond(self) -> bool:
        """Whether it holds more than its bounds allow."""
        return self.size_bytes > self.bytes_max or 0 < self.rows_max < self.rows

    def copy(self) -> "StreamState":
        """What to put back when the commit fails."""
        kept = copy(self)
        kept.removed = dict(self.removed)
        return kept

    def stats(self) -> StreamStats:
        """What the loop may see."""
        return StreamStats(
            self.name, self.number, self.head, self.rows, self.size_bytes, self.first, self.oldest_ms if self.rows else None,
            dict(self.removed), self.evictions, self.bytes_max, self.rows_max, self.age_max_s, self.policy, self.is_configured,
        )  # fmt: skip

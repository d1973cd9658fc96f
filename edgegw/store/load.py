"""Streams as a start finds them: two rows looked at for each, whatever the backlog."""

import sqlite3
from collections.abc import Sequence

from edgegw.config import StreamConfig
from edgegw.core.record import Chunk
from edgegw.errors import StoreError
from edgegw.limits import DEAD_LETTER_BYTES_MAX, STREAM_BYTES_MAX, STREAM_BYTES_MIN, STREAMS_MAX
from edgegw.store.streams import DEAD_LETTER, StreamState, row_id, seq_of


def stream_rows(db: sqlite3.Connection) -> list[tuple[str, int, int, int, int]]:
    """Name, number, the bytes it was made with, head and total bytes of every stream."""
    return db.execute("SELECT name, number, bytes_max, head, total_bytes FROM stream").fetchall()


def new_stream(name: str, number: int) -> StreamState:
    """A stream without messages and, until `bound` gives it some, without bounds."""
    return StreamState(name=name, number=number, bytes_max=0, rows_max=0, age_max_s=0, policy="", is_configured=False)


def make_streams(db: sqlite3.Connection, configured: Sequence[StreamConfig], free_bytes: int) -> list[str]:
    """Make those that are not there yet; returns their names. Raises StoreError(too_many_streams) before it makes any."""
    known = {name for (name,) in db.execute("SELECT name FROM stream")}
    new = [config for config in configured if config.name not in known]
    if new and len(known) + len(new) > STREAMS_MAX:
        raise StoreError(
            "too_many_streams",
            f"the store holds {len(known)} streams, and with {len(new)} more they would be over {STREAMS_MAX}",
            "drop one that left the configuration",
        )
    for config in new:
        ceiling = DEAD_LETTER_BYTES_MAX if config.name == DEAD_LETTER else STREAM_BYTES_MAX
        bytes_max = config.bytes_max or max(STREAM_BYTES_MIN, min(ceiling, free_bytes // 4))
        db.execute("INSERT INTO stream (name, bytes_max) VALUES (?, ?)", (config.name, bytes_max))
    return [config.name for config in new]


def bound(st: StreamState, config: StreamConfig | None, made_with: int) -> None:
    """Give the stream the bounds of its configuration; `made_with` are the bytes it was made with.

    One that left the configuration keeps its data: no bound evicts it, nothing is routed to it.
    """
    st.is_configured = config is not None
    config = config or StreamConfig(name=st.name, age_max_s=0)
    st.bytes_max = config.bytes_max or made_with
    st.rows_max, st.age_max_s, st.policy = config.rows_max, config.age_max_s, config.policy


def load_streams(db: sqlite3.Connection, configured: Sequence[StreamConfig], free_bytes: int) -> dict[str, StreamState]:
    """All streams of the store; makes those that are configured and not there yet. Raises StoreError(too_many_streams)."""
    streams: dict[str, StreamState] = {}
    make_streams(db, configured, free_bytes)
    configs = {config.name: config for config in configured}
    for name, number, made_with, head, total_bytes in stream_rows(db):
        st = streams[name] = new_stream(name, number)
        st.head, st.total_bytes = head, total_bytes
        bound(st, configs.get(name), made_with)
        for reason, rows, size in db.execute("SELECT reason, rows, bytes FROM removed WHERE stream = ?", (number,)).fetchall():
            st.removed_bytes += size
            if rows:
                st.removed[reason] = rows
    return streams


def load_head(db: sqlite3.Connection, st: StreamState) -> dict[int, int]:
    """Fill in what the newest and the oldest chunk say; returns the newest one's marks."""
    bounds = (row_id(st.number, 0), row_id(st.number + 1, 0))
    query = "SELECT id, count, t1_ms, total_bytes, data FROM chunk WHERE id >= ? AND id < ? ORDER BY id {} LIMIT 1"
    newest = db.execute(query.format("DESC"), bounds).fetchone()
    if newest is None:
        st.first = st.head + 1
        return {}
    st.head = max(st.head, seq_of(newest[0]) + newest[1] - 1)
    st.total_bytes = max(st.total_bytes, newest[3])
    oldest = db.execute(query.format(""), bounds).fetchone()
    st.first, st.oldest_ms = seq_of(oldest[0]), oldest[2]
    return dict(Chunk(newest[4]).marks)

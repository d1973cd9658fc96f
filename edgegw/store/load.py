"""Streams as a start finds them: two rows looked at for each, whatever the backlog."""

import sqlite3
from collections.abc import Sequence

from edgegw.config import StreamConfig
from edgegw.core.record import Chunk
from edgegw.errors import StoreError
from edgegw.limits import DEAD_LETTER_BYTES_MAX, STREAM_BYTES_MAX, STREAM_BYTES_MIN, STREAMS_MAX
from edgegw.store.streams import DEAD_LETTER, StreamState, row_id, seq_of


def load_streams(db: sqlite3.Connection, configured: Sequence[StreamConfig], free_bytes: int) -> dict[str, StreamState]:
    """All streams of the store; makes those that are configured and not there yet. Raises StoreError(too_many_streams)."""
    streams: dict[str, StreamState] = {}
    known = {row[1]: row for row in db.execute("SELECT number, name, bytes_max, head, total_bytes FROM stream").fetchall()}
    for config in configured:
        if config.name not in known:
            ceiling = DEAD_LETTER_BYTES_MAX if config.name == DEAD_LETTER else STREAM_BYTES_MAX
            bytes_max = config.bytes_max or max(STREAM_BYTES_MIN, min(ceiling, free_bytes // 4))
            if len(known) >= STREAMS_MAX:
                raise StoreError(
                    "too_many_streams",
                    f"the store holds {STREAMS_MAX} streams already",
                    "drop one that left the configuration",
                )
            number = db.execute("INSERT INTO stream (name, bytes_max) VALUES (?, ?)", (config.name, bytes_max)).lastrowid
            known[config.name] = (number, config.name, bytes_max, 0, 0)
    configs = {config.name: config for config in configured}
    for number, name, bytes_max, head, total_bytes in known.values():
        # One that left the configuration keeps its data: no bound evicts it, nothing is routed to it.
        config = configs.get(name) or StreamConfig(name=name, age_max_s=0)
        st = StreamState(
            name=name, number=number, bytes_max=config.bytes_max or bytes_max, rows_max=config.rows_max,
            age_max_s=config.age_max_s, policy=config.policy, is_configured=name in configs, head=head, total_bytes=total_bytes,
        )  # fmt: skip
        for reason, rows, size in db.execute("SELECT reason, rows, bytes FROM removed WHERE stream = ?", (number,)):
            st.removed_bytes += size
            if rows:
                st.removed[reason] = rows
        streams[name] = st
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

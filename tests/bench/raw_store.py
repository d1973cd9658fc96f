"""Limits of the store: SQLite alone, FULL, 1,000 messages a commit. `python -m tests.bench.raw_store rows|chunks FOLDER SECONDS`.

Both checkpoint as the gateway does: PASSIVE, when the WAL has grown as far.
"""

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edgegw.core.record import OCTETS, Batch, ChunkBuilder
from edgegw.limits import WAL_CHECKPOINT_BYTES
from edgegw.store.migrate import migrate

MESSAGES = 1000
PAYLOAD_BYTES = 100
_TOPICS = 10
_WARM_S = 0.5
_PAGE_BYTES = 4096
_MIGRATIONS = Path(__file__).parent.parent.parent / "migrations" / "bus"


def messages() -> tuple[list[str], list[bytes]]:
    """Topics and payloads of one batch; the same for every limit and for the gateway."""
    topics = [f"bench/sensor/{i % _TOPICS}" for i in range(MESSAGES)]
    return topics, [f"{i:0{PAYLOAD_BYTES}d}".encode() for i in range(MESSAGES)]


def rows(db: sqlite3.Connection) -> Callable[[], None]:
    """A commit that inserts a row for each message."""
    db.execute("CREATE TABLE message (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)")
    batch = list(zip(*messages(), strict=True))

    def commit() -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO message (topic, payload) VALUES (?, ?)", batch)
        db.execute("COMMIT")

    return commit


def chunks(db: sqlite3.Connection) -> Callable[[], None]:
    """A commit that encodes a chunk and inserts it."""
    migrate(db, _MIGRATIONS)
    topics, payloads = messages()
    place = 1

    def commit() -> None:
        nonlocal place
        now_ms = time.time_ns() // 1_000_000
        builder = ChunkBuilder(place, now_ms)
        builder.add(Batch(topics, payloads, OCTETS), now_ms)
        data = builder.encode(stream_number=1, epoch=1, boot=1, mono_ms=now_ms, marks={})
        db.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)", (place, MESSAGES, now_ms, now_ms, 0, None, data))
        place += MESSAGES

    return commit


def measure(
    prepare: Callable[[sqlite3.Connection], Callable[[], None]], folder: Path, seconds: float, warm_s: float = _WARM_S
) -> float:
    """Messages a second."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        db = sqlite3.connect(Path(place, "raw.db"), isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = FULL").fetchall()
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_BYTES // _PAGE_BYTES}").fetchall()
        commit = prepare(db)
        _repeat(commit, warm_s)
        started = time.perf_counter()
        commits = _repeat(commit, seconds)
        per_s = commits * MESSAGES / (time.perf_counter() - started)
        db.close()
    return per_s


def _repeat(commit: Callable[[], None], seconds: float) -> int:
    until, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        commit()
        count += 1
    return count


if __name__ == "__main__":
    kind, where, how_long = sys.argv[1:]
    print(json.dumps({"per_s": measure({"rows": rows, "chunks": chunks}[kind], Path(where), float(how_long))}))

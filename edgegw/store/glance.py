"""A look at a store from outside, whether a gateway holds it or not: nothing is written, no lock is taken, nothing takes long."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from edgegw.errors import StoreError
from edgegw.store.faults import store_error
from edgegw.store.streams import row_id

_MAGIC = b"SQLite format 3\0"


class Glance(NamedTuple):
    """What is there: sizes on disk, streams, and the arrival of the newest message, None where there is none."""

    size_bytes: int
    wal_bytes: int
    min_reader: int
    streams: int
    newest_ms: int | None


def glance(path: Path) -> Glance:
    """Open the database for reading alone. Raises StoreError; FileNotFoundError where there is none yet, PermissionError."""
    wal = path.with_name(f"{path.name}-wal")
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
        size_bytes = path.stat().st_size
        wal_bytes = wal.stat().st_size if wal.exists() else 0
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise StoreError("store_unusable", f"{path} cannot be read: {error.strerror}", "ask as root or as its owner") from error
    if magic and magic != _MAGIC:
        raise StoreError("store_damaged", f"{path} is not a database", "keep a copy, and restore it")
    try:
        with _opened(path, has_wal=wal_bytes > 0) as db:
            min_reader = db.execute("SELECT value FROM meta WHERE name = 'min_reader'").fetchone()[0]
            numbers = [number for (number,) in db.execute("SELECT number FROM stream")]
            newest_ms = max((time_ms for number in numbers if (time_ms := _newest_ms(db, number)) is not None), default=None)
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    return Glance(size_bytes, wal_bytes, min_reader, len(numbers), newest_ms)


@contextmanager
def _opened(path: Path, *, has_wal: bool) -> Iterator[sqlite3.Connection]:
    # Without a WAL there is nothing that could change under us, and SQLite need not make files beside it, which would be ours.
    how = "mode=ro" if has_wal else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as db:
        db.execute("PRAGMA query_only = 1")
        yield db


def _newest_ms(db: sqlite3.Connection, number: int) -> int | None:
    query = "SELECT t1_ms FROM chunk WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1"
    row = db.execute(query, (row_id(number, 0), row_id(number + 1, 0))).fetchone()
    return None if row is None else int(row[0])

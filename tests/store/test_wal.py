"""The log is copied when it is large, waits for readers when it must, and a failure is tried again."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgegw.limits import WAL_BYTES_MAX, WAL_CHECKPOINT_BYTES
from edgegw.store.wal import FRAME_BYTES, Wal


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
        for pragma in ("journal_mode = WAL", "wal_autocheckpoint = 0", "busy_timeout = 10"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("CREATE TABLE t (data BLOB)")
        yield connection


def write(db: sqlite3.Connection, wal: Wal, size_bytes: int) -> None:
    db.execute("INSERT INTO t VALUES (zeroblob(?))", (size_bytes,))
    wal.add(size_bytes // 4000 + 2)


def test_a_small_log_is_left_alone(db: sqlite3.Connection) -> None:
    wal = Wal(db, 0)
    write(db, wal, WAL_CHECKPOINT_BYTES // 2)
    wal.checkpoint()
    assert wal.size_bytes > WAL_CHECKPOINT_BYTES // 2


def test_a_large_one_is_copied(db: sqlite3.Connection) -> None:
    wal = Wal(db, 0)
    write(db, wal, WAL_CHECKPOINT_BYTES)
    wal.checkpoint()
    assert wal.size_bytes == 0


def test_a_reader_holds_it_and_the_next_try_waits_for_as_much_again(db: sqlite3.Connection, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchall()
        wal = Wal(db, 0)
        write(db, wal, WAL_BYTES_MAX)
        wal.checkpoint()
        held_bytes = wal.size_bytes
        assert held_bytes > WAL_BYTES_MAX
        write(db, wal, 4000)
        wal.checkpoint()
        assert wal.size_bytes == held_bytes + 3 * FRAME_BYTES, "not at every commit"
        reader.execute("ROLLBACK")
    write(db, wal, WAL_CHECKPOINT_BYTES)
    wal.checkpoint()
    assert wal.size_bytes == 0


def test_a_checkpoint_that_fails_is_tried_again(db: sqlite3.Connection) -> None:
    wal = Wal(db, WAL_CHECKPOINT_BYTES)
    db.close()
    wal.checkpoint()
    assert wal.size_bytes > WAL_CHECKPOINT_BYTES - FRAME_BYTES

"""Migrations: forward only, whole or not at all; a database of a newer release is opened where that release allows it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.errors import StoreError
from edgegw.store.migrate import migrate
from tests.bus_setup import MIGRATIONS

FIRST = "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);\nINSERT INTO meta VALUES ('min_reader', 1);\n"
SECOND = "-- Adds b; see below.\nCREATE TABLE b (x TEXT DEFAULT ';');\n\nCREATE TABLE c (x);\n"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(":memory:", isolation_level=None)
    yield found
    found.close()


def write(folder: Path, **scripts: str) -> Path:
    for name, text in scripts.items():
        (folder / f"{name.removeprefix('m')}.sql").write_text(text)
    return folder


def tables(db: sqlite3.Connection) -> list[str]:
    return [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]


def version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_a_new_database_gets_every_step_in_order(db: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("not a step")
    assert migrate(db, write(tmp_path, m0002_b=SECOND, m0001_a=FIRST)) == 2
    assert (tables(db), version(db)) == (["b", "c", "meta"], 2)


def test_an_old_database_gets_what_it_lacks_once(db: sqlite3.Connection, tmp_path: Path) -> None:
    assert migrate(db, write(tmp_path, m0001_a=FIRST)) == 1
    db.execute("INSERT INTO meta VALUES ('kept', 7)")
    assert migrate(db, write(tmp_path, m0002_b=SECOND)) == 2
    assert migrate(db, tmp_path) == 2
    assert db.execute("SELECT value FROM meta WHERE name = 'kept'").fetchone() == (7,)


def test_a_step_that_fails_leaves_nothing_behind(db: sqlite3.Connection, tmp_path: Path) -> None:
    write(tmp_path, m0001_a=FIRST, m0002_b=SECOND + "INSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(db, tmp_path)
    assert (tables(db), version(db), db.in_transaction) == (["meta"], 1, False)
    assert migrate(db, write(tmp_path, m0002_b=SECOND)) == 2


def test_a_step_that_ends_inside_a_statement_is_refused_whole(db: sqlite3.Connection, tmp_path: Path) -> None:
    write(tmp_path, m0001_a=FIRST + "CREATE TABLE x (y\n")
    with pytest.raises(StoreError) as caught:
        migrate(db, tmp_path)
    assert caught.value.code == "bad_migration"
    assert (tables(db), version(db)) == ([], 0)


def test_a_comment_may_end_a_step(db: sqlite3.Connection, tmp_path: Path) -> None:
    assert migrate(db, write(tmp_path, m0001_a=FIRST + "\n-- The end.\n")) == 1


def test_a_database_that_older_releases_must_not_open_is_refused(db: sqlite3.Connection, tmp_path: Path) -> None:
    migrate(db, write(tmp_path, m0001_a=FIRST))
    db.execute("PRAGMA user_version = 7")
    db.execute("UPDATE meta SET value = 2 WHERE name = 'min_reader'")
    with pytest.raises(StoreError, match="needs a gateway that knows schema 2; this one knows up to 1") as caught:
        migrate(db, tmp_path)
    assert caught.value.code == "schema_newer"


def test_a_database_that_is_merely_newer_is_opened(db: sqlite3.Connection, tmp_path: Path) -> None:
    migrate(db, write(tmp_path, m0001_a=FIRST))
    db.execute("PRAGMA user_version = 7")
    assert migrate(db, tmp_path) == 7
    assert version(db) == 7


def test_the_steps_of_the_journal(db: sqlite3.Connection) -> None:
    names = sorted(path.name for path in MIGRATIONS.iterdir() if path.suffix == ".sql")
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert migrate(db, MIGRATIONS) == len(names)
    assert db.execute("SELECT value FROM meta WHERE name = 'min_reader'").fetchone()[0] <= len(names)

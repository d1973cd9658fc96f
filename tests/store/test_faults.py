"""What SQLite says, as the caller hears it."""

import sqlite3
from pathlib import Path

import pytest

from edgegw.errors import StoreError, StoreFull
from edgegw.store.faults import store_error

PATH = Path("data/bus.db")


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("SQLITE_FULL", StoreFull, "store_full"),
        ("SQLITE_CANTOPEN", StoreError, "store_unusable"),
        ("SQLITE_CANTOPEN_ISDIR", StoreError, "store_unusable"),
        ("SQLITE_READONLY", StoreError, "store_unusable"),
        ("SQLITE_READONLY_DIRECTORY", StoreError, "store_unusable"),
        ("SQLITE_PERM", StoreError, "store_unusable"),
        ("SQLITE_NOTADB", StoreError, "store_damaged"),
        ("SQLITE_CORRUPT", StoreError, "store_damaged"),
        ("SQLITE_CORRUPT_INDEX", StoreError, "store_damaged"),
        ("SQLITE_IOERR_FSYNC", StoreError, "store_failed"),
        ("SQLITE_BUSY", StoreError, "store_failed"),
    ],
)
def test_each_fault_has_its_code_and_a_way_out(name: str, kind: type[StoreError], code: str) -> None:
    exc = sqlite3.OperationalError("words of SQLite")
    exc.sqlite_errorname = name
    error = store_error(exc, PATH)
    assert (type(error), error.code) == (kind, code)
    assert "bus.db" in error.what
    assert error.hint


def test_an_error_without_a_name() -> None:
    assert store_error(sqlite3.ProgrammingError("Cannot operate on a closed database."), PATH).code == "store_failed"

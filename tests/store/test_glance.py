"""A look at a store from outside: while it is written, after a kill, after a stop; and at what is no store."""

import os
from pathlib import Path

import pytest

from edgegw.errors import StoreError
from edgegw.store.glance import glance
from tests.bus_setup import START_MS, Shelf


def files(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_while_it_is_open_and_after_a_kill(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.clock.pass_s(5)
    shelf.publish(b"x")
    before = files(tmp_path)
    found = glance(tmp_path / "bus.db")
    assert (found.min_reader, found.streams, found.newest_ms) == (1, len(shelf.streams), START_MS + 5000)
    assert found.wal_bytes > 0
    assert files(tmp_path) == before
    shelf.publish(b"y")  # it was not locked out
    shelf.writer.abandon()
    assert glance(tmp_path / "bus.db").newest_ms == START_MS + 5000


def test_after_a_stop_it_leaves_nothing_behind(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.writer.close()
    assert files(tmp_path) == {"bus.db"}
    found = glance(tmp_path / "bus.db")
    assert (found.newest_ms, found.wal_bytes) == (None, 0)
    assert found.size_bytes > 4096
    assert files(tmp_path) == {"bus.db"}


def test_none_yet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        glance(tmp_path / "bus.db")


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"x" * 5000, b""])
def test_what_is_no_store(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bus.db"
    path.write_bytes(content)
    with pytest.raises(StoreError):
        glance(path)
    assert path.read_bytes() == content


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bus.db").mkdir()
    with pytest.raises(StoreError) as caught:
        glance(tmp_path / "bus.db")
    assert caught.value.hint

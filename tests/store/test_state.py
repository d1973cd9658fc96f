"""state.db: tokens come back as they were kept, for whoever owns the folder, and a damaged file is told of."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

import edgegw
from edgegw.core.access import Token
from edgegw.errors import StoreError
from edgegw.store.state import StateFile

MIGRATIONS = Path(edgegw.__file__).parent / "migrations" / "state"
PUMP = Token("pump", b"d" * 32, ("publish", "admin"), ("a/#", "ä/+"), 1_700_000_000_000, 1_800_000_000_000)
ALL = Token("all", b"e" * 32, ("subscribe",), (), 5, None)


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state.db", MIGRATIONS)


async def test_without_a_file_there_are_none_and_none_is_made(file: StateFile) -> None:
    assert await file.tokens() == []
    assert not file.path.exists()


async def test_what_is_kept_comes_back(file: StateFile) -> None:
    await file.put_token(PUMP)
    await file.put_token(ALL)
    assert sorted(await StateFile(file.path, MIGRATIONS).tokens()) == [ALL, PUMP]
    changed = PUMP._replace(digest=b"f" * 32, topics=())
    await file.put_token(changed)
    assert sorted(await file.tokens()) == [ALL, changed]
    await file.remove_token("pump")
    await file.remove_token("pump")
    assert await file.tokens() == [ALL]


async def test_only_its_owner_reads_it(file: StateFile) -> None:
    await file.put_token(ALL)
    assert file.path.stat().st_mode & 0o777 == 0o600


async def test_a_change_is_on_disk_when_it_is_answered(file: StateFile) -> None:
    db = await asyncio.to_thread(file._connect)
    assert db.execute("PRAGMA synchronous").fetchone() == (3,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


async def test_what_root_makes_belongs_to_the_owner_of_the_folder(file: StateFile) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files for others")
    os.chown(file.path.parent, 12_345, 23_456)
    await file.put_token(ALL)
    assert (file.path.stat().st_uid, file.path.stat().st_gid) == (12_345, 23_456)


async def test_a_damaged_file_is_told_of(file: StateFile) -> None:
    file.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"state\.db cannot be used: file is not a database") as caught:
        await file.tokens()
    assert caught.value.code == "state_failed"


async def test_a_file_of_a_newer_release_is_told_of(file: StateFile) -> None:
    await file.put_token(ALL)
    db = sqlite3.connect(file.path)
    db.execute("UPDATE meta SET value = 99")
    db.commit()
    db.close()
    with pytest.raises(StoreError) as caught:
        await file.tokens()
    assert caught.value.code == "schema_newer"

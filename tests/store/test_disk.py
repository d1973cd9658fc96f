"""The data folder: made whole, held by one process, and each fault told with a way out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgegw.errors import ConfigError, StoreError
from edgegw.store import disk
from edgegw.store.disk import DataFolder, sync_folder

HOLD = """
import sys
from pathlib import Path
from edgegw.store.disk import DataFolder
DataFolder(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_it_is_made_with_its_parents_and_their_names_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync_folder", lambda path: synced.append(path) or sync_folder(path))
    folder = DataFolder(tmp_path / "a" / "b")
    folder.acquire()
    assert (tmp_path / "a" / "b" / "lock").read_text() == f"{os.getpid()}\n"
    assert set(synced) == {tmp_path, tmp_path / "a"}
    folder.release()
    synced.clear()
    folder.acquire()
    assert synced == []
    folder.release()


def test_a_second_owner_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first, second = DataFolder(tmp_path), DataFolder(tmp_path)
    first.acquire()
    with pytest.raises(StoreError, match=f"process {os.getpid()}") as caught:
        second.acquire()
    assert caught.value.code == "data_folder_in_use"
    second.release()  # holds nothing, releases nothing
    with pytest.raises(StoreError):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        folder = DataFolder(tmp_path)
        with pytest.raises(StoreError, match=f"process {process.pid}"):
            folder.acquire()
        process.kill()
        process.wait()
        folder.acquire()
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
    folder.release()


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    held, other = DataFolder(tmp_path), DataFolder(tmp_path)
    held.acquire()
    with pytest.raises(StoreError):
        other.acquire()
    sync_folder(tmp_path)
    held.release()
    assert descriptors() == before


def test_a_path_through_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        DataFolder(tmp_path / "file" / "data").acquire()
    assert caught.value.code == "data_folder"
    assert "a part of the path is a file" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        DataFolder(tmp_path / "data").acquire()
    assert "write access" in caught.value.hint


def test_free_space(tmp_path: Path) -> None:
    assert 0 < DataFolder(tmp_path).free_bytes() < 2**60


def test_a_lock_that_root_makes_keeps_no_owner_out(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files for others")
    os.chown(tmp_path, 12_345, 23_456)
    folder = DataFolder(tmp_path)
    folder.acquire()
    folder.release()
    lock = (tmp_path / "lock").stat()
    assert (lock.st_uid, lock.st_gid) == (12_345, 23_456)

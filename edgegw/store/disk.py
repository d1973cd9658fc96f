"""The data folder: made, checked, and held by one process at a time."""

import errno
import fcntl
import os
from pathlib import Path

from edgegw.errors import ConfigError, StoreError

_LOCK = "lock"


class DataFolder:
    """Holds `DATA/lock` from `acquire` to `release`; the kernel releases it when the process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Make the folder and lock it. Raises ConfigError(data_folder), StoreError(data_folder_in_use)."""
        try:
            made = [place for place in (self.path, *self.path.parents) if not place.exists()]
            self.path.mkdir(mode=0o750, parents=True, exist_ok=True)
            for place in made:  # a power cut must not take the folder with all that is in it
                sync_folder(place.parent)
            is_new = not (self.path / _LOCK).exists()
            fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            if is_new:
                give_to_owner(self.path / _LOCK)
        except OSError as exc:
            raise ConfigError(
                "data_folder",
                f"the data folder {self.path} cannot be used: {exc.strerror}",
                _HINTS.get(exc.errno or 0, "set gateway.data or --data"),
            ) from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreError(
                "data_folder_in_use",
                f"the data folder {self.path} is held by another gateway, process {owner}",
                "stop it first, or give this one another folder with --data",
            ) from exc
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._fd = fd

    def release(self) -> None:
        """Let go; doing it twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def free_bytes(self) -> int:
        """Space that this user may still fill."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


_HINTS = {
    errno.EACCES: "give this user write access to it, or choose another with gateway.data or --data",
    errno.EPERM: "give this user write access to it, or choose another with gateway.data or --data",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENOSPC: "the file system is full",
}


def give_to_owner(path: Path) -> None:
    """What root makes in somebody's folder belongs to that somebody: a command of root's must not lock the gateway out."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync_folder(path: Path) -> None:
    """Make new names in the folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""The Unix socket of the API: a file that outlives its gateway.

One that nobody answers on is replaced, one that somebody answers on never. Where it is not in the data folder, a link there
points to it, so that a command which knows the data folder finds its gateway.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final

from edgegw.errors import ConfigError, GatewayError
from edgegw.limits import LISTEN_BACKLOG, SOCKET_FOLDER_S, UNIX_PATH_BYTES_MAX
from edgegw.observe.log import Log

_log = Log(__name__)
SOCKET_NAME: Final = "edgegw.sock"
RUN_FOLDER: Final = Path("/run/edgegw")
# Its members may do all that the gateway's own user may.
GROUP: Final = "edgegw"
_MODE = 0o660
_HINT = "choose another place with http.socket"


class UnixSocket:
    """A listening socket with its file. Raises ConfigError(bad_socket_path), GatewayError(socket_in_use, cannot_listen)."""

    def __init__(self, path: Path, data: Path) -> None:
        self._path = path
        self._link = data / SOCKET_NAME
        size_bytes = len(os.fsencode(path))
        if size_bytes > UNIX_PATH_BYTES_MAX:
            raise ConfigError(
                "bad_socket_path",
                f"the path of the Unix socket {path} has {size_bytes} bytes, more than {UNIX_PATH_BYTES_MAX}",
                "set http.socket to a shorter one",
            )
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _alone_in(path.parent):
                _clear_stale(path)
                self._bind()
            self._inode = path.stat().st_ino
        except OSError as exc:
            self.sock.close()
            raise GatewayError("cannot_listen", f"cannot listen on {path}: {exc.strerror or exc}", _HINT) from exc
        except GatewayError:
            self.sock.close()
            raise

    def close(self, *, is_kept: bool = False) -> None:
        """Close it, and take its file away unless a supervisor keeps it for the next gateway."""
        self.sock.close()
        if not is_kept:
            self.remove()

    def remove(self) -> None:
        """Take its file and the link to it away."""
        try:
            if self._is_elsewhere() and self._link.is_symlink() and self._link.readlink() == self._path.absolute():
                self._link.unlink()
            if self._path.lstat().st_ino == self._inode:  # else somebody took it away and made their own
                self._path.unlink()
        except OSError as exc:
            _log.warning("socket.not_removed", error=exc, path=str(self._path))

    def point(self) -> None:
        """Let the name in the data folder lead to it."""
        if not self._is_elsewhere():
            return
        try:
            if self._link.is_symlink() or self._link.is_socket():  # the folder is ours alone: a dead gateway left it
                self._link.unlink()
            self._link.symlink_to(self._path.absolute())
        except OSError as exc:  # commands then want --socket
            _log.warning("socket.no_link", error=exc, path=str(self._link))

    def _is_elsewhere(self) -> bool:
        return self._path.absolute() != self._link.absolute()

    def _bind(self) -> None:
        before = os.umask(0o777 & ~0o600)  # until its group is known nobody else gets in
        try:
            self.sock.bind(os.fspath(self._path))
        finally:
            os.umask(before)
        gid = group_id()
        if gid is not None:
            try:
                os.chown(self._path, -1, gid)
            except PermissionError:  # neither root nor a member
                _log.warning("socket.not_for_group", path=str(self._path), group=GROUP)
        self._path.chmod(_MODE)
        self.sock.listen(LISTEN_BACKLOG)


def group_id() -> int | None:
    """The group whose members own the gateway, if this machine has it."""
    import grp

    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two that start at once look for a stale file one after the other: a socket that does not listen yet looks stale.

    Whoever may read the folder may hold its lock, so it is not waited for without end: then it is as it was without one.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # not for us to read, or not there: binding says what matters of that
        yield
        return
    try:
        give_up_s = time.monotonic() + SOCKET_FOLDER_S
        while not _is_locked(fd) and time.monotonic() < give_up_s:
            Event().wait(SOCKET_FOLDER_S / 100)
        yield
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody has it, or the file system knows no locks
        return False
    return True


def _clear_stale(path: Path) -> None:
    """Remove what a dead gateway left. Raises GatewayError(socket_in_use) when it is not dead, or no socket."""
    if path.is_symlink() and path.name == SOCKET_NAME:  # a gateway with its socket elsewhere
        path.unlink()
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise GatewayError("socket_in_use", f"{path} is there, and is no socket", _HINT)
    if is_answering(path):
        raise GatewayError("socket_in_use", f"another gateway listens on {path}", f"stop it first, or {_HINT}")
    path.unlink()


def is_answering(path: Path) -> bool:
    """Whether somebody listens there. Raises OSError when that cannot be known."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:  # its backlog is full
            return True
    return True

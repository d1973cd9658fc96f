"""The Unix socket's file: its mode, what a dead gateway left, what a live one has, and the link to it."""

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from edgegw.api import unix_socket
from edgegw.api.unix_socket import SOCKET_NAME, UnixSocket, group_id
from edgegw.errors import ConfigError, GatewayError
from edgegw.limits import UNIX_PATH_BYTES_MAX


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    yield folder


def code(path: Path, data: Path) -> str:
    with pytest.raises(GatewayError) as caught:
        UnixSocket(path, data)
    return caught.value.code


def test_its_life(data: Path) -> None:
    path = data / SOCKET_NAME
    found = UnixSocket(path, data)
    found.point()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    found.close()
    assert os.listdir(data) == []


def test_the_mask_of_the_process_stays(data: Path) -> None:
    before = os.umask(0o027)
    try:
        UnixSocket(data / SOCKET_NAME, data).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_it_is_for_the_group(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to any group")
    monkeypatch.setattr(unix_socket, "group_id", lambda: 23_456)
    found = UnixSocket(data / SOCKET_NAME, data)
    assert (data / SOCKET_NAME).stat().st_gid == 23_456
    found.close()


def test_what_a_dead_gateway_left_is_replaced(data: Path) -> None:
    path = data / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    found = UnixSocket(path, data)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    found.close()


def test_what_a_live_gateway_has_is_left_alone(data: Path) -> None:
    path = data / SOCKET_NAME
    live = UnixSocket(path, data)
    assert code(path, data) == "socket_in_use"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    live.close()


def test_a_live_gateway_whose_backlog_is_full_is_live(data: Path) -> None:
    path = data / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        live.bind(str(path))
        live.listen(0)
        for client in (first, second):
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        assert code(path, data) == "socket_in_use"


def test_of_two_that_start_at_once_one_has_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    both_look = threading.Barrier(2)
    look = unix_socket.is_answering

    def slow_look(at: Path) -> bool:
        with suppress(threading.BrokenBarrierError):
            both_look.wait(0.2)  # without the lock of the folder both find it stale
        return look(at)

    monkeypatch.setattr(unix_socket, "is_answering", slow_look)
    with ThreadPoolExecutor(2) as pool:
        tried = [pool.submit(UnixSocket, path, data) for _ in range(2)]
    faults = [each.exception() for each in tried]
    assert sorted(fault.code for fault in faults if isinstance(fault, GatewayError)) == ["socket_in_use"]
    (found,) = (each.result() for each in tried if each.exception() is None)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    found.close()


def test_a_folder_whose_lock_somebody_holds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "SOCKET_FOLDER_S", 0.05)
    fd = os.open(data, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    UnixSocket(data / SOCKET_NAME, data).close()
    os.close(fd)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_socket_is_left_alone(data: Path, kind: str) -> None:
    path = data / SOCKET_NAME
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    assert code(path, data) == "socket_in_use"
    assert path.exists()


def test_a_folder_that_is_not_there(data: Path) -> None:
    assert code(data / "none" / "x.sock", data) == "cannot_listen"


def test_the_longest_path(data: Path) -> None:
    longest = data / ("x" * (UNIX_PATH_BYTES_MAX - len(str(data)) - 1))
    UnixSocket(longest, data).close()
    with pytest.raises(ConfigError, match=f"has {UNIX_PATH_BYTES_MAX + 1} bytes, more than {UNIX_PATH_BYTES_MAX}") as caught:
        UnixSocket(longest.with_name(longest.name + "x"), data)
    assert caught.value.code == "bad_socket_path"


def test_a_socket_elsewhere_is_found_from_the_data_folder(data: Path, tmp_path: Path) -> None:
    link = data / SOCKET_NAME
    for _ in range(2):  # the second time over what a killed gateway left
        killed = UnixSocket(tmp_path / "run.sock", data)
        killed.point()
        assert link.readlink() == tmp_path / "run.sock"
        killed.sock.close()
    UnixSocket(link, data).close()  # the next one has its socket here
    assert os.listdir(data) == []


def test_a_kept_socket_keeps_its_file(data: Path) -> None:
    found = UnixSocket(data / SOCKET_NAME, data)
    found.close(is_kept=True)
    assert (data / SOCKET_NAME).is_socket()


def test_the_file_of_another_is_not_removed(data: Path) -> None:
    path = data / SOCKET_NAME
    first = UnixSocket(path, data)
    path.unlink()
    second = UnixSocket(path, data)
    first.close()
    assert path.is_socket()
    second.close()


def test_a_machine_without_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_socket, "GROUP", "no-such-group")
    assert group_id() is None
    monkeypatch.setattr(unix_socket, "GROUP", "root")
    assert group_id() == 0

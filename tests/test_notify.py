"""The supervisor's protocol, against a real datagram socket and real descriptors."""

import array
import asyncio
import fcntl
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.errors import ConfigError, StoreError
from edgegw.limits import LISTEN_FDS_MAX
from edgegw.notify import Supervisor, Watchdog
from tests.virtual_time import pass_time, run_virtual

PID = 4711
# Descriptors that the test itself makes, out of the way of others.
HIGH_FD = 700


class Ear:
    """The supervisor's end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.environ = {"NOTIFY_SOCKET": address}

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def hear_with_fds(self) -> tuple[str, list[int]]:
        message, rights, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for _, _, data in rights:
            fds.frombytes(data)
        return message.decode(), list(fds)

    def is_silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    ear = Ear(str(tmp_path / "n"))
    yield ear
    ear.socket.close()


@pytest.fixture
def high_fds() -> Iterator[list[int]]:
    """Two listening sockets at HIGH_FD and the next, inheritable as a supervisor leaves them."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        for number, made in enumerate((one, two)):
            os.dup2(made.fileno(), HIGH_FD + number, inheritable=True)
        yield [HIGH_FD, HIGH_FD + 1]
        for number in range(2):
            try:
                os.close(HIGH_FD + number)
            except OSError:
                continue


def test_what_is_said(ear: Ear) -> None:
    supervisor = Supervisor.from_environ(ear.environ, PID)
    assert supervisor
    for act, heard in (
        (supervisor.ready, "READY=1"),
        (supervisor.alive, "WATCHDOG=1"),
        (supervisor.stopping, "STOPPING=1"),
        (lambda: supervisor.status("two\nlines"), "STATUS=two lines"),
    ):
        assert act()
        assert ear.hear() == heard


def test_an_abstract_name() -> None:
    ear = Ear(f"@edgegw-test-{os.getpid()}")
    assert Supervisor.from_environ(ear.environ, PID).ready()
    assert ear.hear() == "READY=1"
    ear.socket.close()


def test_a_stored_socket_is_the_same_socket(ear: Ear) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert Supervisor.from_environ(ear.environ, PID).store("http", server)
        message, fds = ear.hear_with_fds()
        assert message == "FDSTORE=1\nFDNAME=http"
        with socket.socket(fileno=fds[0]) as kept:
            server.close()
            assert kept.getsockname()[1] > 0
            with socket.create_connection(kept.getsockname()):
                kept.accept()[0].close()


def test_a_reload_and_a_socket_that_is_given_up(ear: Ear) -> None:
    supervisor = Supervisor.from_environ(ear.environ, PID)
    assert supervisor.reloading(1_234_567)
    assert ear.hear() == "RELOADING=1\nMONOTONIC_USEC=1234567"
    assert supervisor.forget("http")
    assert ear.hear() == "FDSTOREREMOVE=1\nFDNAME=http"


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "ü", "x" * 256])
def test_names_that_a_supervisor_refuses(ear: Ear, name: str) -> None:
    with socket.socket() as kept, pytest.raises(AssertionError):
        Supervisor.from_environ(ear.environ, PID).store(name, kept)


def test_without_a_supervisor() -> None:
    supervisor = Supervisor.from_environ({}, PID)
    assert not supervisor
    assert supervisor.watchdog_s is None
    assert supervisor.take_sockets() == {}
    assert not supervisor.ready()
    with socket.socket() as kept:
        assert not supervisor.store("http", kept)


def test_a_supervisor_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = Supervisor.from_environ({"NOTIFY_SOCKET": str(tmp_path / "gone")}, PID)
    assert not supervisor.ready()
    assert [record.message for record in caplog.records] == ["supervisor.unreachable"]


def test_a_supervisor_that_does_not_listen(ear: Ear) -> None:
    supervisor = Supervisor.from_environ(ear.environ, PID)
    sent = 0
    while supervisor.alive():  # until its queue is full; then each message gives up after a while
        sent += 1
    assert sent > 0
    assert ear.hear() == "WATCHDOG=1"
    assert supervisor.alive()


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(PID)}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_interval(environ: dict[str, str], watchdog_s: float | None) -> None:
    assert Supervisor.from_environ({"NOTIFY_SOCKET": "@x", **environ}, PID).watchdog_s == watchdog_s
    assert Supervisor.from_environ(environ, PID).watchdog_s is None  # nobody to tell


def test_sockets_are_taken_by_name(high_fds: list[int]) -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http:mqtt"}
    taken = Supervisor.from_environ(environ, PID, HIGH_FD).take_sockets()
    assert {name: [sock.fileno() for sock in socks] for name, socks in taken.items()} == {
        "http": [HIGH_FD],
        "mqtt": [HIGH_FD + 1],
    }
    for sock in (taken["http"][0], taken["mqtt"][0]):
        assert fcntl.fcntl(sock.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        sock.close()


@pytest.mark.parametrize(("names", "key"), [({}, "unknown"), ({"LISTEN_FDNAMES": "http:http"}, "http")])
def test_sockets_of_one_name(high_fds: list[int], names: dict[str, str], key: str) -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "2", **names}
    taken = Supervisor.from_environ(environ, PID, HIGH_FD).take_sockets()
    assert list(taken) == [key]
    for sock in taken[key]:
        sock.close()


@pytest.mark.parametrize("environ", [{"LISTEN_FDS": "2"}, {"LISTEN_FDS": "2", "LISTEN_PID": "1"}, {"LISTEN_PID": str(PID)}])
def test_sockets_of_another_process(environ: dict[str, str]) -> None:
    assert Supervisor.from_environ(environ, PID, HIGH_FD).take_sockets() == {}


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({"NOTIFY_SOCKET": "relative/path"}, "NOTIFY_SOCKET"),
        ({"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET"),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1.5"}, "WATCHDOG_USEC"),
        ({"WATCHDOG_USEC": "9" * 20}, "WATCHDOG_USEC"),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "-1"}, "LISTEN_FDS"),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": ""}, "LISTEN_FDS"),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": str(LISTEN_FDS_MAX + 1)}, "LISTEN_FDS"),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "http"}, "LISTEN_FDNAMES has 1 names"),
    ],
)
def test_an_environment_that_is_wrong(environ: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        Supervisor.from_environ(environ, PID)
    assert caught.value.code == "bad_supervisor"


def test_descriptors_that_are_no_sockets(high_fds: list[int], tmp_path: Path) -> None:
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": "3"}
    with pytest.raises(ConfigError, match=f"{HIGH_FD + 2} of LISTEN_FDS is not open"):
        Supervisor.from_environ(environ, PID, HIGH_FD).take_sockets()
    os.fstat(HIGH_FD)  # nothing was taken, and so nothing closed
    with (tmp_path / "file").open("w") as file:
        os.dup2(file.fileno(), HIGH_FD + 1)
    with pytest.raises(ConfigError, match=f"{HIGH_FD + 1} of LISTEN_FDS is not a socket"):
        Supervisor.from_environ(environ, PID, HIGH_FD).take_sockets()


# What a supervisor does in the child: descriptor 3, the child's own id, then the program.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""
_PROGRAM = """
import os
from edgegw.notify import Supervisor
server = Supervisor.from_environ(os.environ, os.getpid()).take_sockets()["http"][0]
server.accept()[0].sendall(b"from " + os.environ["LISTEN_PID"].encode())
"""


def test_a_process_that_was_started_with_a_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        descriptor = server.fileno()
        child = subprocess.Popen([sys.executable, "-c", _LAUNCH, str(descriptor), _PROGRAM], pass_fds=[descriptor])
        try:
            with socket.create_connection(server.getsockname(), timeout=20) as connection:
                assert connection.recv(100) == f"from {child.pid}".encode()
            assert child.wait(20) == 0
        finally:
            child.kill()
            child.wait()


# --- watchdog ------------------------------------------------------------------------------------


def test_a_live_gateway_tells_twice_an_interval(ear: Ear) -> None:
    async def probe() -> None:
        await pass_time(0.1)

    async def main() -> None:
        watchdog = Watchdog(Supervisor.from_environ(ear.environ, PID), 10, probe)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watchdog.run())
            for _ in range(5):
                await pass_time(0.2)
                assert ear.hear() == "WATCHDOG=1"
                assert ear.is_silent()
                await pass_time(4.8)
            task.cancel()

    run_virtual(main())


def test_a_writer_that_stands_still_is_not_covered_up(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        is_stuck, answer = False, asyncio.Event()

        async def probe() -> None:
            if is_stuck:
                await answer.wait()

        watchdog = Watchdog(Supervisor.from_environ(ear.environ, PID), 10, probe)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watchdog.run())
            await pass_time(1)
            assert ear.hear() == "WATCHDOG=1"
            is_stuck = True
            await pass_time(30)
            assert ear.is_silent()
            assert [record.message for record in caplog.records] == ["watchdog.no_progress"] * 2
            answer.set()  # late, but the supervisor let us live
            await pass_time(0.1)
            assert ear.hear() == "WATCHDOG=1"
            task.cancel()

    with caplog.at_level(logging.ERROR):
        run_virtual(main())


def test_a_store_that_refuses_is_no_progress(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    async def probe() -> None:
        raise StoreError("store_failed", "the writer has stopped")

    async def main() -> None:
        watchdog = Watchdog(Supervisor.from_environ(ear.environ, PID), 10, probe)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watchdog.run())
            await pass_time(12)
            task.cancel()
        assert ear.is_silent()

    run_virtual(main())
    assert [record.message for record in caplog.records] == ["watchdog.probe_failed"] * 3

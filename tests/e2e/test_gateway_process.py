"""The gateway as a process: exit codes, the one line for each refusal, the supervisor's sockets, and a stop under load."""

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gateway_in_process import Ear
from tests.gateway_process import TREE, GatewayProcess

PLAIN = "import sys; sys.modules['uvloop'] = None; from edgegw.cli import main; raise SystemExit(main(sys.argv[1:]))"
PROGRAMS = {"asyncio": ("-c", PLAIN)} | ({"uvloop": ("-m", "edgegw")} if find_spec("uvloop") else {})
CLIENTS = 8
RECEIPTS = 500
WAIT_S = 30


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Sequence[str]:
    """The gateway on each loop."""
    return PROGRAMS[request.param]


# --- stops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(tmp_path: Path, program: Sequence[str], number: int) -> None:
    with GatewayProcess(tmp_path / "data", program=program) as gateway:
        assert gateway.url in gateway.log.splitlines()
        assert gateway.stop(number) == 0
        lines = [line for line in gateway.log.splitlines() if line != gateway.url]
        assert [json.loads(line)["event"] for line in lines][-2:] == ["gateway.stopping", "gateway.stopped"]


class Client(threading.Thread):
    """Publishes on one connection until it ends; keeps what was acknowledged."""

    def __init__(self, port: int, number: int, enough: threading.Semaphore) -> None:
        super().__init__()
        self._port = port
        self._number = number
        self._enough = enough
        self.receipts: dict[int, str] = {}
        self.refusals: list[tuple[int, bytes]] = []

    def run(self) -> None:
        """Until the connection ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_S)
        with suppress(ConnectionError, http.client.HTTPException):
            while True:
                payload = f"{self._number}-{len(self.receipts)}"
                connection.request("POST", "/v1/topics/load", payload)
                response = connection.getresponse()
                body = response.read()
                if response.status == 201:
                    self.receipts[json.loads(body)["seq"]] = payload
                    self._enough.release()
                else:
                    self.refusals.append((response.status, body))
                if response.headers["Connection"] == "close":
                    break
        connection.close()


def test_a_stop_under_load_loses_nothing(tmp_path: Path, program: Sequence[str]) -> None:
    with GatewayProcess(tmp_path / "data", program=program) as gateway:
        enough = threading.Semaphore(0)
        clients = [Client(gateway.port, number, enough) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(RECEIPTS):
            assert enough.acquire(timeout=WAIT_S)
        assert gateway.stop() == 0
        for client in clients:
            client.join(WAIT_S)
            assert not client.is_alive()
            assert client.refusals == []
        with pytest.raises(ConnectionRefusedError):
            gateway.request("GET", "/healthz")
        assert not (gateway.data / "bus.db-wal").exists()
        gateway.start()
        stored: dict[int, str] = {}
        while rows := gateway.request("GET", f"/v1/messages?after={max(stored, default=0)}&limit=1000")[1]:
            stored |= {row["seq"]: row["payload"] for row in rows}
        receipts = {seq: payload for client in clients for seq, payload in client.receipts.items()}
        assert len(receipts) == sum(len(client.receipts) for client in clients) >= RECEIPTS
        assert receipts.items() <= stored.items()
        assert len(stored) - len(receipts) <= CLIENTS  # each may have sent one more, and not have seen its answer


# --- starts that fail ----------------------------------------------------------------------------


def refused(*arguments: str, program: Sequence[str] = ("-m", "edgegw"), launcher: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Run it to its end; the exit code, and what stands on stderr."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEGW_", "NOTIFY_", "LISTEN_"))}
    command = [*launcher, sys.executable, *program, "run", *arguments]
    done = subprocess.run(command, cwd=TREE, env=environ, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        code, lines = refused("--data", str(tmp_path), "--listen", listen)
    hint = "stop what listens there, or choose another address with http.listen or --listen"
    assert lines == [f"edgegw: cannot_listen: cannot listen on {listen}: Address already in use ({hint})"]
    assert code == 1


def test_a_second_gateway_on_the_folder(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        code, [line] = refused("--data", str(gateway.data), "--listen", "127.0.0.1:0")
        assert line.startswith(f"edgegw: data_folder_in_use: the data folder {gateway.data} is held by")
        assert f"process {gateway.pid} (" in line
        assert code == 1
        assert gateway.request("POST", "/v1/topics/t", {})[0] == 201  # the first one did not notice


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/in/it"):
        code, [line] = refused("--data", str(tmp_path / place), "--listen", "127.0.0.1:0")
        assert line.startswith(f"edgegw: data_folder: the data folder {tmp_path / place} cannot be used: ")
        assert code == 78


# Everything is imported first: the user without rights may not read the tree.
_NOBODY = """
import os, sys
import edgegw.cli.run, edgegw.gateway
from edgegw.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_data_folder_without_rights(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    code, [line] = refused(
        "--data", str(data), "--listen", "127.0.0.1:0", program=("-c", _NOBODY) if os.geteuid() == 0 else ("-m", "edgegw")
    )
    hint = "give this user write access to it, or choose another with gateway.data or --data"
    assert line == f"edgegw: data_folder: the data folder {data} cannot be used: Permission denied ({hint})"
    assert code == 78


def test_a_newer_schema(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.stop()
    with sqlite3.connect(gateway.data / "bus.db") as db:
        db.execute("UPDATE meta SET value = 999 WHERE name = 'min_reader'")
    db.close()
    code, [line] = refused("--data", str(gateway.data), "--listen", "127.0.0.1:0")
    assert line.startswith("edgegw: schema_newer: the database needs a gateway that knows schema 999; ")
    assert code == 1


def test_faults_in_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "edgegw.toml"
    config.write_text('[gateway]\ndata = 1\n\n[htpp]\nlisten = "x"\n\n[http]\nlisten = "0.0.0.0:80"\n')
    code, lines = refused("--config", str(config))
    assert [line.split(": ")[1:3] for line in lines] == [["config_invalid", f"{config}:{n}"] for n in (2, 4, 8)]
    assert code == 78


def test_a_socket_from_a_supervisor_that_is_not_on_loopback(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as handed:
        gateway = GatewayProcess(tmp_path / "data", program=("-c", _HANDED, str(handed.fileno())), pass_fds=[handed.fileno()])
        gateway.spawn()
        assert gateway.wait() == 78
    assert gateway.log.startswith("edgegw: plaintext_not_allowed: ")
    assert gateway.log.count("\n") == 1


# --- supervisor ----------------------------------------------------------------------------------

# What a supervisor does in the child: descriptors from 3 on, the child's own id, then the program. Argument: FD or UNIX-FD,FD.
_HANDED = """
import fcntl, os, sys
kept = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for place, fd in enumerate(kept, 3):
    os.dup2(fd, place)
names = ["http-unix", "http"][-len(kept):]
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=":".join(names))
os.execv(sys.executable, [sys.executable, "-m", "edgegw", *sys.argv[2:]])
"""


@pytest.mark.parametrize("end", [GatewayProcess.kill, GatewayProcess.stop])
def test_no_connection_is_refused_between_two_lives(tmp_path: Path, end: Callable[[GatewayProcess], object]) -> None:
    with Ear() as ear:
        environ = ear.environ | {"WATCHDOG_USEC": "2000000"}
        with GatewayProcess(tmp_path / "data", environ=environ) as first:
            assert [ear.hear() for _ in range(2)] == ["FDSTORE=1\nFDNAME=http-unix", "FDSTORE=1\nFDNAME=http"]
            assert [ear.hear() for _ in range(3)] == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
            assert first.request("POST", "/v1/topics/t", {"n": 1})[0] == 201
            end(first)
            unix, kept = ear.kept
            last_words = [said for said in ear.heard() if said != "WATCHDOG=1"]
            assert last_words == (["STOPPING=1"] if end is GatewayProcess.stop else [])
        port = first.port
        waiting = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        waiting.request("GET", "/v1/messages?after=0")  # while nobody runs
        owner = socket.socket(socket.AF_UNIX)
        owner.connect(str(first.data / "edgegw.sock"))
        fds = [unix.fileno(), kept.fileno()]
        second = GatewayProcess(
            first.data, port=port, program=("-c", _HANDED, ",".join(map(str, fds))), environ=environ, pass_fds=fds
        )
        second.spawn()
        response = waiting.getresponse()
        assert response.status == 200
        assert [row["payload"] for row in json.loads(response.read())] == [{"n": 1}]
        waiting.close()
        with owner:
            owner.sendall(b"GET /v1/tokens HTTP/1.1\r\nHost: any\r\n\r\n")
            assert owner.recv(1024).startswith(b"HTTP/1.1 200 ")
        assert second.request("GET", "/v1/status")[1]["pid"] == second.pid != 0
        assert [ear.hear() for _ in range(2)] == ["FDSTORE=1\nFDNAME=http-unix", "FDSTORE=1\nFDNAME=http"]  # for the third
        assert ear.hear() == "READY=1"
        assert second.stop() == 0


# --- the store -----------------------------------------------------------------------------------

_BREAKS = """
import sys
from edgegw.cli import main
from edgegw.store.writer import Writer
turn = Writer.turn

def break_down(self, jobs):
    if any(b"break" in payload for job in jobs for payload in getattr(job, "payloads", ())):
        raise RuntimeError("broken on purpose")
    return turn(self, jobs)

Writer.turn = break_down
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_writer_that_dies_ends_the_process(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", program=("-c", _BREAKS)) as gateway:
        assert gateway.request("POST", "/v1/topics/t", "whole")[0] == 201
        status, problem = gateway.request("POST", "/v1/topics/t", "break")
        assert (status, problem["code"]) == (503, "store_failed")
        assert gateway.wait() == 1
        told = [line for line in gateway.log.splitlines() if line.startswith("edgegw: ")]
        what = "the writer of the store failed: RuntimeError('broken on purpose')"
        assert told == [f"edgegw: store_failed: {what} (its log has the trace)"]
        assert "break_down" in next(line for line in gateway.log.splitlines() if "service.crashed" in line)
    with GatewayProcess(gateway.data) as again:
        assert [row["payload"] for row in again.request("GET", "/v1/messages?after=0")[1]] == ["whole"]

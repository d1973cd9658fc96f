"""The processes under measurement: a gateway as users run it, and the bare server that is its limit."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.measure import TREE, BenchError, cpu_ticks, labelled_bytes, plain_environ
from tests.gateway_process import free_port

_MIB = 1024 * 1024
_READY_S = 30.0
_STOP_S = 40.0
_POLL_S = 0.001
# As where uvloop has no wheel: the import fails, and the gateway goes on with plain asyncio.
_WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from edgegw.cli import main; raise SystemExit(main())"


class Server:
    """A child process that answers HTTP on `port`; ended, and its folder removed, with the `with` block."""

    def __init__(self, command: list[str], port: int, folder: Path | None = None) -> None:
        self.port = port
        self._command = command
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        assert self._process is not None
        return self._process.pid

    def start(self, path: str = "/healthz") -> float:
        """Start it; returns the seconds until `path` was answered with 200. Raises BenchError."""
        started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command, cwd=TREE, env=plain_environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not _is_up(self.port, path):
            if self._process.poll() is not None or time.perf_counter() - started > _READY_S:
                raise BenchError(f"no answer within {_READY_S:g} s, or it ended: {' '.join(self._command)}")
            time.sleep(_POLL_S)
        return time.perf_counter() - started

    def stop(self) -> resource.struct_rusage:
        """SIGTERM; what it used in its life. Raises BenchError when it does not end, or badly."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        for _ in range(round(_STOP_S / 0.01)):
            pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                code = self._process.returncode = os.waitstatus_to_exitcode(status)
                self._process = None
                if code:
                    raise BenchError(f"it ended with {code}: {' '.join(self._command)}")
                return used
            time.sleep(0.01)
        raise BenchError(f"it did not end within {_STOP_S:g} s: {' '.join(self._command)}")

    def cpu_s(self) -> float:
        """User and system time so far, of all its threads."""
        return cpu_ticks(self._proc("stat")) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """VmRSS."""
        return labelled_bytes(self._proc("status"), "VmRSS") / _MIB

    def pss_mib(self) -> float:
        """Resident memory with what is shared divided by who shares it; 0 where the kernel does not tell."""
        with suppress(OSError):
            return labelled_bytes(self._proc("smaps_rollup"), "Pss") / _MIB
        return 0.0

    def written_bytes(self) -> int:
        """Bytes it sent to the block layer so far."""
        return labelled_bytes(self._proc("io"), "write_bytes")

    def get(self, path: str) -> Any:
        """The JSON of a GET. Raises BenchError."""
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """The body of a GET. Raises BenchError."""
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise BenchError(f"GET {path} was answered {response.status}: {body[:200]!r}")
        return body.decode()

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()


class GatewayServer(Server):
    """`python -m edgegw run` with its data in a folder of its own."""

    def __init__(self, folder: Path, loop: str, *, config: Path | None = None) -> None:
        port = free_port()
        program = ["-c", _WITHOUT_UVLOOP] if loop == "asyncio" else ["-m", "edgegw"]
        options = ["--data", str(folder), "--listen", f"127.0.0.1:{port}", *(("--config", str(config)) if config else ())]
        super().__init__([sys.executable, *program, "run", *options], port, folder)

    def received(self) -> int:
        """Messages stored so far, by its own ledger."""
        return int(self.get("/v1/status")["streams"]["default"]["received"])


class LimitServer(Server):
    """`web.Application` with one route that reads the body and answers an empty 201."""

    def __init__(self, loop: str) -> None:
        port = free_port()
        super().__init__([sys.executable, "-m", "tests.bench.limit_server", str(port), loop], port)


def _is_up(port: int, path: str) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return sock.recv(64).split(b" ")[1:2] == [b"200"]
    return False

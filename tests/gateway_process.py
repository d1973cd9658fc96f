"""A real gateway in a process of its own, to be started, killed and started again on the same port and folder."""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

TREE = Path(__file__).parent.parent
# Below the ports that the kernel gives to outgoing connections: one of those could take ours between a kill and a start.
PORTS = range(20_000, 32_000)
START_S = 30.0
STOP_S = 35.0
_POLL_S = 0.02


class GatewayProcess:
    """`python PROGRAM run` on `data`. Killed at the latest when the object goes or the tests end.

    `environ` and `pass_fds` are what a supervisor would give it.
    """

    def __init__(
        self,
        data: Path,
        *options: str,
        port: int | None = None,
        program: Sequence[str] = ("-m", "edgegw"),
        environ: Mapping[str, str] = MappingProxyType({}),
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.data = data
        self.port = free_port() if port is None else port
        self._command = [
            sys.executable,
            *program,
            "run",
            "--data",
            str(data),
            "--listen",
            f"127.0.0.1:{self.port}",
            *options,
        ]
        self._environ = environ
        self._pass_fds = pass_fds
        self._log = data.with_name(data.name + ".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._killer: weakref.finalize[..., GatewayProcess] | None = None

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> "GatewayProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def spawn(self) -> None:
        """Start it; it may not serve yet."""
        assert self._process is None, "it runs already"
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEGW_", "NOTIFY_", "LISTEN_"))}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command,
                cwd=TREE,
                env=environ | self._environ,
                pass_fds=self._pass_fds,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._process = process
        self._killer = weakref.finalize(self, _kill_group, process)

    def lives(self, wait_s: float) -> bool:
        """Whether it still runs after `wait_s`."""
        assert self._process is not None
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def start(self) -> None:
        """Start it and wait until /healthz is 200."""
        self.spawn()
        for _ in range(round(START_S / _POLL_S)):
            with suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/healthz", timeout_s=START_S)[0] == 200:
                    return
            assert self.lives(_POLL_S), f"the gateway ended:\n{self.log}"
        self.kill()
        raise AssertionError(f"the gateway was not healthy within {START_S} s:\n{self.log}")

    def kill(self) -> None:
        """SIGKILL to the process and all it started; does nothing when it does not run."""
        if self._killer is not None:
            self._killer()
        self._process = self._killer = None

    def hang_up(self) -> None:
        """SIGHUP: it reads its configuration again."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGHUP)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; returns the exit code."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Until it ends; returns the exit code."""
        assert self._process is not None, "it does not run"
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the gateway did not stop within {STOP_S} s:\n{self.log}") from None
        finally:
            self.kill()

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float = 30.0) -> tuple[int, Any]:
        """One request on its own connection: status, and the JSON of the answer. Raises OSError or HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return response.status, json.loads(content) if content else None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads its own group
    process.wait()

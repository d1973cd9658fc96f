"""A gateway in the test's own process, whole: its signals, threads and descriptors; and the supervisor that watches over it."""

import array
import asyncio
import gc
import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgegw.clock import SystemClock
from edgegw.config import Config, GatewayConfig, HostConfig, HttpConfig, Inputs, Reading
from edgegw.gateway import Gateway
from edgegw.notify import Supervisor
from tests.api.in_process import PATIENCE_S, Reply, Wire

_names = itertools.count()


class Ear:
    """The supervisor's end of the protocol: what the gateway says, and the sockets that it gives to keep."""

    def __init__(self) -> None:
        address = f"@edgegw-test-{os.getpid()}-{next(_names)}"
        self.environ = {"NOTIFY_SOCKET": address}
        self.kept: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:])

    def __enter__(self) -> "Ear":
        return self

    def __exit__(self, *_: object) -> None:
        for kept in (self._socket, *self.kept):
            kept.close()

    def hear(self, wait_s: float = PATIENCE_S) -> str:
        """The next message; empty when none comes in time."""
        self._socket.settimeout(wait_s)
        try:
            message, rights, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(4 * array.array("i").itemsize))
        except (TimeoutError, BlockingIOError):
            return ""
        for _, _, data in rights:
            descriptors = array.array("i")
            descriptors.frombytes(data)
            self.kept += [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return message.decode()

    def heard(self) -> list[str]:
        """Everything said and not heard yet."""
        return list(iter(lambda: self.hear(0), ""))


class _Told(Supervisor):
    """The real one, and somebody who waits for it to say READY=1."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_ready = asyncio.Event()
        self.port = 0

    def store(self, name: str, kept: socket.socket) -> bool:
        self.port = kept.getsockname()[1]
        return super().store(name, kept)

    def ready(self) -> bool:
        self.is_ready.set()
        return super().ready()


class Inside:
    """A gateway that runs as a task of the test."""

    def __init__(self, gateway: Gateway, task: asyncio.Task[None], port: int) -> None:
        self.gateway = gateway
        self.task = task
        self.port = port
        self._wires: list[Wire] = []

    async def wire(self) -> Wire:
        """A new connection."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port), f"127.0.0.1:{self.port}")
        self._wires.append(wire)
        return wire

    async def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        wire = await self.wire()
        try:
            return await wire.request(method, target, body, **headers)
        finally:
            wire.close()

    async def condition(self, name: str) -> Mapping[str, Any]:
        """A condition, which /readyz and /v1/status must tell alike."""
        ready = (await self.request("GET", "/readyz")).json["conditions"]
        status = (await self.request("GET", "/v1/status")).json["conditions"]
        found: list[Mapping[str, Any]] = [each for each in ready if each["name"] == name]
        assert found == [each for each in status if each["name"] == name]
        return found[0]

    async def metric(self, name: str) -> float:
        """A sample of /metrics by its name with labels."""
        lines = (await self.request("GET", "/metrics")).body.decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))

    async def end(self) -> None:
        """Wait until it ends; raises what it ended with."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait({self.task})
        self.task.result()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        signal.raise_signal(signal.SIGTERM)
        await self.end()

    async def hang_up(self) -> None:
        """Close what the test left open."""
        for wire in self._wires:
            wire.abort()
            with suppress(ConnectionError):
                await wire._writer.wait_closed()


def in_folder(data: Path, *, listen: str = "127.0.0.1:0", stop_timeout_s: float = 20) -> Config:
    """A configuration, under which the gateway is silent."""
    gateway = GatewayConfig(data=data, stop_timeout_s=stop_timeout_s)
    return Config(gateway=gateway, http=HttpConfig(listen=listen), host=HostConfig(interval_s=0))


def gateway_of(config: Config, supervisor: Supervisor, inputs: Inputs | None = None) -> Gateway:
    """A gateway that is not run yet. Without `inputs` a reload reads a file that is not there."""
    inputs = inputs or Inputs(config.gateway.data / "edgegw.toml", {}, {}, must_exist=False)
    return Gateway(inputs, Reading(config, {}, ()), SystemClock(), supervisor, set_up_log=lambda _: None)


@asynccontextmanager
async def alive(
    config: Config, environ: Mapping[str, str] = MappingProxyType({}), inputs: Inputs | None = None
) -> AsyncIterator[Inside]:
    """A gateway from its READY=1 to its end, which the test may bring about itself. Raises what it does not start with."""
    supervisor = _Told.from_environ(environ, os.getpid())
    assert isinstance(supervisor, _Told)
    gateway = gateway_of(config, supervisor, inputs)
    task = asyncio.create_task(gateway.run())
    ready = asyncio.create_task(supervisor.is_ready.wait())
    try:
        await asyncio.wait({task, ready}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        inside = Inside(gateway, task, supervisor.port)
        try:
            yield inside
            if not task.done():
                await inside.stop()
        finally:
            await inside.hang_up()
    finally:
        ready.cancel()
        task.cancel()
        await asyncio.wait({task, ready})
        gc.unfreeze()  # the gateway froze what was there; in a test that is not for ever

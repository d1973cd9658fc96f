"""The API over a real store and a real socket, in the test's own event loop; and a client that can misbehave."""

import asyncio
import json
import logging
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import edgegw
from edgegw.api.connection import Deadlines
from edgegw.api.doors import Door
from edgegw.api.routes import Routes
from edgegw.api.routing import Router
from edgegw.api.server import ApiServer
from edgegw.api.token_routes import TokenRoutes
from edgegw.bus import Bus, all_streams
from edgegw.callers import Callers
from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import BUILT_IN_STREAMS, HttpConfig, StreamConfig
from edgegw.core.record import Message
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.store.jobs import Job, Outcome
from edgegw.store.reader import Reader
from edgegw.store.writer import Writer
from edgegw.watch import StoreWatch

MIGRATIONS = Path(edgegw.__file__).parent / "migrations" / "bus"
# Far beyond what anything here takes: only a hang reaches it.
PATIENCE_S = 20.0
FREE_BYTES = 1 << 40
# What the process around the API would say of itself.
STATUS = {"version": "0", "sha256": None, "pid": 1, "uptime_s": 1.0, "links": {}}


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON value."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(self.json["code"])


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self.host = host

    async def send(self, data: bytes | str) -> None:
        """Send these bytes. What the other side thinks of them is for `reply` and `is_closed` to see."""
        self._writer.write(data if isinstance(data, bytes) else data.encode())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._writer.drain()
        except ConnectionError:
            pass

    async def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> None:
        """Send a request; `Content_Type="…"` becomes a header."""
        await self.send(request_bytes(self.host, method, target, body, headers))

    async def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """Send a request and read its answer."""
        await self.ask(method, target, body, **headers)
        reply = await self.reply(method)
        _check_described(method, target, reply)
        return reply

    async def reply(self, method: str = "GET", *, interim: bool = False) -> Reply:
        """The next answer; every one has a request id, and a problem says what it is. `interim`: it is a 1xx."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
            _, status, *reason = line.split(" ", 2)
            pairs = [field.split(": ", 1) for field in fields]
            headers = {name.lower(): value for name, value in pairs}
            assert len(headers) == len(pairs), f"a header twice: {fields}"
            length = int(headers.get("content-length", "0")) if method != "HEAD" and status not in ("204", "304") else 0
            body = await self._reader.readexactly(length)
        reply = Reply(int(status), reason[0] if reason else "", headers, body)
        if not interim:
            _check(reply)
        return reply

    async def is_closed(self) -> bool:
        """Wait for the other side to close; False when more bytes come instead."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return not await self._reader.read(1)
            except ConnectionError:
                return True

    def finish(self) -> None:
        """Close our half."""
        self._writer.write_eof()

    def close(self) -> None:
        """Close."""
        self._writer.close()

    def abort(self) -> None:
        """Be gone without a word."""
        self._writer.transport.abort()


def request_bytes(host: str, method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """A request as a well-behaved client sends it."""
    fields = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body is not None and "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b"")


def _check(reply: Reply) -> None:
    assert reply.headers.get("x-request-id"), reply
    if reply.body and reply.status == 503 and "conditions" in reply.json:
        return  # /readyz: no error, the answer itself
    if reply.status >= 400 and reply.body:
        assert reply.headers["content-type"] == "application/problem+json", reply
        problem = reply.json
        assert problem["status"] == reply.status, reply
        assert problem["request_id"] == reply.headers["x-request-id"], reply
        assert problem["type"] == "about:blank", reply
        assert problem["title"], reply
        assert problem["code"], reply
        assert problem["detail"], reply
    if reply.status in (429, 503) and reply.body:
        assert int(reply.headers["retry-after"]) > 0, reply


def _check_described(method: str, target: str, reply: Reply) -> None:
    """Whatever a test asks for: /openapi.json must tell of the answer."""
    if find_spec("jsonschema_rs") is not None and target[:1] == "/":
        from tests.api.documented import faults

        assert faults(method, target, reply) == [], reply


class Abortable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Be gone."""


class GatedWriter(Writer):
    """The real writer, with a door before each commit, and a way to break."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = threading.Event()
        self.gate.set()
        self.fault: BaseException | None = None

    def turn(self, jobs: Iterable[Job]) -> Outcome:
        """Wait at the door, then commit."""
        self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return super().turn(jobs)


class Noise(logging.Handler):
    """Hears what aiohttp and asyncio log as errors."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard
        self._loggers = [logging.getLogger(name) for name in ("aiohttp", "asyncio")]
        for logger in self._loggers:
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """An error."""
        self._heard.append(self.format(record))

    def end(self) -> None:
        """Hear no more."""
        for logger in self._loggers:
            logger.removeHandler(self)


class Api:
    """Everything behind the socket, as the gateway puts it together, without the process around it."""

    def __init__(
        self,
        data: Path,
        streams: tuple[StreamConfig, ...],
        config: HttpConfig,
        deadlines: Deadlines,
        make_door: Callable[[socket.socket], Door] = Door,
    ) -> None:
        self.clock = SystemClock()
        self.metrics = Metrics()
        self.conditions = Conditions(self.clock, Log("edgegw.conditions"))
        self.conditions.declare("store", required=True, text="commits reach the disk")
        configured = all_streams(streams, BUILT_IN_STREAMS)
        self.path = data / "bus.db"
        self.writer = GatedWriter(self.path, configured, self.clock, boot_id="test", migrations=MIGRATIONS, free_bytes=FREE_BYTES)
        self.watch = StoreWatch(self.metrics, self.conditions)
        self.died: list[BaseException] = []
        self.bus = Bus(
            self.writer, Reader(self.path), configured, self.clock, watch=self.watch.committed, on_death=self.died.append
        )
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.is_healthy = True
        routes = Routes(
            self.bus, self.conditions, self.metrics, self.clock, status=lambda: dict(STATUS), is_healthy=lambda: self.is_healthy
        )
        self.callers = Callers(self.clock, os.urandom)
        self.router = Router([*routes.table(), *TokenRoutes(self.callers).table()], config.request_timeout_s)
        doors = [make_door(self.socket)]
        self.server = ApiServer(
            self.router, config, doors, self.metrics, callers=self.callers, id_seed="test-", deadlines=deadlines
        )
        self._wires: list[Abortable] = []
        self.noise: list[str] = []  # errors that aiohttp and asyncio logged: faults of ours that no answer shows

    @property
    def host(self) -> str:
        """Its `Host`."""
        return f"127.0.0.1:{self.socket.getsockname()[1]}"

    async def wire(self) -> Wire:
        """A new connection."""
        reader, writer = await asyncio.open_connection(*self.socket.getsockname())
        wire = Wire(reader, writer, self.host)
        self._wires.append(wire)
        return wire

    async def request(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        wire = await self.wire()
        try:
            return await wire.request(method, target, body, **headers)
        finally:
            wire.close()

    async def send_json(self, method: str, target: str, value: object, **headers: str) -> Reply:
        """One request with a JSON body."""
        return await self.request(method, target, json.dumps(value).encode(), **{"Content_Type": "application/json"} | headers)

    async def rows(self, query: str = "after=0&limit=1000") -> list[Any]:
        """GET /v1/messages."""
        reply = await self.request("GET", f"/v1/messages?{query}")
        assert reply.status == 200, reply
        found = reply.json
        assert isinstance(found, list)
        return found

    async def payloads(self) -> list[bytes]:
        """Every payload that is stored in the stream `default`."""
        found: list[bytes] = []
        position = 0
        while position < self.bus.head("default"):
            page = await self.bus.page("default", "#", position, 1000, 1 << 30)
            found += [item.payload for item in page.items if isinstance(item, Message)]
            position = page.position
        return found

    async def stream(self, name: str = "default") -> Any:
        """The stream's ledger."""
        return (await self.request("GET", "/v1/status")).json["streams"][name]

    async def is_well(self) -> None:
        """The rest keeps working: a publish and a read succeed, at once."""
        reply = await self.request("POST", "/v1/topics/still/alive", b"yes")
        assert reply.status == 201, reply
        seq = reply.json["seq"]
        assert (await self.rows(f"topic=still/alive&after={seq - 1}"))[0]["payload"] == "yes"

    def phases(self) -> list[str]:
        """What each open connection is doing."""
        return sorted(connection.phase for connection in self.server._connections._open)

    def metric(self, name: str) -> float:
        """A sample of /metrics by its name with labels."""
        lines = [line for line in self.metrics.render().splitlines() if line.startswith(name + " ")]
        assert len(lines) == 1, (name, lines)
        return float(lines[0].rpartition(" ")[2])

    def keep(self, wire: "Abortable") -> None:
        """Close it with the rest."""
        self._wires.append(wire)

    async def close_wires(self) -> None:
        """Close every connection that a test left open."""
        for wire in self._wires:
            wire.abort()


@asynccontextmanager
async def running(
    *streams: StreamConfig,
    deadlines: Deadlines | None = None,
    data: Path | None = None,
    make_door: Callable[[socket.socket], Door] = Door,
    **config: Any,
) -> AsyncIterator[Api]:
    """A served API; afterwards no task is left."""
    before = asyncio.all_tasks()
    with tempfile.TemporaryDirectory() as folder:
        # The sweep looks often: the bounds that tests give are small.
        api = Api(data or Path(folder), streams, HttpConfig(**config), deadlines or Deadlines(sweep_s=0.02), make_door)
        await api.bus.start()
        api.watch.opened(api.bus)
        await api.server.start()
        sweeper = asyncio.create_task(api.server.run())
        listener = Noise(api.noise)
        try:
            yield api
        finally:
            api.writer.gate.set()
            await api.close_wires()
            await api.server.stop(5)
            sweeper.cancel()
            await asyncio.wait({sweeper})
            await api.bus.stop()
            api.socket.close()
            listener.end()
    assert not api.noise, api.noise
    await until(lambda: asyncio.all_tasks() - {asyncio.current_task()} <= before, f"tasks left behind: {asyncio.all_tasks()}")


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Let others run until it is so."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                await pause()
    except TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE_S} s") from None


async def pause(seconds: float = 0.005) -> None:
    """Let that much time pass for everybody."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()

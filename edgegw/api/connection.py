"""One client connection: aiohttp's protocol with the deadlines it does not have.

    HEAD   from accept, or from the first byte after IDLE, to the blank line: HEAD_S_MAX
    BODY   from the blank line to the end of the body: BODY_S_MAX
    WORK   from there to the answer: what the route says
    IDLE   until the next byte: aiohttp's own keep-alive timer

The phases are set by bytes arriving and by the handler starting, reading and ending. A sweep over all connections a few
times a second enforces them: a request then costs no timer. Only public names of aiohttp are used: the class is its
protocol class, given to `loop.create_server` as the factory.
"""

import asyncio
from typing import Any

from aiohttp import web

from edgegw.api.problems import CONTENT_TYPE, problem_body, status_of
from edgegw.errors import Busy, GatewayError, RequestError
from edgegw.limits import BODY_S_MAX, DEADLINE_SWEEP_S, HEAD_S_MAX

IDLE, HEAD, BODY, WORK = "idle", "head", "body", "work"


class Connection(web.RequestHandler):
    """A connection of `Connections`; `deadline_s` is on the loop's clock, 0 = none."""

    __slots__ = ("_connections", "_early", "deadline_s", "expired_in", "phase", "request_task")

    def __init__(
        self, connections: "Connections", server: web.Server, loop: asyncio.AbstractEventLoop, settings: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=loop, **settings)
        self._connections = connections
        self._early = False  # bytes of a next request came while one was at work
        self.phase = HEAD
        self.deadline_s = 0.0
        self.expired_in = ""
        self.request_task: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted: the clock of the head runs, whether or not a byte ever comes."""
        super().connection_made(transport)
        self.deadline_s = self._connections.now_s() + HEAD_S_MAX
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone."""
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.phase is IDLE:
            self._connections.busy(self)
            self.phase = HEAD
            self.deadline_s = self._connections.now_s() + HEAD_S_MAX
        elif self.phase is WORK:
            self._early = True
        super().data_received(data)

    def now_s(self) -> float:
        """The loop's clock."""
        return self._connections.now_s()

    def begin(self, now_s: float) -> None:
        """The blank line came; called by the handler first of all."""
        self._connections.busy(self)
        self.phase = BODY
        self.deadline_s = now_s + BODY_S_MAX

    def work(self, deadline_s: float) -> None:
        """The body is here; the answer is due at `deadline_s`."""
        self.phase = WORK
        self.deadline_s = deadline_s

    def done(self, now_s: float) -> None:
        """The handler is about to answer."""
        if self._early:
            self._early = False
            self.phase, self.deadline_s = HEAD, now_s + HEAD_S_MAX
        else:
            self.phase, self.deadline_s = IDLE, 0.0
            self._connections.idle(self)

    def expire(self) -> None:
        """The deadline passed: end the request at work, or the connection that did not finish its head."""
        self.expired_in = self.phase
        self.deadline_s = 0.0
        if self.phase is HEAD:
            self.refuse(
                RequestError("slow_head", f"the request head was not complete within {HEAD_S_MAX:g} s", "send it at once"), 408
            )
        elif self.request_task is not None:
            self.request_task.cancel()

    def refuse(self, exc: GatewayError, status: int) -> None:
        """Answer outside of any request, and close."""
        if self.transport is not None:
            body = problem_body(exc, status, "")
            head = (
                f"HTTP/1.1 {status} Refused",
                f"Content-Type: {CONTENT_TYPE}",
                f"Content-Length: {len(body)}",
                "Connection: close",
            )
            self.transport.write("\r\n".join((*head, "", "")).encode() + body)
            self.transport.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp could not parse the request, or its own code failed: a problem like every other."""
        if status < 500:
            text = " ".join((message or str(exc) or "it cannot be parsed").split())
            problem: GatewayError = RequestError(
                "bad_http", f"this is not HTTP as RFC 9112 has it: {text[:200]}", "see the request line and the headers"
            )
        else:
            problem = GatewayError("internal", "the gateway failed to answer; its log says why")
        response = web.Response(body=problem_body(problem, status, ""), status=status, headers={"Content-Type": CONTENT_TYPE})
        response.force_close()
        return response


class Connections:
    """All open connections: bounded, swept for deadlines. Beyond the bound the longest idle one makes room."""

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, most: int, **settings: Any) -> None:
        self._server = server
        self._loop = loop
        self._most = most
        self._settings = settings
        self._open: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self.now_s = loop.time
        self.refused = 0
        self.expired = 0

    def __call__(self) -> Connection:
        """The protocol factory."""
        return Connection(self, self._server, self._loop, self._settings)

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        """Make room for it, or refuse it."""
        self._open.add(connection)
        if len(self._open) <= self._most:
            return
        if self._idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.deadline_s = 0.0
            if oldest.transport is not None:
                oldest.transport.close()
        else:
            self.refused += 1
            full = Busy(
                "connections_full",
                f"{self._most} connections are open and none is idle",
                "close some, or raise http.connections_max",
            )
            connection.refuse(full, status_of(full))

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._open.discard(connection)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It waits for its client."""
        if connection in self._open:
            self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """Its client sent something."""
        self._idle.pop(connection, None)

    async def sweep(self) -> None:
        """Expire what is past its deadline; runs until cancelled."""
        while True:
            await asyncio.sleep(DEADLINE_SWEEP_S)
            now_s = self.now_s()
            for connection in [c for c in self._open if 0.0 < c.deadline_s <= now_s]:
                self.expired += 1
                connection.expire()

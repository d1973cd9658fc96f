"""One client connection: aiohttp's protocol with the deadlines it does not have.

    HEAD   from accept, or from the first byte of a later request, to the blank line: `head_s`
    BODY   from the blank line to the end of the body: `body_s`
    WORK   from there to the answer: what the route says
    IDLE   until the next byte: `idle_s`
    LAST   the connection ends with the answer that was given; what the client still sends is read and dropped: `linger_s`,
           so that the answer is not lost with what was not read

The phases are set by bytes arriving and by the handler starting, reading and ending. Beside them, an answer that the client
does not take may stand in our memory for `take_s`. A sweep over all connections a few times a second enforces all of it: a
request then costs no timer. Only public names of aiohttp are used: the class is its protocol class, given to
`loop.create_server` as the factory.

Where a head ends is counted here as well, because the parser does not tell whether it holds the beginning of a next request:
bytes behind the one that was answered begin a HEAD at once, not an IDLE.

A client that closes its half of the connection still gets the answer that is due, unless it was waiting for messages: those
would go to a client that most likely died.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, cast

from aiohttp import StreamReader, hdrs, web

from edgegw.api.doors import Door
from edgegw.core.access import NOBODY, Caller
from edgegw.errors import Busy, GatewayError, RequestError
from edgegw.limits import (
    BODY_S_MAX,
    DEADLINE_SWEEP_S,
    EARLY_BYTES_MAX,
    HEAD_BYTES_MAX,
    HEAD_PATIENCE_S,
    HEAD_S_MAX,
    KEEP_ALIVE_S,
    LINGER_S_MAX,
    TAKE_S_MAX,
    TLS_CONNECTIONS_MAX,
    UNIX_CONNECTIONS_EXTRA,
)

IDLE, HEAD, BODY, WORK, LAST = "idle", "head", "body", "work", "last"
STOP = "stop"
_BLANK_LINE = b"\r\n\r\n"
# RFC 8446 section 5.1: the first byte of a ClientHello's record.
_TLS_HANDSHAKE = b"\x16"


class Deadlines(NamedTuple):
    """How long a client may take, in seconds, and how often that is looked at."""

    head_s: float = HEAD_S_MAX
    body_s: float = BODY_S_MAX
    take_s: float = TAKE_S_MAX
    idle_s: float = KEEP_ALIVE_S
    linger_s: float = LINGER_S_MAX
    sweep_s: float = DEADLINE_SWEEP_S


class Connection(web.RequestHandler):
    """A connection of `Connections`; its deadlines are on the loop's clock, 0 = none."""

    __slots__ = (
        "_behind_head", "_connections", "_content", "_early_bytes", "_head_bytes", "_last", "_wire",
        "caller", "deadline_s", "door", "expired_in", "is_guarded", "is_half_closed", "is_leaving",
        "is_waiting", "phase", "request_task", "take_by_s",
    )  # fmt: skip

    def __init__(
        self,
        connections: "Connections",
        door: Door,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(server, loop=loop, **settings)
        self._connections = connections
        self.door = door
        self.caller: Caller = NOBODY  # who asks when no token says otherwise
        self.is_guarded = False  # it may publish and read without a token, so that Host must name us
        self._content: StreamReader | None = None
        self._wire: asyncio.Transport | None = None
        self._last = b""  # what came last; empty while idle
        self._behind_head = -1  # bytes after the blank line; -1: it did not come yet …
        self._head_bytes = 0  # … and so many bytes came without it
        self._early_bytes = 0
        self.phase = HEAD
        self.deadline_s = self.take_by_s = 0.0
        self.expired_in = ""
        self.is_half_closed = False
        self.is_leaving = False  # its door was closed: the answer that is due is the last
        self.is_waiting = False  # for messages: the request ends with its client
        self.request_task: asyncio.Task[Any] | None = None

    # --- what the event loop tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted: the clock of the head runs, whether or not a byte ever comes."""
        self.caller, self.is_guarded = self.door.greet(cast(asyncio.Transport, transport))
        if self._wire is not None:  # a TLS handshake is over
            super().connection_made(transport)
            return
        self._wire = cast(asyncio.Transport, transport)
        self.deadline_s = self.now_s() + self._connections.deadlines.head_s
        super().connection_made(transport)
        self._connections.opened(self)

    def shake_hands(self, wire: asyncio.Transport) -> None:
        """Accepted, and a TLS handshake begins: it is counted, and the clock of the head runs."""
        self._wire = wire
        self.deadline_s = self.now_s() + self._connections.deadlines.head_s
        self._connections.opened(self)

    def hands_lost(self) -> None:
        """Gone before the handshake was over."""
        self._wire = None
        self._connections.closed(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone."""
        self._wire = self._content = None
        self._connections.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came; also called by aiohttp with none, to go on parsing."""
        if data:
            if self.phase is IDLE:
                connections = self._connections
                connections.busy(self)
                self.phase = HEAD
                self.deadline_s = connections.now_s() + connections.deadlines.head_s
                self._find_head(data)
                self._last = data
            elif not self._more(data):
                return
        try:
            super().data_received(data)
        except ValueError as exc:  # aiohttp 3.11 lets what yarl says of a bad absolute URL pass
            self.refuse(RequestError("bad_http", f"the request line has no valid URL: {exc}", "see RFC 3986"))

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp's own says None, the event loop takes both
        """The client sends no more; returns whether the connection stays open for an answer."""
        super().eof_received()
        if self.phase is HEAD and self._behind_head < 0:
            if self._last:
                self.refuse(RequestError("bad_http", "the request ends before its blank line", "send all of it"))
            return None
        if self.phase in (IDLE, LAST) or self.is_waiting:
            return None
        self.is_half_closed = True
        if self._content is not None and not self._content.is_eof():
            self._cut_off(self._content)
        return True

    def pause_writing(self) -> None:
        """More of an answer stands here than the kernel takes."""
        super().pause_writing()
        self.take_by_s = self.now_s() + self._connections.deadlines.take_s

    def resume_writing(self) -> None:
        """It went out."""
        super().resume_writing()
        self.take_by_s = 0.0

    def send(self, data: bytes) -> None:
        """Write a whole answer. Raises ConnectionResetError when the client is gone."""
        if self._wire is None or self._wire.is_closing():
            raise ConnectionResetError("the client is gone")
        self._wire.write(data)

    # --- what the handler tells -------------------------------------------------------------------

    def now_s(self) -> float:
        """The loop's clock."""
        return self._connections.now_s()

    def begin(self, now_s: float, content: StreamReader) -> None:
        """The blank line came; called by the handler first of all."""
        self._connections.asked(self)
        if self.phase is IDLE:
            self._connections.busy(self)
        self.phase = BODY
        self.deadline_s = now_s + self._connections.deadlines.body_s
        self._content = content
        if self.is_half_closed and not content.is_eof():
            self._cut_off(content)

    def work(self, deadline_s: float, *, is_waiting: bool = False) -> None:
        """The body is here; the answer is due at `deadline_s`."""
        self.phase = WORK
        self.deadline_s = deadline_s
        self.is_waiting = is_waiting

    def done(self, request: web.BaseRequest, now_s: float) -> bool:
        """The handler is about to answer; returns whether the connection lives on."""
        deadlines = self._connections.deadlines
        content, self._content = request.content, None
        self.is_waiting = False
        is_last = self.is_leaving or self._connections.is_draining
        if self.expired_in or self.is_half_closed or is_last or not content.is_eof():
            self.phase, self.deadline_s = LAST, now_s + deadlines.take_s
            return False
        more_bytes = self._behind_head - content.total_bytes
        if more_bytes and hdrs.TRANSFER_ENCODING in request.headers and self._last.endswith(_BLANK_LINE):
            more_bytes = 0  # the last chunk is where the bytes end; the rest of the difference are the sizes of the chunks
        self._behind_head = -1
        if more_bytes <= 0:
            self._last = b""
            self.phase, self.deadline_s = IDLE, now_s + deadlines.idle_s
            self._connections.idle(self)
        else:
            early, self._last = self._last[-more_bytes:], b""
            self.phase, self.deadline_s = HEAD, now_s + deadlines.head_s
            self._find_head(early)
            self._last = early
        if self._early_bytes:
            self._release()
        return True

    @property
    def is_encrypted(self) -> bool:
        """Whether it came through TLS."""
        return self.door.tls is not None

    # --- ends -------------------------------------------------------------------------------------

    def expire(self, now_s: float) -> None:
        """A deadline passed: end the request at work, or the connection that did not finish its head or take its answer."""
        if 0.0 < self.take_by_s <= now_s or self.phase in (IDLE, LAST):
            self.abort()
            return
        self.deadline_s = 0.0
        self.expired_in = self.phase
        if self.phase is HEAD:
            head_s = self._connections.deadlines.head_s
            self.refuse(RequestError("slow_head", f"the request head was not complete within {head_s:g} s", "send it at once"))
        elif self.request_task is not None:
            self.request_task.cancel()

    def end_wait(self) -> None:
        """The gateway stops: a request that waits for messages is answered now."""
        if self.is_waiting and self.request_task is not None and not self.expired_in:
            self.expired_in = STOP
            self.request_task.cancel()

    def end_idle(self) -> None:
        """The gateway stops: close unless a whole head came, whose request is answered."""
        if self.transport is None:
            self.abort()
        elif self.phase is IDLE or (self.phase is HEAD and self._behind_head < 0):
            self.force_close()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self.deadline_s = self.take_by_s = 0.0
        if self._wire is not None:
            self._wire.abort()

    def refuse(self, exc: GatewayError) -> None:
        """Answer outside of any request, and close."""
        wire = self._wire
        self.phase, self.deadline_s = LAST, self.now_s() + self._connections.deadlines.take_s
        if wire is not None and not wire.is_closing():
            wire.write(self.refusal_bytes(exc))
            wire.close()

    def refusal_bytes(self, exc: GatewayError) -> bytes:
        """A whole answer outside of any request."""
        answer = self._connections.refusal(exc)
        body = answer.body if isinstance(answer.body, bytes) else b""
        head = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in answer.headers.items())]
        head += [f"Content-Length: {len(body)}", "Connection: close"]
        return "\r\n".join((*head, "", "")).encode() + body

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp could not parse the request, or its own code failed: a problem like every other."""
        if status < 500 and self._last[:1] == _TLS_HANDSHAKE and not self.is_encrypted:
            problem: GatewayError = RequestError("tls_on_plain_port", "this port speaks HTTP without TLS", "use http://")
        elif status < 500:
            text = " ".join((message or str(exc) or "it cannot be parsed").split())
            problem = RequestError(
                "bad_http", f"this is not HTTP as RFC 9112 has it: {text[:200]}", "see the request line and the headers"
            )
        else:
            problem = GatewayError("internal", "the gateway failed to answer; its log says why under this request id")
        self.phase, self.deadline_s = LAST, self.now_s() + self._connections.deadlines.take_s
        response = self._connections.refusal(problem, exc if status >= 500 else None)
        response.force_close()
        return response

    # --- bytes ------------------------------------------------------------------------------------

    def _more(self, data: bytes) -> bool:
        """Count bytes that came while there was something to do; whether they may be parsed."""
        if self._behind_head >= 0:
            self._behind_head += len(data)
        elif self.phase is not LAST:
            self._find_head(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.refuse(RequestError("bad_http", f"the head is longer than {HEAD_BYTES_MAX} bytes", "send shorter headers"))
                return False
        if self.phase is WORK:
            self._hold_back(len(data))
        self._last = data if len(data) > 3 else self._last[-3:] + data
        return True

    def _find_head(self, data: bytes) -> None:
        before = self._last[-3:]
        at = (before + data).find(_BLANK_LINE) if before else data.find(_BLANK_LINE)
        if at >= 0:
            self._behind_head = len(before) + len(data) - at - len(_BLANK_LINE)
            self._head_bytes = 0
        else:
            self._head_bytes += len(data)

    def _cut_off(self, content: StreamReader) -> None:
        """No more of the body will come: whoever reads it hears of that."""
        content.set_exception(RequestError("bad_body", "the body ends before it is complete", "send all of it", where="body"))
        content.feed_eof()

    def _hold_back(self, more_bytes: int) -> None:
        """Requests ahead of their turn cost memory: beyond a bound they wait in the kernel."""
        is_held = self._early_bytes > EARLY_BYTES_MAX
        self._early_bytes += more_bytes
        if not is_held and self._early_bytes > EARLY_BYTES_MAX and self._wire is not None and not self._wire.is_closing():
            self._wire.pause_reading()

    def _release(self) -> None:
        is_held, self._early_bytes = self._early_bytes > EARLY_BYTES_MAX, 0
        if is_held and self._wire is not None and not self._wire.is_closing():
            self._wire.resume_reading()


class Connections:
    """All open connections: bounded, swept for deadlines. Beyond the bound one makes room for another.

    That is the one that has been silent for too long since it was accepted, else the longest idle one, else the one whose first
    head is longest on its way: half-open connections by the thousand then keep nobody out, and cost nobody the connection.

    `refusal(problem, cause)` makes the answer to what never became a request, or failed below the handler.
    """

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        most: int,
        deadlines: Deadlines,
        refusal: Callable[[GatewayError, BaseException | None], web.Response],
        **settings: Any,
    ) -> None:
        self._server = server
        self._loop = loop
        self.most = most
        self._settings = settings
        self._open: set[Connection] = set()
        self._encrypted = 0  # of those
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self._new: dict[Connection, None] = {}  # those that never sent a whole head, the oldest first
        self._refusal = refusal
        self.deadlines = deadlines
        self.now_s = loop.time
        self.refused = 0
        self.expired = 0
        self.is_draining = False  # every answer is the last one of its connection
        self._emptied = asyncio.Event()

    def factory(self, door: Door) -> Callable[[], asyncio.Protocol]:
        """Makes the protocols of those who come through this door."""

        def plain() -> Connection:
            return Connection(self, door, self._server, self._loop, self._settings)

        tls = door.tls
        if tls is None:
            return plain
        from edgegw.api.tls_wire import TlsWire  # only who speaks TLS pays for it

        return lambda: TlsWire(tls.context, plain())

    def __len__(self) -> int:
        return len(self._open)

    def refusal(self, problem: GatewayError, cause: BaseException | None = None) -> web.Response:
        """The answer to a problem outside of any request."""
        return self._refusal(problem, cause)

    def opened(self, connection: Connection) -> None:
        """Make room for it, or refuse it."""
        self._open.add(connection)
        self._encrypted += connection.is_encrypted
        most = self.most + (UNIX_CONNECTIONS_EXTRA if connection.door.is_unix else 0)
        is_beyond = connection.is_encrypted and self._encrypted > TLS_CONNECTIONS_MAX
        if is_beyond or len(self._open) > most:
            oldest = self._dispensable(is_encrypted=is_beyond)
            if oldest is None:
                self._refuse(connection)
                return
            self._idle.pop(oldest, None)
            self._new.pop(oldest, None)
            oldest.abort()
        self._new[connection] = None

    def _refuse(self, connection: Connection) -> None:
        self.refused += 1
        connection.refuse(
            Busy(
                "connections_full",
                f"{len(self._open) - 1} connections are open and none is idle",
                "close some, or raise http.connections_max",
            )
        )

    def _dispensable(self, *, is_encrypted: bool) -> Connection | None:
        """Who makes room: of all, or of the encrypted ones."""
        idle, new = (next((each for each in of if each.is_encrypted or not is_encrypted), None) for of in (self._idle, self._new))
        if new is not None and (idle is None or new.deadline_s - self.deadlines.head_s + HEAD_PATIENCE_S <= self.now_s()):
            return new
        return idle

    def asked(self, connection: Connection) -> None:
        """Its first head is complete."""
        self._new.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        if connection in self._open:
            self._open.discard(connection)
            self._encrypted -= connection.is_encrypted
        self._idle.pop(connection, None)
        self._new.pop(connection, None)
        if not self._open:
            self._emptied.set()

    def idle(self, connection: Connection) -> None:
        """It waits for its client."""
        if connection in self._open:
            self._idle[connection] = None

    def busy(self, connection: Connection) -> None:
        """Its client sent something."""
        self._idle.pop(connection, None)

    def end_waits(self) -> None:
        """The gateway stops: no request waits for messages any more."""
        for connection in list(self._open):
            connection.end_wait()

    def leave(self, door: Door) -> None:
        """Nobody comes through this door any more, and who came gets no further request in. None is cut off."""
        for connection in list(self._open):
            if connection.door is door:
                connection.is_leaving = True
                connection.end_idle()
                connection.end_wait()

    async def drain(self, timeout_s: float) -> None:
        """Close what no request came on, and wait until those under way are answered, whose bodies may still be coming.

        aiohttp would drop the rest of such a body as soon as it is told to close the connection.
        """
        self.is_draining = True
        for connection in list(self._open):
            connection.end_idle()
        self._emptied.clear()
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()

    async def sweep(self) -> None:
        """Expire what is past its deadline; runs until cancelled."""
        while True:
            await asyncio.sleep(self.deadlines.sweep_s)
            now_s = self.now_s()
            for connection in [c for c in self._open if 0.0 < c.deadline_s <= now_s or 0.0 < c.take_by_s <= now_s]:
                self.expired += connection.phase is not IDLE
                connection.expire(now_s)

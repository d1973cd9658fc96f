"""The embedded HTTP server: listens, guards, dispatches, and turns errors into problems.

aiohttp's low-level server parses and writes; routing is ours (one dict and one prefix table, see `routing.py`). Measured
against `web.Application` with one route this saves about a fifth of a small request, which pays for the durable part.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from aiohttp import web

from edgegw.api.connection import BODY, WORK, Connection, Connections, Deadlines
from edgegw.api.doors import Door
from edgegw.api.problems import CONTENT_TYPE, RETRY_AFTER_S, problem_body, status_of
from edgegw.api.routing import Answer, Call, Router
from edgegw.api.short_answer import ShortAnswer, is_short, short_answer_bytes
from edgegw.callers import Callers
from edgegw.clock import Clock, SystemClock
from edgegw.config import HttpConfig
from edgegw.core.access import OPEN
from edgegw.errors import GatewayError, RequestError, StoreError, Unauthorized
from edgegw.limits import (
    HEADER_LINE_BYTES_MAX,
    LATENCY_BUCKETS_US,
    LISTEN_BACKLOG,
    REQUEST_ID_CHARS_MAX,
)
from edgegw.observe.log import REQUEST_ID, Log
from edgegw.observe.metrics import Counter, Histogram, Metrics

_log = Log(__name__)
_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{REQUEST_ID_CHARS_MAX}}}", re.ASCII)
_SAFE = frozenset({"GET", "HEAD"})
_OWN_SITES = frozenset({"same-origin", "none"})


class ApiServer:
    """Serves `router` through `doors`. `id_seed` makes request ids differ between runs."""

    def __init__(
        self,
        router: Router,
        config: HttpConfig,
        doors: Sequence[Door],
        metrics: Metrics,
        *,
        callers: Callers,
        id_seed: str,
        deadlines: Deadlines = Deadlines(),  # noqa: B008  an immutable value
        clock: Clock = SystemClock(),  # noqa: B008  the same
    ) -> None:
        self._router = router
        self._config = config
        self._doors = doors
        self._callers = callers
        self._listeners: dict[Door, asyncio.Server] = {}
        self._deadlines = deadlines
        self._clock = clock
        self._id_seed = id_seed
        self._requests = 0
        self._hosts: frozenset[str] = frozenset()
        self._seen = metrics.counters("edgegw_http_requests_total", "Requests answered.", ("route", "status"))
        self._took = metrics.histograms(
            "edgegw_http_request_seconds", "From the blank line of a request to its answer.", ("route",), LATENCY_BUCKETS_US
        )
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        metrics.gauge_from("edgegw_http_connections", "Open connections.", lambda: len(self._connections))
        metrics.counter_from(
            "edgegw_http_connections_refused_total", "Connections beyond the bound.", lambda: self._connections.refused
        )
        metrics.counter_from(
            "edgegw_http_deadlines_total", "Heads, bodies and requests cut off.", lambda: self._connections.expired
        )

    async def start(self) -> None:
        """Listen. The sockets of the doors stay open when this server stops: they are kept for the next one."""
        loop = asyncio.get_running_loop()
        self._now_s = loop.time
        # A client that is gone ends its handler: a fetch must not hand messages to nobody.
        self._server = web.Server(self._handle, handler_cancellation=True)
        self._connections = Connections(
            self._server,
            loop,
            self._config.connections_max,
            self._deadlines,
            self._refusal,
            access_log=None,
            keepalive_timeout=10 * self._deadlines.idle_s,  # ours comes first: it does not cut off a head that began
            lingering_time=self._deadlines.linger_s,
            auto_decompress=False,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
        )
        self._hosts = _own_hosts(self._doors)
        for door in self._doors:
            await self._listen(door)

    async def _listen(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        factory, sock = self._connections.factory(door), door.sock.dup()
        if not door.is_unix:
            self._listeners[door] = await loop.create_server(factory, sock=sock, backlog=LISTEN_BACKLOG)
            return
        # Loops since Python 3.13 remove the file with the server unless told otherwise; older ones cannot be told.
        keep_file: dict[str, Any] = {"cleanup_socket": False}
        try:
            server = await loop.create_unix_server(factory, sock=sock, backlog=LISTEN_BACKLOG, **keep_file)
        except TypeError:
            server = await loop.create_unix_server(factory, sock=sock, backlog=LISTEN_BACKLOG)
        self._listeners[door] = server

    def change(self, config: HttpConfig) -> None:
        """Limits hold from the next connection and request on."""
        self._connections.most = config.connections_max
        self._router.timeout_s = config.request_timeout_s

    async def replace(self, old: Door, new: Door) -> None:
        """Serve the new door, and only then close the old one; who came through that gets what is under way, and no more."""
        await self._listen(new)
        self._doors = [*(door for door in self._doors if door is not old), new]
        self._listeners.pop(old).close()
        self._connections.leave(old)
        self._hosts = self._hosts | _own_hosts(self._doors)  # who leaves still names the old one

    async def run(self) -> None:
        """Enforce deadlines until cancelled."""
        await self._connections.sweep()

    def stop_accepting(self) -> None:
        """New connections wait in the kernel, for whoever listens on the socket next. Who waits for messages waits no more."""
        for listener in self._listeners.values():
            listener.close()
        self._connections.end_waits()

    async def stop(self, timeout_s: float) -> None:
        """Finish the requests at work, at most `timeout_s`, and close every connection."""
        for listener in self._listeners.values():
            listener.close()
        await self._connections.drain(timeout_s)
        self._server.pre_shutdown()
        await self._server.shutdown(self._deadlines.linger_s)

    # --- one request ------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        started_s = self._now_s()
        connection.begin(started_s, request.content)
        connection.request_task = request.task
        headers = request.headers
        request_id = headers.get("X-Request-Id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = self._next_id()
        REQUEST_ID.set(request_id)
        route = "none"
        try:
            call, found = self._router.find(request, connection)
            route = found.path
            self._guard(request, connection)
            caller = connection.caller
            if (authorization := headers.get("Authorization")) is not None and found.scope != OPEN:
                caller = self._callers.bearer(authorization)
            if found.scope not in caller.scopes:
                self._callers.refuse(caller, found.scope)
            call.caller = caller
            answer = await found.handler(call)
            if connection.is_waiting:
                self._callers.check_lasting(caller)
            if not isinstance(answer.body, bytes):
                return await self._stream(request, call, answer, request_id, route)
        except GatewayError as exc:
            answer = self._refuse(exc, request_id, route)
        except asyncio.CancelledError:
            if not connection.expired_in or request.task.uncancel() > 0:
                raise
            answer = self._refuse(self._late(connection), request_id, route)
        except ConnectionError:
            raise
        except Exception as exc:  # one of the three: a fault of ours must cost one answer, not the connection's task
            _log.error("request.failed", error=exc, route=route)
            answer = self._refuse(
                GatewayError("internal", "the gateway failed; its log says why under this request id"), request_id, route
            )
        finally:
            connection.request_task = None
        status = answer.status
        now_s = self._now_s()
        response: web.StreamResponse
        if not connection.done(request, now_s):
            response = self._response(answer, request_id)
            response.force_close()
        elif isinstance(answer.body, bytes) and is_short(request, status, answer.body):
            data = short_answer_bytes(status, answer.headers, request_id, answer.body, self._clock.wall_ms() // 1000)
            response = ShortAnswer(connection.send, data)
        else:
            response = self._response(answer, request_id)
        children = self._children.get((route, status)) or self._child(route, status)
        children[0].inc()
        children[1].observe(int((now_s - started_s) * 1e6))
        return response

    async def _stream(
        self, request: web.BaseRequest, call: Call, answer: Answer, request_id: str, route: str
    ) -> web.StreamResponse:
        """Send an answer that has no end; its connection ends with it, and it with the token that it was asked for with."""
        assert not isinstance(answer.body, bytes)
        connection = request.protocol
        assert isinstance(connection, Connection)
        response = web.StreamResponse(status=answer.status, headers={**answer.headers, "X-Request-Id": request_id})
        response.force_close()
        async with aclosing(answer.body) as parts:
            first = await anext(parts)  # what goes wrong before it has an answer of its own
            (self._children.get((route, answer.status)) or self._child(route, answer.status))[0].inc()
            await response.prepare(request)
            try:
                await response.write(first)
                async for part in parts:
                    if self._callers.has_ended(call.caller):
                        break
                    await response.write(part)
            except asyncio.CancelledError:
                if not connection.expired_in or request.task.uncancel() > 0:
                    raise
            except ConnectionError:  # its client is gone: how streams end
                connection.abort()
                return response
            except Exception as exc:  # as in _handle; the answer began, so all that is left is not to end it well
                _log.error("request.failed", error=exc, route=route)
                connection.abort()
                return response
            await response.write_eof()
        connection.done(request, self._now_s())
        return response

    def _response(self, answer: Answer, request_id: str) -> web.Response:
        headers = {**answer.headers, "X-Request-Id": request_id, "Server": "edgegw"}
        return web.Response(body=answer.body, status=answer.status, headers=headers)

    def _next_id(self) -> str:
        self._requests += 1
        return f"{self._id_seed}{self._requests:x}"

    def _refusal(self, problem: GatewayError, cause: BaseException | None) -> web.Response:
        """The answer to what is no request yet, or failed where aiohttp is at work."""
        request_id = self._next_id()
        before = REQUEST_ID.set(request_id)  # the context is the event loop's: other connections have it too
        if cause is not None:
            _log.error("request.failed", error=cause, route="none")
        status, body, headers = self._refuse(problem, request_id, "none")
        REQUEST_ID.reset(before)
        (self._children.get(("none", status)) or self._child("none", status))[0].inc()
        return self._response(Answer(status, body, headers), request_id)

    def _child(self, route: str, status: int) -> tuple[Counter, Histogram]:
        made = self._children[route, status] = (self._seen.labels(route, str(status)), self._took.labels(route))
        return made

    def _refuse(self, exc: GatewayError, request_id: str, route: str) -> Answer:
        status = status_of(exc)
        tell = _log.warning if status >= 500 else _log.info
        tell("request.refused", error=exc, route=route, status=status)
        headers = {"Content-Type": CONTENT_TYPE}
        if status in RETRY_AFTER_S:
            headers["Retry-After"] = str(RETRY_AFTER_S[status])
        if exc.code == "method_not_allowed" and isinstance(exc, RequestError):
            headers["Allow"] = exc.where
        if status == 401:  # RFC 6750 section 3
            headers["WWW-Authenticate"] = "Bearer" if exc.code == "no_token" else 'Bearer error="invalid_token"'
        return Answer(status, problem_body(exc, status, request_id), headers)

    def _late(self, connection: Connection) -> GatewayError:
        if connection.expired_in is BODY:
            body_s = self._deadlines.body_s
            return RequestError(
                "slow_body", f"the body was not complete within {body_s:g} s", "send it faster, or in parts", where="body"
            )
        if connection.expired_in is WORK:
            return StoreError(
                "deadline",
                "the store did not answer in time; what was sent may or may not be stored",
                "try again with the same key",
            )
        return StoreError("stopping", "the gateway is stopping", "try again in a moment")

    def _guard(self, request: web.BaseRequest, connection: Connection) -> None:
        """DNS rebinding and cross-site requests: over loopback, where no token is asked for, a client must name this address;
        no page of another site may change state, wherever it comes from.
        """
        headers = request.headers
        host = _asked_host(request)
        if connection.is_guarded and host not in self._hosts and host.lower() not in self._hosts:
            raise Unauthorized(
                "foreign_host", f"this gateway is not {host[:60]!r}", "use the address it listens on", where="Host"
            )
        if request.method in _SAFE:
            return
        site = headers.get("Sec-Fetch-Site")
        if site is not None and site not in _OWN_SITES:
            raise Unauthorized(
                "foreign_site",
                f"a page of another site asks ({site[:20]})",
                "call from this gateway's own page",
                where="Sec-Fetch-Site",
            )
        origin = headers.get("Origin")
        if origin is not None and not self._is_own(origin.lower(), host.lower(), connection):
            raise Unauthorized(
                "foreign_origin", f"a page of {origin[:60]!r} asks", "call from this gateway's own page", where="Origin"
            )

    def _is_own(self, origin: str, host: str, connection: Connection) -> bool:
        """Whether a page of this gateway asks: its origin is the host asked for. A proxy in front may have added TLS."""
        scheme, _, asker = origin.partition("://")
        if scheme not in {"http", "https"}:
            return False
        return asker == host or (scheme == "http" and connection.is_guarded and asker in self._hosts)


def _asked_host(request: web.BaseRequest) -> str:
    """Whom the client means: what stands in an absolute target goes before the header, RFC 9112 section 3.2.2."""
    target = request.raw_path
    if target[:1] != "/" and "://" in target:
        return target.partition("://")[2].partition("/")[0].partition("?")[0]
    host = request.headers.get("Host")
    if host is None:
        raise RequestError("bad_http", "the request has no Host header", "see RFC 9112 section 3.2", where="Host")
    return host


def _own_hosts(doors: Sequence[Door]) -> frozenset[str]:
    """What a client on this machine may call the loopback address that it came through."""
    hosts: set[str] = set()
    for door in doors:
        if not door.is_unix:
            bound, port = door.sock.getsockname()[:2]
            names = {"localhost", "127.0.0.1", "[::1]", f"[{bound}]" if ":" in bound else bound}
            hosts.update(f"{name}:{port}" for name in names)
            if port == (80 if door.tls is None else 443):
                hosts.update(names)
    return frozenset(hosts)

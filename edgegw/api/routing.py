"""From a request line to a handler: one dict of exact paths, one of prefixes; and what a handler gets and gives."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from aiohttp import web

from edgegw.api.bodies import read_body
from edgegw.api.connection import Connection
from edgegw.core.access import Caller
from edgegw.errors import NotFound, RequestError
from edgegw.limits import BODY_BYTES_MAX, DEADLINE_SLACK_S, KNOWN_PATH_CHARS_MAX, MATCH_CACHE_MAX


class Answer(NamedTuple):
    """What a handler gives back; a generator as the body is sent part by part, until it ends or the client is gone."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    headers: Mapping[str, str]


class Call:
    """One request on its way through a handler."""

    __slots__ = ("_connection", "_timeout_s", "caller", "deadline_s", "name", "request")

    caller: Caller  # who asks; the server sets it before any handler is called

    def __init__(self, request: web.BaseRequest, connection: Connection, name: str, timeout_s: float) -> None:
        self.request = request
        self.name = name  # what the path names: a topic, a consumer
        self._connection = connection
        self._timeout_s = timeout_s
        self.deadline_s = 0.0

    def take(self, extra_s: float = 0.0) -> None:
        """The request is read: its answer is due from now on within the route's time, `extra_s` more for a wait it asked for."""
        self.deadline_s = self._connection.now_s() + self._timeout_s + extra_s
        self._connection.work(self.deadline_s, is_waiting=extra_s > 0)

    def stream(self) -> None:
        """The request is read, and its answer has no end: it ends with its client, or with the gateway."""
        self._connection.work(0.0, is_waiting=True)

    @property
    def left_s(self) -> float:
        """How long the answer may still take, seen from the work: a little less, so that the work's own error comes first."""
        return self.deadline_s - self._connection.now_s() - DEADLINE_SLACK_S

    async def body(self, most_bytes: int = BODY_BYTES_MAX) -> bytes:
        """The whole body. Raises RequestError, TooLarge."""
        body = await read_body(self.request, most_bytes)
        self.take()
        return body


Handler = Callable[[Call], Awaitable[Answer]]


class Route(NamedTuple):
    """One method of one path; `{name}` in it stands for one segment, a last `{name*}` for all the rest."""

    method: str
    path: str
    handler: Handler
    scope: str  # what a caller must have, see core/access.py


class Router:
    """Finds the route of a request; HEAD is served as GET."""

    def __init__(self, routes: Sequence[Route], timeout_s: float) -> None:
        self.routes = routes
        self.timeout_s = timeout_s
        self._exact: dict[str, dict[str, Route]] = {}
        self._prefixed: dict[str, dict[str, Route]] = {}
        for route in routes:
            table = self._prefixed if "{" in route.path else self._exact
            methods = table.setdefault(route.path, {})
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route
        self._known: dict[str, tuple[dict[str, Route], str]] = {}  # prefixed paths that were found before
        self._rest = {path.partition("{")[0]: methods for path, methods in self._prefixed.items() if path.endswith("*}")}

    def find(self, request: web.BaseRequest, connection: Connection) -> tuple[Call, Route]:
        """The call and its route. Raises NotFound, RequestError."""
        path = request.raw_path
        if path[:1] != "/":  # absolute form, RFC 9112 section 3.2.2
            path = request.rel_url.raw_path
        path = path.partition("?")[0]
        methods = self._exact.get(path)
        name = ""
        if methods is None:
            methods, name = self._known.get(path) or self._find_prefixed(path)
        route = methods.get(request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise RequestError("method_not_allowed", f"{request.method} is not for {path[:60]}", f"use {allowed}", where=allowed)
        return Call(request, connection, name, self.timeout_s), route

    def _find_prefixed(self, path: str) -> tuple[dict[str, Route], str]:
        for prefix, methods in self._rest.items():
            if path.startswith(prefix):
                found = methods, _decoded(path[len(prefix) :])
                if len(path) <= KNOWN_PATH_CHARS_MAX:
                    if len(self._known) >= MATCH_CACHE_MAX:
                        del self._known[next(iter(self._known))]
                    self._known[path] = found
                return found
        parts = path.split("/")
        for pattern, methods in self._prefixed.items():
            wanted = pattern.split("/")
            if len(wanted) == len(parts) and all(
                want == part or want[:1] == "{" for want, part in zip(wanted, parts, strict=True)
            ):
                return methods, _decoded(next(part for want, part in zip(wanted, parts, strict=True) if want[:1] == "{"))
        raise NotFound("unknown_path", f"there is nothing at {path[:60]!r}", "see the README for the paths", where="path")


def _decoded(text: str) -> str:
    """Percent-decoded, strictly UTF-8. Raises RequestError(bad_path)."""
    try:
        if "%" in text:
            return unquote_to_bytes(text.encode(errors="surrogateescape")).decode()
        text.encode()
    except UnicodeError:
        raise RequestError(
            "bad_path", f"the path {text[:60]!r} is not UTF-8", "percent-encode it as UTF-8", where="path"
        ) from None
    return text

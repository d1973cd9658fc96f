"""An upstream that takes messages once each, and misbehaves when it is told to."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from aiohttp import web

from edgegw.core import columns

Answer = Callable[["UpstreamServer", web.BaseRequest, list[dict[str, Any]]], Awaitable[web.StreamResponse]]


class UpstreamServer:
    """Listens on loopback. `answers` are used up first, one for each request; then every request is taken."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.always: Answer = taken
        self.requests: list[dict[str, str]] = []  # headers
        self.entries: dict[str, dict[str, Any]] = {}  # by key, in the order in which they came first
        self.repeats = 0
        self.busy = self.busy_most = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it takes messages."""
        return f"http://127.0.0.1:{self.port}/v1/messages"

    def topics(self) -> list[str]:
        """Topics of what was taken, in order."""
        return [entry["topic"] for entry in self.entries.values()]

    def seqs(self) -> list[int]:
        """Numbers at the sender of what was taken, in order."""
        return [int(key.rpartition("/")[2]) for key in self.entries]

    def take(self, entries: list[dict[str, Any]]) -> None:
        """Keep what is new."""
        for entry in entries:
            self.repeats += entry["key"] in self.entries
            self.entries.setdefault(entry["key"], entry)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        body = await request.read()
        entries = decoded(request.content_type, body)
        self.requests.append(dict(request.headers))
        self.busy += 1
        self.busy_most = max(self.busy_most, self.busy)
        try:
            return await (self.answers.pop(0) if self.answers else self.always)(self, request, entries)
        finally:
            self.busy -= 1


def decoded(content_type: str, body: bytes) -> list[dict[str, Any]]:
    """The messages of a request; those in columns get the keys that they would have one by one."""
    if content_type == "application/msgpack":
        entries: list[dict[str, Any]] = msgpack.unpackb(body)
        return entries
    if content_type == "application/json":
        return list(json.loads(body))
    got = columns.decode(body, 100_000)
    sender = got.origin.rpartition("/")[0]
    return [
        {"topic": topic, "payload": payload, "key": f"{sender}/{seq}"}
        for topic, payload, seq in zip(got.topics, got.payloads, got.seqs, strict=True)
    ]


async def taken(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
    """As a gateway does."""
    server.take(entries)
    return web.json_response({"count": len(entries)}, status=201)


async def takes_a_while(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
    """As over a long line."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, passed.set)
    await passed.wait()
    return await taken(server, request, entries)


def says(status: int, text: str = "no", *, keeps: bool = False, **headers: str) -> Answer:
    """A plain answer; `keeps`: the messages are kept all the same, and the sender does not hear of it."""

    async def answer(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
        if keeps:
            server.take(entries)
        return web.Response(status=status, text=text, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def hangs(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def resets(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
    """Takes the messages and cuts the line: the worst moment."""
    server.take(entries)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never_ends(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
    """Says 201, and goes on talking for ever."""
    server.take(entries)
    response = web.StreamResponse(status=201)
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


def at_most(messages: int) -> Answer:
    """413 above so many messages."""

    async def answer(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
        if len(entries) > messages:
            return web.Response(status=413)
        return await taken(server, request, entries)

    return answer


def refuses(topic: str) -> Answer:
    """400 for every request that has a message of this topic."""

    async def answer(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> web.StreamResponse:
        if any(entry["topic"] == topic for entry in entries):
            return web.Response(status=400, text=f"cannot take {topic}")
        return await taken(server, request, entries)

    return answer


@asynccontextmanager
async def upstream_server(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[UpstreamServer]:
    """A served upstream."""
    upstream = UpstreamServer()
    server = web.Server(upstream.handle, handler_cancellation=True)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=tls)
    upstream.port = listener.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        listener.close()
        await server.shutdown(0.1)
        await listener.wait_closed()

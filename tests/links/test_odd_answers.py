"""Upstreams that speak something like HTTP: whatever comes, the link gets a verdict, and goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from edgegw.config import LinkConfig
from edgegw.limits import LINK_WORDS_MAX
from edgegw.links.upstream import Reply, Upstream, Verdict

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
BODY = b"x" * 1_000_000


@asynccontextmanager
async def speaking(speak: Speak) -> AsyncIterator[str]:
    """The URL of a server that does just this with each connection."""
    at_work: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        at_work.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await speak(reader, writer)
        writer.close()
        at_work.discard(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?token=secret"
    finally:
        server.close()
        for writer in list(at_work):
            writer.transport.abort()
        await server.wait_closed()


async def asked(speak: Speak, body: bytes = b"[]", timeout_s: float = 2.0) -> Reply:
    """What the link makes of it."""
    async with speaking(speak) as url:
        upstream = Upstream(LinkConfig(name="up", url=url, timeout_s=timeout_s), "store", lambda: 0.0)
        await upstream.open()
        try:
            async with asyncio.timeout(timeout_s + 10):
                return await upstream.send(body, "application/json", "key")
        finally:
            await upstream.close()


def says(*parts: bytes) -> Speak:
    """Reads the request, and answers with these bytes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return speak


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Goes on saying 100 Continue."""
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(0)


OK = b"HTTP/1.1 200 OK\r\n"
ODD: dict[str, tuple[Verdict, Speak]] = {
    "nothing": (Verdict.GONE, says()),
    "garbage": (Verdict.GONE, says(b"\x16\x03\x01\x02\x00garbage\r\n\r\n")),
    "another protocol": (Verdict.GONE, says(b"SSH-2.0-OpenSSH_9.2\r\n")),
    "no number": (Verdict.GONE, says(b"HTTP/1.1 OK 200\r\n\r\n")),
    "status 99999": (Verdict.GONE, says(b"HTTP/1.1 99999 Big\r\nContent-Length: 0\r\n\r\n")),
    "cut in the head": (Verdict.GONE, says(OK + b"Content-Le")),
    "a header of 100 KB": (Verdict.GONE, says(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n")),
    "headers without end": (Verdict.GONE, says(OK, *[b"X-%d: y\r\n" % n for n in range(50_000)])),
    "NUL in a header": (Verdict.GONE, says(OK + b"X: \0\r\nContent-Length: 0\r\n\r\n")),
    "two lengths": (Verdict.GONE, says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")),
    "HTTP/1.0 without a length": (Verdict.TAKEN, says(b"HTTP/1.0 200 OK\r\n\r\nfine")),
    "204 with a body": (Verdict.GONE, says(b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody")),
    "a body cut off": (Verdict.TAKEN, says(OK + b"Content-Length: 100\r\n\r\nshort")),
    "broken chunks": (Verdict.GONE, says(OK + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\nbody\r\n")),
    "a refusal cut off": (Verdict.REFUSED, says(b"HTTP/1.1 400 No\r\nContent-Length: 100\r\n\r\n\xff\xfe")),
    "gzip that is none": (Verdict.TAKEN, says(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody")),
    "a type that is none": (Verdict.TAKEN, says(OK + b'Content-Type: ;;=\xff/"\r\nContent-Length: 0\r\n\r\n')),
    "a wait before time": (
        Verdict.AGAIN,
        says(b"HTTP/1.1 503 No\r\nRetry-After: Mon, 01 Jan 0001 00:00:00 -0000\r\nContent-Length: 0\r\n\r\n"),
    ),
    "a wait that is no date": (Verdict.AGAIN, says(b"HTTP/1.1 503 No\r\nRetry-After: Mon, \xff\r\nContent-Length: 0\r\n\r\n")),
    "101": (Verdict.ASTRAY, says(b"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")),
    "100 without end": (Verdict.GONE, floods),
    "100, then 201": (Verdict.TAKEN, says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")),
}


@pytest.mark.parametrize("name", ODD)
async def test_whatever_comes_there_is_a_verdict(name: str) -> None:
    verdict, speak = ODD[name]
    reply = await asked(speak)
    assert reply.verdict is verdict, reply
    assert reply.words.isprintable() and len(reply.words) <= LINK_WORDS_MAX + 10
    assert "secret" not in reply.words


@pytest.mark.parametrize("lingers", [True, False])
async def test_too_large_said_before_the_body_was_read(lingers: bool) -> None:
    """A server that closes at once resets the line, and its answer may be lost: then the link hears that nobody answered."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        while lingers and await reader.read(65536):
            pass

    reply = await asked(speak, BODY)
    assert reply.verdict is Verdict.SPLIT or (not lingers and reply.verdict is Verdict.GONE), reply

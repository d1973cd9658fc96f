"""Requests at a fixed rate, whether or not the answers keep up: what devices do, and what a closed loop hides."""

import asyncio
from typing import NamedTuple

from tests.bench.measure import BenchError

_CONNECTIONS = 16
# Between two requests of a connection lie 32 ms at 500 a second; an answer within a second still keeps the rate.
_ANSWER_S = 30.0


class Paced(NamedTuple):
    """What was reached: answers with 201 a second, and the longest that one was sent after its time."""

    per_s: float
    late_s: float


class PacedClient:
    """Posts `body` to `path` at `rate` a second over keep-alive connections."""

    def __init__(self, port: int, path: str, body: bytes, content_type: str, rate: float) -> None:
        head = (
            f"POST {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body)}",
        )
        self._request = "\r\n".join((*head, "", "")).encode() + body
        self._port = port
        self._rate = rate
        self._answers = 0
        self._late_s = 0.0

    async def run(self, seconds: float) -> Paced:
        """Send for so long. Raises BenchError when an answer is not 201."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self._answers, self._late_s = 0, 0.0
        await asyncio.gather(*(self._connection(i, started_s, seconds) for i in range(_CONNECTIONS)))
        return Paced(self._answers / (loop.time() - started_s), self._late_s)

    async def _connection(self, place: int, started_s: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for number in range(place, round(seconds * self._rate), _CONNECTIONS):
                due_s = started_s + number / self._rate
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                self._late_s = max(self._late_s, loop.time() - due_s)
                writer.write(self._request)
                async with asyncio.timeout(_ANSWER_S):
                    await self._answer(reader)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 201 "):
            raise BenchError(f"an answer was not 201: {head[:40]!r} {body[:200]!r}")
        self._answers += 1

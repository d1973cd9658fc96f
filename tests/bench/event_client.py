"""Readers of event streams that look at nothing but a time stamp, so that what is measured is the server."""

import asyncio
import re
import time

from tests.bench.measure import BenchError

# Payloads are a number of microseconds on the monotonic clock, which all processes of a machine share.
_STAMP = re.compile(rb'"payload":(\d+)\}')
_HEAD_S = 10.0


def stamp() -> bytes:
    """A payload that says when it was made."""
    return b"%d" % (time.monotonic_ns() // 1000)


class EventReader:
    """One stream; `delays_s` has how old each event was when it came."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self.delays_s: list[float] = []
        self._more = asyncio.Event()

    async def has(self, count: int) -> None:
        """Until so many events came."""
        while len(self.delays_s) < count:
            self._more.clear()
            await self._more.wait()

    async def run(self, connected: asyncio.Semaphore) -> None:
        """Read until cancelled; releases `connected` when the stream stands. Raises BenchError."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        try:
            writer.write(f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise BenchError(f"the stream was answered {head[:60]!r}")
            connected.release()
            rest = b""
            while data := await reader.read(1 << 18):
                now_us = time.monotonic_ns() // 1000
                data = rest + data
                end = 0
                for match in _STAMP.finditer(data):
                    self.delays_s.append((now_us - int(match[1])) / 1e6)
                    end = match.end()
                self._more.set()
                rest = data[max(end, len(data) - 64) :]
        finally:
            writer.close()

"""A client of event streams that keeps what it reads, at its own pace."""

import asyncio
import json
from typing import Any, NamedTuple

from tests.api.in_process import PATIENCE_S, Api, request_bytes


class Event(NamedTuple):
    """One event as the specification parses it; `kind` is `message` unless it says otherwise."""

    kind: str
    id: str
    data: Any


class EventReader:
    """One stream over its own connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.headers: dict[str, str] = {}
        self.comments = 0
        self._text = ""

    @classmethod
    async def open(cls, api: Api, query: str, *, limit: int = 1 << 16, **headers: str) -> "EventReader":
        """Ask for /v1/stream?QUERY, and read the head and the first comment: from then on nothing is missed."""
        reader, writer = await asyncio.open_connection(*api.socket.getsockname()[:2], limit=limit)
        stream = cls(reader, writer)
        api.keep(stream)
        writer.write(request_bytes(api.host, "GET", f"/v1/stream?{query}", None, headers))
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
            assert line.split(" ")[1] == "200", line
            stream.headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
            while not stream.comments:
                await stream._more()
                stream._parsed()
        return stream

    async def events(self, count: int) -> list[Event]:
        """The next so many events."""
        found: list[Event] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < count:
                found += self._parsed(count - len(found))
                if len(found) < count:
                    assert await self._more(), f"the stream ended after {found}"
        return found

    async def comment(self) -> None:
        """Wait for one more comment."""
        seen = self.comments
        async with asyncio.timeout(PATIENCE_S):
            while self.comments == seen:
                assert await self._more(), "the stream ended"
                self._parsed(0)

    async def ends(self) -> bool:
        """Wait for its end; whether it was a proper one."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                while await self._more():
                    pass
            except (ConnectionError, asyncio.IncompleteReadError):
                return False
        return True

    def abort(self) -> None:
        """Be gone."""
        self.writer.transport.abort()

    async def _more(self) -> bool:
        """One more chunk (RFC 9112 section 7.1); False at the last."""
        line = await self._reader.readline()
        if not line:
            raise ConnectionResetError("the connection was closed in the middle of the stream")
        size = int(line, 16)
        data = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        self._text += data.decode()
        return size > 0

    def _parsed(self, most: int = 0) -> list[Event]:
        found: list[Event] = []
        while "\n\n" in self._text and (len(found) < most or self._text.startswith(":")):
            block, _, self._text = self._text.partition("\n\n")
            if block == ":":
                self.comments += 1
                continue
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            assert set(fields) <= {"event", "id", "data"}, block
            found.append(Event(fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])))
        return found

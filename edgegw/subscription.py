"""A live subscription: a bounded window in memory, and the disk behind it.

While its reader keeps up, messages come straight from the commit. When the window is full the subscription falls behind on that
stream: later messages of the stream are not queued but read back from disk, in order, until it has caught up with the
head. RAM is bounded by the window, whatever the backlog; what was evicted meanwhile comes as a gap. Order holds per stream.
"""

import asyncio
from collections import deque
from typing import Protocol

from edgegw.core.record import Gap, Message
from edgegw.limits import WINDOW_MESSAGES_MAX
from edgegw.store.reader import Page


class Backlog(Protocol):
    """What a subscription reads back from."""

    @property
    def window_bytes(self) -> int:
        """What a window may hold, with so many of them open."""

    def head(self, stream: str) -> int:
        """Last committed sequence number of the stream."""

    async def page(self, stream: str, topic_filter: str, after: int, most: int, most_bytes: int) -> Page:
        """Committed messages after `after`."""


class Subscription:
    """Batches of messages (and gaps) that match `topic_filter`, of one stream or of all. One reader at a time."""

    def __init__(self, backlog: Backlog, topic_filter: str, stream: str | None) -> None:
        self.topic_filter = topic_filter
        self.stream = stream
        self.is_closed = False
        self._backlog = backlog
        self._window: deque[Message | Gap] = deque()
        self._window_bytes = 0
        self._behind: dict[str, int] = {}  # stream → everything up to here was queued
        self._wake = asyncio.Event()

    @property
    def queued(self) -> tuple[int, int]:
        """Messages and bytes in the window."""
        return len(self._window), self._window_bytes

    @property
    def lag(self) -> int:
        """Messages of its streams that it has not looked at, beyond the window."""
        return sum(self._backlog.head(stream) - position for stream, position in self._behind.items())

    def start_after(self, stream: str, seq: int) -> None:
        """Begin with what is stored after `seq`."""
        self._behind[stream] = seq
        self._wake.set()

    def offer(self, message: Message) -> None:
        """A message was committed; called in order."""
        if message.stream in self._behind or (self.stream is not None and message.stream != self.stream):
            return
        size_bytes = len(message.payload) + len(message.topic)  # one may be as long as many others
        full = len(self._window) >= WINDOW_MESSAGES_MAX or self._window_bytes + size_bytes > self._backlog.window_bytes
        if full and self._window:
            self._behind[message.stream] = message.seq - 1
        else:
            self._window.append(message)
            self._window_bytes += size_bytes
        self._wake.set()

    def take(self) -> list[Message | Gap]:
        """What is in the window, without waiting for more or for the disk."""
        ready = list(self._window)
        self._window.clear()
        self._window_bytes = 0
        return ready

    async def next(self) -> list[Message | Gap]:
        """Everything that is ready, at least one; `[]` once the subscription is closed. Raises StoreError."""
        while not self.is_closed:
            if ready := self.take():
                return ready
            if self._behind:
                items = await self._catch_up(next(iter(self._behind)))
                if items:
                    return items
                continue
            self._wake.clear()
            await self._wake.wait()
        return []

    def close(self) -> None:
        """End `next`; what was not read is not lost, only not asked for."""
        self.is_closed = True
        self._window.clear()
        self._window_bytes = 0
        self._wake.set()

    async def _catch_up(self, stream: str) -> list[Message | Gap]:
        position = self._behind[stream]
        page = await self._backlog.page(stream, self.topic_filter, position, WINDOW_MESSAGES_MAX, self._backlog.window_bytes)
        if page.position >= self._backlog.head(stream):
            del self._behind[stream]  # no await since the read: the next commit is offered again
        else:
            self._behind[stream] = page.position
            self._behind[stream] = self._behind.pop(stream)  # the next stream has its turn
        return page.items

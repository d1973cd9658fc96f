"""Live messages as Server-Sent Events (WHATWG HTML, section 9.2).

    id: default:17                     with one stream only; a reconnecting client sends it back as Last-Event-ID
    data: {"stream":"default",…}       the row of GET /v1/messages, on one line

    event: gap                         what was evicted before this client got to it
    data: {"gap":{…}}

    :                                  a comment while nothing happens, so that proxies and phones keep the connection

A stream costs one subscription: while its client keeps up, events come straight from the commit; when it does not, writing
blocks, the subscription's window fills, and the rest is read back from disk at the client's pace. A row is encoded once,
however many streams it goes to. Writes of one stream keep a short pace: at 2,000 messages a second it is the wake-ups and
system calls that cost, not the bytes.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator

from edgegw.api.queries import Query
from edgegw.api.routing import Answer, Call
from edgegw.api.rows import gap_row, row
from edgegw.bus import DEFAULT, Bus
from edgegw.core.record import Gap, Message
from edgegw.core.topic import check_filter
from edgegw.errors import Conflict, RequestError, StoreError
from edgegw.limits import (
    EVENT_ROWS_BYTES,
    EVENT_ROWS_MAX,
    EVENT_SLICE_BYTES,
    STREAM_COMMENT_S,
    STREAM_PACE_EACH_S,
    STREAM_PACE_S,
)
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics

_log = Log(__name__)
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}
_COMMENT = b":\n\n"
_EVENT_ID = re.compile(r"[^:]+:[0-9]{1,15}", re.ASCII)
# In a row, line ends are white space between JSON tokens: inside strings they are escaped.
_ONE_LINE = {0x0A: " ", 0x0D: " "}


class Streams:
    """Every open event stream. `now_s` is the loop's clock."""

    def __init__(self, bus: Bus, metrics: Metrics, now_s: Callable[[], float]) -> None:
        self._bus = bus
        self._now_s = now_s
        self._rows: dict[tuple[str, int], bytes] = {}
        self._rows_bytes = 0
        self._open = 0
        metrics.gauge_from("edgegw_event_streams", "Open event streams.", lambda: self._open)
        self._sent = metrics.counter("edgegw_events_sent_total", "Events written to event streams.")

    async def stream(self, call: Call) -> Answer:
        """Messages from now on, or after the one named."""
        query = Query(call, "topic", "stream", "after")
        topic_filter = check_filter(query.text("topic", "#"), where="topic")
        call.caller.check_subscribe(topic_filter)
        # A place is a place in one stream: in the one that GET /v1/messages reads when none is named.
        name = query.text("stream", DEFAULT) if query.has("stream") or query.has("after") else None
        after = self._after(call, query, name)
        call.stream()
        if call.request.method == "HEAD":
            return Answer(200, b"", _HEADERS)
        return Answer(200, self._events(topic_filter, name, after), _HEADERS)

    def _after(self, call: Call, query: Query, name: str | None) -> int | None:
        seen = call.request.headers.get("Last-Event-ID", "")
        if seen and not _EVENT_ID.fullmatch(seen):
            raise RequestError(
                "bad_event_id",
                f"{seen[:60]!r} is no event id",
                "send the id of the last event as it came, or none",
                where="Last-Event-ID",
            )
        if name is None:
            return None  # across streams events have no id
        stats = self._bus.stream(name)
        if not seen:
            return query.position("after", stats, 0) if query.has("after") else None
        of, _, number = seen.rpartition(":")
        if of != name:
            raise Conflict(
                "other_stream",
                f"the event {seen[:60]!r} is not of the stream {name!r}",
                "ask for its stream, or send no id",
                where="Last-Event-ID",
            )
        # Numbers that this store has not given yet are another store's: all that is here is new to this client.
        return int(number) if int(number) <= stats.head else stats.first - 1

    async def _events(self, topic_filter: str, name: str | None, after: int | None) -> AsyncGenerator[bytes, None]:
        subscription = self._bus.subscribe(topic_filter, stream=name, after=after)
        self._open += 1
        try:
            yield _COMMENT  # at once: the client knows that it is connected
            wrote_s = self._now_s()
            while not subscription.is_closed:
                pace_s = max(STREAM_PACE_S, self._open * STREAM_PACE_EACH_S)
                if (rest_s := wrote_s + pace_s - self._now_s()) > 0:
                    await asyncio.sleep(rest_s)
                try:
                    items = subscription.take()
                    if not items:
                        async with asyncio.timeout(STREAM_COMMENT_S):
                            items = await subscription.next()
                except TimeoutError:
                    yield _COMMENT
                    continue
                except StoreError as exc:
                    _log.error("stream.failed", error=exc, filter=subscription.topic_filter)
                    return  # the client comes back, with the last id it saw
                wrote_s = self._now_s()
                for part in self._slices(items, is_numbered=subscription.stream is not None):
                    yield part
        finally:
            self._open -= 1
            self._bus.unsubscribe(subscription)

    def _slices(self, items: list[Message | Gap], *, is_numbered: bool) -> Iterator[bytes]:
        """The events, in pieces that a client takes one after the other: what it does not take stays as messages here."""
        self._sent.inc(len(items))
        parts: list[bytes] = []
        size_bytes = 0
        for item in items:
            part = self._event(item, is_numbered)
            parts.append(part)
            size_bytes += len(part)
            if size_bytes >= EVENT_SLICE_BYTES:
                yield b"".join(parts)
                parts, size_bytes = [], 0
        if parts:
            yield b"".join(parts)

    def _event(self, item: Message | Gap, is_numbered: bool) -> bytes:
        if isinstance(item, Gap):
            text = gap_row(item, names_stream=not is_numbered)
            number = f"id: {item.stream}:{item.last}\n" if is_numbered else ""
            return f"event: gap\n{number}data: {text}\n\n".encode()
        data = self._data(item)
        return f"id: {item.stream}:{item.seq}\n".encode() + data if is_numbered else data

    def _data(self, message: Message) -> bytes:
        """The data line of a message, remembered for the other streams it goes to."""
        key = (message.stream, message.seq)
        data = self._rows.get(key)
        if data is not None:
            return data
        text = row(message)
        if "\n" in text or "\r" in text:
            text = text.translate(_ONE_LINE)
        data = f"data: {text}\n\n".encode()
        if self._open > 1:
            self._rows[key] = data
            self._rows_bytes += len(data)
            while self._rows_bytes > EVENT_ROWS_BYTES or len(self._rows) > EVENT_ROWS_MAX:
                self._rows_bytes -= len(self._rows.pop(next(iter(self._rows))))
        return data

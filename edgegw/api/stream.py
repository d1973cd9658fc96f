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
from collections.abc import AsyncGenerator, Callable, Iterator

from edgegw.api.queries import Query
from edgegw.api.routing import Answer, Call
from edgegw.api.rows import gap_row, row
from edgegw.bus import Bus
from edgegw.core.record import Gap, Message
from edgegw.core.topic import check_filter
from edgegw.errors import RequestError, StoreError
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
        name = query.text("stream", "") or None
        after = self._after(call, query, name)
        call.stream()
        if call.request.method == "HEAD":
            return Answer(200, b"", _HEADERS)
        return Answer(200, self._events(topic_filter, name, after), _HEADERS)

    def _after(self, call: Call, query: Query, name: str | None) -> int | None:
        if name is None:
            if query.text("after", ""):
                raise RequestError("bad_parameter", "after counts in one stream", "name it: stream=default", where="after")
            return None
        stats = self._bus.stream(name)
        seen = call.request.headers.get("Last-Event-ID")
        if seen:
            seq = _seq_of(seen, name)
            # Numbers that this store has not given yet are another store's: all that is here is new to this client.
            return seq if seq <= stats.head else stats.first - 1
        if not query.text("after", ""):
            return None
        after = query.integer("after", 0, 0, 2**48)
        if after > stats.head:
            raise RequestError(
                "beyond_end", f"the stream {name!r} ends at message {stats.head}, before {after}", "ask after that", where="after"
            )
        return after

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


def _seq_of(event_id: str, stream: str) -> int:
    name, _, number = event_id.rpartition(":")
    if name != stream or not (number.isascii() and number.isdigit() and len(number) < 16):
        raise RequestError(
            "bad_event_id",
            f"{event_id[:60]!r} is no event of the stream {stream!r}",
            "send the id of the last event as it came, or none",
            where="Last-Event-ID",
        )
    return int(number)

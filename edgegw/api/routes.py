"""The handlers: requests to bus calls, results to bodies."""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from edgegw import __version__
from edgegw.api.bodies import (
    check_content_type,
    check_flag,
    check_key,
    check_ttl_s,
    flag_in,
    number_in,
    parse_batch,
    parse_columns,
    parse_object,
    read_body,
)
from edgegw.api.etags import answer_unless_known
from edgegw.api.page import page_routes
from edgegw.api.queries import Query, check_position
from edgegw.api.routing import Answer, Call, Route
from edgegw.api.rows import rows_body
from edgegw.api.stream import Streams
from edgegw.bus import Bus, Options, Share
from edgegw.clock import Clock
from edgegw.conditions import Conditions
from edgegw.consumer import LINK_CONSUMERS, Consumer
from edgegw.core.access import KNOWN, OPEN, PUBLISH, SUBSCRIBE
from edgegw.core.columns import CONTENT_TYPE as COLUMNS
from edgegw.core.columns import SENDER
from edgegw.core.cursor import Terms
from edgegw.core.record import OCTETS, Gap, Message
from edgegw.core.times import parse_time_us
from edgegw.core.topic import check_filter
from edgegw.errors import Conflict, RequestError
from edgegw.limits import (
    ACK_WAIT_S_DEFAULT,
    ACK_WAIT_S_MAX,
    BATCH_MESSAGES_MAX,
    BODY_BYTES_MAX,
    COLUMNS_EXTRA_BYTES,
    DELIVER_MAX,
    FETCH_WAIT_S_MAX,
    INFLIGHT_MAX,
    NAME_BYTES_MAX,
    PAGE_BYTES,
    PAGE_MESSAGES_MAX,
    RETAINED_PAGE_MAX,
    STREAM_ROWS_MAX,
)  # fmt: skip
from edgegw.observe.metrics import Metrics
from edgegw.store.jobs import StreamStats

CLASSES = ("memory", "crash", "power")
CLASS = "power"  # what every receipt reaches until streams may choose less
_JSON_HEADERS = {"Content-Type": "application/json"}
_TEXT_HEADERS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
_WORDS_HINT = "/v1/status says why, with a token"
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_TERMS_FIELDS = frozenset({"filter", "stream", "start", "max_inflight", "ack_wait_s", "max_deliver"})


class Routes:
    """All routes of the API over one bus. `status` gives what /v1/status says beside streams and consumers."""

    def __init__(
        self,
        bus: Bus,
        conditions: Conditions,
        metrics: Metrics,
        clock: Clock,
        *,
        status: Callable[[], dict[str, Any]],
        is_healthy: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._conditions = conditions
        self._metrics = metrics
        self._clock = clock
        self._status = status
        self._is_healthy = is_healthy
        self._openapi = b""
        self._streams = Streams(bus, metrics, clock.mono_s)

    def table(self) -> list[Route]:
        """Every route."""
        return [
            Route("GET", "/healthz", self.healthz, OPEN),
            Route("GET", "/readyz", self.readyz, OPEN),
            Route("GET", "/metrics", self.metrics, KNOWN),
            Route("GET", "/v1/status", self.status, KNOWN),
            Route("GET", "/openapi.json", self.openapi, KNOWN),
            Route("POST", "/v1/topics/{topic*}", self.publish, PUBLISH),
            Route("POST", "/v1/messages", self.publish_batch, PUBLISH),
            Route("GET", "/v1/messages", self.messages, SUBSCRIBE),
            Route("GET", "/v1/stream", self._streams.stream, SUBSCRIBE),
            Route("GET", "/v1/retained", self.retained, SUBSCRIBE),
            Route("GET", "/v1/consumers", self.consumers, SUBSCRIBE),
            Route("PUT", "/v1/consumers/{name}", self.make_consumer, SUBSCRIBE),
            Route("GET", "/v1/consumers/{name}", self.consumer, SUBSCRIBE),
            Route("DELETE", "/v1/consumers/{name}", self.delete_consumer, SUBSCRIBE),
            Route("POST", "/v1/consumers/{name}/fetch", self.fetch, SUBSCRIBE),
            Route("POST", "/v1/consumers/{name}/ack", self.ack, SUBSCRIBE),
            Route("POST", "/v1/consumers/{name}/nack", self.nack, SUBSCRIBE),
            *page_routes(),
        ]

    # --- state ------------------------------------------------------------------------------------

    async def healthz(self, call: Call) -> Answer:
        """Never touches the disk."""
        Query(call)
        return Answer(200 if self._is_healthy() else 503, b"", {})

    async def readyz(self, call: Call) -> Answer:
        """Whether every required condition is good. Who is not known is not told the words: they name files and upstreams."""
        Query(call)
        conditions = self._conditions.snapshot()
        if KNOWN not in call.caller.scopes:
            conditions = [{**each, "what": "", "hint": _WORDS_HINT if each["what"] else ""} for each in conditions]
        return _json(200 if self._conditions.is_ready else 503, {"conditions": conditions})

    async def metrics(self, call: Call) -> Answer:
        """Prometheus text 0.0.4."""
        Query(call)
        return Answer(200, self._metrics.render().encode(), _TEXT_HEADERS)

    async def status(self, call: Call) -> Answer:
        """Both ledgers and the state of the process; of consumers, those that the caller may read."""
        Query(call)
        now_ms = self._clock.wall_ms()
        may = call.caller.may_subscribe
        body = self._status() | {
            "conditions": self._conditions.snapshot(),
            "streams": {name: stream_status(stats, now_ms) for name, stats in sorted(self._bus.streams.items())},
            "consumers": {
                name: consumer_status(consumer, self._bus)
                for name, consumer in sorted(self._bus.consumers.items())
                if may(consumer.ledger.terms.filter)
            },
        }
        return _json(200, body)

    async def openapi(self, call: Call) -> Answer:
        """What all of this takes and answers; made for the first who asks."""
        Query(call)
        if not self._openapi:
            from edgegw.api.openapi import document

            self._openapi = document(__version__)
        return answer_unless_known(call, self._openapi, _JSON_HEADERS)

    # --- publish and read -------------------------------------------------------------------------

    async def publish(self, call: Call) -> Answer:
        """One message; the body is the payload."""
        headers = call.request.headers
        topic = call.name
        self._bus.route(topic)
        call.caller.check_publish(topic)
        if "?" in call.request.raw_path:
            Query(call)
        body = await read_body(call.request)
        call.take()
        options = _options(headers) if _has_options(headers) else None
        content_type = headers.get("Content-Type")
        content_type = OCTETS if content_type is None else check_content_type(content_type, "Content-Type")
        receipt = await self._bus.publish(topic, body, content_type, options, wait_s=call.left_s)
        text = f'{{"stream":"{receipt.stream}","seq":{receipt.seq},"class":"{CLASS}"}}\n'
        return Answer(200 if receipt.is_repeat else 201, text.encode(), _JSON_HEADERS)

    async def publish_batch(self, call: Call) -> Answer:
        """Many messages, all or nothing."""
        Query(call)
        headers = call.request.headers
        _check_class(headers)
        if headers.get(SENDER) == self._bus.epoch:  # each message would come round for ever
            raise Conflict("link_loop", "this gateway sent it itself", "let the url of the link name another gateway")
        if headers.get("Content-Type", "").lower() == COLUMNS:
            return await self._publish_columns(call)
        body = await call.body()
        batch = parse_batch(headers.get("Content-Type", ""), body, self._clock.wall_ms())
        call.caller.check_publish_all(batch.topics)
        shares = await self._bus.publish_batch(batch, wait_s=call.left_s)
        if any(part.repeats is not None and any(part.repeats) for part, _ in shares):
            receipts, is_new = _receipts(shares, len(batch))
            return _json(201 if is_new else 200, {"receipts": receipts, "count": len(batch), "class": CLASS})
        ranges = [
            {
                "stream": part.stream,
                "first": part.first_seq,
                "last": part.first_seq + len(part.batch) - 1,
                "count": len(part.batch),
                "class": CLASS,
            }
            for part, _ in shares
        ]
        return _json(201, ranges[0] if len(ranges) == 1 else ranges)

    async def _publish_columns(self, call: Call) -> Answer:
        """The batch of another gateway: what of its range came before is not stored again."""
        body = await call.body(BODY_BYTES_MAX + COLUMNS_EXTRA_BYTES)
        batch, span = parse_columns(body, self._clock.wall_ms())
        call.caller.check_publish_all(batch.topics)
        repeats = await self._bus.publish_span(batch, span, wait_s=call.left_s)
        return _json(200 if repeats == len(batch) else 201, {"count": len(batch), "repeats": repeats, "class": CLASS})

    async def messages(self, call: Call) -> Answer:
        """Stored messages of one stream, in order, with gaps."""
        query = Query(call, "topic", "stream", "after", "limit", "raw")
        topic_filter = check_filter(query.text("topic", "#"), where="topic")
        call.caller.check_subscribe(topic_filter)
        stats = self._bus.stream(query.text("stream", "default"))
        after = query.position("after", stats, stats.first - 1)
        most = query.integer("limit", 100, 1, PAGE_MESSAGES_MAX)
        raw = query.flag("raw")
        call.take()
        items: list[Message | Gap] = []
        room_bytes, position, rows = PAGE_BYTES, after, 0
        while rows < most and room_bytes > 0 and call.left_s > 0:
            page = await self._bus.page(stats.name, topic_filter, position, most - rows, room_bytes)
            for item in page.items:
                if isinstance(item, Message):
                    rows += 1
                    room_bytes -= len(item.payload)
            items += page.items
            position = page.position
            if position >= self._bus.head(stats.name):
                return Answer(200, rows_body(items, raw=raw), _JSON_HEADERS)
        return Answer(200, rows_body(items, raw=raw), _JSON_HEADERS | _next_link(call, after=position))

    async def retained(self, call: Call) -> Answer:
        """Last values, in the order of topics."""
        query = Query(call, "topic", "after", "limit", "raw")
        topic_filter = check_filter(query.text("topic", "#"), where="topic")
        call.caller.check_subscribe(topic_filter)
        call.take()
        after = query.text("after", "") or None
        found, further = await self._bus.retained(
            topic_filter, after, query.integer("limit", RETAINED_PAGE_MAX, 1, RETAINED_PAGE_MAX)
        )
        links = _next_link(call, after=further) if further is not None else {}
        return Answer(200, rows_body(found, raw=query.flag("raw")), _JSON_HEADERS | links)

    # --- consumers --------------------------------------------------------------------------------

    async def consumers(self, call: Call) -> Answer:
        """All of them, with lag."""
        Query(call)
        may = call.caller.may_subscribe
        found = [consumer for _, consumer in sorted(self._bus.consumers.items()) if may(consumer.ledger.terms.filter)]
        return _json(200, [consumer_status(consumer, self._bus) for consumer in found])

    async def consumer(self, call: Call) -> Answer:
        """One of them, with lag."""
        Query(call)
        return _json(200, consumer_status(self._consumer(call), self._bus))

    def _consumer(self, call: Call) -> Consumer:
        """The consumer that the path names. Raises NotFound, Unauthorized when its filter is more than the caller may read."""
        consumer = self._bus.consumer(call.name)
        call.caller.check_subscribe(consumer.ledger.terms.filter, where="name")
        return consumer

    async def make_consumer(self, call: Call) -> Answer:
        """Make it, or find that it stands."""
        Query(call)
        name = call.name
        if not 0 < len(name) <= NAME_BYTES_MAX or not _NAME_CHARS.issuperset(name):
            raise RequestError(
                "bad_name", f"{name[:60]!r} cannot name a consumer", f"1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ .", where="name"
            )
        if name.startswith(LINK_CONSUMERS):
            raise RequestError(
                "bad_name", f"names that begin with {LINK_CONSUMERS} are for links", "choose another", where="name"
            )
        fields = parse_object(await call.body(), _TERMS_FIELDS)
        stream = _text(fields, "stream", "default")
        self._bus.stream(stream)
        terms = Terms(
            name=name,
            stream=stream,
            filter=check_filter(_text(fields, "filter", "#"), where="filter"),
            max_inflight=int(_number(fields, "max_inflight", 1000, 1, INFLIGHT_MAX, whole=True)),
            ack_wait_s=_number(fields, "ack_wait_s", ACK_WAIT_S_DEFAULT, 0.1, ACK_WAIT_S_MAX),
            max_deliver=int(_number(fields, "max_deliver", 10, 1, DELIVER_MAX, whole=True)),
        )
        call.caller.check_subscribe(terms.filter, where="filter")
        is_new = await self._bus.make_consumer(terms, await self._floor(stream, fields.get("start", "new")))
        return _json(201 if is_new else 200, consumer_status(self._bus.consumer(name), self._bus))

    async def _floor(self, stream: str, start: object) -> int:
        stats = self._bus.stream(stream)
        if start == "new":
            return stats.head
        if start == "all":
            return stats.first - 1
        if isinstance(start, dict) and len(start) == 1:
            if "seq" in start:
                after = int(_number(start, "seq", 0, 1, STREAM_ROWS_MAX + 1, whole=True)) - 1
                return check_position(after, stats, where="start.seq")
            if "time" in start:
                return await self._bus.seq_at(stream, parse_time_us(start["time"], where="start.time") // 1000) - 1
        raise RequestError(
            "bad_start", "a consumer cannot start there", 'start is "new", "all", {"seq": N} or {"time": RFC 3339}', where="start"
        )

    def _free_consumer(self, call: Call) -> Consumer:
        consumer = self._consumer(call)
        if consumer.owner:
            raise Conflict(
                "consumer_owned",
                f"the consumer {call.name!r} is drained by the {consumer.owner} of this gateway",
                "make a consumer of your own; to end a link, take it out of the configuration",
            )
        return consumer

    async def delete_consumer(self, call: Call) -> Answer:
        """Remove it with its cursor."""
        Query(call)
        self._free_consumer(call)
        call.take()
        await self._bus.delete_consumer(call.name)
        return Answer(204, b"", {})

    async def fetch(self, call: Call) -> Answer:
        """Messages for this consumer; waits for the first."""
        query = Query(call, "max", "wait", "raw")
        consumer = self._free_consumer(call)
        most = query.integer("max", 100, 1, PAGE_MESSAGES_MAX)
        wait_s = query.number("wait", 0, 0, FETCH_WAIT_S_MAX)
        raw = query.flag("raw")
        await call.body()
        call.take(wait_s)
        return Answer(200, rows_body(await consumer.fetch(most, wait_s), raw=raw), _JSON_HEADERS)

    async def ack(self, call: Call) -> Answer:
        """Settle messages; durable when answered."""
        Query(call)
        consumer = self._free_consumer(call)
        fields = parse_object(await call.body(), frozenset({"seqs", "upto"}))
        if len(fields) != 1:
            raise RequestError(
                "bad_ack", "an acknowledgement has either seqs or upto", '{"seqs": [1, 2]} or {"upto": 2}', where="body"
            )
        if "upto" in fields:
            await consumer.ack_upto(int(_number(fields, "upto", 0, 0, STREAM_ROWS_MAX + 1, whole=True)))
        else:
            await consumer.ack(_seqs(fields))
        return Answer(204, b"", {})

    async def nack(self, call: Call) -> Answer:
        """Deliver messages again."""
        Query(call)
        consumer = self._free_consumer(call)
        fields = parse_object(await call.body(), frozenset({"seqs", "delay_s"}))
        consumer.nack(_seqs(fields), _number(fields, "delay_s", 0, 0, ACK_WAIT_S_MAX))
        return Answer(204, b"", {})


# --- forms --------------------------------------------------------------------------------------


def stream_status(stats: StreamStats, now_ms: int) -> dict[str, object]:
    """A stream as /v1/status has it."""
    return {
        "received": stats.head,
        "stored": stats.rows,
        "removed": stats.removed,
        "bytes": stats.size_bytes,
        "rows": stats.rows,
        "first": stats.first if stats.rows else None,
        "last": stats.head if stats.rows else None,
        "oldest_age_s": None if stats.oldest_ms is None else max(0, now_ms - stats.oldest_ms) / 1000,
        "bytes_max": stats.bytes_max,
        "rows_max": stats.rows_max,
        "age_max_s": stats.age_max_s,
        "policy": stats.policy,
    }


def consumer_status(consumer: Consumer, bus: Bus) -> dict[str, object]:
    """A consumer as /v1/consumers has it. `lag` = messages of the stream beyond its cursor; `pending` = those it wants."""
    ledger = consumer.ledger
    terms = ledger.terms
    return {
        "name": terms.name,
        "stream": terms.stream,
        "filter": terms.filter,
        "max_inflight": terms.max_inflight,
        "ack_wait_s": terms.ack_wait_s,
        "max_deliver": terms.max_deliver,
        "matched": ledger.matched,
        "acked": ledger.acked,
        "pending": ledger.pending,
        "dead_lettered": ledger.dead_lettered,
        "lost": ledger.lost,
        "cursor": ledger.floor,
        "inflight": consumer.inflight,
        "lag": bus.head(terms.stream) - ledger.floor,
    }


def _json(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value, separators=(",", ":")).encode() + b"\n", _JSON_HEADERS)


def _receipts(shares: list[Share], count: int) -> tuple[list[dict[str, object]], bool]:
    receipts: list[dict[str, object]] = [{}] * count
    is_new = False
    for part, places in shares:
        for i, place in enumerate(places):
            seq = part.seqs[i] if part.seqs is not None else part.first_seq + i
            is_repeat = part.repeats is not None and part.repeats[i]
            is_new = is_new or not is_repeat
            receipts[place] = {"stream": part.stream, "seq": seq, "class": CLASS, "repeat": is_repeat}
    return receipts, is_new


def _next_link(call: Call, **more: object) -> dict[str, str]:
    """RFC 8288: where the rest is, when an answer could not hold all."""
    request = call.request
    query = {**{name: value for name, value in request.query.items()}, **{name: str(value) for name, value in more.items()}}  # noqa: C416  a MultiDict
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return {"Link": f'<{request.rel_url.raw_path}?{text}>; rel="next"'}


def _has_options(headers: Mapping[str, str]) -> bool:
    # Five look-ups in a row: a generator around them costs three times as much.
    return (
        "Idempotency-Key" in headers
        or "Edgegw-Class" in headers
        or "Edgegw-Retain" in headers
        or "Edgegw-TTL" in headers
        or "Edgegw-Time" in headers
    )


def _options(headers: Mapping[str, str]) -> Options:
    _check_class(headers)
    key, retain, ttl, time = (headers.get(name) for name in ("Idempotency-Key", "Edgegw-Retain", "Edgegw-TTL", "Edgegw-Time"))
    return Options(
        key=None if key is None else check_key(key, "Idempotency-Key"),
        retain=retain is not None and check_flag(flag_in(retain), "Edgegw-Retain"),
        source_us=None if time is None else parse_time_us(time, where="Edgegw-Time"),
        ttl_s=None if ttl is None else check_ttl_s(number_in(ttl), "Edgegw-TTL"),
    )


def _check_class(headers: Mapping[str, str]) -> None:
    wanted = headers.get("Edgegw-Class")
    if wanted is not None and wanted not in CLASSES:
        raise RequestError(
            "bad_class", f"{wanted[:60]!r} is no durability class", f"one of {', '.join(CLASSES)}", where="Edgegw-Class"
        )


def _text(fields: dict[str, Any], name: str, default: str) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise RequestError("bad_field", f"{name} is not a string", "", where=name)
    return value


def _number(fields: dict[str, Any], name: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
    value = fields.get(name, default)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not low <= value <= high
        or (whole and value != int(value))
    ):
        raise RequestError(
            "bad_field",
            f"{name} is {json.dumps(value)[:60]}",
            f"a {'whole ' if whole else ''}number from {low:g} to {high:g}",
            where=name,
        )
    return value


def _seqs(fields: dict[str, Any]) -> list[int]:
    seqs = fields.get("seqs")
    if not isinstance(seqs, list) or not 0 < len(seqs) <= BATCH_MESSAGES_MAX or not all(map(_is_seq, seqs)):
        raise RequestError("bad_field", "seqs is no list of sequence numbers", '{"seqs": [1, 2]}', where="seqs")
    return [int(seq) for seq in seqs]


def _is_seq(value: object) -> bool:
    """A whole number, however it is written: to JSON, 7.0 is 7."""
    return (type(value) is int or (type(value) is float and value.is_integer())) and value >= 1

"""Every operation of the API as /openapi.json describes it: what it takes, what it answers, and the codes of its refusals.

tests/api/test_openapi.py holds them against the router's table, their codes against what the source raises, and their
answers against real ones.
"""

from collections.abc import Iterator
from typing import Final

from edgegw.api.openapi_parts import Operation, Reply, flag, header, named, query
from edgegw.api.openapi_schemas import (
    CLASSES,
    KEY_HEADER_PATTERN,
    NEW_NAME_PATTERN,
    Schema,
    count,
    number,
    one_of,
    ref,
    text,
)
from edgegw.core.columns import CONTENT_TYPE as COLUMNS
from edgegw.core.columns import SENDER
from edgegw.core.record import JSON, OCTETS
from edgegw.limits import (
    FETCH_WAIT_S_MAX,
    KEY_BYTES_MAX,
    PAGE_MESSAGES_MAX,
    RETAINED_PAGE_MAX,
    STREAM_COMMENT_S,
    STREAM_ROWS_MAX,
    TTL_S_MAX,
)

_MSGPACK, _NDJSON, _EVENTS, _TEXT = "application/msgpack", "application/x-ndjson", "text/event-stream", "text/plain"

_READS: Final = ("deadline", "store_failed", "store_unusable", "store_damaged", "store_closed", "chunk_corrupt")
_STORES: Final = ("deadline", "store_failed", "store_unusable", "store_damaged", "store_closed")
_PUBLISHES: Final = (
    "bad_topic",
    "bad_key",
    "bad_ttl",
    "bad_flag",
    "bad_time",
    "bad_class",
    "bad_content_type",
    "key_reused",
    "busy",
)
_PUBLISH_FULL: Final = ("store_full", "retained_full")
_REFUSED_RELOAD: Final = (
    "config_invalid",
    "bad_certificate",
    "bad_socket_path",
    "plaintext_not_allowed",
    "token_needed",
    "cannot_listen",
    "socket_in_use",
)
_OBJECT: Final = ("bad_json", "unknown_field", "bad_field")


_TOPIC_FILTER = query("topic", ref("TopicFilter") | {"default": "#"}, "only messages of these topics", example="cellar/#")
_STREAM = query("stream", text(default="default"), "stream of the configuration")
_RAW = query("raw", flag(), "`1`: every payload as `payload_b64`")
_AFTER = "the number before the first message wanted; left out, from the oldest on. Beyond the end: 409 `beyond_end`"
_CLASS = header("Edgegw-Class", {"enum": list(CLASSES)}, "what is wanted; a class below the stream's is raised to it")
_NAME = named("of the consumer", "cloud")
_NEW_NAME = named("of the consumer; those of links are the gateway's", "cloud", NEW_NAME_PATTERN)


def operations() -> Iterator[Operation]:
    """All of them, in the order of a reader."""
    yield from _publishing()
    yield from _reading()
    yield from _consumers()
    yield from _state()
    yield from _tokens()
    yield from _configuration()
    yield from _documents()


# What can be done with a consumer.
_NEXT: Final = ("getConsumer", "fetch", "deleteConsumer")


# --- publishing -----------------------------------------------------------------------------------


def _publishing() -> Iterator[Operation]:
    receipt = {JSON: ref("Receipt") | {"examples": [{"stream": "default", "seq": 1, "class": "power"}]}}
    yield Operation(
        "POST",
        "/v1/topics/{topic}",
        "publish",
        "publish",
        "publish",
        "store one message",
        "The body is the payload, of any media type, kept as it came. Answered once the message is durable. The topic's `/` may"
        " stand as it is or percent-encoded; a request line holds 16 KiB, longer topics go in a batch.",
        {201: Reply("stored", receipt), 200: Reply("it was stored before: the first receipt", receipt)},
        (*_PUBLISHES, *_PUBLISH_FULL, *_STORES),
        (
            {
                "name": "topic",
                "in": "path",
                "required": True,
                "description": "the topic",
                "schema": ref("Topic"),
                "example": "cellar/temperature",
            },
            header(
                "Idempotency-Key",
                text(minLength=1, maxLength=KEY_BYTES_MAX, pattern=KEY_HEADER_PATTERN),
                "stores the message once, however often it is sent: within 24 hours or 100,000 keys of its stream a repeat gets"
                " 200 and the first receipt; with another body, 422 `key_reused`",
            ),
            _CLASS,
            header("Edgegw-Retain", {"type": "boolean"}, "keep it as the last value of its topic"),
            header(
                "Edgegw-TTL",
                number("", exclusiveMinimum=0, maximum=TTL_S_MAX),
                "seconds after which the message goes",
            ),
            header("Edgegw-Time", ref("Time"), "when it was measured"),
        ),
        (False, "the payload", {JSON: {"examples": [{"celsius": 21.5}]}, OCTETS: {}, _TEXT: {}, "*/*": {}}),
    )
    entries: Schema = {
        "examples": [[{"topic": "cellar/temperature", "payload": 21.5}, {"topic": "cellar/camera", "payload_b64": "AAEC"}]]
    }
    ranges: Schema = {
        "oneOf": [ref("Range"), {"type": "array", "minItems": 2, "items": ref("Range")}, ref("Receipts"), ref("Taken")]
    }
    yield Operation(
        "POST",
        "/v1/messages",
        "publishBatch",
        "publish",
        "publish",
        "store many messages, all or none",
        "Answered once all are durable: one range, or a list of them where the messages belong to several streams. When keys"
        " repeat, one receipt for each message instead.",
        {
            201: Reply("stored", {JSON: ranges}),
            200: Reply("all of it was stored before", {JSON: one_of("Receipts", "Taken")}),
        },
        (
            *_PUBLISHES, "unknown_field", "bad_json", "bad_msgpack", "bad_batch", "bad_entry", "bad_payload",
            "batch_too_large", "unsupported_type", "too_many_ranges", "link_loop", *_PUBLISH_FULL, *_STORES,
        ),
        (_CLASS, header(SENDER, text(), "of a link: the store it sends from, so that one which posts to itself is told")),
        (
            True,
            f"an array of messages: as JSON, as msgpack (payloads may be bytes), one message a line ({_NDJSON}), or from another"
            f" gateway ({COLUMNS})",
            {JSON: ref("Batch") | entries, _MSGPACK: ref("Batch"), _NDJSON: ref("Batch"), COLUMNS: ref("Columns")},
        ),
    )  # fmt: skip


# --- reading --------------------------------------------------------------------------------------


def _reading() -> Iterator[Operation]:
    after = count("", 0, STREAM_ROWS_MAX + 1)
    yield Operation(
        "GET",
        "/v1/messages",
        "listMessages",
        "read",
        "subscribe",
        "stored messages of one stream, in order",
        "What was removed stands in its place as a gap. When one answer does not hold all, `Link` says where it goes on.",
        {200: Reply("the messages and gaps", {JSON: ref("Rows")}, ("Link",))},
        ("bad_filter", "unknown_stream", "beyond_end", *_READS),
        (
            _TOPIC_FILTER,
            _STREAM,
            query("after", after, _AFTER),
            query("limit", count("", 1, PAGE_MESSAGES_MAX) | {"default": 100}, "messages in one answer, at most"),
            _RAW,
        ),
    )
    yield Operation(
        "GET",
        "/v1/stream",
        "streamMessages",
        "read",
        "subscribe",
        "messages as they come, as Server-Sent Events",
        "Each event's `data` is a row as GET /v1/messages has it (schema `Message` or `DeadLetter`); what was removed before this"
        " client got to it is an event `gap` (schema `Gap`, across streams `GapOfStream`). With `stream` or `after`, events have"
        f" an id to resume from. A comment comes every {STREAM_COMMENT_S:g} s while nothing else does. The answer ends with the"
        " client, or when the gateway stops.",
        {
            200: Reply(
                "events, until the client goes",
                {_EVENTS: ref("Event")},
                ("Cache-Control", "X-Accel-Buffering"),
            )
        },
        ("bad_filter", "unknown_stream", "beyond_end", "bad_event_id", "other_stream", "too_many_subscriptions"),
        (
            _TOPIC_FILTER,
            query("stream", text(), "only messages of this stream; left out, of all, without ids"),
            query(
                "after",
                after,
                "begin behind this message of the stream (of `default` when none is named); left out, with new ones",
            ),
            header(
                "Last-Event-ID",
                text(pattern=r"^([^:]+:[0-9]{1,15})?$"),
                "id of the last event that was seen, which goes before `after`; empty is as none",
            ),
        ),
    )
    yield _retained()


def _retained() -> Operation:
    return Operation(
        "GET",
        "/v1/retained",
        "listRetained",
        "read",
        "subscribe",
        "last values, in the order of their topics",
        "What was published with `retain`. With more than one answer holds, `Link` says where it goes on.",
        {200: Reply("the messages", {JSON: ref("Messages")}, ("Link",))},
        ("bad_filter", *_READS),
        (
            _TOPIC_FILTER,
            query("after", text(), "the topic before the first one wanted"),
            query("limit", count("", 1, RETAINED_PAGE_MAX) | {"default": RETAINED_PAGE_MAX}, "messages in one answer, at most"),
            _RAW,
        ),
    )


# --- consumers ------------------------------------------------------------------------------------


def _consumers() -> Iterator[Operation]:
    one: dict[str, Schema] = {JSON: ref("Consumer")}
    terms = ref("Terms") | {"examples": [{"filter": "air-quality/#", "start": "all"}]}
    yield Operation(
        "GET", "/v1/consumers", "listConsumers", "consumers", "subscribe", "all consumers, with lag", "",
        {200: Reply("the consumers", {JSON: {"type": "array", "items": ref("Consumer")}})},
    )  # fmt: skip
    yield Operation(
        "PUT",
        "/v1/consumers/{name}",
        "makeConsumer",
        "consumers",
        "subscribe",
        "make a consumer, or change one that stands",
        "A consumer is a named cursor on one stream. Stream and filter of one that stands cannot change.",
        {201: Reply("made", one, (), _NEXT), 200: Reply("it stood; what may change was changed", one, (), _NEXT)},
        ("bad_name", *_OBJECT, "bad_filter", "bad_start", "bad_time", "unknown_stream", "beyond_end", "consumer_differs",
         "too_many_consumers", "busy", *_READS),
        (_NEW_NAME,),
        (True, "every field has a default", {JSON: terms}),
    )  # fmt: skip
    yield Operation(
        "GET", "/v1/consumers/{name}", "getConsumer", "consumers", "subscribe", "one consumer, with lag", "",
        {200: Reply("the consumer", one)}, ("unknown_consumer",), (_NAME,),
    )  # fmt: skip
    yield Operation(
        "DELETE", "/v1/consumers/{name}", "deleteConsumer", "consumers", "subscribe", "remove a consumer with its cursor", "",
        {204: Reply("removed", {})}, ("unknown_consumer", "consumer_owned", *_STORES), (_NAME,),
    )  # fmt: skip
    yield Operation(
        "POST",
        "/v1/consumers/{name}/fetch",
        "fetch",
        "consumers",
        "subscribe",
        "messages for a consumer",
        "What is not acknowledged within `ack_wait_s` comes again. A body is read and means nothing.",
        {200: Reply("messages and gaps, in order; none after the wait", {JSON: ref("DeliveredRows")}, (), ("ack", "nack"))},
        ("unknown_consumer", "consumer_owned", "store_full", *_READS),
        (
            _NAME,
            query("max", count("", 1, PAGE_MESSAGES_MAX) | {"default": 100}, "messages, at most"),
            query("wait", number("", minimum=0, maximum=FETCH_WAIT_S_MAX) | {"default": 0}, "seconds to wait for the first"),
            _RAW,
        ),
    )
    for verb, schema, summary, codes in (
        (
            "ack",
            "Ack",
            "settle messages; durable when answered",
            ("bad_ack", *_OBJECT, "unknown_consumer", "consumer_owned", "not_delivered", *_STORES),
        ),
        ("nack", "Nack", "deliver messages again", (*_OBJECT, "unknown_consumer", "consumer_owned", "not_delivered")),
    ):
        yield Operation(
            "POST", f"/v1/consumers/{{name}}/{verb}", verb, "consumers", "subscribe", summary, "",
            {204: Reply("done", {})}, codes, (_NAME,), (True, "which messages", {JSON: ref(schema)}),
        )  # fmt: skip


# --- state ----------------------------------------------------------------------------------------


def _state() -> Iterator[Operation]:
    yield Operation(
        "GET", "/healthz", "healthz", "state", "open", "alive",
        "Never touches the disk.",
        {200: Reply("the gateway can do its job", {}), 503: Reply("it cannot; its supervisor restarts it", {})},
    )  # fmt: skip
    ready: dict[str, Schema] = {JSON: ref("Readiness")}
    yield Operation(
        "GET", "/readyz", "readyz", "state", "open", "ready", "",
        {200: Reply("no required condition is raised", ready), 503: Reply("one is", ready)},
    )  # fmt: skip
    yield Operation(
        "GET", "/metrics", "metrics", "state", "known", "metrics in Prometheus' text format", "",
        {200: Reply("the metrics", {_TEXT: text()})},
    )  # fmt: skip
    yield Operation(
        "GET", "/v1/status", "status", "state", "known", "both ledgers and the state of the process", "",
        {200: Reply("the state", {JSON: ref("Status")})},
    )  # fmt: skip


# --- tokens, configuration ------------------------------------------------------------------------


def _tokens() -> Iterator[Operation]:
    new = ref("NewToken") | {"examples": [{"name": "sensor-1", "scopes": ["publish"], "topics": ["sensor/1/#"]}]}
    every: Schema = {"type": "array", "items": ref("Token")}
    yield Operation(
        "GET", "/v1/tokens", "listTokens", "tokens", "admin", "all tokens, without their secrets", "",
        {200: Reply("the tokens", {JSON: every}, ("Cache-Control",))},
    )  # fmt: skip
    yield Operation(
        "POST", "/v1/tokens", "createToken", "tokens", "admin", "make a token",
        "Its secret is told once, in this answer.",
        {201: Reply("made", {JSON: ref("TokenWithSecret")}, ("Cache-Control",), ("revokeToken",))},
        (*_OBJECT, "bad_token_name", "bad_scope", "bad_filter", "bad_expiry", "too_many_filters", "token_exists",
         "too_many_tokens", "state_failed"),
        (),
        (True, "who it is for, and what they may do", {JSON: new}),
    )  # fmt: skip
    yield Operation(
        "DELETE", "/v1/tokens/{name}", "revokeToken", "tokens", "admin", "revoke a token",
        "It is good for nothing from now on; streams that were opened with it end.",
        {204: Reply("revoked", {})}, ("unknown_token", "state_failed"),
        (named("of the token", "sensor-1"),),
    )  # fmt: skip


def _configuration() -> Iterator[Operation]:
    yield Operation(
        "GET", "/v1/config", "showConfig", "configuration", "admin", "what is at work, with the origin of each value", "",
        {200: Reply("the configuration", {JSON: ref("Configuration")})},
    )  # fmt: skip
    yield Operation(
        "POST", "/v1/config/reload", "reloadConfig", "configuration", "admin", "read the configuration again",
        "As SIGHUP does. It is taken as a whole or refused as a whole.",
        {200: Reply("it is at work", {JSON: ref("Reloaded")})}, (*_REFUSED_RELOAD, "too_many_streams", "deadline"),
    )  # fmt: skip


# --- documents ------------------------------------------------------------------------------------


def _documents() -> Iterator[Operation]:
    known = header("If-None-Match", text(), "ETags that are known already")
    unchanged = Reply("it is known", {}, ("ETag",))
    yield Operation(
        "GET", "/openapi.json", "openapi", "documents", "known", "this document", "",
        {200: Reply("OpenAPI 3.1", {JSON: {"type": "object"}}, ("ETag",)), 304: unchanged}, (), (known,),
    )  # fmt: skip
    page = ("ETag", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")
    same = Reply("it is known", {}, page)
    yield Operation(
        "GET", "/", "page", "documents", "open", "the page", "It holds no data: what it shows comes from this API.",
        {200: Reply("HTML", {"text/html": text()}, page), 304: same}, (), (known,),
    )  # fmt: skip
    part = {"text/javascript": text(), "text/css": text(), "image/svg+xml": text(), "text/html": text()}
    yield Operation(
        "GET", "/ui/{name}", "pagePart", "documents", "open", "a part of the page", "",
        {200: Reply("the part", part, page), 304: same}, ("unknown_path",),
        (named("of the part", "style.css", ".*"), known),
    )  # fmt: skip

"""The shapes that /openapi.json speaks of: JSON Schema 2020-12, as functions, so that nothing of it stays in memory.

Every object is closed (`additionalProperties: false`) unless its names come from outside: a field that is not written down
here is a fault, and tests/api/test_openapi.py finds it.
"""

import re
from typing import Any

from edgegw.consumer import LINK_CONSUMERS
from edgegw.core.access import SCOPES, TOKEN_PREFIX
from edgegw.core.breaker import BreakerState
from edgegw.core.record import JSON, OCTETS
from edgegw.limits import (
    ACK_WAIT_S_MAX,
    BATCH_MESSAGES_MAX,
    CONTENT_TYPE_BYTES_MAX,
    DELIVER_MAX,
    INFLIGHT_MAX,
    KEY_BYTES_MAX,
    NAME_BYTES_MAX,
    REQUEST_ID_CHARS_MAX,
    STREAM_ROWS_MAX,
    TOKEN_EXPIRY_S_MAX,
    TOKEN_EXPIRY_S_MIN,
    TOKEN_TOPICS_MAX,
    TOPIC_BYTES_MAX,
    TOPIC_LEVELS_MAX,
    TTL_S_MAX,
)

Schema = dict[str, Any]

_LEVEL = r"[^+#/\u0000]*"
_WANTED = rf"(\+|{_LEVEL})"
_BELOW = TOPIC_LEVELS_MAX - 1
# The first level of a topic begins with no `$`, and the whole is not empty (minLength says that).
TOPIC_PATTERN = rf"^([^$+#/\u0000]{_LEVEL})?(/{_LEVEL}){{0,{_BELOW}}}$"
FILTER_PATTERN = rf"^(#|{_WANTED}(/{_WANTED}){{0,{_BELOW}}}|{_WANTED}(/{_WANTED}){{0,{_BELOW - 1}}}/#)$"
NAME_PATTERN = rf"^[A-Za-z0-9_.-]{{1,{NAME_BYTES_MAX}}}$"
# What nobody else may make: names that begin so are for links.
NEW_NAME_PATTERN = rf"^(?!{re.escape(LINK_CONSUMERS)})[A-Za-z0-9_.-]{{1,{NAME_BYTES_MAX}}}$"
# Control characters have no place in a key; nor has white space at the ends of a header's value.
KEY_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f]+$"
KEY_HEADER_PATTERN = r"^[!-~]([ -~]*[!-~])?$"
CLASSES = ("memory", "crash", "power")


def ref(name: str) -> Schema:
    """A schema of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def one_of(*names: str) -> Schema:
    """Exactly one of these schemas of `schemas`."""
    return {"oneOf": [ref(name) for name in names]}


def schemas() -> dict[str, Schema]:
    """Every schema that has a name."""
    return {**_words(), **_publishing(), **_rows(), **_consumers(), **_state(), **_access(), **_configuration()}


def closed(required: dict[str, Schema], optional: dict[str, Schema] | None = None, about: str = "") -> Schema:
    """An object with these fields and no others."""
    made: Schema = {"type": "object", "additionalProperties": False}
    if about:
        made["description"] = about
    return made | {"required": list(required), "properties": required | (optional or {})}


def text(about: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": about} if about else {}), **more}


def count(about: str = "", low: int = 0, high: int | None = None) -> Schema:
    """A whole number."""
    top = {} if high is None else {"maximum": high}
    return {"type": "integer", **({"description": about} if about else {}), "minimum": low, **top}


def number(about: str, **bounds: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": about, **bounds}


def either(schema: Schema) -> Schema:
    """The same or null."""
    return schema | {"type": [schema["type"], "null"]}


def by_reason(about: str) -> Schema:
    """Messages counted by why they went."""
    return {"type": "object", "description": about, "additionalProperties": count()}


def _seq(about: str = "number in its stream, from 1, without holes") -> Schema:
    return count(about, 1, STREAM_ROWS_MAX + 1)


def _words() -> dict[str, Schema]:
    return {
        "Topic": text(
            f"levels between `/`, at most {TOPIC_LEVELS_MAX}, without wildcards; `$…` is the gateway's",
            minLength=1,
            maxLength=TOPIC_BYTES_MAX,
            pattern=TOPIC_PATTERN,
            examples=["cellar/temperature"],
        ),
        "TopicFilter": text(
            "a topic in which `+` stands for one level and a last `#` for all that follow (MQTT 5.0 section 4.7)",
            minLength=1,
            maxLength=TOPIC_BYTES_MAX,
            pattern=FILTER_PATTERN,
            examples=["cellar/#"],
        ),
        "Class": {"enum": list(CLASSES), "description": "what the message survives: nothing, a kill, a power cut"},
        "Time": text("RFC 3339", format="date-time", examples=["2026-01-31T23:59:59.500Z"]),
        "Problem": closed(
            {
                "type": {"const": "about:blank"},
                "title": text("of the status"),
                "status": count("of this answer", 400, 599),
                "code": text("stable; what a program looks at", pattern="^[a-z][a-z0-9_]*$"),
                "detail": text("what is wrong, for people"),
                "request_id": text("X-Request-Id of this answer", maxLength=REQUEST_ID_CHARS_MAX),
            },
            {
                "hint": text("what to do about it"),
                "where": text("the place in the request"),
                "faults": {"type": "array", "items": text(), "description": "each thing wrong in the configuration"},
            },
            "RFC 9457",
        ),
    }


def _entry() -> Schema:
    options = {
        "content_type": either(
            text(
                f"media type, kept; {JSON} for a JSON payload and {OCTETS} for bytes when not given",
                minLength=1,
                maxLength=CONTENT_TYPE_BYTES_MAX,
                pattern="^[ -~]+$",
            )
        ),
        "key": either(
            text(
                "stores the message once, however often it is sent; bytes of UTF-8 are counted",
                minLength=1,
                maxLength=KEY_BYTES_MAX,
                pattern=KEY_PATTERN,
            )
        ),
        "ttl": either(number("seconds after which the message goes", exclusiveMinimum=0, maximum=TTL_S_MAX)),
        "retain": {"type": ["boolean", "null"], "description": "keep it as the last value of its topic"},
        "time": either(text("when it was measured, RFC 3339", format="date-time")),
    }
    payload = {"description": "any JSON value, stored as its JSON text; in msgpack also bytes, stored as they are"}
    encoded = text("bytes, in base64 (RFC 4648)", contentEncoding="base64", format="byte")
    return {
        "oneOf": [
            closed(
                {"topic": ref("Topic"), "payload": payload},
                {"payload_b64": {"type": "null"}, **options},
                "a message with a JSON payload",
            ),
            closed({"topic": ref("Topic"), "payload_b64": encoded}, options, "a message of bytes"),
        ]
    }


def _publishing() -> dict[str, Schema]:
    range_fields = {
        "stream": text(),
        "first": _seq("number of the first message"),
        "last": _seq("number of the last message"),
        "count": count("messages", 1, BATCH_MESSAGES_MAX),
        "class": ref("Class"),
    }
    receipt = {"stream": text(), "seq": _seq(), "class": ref("Class")}
    return {
        "Entry": _entry(),
        "Batch": {"type": "array", "minItems": 1, "maxItems": BATCH_MESSAGES_MAX, "items": ref("Entry")},
        "Receipt": closed(receipt, about="the message is as durable as `class` says"),
        "Range": closed(range_fields, about="what one stream took, in consecutive numbers"),
        "Columns": {
            "description": "a batch between gateways, in msgpack: messages as columns, and the range of the sender's numbers that"
            " they stand for; edgegw/core/columns.py has its layout"
        },
        "Taken": closed(
            {
                "count": count("messages", 0, BATCH_MESSAGES_MAX),
                "repeats": count("of them were stored before", 0, BATCH_MESSAGES_MAX),
                "class": ref("Class"),
            },
            about="the answer to a batch of columns",
        ),
        "Receipts": closed(
            {
                "receipts": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": BATCH_MESSAGES_MAX,
                    "items": closed({**receipt, "repeat": {"type": "boolean", "description": "it was stored before"}}),
                },
                "count": count("messages", 1, BATCH_MESSAGES_MAX),
                "class": ref("Class"),
            },
            about="one receipt for each message, when keys repeat",
        ),
    }


def _rows() -> dict[str, Schema]:
    required = {
        "stream": text(),
        "seq": _seq(),
        "topic": text(minLength=1),
        "time": text("when it arrived, UTC, milliseconds", format="date-time"),
        "content_type": text(maxLength=CONTENT_TYPE_BYTES_MAX),
    }
    source = {"source_time": text("when it was measured, as its producer said, UTC", format="date-time")}
    payloads: Schema = {
        "payload": {"description": "the JSON value when `content_type` is JSON and it parses, else a string"},
        "payload_b64": text("what is neither, or with `raw=1`", contentEncoding="base64"),
    }
    one_payload: Schema = {"oneOf": [{"required": ["payload"]}, {"required": ["payload_b64"]}]}
    deliveries = count("how often it was delivered, with this time", 1)
    letter = {
        "consumer": text("whose dead letter it is"),
        "deliveries": deliveries,
        "reason": text("why it was given up", examples=["max_deliver"]),
    }
    reason = text(examples=["evicted", "ttl", "age"])
    gap = closed({"first": _seq(), "last": _seq(), "count": count("messages that are gone", 1), "reason": reason})
    named = closed({"stream": text(), **gap["properties"]})
    return {
        "Message": closed(required, source | payloads, "a stored message") | one_payload,
        "DeadLetter": closed(required | letter, source | payloads, "a row of the stream `dead-letter`") | one_payload,
        "Delivered": closed(required | {"deliveries": deliveries}, source | payloads, "a message for a consumer") | one_payload,
        "Gap": closed({"gap": gap}, about="messages that are gone, in their place"),
        "GapOfStream": closed({"gap": named}, about="the same in /v1/stream across streams"),
        "Event": closed(
            {
                "data": text(
                    "a row: Message, DeadLetter, Gap or GapOfStream, as JSON on one line",
                    contentMediaType=JSON,
                    contentSchema=one_of("Message", "DeadLetter", "Gap", "GapOfStream"),
                )
            },
            {
                "id": text("`stream:seq`, with one stream"),
                "event": {"enum": ["message", "gap"], "default": "message", "description": "left out for messages"},
            },
            "one Server-Sent Event",
        ),
        "Rows": {"type": "array", "items": one_of("Message", "DeadLetter", "Gap")},
        "DeliveredRows": {"type": "array", "items": one_of("Delivered", "DeadLetter", "Gap")},
        "Messages": {"type": "array", "items": ref("Message")},
    }


def _consumers() -> dict[str, Schema]:
    start = {
        "description": "where a new consumer begins; no matter for one that stands",
        "default": "new",
        "oneOf": [
            {"enum": ["new", "all"]},
            closed({"seq": _seq("the first message it gets")}),
            closed({"time": text("it gets what arrived from then on", format="date-time")}),
        ],
    }
    inflight = count("messages out at once", 1, INFLIGHT_MAX)
    wait = number("seconds until a message is delivered again", minimum=0.1, maximum=ACK_WAIT_S_MAX)
    deliver = count("deliveries before it becomes a dead letter", 1, DELIVER_MAX)
    seqs = {
        "type": "array",
        "minItems": 1,
        "maxItems": BATCH_MESSAGES_MAX,
        "items": count("number of a message that was delivered", 1),
    }
    filter_of = ref("TopicFilter") | {"default": "#"}
    return {
        "Terms": closed(
            {},
            {
                "filter": filter_of,
                "stream": text("of the configuration", default="default"),
                "start": start,
                "max_inflight": inflight | {"default": 1000},
                "ack_wait_s": wait | {"default": 30},
                "max_deliver": deliver | {"default": 10},
            },
            "what a consumer wants",
        ),
        "Consumer": closed(
            {
                "name": text(),
                "stream": text(),
                "filter": text(),
                "max_inflight": inflight,
                "ack_wait_s": wait,
                "max_deliver": deliver,
                **_ledger(),
                "cursor": count("everything up to here is settled"),
                "inflight": count("delivered and not settled"),
                "lag": count("messages of the stream beyond its cursor"),
            },
            about="a consumer with its ledger: matched = acked + pending + dead_lettered + lost",
        ),
        "Ack": {
            "oneOf": [
                closed({"seqs": seqs}, about="these"),
                closed({"upto": count("all up to this one", 0, STREAM_ROWS_MAX + 1)}, about="all that were delivered up to one"),
            ]
        },
        "Nack": closed(
            {"seqs": seqs},
            {"delay_s": number("seconds until they come again", minimum=0, maximum=ACK_WAIT_S_MAX, default=0)},
            "deliver these again",
        ),
    }


def _ledger() -> dict[str, Schema]:
    return {
        "matched": count("messages for it, ever"),
        "acked": count("acknowledged"),
        "pending": count("those it still wants"),
        "dead_lettered": count("given up after `max_deliver` deliveries"),
        "lost": by_reason("removed while it wanted them"),
    }


def _state() -> dict[str, Schema]:
    nothing = "null when empty"
    condition = {
        "name": text(),
        "status": {"enum": ["ok", "raised"]},
        "severity": {"enum": ["warning", "error"]},
        "required": {"type": "boolean", "description": "not ready while it is raised"},
        "since": text("of the last change", format="date-time"),
        "text": text("what is so while it is ok"),
        "what": text("what is wrong while it is raised"),
        "hint": text("what to do about it"),
    }
    stream = {
        "received": count("messages, ever: stored + removed"),
        "stored": count("messages now"),
        "removed": by_reason("messages that went"),
        "bytes": count("on disk"),
        "rows": count("messages now"),
        "first": either(count(f"number of the oldest message, {nothing}", 1)),
        "last": either(count(f"number of the newest message, {nothing}", 1)),
        "oldest_age_s": either(number(f"age of the oldest message, {nothing}", minimum=0)),
        "bytes_max": count("bound, in bytes"),
        "rows_max": count("bound, in messages; 0 is none"),
        "age_max_s": number("bound, in seconds; 0 is none", minimum=0),
        "policy": {"enum": ["hold", "drop-oldest"]},
    }
    link = {
        "url": text("of the upstream"),
        "stream": text(),
        "filter": text(),
        "state": {"enum": [str(state) for state in BreakerState], "description": "of its circuit breaker"},
        "pending": count("messages it still has to send"),
        "window": count("requests it may have under way"),
        "gone_s": number("how long the upstream has been gone; 0 while it is there", minimum=0),
        "last_error": text("why, while it is gone"),
    }
    conditions = {"type": "array", "items": ref("Condition")}
    return {
        "Condition": closed(condition, about="a state that an operator may need to know"),
        "Readiness": closed({"conditions": conditions}),
        "Link": closed(link, about="a way out, as the configuration names it"),
        "Stream": closed(stream, about="a stream with its ledger: received = stored + removed"),
        "Status": closed(
            {
                "version": text(),
                "sha256": either(text("of the running program; null when it runs from a source tree", pattern="^[0-9a-f]{64}$")),
                "pid": count("process", 1),
                "uptime_s": number("since the start", minimum=0),
                "conditions": conditions,
                "links": {"type": "object", "additionalProperties": ref("Link")},
                "streams": {"type": "object", "additionalProperties": ref("Stream")},
                "consumers": {"type": "object", "additionalProperties": ref("Consumer")},
            },
            about="both ledgers and the state of the process",
        ),
    }


def _access() -> dict[str, Schema]:
    name = text(pattern=NAME_PATTERN)
    scopes = {"type": "array", "minItems": 1, "items": {"enum": list(SCOPES)}}
    topics = {
        "type": "array",
        "items": ref("TopicFilter"),
        "description": f"topics it is good for, none for all; at most {TOKEN_TOPICS_MAX} different ones",
    }
    moment = either(text(format="date-time"))
    token = {
        "name": name,
        "scopes": scopes,
        "topics": topics,
        "created": text(format="date-time"),
        "expires": moment | {"description": "null: never"},
        "last_used": moment | {"description": "null: not since the start"},
    }
    life = either(number("how long it is good; for ever when not given", minimum=TOKEN_EXPIRY_S_MIN, maximum=TOKEN_EXPIRY_S_MAX))
    return {
        "NewToken": closed({"name": name, "scopes": scopes}, {"topics": topics, "expires_s": life}),
        "Token": closed(token),
        "TokenWithSecret": closed({**token, "token": text("the secret, told this once", pattern=f"^{TOKEN_PREFIX}")}),
    }


def _configuration() -> dict[str, Schema]:
    told: Schema = {"type": "array", "items": text()}
    value = closed({"value": {"description": "as the gateway has it"}, "origin": text("file and line, variable, or default")})
    table: Schema = {"type": "object", "additionalProperties": value}
    done = {
        "changed": told | {"description": "settings"},
        "restarted": told | {"description": "services"},
        "needs_restart": told | {"description": "settings that wait for the next start"},
    }
    attempt = {"time": text(format="date-time"), "cause": text("signal, files or api")}
    taken = closed({**attempt, "result": {"const": "ok"}, **done})
    refused = closed({**attempt, "result": {"const": "refused"}, "code": text(), "detail": text(), "faults": told})
    return {
        "Reloaded": closed(done, about="what a reload did"),
        "Configuration": closed(
            {
                "config": {
                    "type": "object",
                    "description": "sections; those that stand several times as arrays",
                    "additionalProperties": {"oneOf": [table, {"type": "array", "items": table}]},
                },
                "files": told | {"description": "that were read, in their order"},
                "reload": {"oneOf": [taken, refused, {"type": "null"}], "description": "the latest one"},
            }
        ),
    }

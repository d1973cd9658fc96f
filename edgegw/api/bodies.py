"""Request bodies: read within their bounds, inflated within them, and turned into a batch.

JSON here is RFC 8259: no NaN, no Infinity, no number that overflows into one, no lone surrogate. A payload that is a JSON value
is stored as its JSON text; one that is bytes (msgpack `bin`, or `payload_b64`) as it is.
"""

import json
import re
import zlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any

from aiohttp import web

from edgegw.core.columns import decode
from edgegw.core.record import JSON, OCTETS, Batch
from edgegw.core.times import SOURCE_US_MAX, SOURCE_US_MIN, parse_time_us
from edgegw.errors import RequestError, TooLarge
from edgegw.limits import BATCH_MESSAGES_MAX, BODY_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, TTL_S_MAX
from edgegw.store.jobs import Span

MSGPACK, NDJSON = "application/msgpack", "application/x-ndjson"
_FIELDS = frozenset({"topic", "payload", "payload_b64", "content_type", "key", "ttl", "retain", "time"})
_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# A number as JSON writes it, also where it comes as text: float() takes `1_0` and ` 1 ` for one.
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
# Not str.isprintable(): what that holds for differs between versions of Python, and so between gateways.
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")
_encode: Callable[[object], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


# --- bytes --------------------------------------------------------------------------------------


async def read_body(request: web.BaseRequest, most_bytes: int = BODY_BYTES_MAX) -> bytes:
    """The whole body, inflated; the connection's deadline bounds the wait. Raises RequestError, TooLarge."""
    length = request.content_length
    if length is not None and length > most_bytes:
        raise _too_large(f"the body has {length} bytes")
    if length is None and (coding := request.headers.get("Transfer-Encoding", "chunked")).strip().lower() != "chunked":
        raise _unknown_encoding(coding, "Transfer-Encoding")
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
    else:
        if request.headers.get("Expect", "").lower() == "100-continue":  # RFC 9110 10.1.1: the client waits for it
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # that was not the answer
        parts: list[bytes] = []
        size_bytes = 0
        while part := await content.readany():
            size_bytes += len(part)
            if size_bytes > most_bytes:
                raise _too_large("the body has more")
            parts.append(part)
        body = b"".join(parts)
    if len(body) > most_bytes:
        raise _too_large(f"the body has {len(body)} bytes")
    if length is not None and len(body) != length:
        # The parser of aiohttp 3.11 finds no body behind `Upgrade: websocket`: what was not read must not be acknowledged.
        raise RequestError("bad_body", f"the body has {len(body)} bytes, not {length}", "see Content-Length", where="body")
    encoding = request.headers.get("Content-Encoding")
    return body if encoding is None else _inflate(body, encoding.strip().lower(), most_bytes)


def _inflate(body: bytes, encoding: str, most_bytes: int) -> bytes:
    if encoding == "identity":
        return body
    window = _ENCODINGS.get(encoding)
    if window is None:
        raise _unknown_encoding(encoding, "Content-Encoding")
    try:
        machine = zlib.decompressobj(window)
        inflated = machine.decompress(body, most_bytes + 1)
    except zlib.error as exc:
        raise RequestError(
            "bad_body", f"the body is not {encoding}: {exc}", "send what Content-Encoding says", where="body"
        ) from exc
    if len(inflated) > most_bytes:
        raise _too_large("the body, inflated, has more")
    if not machine.eof or machine.unused_data:
        raise RequestError(
            "bad_body", f"the {encoding} body is cut off, or something follows it", "send one complete stream", where="body"
        )
    return inflated


def _unknown_encoding(encoding: str, where: str) -> RequestError:
    return RequestError(
        "unsupported_encoding",
        f"the encoding {encoding[:60]!r} is not known here",
        "as Content-Encoding send gzip, deflate or none; as Transfer-Encoding chunked or none",
        where=where,
    )


def _too_large(what: str) -> TooLarge:
    return TooLarge("body_too_large", f"{what}; {BODY_BYTES_MAX} bytes are the most", "send smaller batches", where="body")


# --- JSON ---------------------------------------------------------------------------------------


def parse_json(body: bytes | str, where: str = "body") -> Any:
    """The JSON value. Raises RequestError(bad_json) that says where."""
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except RecursionError:
        raise RequestError("bad_json", "the JSON is nested too deeply", "send it as a payload of bytes", where=where) from None
    except UnicodeDecodeError as exc:
        raise RequestError("bad_json", f"the body is not UTF-8 at byte {exc.start}", "send JSON as UTF-8", where=where) from None
    except ValueError as exc:
        raise RequestError("bad_json", f"the body is not JSON: {exc}", "see RFC 8259", where=where) from None


def parse_object(body: bytes, known: frozenset[str]) -> dict[str, Any]:
    """A JSON object with only `known` members. Raises RequestError(bad_json, unknown_field)."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise RequestError("bad_json", f"the body is {_kind(value)}, not an object", "", where="body")
    for name in value:
        if name not in known:
            raise RequestError(
                "unknown_field", f"there is no field {name[:60]!r} here", f"fields: {', '.join(sorted(known))}", where=name[:60]
            )
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _json_text(value: object, where: str) -> bytes:
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        why = "it has a lone surrogate, which is no UTF-8"
    except RecursionError:
        why = "it is nested too deeply"
    except (TypeError, ValueError) as exc:
        why = str(exc)
    raise RequestError("bad_payload", f"the payload is no JSON value: {why}", "send bytes as payload_b64 instead", where=where)


# --- batches ------------------------------------------------------------------------------------


def parse_batch(content_type: str, body: bytes, now_ms: int) -> Batch:
    """The messages of a POST /v1/messages. Raises RequestError whose `where` has the index of the bad one."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON:
        entries = parse_json(body)
    elif kind == MSGPACK:
        entries = _unpack(body)
    elif kind == NDJSON:
        lines = [line for line in body.split(b"\n") if line.strip()]
        entries = [parse_json(line, f"[{i}]") for i, line in enumerate(lines)]
    else:
        raise RequestError(
            "unsupported_type", f"a batch cannot be {kind[:60]!r}", f"send {JSON}, {MSGPACK} or {NDJSON}", where="Content-Type"
        )
    if type(entries) is not list:
        raise RequestError("bad_batch", f"the body is {_kind(entries)}, not an array", "send an array of messages", where="body")
    if not entries:
        raise RequestError("bad_batch", "the batch is empty", "send at least one message", where="body")
    if len(entries) > BATCH_MESSAGES_MAX:
        raise TooLarge(
            "batch_too_large",
            f"the batch has {len(entries)} messages; {BATCH_MESSAGES_MAX} are the most",
            "send several",
            where="body",
        )
    return _plain(entries) or _batch(entries, now_ms)


def parse_columns(body: bytes, now_ms: int) -> tuple[Batch, Span]:
    """The batch of another gateway, and the range it stands for. Raises RequestError."""
    try:
        got = decode(body, BATCH_MESSAGES_MAX)
    except ValueError as exc:
        raise RequestError("bad_batch", f"the body is no batch of columns: {exc}", "see core/columns.py", where="body") from exc
    for content_type in set(got.content_types):
        check_content_type(content_type, "content types")
    if not all(SOURCE_US_MIN <= time_us <= SOURCE_US_MAX for time_us in (min(got.times_us), max(got.times_us))):
        raise RequestError("bad_time", "a time lies outside of the years 1 to 9999", "send times in microseconds", where="times")
    expires_ms = None
    if got.ttls_ms is not None:
        expires_ms = [None if ttl is None else now_ms + min(ttl, TTL_S_MAX * 1000) for ttl in got.ttls_ms]
    types: list[str] | str = got.content_types[0] if len(set(got.content_types)) == 1 else got.content_types
    source_us: list[int | None] = [*got.times_us]
    batch = Batch(got.topics, got.payloads, types, source_us=source_us, expires_ms=expires_ms)
    return batch, Span(got.origin, got.first, got.last, got.seqs)


def _unpack(body: bytes) -> Any:
    import msgpack

    try:
        return msgpack.unpackb(body)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as exc:  # every msgpack error is one
        why = str(exc) or type(exc).__name__
    except OverflowError as exc:  # a timestamp outside of datetime
        why = str(exc)
    raise RequestError("bad_msgpack", f"the body is not msgpack: {why}", "send one array, strings as UTF-8", where="body")


def _plain(entries: list[Any]) -> Batch | None:
    """The usual case at C speed: every entry is {topic: str, payload: bytes}. None when one is anything else."""
    try:
        topics = [entry["topic"] for entry in entries]
        payloads = [entry["payload"] for entry in entries]
    except (KeyError, TypeError, IndexError):
        return None
    if (
        set(map(type, entries)) != {dict}
        or set(map(len, entries)) != {2}
        or set(map(type, topics)) != {str}
        or set(map(type, payloads)) != {bytes}
    ):
        return None
    return Batch(topics, payloads, OCTETS)


def _batch(entries: list[Any], now_ms: int) -> Batch:
    topics: list[str] = []
    payloads: list[bytes] = []
    types: list[str] = []
    retain: list[int] = []
    keys: list[str | None] = [None] * len(entries)
    source_us: list[int | None] = [None] * len(entries)
    expires_ms: list[int | None] = [None] * len(entries)
    for i, entry in enumerate(entries):
        if type(entry) is not dict:
            raise RequestError("bad_entry", f"message {i} is {_kind(entry)}, not an object", "", where=f"[{i}]")
        if not entry.keys() <= _FIELDS:
            name = next(name for name in entry if name not in _FIELDS)
            raise RequestError(
                "unknown_field",
                f"message {i} has a field {str(name)[:60]!r}",
                f"fields: {', '.join(sorted(_FIELDS))}",
                where=f"[{i}]",
            )
        topic = entry.get("topic")
        if type(topic) is not str:
            raise RequestError("bad_topic", f"the topic of message {i} is {_kind(topic)}, not a string", "", where=f"[{i}].topic")
        topics.append(topic)
        payload, content_type = _payload(entry, i)
        payloads.append(payload)
        types.append(content_type)
        if len(entry) > 2:
            if entry.get("key") is not None:
                keys[i] = check_key(entry["key"], f"[{i}].key")
            if entry.get("time") is not None:
                source_us[i] = parse_time_us(entry["time"], where=f"[{i}].time")
            if entry.get("ttl") is not None:
                expires_ms[i] = now_ms + int(check_ttl_s(entry["ttl"], f"[{i}].ttl") * 1000)
            if entry.get("retain") is not None and check_flag(entry["retain"], f"[{i}].retain"):
                retain.append(i)
    return Batch(
        topics,
        payloads,
        types[0] if len(set(types)) == 1 else types,
        keys=keys if any(keys) else None,
        retain=retain or None,
        source_us=source_us if set(source_us) != {None} else None,
        expires_ms=expires_ms if set(expires_ms) != {None} else None,
    )


def _payload(entry: dict[str, Any], i: int) -> tuple[bytes, str]:
    content_type = entry.get("content_type")
    if content_type is not None:
        check_content_type(content_type, f"[{i}].content_type")
    encoded = entry.get("payload_b64")
    if encoded is not None:
        if "payload" in entry:
            raise RequestError("bad_payload", f"message {i} has both payload and payload_b64", "send one", where=f"[{i}]")
        try:
            return a2b_base64(encoded, strict_mode=True), content_type or OCTETS
        except (Base64Error, TypeError, ValueError) as exc:
            raise RequestError(
                "bad_payload", f"payload_b64 of message {i} is not base64: {exc}", "see RFC 4648", where=f"[{i}].payload_b64"
            ) from exc
    if "payload" not in entry:
        raise RequestError("bad_payload", f"message {i} has no payload", "send payload or payload_b64", where=f"[{i}]")
    value = entry["payload"]
    if type(value) is bytes:
        return value, content_type or OCTETS
    return _json_text(value, f"[{i}].payload"), content_type or JSON


# --- fields, in a body or in a header -----------------------------------------------------------


def check_key(key: object, where: str) -> str:
    """An idempotency key. Raises RequestError(bad_key)."""
    if not isinstance(key, str) or not key or _CONTROL.search(key) or len(key.encode()) > KEY_BYTES_MAX:
        raise RequestError(
            "bad_key",
            f"the key {str(key)[:60]!r} cannot be used",
            f"1 to {KEY_BYTES_MAX} bytes of text without control characters",
            where=where,
        )
    return key


def check_ttl_s(ttl: object, where: str) -> float:
    """A time to live in seconds. Raises RequestError(bad_ttl)."""
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= TTL_S_MAX:
        raise RequestError(
            "bad_ttl", "the TTL is no number of seconds that can be used", f"more than 0, at most {TTL_S_MAX}", where=where
        )
    return ttl


def check_flag(flag: object, where: str) -> bool:
    """true or false. Raises RequestError(bad_flag)."""
    if not isinstance(flag, bool):
        raise RequestError("bad_flag", f"{where} is neither true nor false", "", where=where)
    return flag


def number_in(text: str) -> float | None:
    """The number that a header or a query parameter is; None when it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def flag_in(text: str) -> bool | None:
    """The flag that a header is; None when it is none."""
    return {"true": True, "false": False}.get(text.lower())


def check_content_type(content_type: object, where: str) -> str:
    """A media type, kept as it is. Raises RequestError(bad_content_type)."""
    if (
        not isinstance(content_type, str)
        or not content_type.isascii()
        or not content_type.isprintable()
        or not 0 < len(content_type) <= CONTENT_TYPE_BYTES_MAX
    ):
        raise RequestError(
            "bad_content_type", f"{str(content_type)[:60]!r} is no media type", "see RFC 9110 section 8.3", where=where
        )
    return content_type


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
        bytes: "bytes",
    }
    return names.get(type(value), f"a {type(value).__name__}")

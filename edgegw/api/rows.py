"""Messages and gaps as the JSON rows of the API. Written by hand: a stored JSON payload goes out byte for byte as it came."""

import json
from binascii import b2a_base64
from collections.abc import Iterable
from json.encoder import encode_basestring as _quoted

from edgegw.consumer import Delivered
from edgegw.core.record import Gap, Message
from edgegw.core.times import time_text, time_text_ms


def row(message: Message, *, raw: bool = False, deliveries: int = 0) -> str:
    """One message. `raw` = payload always as base64; `deliveries` only when it is not 0."""
    parts = [
        f'{{"stream":{_quoted(message.stream)},"seq":{message.seq},"topic":{_quoted(message.topic)},"time":"{time_text_ms(message.time_ms)}"'
    ]
    if message.source_us is not None:
        parts.append(f',"source_time":"{time_text(message.source_us)}"')
    parts.append(f',"content_type":{_quoted(message.content_type)},{_payload(message, raw)}')
    if message.origin is not None:
        consumer, tries, reason = message.origin
        parts.append(f',"consumer":{_quoted(consumer)},"deliveries":{tries},"reason":{_quoted(reason)}')
    elif deliveries:
        parts.append(f',"deliveries":{deliveries}')
    parts.append("}")
    return "".join(parts)


def gap_row(gap: Gap, *, names_stream: bool = False) -> str:
    """One gap; `names_stream` where rows of several streams come together."""
    name = f'"stream":{_quoted(gap.stream)},' if names_stream else ""
    return f'{{"gap":{{{name}"first":{gap.first},"last":{gap.last},"count":{gap.messages},"reason":"{gap.reason}"}}}}'


def rows_body(items: Iterable[Message | Gap | Delivered], *, raw: bool = False) -> bytes:
    """A JSON array, a row a line."""
    texts = []
    for item in items:
        if isinstance(item, Delivered):
            texts.append(row(item.message, raw=raw, deliveries=item.deliveries))
        else:
            texts.append(gap_row(item) if isinstance(item, Gap) else row(item, raw=raw))
    return ("[" + ",\n".join(texts) + "]\n").encode()


def _payload(message: Message, raw: bool) -> str:
    if not raw:
        try:
            text = message.payload.decode()
        except UnicodeDecodeError:
            pass
        else:
            if _is_json_type(message.content_type) and _is_json(text):
                return f'"payload":{text.strip()}'
            return f'"payload":{_quoted(text)}'
    return f'"payload_b64":"{b2a_base64(message.payload, newline=False).decode()}"'


def _is_json_type(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)

"""A parcel as a request: an array as `POST /v1/messages` takes it, a key for each message and one for all.

A message's key is `gateway/epoch/stream/seq`: whoever gets it twice knows it by that, whatever else is in the request. The key
of the request names its range; generic upstreams that know only `Idempotency-Key` recognise a parcel that is sent again. After
a restart the cut between parcels may be another, so an upstream that must have each message once looks at the keys inside.
"""

import json
from binascii import b2a_base64

import msgpack

from edgegw.core.lanes import Parcel
from edgegw.core.record import JSON, OCTETS, Message
from edgegw.core.times import time_text, time_text_ms

MSGPACK = "application/msgpack"


class ParcelBodies:
    """Makes bodies for one link. `origin` = `gateway/epoch`; `prefix` stands before each topic."""

    def __init__(self, origin: str, stream: str, prefix: str, form: str) -> None:
        self._origin = f"{origin}/{stream}/"
        self._prefix = prefix
        self._is_packed = form == "msgpack"
        self.content_type = MSGPACK if self._is_packed else JSON

    def body(self, parcel: Parcel, now_ms: int) -> bytes:
        """The messages of a parcel."""
        entries = [self._entry(message, now_ms) for message in parcel.messages]
        if self._is_packed:
            packed: bytes = msgpack.packb(entries)
            return packed
        return b"[" + b",\n".join(map(_plain, entries)) + b"]"

    def key(self, parcel: Parcel) -> str:
        """The key of the request: the same for the same messages."""
        return f"{self._origin}{parcel.messages[0].seq}-{parcel.messages[-1].seq}"

    def _entry(self, message: Message, now_ms: int) -> dict[str, object]:
        _, seq, topic, time_ms, content_type, payload, source_us, expires_ms, _ = message
        entry: dict[str, object] = {
            "topic": self._prefix + topic,
            "payload": payload,
            "key": f"{self._origin}{seq}",
            "time": time_text_ms(time_ms) if source_us is None else time_text(source_us),
        }
        if content_type != OCTETS:
            entry["content_type"] = content_type
        if expires_ms is not None:
            entry["ttl"] = max(1, expires_ms - now_ms) / 1000
        return entry


def _plain(entry: dict[str, object]) -> bytes:
    """The same as JSON: a payload of JSON byte for byte as it came, everything else as base64."""
    payload = entry.pop("payload")
    assert isinstance(payload, bytes)
    if entry.get("content_type") == JSON and _is_json(payload):
        return json.dumps(entry, separators=(",", ":")).encode()[:-1] + b',"payload":' + payload + b"}"
    entry["payload_b64"] = b2a_base64(payload, newline=False).decode()
    return json.dumps(entry, separators=(",", ":")).encode()


def _is_json(payload: bytes) -> bool:
    try:
        json.loads(payload.decode(), parse_constant=_refuse, parse_int=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)

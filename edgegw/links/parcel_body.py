"""A parcel as a request, in one of three forms.

    columns    for another gateway: core.columns, which makes each message arrive once however parcels are cut
    msgpack    an array as `POST /v1/messages` takes it, for everybody else, with a key for each message
    json       the same as JSON: a payload of JSON goes byte for byte as it came, everything else as base64

A message's key is `gateway/epoch/stream/seq`: whoever gets it twice knows it by that. With a prefix, its checksum stands before
the number: under another prefix it is another message, and upstreams refuse a key that comes again with another topic. The
request's own Idempotency-Key names what is in it, so that upstreams which know only that one recognise a parcel that is sent
again. After a restart the cut between parcels may be another: an upstream that must have each message once looks at the keys
inside.
"""

import json
from binascii import b2a_base64, crc32

import msgpack

from edgegw.core import columns
from edgegw.core.lanes import Parcel
from edgegw.core.record import JSON, OCTETS
from edgegw.core.times import time_text

_CONTENT_TYPES = {"columns": columns.CONTENT_TYPE, "msgpack": "application/msgpack", "json": JSON}


class ParcelBodies:
    """Makes bodies for one link. `sender` = `gateway/epoch/stream`; `consumer` its number; `prefix` stands before each topic."""

    def __init__(self, sender: str, consumer: int, prefix: str, form: str) -> None:
        self._keys = f"{sender}/{crc32(prefix.encode()):08x}/" if prefix else f"{sender}/"
        self._origin = f"{sender}/{consumer}"
        self._prefix = prefix
        self._form = form
        self.content_type = _CONTENT_TYPES[form]

    def body(self, parcel: Parcel, stands_for: tuple[int, int], now_ms: int) -> bytes:
        """The messages of a parcel, and in columns the range they stand for: its own, or more that is over."""
        block = parcel.block
        assert block is not None
        if self._form == "columns":
            return columns.encode(self._origin, *stands_for, block, now_ms, prefix=self._prefix)
        entries = self._entries(parcel, now_ms)
        if self._form == "msgpack":
            packed: bytes = msgpack.packb(entries)
            return packed
        return b"[" + b",\n".join(map(_plain, entries)) + b"]"

    def key(self, parcel: Parcel) -> str:
        """The key of the request: the same for the same messages."""
        assert parcel.block is not None
        seqs = parcel.block.seqs
        return f"{self._keys}{seqs[0]}-{seqs[-1]}.{len(seqs)}"

    def _entries(self, parcel: Parcel, now_ms: int) -> list[dict[str, object]]:
        block = parcel.block
        assert block is not None
        rows = zip(block.topics, block.payloads, block.seqs, block.times_us, strict=True)
        entries: list[dict[str, object]] = [
            {"topic": self._prefix + topic, "payload": payload, "key": f"{self._keys}{seq}", "time": time_text(us)}
            for topic, payload, seq, us in rows
        ]
        for entry, content_type in zip(entries, block.content_types, strict=True):
            if content_type != OCTETS:
                entry["content_type"] = content_type
        for entry, at in zip(entries, block.expires_ms or (), strict=False):
            if at is not None:
                entry["ttl"] = max(1, at - now_ms) / 1000
        return entries


def _plain(entry: dict[str, object]) -> bytes:
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

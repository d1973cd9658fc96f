"""What schemathesis cannot know of this API; loaded by its command line (SCHEMATHESIS_HOOKS)."""

import itertools
import json
import re
from typing import Any

import msgpack
import schemathesis

from edgegw.core.block import Block
from edgegw.core.columns import CONTENT_TYPE as COLUMNS
from edgegw.core.columns import encode
from tests.api.fuzz_names import OWN_TOKEN, STANDING

# A fetch that waits is answered after the wait: hours for thousands of them. The same values, as so many milliseconds.
_WAIT_SHARE = 1 / 1000
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY = re.compile(r"[!-~]{1,200}")
_UNKNOWN_HEADER = "x-schemathesis-unknown-property"


@schemathesis.serializer("application/msgpack")
def pack(ctx: Any, value: Any) -> bytes:
    """A batch as msgpack; what is no value of it (a number beyond 64 bits) goes as the JSON text that it would have been."""
    try:
        packed: bytes = msgpack.packb(value)
    except (OverflowError, ValueError, TypeError):
        return json.dumps(value).encode()
    return packed


@schemathesis.serializer("application/x-ndjson")
def lines(ctx: Any, value: Any) -> bytes:
    """A batch as one message a line; what is no list is one line."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in (value if isinstance(value, list) else [value]))


@schemathesis.serializer(COLUMNS)
def columns(ctx: Any, value: Any) -> bytes:
    """A batch between gateways; its layout is no matter of a schema, so it is always a good one, with what was drawn in it."""
    seq = next(_seqs)
    block = Block([seq], ["from/there"], ["application/json"], [json.dumps(value).encode()], [seq])
    return encode("there/epoch/default/fuzz", seq, seq, block, 0)


_seqs = itertools.count(1)
_keys = itertools.count(1)


def _fresh(fields: Any, name: str) -> dict[str, str]:
    """Two of three good keys made unlike all others: short ones are drawn again and again, and then nothing new is stored."""
    key = fields.get(name)
    number = next(_keys)
    return {name: f"{key}/{number}"} if number % 3 and isinstance(key, str) and _KEY.fullmatch(key) else {}


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Send the case where it can do its work; see each step."""
    path, query, places = case.operation.path, case.query or {}, case.path_parameters or {}
    wait = query.get("wait")
    if isinstance(wait, int | float) and not isinstance(wait, bool) and 0 < wait <= 30:
        case.query["wait"] = wait * _WAIT_SHARE
    if case.operation.path == "/v1/messages" and isinstance(case.body, list):
        for entry in case.body:
            if isinstance(entry, dict):
                entry.update(_fresh(entry, "key"))
    elif path == "/v1/topics/{topic}" and case.headers:
        case.headers.update(_fresh(case.headers, "Idempotency-Key"))
    # A name by chance is nearly always unknown, and behind 404 nothing else is seen.
    if path.endswith(("/fetch", "/ack", "/nack")) and _NAME.fullmatch(str(places.get("name"))):
        case.path_parameters["name"] = STANDING
    # It reads the list of tokens, and would revoke its own.
    elif case.method == "DELETE" and places.get("name") in (OWN_TOKEN, STANDING):
        case.path_parameters["name"] = "another"
    # An unknown header is no fault. The check knows that, but tells it by reading the other headers again, as text, where it
    # takes a number for a string.
    if _UNKNOWN_HEADER in (case.headers or {}):
        case.headers.pop("Edgegw-TTL", None)

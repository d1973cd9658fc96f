"""`edgegw message publish`: one message from an argument, a file or standard input, or one for each line of it.

A payload that is JSON is published as JSON, other UTF-8 text as text, and the rest as bytes, unless a content type is given.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from random import random
from threading import Event
from typing import Any
from urllib.parse import quote

from edgegw.cli.client import Answer, GatewayClient, add_target_options, target_of
from edgegw.cli.option_types import seconds
from edgegw.errors import PeerError, RequestError
from edgegw.limits import BODY_BYTES_MAX, REPLAY_RETRY_CAP_S, REPLAY_RETRY_FIRST_S, REPLAY_RETRY_S

_ABOUT = "publish one message, or each line of a file"
JSON, _TEXT, _OCTETS = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
_CLASSES = ("memory", "crash", "power")
_MORE = """\
examples:
  edgegw message publish cellar/temperature 21.5
  edgegw message publish cellar/camera --file shot.jpg --content-type image/jpeg --retain
  tail -f sensor.log | edgegw message publish cellar/log --lines

Without --content-type a payload that is JSON is sent as JSON, other text as text, the rest as bytes.
"""


def add_verb(verbs: Any) -> None:
    """Add `publish` to the verbs of `edgegw message`."""
    parser = verbs.add_parser(
        "publish",
        help=_ABOUT,
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument("payload", nargs="?", metavar="PAYLOAD", help="the payload; - reads it from standard input")
    parser.add_argument("--file", type=Path, metavar="F", help="the payload is what this file holds")
    parser.add_argument("--lines", action="store_true", help="each line of the file or of standard input is a message")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--content-type", metavar="T", help="media type of the payload (default: found)")
    kind.add_argument("--json-type", action="store_const", const=JSON, dest="content_type", help=f"the same as {JSON}")
    parser.add_argument("--key", metavar="K", help="a message with this key is stored once, however often it is sent")
    parser.add_argument("--ttl", type=seconds, metavar="S", help="seconds after which the message goes")
    parser.add_argument("--retain", action="store_true", help="keep it as the last value of its topic")
    parser.add_argument("--time", metavar="T", help="when it was measured, RFC 3339")
    parser.add_argument("--class", choices=_CLASSES, dest="durability", help="what it must survive: nothing, a kill, a power cut")
    retry = f"how long to try while the gateway does not take it (default: 0, with --lines {REPLAY_RETRY_S:g})"
    parser.add_argument("--retry-for", type=seconds, metavar="SECONDS", help=retry)
    add_target_options(parser)
    parser.add_argument("--json", action="store_true", help="print the receipt as JSON")
    parser.set_defaults(call=publish)


def publish(args: argparse.Namespace) -> int:
    """Publish, and print the receipt. Raises RequestError for what cannot be published, PeerError when the gateway stays away."""
    _check(args)
    with GatewayClient(target_of(args.url, args.socket, os.environ, args.ca)) as client:
        if args.lines:
            from edgegw.cli.publish_lines import publish_lines

            return publish_lines(args, client)
        payload = _payload(args)
        kind = args.content_type or kind_of(payload)
        answer = _send_one(args, client, payload, kind)
    receipt = _receipt(answer)
    if args.json:
        print(json.dumps({**receipt, "repeat": answer.status == 200}))
    else:
        verb = "was stored before" if answer.status == 200 else "stored"
        print(f"{verb}: message {receipt['seq']} of stream {receipt['stream']}, class {receipt['class']}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What argparse cannot say. Raises UsageError."""
    from edgegw.cli import UsageError

    hint = "see edgegw message publish --help"
    if args.payload is not None and args.file is not None:
        raise UsageError("usage", "there is both a payload and --file", hint)
    if args.lines and args.payload not in (None, "-"):
        raise UsageError("usage", "--lines reads a file or standard input, not a payload", hint)
    if args.lines and (args.key or args.time):
        raise UsageError("usage", "--lines gives each message its own key and time, so --key and --time are not for it", hint)
    if args.payload is None and args.file is None and not args.lines:
        raise UsageError("usage", "a payload is missing: give it, or - for standard input, or --file", hint)


# --- one message ----------------------------------------------------------------------------------


def _payload(args: argparse.Namespace) -> bytes:
    if args.payload not in (None, "-"):
        return os.fsencode(args.payload)
    # One byte more than a message may have is enough for the gateway to say so.
    if args.file is None:
        return sys.stdin.buffer.read(BODY_BYTES_MAX + 1)
    try:
        with args.file.open("rb") as file:
            content: bytes = file.read(BODY_BYTES_MAX + 1)
    except OSError as error:
        raise unreadable(args.file, error) from None
    return content


def unreadable(file: Path, error: OSError) -> RequestError:
    """The error for a file that cannot be read."""
    return RequestError("bad_file", f"{file}: {error.strerror or error}", "does it exist, and may you read it?")


def kind_of(payload: bytes) -> str:
    """The media type of a payload that has none."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return _OCTETS
    return JSON if _is_json(text) else _TEXT


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")


def _send_one(args: argparse.Namespace, client: GatewayClient, payload: bytes, kind: str) -> Answer:
    from edgegw.cli.replayer import TRY_AGAIN
    from edgegw.core.retry import Backoff

    retry_for_s = args.retry_for or 0.0
    # Without a key, a message whose answer was lost would be stored twice.
    key = args.key or (os.urandom(16).hex() if retry_for_s else None)
    more = {"Idempotency-Key": key, "Edgegw-Class": args.durability, "Edgegw-Time": args.time}
    more |= {"Edgegw-TTL": None if args.ttl is None else f"{args.ttl:.15g}", "Edgegw-Retain": "true" if args.retain else None}
    headers = {name: value for name, value in more.items() if value is not None}
    _check_headers({**headers, "Content-Type": kind})
    path = f"/v1/topics/{quote(os.fsencode(args.topic), safe='/')}"
    backoff = Backoff(REPLAY_RETRY_FIRST_S, REPLAY_RETRY_CAP_S)
    until_s = time.monotonic() + retry_for_s
    attempt = 0
    while True:
        wait_s: float | None = None
        try:
            answer = client.request("POST", path, payload, kind, repeatable=key is not None, more=headers)
            if answer.status in (200, 201):
                return answer
            error = answer.error()
            if answer.status not in TRY_AGAIN:
                raise error
            wait_s = answer.retry_after_s
        except PeerError as lost:
            error = lost
        left_s = until_s - time.monotonic()
        if left_s <= 0 or (wait_s or 0.0) > left_s:
            raise error
        Event().wait(wait_s or min(left_s, backoff.next_delay(attempt, random())))
        attempt += 1


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not value.isprintable() or not value.isascii():
            raise RequestError("bad_option", f"{value[:60]!r} cannot stand in the header {name}", "printable ASCII can")


def _receipt(answer: Answer) -> Mapping[str, object]:
    receipt = answer.json()
    if not isinstance(receipt, dict) or not {"stream", "seq", "class"} <= receipt.keys():
        raise PeerError("bad_answer", "the receipt is not that of a gateway", "is --url right?")
    return receipt

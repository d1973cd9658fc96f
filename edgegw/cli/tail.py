"""`edgegw message tail`: messages as they come, over Server-Sent Events (WHATWG HTML, section 9.2).

A connection that breaks is made again. With one stream nothing is missed: the gateway goes on behind the last event that was
printed. Across streams events have no number, so what came in between is missing, and that is said.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from random import random
from threading import Event
from typing import Any, NamedTuple
from urllib.parse import quote

from edgegw.cli.client import GatewayClient, add_target_options, target_of
from edgegw.cli.option_types import count_from_0, count_from_1
from edgegw.errors import PeerError

_ABOUT = "print messages as they come"


def add_verb(verbs: Any) -> None:
    """Add `tail` to the verbs of `edgegw message`."""
    parser = verbs.add_parser("tail", help=_ABOUT, description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--topic", default="#", metavar="FILTER", help="only these topics, such as 'cellar/#' (default: all)")
    parser.add_argument("--stream", metavar="S", help="only this stream; then a broken connection costs no message")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--after", type=count_from_0, metavar="N", help="begin behind message N of the stream (default: default)")
    where.add_argument("--from-start", action="store_const", const=0, dest="after", help="begin with the oldest message")
    parser.add_argument("--count", type=count_from_1, metavar="N", help="end after N messages")
    add_target_options(parser)
    parser.add_argument("--json", action="store_true", help="print each as a JSON object on a line of its own")
    parser.set_defaults(call=tail)


def tail(args: argparse.Namespace) -> int:
    """Print until told to stop. Raises RequestError, PeerError when there is no gateway to begin with."""
    from edgegw.cli.message_lines import line_for_people, row_of, terminal_columns

    columns = None if args.json else terminal_columns()
    with GatewayClient(target_of(args.url, args.socket, os.environ, args.ca)) as client:
        left = args.count
        for data in Follower(client, args.topic, args.stream, args.after).rows():
            row = row_of(data)
            print(data if args.json else line_for_people(row, columns), flush=True)
            if left is not None and "gap" not in row:
                left -= 1
                if left <= 0:
                    break
    return 0


class ServerEvent(NamedTuple):
    """One event; `id` is empty when it has none."""

    kind: str
    id: str
    data: str


class Follower:
    """The rows of a stream of events, over as many connections as it takes."""

    def __init__(self, client: GatewayClient, topic: str, stream: str | None, after: int | None) -> None:
        self._client = client
        self._path = f"/v1/stream?topic={quote(topic, safe='')}"
        self._is_numbered = stream is not None or after is not None
        if self._is_numbered:
            self._path += f"&stream={quote(stream or 'default', safe='')}"
        self._after = f"&after={after}" if after is not None else ""
        self._seen = ""

    def rows(self) -> Iterator[str]:
        """Each row as the text of its JSON. Raises what a first connection, or a refusal, ends with."""
        from edgegw.core.retry import Backoff
        from edgegw.limits import REPLAY_RETRY_FIRST_S, TAIL_RETRY_CAP_S

        backoff = Backoff(REPLAY_RETRY_FIRST_S, TAIL_RETRY_CAP_S)
        attempt, was_there = 0, False
        while True:
            try:
                path = self._path + ("" if self._seen else self._after)
                with self._client.listen(path, more={"Last-Event-ID": self._seen} if self._seen else {}) as lines:
                    if attempt:
                        _say("connected again" + ("" if self._is_numbered else "; what came meanwhile is missing"))
                    attempt, was_there = 0, True
                    for event in events(lines):
                        self._seen = event.id or self._seen
                        yield event.data
                what = "the gateway ended the stream"
            except PeerError as error:
                if not was_there or error.code == "bad_answer":
                    raise
                what = error.what
            if not attempt:
                _say(f"{what}; trying again")
            Event().wait(backoff.next_delay(attempt, random()))
            attempt += 1


def events(lines: Iterator[bytes]) -> Iterator[ServerEvent]:
    """The events of a stream; comments, and an event that is not complete, are none."""
    kind, number = "message", ""
    data: list[str] = []
    for line in lines:
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent(kind, number, "\n".join(data))
            kind, number, data = "message", "", []
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id":
            number = value


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()

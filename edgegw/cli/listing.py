"""`edgegw message list`: stored messages of one stream, in order, with the gaps between them."""

import argparse
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from edgegw.cli.client import GatewayClient, add_target_options, target_of
from edgegw.cli.option_types import count_from_0, count_from_1
from edgegw.errors import NotFound, PeerError, RequestError
from edgegw.limits import LIST_LAST_MAX, LIST_MESSAGES, PAGE_MESSAGES_MAX

_ABOUT = "print stored messages of a stream"
_Row = tuple[str, Mapping[str, Any]]


def add_verb(verbs: Any) -> None:
    """Add `list` to the verbs of `edgegw message`."""
    parser = verbs.add_parser("list", help=_ABOUT, description=_ABOUT, allow_abbrev=False)
    parser.add_argument("--topic", default="#", metavar="FILTER", help="only these topics, such as 'cellar/#' (default: all)")
    parser.add_argument("--stream", default="default", metavar="S", help="the stream (default: default)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--after", type=count_from_0, metavar="N", help="begin behind message N (default: with the oldest)")
    where.add_argument("--last", type=count_from_1, metavar="N", help="the newest N instead")
    parser.add_argument("--limit", type=count_from_1, metavar="N", help=f"print at most N (default: {LIST_MESSAGES})")
    add_target_options(parser)
    parser.add_argument("--json", action="store_true", help="print each as a JSON object on a line of its own")
    parser.set_defaults(call=list_messages)


def list_messages(args: argparse.Namespace) -> int:
    """Print them. Raises RequestError, PeerError."""
    from edgegw.cli.message_lines import line_for_people, terminal_columns

    if args.last is not None and args.last > LIST_LAST_MAX:
        raise RequestError("bad_option", f"--last {args.last} is more than {LIST_LAST_MAX}", "use --after")
    columns = None if args.json else terminal_columns()
    with GatewayClient(target_of(args.url, args.socket, os.environ, args.ca)) as client:
        rows = _newest(client, args) if args.last is not None else _rows(client, args, args.after, args.limit or LIST_MESSAGES)
        for text, row in rows:
            print(text if args.json else line_for_people(row, columns))
    return 0


def _rows(client: GatewayClient, args: argparse.Namespace, after: int | None, most: int) -> Iterator[_Row]:
    """The rows behind `after`, of which `most` are messages, over as many answers as it takes."""
    from edgegw.cli.message_lines import rows_of

    path = f"/v1/messages?stream={quote(args.stream, safe='')}&topic={quote(args.topic, safe='')}"
    path += f"&limit={min(most, PAGE_MESSAGES_MAX)}" + (f"&after={after}" if after is not None else "")
    while path:
        answer = client.call("GET", path, repeatable=True)
        for text, row in rows_of(answer.body):
            yield text, row
            most -= "gap" not in row
            if most <= 0:
                return
        path = answer.next_path


def _newest(client: GatewayClient, args: argparse.Namespace) -> list[_Row]:
    """The last rows that match: looked for from the end, in stretches that double."""
    first, last = _bounds(client, args.stream)
    wanted = min(args.last, args.limit or args.last)
    found: list[_Row] = []
    end, stretch = last, args.last
    while end >= first and len(found) < wanted:
        begin = max(first - 1, end - stretch)
        older: list[_Row] = []
        for text, row in _rows(client, args, begin, end - begin):
            if _place(row) > end:
                break
            older.append((text, row))
        found = [*older, *found][-wanted:]
        end, stretch = begin, stretch * 2
    return found


def _place(row: Mapping[str, Any]) -> int:
    gap = row.get("gap")
    place = gap.get("last") if isinstance(gap, dict) else row.get("seq")
    if not isinstance(place, int):
        raise PeerError("bad_answer", "a row of the answer has no number", "is this the address of a gateway?")
    return place


def _bounds(client: GatewayClient, stream: str) -> tuple[int, int]:
    """The numbers of the oldest and of the newest message; (1, 0) of an empty stream. Raises NotFound, PeerError."""
    status = client.call("GET", "/v1/status", repeatable=True).json()
    streams = status.get("streams") if isinstance(status, dict) else None
    if not isinstance(streams, dict):
        raise PeerError("bad_answer", "the answer is not the status of a gateway", "is --url right?")
    if stream not in streams:
        raise NotFound(
            "unknown_stream", f"there is no stream {stream!r}", f"streams: {', '.join(sorted(streams))}", where="stream"
        )
    return (streams[stream].get("first") or 1, streams[stream].get("last") or 0)

"""`edgegw message publish --lines`: each line of a file or of standard input is a message.

What can be read at once goes out at once: a file in large batches, `tail -f` line by line. Each message has a key, so that a
batch whose answer was lost can be sent again.
"""

import argparse
import json
import os
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import random
from threading import Event

from edgegw.cli.client import Answer, GatewayClient
from edgegw.cli.progress import Progress, clock_text, is_terminal
from edgegw.cli.publish import JSON, kind_of, unreadable
from edgegw.cli.replay import BadRow, Reading, Row
from edgegw.cli.replayer import Manner, Replayer, Tally
from edgegw.errors import RequestError
from edgegw.limits import BODY_BYTES_MAX, PUBLISH_LINES_BYTES, REPLAY_RETRY_S

# Of no meaning: rows are sent as fast as they come, and without their time.
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


def publish_lines(args: argparse.Namespace, client: GatewayClient) -> int:
    """Publish each line, and print what came of it. Raises RequestError, PeerError when the gateway stays away."""
    name = "standard input" if args.file is None else args.file.name
    retry_for_s = REPLAY_RETRY_S if args.retry_for is None else args.retry_for
    started_s = time.monotonic()
    with LineSource(args.file) as source:
        progress = Progress(
            sys.stderr,
            clock=time.monotonic,
            done_bytes=lambda: source.used_bytes,
            total_bytes=source.size_bytes,
            terminal=is_terminal(),
            things="messages",
        )
        replayer = Replayer(
            _Classed(client, args.durability),
            Manner(name, os.urandom(8).hex(), retry_for_s=retry_for_s),
            progress,
            clock=time.monotonic,
            pause=Event().wait,
            chance=random,
            encode=_Encoder(args).entry,
        )
        try:
            replayer.run(_rows(source, args))
        except BaseException:
            progress.close()
            if replayer.has_asked:
                sys.stderr.write(f"stopped: {replayer.tally.readings:,} messages are in\n")
            raise
    progress.close()
    _print_summary(replayer.tally, time.monotonic() - started_s, as_json=args.json)
    return 0


class _Classed:
    """The client, which also says what class a batch is to reach."""

    def __init__(self, client: GatewayClient, durability: str | None) -> None:
        self._client = client
        self._more = {} if durability is None else {"Edgegw-Class": durability}

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = JSON, *, repeatable: bool = False
    ) -> Answer:
        """Send one request. Raises PeerError."""
        return self._client.request(method, path, body, content_type, repeatable=repeatable, more=self._more)


class _Encoder:
    """A line as an entry of a batch. JSON goes as it is written, so that numbers keep their digits."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._topic = json.dumps(args.topic)
        options = {"ttl": args.ttl, "retain": args.retain or None}
        self._options = "".join(f',"{name}":{json.dumps(value)}' for name, value in options.items() if value is not None)

    def entry(self, run_id: str, row: Row, reading: Reading) -> bytes:
        """One entry."""
        return f'{{"topic":{self._topic},{reading.payload},"key":"{run_id}/{row.line}"{self._options}}}'.encode()


def _rows(source: "LineSource", args: argparse.Namespace) -> Iterator[Row | BadRow | None]:
    for line, content in source.lines():
        if line == 0:
            yield None
        elif len(content) > BODY_BYTES_MAX:
            yield BadRow(line, f"the line has more than {BODY_BYTES_MAX} bytes")
        elif content:
            yield Row(line, _NO_TIME, [Reading("", args.topic, _members(content, args.content_type))])


def _members(content: bytes, given: str | None) -> str:
    kind = given or kind_of(content)
    if given is None and kind == JSON:
        return f'"payload":{content.decode()}'
    return f'"payload_b64":"{b64encode(content).decode()}","content_type":{json.dumps(kind)}'


class LineSource:
    """The lines of a file (None: of standard input) as they come. Raises RequestError when it cannot be read."""

    def __init__(self, file: Path | None) -> None:
        self.used_bytes = 0
        self.size_bytes: int | None = None
        self._owns = file is not None
        if file is None:
            self._descriptor = sys.stdin.fileno()
            return
        try:
            self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            self.size_bytes = os.fstat(self._descriptor).st_size or None
        except OSError as error:
            raise unreadable(file, error) from None

    def __enter__(self) -> "LineSource":
        return self

    def __exit__(self, *_: object) -> None:
        if self._owns:
            os.close(self._descriptor)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number and without its end; number 0 when more may take a while."""
        number, rest = 0, b""
        while chunk := self._read():
            self.used_bytes += len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                number += 1
                yield number, line.removesuffix(b"\r")
            if len(rest) > BODY_BYTES_MAX:  # it cannot be sent, and the rest of it is not read into memory
                break
            yield 0, b""
        if rest:
            yield number + 1, rest

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, PUBLISH_LINES_BYTES)
        except OSError as error:
            raise RequestError("bad_file", f"the input cannot be read: {error.strerror}", "is it a file?") from None


def _print_summary(tally: Tally, elapsed_s: float, *, as_json: bool) -> None:
    spans = tally.streams.items()
    if as_json:
        streams = {stream: {"first": span.first, "last": span.last, "count": span.count} for stream, span in spans}
        seconds = round(elapsed_s, 3)
        print(json.dumps({"messages": tally.readings, "retries": tally.retries, "seconds": seconds, "streams": streams}))
        return
    print(f"sent {tally.readings:,} messages in {clock_text(elapsed_s)}")
    for stream, span in spans:
        print(f"stream {stream}: {span.count:,} receipts, {span.first} to {span.last}")

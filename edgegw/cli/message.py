"""`edgegw message`: the verbs, and `replay`, which sends a recording to a gateway, each reading with its own time."""

import argparse
import codecs
import json
import os
import re
import sys
import time
from datetime import tzinfo
from pathlib import Path
from random import random
from threading import Event

from edgegw.cli import listing, publish, tail
from edgegw.cli.client import GatewayClient, add_target_options, target_of
from edgegw.cli.option_types import count_from_1, seconds
from edgegw.cli.progress import Progress, clock_text, is_terminal
from edgegw.cli.recorded_time import check_form, rfc3339, zone_named
from edgegw.cli.recording_file import STDIN, RecordingFile
from edgegw.cli.replay import Recording, TopicTemplate, complete, read
from edgegw.cli.replayer import Manner, Replayer, Tally
from edgegw.errors import GatewayError
from edgegw.limits import NAME_BYTES_MAX, REPLAY_BATCH, REPLAY_BATCH_MAX, REPLAY_RETRY_S

_RUN_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_BYTES_MAX}}}")
_KINDS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_ABOUT = "send a recording to a gateway, each reading with its own time and exactly once"
_MORE = """\
The first line of a CSV file names the columns. Every other cell that is not empty becomes a message: a number where it is
one, else a string. Of NDJSON, every field of a line becomes one; a topic without {column} takes the whole line instead.
In a column name, `/`, `+` and `#` become `_`.

example: edgegw message replay air-quality-uci.csv --topic 'air-quality/{column}' --time-column Date,Time --missing -200

A replay that stopped says how to resume it: --run-id gives the readings the same keys again, so that those which are
already in count as repeats. The gateway keeps keys for 24 hours or 100,000 messages of the stream, whichever ends first;
--start-line keeps the distance short.
"""


def build(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `edgegw message`."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    publish.add_verb(verbs)
    tail.add_verb(verbs)
    listing.add_verb(verbs)
    replay_parser = verbs.add_parser(
        "replay",
        help=_ABOUT,
        description=_ABOUT,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_recording_options(replay_parser)
    _add_sending_options(replay_parser)
    replay_parser.set_defaults(call=replay)


def replay(args: argparse.Namespace) -> int:
    """Send the recording. Raises RequestError for what cannot be sent, PeerError when the gateway stays away."""
    run_id = args.run_id or os.urandom(8).hex()
    manner = Manner(args.file.name, run_id, args.speed, args.batch, args.retry_for, args.skip_bad)
    target = target_of(args.url, args.socket, os.environ, args.ca)
    with RecordingFile(args.file, args.encoding) as file, GatewayClient(target) as client:
        recording, lines = complete(_recording(args), file.lines())
        progress = Progress(
            sys.stderr, clock=time.monotonic, done_bytes=file.used_bytes, total_bytes=file.size_bytes, terminal=is_terminal()
        )
        progress.note(_found(recording, run_id))
        # The event is never set: waiting for it is a pause that Ctrl-C ends.
        replayer = Replayer(client, manner, progress, clock=time.monotonic, pause=Event().wait, chance=random)
        started_s = time.monotonic()
        try:
            replayer.run(read(recording, file.counted(lines)))
        except (GatewayError, KeyboardInterrupt):
            progress.close()
            if replayer.has_asked:
                _say_how_to_resume(replayer, run_id)
            raise
        progress.close()
    _print_summary(replayer.tally, run_id, time.monotonic() - started_s, as_json=args.json)
    return 0


def _add_recording_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=_file, metavar="FILE", help=f"{', '.join(_KINDS)}, or - for NDJSON on standard input")
    parser.add_argument("--topic", type=_template, required=True, help="topic with {column}, or the {name} of any field")
    parser.add_argument("--time-column", type=_names, required=True, metavar="NAME[,NAME2]", help="time, or date and time")
    parser.add_argument(
        "--time-format",
        type=_time_form,
        metavar="FMT",
        help="as of strptime, or iso, epoch, epoch-ms, epoch-us, epoch-ns (default: found)",
    )
    parser.add_argument(
        "--timezone", type=_zone, default="Z", metavar="Z", help="of times without one: Z, +02:00, Europe/Rome (default: Z)"
    )
    parser.add_argument("--delimiter", type=_character, metavar="C", help="between the cells of CSV (default: found)")
    parser.add_argument("--decimal", choices=(".", ","), help="decimal sign in CSV (default: found)")
    missing = "this value means that there is none (may be given again; --missing=-1,5 where a `-` confuses)"
    parser.add_argument("--missing", action="append", default=[], metavar="VALUE", help=missing)
    parser.add_argument("--encoding", type=_encoding, default="utf-8-sig", metavar="NAME", help="of the file (default: utf-8)")
    parser.add_argument(
        "--start-line", type=count_from_1, default=1, metavar="N", help="leave out what stands above this line of the file"
    )
    parser.add_argument("--skip-bad", action="store_true", help="count rows that cannot be read, and go on")


def _add_sending_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speed", type=_speed, default="max", metavar="N", help="N times as fast as recorded, or max (default)")
    parser.add_argument(
        "--batch", type=_batch, default=REPLAY_BATCH, metavar="N", help=f"readings in a request (default: {REPLAY_BATCH})"
    )
    retry = f"how long to try while the gateway does not take a request (default: {REPLAY_RETRY_S:g})"
    parser.add_argument("--retry-for", type=seconds, default=REPLAY_RETRY_S, metavar="SECONDS", help=retry)
    parser.add_argument("--run-id", type=_run_id, metavar="ID", help="first part of each reading's key (default: chance)")
    add_target_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _recording(args: argparse.Namespace) -> Recording:
    return Recording(
        args.file.name,
        "csv" if _KINDS.get(args.file.suffix.lower()) == "csv" else "ndjson",
        args.topic,
        args.time_column,
        args.time_format,
        args.timezone,
        args.delimiter,
        args.decimal,
        tuple(args.missing),
        args.start_line,
    )


def _found(recording: Recording, run_id: str) -> str:
    """What a person checks first when the values look wrong, and needs when the machine goes down meanwhile."""
    cells = f"cells separated by {recording.delimiter!r}, decimal {recording.decimal!r}, " if recording.kind == "csv" else ""
    return f"{recording.name}: {cells}time {recording.time_form!r} in {recording.zone}; run id {run_id}"


def _say_how_to_resume(replayer: Replayer, run_id: str) -> None:
    tally = replayer.tally
    sys.stderr.write(
        f"stopped: {tally.readings:,} readings are in, {tally.repeats:,} of them were before;"
        f" to resume, add: --run-id {run_id} --start-line {replayer.resume_line}\n"
    )


def _print_summary(tally: Tally, run_id: str, elapsed_s: float, *, as_json: bool) -> None:
    rate = tally.readings / elapsed_s if elapsed_s > 0 else 0.0
    times = [rfc3339(moment) for moment in (tally.first_time, tally.last_time) if moment is not None]
    if as_json:
        streams = {name: {"first": span.first, "last": span.last, "count": span.count} for name, span in tally.streams.items()}
        summary = {"run_id": run_id, "readings": tally.readings, "repeats": tally.repeats, "rows": tally.rows}
        summary |= {"bad_rows": tally.bad_rows, "retries": tally.retries}
        summary |= {"seconds": round(elapsed_s, 3), "rate_per_s": round(rate, 1)}
        summary |= {"first_time": times[0] if times else None, "last_time": times[-1] if times else None, "streams": streams}
        print(json.dumps(summary))
        return
    print(f"sent {tally.readings:,} readings of {tally.rows:,} rows in {clock_text(elapsed_s)}, {rate:,.0f}/s")
    if times:
        print(f"recorded {times[0]} to {times[-1]}")
    for name, span in tally.streams.items():
        print(f"stream {name}: {span.count:,} receipts, {span.first} to {span.last}")
    print(f"{tally.repeats:,} repeats, {tally.retries:,} requests sent again, {tally.bad_rows:,} bad rows left out")


def _file(text: str) -> Path:
    path = Path(text)
    if path != STDIN and path.suffix.lower() not in _KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} must end in {', '.join(_KINDS)}, or be - for NDJSON on standard input")
    return path


def _template(text: str) -> TopicTemplate:
    try:
        return TopicTemplate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return names


def _time_form(text: str) -> str:
    try:
        check_form(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _zone(text: str) -> tzinfo:
    try:
        return zone_named(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _character(text: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n\0':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character; a tabulator is written as tab")
    return character


def _encoding(text: str) -> str:
    try:
        name = codecs.lookup(text).name
        "".encode(name)  # a codec from bytes to bytes is no encoding
    except LookupError:
        raise argparse.ArgumentTypeError(f"{text!r} is no encoding; usual ones are utf-8, cp1252, utf-16") from None
    return "utf-8-sig" if name == "utf-8" else name


def _run_id(text: str) -> str:
    if _RUN_ID.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'")
    return text


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    if (speed := seconds(text)) == 0:
        raise argparse.ArgumentTypeError("0 would never send anything; the fastest is max")
    return speed


def _batch(text: str) -> int:
    readings = count_from_1(text)
    if readings > REPLAY_BATCH_MAX:
        raise argparse.ArgumentTypeError(f"{readings} is more than {REPLAY_BATCH_MAX}")
    return readings

"""`./build.sh bench [NAME…] [--soak]`: one JSON object a line, the machine first; exit 1 when a must is missed, 2 on usage."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from tests.bench.environment import environment, file_system, has_uvloop
from tests.bench.measure import TREE, BenchError, Options, Result

NAMES = ("http_single", "http_batch", "fanout", "drain", "group_commit", "matching", "memory", "start", "wear")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches asked for; the exit code."""
    args = _parser().parse_args(arguments)
    loop = args.loop or ("uvloop" if has_uvloop() else "asyncio")
    folder: Path = args.dir
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(folder.resolve(), loop, args.soak, args.pairs)
    try:
        file_system(folder)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _say(environment(folder, loop))
    results = [_run(name, options) for name in args.names or NAMES]
    return 0 if all(result is not None and result["ok"] for result in results) else 1


def _run(name: str, options: Options) -> Result | None:
    run: Callable[[Options], Result] = import_module(f"tests.bench.bench_{name}").run
    try:
        result = run(options)
    except BenchError as error:
        print(f"bench: {name}: {error}", file=sys.stderr)
        return None
    _say(result)
    return result


def _say(result: Result) -> None:
    print(json.dumps(result), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build.sh bench", description="What the gateway reaches, against its limits.")
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=f"which ones: {', '.join(NAMES)} (all)")
    parser.add_argument("--soak", action="store_true", help="memory: ten minutes of load instead of one")
    parser.add_argument("--dir", type=Path, default=TREE / "var" / "bench", help="folder on a disk for the data (var/bench)")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), help="event loop of both sides (uvloop where it is there)")
    parser.add_argument("--pairs", type=_count, help="interleaved pairs, instead of each bench's own number")
    return parser


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"no bench {text!r}; there are {', '.join(NAMES)}")
    return text


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

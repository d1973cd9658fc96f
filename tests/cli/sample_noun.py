"""A noun as the command line loads one, whose verbs end in every way there is."""

import argparse
import sys

from edgegw.errors import Busy, ConfigError, Fault, GatewayError, NotFound, PeerError, StoreError

ERRORS: dict[str, BaseException] = {
    "config": ConfigError("data_denied", "the data folder cannot be written", "give it to the user edgegw"),
    "faults": ConfigError("config_invalid", "x", faults=tuple(Fault("f.toml", i, "a.b", "is wrong") for i in range(1, 124))),
    "peer": PeerError("gateway_unreachable", "nothing listens"),
    "store": StoreError("disk", "two\nlines"),
    "busy": Busy("busy", "the disk is slow"),
    "request": NotFound("no_consumer", "there is no consumer"),
    "other": GatewayError("other", "x", "y"),
    "interrupt": KeyboardInterrupt(),
    "pipe": BrokenPipeError(),
}


def build(parser: argparse.ArgumentParser) -> None:
    """Add the verbs."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    give = verbs.add_parser("give")
    give.add_argument("--code", type=int, default=0)
    give.set_defaults(call=lambda args: args.code)
    fail = verbs.add_parser("fail")
    fail.add_argument("how", choices=ERRORS)
    fail.set_defaults(call=_fail)
    write = verbs.add_parser("write")
    write.set_defaults(call=_write)


def _fail(args: argparse.Namespace) -> int:
    raise ERRORS[args.how]


def _write(args: argparse.Namespace) -> int:
    for _ in range(100_000):
        sys.stdout.write("a line\n")
    return 0

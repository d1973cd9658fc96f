"""`edgegw run`: the gateway in the foreground."""

import argparse
import gc
import os
import sys
from pathlib import Path

from edgegw.config import Inputs
from edgegw.config_source import DEFAULT_FILE


def build(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgegw run`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {DEFAULT_FILE}, if it is there)")
    parser.add_argument("--data", metavar="DIR", help="folder of the store, instead of gateway.data")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address of the API, instead of http.listen")
    parser.add_argument(
        "--lan", action="store_true", help="take readings from the local network, without TLS; makes a first token"
    )
    parser.set_defaults(call=run)


def run(args: argparse.Namespace) -> int:
    """Run until told to stop. Raises ConfigError, and what the gateway cannot start without."""
    options = {"gateway.data": args.data, "http.listen": args.listen}
    overrides = {key: text for key, text in options.items() if text is not None}
    if args.lan:
        overrides["http.allow_plaintext"] = "true"  # before --listen is judged, which may name an address of the network
    inputs = Inputs(args.config or DEFAULT_FILE, dict(os.environ), overrides, must_exist=args.config is not None)
    reading = inputs.read()
    if args.lan:
        from edgegw.cli.lan import introduce, lan_overrides

        inputs = inputs._replace(overrides=overrides | lan_overrides(reading.config.http.listen))
        reading = inputs.read()
        introduce(reading.config)
    # After the configuration: a fault in it is told without waiting for these to load. Nothing that loads is garbage: the
    # collector would look through all of it several times. The gateway turns it on again.
    gc.disable()
    from edgegw.gateway import run as run_gateway
    from edgegw.observe.log import setup

    setup(reading.config.log.level, reading.config.log.format, sys.stderr)
    return run_gateway(inputs, reading)

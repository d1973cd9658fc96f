"""`edgegw check`: the doctor. One line for each thing that a gateway needs, with a hint where something is wrong."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from edgegw.cli.client import add_target_options, target_of
from edgegw.cli.findings import Finding, fail
from edgegw.config import Inputs, Reading
from edgegw.config_source import DEFAULT_FILE
from edgegw.errors import ConfigError, printable

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_COLORS = {"ok": "32", "warn": "33", "fail": "31"}


def build(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgegw check`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"configuration (default: {DEFAULT_FILE}, if it is there)")
    parser.add_argument("--data", metavar="DIR", help="folder of the store, instead of gateway.data")
    add_target_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(call=check)


def check(args: argparse.Namespace) -> int:
    """Print what was found; 0 when nothing fails, else 1. Raises ConfigError with all faults, after what was found without it."""
    overrides = {} if args.data is None else {"gateway.data": args.data}
    inputs = Inputs(args.config or DEFAULT_FILE, os.environ, overrides, must_exist=args.config is not None)
    found: list[Finding] = []
    error: ConfigError | None = None
    try:
        findings = _look(inputs.read(), args)
    except ConfigError as caught:
        error = caught
        findings = iter([fail("config", str(fault), "see edgegw config check") for fault in caught.faults])
    for finding in findings:
        found.append(finding)
        if not args.json:
            print(_line(finding, has_color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")), flush=True)
    is_good = not any(finding.status == "fail" for finding in found)
    if args.json:
        print(json.dumps({"ok": is_good, "checks": [finding._asdict() for finding in found]}))
    if error is not None:
        raise ConfigError(error.code, error.what, error.hint)
    return 0 if is_good else 1


def _look(reading: Reading, args: argparse.Namespace) -> Iterator[Finding]:
    """In the order in which one would mend things."""
    from edgegw.cli import check_gateway, check_machine

    config = reading.config
    data = config.gateway.data
    pid = check_gateway.owner_of(data, PROC)
    store = check_gateway.look_at_store(data)
    newest_ms = getattr(store, "newest_ms", None)
    yield check_gateway.check_config(reading)
    yield check_machine.check_clock(time.time(), newest_ms, check_machine.is_clock_synchronised())
    yield check_machine.check_boot(PROC)
    yield check_machine.check_memory(PROC, CGROUPS, pid)
    try:
        mount = check_machine.mount_of(data, (PROC / "self" / "mountinfo").read_text("utf-8", "replace"))
    except OSError:
        mount = None
    yield check_machine.check_disk(data, mount)
    yield check_machine.check_mount(data, mount)
    yield check_gateway.check_store(data, store, pid)
    yield check_gateway.check_certificates(config.http)
    is_asked = bool(args.url or args.socket or os.environ.get("EDGEGW_URL") or os.environ.get("EDGEGW_SOCKET"))
    if not is_asked:
        yield check_gateway.check_listen(config.http, pid)
    yield from check_gateway.check_links(config.links)
    target = target_of(args.url, args.socket, os.environ, args.ca) if is_asked else check_gateway.gateway_target(reading)
    yield from check_gateway.check_gateway(target, pid, is_asked=is_asked)


def _line(finding: Finding, *, has_color: bool) -> str:
    status = f"{finding.status:4}"
    if has_color:
        status = f"\x1b[{_COLORS[finding.status]}m{status}\x1b[0m"
    hint = f" ({finding.hint})" if finding.hint else ""
    return f"{status}  {printable(f'{finding.name}: {finding.what}{hint}')}"

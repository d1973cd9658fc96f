"""`edgegw config show|check`: what the gateway would run with, and what is wrong with it."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from edgegw.config import Reading, SettingRow, read_config, setting_rows
from edgegw.config_source import DEFAULT_FILE, LISTS
from edgegw.errors import ConfigError


def build(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `edgegw config`."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb, call, about in (
        ("show", show, "the value of every setting, and where it comes from"),
        ("check", check, "whether the gateway would take the configuration"),
    ):
        command = verbs.add_parser(verb, help=about, description=about, allow_abbrev=False)
        where = f"configuration (default: {DEFAULT_FILE}, if it is there)"
        command.add_argument("--config", type=Path, metavar="FILE", help=where)
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(call=call)


def show(args: argparse.Namespace) -> int:
    """Print the configuration as TOML that could be used as it is, or as JSON. Raises ConfigError."""
    reading = _read(args.config)
    if args.json:
        origins = {key: str(origin) for key, origin in reading.origins.items()}
        tables = asdict(reading.config)
        for section in LISTS:
            tables[section] = tables.pop(f"{section}s")  # as in the file
        print(json.dumps({"config": tables, "origins": origins, "files": reading.files}, default=str))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _toml_lines(reading))
    return 0


def check(args: argparse.Namespace) -> int:
    """Say that all is well, or raise ConfigError; with `--json` the faults are printed as well."""
    try:
        reading = _read(args.config)
    except ConfigError as error:
        if args.json:
            print(json.dumps({"ok": False, "faults": [fault._asdict() for fault in error.faults]}))
        raise
    if args.json:
        print(json.dumps({"ok": True, "files": reading.files}))
    else:
        print(f"ok: {', '.join(reading.files) or 'no file, so every setting has its default or comes from the environment'}")
    return 0


def _read(file: Path | None) -> Reading:
    return read_config(file or DEFAULT_FILE, os.environ, {}, must_exist=file is not None)


def _toml_lines(reading: Reading) -> Iterator[str]:
    section = ""
    rows = list(setting_rows())
    for row in rows:
        if row.section in LISTS:
            continue
        if row.section != section:
            if section:
                yield ""
            section = row.section
            yield f"[{section}]"
        yield f"# {row.meaning}"
        yield _toml_line(row, getattr(getattr(reading.config, section), row.key), reading, f"{section}.{row.key}")
    for section in LISTS:
        for table in getattr(reading.config, f"{section}s"):
            yield from ("", f"[[{section}]]")
            for row in rows:
                if row.section == section:
                    yield _toml_line(row, getattr(table, row.key), reading, f"{section}[{table.name}].{row.key}")


def _toml_line(row: SettingRow, value: object, reading: Reading, key: str) -> str:
    origin = reading.origins.get(key, "default")
    return f"# {row.key} is not set  # {origin}" if value is None else f"{row.key} = {_toml_value(value)}  # {origin}"


def _toml_value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str | Path):
        # JSON's escapes are TOML's; only DEL must be escaped in TOML and not in JSON.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    assert isinstance(value, int | float)
    return repr(value)

"""A configuration as the API tells it: each value with its origin, and nothing that is a secret.

Secrets are kept in files that the configuration only names; the one value that may hold one in itself is the query of a URL.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from edgegw.config import Reading
from edgegw.config_source import LISTS

DEFAULT = "default"


def config_view(reading: Reading) -> dict[str, Any]:
    """`{section: {key: {"value", "origin"}}}`, a list of such tables for sections that stand several times; and the files."""
    view: dict[str, Any] = {}
    for each in fields(reading.config):
        value = getattr(reading.config, each.name)
        section = each.name.removesuffix("s")
        if section in LISTS:
            view[section] = [_table(table, f"{section}[{table.name}]", reading) for table in value]
        else:
            view[each.name] = _table(value, each.name, reading)
    return {"config": view, "files": list(reading.files)}


def _table(table: Any, place: str, reading: Reading) -> dict[str, dict[str, object]]:
    return {
        each.name: {
            "value": _shown(getattr(table, each.name)),
            "origin": str(reading.origins.get(f"{place}.{each.name}", DEFAULT)),
        }
        for each in fields(table)
    }


def _shown(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and "://" in value and "?" in value:
        return value.partition("?")[0] + "?…"
    return value

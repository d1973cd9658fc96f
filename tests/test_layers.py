"""Imports go down only: the table below is the rule, and every import of edgegw/ is held against it.

Imports inside functions and under TYPE_CHECKING count: a dependency is one wherever it stands.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "edgegw"

_GROUND = {"errors", "limits"}
_FIRST = {"core", "config", "conditions", "observe", "clock", *_GROUND}
_STORE = {"store", *_FIRST}
_BUS = {"bus", "consumer", "subscription", "callers", *_STORE}
_GATEWAY = {"api", "mqtt", "links", "sources", "ota", "fleet", "services", "notify", "watch", "reload", *_BUS}

# Who → whom it may import beside itself. A key is a module or a folder of edgegw/, dotted; the longest one that fits counts.
# A name that starts with that of a module and an underscore (bus_window beside bus) is a part of it and has its place.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "core": _GROUND,
    # Reads the operator's words, and so asks the core what a topic filter is.
    "config": {"core", *_GROUND},
    # What a clock looks like, and the one place that reads the machine's. Not for core/, which is told what time it is.
    "clock": _GROUND,
    "conditions": {"core", "clock", *_GROUND},
    "observe": {"core", "clock", *_GROUND},
    "store": _FIRST,
    # Who shows a token; for every protocol that takes one.
    "callers": _STORE,
    # One thing in three files: the bus makes the other two and hands them out.
    "bus": {"consumer", "subscription", *_STORE},
    "consumer": _STORE,
    "subscription": _STORE,
    # Neighbours that do not know each other: they meet in gateway.py or on the bus.
    "api": _BUS,
    "mqtt": _BUS,
    "links": _BUS,
    "sources": _BUS,
    "ota": _BUS,
    "fleet": _BUS,
    # Must bring a board back with no database, no configuration and a full disk.
    "ota.slots": {"core", *_GROUND},
    # Known to the gateway only: what they serve knows nothing of tasks, restarts or a supervisor.
    "services": {"observe", "conditions", "core", "clock", *_GROUND},
    "notify": {"observe", "conditions", "core", "clock", *_GROUND},
    # Looks after the store and says what it sees; the gateway runs it as a service.
    "watch": _BUS,
    # What a new configuration is taken up by; the parts are handed in.
    "reload": {"observe", "conditions", "config", "core", "clock", *_GROUND},
    "gateway": _GATEWAY,
    "cli": {"gateway", *_GATEWAY},
    "__main__": {"cli"},
}

# Standard library that does no I/O and asks no clock and no chance. core/ has these and no others.
PURE = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json", "math", "operator",
    "re", "string", "struct", "types", "typing", "unicodedata", "urllib.parse", "zlib",
}  # fmt: skip
# From outside the standard library: serialisation, and signatures that are verified, never made.
PURE_OUTSIDE = {"msgpack", "cryptography.exceptions", "cryptography.hazmat.primitives"}

# Databases are the store's alone. fleet/ has one of its own (DESIGN §2): add it here with its first line.
SQL_MODULES = {"sqlite3", "aiosqlite"}
SQL_HOMES = {"store"}


class Import(NamedTuple):
    """One imported module: who, where, and what."""

    importer: str
    where: str
    imported: str


def _dotted(path: Path, package: Path) -> str:
    parts = list(path.relative_to(package).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(package: Path) -> Iterator[Import]:
    """Every import under `package`; `from edgegw.x import y` names edgegw.x.y where that is a module."""
    for path in sorted(package.rglob("*.py")):
        importer = _dotted(path, package)
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(package.parent)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(importer, where, alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                for alias in node.names:
                    yield Import(importer, where, _module_named(package, node.module, alias.name))


def _module_named(package: Path, module: str, name: str) -> str:
    place = package.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if place.is_dir() or place.with_suffix(".py").is_file() else module


def _row(name: str) -> str:
    """The row of MAY_IMPORT for a dotted name under edgegw, "" where there is none."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        row = ".".join(parts[:length])
        if row in MAY_IMPORT:
            return row
    head = parts[0]
    while "_" in head.strip("_"):
        head = head.rpartition("_")[0]
        if head in MAY_IMPORT:
            return head
    return ""


def _inside(name: str, homes: set[str]) -> bool:
    return any(name == home or name.startswith(home + ".") for home in homes)


def direction_faults(package: Path) -> list[str]:
    """Imports inside edgegw that do not go down."""
    faults: list[str] = []
    for importer, where, imported in imports_of(package):
        if not imported.startswith("edgegw."):
            continue
        target = imported.removeprefix("edgegw.")
        above, below = _row(importer), _row(target)
        allowed = MAY_IMPORT.get(above, set())
        placeless = [name for name, row in ((importer, above), (target, below)) if name and not row]
        faults += [f"{where}: {name} has no place: give it a row in MAY_IMPORT of tests/test_layers.py" for name in placeless]
        if not placeless and not _inside(below, {above, *allowed}):
            faults.append(
                f"{where}: {importer or 'edgegw'} imports {target}; of edgegw it may import"
                f" {', '.join(sorted(allowed)) or 'nothing'}: move the code down, or hand the thing in from gateway.py"
            )
    return faults


def purity_faults(package: Path) -> list[str]:
    """What core/ imports although it does I/O, asks a clock or rolls dice."""
    faults: list[str] = []
    for importer, where, imported in imports_of(package):
        if not _inside(importer, {"core"}) or imported == "edgegw" or imported.startswith("edgegw."):
            continue
        if not _inside(imported, PURE if imported.split(".")[0] in sys.stdlib_module_names else PURE_OUTSIDE):
            faults.append(f"{where}: core decides only, and {imported} may act: do it in a shell and hand the result in")
    return faults


def clock_faults(package: Path) -> list[str]:
    """Where core/ reads the clock through datetime."""
    faults: list[str] = []
    for path in sorted((package / "core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in {"now", "utcnow", "today"}
                and isinstance(node.value, ast.Name | ast.Attribute)
            ):
                holder = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if holder in {"datetime", "date"}:
                    faults.append(
                        f"{path.relative_to(package.parent)}:{node.lineno}: core has no clock: take `now` as an argument"
                    )
    return faults


def sql_faults(package: Path) -> list[str]:
    """Who imports a database outside store/."""
    return [
        f"{where}: only store/ talks SQL: ask it through its methods"
        for importer, where, imported in imports_of(package)
        if imported.split(".")[0] in SQL_MODULES and not _inside(importer, SQL_HOMES)
    ]


RULES = [direction_faults, purity_faults, clock_faults, sql_faults]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_layers(rule: Callable[[Path], list[str]]) -> None:
    faults = rule(PACKAGE)
    assert not faults, "\n" + "\n".join(faults)


BREAKAGES = {
    "up": (direction_faults, "store/disk.py", "from edgegw.bus import Bus"),
    "up, inside a function": (direction_faults, "bus.py", "def f():\n    from edgegw import gateway"),
    "neighbour": (direction_faults, "api/routes.py", "import edgegw.mqtt.listener"),
    "neighbour by the part of a module": (direction_faults, "notify.py", "from edgegw.services_tasks import Task"),
    "slots and the store": (direction_faults, "ota/slots.py", "from edgegw.store import journal"),
    "no place": (direction_faults, "attic.py", "from edgegw import errors"),
    "no place below": (direction_faults, "bus.py", "from edgegw.attic import junk"),
    "the package itself": (direction_faults, "__init__.py", "from edgegw.config import Config"),
    "core reads files": (purity_faults, "core/topic.py", "from pathlib import Path"),
    "core opens a URL": (purity_faults, "core/topic.py", "import urllib.request"),
    "core takes a library": (purity_faults, "core/topic.py", "from aiohttp import web"),
    "core reads the clock": (clock_faults, "core/topic.py", "def f():\n    return datetime.datetime.now()"),
    "SQL in the bus": (sql_faults, "bus.py", "import sqlite3"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_seen(name: str, tmp_path: Path) -> None:
    rule, place, source = BREAKAGES[name]
    path = tmp_path / "edgegw" / place
    path.parent.mkdir(parents=True)
    path.write_text(source)
    for folder in ("mqtt", "store"):
        (tmp_path / "edgegw" / folder).mkdir(exist_ok=True)
    for module in ("gateway.py", "errors.py", "mqtt/listener.py", "store/journal.py"):
        (tmp_path / "edgegw" / module).write_text("")
    assert rule(tmp_path / "edgegw")


def test_what_is_allowed_passes(tmp_path: Path) -> None:
    package = tmp_path / "edgegw"
    for place, source in {
        "errors.py": "",
        "__init__.py": "",
        "core/topic.py": "import msgpack, edgegw.errors\nfrom collections.abc import Iterator\nfrom urllib.parse import quote",
        "bus.py": "from edgegw import errors, __version__\nfrom edgegw.bus_window import Window",
        "bus_window.py": "from edgegw.core.topic import matches",
        "store/disk.py": "import sqlite3",
        "gateway.py": "from edgegw.ota.slots import Slots",
        "ota/slots.py": "from edgegw.core import topic",
    }.items():
        (package / place).parent.mkdir(parents=True, exist_ok=True)
        (package / place).write_text(source)
    assert [fault for rule in RULES for fault in rule(package)] == []

"""What `edgegw check` finds: one line each, good or bad."""

from typing import Literal, NamedTuple

Status = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One thing looked at: its name, how it is, what was seen, and what to do about it."""

    name: str
    status: Status
    what: str
    hint: str = ""


def ok(name: str, what: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", what)


def warn(name: str, what: str, hint: str) -> Finding:
    """The gateway works, and somebody should know."""
    return Finding(name, "warn", what, hint)


def fail(name: str, what: str, hint: str) -> Finding:
    """The gateway does not work, or breaks a promise."""
    return Finding(name, "fail", what, hint)


def size_text(size_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"

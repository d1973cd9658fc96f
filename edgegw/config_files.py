"""Whether the files behind a configuration changed: a look at each, to be compared with another look.

A look is what stat(2) says: a file that is replaced has another inode, one that is written to another time or size. Links are
followed, so that an exchanged target is a change.
"""

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from stat import S_ISREG

from edgegw.config import Config
from edgegw.config_source import dropped_in

# By path: times of change in ns, size, inode; empty for what is no file, or not there.
Look = dict[str, tuple[int, ...]]


def look_at(file: Path) -> Look:
    """The main file and what stands in `conf.d` beside it."""
    try:
        dropped = dropped_in(file.parent / "conf.d")
    except OSError:  # not there, or not to be read: what is wrong with it is told when it is read
        dropped = []
    return {str(path): _look(path) for path in (file, *dropped)}


def look_at_named(config: Config) -> Look:
    """The files that the configuration names: certificates, keys, secrets."""
    return {str(path): _look(path) for path in _paths(config)}


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _paths(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _paths(getattr(value, field.name))


def _look(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    # Folders change with what is put into them, and sockets are not read.
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino) if S_ISREG(found.st_mode) else ()

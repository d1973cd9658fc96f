"""Where settings come from: TOML files, the environment, the command line; merged, each value with its origin.

Later wins: the main file, `conf.d/*.toml` beside it in name order, `EDGEGW_<SECTION>__<KEY>`, the command line.
Tables merge by key, `[[stream]]` by its name. Here only the names of keys and the form of tables are judged, by `known`;
what a value may be is `config.py`'s. Whatever is wrong becomes a Fault, and reading goes on, so that all are told at once.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from edgegw.config_values import shown
from edgegw.errors import Fault, printable
from edgegw.limits import CONFIG_FILE_BYTES_MAX, CONFIG_FILES_MAX

DEFAULT_FILE: Final = Path("/etc/edgegw/edgegw.toml")
ENV_PREFIX: Final = "EDGEGW_"
ENVIRONMENT: Final = "environment"
COMMAND_LINE: Final = "command line"

# Sections that may stand several times, each with a name.
LISTS: Final = ("stream", "link")

KeyPath = tuple[str | int, ...]
Known = Mapping[str, Collection[str]]


class Origin(NamedTuple):
    """Where a value was given, and under which key; `line` is None where there is none or it was not found."""

    file: str
    line: int | None
    key: str

    def fault(self, what: str) -> Fault:
        """What is wrong with the value given here."""
        return Fault(self.file, self.line, self.key, what)

    def __str__(self) -> str:
        if self.file in (ENVIRONMENT, COMMAND_LINE):
            return printable(f"{self.file}: {self.key}")
        return printable(self.file if self.line is None else f"{self.file}:{self.line}")


class Given(NamedTuple):
    """A value as it was given; `is_text` when it is the text of a variable or an option instead of a TOML value."""

    value: object
    origin: Origin
    is_text: bool = False


class Sources:
    """Everything that was given, merged; `lists` has the named tables of LISTS, in the order in which they first appeared."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.sections: dict[str, dict[str, Given]] = {section: {} for section in known if section not in LISTS}
        self.lists: dict[str, dict[str, dict[str, Given]]] = {section: {} for section in known if section in LISTS}
        self.heads: dict[tuple[str, str], Origin] = {}  # where each named table begins first
        self.faults: list[Fault] = []
        self.files: list[str] = []
        self.tried: list[str] = []
        self.is_complete = True  # False when a file could not be read: then nothing can be called missing

    def sort_faults(self) -> None:
        """Bring the faults into the order in which somebody would go through the places and mend them."""
        places = {place: i for i, place in enumerate([*self.tried, ENVIRONMENT, COMMAND_LINE])}
        self.faults.sort(key=lambda fault: (places[fault.file], fault.line or 0))


def collect(file: Path, environ: Mapping[str, str], overrides: Mapping[str, str], *, must_exist: bool, known: Known) -> Sources:
    """Read and merge everything; `overrides` has `section.key` → text from the command line."""
    sources = Sources(known)
    _add_file(file, sources, must_exist=must_exist)
    for path in _dropped_in(file.parent / "conf.d", sources):
        _add_file(path, sources)
    _add_environment(environ, sources)
    for key, text in overrides.items():
        section, _, name = key.partition(".")
        sources.sections[section][name] = Given(text, Origin(COMMAND_LINE, None, key), is_text=True)
    return sources


def environment_name(section: str, key: str) -> str:
    """The variable that sets a key."""
    return f"{ENV_PREFIX}{section.upper()}__{key.upper()}"


def did_you_mean(name: str, names: Collection[str], *, prefix: str = "") -> str:
    """A hint for a name that is not known: the nearest one, else all; a `prefix` of them all does not make them near."""
    import difflib  # only where something is wrong

    nearest = difflib.get_close_matches(name.removeprefix(prefix), [known.removeprefix(prefix) for known in names], n=1)
    return f'did you mean "{prefix}{nearest[0]}"?' if nearest else f"known: {', '.join(sorted(names))}"


# --- files --------------------------------------------------------------------------------------


def dropped_in(folder: Path) -> list[Path]:
    """The configuration files of a folder, in their order. Raises OSError."""
    # Hidden ones are what editors leave behind.
    return sorted(path for path in folder.iterdir() if path.suffix == ".toml" and not path.name.startswith("."))


def _dropped_in(folder: Path, sources: Sources) -> list[Path]:
    sources.tried.append(str(folder))
    try:
        found = dropped_in(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        # Where the folder around it is no folder either, the fault of the main file says so.
        if not isinstance(error, NotADirectoryError) or folder.exists():
            _unreadable(folder, f"cannot be read: {error.strerror or error}", sources)
        return []
    if len(found) > CONFIG_FILES_MAX:
        _unreadable(folder, f"has {len(found)} files, more than {CONFIG_FILES_MAX}", sources)
    for pipe in [path for path in found if path.is_fifo()]:  # reading would wait for a writer, and a reload for ever
        _unreadable(pipe, "is a pipe, and no file", sources)
        found.remove(pipe)
    return found[:CONFIG_FILES_MAX]


def _add_file(path: Path, sources: Sources, *, must_exist: bool = True) -> None:
    sources.tried.append(str(path))
    text = _read(path, sources, must_exist=must_exist)
    if text is None:
        return
    import tomllib  # a gateway without files starts without it

    file = str(path)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        _unreadable(path, "is not valid TOML: nested too deep", sources)
        return
    except ValueError as error:
        sources.faults.append(_syntax_fault(file, text, str(error)))
        sources.is_complete = False
        return
    sources.files.append(file)
    _merge(document, file, line_index(text), sources)


def _read(path: Path, sources: Sources, *, must_exist: bool) -> str | None:
    try:
        with path.open("rb") as stream:
            # One byte more tells too large from just right, and a device without end from a file.
            data = stream.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        if must_exist or not isinstance(error, FileNotFoundError):
            _unreadable(path, f"cannot be read: {error.strerror or error}", sources)
        return None
    if len(data) > CONFIG_FILE_BYTES_MAX:
        _unreadable(path, f"has more than {CONFIG_FILE_BYTES_MAX} bytes; is this a configuration?", sources)
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _unreadable(path, "is not valid UTF-8", sources, line=data.count(b"\n", 0, error.start) + 1)
        return None


def _unreadable(path: Path, what: str, sources: Sources, *, line: int | None = None) -> None:
    sources.faults.append(Fault(str(path), line, "", what))
    sources.is_complete = False


def _syntax_fault(file: str, text: str, message: str) -> Fault:
    """The fault in tomllib's words, which end in `(at line 3, column 5)` or `(at end of document)`."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    what = match[1] if match else message
    if match is None:  # an integer that Python does not take: it names no place
        return Fault(file, None, "", f"is not valid TOML: {what}")
    if match[2] is None:
        return Fault(file, text.count("\n") + (not text.endswith("\n")), "", f"is not valid TOML: {what} at the end of the file")
    return Fault(file, int(match[2]), "", f"is not valid TOML: {what} at column {match[3]}")


# --- merging ------------------------------------------------------------------------------------


def _merge(document: dict[str, object], file: str, lines: Mapping[KeyPath, int], sources: Sources) -> None:
    for section, table in document.items():
        origin = Origin(file, locate(lines, (section,)), section)
        if section not in sources.known:
            sources.faults.append(origin.fault(_unknown_section(section, sources.known)))
        elif section in LISTS:
            _merge_list(section, table, origin, lines, sources)
        elif not isinstance(table, dict):
            sources.faults.append(origin.fault(f"must be a table, [{section}], is {shown(table)}"))
        else:
            into = sources.sections[section]
            for key, value in table.items():
                place = Origin(file, locate(lines, (section, key)), f"{section}.{key}")
                _put(into, key, Given(value, place), sources.known[section], sources)


def _merge_list(section: str, tables: object, origin: Origin, lines: Mapping[KeyPath, int], sources: Sources) -> None:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        sources.faults.append(origin.fault(f"must be a list of tables, each headed [[{section}]]"))
        return
    seen: dict[str, int | None] = {}
    for i, table in enumerate(tables):
        name = table.get("name")
        is_named = isinstance(name, str)
        # Without a name it is one of its own, so that the rest of it is judged too.
        entry = name if is_named else f"#{i + 1} in {origin.file}"
        head = Origin(origin.file, locate(lines, (section, i)), f"{section}[{name if is_named else f'#{i + 1}'}]")
        if name is None:
            sources.faults.append(head.fault("has no name"))
        elif entry in seen:
            before = "" if seen[entry] is None else f" on line {seen[entry]}"
            sources.faults.append(head.fault(f"stands in this file already{before}; write its settings in one place"))
        seen.setdefault(entry, head.line)
        sources.heads.setdefault((section, entry), head)
        into = sources.lists[section].setdefault(entry, {})
        for key, value in table.items():
            place = Origin(origin.file, locate(lines, (section, i, key)), f"{head.key}.{key}")
            _put(into, key, Given(value, place), sources.known[section], sources)


def _put(into: dict[str, Given], key: str, given: Given, known: Collection[str], sources: Sources) -> None:
    if key in known:
        into[key] = given
    else:
        sources.faults.append(given.origin.fault(f"unknown key ({did_you_mean(key, known)})"))


def _unknown_section(name: str, known: Known) -> str:
    homes = [section for section, keys in known.items() if name in keys]
    if homes:
        return f"unknown section (a key {name} belongs under {' or '.join(f'[{home}]' for home in homes)})"
    return f"unknown section ({did_you_mean(name, known)})"


# --- environment --------------------------------------------------------------------------------


def _add_environment(environ: Mapping[str, str], sources: Sources) -> None:
    places = {environment_name(section, key): (section, key) for section in sources.sections for key in sources.known[section]}
    # Silence about one missing underscore would cost somebody an evening.
    misspelt = {name.replace("__", "_"): name for name in places}
    # Other names without `__` are for others: EDGEGW_URL, EDGEGW_TOKEN and EDGEGW_SOCKET for the client.
    for name in sorted(name for name in environ if name.startswith(ENV_PREFIX)):
        origin = Origin(ENVIRONMENT, None, name)
        if name in places:
            section, key = places[name]
            sources.sections[section][key] = Given(environ[name], origin, is_text=True)
        elif (section := name.removeprefix(ENV_PREFIX).partition("__")[0].lower()) in LISTS and "__" in name:
            sources.faults.append(origin.fault(f"{section}s are set in files only, by [[{section}]]"))
        elif name in misspelt:
            sources.faults.append(origin.fault(f'unknown name (did you mean "{misspelt[name]}"?)'))
        elif "__" in name:
            sources.faults.append(origin.fault(f"unknown name ({did_you_mean(name, places, prefix=ENV_PREFIX)})"))


# --- lines --------------------------------------------------------------------------------------
# tomllib does not say where a value stood. This finds it by the look of the lines, which is right for how people write
# TOML; where it is not (a key inside an inline table), the line of what surrounds it is told, else none.

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_LINE = re.compile(
    rf"[ \t]*(?:\[\[[ \t]*(?P<array>{_KEY})[ \t]*\]\][ \t\r]*(?:\#|$)"
    rf"|\[[ \t]*(?P<table>{_KEY})[ \t]*\][ \t\r]*(?:\#|$)"
    rf"|(?P<key>{_KEY})[ \t]*=)"
)
_LONG_STRING = re.compile(r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'')


def line_index(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of each table and key of a valid TOML text; elements of an array of tables count from 0."""
    # Lines inside a string of several lines are no keys; the line breaks stay, for the count.
    text = _LONG_STRING.sub(lambda match: '""' + "\n" * match[0].count("\n"), text)
    index: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}  # elements so far of each array of tables
    table: KeyPath = ()
    for number, line in enumerate(text.split("\n"), start=1):
        match = _LINE.match(line)
        if match is None:
            continue
        parts = _parts(match["array"] or match["table"] or match["key"])
        if match["array"]:
            array = (*_resolve((), parts[:-1], counts), parts[-1])
            table = (*array, counts.get(array, 0))
            counts[array] = counts.get(array, 0) + 1
            index.setdefault(array, number)
            index[table] = number
        elif match["table"]:
            table = _resolve((), parts, counts)
            index.setdefault(table, number)
        else:
            path = _resolve(table, parts, counts)
            for end in range(len(table) + 1, len(path) + 1):
                index.setdefault(path[:end], number)
    return index


def locate(index: Mapping[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, or of the nearest thing around it."""
    while path and path not in index:
        path = path[:-1]
    return index.get(path)


def _parts(key: str) -> list[str]:
    if '"' not in key and "'" not in key:
        return [part.strip() for part in key.split(".")]
    import tomllib  # it knows the quotes and escapes best

    parts: list[str] = []
    try:
        inner: object = tomllib.loads(f"{key} = 0")
    except ValueError:
        return [key]  # looked like a key and was none
    while isinstance(inner, dict):
        part, inner = next(iter(inner.items()))
        parts.append(part)
    return parts


def _resolve(table: KeyPath, parts: list[str], counts: Mapping[KeyPath, int]) -> KeyPath:
    """The path of `parts` seen from `table`; a name of an array of tables means its latest element."""
    path = table
    for part in parts:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    return path

"""How a log entry reads: one JSON object on one line, or a line for a terminal.

Whatever comes in, what goes out is bounded and whole. A value that JSON does not have becomes its text; a long, deep or
endless one is cut; control characters, surrogates and what turns a terminal around are escaped. The line never exceeds
LOG_LINE_BYTES_MAX: fields beyond their room are left out, then the error gives way (its causes, its trace, the rest of its
text), and `cut` counts what is missing.
"""

from collections import deque
from collections.abc import Callable, Mapping
from errno import errorcode
from itertools import islice
from json import JSONEncoder
from math import isfinite
from time import gmtime, strftime
from typing import Final, NamedTuple

from edgegw.errors import Busy, ConfigError, GatewayError, PeerError, RequestError, StoreError
from edgegw.limits import (
    LOG_CAUSES_MAX,
    LOG_DEPTH_MAX,
    LOG_ENTRIES_MAX,
    LOG_FRAMES_MAX,
    LOG_LINE_BYTES_MAX,
    LOG_NAME_CHARS_MAX,
    LOG_VALUE_CHARS_MAX,
)

# Who must act on an error; the first row that fits counts, and what fits none is a bug of ours.
CATEGORIES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ConfigError, "operator"),
    (StoreError, "disk"),
    (Busy, "disk"),
    (PeerError, "peer"),
    (RequestError, "caller"),
    (GatewayError, "bug"),
    (ConnectionError, "peer"),
    (TimeoutError, "peer"),
    (PermissionError, "operator"),
    (OSError, "disk"),
)

# Names that a line has itself; a field of that name gets an underscore behind it.
_RESERVED: Final = frozenset({"time", "level", "logger", "event", "request_id", "error", "cut"})
_COLORS: Final = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
# Room for the closing `,"cut":…}` and the newline.
_TAIL_BYTES: Final = 24
# An error's text when all of it, escaped, does not fit.
_BRIEF_CHARS: Final = 64

_to_json: Final[Callable[[object], str]] = JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]


class Entry(NamedTuple):
    """What there is to say; `time_s` since 1970, `has_trace` when the place in the source matters."""

    time_s: float
    level: str
    logger: str
    event: str
    request_id: str
    fields: Mapping[str, object]
    error: BaseException | None
    has_trace: bool


class Fault(NamedTuple):
    """An error as a line shows it."""

    code: str
    kind: str
    category: str
    text: Plain
    hint: Plain
    trace: list[str]
    cause: "Fault | None"


def json_line(entry: Entry) -> str:
    """The entry as a JSON object in ASCII, with its newline."""
    line = "".join(
        (
            f'{{"time":"{_rfc3339(entry.time_s)}","level":{_to_json(entry.level)}',
            f',"logger":{_to_json(_cut(entry.logger, LOG_NAME_CHARS_MAX))}',
            f',"event":{_to_json(_cut(entry.event, LOG_NAME_CHARS_MAX))}',
            f',"request_id":{_to_json(_cut(entry.request_id, LOG_NAME_CHARS_MAX))}' if entry.request_id else "",
        )
    )
    room_bytes = LOG_LINE_BYTES_MAX - _TAIL_BYTES - len(line)
    # An error gets at least half, and what the fields leave.
    fields_bytes = room_bytes // 2 if entry.error else room_bytes
    missing = 0
    for name, value in entry.fields.items():
        part = f",{_to_json(_field_name(name))}:{_to_json(plain(value))}"
        if len(part) > fields_bytes:
            missing += 1
            continue
        line += part
        room_bytes -= len(part)
        fields_bytes -= len(part)
    if entry.error:
        part = _error_json(entry.error, entry.has_trace, room_bytes)
        line += part
        missing += not part
    return f'{line},"cut":{missing}}}\n' if missing else f"{line}}}\n"


def text_line(entry: Entry, *, has_color: bool = False) -> str:
    """The entry for a person: `time level event  name=value …`, below it the error and where it came from."""
    color = _COLORS.get(entry.level, "") if has_color else ""
    level = f"{color}{entry.level:<7}\x1b[0m" if color else f"{entry.level:<7}"
    words = [f"{_escaped(_field_name(name))}={_shown(plain(value))}" for name, value in entry.fields.items()]
    if entry.request_id:
        words.append(f"request_id={_shown(_cut(entry.request_id, LOG_NAME_CHARS_MAX))}")
    event = _escaped(_cut(entry.event, LOG_NAME_CHARS_MAX))
    line = f"{_rfc3339(entry.time_s)[11:]} {level} {event:<24} {' '.join(words)}".rstrip()
    if entry.error:
        line += _error_text(_fault(entry.error, entry.has_trace, LOG_CAUSES_MAX), "    ")
    encoded = line.encode()
    if len(encoded) >= LOG_LINE_BYTES_MAX:
        line = encoded[: LOG_LINE_BYTES_MAX - 4].decode("utf-8", "ignore") + "…"
    return line + "\n"


def category(error: BaseException) -> str:
    """Who must act: operator, disk, peer, caller, or bug (ourselves)."""
    return next((name for kind, name in CATEGORIES if isinstance(error, kind)), "bug")


def plain(value: object, depth: int = LOG_DEPTH_MAX) -> Plain:
    """The value as something bounded that JSON has."""
    try:
        return _plain(value, depth)
    except Exception:
        # Its own code failed on the way to a text: the line goes out without it.
        return f"<unprintable {type(value).__name__}>"


def _plain(value: object, depth: int) -> Plain:
    match value:
        case None | bool():
            return value
        case str():
            return _cut(value)
        case int():
            return int(value) if value.bit_length() <= 64 else f"<int of {value.bit_length()} bits>"
        case float():
            return float(value) if isfinite(value) else str(float(value))
        case bytes() | bytearray():
            return _cut(value[: LOG_VALUE_CHARS_MAX + 1].decode("utf-8", "backslashreplace"))
        case dict() | list() | tuple() | set() | frozenset() if depth == 0:
            return "…"
        case dict():
            first = islice(value.items(), LOG_ENTRIES_MAX)
            shown = {_cut(str(name), LOG_NAME_CHARS_MAX): plain(part, depth - 1) for name, part in first}
            return {**shown, "…": len(value) - len(shown)} if len(value) > len(shown) else shown
        case list() | tuple() | set() | frozenset():
            listed = [plain(part, depth - 1) for part in islice(value, LOG_ENTRIES_MAX)]
            return [*listed, f"…+{len(value) - len(listed)}"] if len(value) > len(listed) else listed
    return _cut(str(value))


def _cut(text: str, chars: int = LOG_VALUE_CHARS_MAX) -> str:
    """The text, cut, with half characters (surrogates) written out: strict readers of JSON refuse them."""
    if len(text) > chars:
        text = f"{text[:chars]}…+{len(text) - chars}"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _field_name(name: str) -> str:
    return f"{name}_" if name in _RESERVED else _cut(name, LOG_NAME_CHARS_MAX)


def _rfc3339(time_s: float) -> str:
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(time_s))}.{int(time_s * 1000) % 1000:03d}Z"


# --- errors --------------------------------------------------------------------------------------


def _fault(error: BaseException, has_trace: bool, causes: int, chars: int = LOG_VALUE_CHARS_MAX) -> Fault:
    code, text, hint = "unexpected", plain(error), plain("")
    if isinstance(error, GatewayError):
        code, text, hint = error.code, plain(error.what), plain(error.hint)
    elif isinstance(error, OSError) and error.errno is not None:
        code = errorcode.get(error.errno, code)
    cause = _cause(error) if causes else None
    return Fault(
        _cut(code, LOG_NAME_CHARS_MAX),
        _cut(type(error).__name__, LOG_NAME_CHARS_MAX),
        category(error),
        _cut(str(text), chars),
        _cut(str(hint), chars),
        _trace(error) if has_trace else [],
        None if cause is None else _fault(cause, has_trace, causes - 1, chars),
    )


def _cause(error: BaseException) -> BaseException | None:
    """What the error came from; of a group, its first."""
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _trace(error: BaseException) -> list[str]:
    """`file:line function` of the innermost frames, the fault last. No source lines: reading them costs disk and memory."""
    frames: deque[str] = deque(maxlen=LOG_FRAMES_MAX)
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        file = "/".join(code.co_filename.rsplit("/", 3)[-3:])
        frames.append(_cut(f"{file}:{step.tb_lineno} {code.co_name}"))
        step = step.tb_next
    return list(frames)


def _error_json(error: BaseException, has_trace: bool, room_bytes: int) -> str:
    """As much of the error as fits."""
    for causes, is_traced, chars in (
        (LOG_CAUSES_MAX, has_trace, LOG_VALUE_CHARS_MAX),
        (0, has_trace, LOG_VALUE_CHARS_MAX),
        (0, False, LOG_VALUE_CHARS_MAX),
        (0, False, _BRIEF_CHARS),
    ):
        part = f',"error":{_to_json(_fault_fields(_fault(error, is_traced, causes, chars)))}'
        if len(part) <= room_bytes:
            return part
    return ""


def _fault_fields(fault: Fault) -> dict[str, Plain]:
    fields: dict[str, Plain] = {
        "code": fault.code,
        "class": fault.kind,
        "category": fault.category,
        "text": fault.text,
    }
    if fault.hint:
        fields["hint"] = fault.hint
    if fault.trace:
        fields["trace"] = [*fault.trace]
    if fault.cause:
        fields["cause"] = _fault_fields(fault.cause)
    return fields


# --- text ----------------------------------------------------------------------------------------


def _error_text(fault: Fault, indent: str) -> str:
    hint = f" ({fault.hint})" if fault.hint else ""
    lines = [f"{fault.kind} {fault.code} [{fault.category}]: {fault.text}{hint}", *(f"  at {frame}" for frame in fault.trace)]
    text = "".join(f"\n{indent}{_escaped(line)}" for line in lines)
    return f"{text}\n{indent}caused by{_error_text(fault.cause, indent + '  ')}" if fault.cause else text


def _shown(value: Plain) -> str:
    if not isinstance(value, str):
        return _to_json(value)
    text = _escaped(value)
    return text if text and not any(mark in text for mark in ' "=') else '"' + text.replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    """The text without what moves, colors or turns around a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

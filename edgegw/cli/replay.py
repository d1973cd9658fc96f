"""A recording (CSV or NDJSON) becomes readings: rows of text in, topics and JSON out. No I/O beyond an iterator of lines.

Bad rows are values, not exceptions, so that the caller may count them and go on. Numbers keep the digits they were written with:
`9,00` is sent as `9.00`. A reading is named by its line and column, which makes its key the same in every attempt to send it.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from itertools import chain
from json.encoder import encode_basestring as _quoted
from typing import Literal, NamedTuple

from edgegw.cli.recorded_time import RecordedTime, find_form, obvious_form, rfc3339
from edgegw.errors import RequestError
from edgegw.limits import KEY_BYTES_MAX, RECORD_LINE_CHARS_MAX, SNIFF_CHARS_MAX, SNIFF_ROWS_MAX

COLUMN = "column"
_PLACE = re.compile(r"\{([^{}]+)\}")
_NOT_IN_A_LEVEL = re.compile(r"[/+#\0]")
_DELIMITERS = ";\t,|"
_WITH_COMMA = re.compile(r"[+-]?\d+,\d+")
_WITH_POINT = re.compile(r"[+-]?\d*\.\d+")


class Reading(NamedTuple):
    """One value; `column` is empty when the whole row is the payload, `payload` is JSON text."""

    column: str
    topic: str
    payload: str


class Row(NamedTuple):
    """What was recorded at one instant (UTC); `line` counts from 1."""

    line: int
    time: datetime
    readings: list[Reading]


class BadRow(NamedTuple):
    """A row that cannot be sent, and why."""

    line: int
    why: str


class Number(str):
    """A JSON number, as its digits."""

    __slots__ = ()


class TopicTemplate:
    """A topic with `{column}` and `{field}` places. Raises ValueError when its braces do not pair."""

    def __init__(self, text: str) -> None:
        self.text = text
        pieces = _PLACE.split(text)
        self._literals, self._names = pieces[::2], pieces[1::2]
        if any("{" in literal or "}" in literal for literal in self._literals):
            raise ValueError(f"the braces of {text!r} do not pair; write {{column}} or {{name of a field}}")
        self.per_column = COLUMN in self._names
        self.fields = tuple(name for name in self._names if name != COLUMN)

    def fill(self, column: str, fields: Mapping[str, str]) -> str:
        """The topic; what separates or matches levels is replaced by `_`."""
        pieces = [self._literals[0]]
        for name, literal in zip(self._names, self._literals[1:], strict=True):
            pieces += (_NOT_IN_A_LEVEL.sub("_", column if name == COLUMN else fields[name]), literal)
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Recording:
    """How a recording is to be read; None = to be found by `complete`."""

    name: str
    kind: Literal["csv", "ndjson"]
    topic: TopicTemplate
    time_columns: tuple[str, ...]
    time_form: str | None = None
    zone: tzinfo = UTC
    delimiter: str | None = None
    decimal: str | None = None
    missing: tuple[str, ...] = ()
    start_line: int = 1


class _Record(NamedTuple):
    line: int
    fields: dict[str, object]


class _Lines:
    """Counts lines and refuses bad ones (ValueError). No generator: a csv.reader goes on with it after a refusal."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.count = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.count += 1
        if len(line) > RECORD_LINE_CHARS_MAX:
            raise ValueError(f"longer than {RECORD_LINE_CHARS_MAX} characters")
        _check_text(line)
        return line


class _Missing:
    """The values that stand for none, as text or as a number (`-200` is also `-200,0`)."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts)
        numbers = (_decimal(text.replace(",", ".")) for text in self._texts)
        self._numbers = frozenset(number for number in numbers if number is not None)

    def holds(self, text: str, payload: str) -> bool:
        """Whether a value with this text and this JSON is none."""
        if text in self._texts:
            return True
        return bool(self._numbers) and payload[0] in "-0123456789" and _decimal(payload) in self._numbers


def complete(recording: Recording, lines: Iterator[str]) -> tuple[Recording, Iterator[str]]:
    """Find what `recording` leaves open in the first lines; also returns all lines again. Raises RequestError."""
    if recording.kind == "ndjson":
        return _complete_ndjson(recording, lines)
    head = _take(lines, SNIFF_ROWS_MAX)
    delimiter = recording.delimiter or _find_delimiter(recording.name, head)
    rows = list(_head_rows(head, delimiter))
    names, samples = _header(recording, rows[0] if rows else []), rows[1:]
    decimal = recording.decimal or _find_decimal([cell for row in samples for cell in _other_cells(recording, names, row)])
    form = recording.time_form
    if form is None:
        places = [names.index(column) for column in recording.time_columns]
        texts = [" ".join(row[place].strip() for place in places) for row in samples if len(row) > max(places)]
        form = _find_form(recording, [text for text in texts if text.strip()])
    return replace(recording, delimiter=delimiter, decimal=decimal, time_form=form), chain(head, lines)


def read(recording: Recording, lines: Iterable[str]) -> Iterator[Row | BadRow]:
    """The rows of a complete recording, from `start_line` on. Raises RequestError when its header does not fit."""
    records = _csv_records(recording, lines) if recording.kind == "csv" else _json_records(lines)
    times = RecordedTime(recording.time_form or "iso", recording.zone)
    missing = _Missing(recording.missing)
    payload_of = _cell_reader(recording.decimal or ".") if recording.kind == "csv" else _json_text
    for record in records:
        if record.line < recording.start_line:
            continue
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield _row(recording, record, times, missing, payload_of)
        except (ValueError, RecursionError) as error:
            yield BadRow(record.line, str(error))


def key(run_id: str, line: int, column: str) -> str:
    """The key of a reading: `run/line/column`; a column name that is too long or not printable is replaced by its digest."""
    text = f"{run_id}/{line}/{column}" if column else f"{run_id}/{line}"
    if text.isprintable() and len(text.encode()) <= KEY_BYTES_MAX:
        return text
    return f"{run_id}/{line}/#{blake2b(column.encode(), digest_size=16).hexdigest()}"


def entry(run_id: str, row: Row, reading: Reading) -> bytes:
    """One entry of a batch, as the gateway takes it."""
    topic, name = _quoted(reading.topic), _quoted(key(run_id, row.line, reading.column))
    return f'{{"topic":{topic},"payload":{reading.payload},"key":{name},"time":"{rfc3339(row.time)}"}}'.encode()


def _row(
    recording: Recording, record: _Record, times: RecordedTime, missing: _Missing, payload_of: Callable[[object], str]
) -> Row:
    fields, template = record.fields, recording.topic
    time_text = " ".join(_plain(fields, column) for column in recording.time_columns)
    try:
        time = times.read(time_text)
    except ValueError:
        raise ValueError(f"the time {time_text!r} is not of the form {times.form!r}") from None
    levels = {name: _plain(fields, name) for name in template.fields}
    payloads: dict[str, str] = {}
    for name, value in fields.items():
        payload = payload_of(value)
        if not missing.holds(_plain_or_json(value, payload), payload):
            payloads[name] = payload
    if template.per_column:
        for name in (*recording.time_columns, *template.fields):
            payloads.pop(name, None)
        readings = [Reading(name, template.fill(name, levels), payload) for name, payload in payloads.items()]
    else:
        whole = "{" + ",".join(f"{_quoted(name)}:{payload}" for name, payload in payloads.items()) + "}"
        readings = [Reading("", template.fill("", levels), whole)]
    for reading in readings:
        _check_text(reading.topic, reading.payload)
    return Row(record.line, time, readings)


def _csv_records(recording: Recording, lines: Iterable[str]) -> Iterator[_Record | BadRow]:
    numbered = _Lines(lines)
    reader = csv.reader(numbered, delimiter=recording.delimiter or ",", strict=True)
    names: list[str] | None = None
    while True:
        line = numbered.count + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except (csv.Error, ValueError) as error:
            if names is None:
                raise RequestError("bad_recording", f"{recording.name}:{line}: {error}") from None
            yield BadRow(line, str(error))
            continue
        if names is None:
            names = _header(recording, cells)
        elif not any(map(str.strip, cells)):
            continue
        elif len(cells) < len(names) or any(map(str.strip, cells[len(names) :])):
            yield BadRow(line, f"{len(cells)} cells under {len(names)} column names")
        else:
            named = zip(names, map(str.strip, cells), strict=False)
            yield _Record(line, {name: cell for name, cell in named if name and cell})
    if names is None:
        _header(recording, [])


def _json_records(lines: Iterable[str]) -> Iterator[_Record | BadRow]:
    numbered = _Lines(lines)
    while True:
        try:
            text = next(numbered)
            if not text.strip():
                continue
            fields = _parsed(text)
        except StopIteration:
            return
        except (ValueError, RecursionError) as error:
            yield BadRow(numbered.count, str(error))
            continue
        yield _Record(numbered.count, fields)


def _parsed(text: str) -> dict[str, object]:
    try:
        value = json.loads(text, parse_float=Number, parse_int=Number, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _header(recording: Recording, cells: Sequence[str]) -> list[str]:
    names = [cell.strip().lstrip("\ufeff") for cell in cells]
    while names and not names[-1]:
        names.pop()
    where = f"{recording.name}:1"
    if not names:
        raise RequestError("bad_recording", f"{where}: no column names", "the first line of a CSV file names its columns")
    for name in names:
        if name and names.count(name) > 1:
            raise RequestError("bad_recording", f"{where}: two columns are named {name!r}", "rename one of them")
    for name in (*recording.time_columns, *recording.topic.fields):
        if name not in names:
            shown = ", ".join(filter(None, names))
            raise RequestError("no_such_column", f"{where}: no column is named {name!r}", f"there are: {shown}")
    return names


def _complete_ndjson(recording: Recording, lines: Iterator[str]) -> tuple[Recording, Iterator[str]]:
    form = recording.time_form
    head: list[str] = []
    if form is None:
        # One row is enough as a rule, and whoever follows a pipe should not wait for five hundred.
        head = _take(lines, 1)
        form = next(filter(None, map(obvious_form, _json_times(recording, head))), None)
    if form is None:
        head += _take(lines, SNIFF_ROWS_MAX)
        form = _find_form(recording, _json_times(recording, head))
    return replace(recording, time_form=form), chain(head, lines)


def _json_times(recording: Recording, head: Sequence[str]) -> list[str]:
    columns = recording.time_columns
    records = (record for record in _json_records(head) if isinstance(record, _Record))
    return [
        " ".join(str(record.fields[name]).strip() for name in columns)
        for record in records
        if all(name in record.fields for name in columns)
    ]


def _find_form(recording: Recording, times: Sequence[str]) -> str:
    if not times and recording.kind == "csv":
        return "iso"  # a header and no rows: nothing to send, and nothing wrong
    try:
        return find_form(times)
    except ValueError as error:
        hint = "say it with --time-format, as '%d/%m/%Y %H:%M:%S'"
        raise RequestError("unknown_time_form", f"{recording.name}: {error}", hint) from None


def _find_delimiter(name: str, head: Sequence[str]) -> str:
    best, best_score = "", (0, 1)
    for delimiter in _DELIMITERS:
        rows = list(_head_rows(head, delimiter))
        width = len(rows[0]) if rows else 0
        score = (sum(len(row) == width for row in rows), width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    if not best:
        raise RequestError("bad_recording", f"{name}:1: one column only", "say with --delimiter what separates them")
    return best


def _head_rows(head: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader(head, delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            continue  # `read` will name the line
        if row:
            yield row


def _find_decimal(cells: Sequence[str]) -> str:
    commas = sum(_WITH_COMMA.fullmatch(cell) is not None for cell in cells)
    return "," if commas > sum(_WITH_POINT.fullmatch(cell) is not None for cell in cells) else "."


def _other_cells(recording: Recording, names: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    return (cell.strip() for name, cell in zip(names, row, strict=False) if name not in recording.time_columns)


def _take(lines: Iterator[str], count: int) -> list[str]:
    taken: list[str] = []
    chars = 0
    while len(taken) < count and chars < SNIFF_CHARS_MAX and (line := next(lines, None)) is not None:
        taken.append(line)
        chars += len(line)
    return taken


def _cell_reader(decimal: str) -> Callable[[object], str]:
    """JSON of a cell: a number where JSON can say it (`007` and `1.5e` are strings), else a string."""
    point = re.escape(decimal)
    number = re.compile(rf"([+-]?)(?:(0|[1-9]\d*)(?:{point}(\d+))?|{point}(\d+))([eE][+-]?\d+)?", re.ASCII)

    def payload(cell: object) -> str:
        text = str(cell)
        if (found := number.fullmatch(text)) is None:
            return _quoted(text)
        sign, whole, fraction, bare_fraction, exponent = found.groups()
        digits = f"{whole}.{fraction}" if fraction else whole or f"0.{bare_fraction}"
        return f"{'-' if sign == '-' else ''}{digits}{exponent or ''}"

    return payload


def _json_text(value: object) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{_quoted(name)}:{_json_text(inner)}" for name, inner in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_json_text(inner) for inner in value]) + "]"
    return _quoted(value) if isinstance(value, str) else _literal(value)


def _literal(value: object) -> str:
    return "null" if value is None else "true" if value is True else "false"


def _plain(fields: Mapping[str, object], name: str) -> str:
    """The text of a field that is part of the time or the topic. Raises ValueError."""
    value = fields.get(name)
    if value is None or value == "":
        raise ValueError(f"no value for {name!r}")
    if isinstance(value, dict | list):
        raise ValueError(f"{name!r} is not a plain value")
    return str(value) if isinstance(value, str) else _literal(value)


def _plain_or_json(value: object, payload: str) -> str:
    return value if isinstance(value, str) else payload


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _check_text(*texts: str) -> None:
    for text in texts:
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ValueError("not valid text in this encoding") from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"not JSON: {name} is no JSON number")

"""Messages and gaps of the API as lines of a terminal: one each, for people or as JSON."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from edgegw.errors import PeerError, printable

# In a row, line ends are white space between JSON tokens: inside strings they are escaped.
_ONE_LINE = {0x0A: " ", 0x0D: " "}
_TIME_CELLS = 24


def rows_of(body: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row of an array as its own text, on one line, and its value. Raises PeerError(bad_answer).

    The text is that of the answer: numbers keep the digits that they were published with.
    """
    try:
        text = body.decode()
        decode = json.JSONDecoder().raw_decode
        at = _behind(text, text.index("[") + 1, " \r\n")
        while text[at] != "]":
            value, end = decode(text, at)
            yield text[at:end].translate(_ONE_LINE), _row(value)
            at = _behind(text, end, ", \r\n")
    except (ValueError, IndexError, RecursionError):
        raise _bad_answer() from None


def _behind(text: str, at: int, skipped: str) -> int:
    while text[at] in skipped:
        at += 1
    return at


def row_of(text: str) -> Mapping[str, Any]:
    """The value of one row. Raises PeerError(bad_answer)."""
    try:
        return _row(json.loads(text))
    except (ValueError, RecursionError):
        raise _bad_answer() from None


def line_for_people(row: Mapping[str, Any], columns: int | None) -> str:
    """Time, topic and payload, cut to `columns` when there is an end to them."""
    gap = row.get("gap")
    if isinstance(gap, dict):
        of = f" of stream {gap['stream']}" if "stream" in gap else ""
        numbers = (
            f"message {gap.get('first')}" if gap.get("first") == gap.get("last") else f"{gap.get('first')} to {gap.get('last')}"
        )
        line = f"{'-':{_TIME_CELLS}}  gap: {gap.get('count')} gone{of}, {numbers} ({gap.get('reason')})"
    else:
        line = f"{row.get('time')!s:{_TIME_CELLS}}  {row.get('topic')}  {_payload(row)}"
    line = printable(line)
    return line if columns is None or len(line) <= columns else line[: columns - 1] + "…"


def terminal_columns() -> int | None:
    """How wide stdout is; None when it is no terminal, and lines need no end."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _payload(row: Mapping[str, Any]) -> str:
    if "payload" not in row:
        encoded = str(row.get("payload_b64", ""))
        return f"<{len(encoded) * 3 // 4 - encoded.count('=')} bytes of {row.get('content_type')}>"
    payload = row["payload"]
    return payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _row(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad_answer()
    return value


def _bad_answer() -> PeerError:
    return PeerError("bad_answer", "the answer has no messages in it", "is this the address of a gateway?")

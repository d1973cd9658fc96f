"""edgegw/cli/message_lines.py"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.cli.message_lines import line_for_people, row_of, rows_of
from edgegw.errors import PeerError

ROW = {"topic": "a", "time": "2026-01-02T03:04:05.000Z", "content_type": "text/plain"}


@given(
    st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), max_size=5), st.sampled_from([None, 1])
)
def test_rows_are_found_as_they_are_written(rows: list[dict[str, object]], indent: int | None) -> None:
    found = list(rows_of(json.dumps(rows, indent=indent).encode()))
    assert [row for _, row in found] == rows
    assert [json.loads(text) for text, _ in found] == rows
    assert all("\n" not in text for text, _ in found)


def test_numbers_keep_their_digits() -> None:
    assert [text for text, _ in rows_of(b'[{"payload":1.50},\n{"payload":1e2}]\n')] == ['{"payload":1.50}', '{"payload":1e2}']


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"[{},", b"[{}", b"\xff", b"[" * 100_000])
def test_what_is_no_list_of_rows(body: bytes) -> None:
    with pytest.raises(PeerError):
        list(rows_of(body))


def test_one_row() -> None:
    assert row_of('{"a": 1}') == {"a": 1}
    for text in ("", "[]", "[" * 100_000):
        with pytest.raises(PeerError):
            row_of(text)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({**ROW, "payload": "warm"}, "2026-01-02T03:04:05.000Z  a  warm"),
        ({**ROW, "payload": {"ü": [1, None]}}, '2026-01-02T03:04:05.000Z  a  {"ü":[1,null]}'),
        ({**ROW, "payload": "\x1b[31m\n"}, r"2026-01-02T03:04:05.000Z  a  \x1b[31m\n"),
        ({**ROW, "payload_b64": "AAE="}, "2026-01-02T03:04:05.000Z  a  <2 bytes of text/plain>"),
        ({"gap": {"first": 3, "last": 3, "count": 1, "reason": "ttl"}}, f"{'-':24}  gap: 1 gone, message 3 (ttl)"),
        (
            {"gap": {"stream": "s", "first": 3, "last": 9, "count": 5, "reason": "age"}},
            f"{'-':24}  gap: 5 gone of stream s, 3 to 9 (age)",
        ),
    ],
)
def test_for_people(row: dict[str, object], line: str) -> None:
    assert line_for_people(row, None) == line
    assert line_for_people(row, len(line)) == line
    assert line_for_people(row, 20) == line[:19] + "…"

"""Messages and gaps as rows."""

import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.api.rows import gap_row, row, rows_body
from edgegw.consumer import Delivered
from edgegw.core.record import JSON, OCTETS, Gap, Message, Origin

TIME_MS = 1_780_000_000_007


def shown(payload: bytes, content_type: str = OCTETS, **options: Any) -> Any:
    return json.loads(row(Message("default", 7, "a/b", TIME_MS, content_type, payload), **options))


def test_a_row() -> None:
    message = Message("default", 7, 'a/"ü"\n', TIME_MS, "text/plain", b"21.5", source_us=1)
    assert json.loads(row(message)) == {
        "stream": "default",
        "seq": 7,
        "topic": 'a/"ü"\n',
        "time": "2026-05-28T20:26:40.007Z",
        "source_time": "1970-01-01T00:00:00.000001Z",
        "content_type": "text/plain",
        "payload": "21.5",
    }


@pytest.mark.parametrize(
    ("payload", "content_type", "value"),
    [
        (b'{"t": 21.50}', JSON, {"t": 21.5}),
        (b" [1,\n2] ", "application/json; charset=utf-8", [1, 2]),
        (b"null", "application/senml+json", None),
        (b"21.5", "Application/JSON", 21.5),
        (str(2**70).encode(), JSON, 2**70),
        (b'"\\ud83d\\ude00"', JSON, "\U0001f600"),
        (b"NaN", JSON, "NaN"),
        (b"[1,Infinity]", JSON, "[1,Infinity]"),
        (b"{", JSON, "{"),
        (b"", JSON, ""),
        (b"\xef\xbb\xbf1", JSON, "\ufeff1"),
        (b"[" * 100_000, JSON, "[" * 100_000),
        (b"21.5", "text/plain", "21.5"),
        (b"{}", OCTETS, "{}"),
        ("ü\u2028\x00".encode(), OCTETS, "ü\u2028\x00"),
        (b"", OCTETS, ""),
    ],
)
def test_payloads_that_are_text(payload: bytes, content_type: str, value: object) -> None:
    assert shown(payload, content_type)["payload"] == value


def test_a_json_payload_goes_out_as_it_came() -> None:
    message = Message("default", 1, "a", TIME_MS, JSON, b'{"b": 1.50, "a":1e2, "b":[ ]}')
    assert '"payload":{"b": 1.50, "a":1e2, "b":[ ]}' in row(message)


def test_numbers_of_any_length() -> None:
    digits = b"1" * 10_000
    assert digits.decode() in row(Message("default", 1, "a", TIME_MS, JSON, digits))


@pytest.mark.parametrize("payload", [b"\xff", b'{"a": "\xc3"}', b"\xed\xa0\x80"])
def test_payloads_that_are_no_text(payload: bytes) -> None:
    found = shown(payload, JSON)
    assert b64decode(found["payload_b64"]) == payload
    assert "payload" not in found


def test_raw() -> None:
    found = shown(b"{}", JSON, raw=True)
    assert found["payload_b64"] == "e30="
    assert "payload" not in found


def test_deliveries() -> None:
    assert "deliveries" not in shown(b"")
    assert shown(b"", deliveries=3)["deliveries"] == 3


def test_a_dead_letter() -> None:
    found = json.loads(row(Message("dead-letter", 1, "a", TIME_MS, JSON, b"1", origin=Origin("reader", 5, "max_deliver"))))
    assert (found["consumer"], found["deliveries"], found["reason"]) == ("reader", 5, "max_deliver")


def test_a_gap() -> None:
    assert json.loads(gap_row(Gap("default", 3, 9, 7, "bytes"))) == {
        "gap": {"first": 3, "last": 9, "count": 7, "reason": "bytes"}
    }


def test_an_answer_is_an_array_with_a_row_a_line() -> None:
    message = Message("default", 10, "a", TIME_MS, JSON, b"1")
    body = rows_body([Gap("default", 3, 9, 7, "bytes"), message, Delivered(message, 2)])
    assert sorted(json.loads(body)[0]) == ["gap"]
    assert [found.get("deliveries") for found in json.loads(body)] == [None, None, 2]
    assert body.count(b"\n") == 3
    assert json.loads(rows_body([])) == []


@given(
    st.binary(max_size=60) | st.text(max_size=20).map(str.encode) | st.sampled_from([b"[1]", b'"a"', b"1e999", b"-0"]),
    st.sampled_from([JSON, OCTETS, "text/x+json"]),
    st.booleans(),
)
def test_any_payload_makes_valid_json_and_comes_back(payload: bytes, content_type: str, raw: bool) -> None:
    message = Message("default", 1, "a", TIME_MS, content_type, payload)
    found = json.loads(rows_body([message], raw=raw))[0]
    if "payload_b64" in found:
        assert b64decode(found["payload_b64"]) == payload
    elif content_type == OCTETS:
        assert found["payload"].encode() == payload

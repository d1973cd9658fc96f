"""RFC 3339 in and out."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.times import parse_time_us, time_text, time_text_ms
from edgegw.errors import RequestError

YEAR_1_US, YEAR_9999_US = -62_135_596_800_000_000, 253_402_300_799_999_999


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01t00:00:01z", 1_000_000),
        ("1970-01-01 00:00:01Z", 1_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:30:00-00:30", 0),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456),
        ("2004-02-29T12:00:00Z", 1_078_056_000_000_000),
    ],
)
def test_a_time(text: str, time_us: int) -> None:
    assert parse_time_us(text, where="time") == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-01-01T00:00:00+0100",
        "1970-01-01T00:00:00+01",
        "1970-W01-1T00:00:00Z",
        "1970-13-01T00:00:00Z",
        "2003-02-29T00:00:00Z",
        "1970-01-01T25:00:00Z",
        "1970-01-01T00:00:61Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "10000-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z\n",
        " 1970-01-01T00:00:00Z",
        "١٩٧٠-01-01T00:00:00Z",
        "\ud800",
        0,
        1.5,
        None,
        ["1970-01-01T00:00:00Z"],
    ],
)
def test_no_time(text: object) -> None:
    with pytest.raises(RequestError) as caught:
        parse_time_us(text, where="[3].time")
    assert (caught.value.code, caught.value.where) == ("bad_time", "[3].time")
    assert caught.value.hint


@given(st.integers(YEAR_1_US, YEAR_9999_US))
def test_what_goes_out_comes_in_again(time_us: int) -> None:
    text = time_text(time_us)
    assert parse_time_us(text, where="") == time_us
    assert len(text) == (24 if time_us % 1000 == 0 else 27)


@given(st.integers(YEAR_1_US // 1000, YEAR_9999_US // 1000))
def test_milliseconds(time_ms: int) -> None:
    text = time_text_ms(time_ms)
    assert text == time_text(time_ms * 1000)
    assert datetime.fromisoformat(text).astimezone(UTC).microsecond == time_ms % 1000 * 1000


def test_a_time_of_arrival_looks_as_the_contract_says() -> None:
    assert time_text_ms(1_780_000_000_007) == "2026-05-28T20:26:40.007Z"

"""edgegw/cli/recorded_time.py"""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from edgegw.cli.recorded_time import RecordedTime, check_form, find_form, obvious_form, rfc3339, zone_named


@pytest.fixture
def rome() -> ZoneInfo:
    """A zone with summer time."""
    try:
        return ZoneInfo("Europe/Rome")
    except ZoneInfoNotFoundError:
        pytest.skip("this machine has no time zones (tzdata)")


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("iso", "2004-03-10T18:00:00Z", "2004-03-10T18:00:00Z"),
        ("iso", "2004-03-10 18:00", "2004-03-10T18:00:00Z"),
        ("iso", "2004-03-10T18:00:00.25+02:00", "2004-03-10T16:00:00.250000Z"),
        ("iso", "2004-03-10", "2004-03-10T00:00:00Z"),
        ("epoch", "1078941600", "2004-03-10T18:00:00Z"),
        ("epoch", "1078941600.5", "2004-03-10T18:00:00.500000Z"),
        ("epoch", "-86400", "1969-12-31T00:00:00Z"),
        ("epoch-ms", "1078941600123", "2004-03-10T18:00:00.123000Z"),
        ("epoch-us", "1078941600123456", "2004-03-10T18:00:00.123456Z"),
        # A float would make .123456 of this into .123457.
        ("epoch-ns", "1078941600123456999", "2004-03-10T18:00:00.123456Z"),
        ("%d/%m/%Y %H.%M.%S", "10/03/2004 18.00.00", "2004-03-10T18:00:00Z"),
        ("%d/%m/%Y %H:%M %z", "10/03/2004 18:00 +0530", "2004-03-10T12:30:00Z"),
    ],
)
def test_reads_each_form(form: str, text: str, expected: str) -> None:
    assert rfc3339(RecordedTime(form, UTC).read(text)) == expected


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("iso", "yesterday"),
        ("iso", ""),
        ("iso", "0001-01-01T00:00:00+10:00"),
        ("epoch", "1e99"),
        ("epoch", "NaN"),
        ("epoch", "soon"),
        ("%d/%m/%Y", "31/02/2004"),
    ],
)
def test_refuses_what_is_no_time(form: str, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RecordedTime(form, UTC).read(text)


def test_time_without_zone_is_in_the_zone_given(rome: ZoneInfo) -> None:
    assert RecordedTime("iso", rome).read("2004-03-10 18:00:00") == datetime(2004, 3, 10, 17, tzinfo=UTC)
    assert RecordedTime("iso", rome).read("2004-07-10 18:00:00") == datetime(2004, 7, 10, 16, tzinfo=UTC)
    assert RecordedTime("iso", rome).read("2004-07-10 18:00:00Z") == datetime(2004, 7, 10, 18, tzinfo=UTC)


def test_zones() -> None:
    assert zone_named("Z") is UTC
    assert zone_named("UTC") is UTC
    assert zone_named("+02:00") == timezone(timedelta(hours=2))
    assert zone_named("-0330") == timezone(-timedelta(hours=3, minutes=30))


def test_zone_of_this_machine(rome: ZoneInfo) -> None:
    assert zone_named("Europe/Rome") == rome


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../etc/passwd", "Europe", "+24:00", "+99:99", "a\0b"])
def test_unknown_zone(name: str) -> None:
    with pytest.raises(ValueError, match=r"zone|day"):
        zone_named(name)


@pytest.mark.parametrize(
    ("sample", "form"),
    [
        ("2004-03-10T18:00:00Z", "iso"),
        ("2004-03-10", "iso"),
        ("1078941600", "epoch"),
        ("1078941600.25", "epoch"),
        ("1078941600123", "epoch-ms"),
        ("1078941600123456", "epoch-us"),
        ("1078941600123456789", "epoch-ns"),
        ("10/03/2004 18.00.00", None),
        ("2004-13-10", None),
        ("12", None),
        ("", None),
    ],
)
def test_obvious_form(sample: str, form: str | None) -> None:
    assert obvious_form(sample) == form


@pytest.mark.parametrize(
    ("samples", "form"),
    [
        (["10/03/2004 18.00.00", "18/03/2004 00.00.00"], "%d/%m/%Y %H.%M.%S"),
        (["03/10/2004 18:00", "03/18/2004 00:00"], "%m/%d/%Y %H:%M"),
        (["3/10/2004 6:00:00 PM", "3/18/2004 12:00:00 AM"], "%m/%d/%Y %I:%M:%S %p"),
        (["10.03.2004 18:00:00,250"], "%d.%m.%Y %H:%M:%S,%f"),
        (["2004/03/10"], "%Y/%m/%d"),
        # One row that is damaged, whatever it looks like, does not hide the form of the others.
        (["n/a", "10/03/2004 18.00.00", "18/03/2004 00.00.00"], "%d/%m/%Y %H.%M.%S"),
        (["2004-03-10T00:00:00", "18/03/2004 00.00.00", "19/03/2004 00.00.00"], "%d/%m/%Y %H.%M.%S"),
        (["2004-03-10 18:00", "2004-03-11 18:00", "?"], "iso"),
        # The eleventh row is the first that tells day from month.
        ([f"{day:02}/03/2004 00:00:00" for day in range(3, 14)], "%d/%m/%Y %H:%M:%S"),
    ],
)
def test_finds_the_form(samples: list[str], form: str) -> None:
    assert find_form(samples) == form


def test_does_not_guess_between_day_and_month() -> None:
    with pytest.raises(ValueError, match=r"'10/03/2004 18:00' can be read as '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M'"):
        find_form(["10/03/2004 18:00", "11/03/2004 18:00"])


@pytest.mark.parametrize(("samples", "words"), [([], "no row has a time"), (["noon"], "'noon' is not known")])
def test_finds_no_form(samples: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        find_form(samples)


@pytest.mark.parametrize("form", ["iso", "epoch-ms", "%d.%m.%y %H:%M", "%Y-%m-%dT%H:%M:%S%z"])
def test_good_forms(form: str) -> None:
    check_form(form)


@pytest.mark.parametrize("form", ["", "isoo", "%Q", "%Y %Y", "%", "2004"])
def test_bad_forms(form: str) -> None:
    with pytest.raises(ValueError, match="is no form of time"):
        check_form(form)

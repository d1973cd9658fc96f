"""The kinds of values: what each takes, refuses, and reads from text."""

import datetime
from pathlib import Path

import pytest

from edgegw.config_values import (
    Kind,
    choice,
    filters,
    flag,
    integer,
    is_loopback,
    name,
    number,
    path,
    shown,
    split_address,
    tcp_address,
)
from edgegw.limits import STREAM_FILTERS_MAX


def wrong(kind: Kind, raw: object) -> tuple[str, ...]:
    with pytest.raises(ValueError) as caught:
        kind.decode(raw)
    return caught.value.args


def _kind_of(value: object) -> str:
    """For the names of tests: Python refuses to print the largest integers."""
    return type(value).__name__


@pytest.mark.parametrize("raw", [1, 3, 5])
def test_an_integer(raw: int) -> None:
    assert integer(1, 5).decode(raw) == raw


@pytest.mark.parametrize("raw", [0, 6, 2**70, -(10**5000), True, 3.0, "3", None, [], {}, datetime.date(2024, 1, 1)], ids=_kind_of)
def test_no_integer(raw: object) -> None:
    (what,) = wrong(integer(1, 5), raw)
    assert what.startswith("must be ")
    assert len(what) < 100


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("+5", 5), ("-5", -5), ("007", 7)])
def test_an_integer_from_text(text: str, value: int) -> None:
    assert integer(0, 9).parse(text) == value


@pytest.mark.parametrize("text", ["", " 5", "5 ", "1_0", "0x5", "5.0", "five", "٥", "9" * 5000])
def test_text_that_is_no_integer_stays_text(text: str) -> None:
    assert integer(0, 9).parse(text) == text


@pytest.mark.parametrize(("raw", "value"), [(1, 1.0), (0.5, 0.5), (60, 60.0)])
def test_a_number(raw: float, value: float) -> None:
    decoded = number(0.1, 60).decode(raw)
    assert (decoded, type(decoded)) == (value, float)


@pytest.mark.parametrize("raw", [0.05, 60.1, float("nan"), float("inf"), -float("inf"), 10**400, True, "1", None], ids=_kind_of)
def test_no_number(raw: object) -> None:
    (what,) = wrong(number(0.1, 60), raw)
    assert what.startswith("must be ")


@pytest.mark.parametrize(("text", "value"), [("5", 5.0), ("0.5", 0.5), ("1e3", 1000.0), ("-1.5e-1", -0.15)])
def test_a_number_from_text(text: str, value: float) -> None:
    assert number(0, 9).parse(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "Infinity", "1e", "1,5", ".5", "1_0", "9" * 400])
def test_text_that_is_no_number_stays_text(text: str) -> None:
    assert number(0, 9).parse(text) == text


def test_a_choice() -> None:
    assert choice("a", "b").decode("b") == "b"
    assert wrong(choice("a", "b"), "c") == ('must be "a" or "b", is "c"',)
    assert wrong(choice("a", "b"), ["a"]) == ('must be "a" or "b", is a list',)


def test_a_path() -> None:
    assert path().decode("a b/c") == Path("a b/c")
    assert wrong(path(), "") and wrong(path(), "a\0b") and wrong(path(), 5) and wrong(path(), "\udcff")


@pytest.mark.parametrize("raw", ["a", "a-b_c.d", "0"])
def test_a_name(raw: str) -> None:
    assert name().decode(raw) == raw


@pytest.mark.parametrize("raw", ["", "A", "a b", "a/b", "ä", "a\n", 5, "a" * 65])
def test_no_name(raw: object) -> None:
    assert len(wrong(name(), raw)) == 1


def test_filters() -> None:
    assert filters().decode([]) == ()
    assert filters().decode(["a/+/b", "#"]) == ("a/+/b", "#")


def test_every_wrong_filter_is_told() -> None:
    found = wrong(filters(), ["a", "b+", "a", 5, "", "c/#"])
    assert [what.split(" ", 4)[:4] for what in found] == [
        ["the", "topic", "filter", "'b+'"],
        ["has", "the", "topic", "filter"],
        ["a", "topic", "filter", "must"],
        ["the", "topic", "filter", "''"],
    ]


def test_filters_have_a_largest_number() -> None:
    assert filters().decode([f"t{i}" for i in range(STREAM_FILTERS_MAX)])
    assert wrong(filters(), ["t"] * (STREAM_FILTERS_MAX + 1)) == (
        f"has {STREAM_FILTERS_MAX + 1} filters, more than {STREAM_FILTERS_MAX}",
    )


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("127.1.2.3:0", "127.1.2.3", 0),
        ("localhost:65535", "127.0.0.1", 65_535),
        ("[::1]:80", "::1", 80),
        ("[0:0:0:0:0:0:0:1]:80", "::1", 80),
        ("0.0.0.0:80", "0.0.0.0", 80),
        ("[::]:80", "::", 80),
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("[2001:DB8::1]:80", "2001:db8::1", 80),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    listen = tcp_address().decode(text)
    assert isinstance(listen, str)
    assert split_address(listen) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:99999999999",
        "127.0.0.1:٨٠", "127.0.0.1:80 ", "::1:80", "[::1]", "[::1]80", "[127.0.0.1]:80", "[::1%lo]:80", "[]:80", "[localhost]:80",
        "gateway:80",
        "127.0.0.01:80", "http://127.0.0.1:80", "127.0.0.1:80\n", "a:b:c",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    (what,) = wrong(tcp_address(), text)
    assert what.startswith('must be HOST:PORT, as "127.0.0.1:8080" or "[::1]:8080", is "')


def test_an_ipv4_address_in_the_clothes_of_ipv6() -> None:
    (what,) = wrong(tcp_address(), "[::ffff:127.0.0.1]:80")
    assert what == 'must not be an IPv4 address in the clothes of IPv6, is "[::ffff:127.0.0.1]:80" (write 127.0.0.1)'


@pytest.mark.parametrize(
    ("host", "is_so"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.127", False), ("::ffff:192.0.2.1", False), ("1127.0.0.1", False),
        ("::2", False),
    ],
)  # fmt: skip
def test_loopback(host: str, is_so: bool) -> None:
    assert is_loopback(host) is is_so


@pytest.mark.parametrize(("raw", "text"), [(True, "true"), (False, "FALSE")])
def test_yes_and_no(raw: bool, text: str) -> None:
    assert flag().decode(raw) is raw
    assert flag().decode(flag().parse(text)) is raw


@pytest.mark.parametrize("raw", [0, 1, "true", "yes", None, []])
def test_neither_yes_nor_no(raw: object) -> None:
    (what,) = wrong(flag(), raw)
    assert what.startswith("must be true or false, is ")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (10**5000, "an enormous integer"),
        (0.5, "0.5"),
        ("a", '"a"'),
        ("a\nb\x1b", '"a\\nb\\x1b"'),
        ("x" * 61, f'"{"x" * 60}…"'),
        ([1], "a list"),
        ({}, "a table"),
        (datetime.time(1), "a date or time"),
    ],
    ids=_kind_of,
)
def test_how_a_value_is_shown(raw: object, text: str) -> None:
    assert shown(raw) == text

"""Query parameters."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.api.queries import Query
from edgegw.errors import RequestError


def query(text: str, *known: str) -> Query:
    call: Any = SimpleNamespace(request=SimpleNamespace(raw_path=f"/v1/messages{text}"))
    return Query(call, *known)


def test_nothing_asked() -> None:
    found = query("", "limit")
    assert (found.text("topic", "#"), found.integer("limit", 7, 1, 9), found.flag("raw")) == ("#", 7, False)
    assert query("?", "limit").integer("limit", 7, 1, 9) == 7
    assert query("?&&", "limit").integer("limit", 7, 1, 9) == 7


def test_values() -> None:
    found = query("?topic=a%2F%C3%BC%2B+b&limit=12&wait=0.5&raw=1&odd=a=b", "topic", "limit", "wait", "raw", "odd")
    assert found.text("topic", "") == "a/ü+ b"
    assert found.integer("limit", 0, 1, 12) == 12
    assert found.number("wait", 0, 0, 1) == 0.5
    assert found.flag("raw")
    assert found.text("odd", "") == "a=b"


@pytest.mark.parametrize("text", ["?limt=1", "?limit=1&x", "?LIMIT=1"])
def test_unknown_parameters(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        query(text, "limit")
    assert caught.value.code == "unknown_parameter"
    assert caught.value.hint == "parameters: limit"


def test_none_are_known() -> None:
    with pytest.raises(RequestError) as caught:
        query("?x=1")
    assert caught.value.hint == "there are none here"


@pytest.mark.parametrize("text", ["?limit=1&limit=1", "?limit=%ff", "?%ff=1"])
def test_parameters_that_cannot_be_read(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        query(text, "limit")
    assert caught.value.code == "bad_parameter"


@pytest.mark.parametrize("value", ["", "x", "-1", "0", "11", "1.0", "1e0", " 1", "0x1", "1_0", "٣", "9" * 30, str(2**70)])
def test_no_whole_number(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        query(f"?limit={value}", "limit").integer("limit", 1, 1, 10)
    assert (caught.value.code, caught.value.where) == ("bad_parameter", "limit")
    assert "from 1 to 10" in caught.value.hint


@pytest.mark.parametrize("value", ["", "x", "-1", "31", "nan", "inf", "-inf", "1e400", "0x1"])
def test_no_number(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        query(f"?wait={value}", "wait").number("wait", 0, 0, 30)
    assert (caught.value.code, caught.value.where) == ("bad_parameter", "wait")


@pytest.mark.parametrize(("value", "is_set"), [("1", True), ("true", True), ("True", True), ("0", False), ("false", False)])
def test_flags(value: str, is_set: bool) -> None:
    assert query(f"?raw={value}", "raw").flag("raw") is is_set


@pytest.mark.parametrize("value", ["", "yes", "2"])
def test_no_flag(value: str) -> None:
    with pytest.raises(RequestError):
        query(f"?raw={value}", "raw").flag("raw")


@given(st.text(st.characters(codec="ascii", exclude_characters="?"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        query(f"?{text}", "a", "b").text("a", "")
    except RequestError as error:
        assert error.code in ("unknown_parameter", "bad_parameter")

"""edgegw/api/openapi_schemas.py: patterns and bounds say what the checks do."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.api.bodies import check_key
from edgegw.api.openapi_schemas import FILTER_PATTERN, KEY_PATTERN, NAME_PATTERN, NEW_NAME_PATTERN, TOPIC_PATTERN, schemas
from edgegw.consumer import LINK_CONSUMERS
from edgegw.core.access import check_token_name
from edgegw.core.topic import check_filter, check_topic
from edgegw.errors import RequestError
from edgegw.limits import TOPIC_LEVELS_MAX


def is_taken(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except RequestError:
        return False
    return True


def check_any_key(text: str) -> object:
    return check_key(text, "key")


@given(st.text(st.sampled_from("a$+#/\0 ü"), min_size=1, max_size=12))
def test_topics_and_filters(text: str) -> None:
    assert is_taken(check_topic, text) == bool(re.search(TOPIC_PATTERN, text))
    assert is_taken(check_filter, text) == bool(re.search(FILTER_PATTERN, text))


@pytest.mark.parametrize("levels", [TOPIC_LEVELS_MAX - 1, TOPIC_LEVELS_MAX, TOPIC_LEVELS_MAX + 1])
@pytest.mark.parametrize("last", ["a", "+", "#"])
def test_levels(levels: int, last: str) -> None:
    text = "/".join(["a"] * (levels - 1) + [last])
    assert is_taken(check_topic, text) == bool(re.search(TOPIC_PATTERN, text))
    assert is_taken(check_filter, text) == bool(re.search(FILTER_PATTERN, text)) == (levels <= TOPIC_LEVELS_MAX)


@given(st.text(min_size=1, max_size=20))
def test_keys(text: str) -> None:
    assert is_taken(check_any_key, text) == bool(re.search(KEY_PATTERN, text))


@given(st.text(st.sampled_from("aZ0._-/ é"), max_size=70))
def test_names(text: str) -> None:
    # Of OpenAPI's `$`, not of Python's, which allows a line end behind it.
    assert is_taken(check_token_name, text) == bool(re.fullmatch(NAME_PATTERN, text))


def test_names_of_links_are_not_for_others() -> None:
    assert re.search(NEW_NAME_PATTERN, "link")
    assert not re.search(NEW_NAME_PATTERN, f"{LINK_CONSUMERS}cloud")


def test_objects_are_closed() -> None:
    def walk(node: object) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert "additionalProperties" in node, node
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schemas())

"""Topics and filters: what may be one, which match, and an index that finds the same as trying every filter."""

import itertools
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgegw.core.topic import FilterIndex, check_filter, check_topic, covers, matches
from edgegw.errors import RequestError
from edgegw.limits import MATCHES_CACHED_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX

# Few levels, so that filters and topics meet; the empty one and `$` are where the rules bend.
LEVELS = st.sampled_from(["a", "b", "", "$s", "é"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.one_of(LEVELS, st.just("+")), max_size=4),
    st.sampled_from([["#"], ["+"], ["a"]]),
)


def matches_by_regex(topic_filter: str, topic: str) -> bool:
    """MQTT 4.7 again, by other means."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    pattern = re.escape(topic_filter).replace(r"\+", "[^/]*")
    if topic_filter == "#":
        pattern = ".*"
    elif topic_filter.endswith("/#"):
        pattern = pattern.removesuffix(r"/\#") + "(/.*)?"
    return re.fullmatch(pattern, topic, re.DOTALL) is not None


# --- what is a topic ------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["a", "/", "a//b", " ", "ä/ö", "a/$b", "x" * TOPIC_BYTES_MAX, "/".join("a" * TOPIC_LEVELS_MAX)])
def test_a_topic(topic: str) -> None:
    assert check_topic(topic) is topic
    assert check_filter(topic) is topic


@pytest.mark.parametrize(
    ("topic", "fault"),
    [
        ("", "is empty"),
        ("a\0b", "NUL"),
        ("\ud800", "not valid UTF-8"),
        ("x" * (TOPIC_BYTES_MAX + 1), "has 65536 bytes"),
        ("ä" * (TOPIC_BYTES_MAX // 2 + 1), "has 65536 bytes"),
        ("/" * TOPIC_LEVELS_MAX, "has 129 levels"),
        ("a/+", "wildcard"),
        ("a#", "wildcard"),
        ("$SYS/x", "reserved"),
    ],
)
def test_what_is_no_topic(topic: str, fault: str) -> None:
    with pytest.raises(RequestError, match=fault) as caught:
        check_topic(topic, where="[3].topic")
    assert (caught.value.code, caught.value.where) == ("bad_topic", "[3].topic")
    assert len(caught.value.what) < 200


def test_reserved_topics_are_for_the_gateway() -> None:
    assert check_topic("$SYS/x", reserved=True) == "$SYS/x"
    assert check_filter("$SYS/#") == "$SYS/#"


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/+/b", "+/#", "/+", "a/#", "+/+/+"])
def test_a_filter(topic_filter: str) -> None:
    assert check_filter(topic_filter) is topic_filter


@pytest.mark.parametrize("topic_filter", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "##", "a/++", "a\0", "/" * TOPIC_LEVELS_MAX])
def test_what_is_no_filter(topic_filter: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_filter(topic_filter)
    assert caught.value.code == "bad_filter"


# --- which match ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "topic", "whether"),
    [
        ("#", "a/b/c", True),
        ("#", "/", True),
        ("#", "$SYS/a", False),
        ("+", "$SYS", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/#", "$SYS", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+/+", "/x", True),
        ("/+", "/x", True),
        ("+", "/x", False),
        ("a/b", "a/b", True),
        ("a/b", "a/B", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
    ],
)
def test_matches(topic_filter: str, topic: str, whether: bool) -> None:
    assert matches(topic_filter, topic) is whether


@given(FILTERS, TOPICS)
def test_matches_as_the_standard_says(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == matches_by_regex(topic_filter, topic)


# --- the index ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(FILTERS, st.integers(0, 3))), st.lists(TOPICS, min_size=1), st.data())
def test_the_index_finds_what_trying_each_finds(entries: list[tuple[str, int]], topics: list[str], data: st.DataObject) -> None:
    index: FilterIndex[int] = FilterIndex(cache_max=3)
    for topic_filter, value in entries:
        index.add(topic_filter, value)
    left = list(entries)
    while True:
        assert len(index) == len(left)
        for topic in topics:
            assert sorted(index.match(topic)) == sorted(value for f, value in left if matches(f, topic))
        if not left:
            break
        topic_filter, value = left.pop(data.draw(st.integers(0, len(left) - 1)))
        index.remove(topic_filter, value)
    assert index._root.is_empty()  # nothing is left behind to walk through


@pytest.mark.parametrize("topic_filter", ["a/b/c", "a/+", "#", "a", "a/b/#"])
def test_what_does_not_stand_there_cannot_be_removed(topic_filter: str) -> None:
    index: FilterIndex[int] = FilterIndex()
    index.add("a/b", 1)
    with pytest.raises(KeyError):
        index.remove(topic_filter, 1)
    with pytest.raises(KeyError):
        index.remove("a/b", 2)
    assert (index.match("a/b"), len(index)) == ((1,), 1)


def test_what_was_remembered_is_forgotten_when_a_filter_comes_or_goes() -> None:
    index: FilterIndex[int] = FilterIndex()
    assert index.match("a") == ()
    index.add("+", 1)
    assert index.match("a") == (1,)
    index.remove("+", 1)
    assert index.match("a") == ()


def test_memory_is_bounded_whatever_is_matched() -> None:
    index: FilterIndex[int] = FilterIndex(cache_max=10)
    index.add("few", 0)
    for n in range(MATCHES_CACHED_MAX + 1):
        index.add("many/#", n)
    for n in range(100):
        assert len(index.match(f"many/{n}")) == MATCHES_CACHED_MAX + 1
        index.match(f"none/{n}")
    assert len(index._cache) <= 10
    assert max(map(len, index._cache.values())) <= MATCHES_CACHED_MAX


def test_matching_does_not_visit_filters_that_do_not_match() -> None:
    index: FilterIndex[int] = FilterIndex()
    for n in range(10_000):
        index.add(f"plant/{n}/+", n)

    class Visits(dict[str, object]):
        count = 0

        def get(self, key: str, default: object = None) -> object:
            Visits.count += 1
            return super().get(key, default)

    index._root.below["plant"].below = Visits(index._root.below["plant"].below)  # type: ignore[assignment]
    assert index.match("plant/77/x") == (77,)
    assert Visits.count == 2  # one exact level, one `+`


# --- one filter within another --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "asked"),
    [
        ("#", "#"), ("#", "+/#"), ("+/#", "#"), ("#", "a"), ("#", "+"), ("a/#", "a"), ("a/#", "a/#"), ("a/#", "a/+/#"),
        ("a/+", "a/b"),
        ("+", "a"), ("+/b", "+/b"), ("a/+/c", "a/b/c"), ("$SYS/#", "$SYS/a"), ("$SYS/+", "$SYS/a"), ("a/#", "a/$b"), ("/+", "/a"),
    ],
)  # fmt: skip
def test_a_filter_covers(granted: str, asked: str) -> None:
    assert covers(granted, asked)


@pytest.mark.parametrize(
    ("granted", "asked"),
    [
        ("a", "#"), ("a", "b"), ("a", "a/b"), ("a/b", "a"), ("+", "#"), ("+", "+/+"), ("+/+", "+"), ("a/+", "a/#"),
        ("a/+/#", "a/#"),
        ("a/b", "a/+"), ("#", "$SYS/#"), ("+/a", "$SYS/a"), ("#", "$SYS"), ("a/#", "+/#"), ("", "a"), ("+/#", "$SYS/a"),
    ],
)  # fmt: skip
def test_a_filter_does_not_cover(granted: str, asked: str) -> None:
    assert not covers(granted, asked)


_LEVELS = ("a", "b", "$s", "", "other")
_TOPICS = ["/".join(levels) for depth in range(1, 5) for levels in itertools.product(_LEVELS, repeat=depth)]
_FILTER = st.lists(st.sampled_from(["a", "b", "$s", "", "+"]), max_size=3).flatmap(
    lambda levels: st.sampled_from([[*levels, "#"], levels] if levels else [["#"]]).map("/".join)
)


@given(_FILTER, _FILTER)
def test_covering_is_what_matching_every_topic_says(granted: str, asked: str) -> None:
    # Four levels and one name that stands in no filter: where topics differ at all, they differ among these.
    topics = [topic for topic in _TOPICS if topic]
    assume(granted and asked)
    expected = all(matches(granted, topic) for topic in topics if matches(asked, topic))
    assert covers(granted, asked) == expected

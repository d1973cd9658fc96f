"""Metrics: what they count, how they are told (read back by a strict parser), and what they refuse."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.limits import LATENCY_BUCKETS_US, METRIC_LABEL_CHARS_MAX, METRIC_LABEL_SETS_MAX
from edgegw.observe.metrics import Metrics

Series = tuple[str, tuple[tuple[str, str], ...]]

_HELP = re.compile(r"# HELP ([a-z_]+) (.*)")
_TYPE = re.compile(r"# TYPE ([a-z_]+) (counter|gauge|histogram)")
_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|[+-]Inf|NaN)", re.DOTALL)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
_ENDINGS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parse(text: str) -> dict[Series, float]:
    """The samples of an exposition; AssertionError for whatever the format 0.0.4 does not allow."""
    text.encode()
    assert text.endswith("\n")
    samples: dict[Series, float] = {}
    seen: set[str] = set()
    name = kind = ""
    for line in text[:-1].split("\n"):
        if found := _HELP.fullmatch(line):
            name, kind = found[1], ""
            assert name not in seen, f"{name} twice"
            seen.add(name)
        elif found := _TYPE.fullmatch(line):
            assert found[1] == name
            assert kind == "", f"two types of {name}"
            kind = found[2]
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, f"no sample: {line!r}"
            assert found[1] in {name + ending for ending in _ENDINGS[kind]}, f"{line!r} under {name}"
            series = (found[1], _labels(found[2]))
            assert series not in samples, f"{series} twice"
            samples[series] = float(found[3])
    return samples


def _labels(text: str | None) -> tuple[tuple[str, str], ...]:
    labels: list[tuple[str, str]] = []
    place = 0
    while text is not None and place < len(text):
        found = _LABEL.match(text, place)
        assert found, f"no label at {place} of {text!r}"
        labels.append((found[1], re.sub(r"\\(.)", lambda mark: {"n": "\n"}.get(mark[1], mark[1]), found[2])))
        place = found.end()
    assert text != "", "empty braces"
    assert len({name for name, _ in labels}) == len(labels)
    return tuple(labels)


@pytest.mark.parametrize(
    "text",
    [
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
        '# HELP a b\n# TYPE a gauge\na{x="\\q"} 1\n',
        '# HELP a b\n# TYPE a gauge\na{x="1",x="2"} 1\n',
        "# HELP a b\n# TYPE a gauge\na 1,0\n",
        "# HELP a b\na 1\n",
    ],
)
def test_the_parser_is_strict(text: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        parse(text)


def test_counters_and_gauges() -> None:
    metrics = Metrics()
    started = metrics.counter("edgegw_starts_total", "Starts.")
    answered = metrics.counters("edgegw_http_requests_total", "Requests answered.", ("route", "status"))
    open_now = metrics.gauge("edgegw_connections", "Open connections.")
    started.inc()
    answered.labels("messages", "201").inc(2)
    answered.labels("messages", "201").inc()
    answered.labels("messages", "400").inc()
    open_now.set(5)
    open_now.inc(-2)
    metrics.gauges("edgegw_queue_bytes", "Waiting.", ("stream",)).labels("default").set(0.5)
    assert parse(metrics.render()) == {
        ("edgegw_starts_total", ()): 1,
        ("edgegw_http_requests_total", (("route", "messages"), ("status", "201"))): 3,
        ("edgegw_http_requests_total", (("route", "messages"), ("status", "400"))): 1,
        ("edgegw_connections", ()): 3,
        ("edgegw_queue_bytes", (("stream", "default"),)): 0.5,
    }


def test_a_child_can_be_kept() -> None:
    family = Metrics().counters("edgegw_x_total", "X.", ("a",))
    assert family.labels("1") is family.labels("1")
    assert family.labels("1") is not family.labels("2")


def test_what_is_kept_elsewhere_is_asked_for() -> None:
    metrics, rows = Metrics(), {("default",): 1}
    metrics.gauges_from("edgegw_stream_rows", "Rows.", ("stream",), rows.items)
    metrics.counter_from("edgegw_commits_total", "Commits.", lambda: len(rows))
    metrics.gauge_from("edgegw_ratio", "Ratio.", lambda: float("nan"))
    metrics.counters_from("edgegw_lost_total", "Lost.", ("reason",), list)
    assert parse(metrics.render())["edgegw_commits_total", ()] == 1
    rows["other-stream",] = 7
    read = parse(metrics.render())
    assert read["edgegw_stream_rows", (("stream", "other-stream"),)] == 7
    assert read["edgegw_commits_total", ()] == 2
    assert "edgegw_ratio NaN" in metrics.render()


def test_a_histogram_in_seconds() -> None:
    metrics = Metrics()
    waits = metrics.histogram("edgegw_commit_seconds", "Waits.", (250, 1000, 2_500_000))
    for micros in (0, 250, 251, 1000, 2_500_000, 2_500_001):
        waits.observe(micros)
    text = metrics.render()
    assert 'edgegw_commit_seconds_bucket{le="0.00025"} 2\n' in text
    assert 'edgegw_commit_seconds_bucket{le="0.001"} 4\n' in text
    assert 'edgegw_commit_seconds_bucket{le="2.5"} 5\n' in text
    assert 'edgegw_commit_seconds_bucket{le="+Inf"} 6\n' in text
    assert "edgegw_commit_seconds_sum 5.001502\n" in text
    assert "edgegw_commit_seconds_count 6\n" in text


def test_histograms_in_bytes_by_label() -> None:
    metrics = Metrics()
    sizes = metrics.histograms("edgegw_body_bytes", "Sizes.", ("route",), (100, 1000))
    sizes.labels("a").observe(100)
    sizes.labels("b").observe(101)
    read = parse(metrics.render())
    assert read["edgegw_body_bytes_bucket", (("route", "a"), ("le", "100"))] == 1
    assert read["edgegw_body_bytes_bucket", (("route", "b"), ("le", "100"))] == 0
    assert read["edgegw_body_bytes_sum", (("route", "b"),)] == 101


@given(values=st.lists(st.integers(0, 20_000_000)))
def test_buckets_add_up(values: list[int]) -> None:
    metrics = Metrics()
    waits = metrics.histogram("edgegw_wait_seconds", "Waits.", LATENCY_BUCKETS_US)
    for micros in values:
        waits.observe(micros)
    read = parse(metrics.render())
    buckets = [value for (name, _), value in read.items() if name.endswith("_bucket")]
    assert all(lower <= higher for lower, higher in pairwise(buckets))
    assert buckets[-1] == read["edgegw_wait_seconds_count", ()] == len(values)
    assert [int(count) for count in buckets[:-1]] == [sum(value <= bound for value in values) for bound in LATENCY_BUCKETS_US]
    assert read["edgegw_wait_seconds_sum", ()] == pytest.approx(sum(values) / 1e6)


@given(values=st.lists(st.text(st.characters(exclude_categories=[]), max_size=200), max_size=20), text=st.text(max_size=50))
def test_any_label_and_any_help_is_told_once(values: list[str], text: str) -> None:
    metrics = Metrics()
    family = metrics.counters("edgegw_x_total", text, ("name",))
    metrics.counters_from("edgegw_y_total", "Y.", ("name",), lambda: [((value,), 1) for value in values])
    for value in values:
        family.labels(value).inc()
    read = parse(metrics.render())
    assert sum(value for (name, _), value in read.items() if name == "edgegw_x_total") == len(values)
    assert sum(value for (name, _), value in read.items() if name == "edgegw_y_total") == len(values)


def test_a_label_is_read_back_as_it_was() -> None:
    metrics = Metrics()
    metrics.counters("edgegw_x_total", "X.", ("a", "b")).labels('\\"\n\\n', "grün {x} \x00").inc()
    assert parse(metrics.render()) == {("edgegw_x_total", (("a", '\\"\n\\n'), ("b", "grün {x} \x00"))): 1}


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    family = metrics.counters("edgegw_x_total", "X.", ("a", "b"))
    many = {(str(number), "b"): 1 for number in range(METRIC_LABEL_SETS_MAX + 10)}
    metrics.counters_from("edgegw_y_total", "Y.", ("a", "b"), many.items)
    for labels in many:
        family.labels(*labels).inc()
    family.labels("0", "b").inc()
    read = parse(metrics.render())
    assert len(read) == 2 * (METRIC_LABEL_SETS_MAX + 1)
    assert read["edgegw_x_total", (("a", "other"), ("b", "other"))] == 10
    assert read["edgegw_y_total", (("a", "other"), ("b", "other"))] == 10
    assert read["edgegw_x_total", (("a", "0"), ("b", "b"))] == 2


def test_a_long_label_is_cut() -> None:
    metrics = Metrics()
    family = metrics.counters("edgegw_x_total", "X.", ("a",))
    long = "l" * METRIC_LABEL_CHARS_MAX
    for end in "xy":
        family.labels(long + end).inc()
    assert parse(metrics.render()) == {("edgegw_x_total", (("a", long),)): 2}
    for number in range(METRIC_LABEL_SETS_MAX):
        family.labels(str(number))
    family.labels(long + "z").inc()  # full, and still its own
    assert parse(metrics.render())["edgegw_x_total", (("a", long),)] == 3


@pytest.mark.parametrize("name", ["x_total", "edgegw_X_total", "edgegw_x", "edgegw__x_total", "edgegw_x_total ", "edgegw_total_"])
def test_names_of_counters(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a counter"):
        Metrics().counter(name, "X.")


@pytest.mark.parametrize("name", ["edgegw_x_total", "edgegw_x_count", "edgegw_x_sum", "edgegw_x_bucket", "node_x"])
def test_names_of_gauges(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a gauge"):
        Metrics().gauge(name, "X.")


def test_a_name_is_used_once() -> None:
    metrics = Metrics()
    metrics.counter("edgegw_x_total", "X.")
    with pytest.raises(ValueError, match="exists"):
        metrics.counter_from("edgegw_x_total", "X.", lambda: 1)


@pytest.mark.parametrize("labels", [("le",), ("quantile",), ("A",), ("a", "a"), ("",)])
def test_names_of_labels(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="label"):
        Metrics().gauges("edgegw_x", "X.", labels)


@pytest.mark.parametrize("bounds", [(), (2, 1), (1, 1), (1, 2.5)])
def test_bounds(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not integers that grow"):
        Metrics().histogram("edgegw_x_seconds", "X.", bounds)


def test_the_number_of_labels_is_fixed() -> None:
    with pytest.raises(AssertionError, match="2 labels"):
        Metrics().counters("edgegw_x_total", "X.", ("a", "b")).labels("1")

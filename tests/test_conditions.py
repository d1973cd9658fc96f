"""Conditions: transitions once, readiness, and the loop's thread alone."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgegw.conditions import Conditions
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics


class StepClock:
    """Each look at the clock is a second later."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        self.now_ms += 1000
        return self.now_ms

    def mono_s(self) -> float:
        return self.now_ms / 1000


class Told:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def warning(self, event: str, /, *, condition: str, what: str, hint: str) -> None:
        self.events.append((event, f"{condition}: {what} ({hint})"))

    def info(self, event: str, /, *, condition: str) -> None:
        self.events.append((event, condition))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def conditions(told: Told) -> Conditions:
    conditions = Conditions(StepClock(), told)
    conditions.declare("store", required=True, text="the store takes messages")
    conditions.declare("clock", required=False, text="the clock is set")
    return conditions


def test_a_condition_comes_and_goes(conditions: Conditions, told: Told) -> None:
    assert conditions.is_ready
    conditions.raise_("store", "the disk is full", "make room")
    assert not conditions.is_ready
    assert conditions.is_raised("store")
    assert conditions.snapshot()[0] == {
        "name": "store",
        "status": "raised",
        "severity": "error",
        "required": True,
        "since": "2023-11-14T22:13:23.000Z",
        "text": "the store takes messages",
        "what": "the disk is full",
        "hint": "make room",
    }
    conditions.clear("store")
    assert conditions.is_ready
    shown = conditions.snapshot()[0]
    assert (shown["status"], shown["what"], shown["hint"]) == ("ok", "", "")
    assert shown["since"] == "2023-11-14T22:13:24.000Z"
    assert told.events == [("condition.raised", "store: the disk is full (make room)"), ("condition.cleared", "store")]


def test_only_transitions_are_told_and_counted(conditions: Conditions, told: Told) -> None:
    conditions.clear("store")
    conditions.raise_("store", "the disk is full", "make room")
    since = conditions.snapshot()[0]["since"]
    conditions.raise_("store", "the disk does not answer", "look at the cable")
    shown = conditions.snapshot()[0]
    assert (shown["since"], shown["what"], shown["hint"]) == (since, "the disk does not answer", "look at the cable")
    assert len(told.events) == 1
    assert dict(conditions.transitions()) == {("store",): 1, ("clock",): 0}
    assert dict(conditions.raised()) == {("store",): 1, ("clock",): 0}


def test_what_is_not_required_does_not_count_for_ready(conditions: Conditions) -> None:
    conditions.raise_("clock", "the clock stands in 1970")
    assert conditions.is_ready
    assert conditions.snapshot()[1]["severity"] == "warning"


def test_a_start_waits(conditions: Conditions, told: Told) -> None:
    conditions.declare("listener", required=True, text="HTTP is served", waits_for="starting")
    assert not conditions.is_ready
    assert conditions.snapshot()[2]["what"] == "starting"
    assert not told.events
    assert dict(conditions.transitions())["listener",] == 0
    conditions.clear("listener")
    assert conditions.is_ready


def test_declaring_again_changes_nothing(conditions: Conditions) -> None:
    conditions.raise_("clock", "the clock stands in 1970")
    conditions.declare("clock", required=False, text="the clock is set")
    assert conditions.is_raised("clock")
    with pytest.raises(AssertionError, match="two things"):
        conditions.declare("clock", required=True, text="the clock is set")


def test_what_is_withdrawn_is_told_as_cleared_and_forgotten(conditions: Conditions, told: Told) -> None:
    conditions.declare("link", required=True, text="it is up")
    conditions.raise_("link", "it is down")
    before = len(told.events)
    conditions.withdraw("link")
    assert told.events[before:] == [("condition.cleared", "link")]
    assert "link" not in [condition["name"] for condition in conditions.snapshot()]
    with pytest.raises(KeyError):
        conditions.raise_("link", "it is down")
    conditions.declare("link", required=False, text="something else")


def test_what_was_not_declared(conditions: Conditions) -> None:
    for act in (lambda: conditions.raise_("attic", "x"), lambda: conditions.clear("attic")):
        with pytest.raises(KeyError, match="attic"):
            act()


def test_another_thread_is_refused(conditions: Conditions) -> None:
    with ThreadPoolExecutor(1) as pool:
        for act in (lambda: conditions.raise_("store", "x"), lambda: conditions.clear("store")):
            with pytest.raises(AssertionError):
                pool.submit(act).result()
    assert conditions.is_ready


def test_snapshot_is_json(conditions: Conditions) -> None:
    assert json.loads(json.dumps(conditions.snapshot())) == conditions.snapshot()


def test_the_real_log_and_metrics_fit(caplog: pytest.LogCaptureFixture) -> None:
    conditions = Conditions(StepClock(), Log("edgegw.conditions"))
    metrics = Metrics()
    metrics.gauges_from("edgegw_condition_raised", "Raised.", ("condition",), conditions.raised)
    metrics.counters_from("edgegw_condition_transitions_total", "Transitions.", ("condition",), conditions.transitions)
    conditions.declare("store", required=True, text="the store takes messages")
    conditions.raise_("store", "full")
    assert 'edgegw_condition_raised{condition="store"} 1' in metrics.render()
    assert 'edgegw_condition_transitions_total{condition="store"} 1' in metrics.render()
    assert [record.message for record in caplog.records] == ["condition.raised"]

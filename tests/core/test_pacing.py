"""Rates hold over any stretch of time; the window finds what an upstream bears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.pacing import Bucket, Congestion


def test_without_a_rate_nothing_waits() -> None:
    bucket = Bucket(0, 0)
    bucket.spend(1e9)
    assert bucket.wait_s(0) == 0


def test_a_large_request_goes_and_is_paid_for_afterwards() -> None:
    bucket = Bucket(100, 0)
    assert bucket.wait_s(0) == 0
    bucket.spend(300)
    assert bucket.wait_s(0) == pytest.approx(2, abs=1e-3)
    assert bucket.wait_s(2.001) == 0


def test_at_most_a_second_is_saved_up() -> None:
    bucket = Bucket(100, 0)
    assert bucket.wait_s(1000) == 0
    bucket.spend(150)
    assert bucket.wait_s(1000) == pytest.approx(0.5, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 50)), min_size=1, max_size=200))
def test_the_rate_holds(steps: list[tuple[float, int]]) -> None:
    rate, now_s, sent = 20.0, 0.0, 0
    bucket = Bucket(rate, now_s)
    for passed_s, amount in steps:
        now_s += passed_s
        if bucket.wait_s(now_s) == 0:
            bucket.spend(amount)
            sent += amount
        assert sent <= rate * now_s + rate + 50, "a second's worth and one request above the rate at most"


def settled(congestion: Congestion, rtt_s: float, capacity: float) -> int:
    """The window after a while against an upstream that answers `capacity` requests in `rtt_s` without a queue."""
    for _ in range(800):
        congestion.answered(rtt_s * max(1.0, congestion.window / capacity))
    return congestion.window


def test_it_grows_to_what_the_upstream_bears_and_not_beyond() -> None:
    assert settled(Congestion(32), 0.1, 1000) == 32
    assert 9 <= settled(Congestion(32), 0.1, 8) <= 13
    assert settled(Congestion(32), 0.1, 1) <= 5
    assert settled(Congestion(4), 0.1, 1000) == 4


def test_failures_halve_it_down_to_one() -> None:
    congestion = Congestion(16)
    settled(congestion, 0.1, 1000)
    congestion.failed()
    assert congestion.window == 8
    for _ in range(10):
        congestion.failed()
    assert congestion.window == 1


def test_a_slower_path_is_learnt() -> None:
    congestion = Congestion(16)
    settled(congestion, 0.01, 1000)
    windows = []
    for _ in range(800):
        congestion.answered(0.5)
        windows.append(congestion.window)
    assert min(windows) <= 4, "it looks like a queue at first"
    assert windows[-1] == 16, "then the old shortest time is forgotten"

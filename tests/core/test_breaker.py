"""The breaker's table, line by line, and what it never does."""

from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.breaker import Breaker, BreakerState
from edgegw.core.retry import Backoff


def breaker(threshold: int = 3) -> Breaker:
    return Breaker(threshold, Backoff(1, 60, jitter=0))


def test_closed_lets_all_go() -> None:
    b = breaker()
    assert all(b.admit(0) for _ in range(5))
    b.succeed()
    assert b.state is BreakerState.CLOSED


def test_a_failure_makes_it_wait_and_a_success_starts_over() -> None:
    b = breaker()
    assert b.admit(0)
    b.fail(0, 0)
    assert (b.state, b.wait_s(0), b.admit(0.5), b.admit(1)) == (BreakerState.CLOSED, 1, False, True)
    b.succeed()
    b.fail(2, 0)
    assert b.wait_s(2) == 1, "not 2: the failures started over"


def test_it_opens_after_the_threshold_and_lets_one_find_out() -> None:
    b = breaker()
    for _ in range(3):
        b.fail(0, 0)
    assert (b.state, b.wait_s(0)) == (BreakerState.OPEN, 4)
    assert not b.admit(3.9)
    assert b.admit(4) and b.state is BreakerState.HALF_OPEN
    assert not b.admit(4), "one is under way"
    b.fail(5, 0)
    assert (b.state, b.wait_s(5)) == (BreakerState.OPEN, 8)
    assert b.admit(13)
    b.succeed()
    assert b.state is BreakerState.CLOSED and b.admit(13) and b.admit(13)


def test_what_was_under_way_when_it_opened_does_not_make_it_wait_longer() -> None:
    b = breaker(1)
    b.fail(0, 0)
    b.fail(0, 0)
    assert b.wait_s(0) == 1


def test_it_waits_at_least_as_long_as_it_was_asked_to() -> None:
    b = breaker()
    b.fail(0, 0, 30)
    assert b.wait_s(0) == 30
    b.fail(0, 0, 0)
    assert b.wait_s(0) == 30, "a later failure does not shorten it"


def test_a_success_that_was_under_way_does_not_shorten_what_was_asked_for() -> None:
    b = breaker()
    b.fail(0, 0, 30)
    b.succeed()
    assert (b.state, b.wait_s(0), b.wait_s(31)) == (BreakerState.CLOSED, 30, 0)
    b.fail(40, 0)
    b.succeed()
    assert b.wait_s(40) == 0, "a wait of our own ends with a success"


def test_what_was_under_way_when_it_opened_may_ask_for_a_wait() -> None:
    b = breaker(1)
    b.fail(0, 0)
    b.fail(0, 0, 30)
    assert (b.state, b.wait_s(0)) == (BreakerState.OPEN, 30)


def test_who_had_nothing_to_send_leaves_the_try_to_others() -> None:
    b = breaker(1)
    b.fail(0, 0)
    assert b.admit(1)
    b.withdraw()
    assert b.admit(1)


@given(st.lists(st.tuples(st.sampled_from(["fail", "succeed", "admit"]), st.floats(0, 100)), max_size=50))
def test_it_always_lets_somebody_try_again(program: list[tuple[str, float]]) -> None:
    b, now_s = breaker(), 0.0
    for what, passed_s in program:
        now_s += passed_s
        if what == "fail":
            b.fail(now_s, 0.5)
        elif what == "succeed":
            b.succeed()
        elif b.admit(now_s):
            b.withdraw()
    assert b.wait_s(now_s) <= 60
    assert b.admit(now_s + b.wait_s(now_s))

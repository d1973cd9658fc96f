"""Back-off: grows, stays under its cap, never overflows, and is a wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.retry import Backoff


def test_it_doubles_up_to_the_cap() -> None:
    backoff = Backoff(0.5, 60, factor=2, jitter=0)
    assert [backoff.next_delay(n, 0.7) for n in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_chance_takes_at_most_its_part() -> None:
    half = Backoff(1, 8, factor=2, jitter=0.5)
    assert [half.next_delay(1, chance) for chance in (0, 0.5, 1)] == [2, 1.5, 1]
    full = Backoff(1, 8, factor=2, jitter=1)
    assert [full.next_delay(3, chance) for chance in (0, 0.5, 1)] == [8, 4, 0]


def test_a_constant_wait() -> None:
    assert [Backoff(3, 3, jitter=0).next_delay(n, 0) for n in (0, 1, 10_000)] == [3, 3, 3]


@given(
    first_s=st.floats(1e-9, 1e6),
    times=st.floats(1, 1e9),
    factor=st.floats(1, 1e300, exclude_min=True),
    jitter=st.floats(0, 1),
    attempt=st.integers(0, 10_000) | st.integers(0, 2**70),
    chance=st.floats(0, 1),
)
def test_never_above_the_cap_and_never_an_overflow(
    first_s: float, times: float, factor: float, jitter: float, attempt: int, chance: float
) -> None:
    delay_s = Backoff(first_s, first_s * times, factor, jitter).next_delay(attempt, chance)
    assert 0 <= delay_s <= first_s * times


@pytest.mark.parametrize(
    "terms",
    [(0, 1, 2, 0), (-1, 1, 2, 0), (2, 1, 2, 0), (1, float("inf"), 2, 0), (1, 2, 1, 0), (1, 2, 2, 1.1), (1, 2, 2, -0.1)],
)
def test_what_is_no_back_off_is_refused(terms: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="no back-off"):
        Backoff(*terms)


def test_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="no back-off"):
        Backoff(float("nan"), 1)

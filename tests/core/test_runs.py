"""Runs of sequence numbers behave as the sets they stand for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.runs import Runs, above, holds, merged, run_around

PAIRS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def as_set(runs: Runs | list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in runs for seq in range(first, last + 1)}


@given(PAIRS, PAIRS)
def test_merged_is_the_union_and_has_no_run_too_many(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    runs = merged(merged((), a), b)
    assert as_set(runs) == as_set(a) | as_set(b)
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(runs))


@given(PAIRS, st.integers(0, 70))
def test_holds(pairs: list[tuple[int, int]], seq: int) -> None:
    assert holds(merged((), pairs), seq) == (seq in as_set(pairs))


@given(PAIRS, st.integers(0, 70))
def test_above(pairs: list[tuple[int, int]], floor: int) -> None:
    new_floor, runs = above(merged((), pairs), floor)
    inside = as_set(pairs)
    expected = floor
    while expected + 1 in inside:
        expected += 1
    assert new_floor == expected
    assert as_set(runs) == {seq for seq in inside if seq > expected}


def test_a_million_in_a_row_is_one_pair() -> None:
    runs: Runs = ()
    for first in range(1, 1_000_001, 1000):
        runs = merged(runs, [(first, first + 999)])
    assert runs == ((1, 1_000_000),)


def test_a_range_goes_on_over_its_neighbours() -> None:
    runs = ((1, 5), (10, 20), (30, 40))
    assert run_around(runs, 6, 9) == (1, 20)
    assert run_around(runs, 7, 8) == (7, 8)
    assert run_around(runs, 12, 32) == (10, 40)
    assert run_around((), 3, 4) == (3, 4)

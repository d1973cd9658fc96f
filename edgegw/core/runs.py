"""Sets of sequence numbers as runs: sorted pairs of first and last, none touching the next. A million in a row is one pair."""

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter

Runs = tuple[tuple[int, int], ...]

_first = itemgetter(0)


def holds(runs: Runs, seq: int) -> bool:
    """Whether `seq` is in the set."""
    at = bisect_right(runs, seq, key=_first) - 1
    return at >= 0 and seq <= runs[at][1]


def overlaps(runs: Runs, first: int, last: int) -> bool:
    """Whether anything from `first` to `last` is in the set."""
    at = bisect_right(runs, last, key=_first) - 1
    return at >= 0 and runs[at][1] >= first


def covers(runs: Runs, first: int, last: int) -> bool:
    """Whether everything from `first` to `last` is in the set."""
    at = bisect_right(runs, first, key=_first) - 1
    return at >= 0 and runs[at][1] >= last


def merged(runs: Runs, more: Iterable[tuple[int, int]]) -> Runs:
    """Both sets in one; `more` in any order, overlapping or not."""
    found: list[tuple[int, int]] = []
    for first, last in sorted([*runs, *more]):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return tuple(found)


def above(runs: Runs, floor: int) -> tuple[int, Runs]:
    """The floor, moved up over a run that touches it, and the runs above it."""
    rest: list[tuple[int, int]] = []
    for first, last in runs:
        if first <= floor + 1:
            floor = max(floor, last)
        else:
            rest.append((first, last))
    return floor, tuple(rest)


def run_around(runs: Runs, first: int, last: int) -> tuple[int, int]:
    """From `first` to `last`, and on over the runs that touch or overlap it."""
    touching = [run for run in runs if run[1] >= first - 1 and run[0] <= last + 1]
    return min([first, *(run[0] for run in touching)]), max([last, *(run[1] for run in touching)])

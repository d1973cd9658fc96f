"""What every bench shares: judged results, medians of interleaved pairs, and what the kernel says about a process."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TREE = Path(__file__).parent.parent.parent

# proc_pid_stat(5), counted from the state, which follows the last parenthesis.
_UTIME, _STIME = 11, 12
_SCALES = {"kB": 1024}


class BenchError(Exception):
    """A bench could not measure: something is missing, or what it started failed. Its text says what to do."""


class Options(NamedTuple):
    """What the command line asked for. `pairs` is None for each bench's own number; `loop` is `uvloop` or `asyncio`."""

    folder: Path
    loop: str = "uvloop"
    is_soak: bool = False
    pairs: int | None = None


class Goal(NamedTuple):
    """What must hold and what is aimed at, of the `ratio` or the `value`; `at_most` tells on which side."""

    of: str
    at_most: bool
    must: float
    aim: float

    def holds(self, figure: float) -> bool:
        """Whether the must is met."""
        return figure <= self.must if self.at_most else figure >= self.must


Result = dict[str, Any]


def judged(bench: str, value: float, unit: str, limit: float, goal: Goal, *, ratio: float | None = None, **more: Any) -> Result:
    """A bench's line; `ratio` where it is not simply value ÷ limit (a median of pairs is not the ratio of medians)."""
    ratio = value / limit if ratio is None else ratio
    return {
        "bench": bench,
        "value": rounded(value),
        "unit": unit,
        "limit": rounded(limit),
        "ratio": rounded(ratio),
        "judged": f"{goal.of} at {'most' if goal.at_most else 'least'}",
        "must": goal.must,
        "aim": goal.aim,
        "ok": goal.holds(ratio if goal.of == "ratio" else value),
        **more,
    }


def void(result: Result, reason: str) -> Result:
    """The same line, marked as measured in a way that says nothing; it holds no must."""
    return {**result, "ok": False, "void": True, "reason": reason} if reason else result


def rounded(number: float) -> float:
    """Four significant digits, or whole."""
    return round(number) if abs(number) >= 1000 else float(f"{number:.4g}")


# --- pairs ---------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """One measurement of the limit and, right after it, one of ours."""

    limit: float
    ours: float

    @property
    def ratio(self) -> float:
        """Ours ÷ limit."""
        return self.ours / self.limit


class Pairs(NamedTuple):
    """Medians: what else the machine does hits both of a pair, and a single bad pair moves nothing."""

    ours: float
    limit: float
    ratio: float
    ratios: list[float]


def interleaved(limit: Callable[[], float], ours: Callable[[], float], count: int) -> Pairs:
    """Measure limit, ours, limit, ours … `count` times each."""
    return medians([Pair(limit(), ours()) for _ in range(count)])


def medians(pairs: Sequence[Pair]) -> Pairs:
    """The median of each side and of the ratios."""
    return Pairs(
        median([pair.ours for pair in pairs]),
        median([pair.limit for pair in pairs]),
        median([pair.ratio for pair in pairs]),
        [rounded(pair.ratio) for pair in pairs],
    )


def median(numbers: Sequence[float]) -> float:
    """The middle one."""
    return float(statistics.median(numbers))


def percentile(numbers: Sequence[float], part: float) -> float:
    """The smallest number that `part` (0 to 1) of them do not exceed."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, max(0, -(-round(part * len(ordered) * 1e6) // 10**6) - 1))]


def plain_environ() -> dict[str, str]:
    """The environment of what is measured: without what would configure a gateway, or slow an interpreter down.

    PYTHONDONTWRITEBYTECODE, for one, makes every start compile each module that changed since the last test run.
    """
    foreign = ("EDGEGW_", "NOTIFY_", "LISTEN_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def measured_apart(module: str, *arguments: object) -> dict[str, float]:
    """What `python -m MODULE ARGUMENTS` prints as JSON: a measurement in a process of its own. Raises BenchError."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=TREE, env=plain_environ(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{module} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


# --- what the kernel says ------------------------------------------------------------------------


def cpu_ticks(stat: str) -> int:
    """User and system time in /proc/PID/stat, in clock ticks; the command's name may hold blanks and parentheses."""
    words = stat.rpartition(") ")[2].split()
    return int(words[_UTIME]) + int(words[_STIME])


def labelled_bytes(text: str, label: str) -> int:
    """The figure behind `label:` in the manner of /proc/PID/status, smaps_rollup and io. Raises BenchError."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name == label:
            number, _, unit = rest.strip().partition(" ")
            return int(number) * _SCALES.get(unit, 1)
    raise BenchError(f"the kernel says nothing of {label}")


def written_sectors(stat: str) -> int:
    """Sectors of 512 bytes written, in /sys/…/stat of a block device."""
    return int(stat.split()[6])


def mount_of(path: str, mounts: str) -> tuple[str, str]:
    """Device and type of the file system that holds `path`, by the text of /proc/self/mounts."""
    device, kind, longest = "", "", -1
    for line in mounts.splitlines():
        source, place, this_kind, *_ = line.split(" ")
        place = place.replace("\\040", " ")
        if (path + "/").startswith(place.rstrip("/") + "/") and len(place) >= longest:
            device, kind, longest = source, this_kind, len(place)
    return device, kind

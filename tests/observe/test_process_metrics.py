"""The process's own figures, against what the kernel tells by other ways."""

import os
import threading
import time
from pathlib import Path

import pytest

from edgegw.observe.metrics import Metrics
from edgegw.observe.process_metrics import watch_process


def _read(metrics: Metrics) -> dict[str, float]:
    lines = [line.split() for line in metrics.render().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_this_process() -> None:
    metrics = Metrics()
    watch_process(metrics)
    before = _read(metrics)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert before["process_threads"] == int(status["Threads"]) == threading.active_count()
    # The kernel counts in batches per core: a few hundred KiB either way.
    rss_bytes = int(status["VmRSS"].split()[0]) * 1024
    assert abs(before["process_resident_memory_bytes"] - rss_bytes) < 4 * 2**20
    assert before["process_cpu_seconds_total"] == pytest.approx(sum(os.times()[:2]), abs=1)
    assert time.time() - 3600 < before["process_start_time_seconds"] <= time.time() + 1
    with open(os.devnull):
        assert _read(metrics)["process_open_fds"] == before["process_open_fds"] + 1


def test_a_process_with_a_name_that_looks_like_figures(tmp_path: Path) -> None:
    (tmp_path / "self/fd").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "self/fd" / str(number)).touch()
    fields = [0] * 50
    fields[11:13], fields[17], fields[19], fields[21] = [150, 50], 4, 6000, 10
    (tmp_path / "self/stat").write_text(f"7 (a) 1 2) S {' '.join(map(str, fields[1:]))}\n")
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1000\n")
    metrics = Metrics()
    watch_process(metrics, str(tmp_path))
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert _read(metrics) == {
        "process_resident_memory_bytes": 10 * os.sysconf("SC_PAGE_SIZE"),
        "process_cpu_seconds_total": 200 * tick_s,
        "process_open_fds": 2,
        "process_threads": 4,
        "process_start_time_seconds": 1000 + 6000 * tick_s,
    }

"""What the kernel knows about this process, under the names that dashboards everywhere expect."""

import os

from edgegw.observe.metrics import Metrics

# proc_pid_stat(5), counted from the state, which follows the last parenthesis.
_UTIME, _STIME, _THREADS, _START, _RSS = 11, 12, 17, 19, 21


def watch_process(metrics: Metrics, proc: str = "/proc") -> None:
    """Add this process's memory, CPU time, descriptors, threads and start to `metrics`; they are read when somebody asks."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")

    def stat() -> list[int]:
        words = _text(f"{proc}/self/stat").rpartition(") ")[2].split()
        return [0, *map(int, words[1:])]

    def cpu_s() -> float:
        now = stat()
        return round((now[_UTIME] + now[_STIME]) * tick_s, 3)

    def open_fds() -> int:
        return len(os.listdir(f"{proc}/self/fd")) - 1  # one of them lists the others

    # Neither changes while the process lives.
    start_s = round(_boot_s(proc) + stat()[_START] * tick_s, 3)
    metrics.gauge_from("process_resident_memory_bytes", "Resident memory.", lambda: stat()[_RSS] * page_bytes)
    metrics.counter_from("process_cpu_seconds_total", "User and system CPU time.", cpu_s)
    metrics.gauge_from("process_open_fds", "Open file descriptors.", open_fds)
    metrics.gauge_from("process_threads", "Threads.", lambda: stat()[_THREADS])
    metrics.gauge_from("process_start_time_seconds", "Start, in seconds since 1970.", lambda: start_s)


def _boot_s(proc: str) -> int:
    """When the machine started, in seconds since 1970 by the clock of now."""
    for line in _text(f"{proc}/stat").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    raise LookupError(f"{proc}/stat has no btime")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()

"""The machine a figure belongs to: the first line of every run."""

import os
import platform
import sqlite3
import sys
import time
from importlib import metadata
from pathlib import Path

from tests.bench.measure import BenchError, Result, mount_of, percentile, rounded

# Nothing there is ever written to a device.
_IN_MEMORY = {"tmpfs", "ramfs"}
_FSYNCS = 300
_BLOCK = b"x" * 4096


def environment(folder: Path, loop: str) -> Result:
    """CPU, kernel, versions, file system, and what an fsync costs there."""
    p50_ms, p99_ms = fsync_ms(folder)
    return {
        "bench": "environment",
        "value": rounded(p50_ms),
        "unit": "ms per fsync, median",
        "limit": None,
        "ratio": None,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "file_system": file_system(folder),
        "fsync_p50_ms": rounded(p50_ms),
        "fsync_p99_ms": rounded(p99_ms),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "aiohttp": _version("aiohttp"),
        "uvloop": _version("uvloop"),
        "loop": loop,
        "load_average": [rounded(load) for load in os.getloadavg()],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def file_system(folder: Path) -> str:
    """Type of the file system that holds the folder. Raises BenchError where nothing would reach a disk."""
    kind = mount_of(str(folder.resolve()), Path("/proc/self/mounts").read_text())[1]
    if kind in _IN_MEMORY:
        raise BenchError(f"{folder} lies on {kind}, where an fsync costs nothing; name a folder on a disk with --dir")
    return kind


def fsync_ms(folder: Path) -> tuple[float, float]:
    """Median and 99th percentile of append 4 KiB + fsync, in ms."""
    path = folder / "fsync"
    took: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            started = time.perf_counter()
            file.write(_BLOCK)
            os.fsync(file.fileno())
            took.append((time.perf_counter() - started) * 1000)
    path.unlink()
    return percentile(took, 0.5), percentile(took, 0.99)


def has_uvloop() -> bool:
    """Whether this interpreter can run on uvloop."""
    return _version("uvloop") is not None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, model = line.partition(":")
        if name.strip() in {"model name", "uarch", "Model"}:
            return model.strip()
    return f"{platform.machine()} {sys.platform}"

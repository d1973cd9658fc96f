"""The machine itself as a source: every few seconds what /proc and /sys say, as messages under `host/…`.

Files are read in a thread, since a sensor may take its time to answer. Nobody waits for an acknowledgement: a round that the
store does not take is left out and counted, and the next one comes anyway.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from edgegw.core.record import JSON, Batch
from edgegw.errors import Busy, StoreError
from edgegw.limits import HOST_FILE_BYTES_MAX, HOST_FIRST_S, HOST_INTERVAL_S_MIN, HOST_PARTS_MAX
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.sources import host_files
from edgegw.sources.host_files import Values, level_of

_log = Log(__name__)
Reading = tuple[str, Values]


class Publisher(Protocol):
    """Who takes the readings: the bus."""

    async def publish_batch(self, batch: Batch, *, wait_s: float) -> object:
        """Store all of it, or raise StoreError, Busy."""


class HostSource:
    """Publishes to `bus`. `folder` is on the file system whose space is told; `proc` and `sys` are where those are mounted."""

    def __init__(
        self,
        bus: Publisher,
        metrics: Metrics,
        mono_s: Callable[[], float],
        *,
        folder: Path,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
    ) -> None:
        self._bus = bus
        self._mono_s = mono_s
        self._folder = folder
        self._proc = proc
        self._sys = sys
        self._before: dict[str, Values] = {}  # the counters of the round before, by topic …
        self._before_s = 0.0  # … and when that was
        self._skipped = metrics.counter(
            "edgegw_host_rounds_skipped_total", "Readings of the machine that the store did not take."
        )

    async def run(self, interval_s: float) -> None:
        """Until cancelled: a round every `interval_s`."""
        loop = asyncio.get_running_loop()
        interval_s = max(interval_s, HOST_INTERVAL_S_MIN)
        next_s = loop.time() + min(interval_s, HOST_FIRST_S)
        while True:
            await asyncio.sleep(next_s - loop.time())
            await self.publish()
            next_s = max(next_s + interval_s, loop.time())  # after a long sleep of the machine, one round is enough

    async def publish(self) -> None:
        """One round."""
        batch = await asyncio.to_thread(self._batch)
        if not batch.topics:
            return
        try:
            await self._bus.publish_batch(batch, wait_s=0)
        except (StoreError, Busy) as error:
            self._skipped.inc()
            _log.debug("host.skipped", error=error)

    # --- in the thread ------------------------------------------------------------------------------

    def _batch(self) -> Batch:
        now_s = self._mono_s()
        topics: list[str] = []
        payloads: list[bytes] = []
        counters: dict[str, Values] = {}
        for topic, values in self._readings():
            if not values or topic in counters:
                continue
            counters[topic] = values
            shown = values | self._derived(topic, values, now_s - self._before_s)
            topics.append(topic)
            payloads.append(json.dumps({name: value for name, value in shown.items() if not name.endswith("_ticks")}).encode())
        self._before, self._before_s = counters, now_s
        return Batch(topics, payloads, JSON)

    def _derived(self, topic: str, values: Values, seconds: float) -> Values:
        before = self._before.get(topic)
        if before is None:
            return {}
        if topic == "host/load":
            return host_files.busy(before, values)
        is_counter = topic.startswith(("host/network/", "host/disk/"))
        return host_files.rates(before, values, seconds) if is_counter else {}

    def _readings(self) -> Iterator[Reading]:
        proc = self._proc
        yield "host/load", host_files.load(_text(proc / "loadavg"), _text(proc / "stat"))
        yield "host/memory", host_files.memory(_text(proc / "meminfo"))
        yield "host/uptime", host_files.uptime(_text(proc / "uptime"))
        waits: Values = {}
        for resource in ("cpu", "memory", "io"):
            waits |= host_files.pressure(resource, _text(proc / "pressure" / resource))
        yield "host/pressure", waits
        yield "host/disk", _space(self._folder)
        blocks = frozenset(path.name for path in _listed(self._sys / "block"))
        yield from _bounded("host/disk", host_files.disks(_text(proc / "diskstats"), blocks))
        yield from _bounded("host/network", host_files.network(_text(proc / "net" / "dev")))
        yield from _bounded("host/temperature", self._temperatures())

    def _temperatures(self) -> dict[str, Values]:
        """Thermal zones by their type; hwmon's sensors by chip and label, without those that are a zone's other face."""
        found: dict[str, Values] = {}
        for zone in _listed(self._sys / "class" / "thermal", "thermal_zone"):
            kind = _text(zone / "type").strip() or zone.name
            _add(found, kind, host_files.temperature(_text(zone / "temp")))
        zones = {kind.replace("-", "_") for kind in found}
        for chip in _listed(self._sys / "class" / "hwmon"):
            name = _text(chip / "name").strip() or chip.name
            if name.replace("-", "_") not in zones:
                for sensor in _listed(chip, "temp"):
                    if sensor.name.endswith("_input"):
                        label = _text(sensor.with_name(sensor.name.replace("_input", "_label"))).strip()
                        label = label or sensor.name.removesuffix("_input")
                        _add(found, f"{name}-{label}", host_files.temperature(_text(sensor)))
        return found


def _add(found: dict[str, Values], name: str, values: Values) -> None:
    """Under its name, or the name with a number where another has it."""
    number = 1
    place = name
    while place in found:
        number += 1
        place = f"{name}-{number}"
    if values:
        found[place] = values


def _bounded(prefix: str, parts: dict[str, Values]) -> Iterator[Reading]:
    for name in sorted(parts)[:HOST_PARTS_MAX]:
        yield f"{prefix}/{level_of(name)}", parts[name]


def _space(folder: Path) -> Values:
    try:
        found = os.statvfs(folder)
    except OSError:
        return {}
    return {
        "total_bytes": found.f_blocks * found.f_frsize,
        "available_bytes": found.f_bavail * found.f_frsize,
        "inodes_total": found.f_files,
        "inodes_available": found.f_favail,
    }


def _text(path: Path) -> str:
    """The beginning of a file; empty where there is none, or it does not say."""
    try:
        with path.open("rb") as file:
            return file.read(HOST_FILE_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _listed(folder: Path, prefix: str = "") -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.startswith(prefix))[:HOST_PARTS_MAX]
    except OSError:
        return []

"""The machine as a source: a round is one batch; what is not there is left out; a full store skips it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import all_streams
from edgegw.config import BUILT_IN_STREAMS, StreamConfig
from edgegw.core.record import JSON, Batch
from edgegw.errors import Busy, StoreFull
from edgegw.limits import HOST_FIRST_S, HOST_INTERVAL_S_MIN, HOST_PARTS_MAX
from edgegw.observe.metrics import Metrics
from edgegw.sources.host import HostSource
from tests.bus_setup import HandClock, open_bus
from tests.virtual_time import pass_time, run_virtual


class Kept:
    """Takes batches, or refuses them."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.refusal: Exception | None = None

    async def publish_batch(self, batch: Batch, *, wait_s: float) -> object:
        assert wait_s == 0
        if self.refusal is not None:
            raise self.refusal
        self.batches.append(batch)
        return None

    def last(self) -> dict[str, Any]:
        batch = self.batches[-1]
        assert batch.content_type(0) == JSON
        return {topic: json.loads(payload) for topic, payload in zip(batch.topics, batch.payloads, strict=True)}


class Board:
    """/proc and /sys of a small board, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        self.write("proc/loadavg", "0.5 0.4 0.3 1/95 7\n", folder)
        self.write("proc/stat", "cpu  100 0 0 900 0 0 0 0\n", folder)
        self.write("proc/meminfo", "MemTotal: 1024 kB\n", folder)
        self.write("proc/uptime", "55.5 1\n", folder)
        self.write("proc/pressure/io", "some avg10=1.50 avg60=0 avg300=0 total=0\n", folder)
        self.write("proc/diskstats", "179 0 mmcblk0 100 5 2000 7 50 6 1000 8 0 900 15\n", folder)
        (folder / "sys/block/mmcblk0").mkdir(parents=True)
        self.network(rx_bytes=1000)
        for zone, kind, temp in ((0, "cpu-thermal", "48312"), (1, "gpu", "40000"), (2, "gpu", "41000"), (3, "broken", "")):
            self.write(f"sys/class/thermal/thermal_zone{zone}/type", f"{kind}\n", folder)
            self.write(f"sys/class/thermal/thermal_zone{zone}/temp", temp, folder)
        self.write("sys/class/hwmon/hwmon0/name", "cpu_thermal\n", folder)  # the first zone's other face
        self.write("sys/class/hwmon/hwmon0/temp1_input", "48312\n", folder)
        self.write("sys/class/hwmon/hwmon1/name", "nvme\n", folder)
        self.write("sys/class/hwmon/hwmon1/temp1_input", "35000\n", folder)
        self.write("sys/class/hwmon/hwmon1/temp1_label", "Composite #1\n", folder)

    def write(self, place: str, text: str, folder: Path | None = None) -> None:
        path = (folder or self.proc.parent) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def network(self, *, rx_bytes: int) -> None:
        self.write("proc/net/dev", f"a\nb\n  eth0: {rx_bytes} 2 0 0 0 0 0 0 500 4 0 0 0 0 0 0\n")

    def source(self, bus: object, clock: HandClock, metrics: Metrics | None = None) -> HostSource:
        return HostSource(bus, metrics or Metrics(), clock.mono_s, folder=self.proc, proc=self.proc, sys=self.sys)  # type: ignore[arg-type]


async def test_a_round(tmp_path: Path) -> None:
    board, kept, clock = Board(tmp_path), Kept(), HandClock()
    source = board.source(kept, clock)
    await source.publish()
    first = kept.last()
    assert first["host/load"] == {"load_1m": 0.5, "load_5m": 0.4, "load_15m": 0.3, "running": 1, "threads": 95}
    assert first["host/memory"] == {"total_bytes": 1_048_576}
    assert first["host/uptime"] == {"uptime_s": 55.5}
    assert first["host/pressure"] == {"io_some_10s_percent": 1.5}
    assert first["host/disk"].keys() == {"total_bytes", "available_bytes", "inodes_total", "inodes_available"}
    assert first["host/disk/mmcblk0"]["read_bytes"] == 1_024_000
    assert {topic: values["celsius"] for topic, values in first.items() if "temperature" in topic} == {
        "host/temperature/cpu-thermal": 48.312, "host/temperature/gpu": 40.0, "host/temperature/gpu-2": 41.0,
        "host/temperature/nvme-Composite__1": 35.0,
    }  # fmt: skip
    clock.pass_s(10)
    board.write("proc/stat", "cpu  150 0 0 950 0 0 0 0\n")
    board.network(rx_bytes=3000)
    await source.publish()
    second = kept.last()
    assert second["host/load"]["cpu_busy_percent"] == 50.0
    assert second["host/network/eth0"]["rx_bytes"] == 3000
    assert second["host/network/eth0"]["rx_bytes_per_s"] == 200.0
    assert second["host/network/eth0"]["tx_bytes_per_s"] == 0.0
    assert not any(name.endswith("_ticks") for values in second.values() for name in values)


async def test_its_topics_go_to_its_stream(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")
    clock = HandClock()
    async with open_bus(tmp_path, clock=clock) as bus:
        await board.source(bus, clock).publish()
        assert bus.head("host") > 8
        assert bus.head("default") == 0
        assert bus.route("host/garage/door") == "default"
        stats = bus.streams["host"]
        assert (stats.bytes_max, stats.age_max_s, stats.policy) == (8 << 20, 86_400.0, "drop-oldest")


def test_another_stream_may_take_them() -> None:
    mine = StreamConfig(name="mine", topics=("host/#",))
    streams = all_streams([StreamConfig(name="host"), mine], BUILT_IN_STREAMS)
    assert [stream.name for stream in streams] == ["mine", "default", "dead-letter", "host"]


async def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    kept = Kept()
    source = HostSource(kept, Metrics(), HandClock().mono_s, folder=tmp_path / "a", proc=tmp_path / "b", sys=tmp_path / "c")
    await source.publish()
    assert kept.batches == []


async def test_odd_files_are_left_out(tmp_path: Path) -> None:
    board, kept = Board(tmp_path), Kept()
    (tmp_path / "proc/meminfo").unlink()
    (tmp_path / "proc/meminfo").mkdir()
    (tmp_path / "proc/uptime").write_bytes(b"\xff\0\xfe")
    board.write("proc/net/dev", "a\nb\n" + "".join(f" v/+#{n}: {'1 ' * 16}\n" for n in range(500)))
    await board.source(kept, HandClock()).publish()
    found = kept.last()
    assert not {"host/memory", "host/uptime"} & found.keys()
    networks = [topic for topic in found if topic.startswith("host/network/")]
    assert len(networks) == HOST_PARTS_MAX
    assert networks[0] == "host/network/v___0"


@pytest.mark.parametrize("refusal", [StoreFull("store_full", "full"), Busy("busy", "busy")])
async def test_a_round_that_is_not_taken_is_skipped_and_counted(tmp_path: Path, refusal: Exception) -> None:
    board, kept, metrics = Board(tmp_path), Kept(), Metrics()
    source = board.source(kept, HandClock(), metrics)
    kept.refusal = refusal
    await source.publish()
    kept.refusal = None
    await source.publish()
    assert len(kept.batches) == 1
    assert "edgegw_host_rounds_skipped_total 1\n" in metrics.render()


def test_a_round_comes_at_each_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        rounds: list[float] = []
        now_s = asyncio.get_running_loop().time

        async def publish(_: HostSource) -> None:
            rounds.append(now_s())

        monkeypatch.setattr(HostSource, "publish", publish)
        source = HostSource(Kept(), Metrics(), HandClock().mono_s, folder=tmp_path)
        for interval_s, expected in ((10.0, [1.0, 11.0, 21.0]), (0.0, [HOST_INTERVAL_S_MIN * n for n in range(1, 4)])):
            rounds.clear()
            begun_s = now_s()
            task = asyncio.get_running_loop().create_task(source.run(interval_s))
            while len(rounds) < 3:
                await pass_time(0.05)
            task.cancel()
            await asyncio.wait({task})
            assert [round(at - begun_s, 3) for at in rounds[:3]] == [round(at, 3) for at in expected]
        assert HOST_FIRST_S == 1.0

    run_virtual(main())

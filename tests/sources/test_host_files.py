"""/proc and /sys as text: what they say on real machines, and whatever else somebody makes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.topic import check_topic
from edgegw.sources import host_files
from edgegw.sources.host_files import Values

NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 6938463    8859    0    0    0     0          0         0  6938463    8859    0    0    0     0       0          0
  eth0: 261974399  7329    1    2    0     0          0         0   453363    4752    3    4    0     0       0          0
wwan0:1 2 3
"""
DISKS = """ 179       0 mmcblk0 100 5 2000 7 50 6 1000 8 0 900 15 0 0 0 0
 179       1 mmcblk0p1 1 1 1 1 1 1 1 1 0 1 1
   7       0 loop0 9 9 9 9 9 9 9 9 9 9 9
   8       0 sda 1 2 3
"""


def test_load() -> None:
    stat = "cpu  8484 24 2577 360338 808 0 170 10 0 0\ncpu0 1 1 1 1\n"
    assert host_files.load("0.08 0.06 0.02 3/95 10142\n", stat) == {
        "load_1m": 0.08, "load_5m": 0.06, "load_15m": 0.02, "running": 3, "threads": 95,
        "cpu_ticks": 8484 + 24 + 2577 + 360338 + 808 + 170 + 10, "cpu_idle_ticks": 360338 + 808,
    }  # fmt: skip


def test_the_processors_share() -> None:
    before: Values = {"cpu_ticks": 1000, "cpu_idle_ticks": 900}
    assert host_files.busy(before, {"cpu_ticks": 1200, "cpu_idle_ticks": 950}) == {"cpu_busy_percent": 75.0}
    assert host_files.busy(before, {"cpu_ticks": 1000, "cpu_idle_ticks": 900}) == {}
    assert host_files.busy(before, {"cpu_ticks": 1200, "cpu_idle_ticks": 800}) == {}  # iowait may go backwards
    assert host_files.busy({}, before) == {}


def test_memory() -> None:
    assert host_files.memory("MemTotal:  1000 kB\nMemAvailable:  400 kB\nHugePages_Total: 0\nCached: x kB\n") == {
        "total_bytes": 1_024_000,
        "available_bytes": 409_600,
    }


def test_uptime_and_pressure() -> None:
    assert host_files.uptime("1885.04 3600.00\n") == {"uptime_s": 1885.04}
    text = "some avg10=0.13 avg60=0.58 avg300=0.31 total=7\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=0\n"
    assert host_files.pressure("io", text) == {"io_some_10s_percent": 0.13, "io_full_10s_percent": 1.0}


def test_network() -> None:
    assert host_files.network(NET) == {
        "eth0": {
            "rx_bytes": 261974399, "rx_packets": 7329, "rx_errors": 1, "rx_dropped": 2,
            "tx_bytes": 453363, "tx_packets": 4752, "tx_errors": 3, "tx_dropped": 4,
        }
    }  # fmt: skip


def test_disks() -> None:
    assert host_files.disks(DISKS, frozenset({"mmcblk0", "loop0", "sda"})) == {
        "mmcblk0": {"reads": 100, "read_bytes": 1_024_000, "writes": 50, "written_bytes": 512_000, "busy_ms": 900}
    }


@pytest.mark.parametrize(
    ("text", "celsius"), [("48312\n", 48.312), ("-5000", -5.0), ("0", 0.0), ("-274000", None), ("9999999", None), ("N/A", None)]
)
def test_temperature(text: str, celsius: float | None) -> None:
    assert host_files.temperature(text) == ({} if celsius is None else {"celsius": celsius})


def test_rates() -> None:
    before: Values = {"rx_bytes": 100, "tx_bytes": 500}
    assert host_files.rates(before, {"rx_bytes": 350, "tx_bytes": 20, "new": 1}, 10.0) == {"rx_bytes_per_s": 25.0}
    assert host_files.rates(before, before, 0.0) == {}


@given(st.text())
def test_any_name_makes_a_level(name: str) -> None:
    level = host_files.level_of(name)
    assert "/" not in level
    check_topic(f"host/network/{level}")


READERS = [
    lambda text: host_files.load(text, text),
    lambda text: host_files.load("0.1 0.2 0.3 1/2 3", "cpu " + text),
    host_files.memory,
    host_files.uptime,
    lambda text: host_files.pressure("cpu", text),
    host_files.network,
    lambda text: host_files.disks(text, frozenset(text.split())),
    host_files.temperature,
]


@given(st.sampled_from(READERS), st.text() | st.text("cpu 0123456789.:/\nkBMemTotalavg10=some"))
def test_nothing_raises(reader: object, text: str) -> None:
    assert callable(reader)
    assert isinstance(reader(text), dict)

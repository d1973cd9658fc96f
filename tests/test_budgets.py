"""What a gateway may cost, held: the figures of budgets.toml, measured as `./build.sh bench memory start` does."""

from pathlib import Path

import pytest

from tests.bench import bench_memory, bench_start
from tests.bench.budgets import budgets
from tests.bench.environment import has_uvloop
from tests.bench.servers import GatewayServer

pytestmark = [pytest.mark.ci, pytest.mark.timeout(300)]

LOOP = "uvloop" if has_uvloop() else "asyncio"
IDLE_S = 10
# A quarter of the bench's minute: what grows per request shows after 7,500 of them.
LOAD_S = 15
PAIRS = 9


def test_memory_idle_and_under_load(tmp_path: Path) -> None:
    with GatewayServer(tmp_path / "memory", LOOP) as gateway:
        idle_mib, _ = bench_memory.idle(gateway, IDLE_S)
        loaded_mib, per_s = bench_memory.loaded(gateway, LOAD_S)
    assert idle_mib <= budgets().idle_mib, "what was imported or allocated at start? python -X importtime -m edgegw run shows it"
    assert per_s >= bench_memory.RATE * bench_memory.RATE_PART_MIN, "the machine was too busy for this load"
    assert loaded_mib <= budgets().loaded_mib, "what is kept per request, connection or message?"


def test_start_against_the_bare_import(tmp_path: Path) -> None:
    stands, _ = bench_start.measure(tmp_path, LOOP, PAIRS)
    assert stands.ratio <= budgets().start_ratio, f"{stands}: python -X importtime -m edgegw run shows what is imported"

"""From exec to the first 200 of /healthz, against an interpreter that only imports the web framework."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.budgets import budgets
from tests.bench.measure import TREE, Goal, Options, Pair, Pairs, Result, judged, medians, plain_environ, rounded
from tests.bench.paced_client import PacedClient
from tests.bench.servers import GatewayServer

AIM = 1.1
PAIRS = 21
_STORED = 2000


def run(options: Options) -> Result:
    """With a data folder that is there; with a new one for information."""
    stands, new = measure(options.folder, options.loop, options.pairs or PAIRS)
    goal = Goal("ratio", at_most=True, must=budgets().start_ratio, aim=AIM)
    return judged(
        "start",
        stands.ours * 1000,
        "ms",
        stands.limit * 1000,
        goal,
        ratio=stands.ratio,
        ratios=stands.ratios,
        new_folder_ms=rounded(new.ours * 1000),
        new_folder_ratio=rounded(new.ratio),
        loop=options.loop,
    )


def measure(folder: Path, loop: str, count: int) -> tuple[Pairs, Pairs]:
    """Seconds with a data folder that is there, and with a new one, each against the bare import."""
    import asyncio

    place = folder / "start"
    with GatewayServer(place, loop) as first:
        client = PacedClient(first.port, "/v1/topics/bench/x", b"x" * 100, "text/plain", 2000)
        asyncio.run(client.run(_STORED / 2000))
        first.stop()
        stands, new = [], []
        import_s()
        start_s(place, loop)
        for _ in range(count):
            bare_s = import_s()
            stands.append(Pair(bare_s, start_s(place, loop)))
            new.append(Pair(bare_s, start_s(folder / "start-new", loop)))
            shutil.rmtree(folder / "start-new")
    return medians(stands), medians(new)


def import_s() -> float:
    """An interpreter that imports aiohttp.web, from exec to its end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import aiohttp.web"], cwd=TREE, env=plain_environ(), check=True)
    return time.perf_counter() - started


def start_s(folder: Path, loop: str) -> float:
    """A gateway on the folder, from exec to its first 200."""
    gateway = GatewayServer(folder, loop)
    took_s = gateway.start()
    gateway.stop()
    return took_s

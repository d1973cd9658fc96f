"""A thousand coroutines on one bus that each publish and wait for the receipt.

Run as `python -m tests.bench.publishers FOLDER SECONDS LOOP`.
The process is set up as the gateway sets itself up (event loop, switch interval, collector), without its HTTP.
"""

import asyncio
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

from edgegw.bus import Bus, all_streams
from edgegw.clock import SystemClock
from edgegw.config import BUILT_IN_STREAMS
from edgegw.limits import SWITCH_INTERVAL_S
from edgegw.store.jobs import Outcome
from edgegw.store.reader import Reader
from edgegw.store.writer import Writer
from tests.bench.limit_server import loop_factory
from tests.bench.raw_store import messages

_WARM_S = 0.5
_MIGRATIONS = Path(__file__).parent.parent.parent / "migrations" / "bus"
# Far more than a run stores: nothing is evicted.
_FREE_BYTES = 2**40


def new_bus(folder: Path) -> Bus:
    """A bus over a real database in the folder, not started."""
    streams, clock, path = all_streams((), BUILT_IN_STREAMS), SystemClock(), folder / "bus.db"
    writer = Writer(path, streams, clock, boot_id="bench", migrations=_MIGRATIONS, free_bytes=_FREE_BYTES)
    return Bus(writer, Reader(path), streams, clock, watch=_ignore, on_death=_give_up)


async def measure(folder: Path, seconds: float) -> dict[str, float]:
    """Receipts a second, and commits a second."""
    bus = new_bus(folder)
    await bus.start()
    gc.collect()
    gc.freeze()
    over = False

    async def publish(topic: str, payload: bytes) -> None:
        while not over:
            await bus.publish(topic, payload)

    async with asyncio.TaskGroup() as tasks:
        for topic, payload in zip(*messages(), strict=True):
            tasks.create_task(publish(topic, payload))
        await asyncio.sleep(_WARM_S)
        started, stored, turns = time.perf_counter(), bus.head("default"), bus.turns
        await asyncio.sleep(seconds)
        took_s = time.perf_counter() - started
        stored, turns = bus.head("default") - stored, bus.turns - turns
        over = True
    await bus.stop()
    return {"per_s": stored / took_s, "commits_per_s": turns / took_s}


def _ignore(outcome: Outcome, jobs: int) -> None:
    pass


def _give_up(error: BaseException) -> None:
    raise SystemExit(f"the writer died: {error!r}")


if __name__ == "__main__":
    where, how_long, kind = sys.argv[1:]
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with tempfile.TemporaryDirectory(dir=where) as place, asyncio.Runner(loop_factory=loop_factory(kind)) as runner:
        print(json.dumps(runner.run(measure(Path(place), float(how_long)))))

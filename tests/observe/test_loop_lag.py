"""A loop that stands still is seen as late."""

import asyncio
import time

from edgegw.observe.loop_lag import LoopLag
from edgegw.observe.metrics import Metrics


async def test_a_loop_that_stood_still_is_counted() -> None:
    metrics = Metrics()
    task = asyncio.create_task(LoopLag(metrics, time.monotonic).run())
    await asyncio.sleep(0)
    until_s = time.monotonic() + 0.3
    while time.monotonic() < until_s:
        pass
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    samples = dict(line.rsplit(" ", 1) for line in metrics.render().splitlines() if line.startswith("edgegw_loop_lag"))
    assert samples["edgegw_loop_lag_seconds_count"] == "1"
    assert samples['edgegw_loop_lag_seconds_bucket{le="0.1"}'] == "0"
    assert float(samples["edgegw_loop_lag_seconds_sum"]) > 0.15

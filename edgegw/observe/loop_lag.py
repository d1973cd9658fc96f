"""How late the event loop is: what every request waits for beside its own work."""

import asyncio
from collections.abc import Callable

from edgegw.limits import LATENCY_BUCKETS_US, LOOP_LAG_EVERY_S
from edgegw.observe.metrics import Metrics


class LoopLag:
    """Sleeps a little, again and again, and counts how much longer it took. `now_s` is the loop's clock."""

    def __init__(self, metrics: Metrics, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._lag = metrics.histogram("edgegw_loop_lag_seconds", "How late the event loop wakes a sleeper.", LATENCY_BUCKETS_US)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due_s = self._now_s() + LOOP_LAG_EVERY_S
            await asyncio.sleep(LOOP_LAG_EVERY_S)
            self._lag.observe(max(0, int((self._now_s() - due_s) * 1e6)))

"""The machine's clocks, in the units that their names say."""

import asyncio
import time

from edgegw.clock import SystemClock


def test_wall_time_is_in_milliseconds() -> None:
    before, now_ms, after = time.time(), SystemClock().wall_ms(), time.time()
    assert int(before * 1000) - 1 <= now_ms <= int(after * 1000) + 1
    assert isinstance(now_ms, int)


async def test_monotonic_time_is_that_of_the_loop() -> None:
    before, now_s, after = asyncio.get_running_loop().time(), SystemClock().mono_s(), time.monotonic()
    assert before <= now_s <= after

"""The clocks of the machine, as an object, so that tests and simulations bring their own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time may jump; monotonic time never does, and starts anew at each boot."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""

    def mono_s(self) -> float:
        """Seconds on the monotonic clock; the event loop runs on the same one."""


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def mono_s(self) -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

"""A circuit breaker: after a few failures in a row, stop asking, wait, and let one request find out.

    state       event        → state       and
    CLOSED      success      → CLOSED      failures start over
    CLOSED      failure      → CLOSED      a wait before the next try, while there are fewer than `threshold` in a row
    CLOSED      failure      → OPEN        … else
    OPEN        time         → HALF_OPEN   the wait is over: one request may go
    HALF_OPEN   success      → CLOSED
    HALF_OPEN   failure      → OPEN        a longer wait

The waits are those of `core.retry.Backoff`, and never shorter than what the peer asks for (Retry-After): a success that was
under way when it asked does not shorten that either.
"""

from enum import StrEnum

from edgegw.core.retry import Backoff


class BreakerState(StrEnum):
    """Whether requests may go."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """One peer's breaker; times in seconds of one monotonic clock, chance from the caller."""

    def __init__(self, threshold: int, backoff: Backoff) -> None:
        self._threshold = threshold
        self._backoff = backoff
        self._is_asking = False
        self.state = BreakerState.CLOSED
        self.failures = 0  # in a row
        self.wait_until_s = 0.0
        self._asked_until_s = 0.0  # by the peer

    def wait_s(self, now_s: float) -> float:
        """How long no request may go; 0 when one may."""
        return max(0.0, self.wait_until_s - now_s)

    def admit(self, now_s: float) -> bool:
        """Whether a request may go now; with True it is on its way, and `succeed` or `fail` must follow."""
        if now_s < self.wait_until_s:
            return False
        if self.state is BreakerState.OPEN:
            self.state, self._is_asking = BreakerState.HALF_OPEN, False
        if self.state is BreakerState.HALF_OPEN:
            if self._is_asking:
                return False
            self._is_asking = True
        return True

    def succeed(self) -> None:
        """The peer answered as it should."""
        self.state, self.failures, self._is_asking = BreakerState.CLOSED, 0, False
        self.wait_until_s = self._asked_until_s

    def fail(self, now_s: float, random01: float, at_least_s: float = 0.0) -> None:
        """It did not; `at_least_s` is what it asked for."""
        if at_least_s > 0:
            self._asked_until_s = max(self._asked_until_s, now_s + at_least_s)
            self.wait_until_s = max(self.wait_until_s, self._asked_until_s)
        if self.state is BreakerState.OPEN:
            return  # sent before it opened: says nothing new but how long to wait
        delay_s = self._backoff.next_delay(self.failures, random01)
        self.failures += 1
        self._is_asking = False
        self.wait_until_s = max(self.wait_until_s, now_s + delay_s)
        if self.state is BreakerState.HALF_OPEN or self.failures >= self._threshold:
            self.state = BreakerState.OPEN

    def withdraw(self) -> None:
        """The admitted request was not sent after all."""
        self._is_asking = False

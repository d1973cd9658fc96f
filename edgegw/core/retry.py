"""How long to wait before the next try: exponential back-off with jitter.

The wait before try n is `first_s x factor^n`, at most `cap_s`; of that, the part `jitter` is left to chance:

    jitter 0      always the whole wait: tests
    jitter 0.5    between half of it and all of it: never at once, yet gateways that fell together come back spread out
    jitter 1      anywhere between nothing and all of it ("full jitter"): spreads a large fleet best, may try again at once

Decorrelated jitter (each wait drawn from the one before) spreads no better and would make the wait depend on more than the
number of the try.
"""

import math


class Backoff:
    """The waits of one kind of retry, in seconds; ValueError when they would not be waits."""

    __slots__ = ("_attempts_to_cap", "_cap_s", "_factor", "_first_s", "_jitter")

    def __init__(self, first_s: float, cap_s: float, factor: float = 2.0, jitter: float = 0.5) -> None:
        if not (0 < first_s <= cap_s < math.inf and 1 < factor < math.inf and 0 <= jitter <= 1):
            raise ValueError(f"no back-off: first {first_s} s, cap {cap_s} s, factor {factor}, jitter {jitter}")
        self._first_s = first_s
        self._cap_s = cap_s
        self._factor = factor
        self._jitter = jitter
        # Beyond this many the power would only be cut to the cap, and in the end overflow.
        self._attempts_to_cap = math.log(cap_s / first_s, factor)

    def next_delay(self, attempt: int, random01: float) -> float:
        """Seconds to wait after failure number `attempt` (from 0), with `random01` in [0, 1) from the caller's chance."""
        assert attempt >= 0
        assert 0 <= random01 <= 1
        whole_s = self._cap_s
        if attempt < self._attempts_to_cap:
            # The logarithm is rounded, so the last power may still be a hair above the cap.
            whole_s = min(self._cap_s, self._first_s * self._factor**attempt)
        return whole_s * (1 - self._jitter * random01)

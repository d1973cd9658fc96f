"""How fast a link may send: a token bucket for what the operator allows, a congestion window for what the upstream bears.

Bucket: tokens come at `rate_per_s` and at most a second's worth is saved up. A request may go while there is any token and is
paid for in full, so the balance may be negative: requests are not cut to fit, and the rate still holds.

Congestion window: how many requests may be under way at once, in the manner of TCP Vegas (Brakmo and Peterson, 1995). Of
`window` requests, those beyond what the shortest time of an answer explains wait in a queue at the upstream:

    queued = window * (1 - shortest / latest)

Fewer than ALPHA queued: one more per window of answers; more than BETA: one less; a failure halves it. A faster upstream gets
more, a slow one is not buried, and nobody has to know its limits. The shortest time is forgotten after a while, for paths
change.
"""

ALPHA, BETA = 2.0, 4.0
# Answers after which the shortest time counts anew.
_FORGET = 256


class Bucket:
    """Tokens at `rate_per_s`, 0 = without limit; times in seconds of one monotonic clock."""

    __slots__ = ("_at_s", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._tokens = rate_per_s
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """How long until something may go; 0 = now."""
        if not self._rate_per_s:
            return 0.0
        self._tokens = min(self._rate_per_s, self._tokens + (now_s - self._at_s) * self._rate_per_s)
        self._at_s = now_s
        return 0.0 if self._tokens > 0 else (1e-6 - self._tokens) / self._rate_per_s

    def spend(self, amount: float) -> None:
        """This much goes."""
        if self._rate_per_s:
            self._tokens -= amount


class Congestion:
    """How many requests may be under way: 1 to `most`."""

    __slots__ = ("_answers", "_most", "_next_shortest_s", "_shortest_s", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 1.0
        self._shortest_s = self._next_shortest_s = float("inf")
        self._answers = 0

    @property
    def window(self) -> int:
        """Requests that may be under way now."""
        return int(self._size)

    def answered(self, took_s: float) -> None:
        """A request of ordinary size was answered in this time."""
        took_s = max(took_s, 1e-6)
        self._shortest_s = min(self._shortest_s, took_s)
        self._next_shortest_s = min(self._next_shortest_s, took_s)
        self._answers += 1
        if self._answers % _FORGET == 0:
            self._shortest_s, self._next_shortest_s = self._next_shortest_s, float("inf")
        queued = self._size * (1 - self._shortest_s / took_s)
        if queued < ALPHA:
            self._size = min(float(self._most), self._size + 1 / self._size)
        elif queued > BETA:
            self._size = max(1.0, self._size - 1 / self._size)

    def failed(self) -> None:
        """A request was not answered, or with a refusal that asks for less."""
        self._size = max(1.0, self._size / 2)

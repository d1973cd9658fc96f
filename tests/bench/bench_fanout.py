"""2,000 messages a second, published one by one, to 10 event streams: how old a message is when it arrives."""

import re

from tests.bench.measure import BenchError, Goal, Options, Result, judged, measured_apart, rounded, void
from tests.bench.servers import GatewayServer

GOAL = Goal("value", at_most=True, must=10, aim=5)
LAG_MUST_MS, LAG_AIM_MS = 5, 2
RATE = 2000
STREAMS = 10
WARM_S = 2
RUN_S = 20
RATE_PART_MIN = 0.97
_BUCKET = re.compile(r'edgegw_loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)')


def run(options: Options) -> Result:
    """One run; the lag of the loop by the gateway's own histogram, over the same time."""
    with GatewayServer(options.folder / "fanout", options.loop) as gateway:

        def load(seconds: int) -> dict[str, float]:
            return measured_apart("tests.bench.fanout_load", gateway.port, RATE, STREAMS, seconds)

        load(WARM_S)
        before, cpu_s = lag_counts(gateway.text("/metrics")), gateway.cpu_s()
        found = load(RUN_S)
        cores = (gateway.cpu_s() - cpu_s) / RUN_S
        lag_ms = percentile_ms(before, lag_counts(gateway.text("/metrics")), 0.99)
    if found["received"] != found["wanted"]:
        raise BenchError(f"{found['received']} of {found['wanted']} events arrived")
    result = judged(
        "fanout", found["p99_ms"], "ms", GOAL.must, GOAL,
        p50_ms=rounded(found["p50_ms"]), max_ms=rounded(found["max_ms"]), loop_lag_p99_ms=lag_ms,
        loop_lag_must_ms=LAG_MUST_MS, loop_lag_aim_ms=LAG_AIM_MS, rate=rounded(found["rate"]), cores=rounded(cores),
        loop=options.loop,
    )  # fmt: skip
    result["ok"] = result["ok"] and lag_ms <= LAG_MUST_MS
    slow = found["rate"] < RATE * RATE_PART_MIN
    return void(result, f"{found['rate']:.0f} messages a second were published, not {RATE}" if slow else "")


def lag_counts(metrics: str) -> dict[float, int]:
    """Cumulative counts by upper bound in ms."""
    return {float(bound.replace("+Inf", "inf")) * 1000: int(count) for bound, count in _BUCKET.findall(metrics)}


def percentile_ms(before: dict[float, int], after: dict[float, int], part: float) -> float:
    """The upper bound of the bucket that holds it."""
    total = max(after.values()) - max(before.values())
    return min(bound for bound, count in after.items() if count - before[bound] >= part * total)

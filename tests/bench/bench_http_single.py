"""POST of 100 bytes, durable, over 32 keep-alive connections, against a bare aiohttp server that stores nothing."""

import time
from typing import NamedTuple

from tests.bench.measure import Goal, Options, Pair, Result, judged, median, medians, rounded, void
from tests.bench.servers import GatewayServer, LimitServer, Server
from tests.bench.wrk import Load, post

GOAL = Goal("ratio", at_most=False, must=0.5, aim=0.65)
CONNECTIONS = 32
PAIRS = 7
WARM_S = 2
RUN_S = 4
# With less the server waited for something (the client, the disk, other programs), and the ratio says nothing about it.
CORES_MIN = 0.9
# So many times the pairs asked for, on a machine that is busy with other things.
TRIES = 3
PATH = "/v1/topics/bench/x"


class _Run(NamedTuple):
    load: Load
    cores: float


def run(options: Options) -> Result:
    """Interleaved pairs, limit first; a pair in which a server waited is measured again."""
    body = options.folder / "single.body"
    body.write_bytes(b"x" * 100)

    def measure(server: Server, seconds: int) -> _Run:
        cpu_s, started = server.cpu_s(), time.perf_counter()
        url = f"http://127.0.0.1:{server.port}{PATH}"
        load = post(url, body, "application/octet-stream", connections=CONNECTIONS, seconds=seconds)
        return _Run(load, (server.cpu_s() - cpu_s) / (time.perf_counter() - started))

    wanted = options.pairs or PAIRS
    with LimitServer(options.loop) as limit, GatewayServer(options.folder / "single", options.loop) as gateway:
        measure(limit, WARM_S)
        answered = measure(gateway, WARM_S).load.requests
        runs: list[tuple[_Run, _Run]] = []
        while sum(map(_counts, runs)) < wanted and len(runs) < wanted * TRIES:
            runs.append((measure(limit, RUN_S), measure(gateway, RUN_S)))
        received = gateway.received()
    answered += sum(ours.load.requests for _, ours in runs)
    valid = [pair for pair in runs if _counts(pair)]
    reason = (
        f"{len(valid)} pairs of {len(runs)} in which both servers used {CORES_MIN} cores or more" if len(valid) < wanted else ""
    )
    if received < answered:
        reason = f"{answered} publishes were acknowledged, and {received} are stored"
    return void(_result(valid if len(valid) >= wanted else runs, len(runs), options.loop), reason)


def _counts(pair: tuple[_Run, _Run]) -> bool:
    return all(side.cores >= CORES_MIN for side in pair)


def _result(runs: list[tuple[_Run, _Run]], tried: int, loop: str) -> Result:
    pairs = medians([Pair(theirs.load.per_s, ours.load.per_s) for theirs, ours in runs])
    return judged(
        "http_single",
        pairs.ours,
        "requests/s",
        pairs.limit,
        GOAL,
        ratio=pairs.ratio,
        ratios=pairs.ratios,
        tried=tried,
        limit_cores=rounded(median([theirs.cores for theirs, _ in runs])),
        cores=rounded(median([ours.cores for _, ours in runs])),
        p50_ms=rounded(median([ours.load.p50_us for _, ours in runs]) / 1000),
        p99_ms=rounded(median([ours.load.p99_us for _, ours in runs]) / 1000),
        loop=loop,
    )

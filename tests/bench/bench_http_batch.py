"""Batches of 1,000 × 100 bytes, durable, over 4 connections, against rows put straight into SQLite."""

import time

import msgpack

from tests.bench.measure import Goal, Options, Result, interleaved, judged, measured_apart, median, rounded
from tests.bench.raw_store import MESSAGES, messages
from tests.bench.servers import GatewayServer
from tests.bench.wrk import post

GOAL = Goal("ratio", at_most=False, must=0.6, aim=1.0)
CONNECTIONS = 4
PAIRS = 5
WARM_S = 1
RUN_S = 4


def run(options: Options) -> Result:
    """Interleaved pairs, limit first."""
    topics, payloads = messages()
    body = options.folder / "batch.body"
    body.write_bytes(msgpack.packb([{"topic": t, "payload": p} for t, p in zip(topics, payloads, strict=True)]))
    cores: list[float] = []
    with GatewayServer(options.folder / "batch", options.loop) as gateway:

        def ours(seconds: int = RUN_S) -> float:
            cpu_s, started = gateway.cpu_s(), time.perf_counter()
            url = f"http://127.0.0.1:{gateway.port}/v1/messages"
            load = post(url, body, "application/msgpack", connections=CONNECTIONS, seconds=seconds)
            cores.append((gateway.cpu_s() - cpu_s) / (time.perf_counter() - started))
            return load.per_s * MESSAGES

        def limit() -> float:
            return measured_apart("tests.bench.raw_store", "rows", options.folder, RUN_S)["per_s"]

        ours(WARM_S)
        pairs = interleaved(limit, ours, options.pairs or PAIRS)
    return judged(
        "http_batch",
        pairs.ours,
        "messages/s",
        pairs.limit,
        GOAL,
        ratio=pairs.ratio,
        ratios=pairs.ratios,
        cores=rounded(median(cores[1:])),
        loop=options.loop,
    )

"""A backlog of 1,000,000 messages over a link to a second gateway, live messages beside it, against `http_batch`."""

import http.client
import shutil
from pathlib import Path

import msgpack

from tests.bench.measure import BenchError, Goal, Options, Result, judged, measured_apart, rounded
from tests.bench.raw_store import MESSAGES, messages
from tests.bench.servers import GatewayServer
from tests.bench.wrk import post

GOAL = Goal("ratio", at_most=False, must=0.5, aim=0.8)
LIVE_MUST_S = 1.0
TOTAL = 1_000_000
LIVE_RATE = 50
CONNECTIONS = 4
WARM_S = 1
LIMIT_S = 4


def filled(gateway: GatewayServer, body: Path, seconds: int) -> float:
    """Messages a second that bench http_batch would say."""
    url = f"http://127.0.0.1:{gateway.port}/v1/messages"
    post(url, body, "application/msgpack", connections=CONNECTIONS, seconds=WARM_S)
    return post(url, body, "application/msgpack", connections=CONNECTIONS, seconds=seconds).per_s * MESSAGES


def run(options: Options) -> Result:
    """Fill, with the limit measured on the way; then drain with a link, to a gateway that knows keys."""
    topics, payloads = messages()
    body = options.folder / "drain.body"
    body.write_bytes(msgpack.packb([{"topic": t, "payload": p} for t, p in zip(topics, payloads, strict=True)]))
    folder, config = options.folder / "drain", options.folder / "drain.toml"
    shutil.rmtree(folder, ignore_errors=True)
    with GatewayServer(options.folder / "drained", options.loop) as upstream:
        with GatewayServer(options.folder / "drain-limit", options.loop) as peer:
            limit = filled(peer, body, LIMIT_S)
        source = GatewayServer(folder, options.loop)
        source.start()
        connection = http.client.HTTPConnection("127.0.0.1", source.port)
        for _ in range(TOTAL // MESSAGES):
            connection.request("POST", "/v1/messages", body.read_bytes(), {"Content-Type": "application/msgpack"})
            connection.getresponse().read()
        connection.close()
        backlog = source.received()
        source.stop()
        config.write_text(f'[[link]]\nname = "up"\nurl = "http://127.0.0.1:{upstream.port}/v1/messages"\n')
        with GatewayServer(folder, options.loop, config=config) as drained:
            cpu_s, upstream_cpu_s = drained.cpu_s(), upstream.cpu_s()
            found = measured_apart("tests.bench.drain_load", drained.port, upstream.port, LIVE_RATE, backlog)
            cores = (drained.cpu_s() - cpu_s) / found["took_s"]
            upstream_cores = (upstream.cpu_s() - upstream_cpu_s) / found["took_s"]
            rss_mib = drained.rss_mib()
    if found["arrived"] < backlog:
        raise BenchError(f"{found['arrived']} of {backlog} messages arrived")
    result = judged(
        "drain", backlog / found["took_s"], "messages/s", limit, GOAL,
        backlog=backlog, live=found["live"], live_p99_s=rounded(found["live_p99_s"]), live_max_s=rounded(found["live_max_s"]),
        live_must_s=LIVE_MUST_S, cores=rounded(cores), upstream_cores=rounded(upstream_cores), rss_mib=rounded(rss_mib),
        loop=options.loop,
    )  # fmt: skip
    result["ok"] = result["ok"] and found["live"] > 0 and found["live_max_s"] <= LIVE_MUST_S
    return result

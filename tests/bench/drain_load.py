"""Live messages during bench drain: `python -m tests.bench.drain_load FROM_PORT TO_PORT RATE TOTAL` prints JSON at the end."""

import asyncio
import json
import sys
import time
from contextlib import suppress

from tests.bench.event_client import EventReader
from tests.bench.fanout_load import publish
from tests.bench.measure import percentile

_POLL_S = 0.05
_GIVE_UP_S = 300.0


async def received(port: int) -> int:
    """Messages that the gateway there has stored, by its ledger."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["streams"]["default"]["received"])


async def measure(source: int, target: int, rate: float, total: int) -> dict[str, float]:
    """Publish live messages at the source until `total` messages of the backlog arrived at the target."""
    reader = EventReader(target, "/v1/stream?topic=live/%23")
    connected = asyncio.Semaphore(0)
    reading = asyncio.create_task(reader.run(connected))
    await connected.acquire()
    started_s = time.perf_counter()
    publishing = asyncio.gather(*(publish(source, "live", rate, _GIVE_UP_S, place) for place in range(16)))
    arrived = 0
    while arrived - len(reader.delays_s) < total and time.perf_counter() - started_s < _GIVE_UP_S:
        await asyncio.sleep(_POLL_S)
        arrived = await received(target)
    took_s = time.perf_counter() - started_s
    publishing.cancel()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await publishing
    await asyncio.wait({reading})
    delays = reader.delays_s
    return {
        "took_s": took_s,
        "arrived": arrived,
        "live": len(delays),
        "live_p99_s": percentile(delays, 0.99) if delays else 999.0,
        "live_max_s": max(delays, default=999.0),
    }


if __name__ == "__main__":
    _, source_port, target_port, live_rate, wanted = sys.argv
    print(json.dumps(asyncio.run(measure(int(source_port), int(target_port), float(live_rate), int(wanted)))))

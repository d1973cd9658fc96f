"""The load of bench fanout, apart: `python -m tests.bench.fanout_load PORT RATE STREAMS SECONDS` prints JSON."""

import asyncio
import json
import sys
from contextlib import suppress

from tests.bench.event_client import EventReader, stamp
from tests.bench.measure import percentile

_CONNECTIONS = 16
_ANSWER_S = 30.0


async def publish(port: int, topic: str, rate: float, seconds: float, place: int) -> None:
    """One connection's share of `rate` messages a second."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/topics/{topic}/{place} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )
    started_s = loop.time()
    for number in range(place, round(seconds * rate), _CONNECTIONS):
        await asyncio.sleep(max(0.0, started_s + number / rate - loop.time()))
        body = stamp()
        writer.write(head.encode() + b"%d\r\n\r\n%b" % (len(body), body))
        async with asyncio.timeout(_ANSWER_S):
            answer = await reader.readuntil(b"}\n")
        assert answer.startswith(b"HTTP/1.1 201 "), answer
    writer.close()


async def measure(port: int, rate: float, streams: int, seconds: float) -> dict[str, float]:
    """Publish at `rate` to `streams` readers; delays in ms."""
    readers = [EventReader(port, "/v1/stream?topic=fan/%23") for _ in range(streams)]
    connected = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(reader.run(connected)) for reader in readers]
    for _ in readers:
        await connected.acquire()
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    await asyncio.gather(*(publish(port, "fan", rate, seconds, place) for place in range(_CONNECTIONS)))
    took_s = loop.time() - started_s
    wanted = round(seconds * rate) * streams
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.gather(*(reader.has(wanted // streams) for reader in readers))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    delays = [delay for reader in readers for delay in reader.delays_s]
    return {
        "p50_ms": percentile(delays, 0.5) * 1000,
        "p99_ms": percentile(delays, 0.99) * 1000,
        "max_ms": max(delays) * 1000,
        "received": len(delays),
        "wanted": wanted,
        "rate": round(seconds * rate) / took_s,
    }


if __name__ == "__main__":
    _, port, rate, streams, seconds = sys.argv
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(measure(int(port), float(rate), int(streams), float(seconds)))))

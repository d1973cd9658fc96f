"""What a message of 100 bytes costs the flash at batches of 1,000: bytes written, with WAL, checkpoints and a clean stop."""

import http.client
import os
from pathlib import Path

import msgpack

from tests.bench.measure import BenchError, Goal, Options, Result, judged, rounded, written_sectors
from tests.bench.raw_store import MESSAGES, messages
from tests.bench.servers import GatewayServer

GOAL = Goal("value", at_most=True, must=300, aim=220)
BATCHES = 400
_SECTOR_BYTES = 512


def run(options: Options) -> Result:
    """One batch after the other, so that each is a commit."""
    topics, payloads = messages()
    body = msgpack.packb([{"topic": t, "payload": p} for t, p in zip(topics, payloads, strict=True)])
    with GatewayServer(options.folder / "wear", options.loop) as gateway:
        device = _sectors(options.folder)
        before_bytes = gateway.written_bytes()
        _send(gateway.port, body)
        under_load_bytes = gateway.written_bytes() - before_bytes
        os.sync()
        device_after = _sectors(options.folder)
        # What it wrote in its whole life, with the last checkpoint of a clean stop, less what its start wrote.
        written_bytes = gateway.stop().ru_oublock * _SECTOR_BYTES - before_bytes
    count = BATCHES * MESSAGES
    more: dict[str, float] = {"running_bytes": rounded(under_load_bytes / count), "messages": count}
    if device is not None and device_after is not None:
        # Everything that anybody wrote there meanwhile, the file system's own journal included.
        more["device_bytes"] = rounded((device_after - device) * _SECTOR_BYTES / count)
    return judged("wear", written_bytes / count, "bytes written per message", GOAL.must, GOAL, **more)


def _send(port: int, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for _ in range(BATCHES):
        connection.request("POST", "/v1/messages", body, {"Content-Type": "application/msgpack"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 201:
            raise BenchError(f"a batch was answered {response.status}: {answer[:200]!r}")
    connection.close()


def _sectors(folder: Path) -> int | None:
    number = os.stat(folder).st_dev
    try:
        return written_sectors(Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text())
    except OSError:
        return None

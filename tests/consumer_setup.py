"""What the tests of a consumer share."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import Bus, Options
from edgegw.config import StreamConfig
from edgegw.consumer import Consumer, Delivered
from edgegw.core.record import OCTETS, Gap
from tests.bus_setup import HandClock, make_terms, open_bus

Rows = list[Delivered | Gap]


@asynccontextmanager
async def opened(
    folder: Path, *configs: StreamConfig, clock: HandClock | None = None, **terms: Any
) -> AsyncIterator[tuple[Bus, Consumer]]:
    async with open_bus(folder, *configs, clock=clock) as bus:
        if "c" not in bus.consumers:
            await bus.make_consumer(make_terms("c", **terms), 0)
        yield bus, bus.consumer("c")


async def publish(bus: Bus, count: int, topic: str = "t", payload: bytes = b"x", ttl_s: float | None = None) -> None:
    for _ in range(count):
        await bus.publish(topic, payload, OCTETS, None if ttl_s is None else Options(ttl_s=ttl_s))


class LoopClock(HandClock):
    """Time passes."""

    def mono_s(self) -> float:
        return time.monotonic()


def seqs(rows: Rows) -> list[int]:
    return [row.message.seq for row in rows if isinstance(row, Delivered)]


def counts(rows: Rows) -> dict[int, int]:
    return {row.message.seq: row.deliveries for row in rows if isinstance(row, Delivered)}


def gaps(rows: Rows) -> list[tuple[int, int, int, str]]:
    return [(row.first, row.last, row.messages, row.reason) for row in rows if isinstance(row, Gap)]


def before(bus: Bus, name: str, step: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `step` happen while the consumer waits for what this method of the bus reads."""
    read = getattr(bus, name)

    async def stepped(*args: Any) -> Any:
        result = await read(*args)
        await step()
        return result

    monkeypatch.setattr(bus, name, stepped)

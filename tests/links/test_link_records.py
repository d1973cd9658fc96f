"""What became of a link's messages: in the ledger once, through failing commits, and without gaps in what is told upstream."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import Bus
from edgegw.clock import SystemClock
from edgegw.core.block import Block
from edgegw.core.cursor import Ledger
from edgegw.core.lanes import Lane, Parcel
from edgegw.core.record import Message
from edgegw.errors import StoreError
from edgegw.links import link_records
from edgegw.links.link_metrics import LinkMetrics
from edgegw.links.link_records import LinkRecords
from edgegw.observe.metrics import Metrics
from tests.bus_setup import make_terms, open_bus


def parcel(first: int, last: int, *seqs: int) -> Parcel:
    block = Block.of([Message("default", seq, "t", 0, "text/plain", b"%d" % seq) for seq in seqs]) if seqs else None
    return Parcel(Lane.LIVE, first, last, block)


async def records_on(bus: Bus, count: int = 10, stream: str = "default") -> LinkRecords:
    """Of a consumer that wants `count` messages of the stream `default`, or those of another."""
    await asyncio.gather(*(bus.publish("t", b"x") for _ in range(count)))
    await bus.make_consumer(make_terms("link.up", stream=stream), 0)
    return LinkRecords(bus, bus.consumer("link.up"), SystemClock(), "up", LinkMetrics(Metrics(), list))


def ledger(bus: Bus) -> Ledger:
    return bus.consumer("link.up").ledger


def fail(bus: Bus, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next commits fail."""
    submit, left = bus.submit, [None] * times

    def failing(job: Any) -> Any:
        if left:
            left.pop()
            raise StoreError("store_failed", "no")
        return submit(job)

    monkeypatch.setattr(bus, "submit", failing)


async def test_what_was_taken_is_settled_in_one_commit(tmp_path: Path) -> None:
    async with open_bus(tmp_path) as bus:
        records = await records_on(bus)
        for each in (parcel(1, 3, 1, 2, 3), parcel(7, 8, 7, 8), parcel(9, 10)):
            records.settle(each)
        assert records.unwritten == 3
        turns = bus.turns
        await records.write()
        assert (bus.turns, records.unwritten) == (turns + 1, 0)
        assert (ledger(bus).acked, ledger(bus).floor, ledger(bus).settled) == (5, 3, ((7, 10),))
        await records.write()
        assert bus.turns == turns + 1, "nothing to write"


async def test_a_commit_that_fails_leaves_it_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bus(tmp_path) as bus:
        records = await records_on(bus)
        records.settle(parcel(1, 2, 1, 2))
        fail(bus, monkeypatch, 1)
        with pytest.raises(StoreError):
            await records.write()
        records.settle(parcel(3, 3, 3))
        assert (records.unwritten, ledger(bus).acked) == (2, 0)
        await records.write()
        assert (ledger(bus).acked, ledger(bus).floor) == (3, 3)


async def test_ranges_reach_over_what_is_over_and_no_further(tmp_path: Path) -> None:
    async with open_bus(tmp_path) as bus:
        records = await records_on(bus, 40)
        records.settle(parcel(1, 5, 2))
        records.settle(parcel(10, 20))
        assert records.around(parcel(6, 6, 6)) == (1, 6)
        assert records.around(parcel(7, 9, 7)) == (7, 20), "6 is still under way"
        await records.bury(parcel(6, 6, 6), "http_400")
        assert records.around(parcel(7, 9, 7)) == (1, 20)
        assert records.around(parcel(30, 31, 30)) == (30, 31)
        await records.write()
        again = LinkRecords(bus, bus.consumer("link.up"), SystemClock(), "up", LinkMetrics(Metrics(), list))
        assert again.around(parcel(7, 9, 7)) == (1, 20), "a start finds it in the ledger"


async def test_refused_and_expired_are_told_apart_and_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_records, "LINK_IDLE_S", 0.001)
    async with open_bus(tmp_path) as bus:
        records = await records_on(bus)
        fail(bus, monkeypatch, 2)
        await records.bury(parcel(1, 2, 2), "http_422")
        fail(bus, monkeypatch, 1)
        await records.expire([3, 4])
        await records.expire([3, 4])
        assert (ledger(bus).dead_lettered, ledger(bus).lost, ledger(bus).acked) == (1, {"ttl": 2}, 0)
        page = await bus.page("dead-letter", "#", 0, 10, 1000)
        (letter,) = [item for item in page.items if isinstance(item, Message)]
        assert (letter.topic, letter.payload, letter.origin) == ("t", b"2", ("link.up", 0, "http_422"))


async def test_a_dead_letter_is_not_buried_again(tmp_path: Path) -> None:
    async with open_bus(tmp_path) as bus:
        first = await records_on(bus, 1)
        await first.bury(parcel(1, 1, 1), "http_400")
        await bus.delete_consumer("link.up")
        records = await records_on(bus, 0, "dead-letter")
        assert ledger(bus).pending == 1
        await records.bury(parcel(1, 1, 1), "http_400")
        assert (ledger(bus).dead_lettered, ledger(bus).pending, bus.head("dead-letter")) == (1, 0, 1)

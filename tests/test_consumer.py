"""A durable consumer at work: each message until it is settled, whatever is cancelled, fails or comes in between."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import Bus, Options
from edgegw.config import StreamConfig
from edgegw.consumer import Consumer, Delivered
from edgegw.core.record import OCTETS, Batch, Gap, Origin
from edgegw.errors import Conflict, NotFound, StoreError, StoreFull
from edgegw.limits import FETCH_PAUSE_S, INFLIGHT_MAX, KIB, MIB, PAGE_BYTES, WINDOW_MESSAGES_MAX
from tests.bus_setup import BusParts, HandClock, make_terms, open_bus, until

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


# --- fetch and acknowledge ------------------------------------------------------------------------


async def test_messages_come_in_order_and_once(tmp_path: Path) -> None:
    async with opened(tmp_path, topic_filter="a") as (bus, consumer):
        for topic in ("a", "b", "a", "b", "a"):
            await bus.publish(topic, topic.encode())
        assert counts(await consumer.fetch(2, 0)) == {1: 1, 3: 1}
        assert counts(await consumer.fetch(9, 0)) == {5: 1}
        assert await consumer.fetch(9, 0) == []
        await consumer.ack([1, 3])
        ledger = consumer.ledger
        assert (ledger.matched, ledger.acked, ledger.pending, ledger.floor, consumer.inflight) == (3, 2, 1, 4, 1)
        await consumer.ack_upto(5)
        assert (consumer.ledger.floor, consumer.inflight) == (5, 0)


async def test_a_backlog_longer_than_the_window(tmp_path: Path) -> None:
    async with opened(tmp_path, max_inflight=5000) as (bus, consumer):
        total = 2 * WINDOW_MESSAGES_MAX + 10
        await bus.publish_batch(Batch(["t"] * total, [b""] * total, OCTETS))
        assert seqs(await consumer.fetch(5000, 0)) == list(range(1, total + 1))


async def test_no_more_than_max_inflight_are_out(tmp_path: Path) -> None:
    async with opened(tmp_path, max_inflight=3) as (bus, consumer):
        await publish(bus, 5)
        assert seqs(await consumer.fetch(9, 0)) == [1, 2, 3]
        assert await consumer.fetch(9, 0) == []
        await consumer.ack([2])
        assert seqs(await consumer.fetch(9, 0)) == [4]


async def test_fetch_waits_for_a_message(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        waiting = asyncio.create_task(consumer.fetch(9, 20))
        await asyncio.sleep(0)
        await publish(bus, 1)
        assert seqs(await waiting) == [1]


async def test_fetch_waits_for_room(tmp_path: Path) -> None:
    async with opened(tmp_path, max_inflight=1) as (bus, consumer):
        await publish(bus, 2)
        await consumer.fetch(9, 0)
        waiting = asyncio.create_task(consumer.fetch(9, 20))
        await asyncio.sleep(0)
        await consumer.ack([1])
        assert seqs(await waiting) == [2]


async def test_fetch_ends_when_the_consumer_is_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        waiting = asyncio.create_task(consumer.fetch(9, 20))
        await asyncio.sleep(0)
        await bus.delete_consumer("c")
        assert await waiting == []
        assert await consumer.fetch(9, 20) == []
        with pytest.raises(Conflict):
            await consumer.ack([1])


async def test_what_was_not_delivered_cannot_be_settled(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        await publish(bus, 2)
        for call in (consumer.ack([1]), consumer.ack_upto(1), consumer.ack([99])):
            with pytest.raises(Conflict) as caught:
                await call
            assert caught.value.code == "not_delivered"
        with pytest.raises(Conflict):
            consumer.nack([1], 0)
        await consumer.fetch(9, 0)
        await consumer.ack([1])
        await consumer.ack([1, 2])
        await consumer.ack([2])
        assert consumer.ledger.acked == 2


async def test_one_fetch_takes_so_many_bytes(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 12, payload=bytes(MIB))
        first = await consumer.fetch(100, 0)
        assert len(first) <= PAGE_BYTES // MIB + 1
        while await consumer.fetch(100, 0):
            pass
        assert consumer.inflight == 12
        clock.pass_s(30)
        again: list[int] = []
        while rows := await consumer.fetch(100, 0):
            assert len(rows) <= PAGE_BYTES // MIB + 1
            again += seqs(rows)
        assert again == list(range(1, 13))


# --- again ----------------------------------------------------------------------------------------


async def test_what_is_not_acknowledged_comes_again(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 3)
        await consumer.fetch(9, 0)
        consumer.nack([2], 0)
        assert counts(await consumer.fetch(9, 0)) == {2: 2}
        clock.pass_s(29)
        assert await consumer.fetch(9, 0) == []
        clock.pass_s(1)
        await publish(bus, 1)
        assert counts(await consumer.fetch(9, 0)) == {1: 2, 2: 3, 3: 2, 4: 1}


async def test_a_nack_wakes_who_waits(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        waiting = asyncio.create_task(consumer.fetch(9, 20))
        await asyncio.sleep(0)
        consumer.nack([1], 0)
        assert counts(await waiting) == {1: 2}


async def test_after_a_restart_what_was_not_acknowledged_comes_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        await publish(bus, 5)
        await consumer.fetch(9, 0)
        consumer.nack([4], 0)
        await consumer.fetch(9, 0)
        await consumer.ack([1, 3])
    async with opened(tmp_path) as (bus, consumer):
        assert bus.consumer("c").ledger.pending == 3
        assert counts(await consumer.fetch(9, 0)) == {2: 1, 4: 3, 5: 1}


async def test_a_commit_that_fails_acknowledges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    parts = BusParts(tmp_path, clock=clock)
    bus = parts.bus
    await bus.start()
    await bus.make_consumer(make_terms("c"), 0)
    consumer = bus.consumer("c")
    await publish(bus, 2)
    await consumer.fetch(9, 0)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(parts.writer, "_settle", fail)
        with pytest.raises(StoreError):
            await consumer.ack([1])
    assert (consumer.ledger.acked, consumer.inflight) == (0, 2)
    clock.pass_s(30)
    assert counts(await consumer.fetch(9, 0)) == {1: 2, 2: 2}
    await consumer.ack([1, 2])
    assert consumer.ledger.pending == 0
    await bus.stop()


async def test_an_acknowledgement_whose_caller_is_gone_still_counts(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 2)
        await consumer.fetch(9, 0)
        acking = asyncio.create_task(consumer.ack([1]))
        await asyncio.sleep(0)
        acking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acking
        await bus.probe()
        assert (consumer.ledger.acked, consumer.inflight) == (1, 1)
        clock.pass_s(30)
        assert counts(await consumer.fetch(9, 0)) == {2: 2}  # not 1: it is acknowledged
        await consumer.ack([2])
        assert (consumer.ledger.pending, consumer.ledger.floor, consumer.inflight) == (0, 2, 0)


async def test_an_acknowledgement_beside_another_waits_for_the_same_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        turns = bus.turns
        await asyncio.gather(consumer.ack([1]), consumer.ack([1]), consumer.ack_upto(1))
        assert bus.turns > turns
        assert consumer.ledger.acked == 1


# --- several workers ------------------------------------------------------------------------------


async def test_each_message_goes_to_one_worker(tmp_path: Path) -> None:
    async with opened(tmp_path, clock=LoopClock(), max_inflight=1000) as (bus, consumer):
        got: list[int] = []

        async def work() -> None:
            while len(got) < 300:
                rows = await consumer.fetch(7, 0.05)
                got.extend(seqs(rows))
                if rows:
                    await consumer.ack(seqs(rows))

        workers = [asyncio.create_task(work()) for _ in range(5)]
        for _ in range(30):
            await bus.publish_batch(Batch(["t"] * 10, [b""] * 10, OCTETS))
        await asyncio.gather(*workers)
        assert sorted(got) == list(range(1, 301))


async def test_a_worker_that_begins_does_not_take_the_wake_of_one_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        inside, proceed = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            inside.set()
            await proceed.wait()

        with monkeypatch.context() as patched:
            before(bus, "page", hold, patched)
            await publish(bus, 1, topic="other")
            first = asyncio.create_task(consumer.fetch(1, 20))
            await inside.wait()  # it has read up to 2 …
            await publish(bus, 2)  # … when two more come, …
            second = asyncio.create_task(consumer.fetch(1, 20))  # … and another worker begins
            await asyncio.sleep(0)
            proceed.set()
            third = asyncio.create_task(consumer.fetch(1, 20))
            found = [seqs(rows) for rows in await asyncio.wait_for(asyncio.gather(first, second, third), 20)]
        assert sorted(found) == [[2], [3], [4]]


async def test_who_waits_hears_of_a_deadline_that_another_worker_set(tmp_path: Path) -> None:
    async with opened(tmp_path, ack_wait_s=0.1) as (bus, consumer):
        consumer._clock = LoopClock()
        waiting = asyncio.create_task(consumer.fetch(9, 20))
        await asyncio.sleep(0)
        other = asyncio.create_task(consumer.fetch(9, 20))
        await publish(bus, 1)
        done, _ = await asyncio.wait([waiting, other], return_when=asyncio.FIRST_COMPLETED)
        assert counts(done.pop().result()) == {1: 1}
        last = await asyncio.wait_for(asyncio.gather(waiting, other), 10)
        assert sorted(count for rows in last for count in counts(rows).values()) == [1, 2]


# --- what comes in between ------------------------------------------------------------------------


async def test_a_fetch_that_is_cancelled_half_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, max_inflight=2000, max_deliver=1) as (bus, consumer):
        total = WINDOW_MESSAGES_MAX + 100
        await bus.publish_batch(Batch(["t"] * total, [b""] * total, OCTETS))
        pages = 0

        async def stall_at_the_second() -> None:
            nonlocal pages
            pages += 1
            if pages == 2:
                await asyncio.Event().wait()

        with monkeypatch.context() as patched:
            before(bus, "page", stall_at_the_second, patched)
            fetching = asyncio.create_task(consumer.fetch(1000, 0))
            await until(lambda: pages == 2, "the second page is read")
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
        # It did not get out of the house: at one delivery at most it would be a dead letter otherwise.
        rows = await consumer.fetch(1000, 0)
        assert counts(rows) == dict.fromkeys(range(1, total + 1), 1)
        await consumer.ack(seqs(rows))
        assert (consumer.ledger.acked, consumer.ledger.pending, consumer.ledger.floor) == (total, 0, total)


async def test_an_acknowledgement_during_a_fetch_does_not_pass_what_the_fetch_has_in_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, max_inflight=2000) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(1, 0)
        total = 2 * WINDOW_MESSAGES_MAX
        await bus.publish_batch(Batch(["t"] * total, [b""] * total, OCTETS))
        floors: list[int] = []

        async def acknowledge() -> None:
            await consumer.ack([1])
            floors.append(consumer.ledger.floor)

        with monkeypatch.context() as patched:
            before(bus, "page", acknowledge, patched)
            rows = await consumer.fetch(2000, 0)
        assert floors == [1, 1]
        assert seqs(rows) == list(range(2, total + 2))
        await consumer.ack(seqs(rows))
        assert (consumer.ledger.acked, consumer.ledger.pending) == (total + 1, 0)


async def test_what_is_acknowledged_while_it_is_read_again_does_not_go_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 2)
        await consumer.fetch(9, 0)
        clock.pass_s(30)

        async def acknowledge() -> None:
            await consumer.ack([1])

        with monkeypatch.context() as patched:
            before(bus, "pick", acknowledge, patched)
            assert counts(await consumer.fetch(9, 0)) == {2: 2}
        assert consumer.inflight == 1


async def test_what_is_refused_while_it_is_read_again_waits_for_its_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 2)
        await consumer.fetch(9, 0)
        clock.pass_s(30)

        async def refuse() -> None:
            consumer.nack([1], 100)

        with monkeypatch.context() as patched:
            before(bus, "pick", refuse, patched)
            assert counts(await consumer.fetch(9, 0)) == {2: 2}


async def test_a_message_nobody_settles_holds_back_what_comes_far_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert INFLIGHT_MAX > 40
    monkeypatch.setattr("edgegw.core.cursor.INFLIGHT_MAX", 40)
    async with opened(tmp_path, topic_filter="t", max_inflight=10) as (bus, consumer):
        for _ in range(200):
            await publish(bus, 1, "t")
            await publish(bus, 1, "u")
        got: list[int] = []
        while rows := await consumer.fetch(10, 0):
            got += seqs(rows)
            await consumer.ack([seq for seq in seqs(rows) if seq != 1])
        assert 40 <= len(consumer.ledger.settled) <= 50
        await consumer.ack([1])
        while rows := await consumer.fetch(10, 0):
            got += seqs(rows)
            await consumer.ack(seqs(rows))
        assert got == list(range(1, 400, 2))


# --- losses ---------------------------------------------------------------------------------------


async def test_what_expires_is_a_gap_in_its_place_and_counted(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock) as (bus, consumer):
        await publish(bus, 1)
        await publish(bus, 2, ttl_s=10)
        await publish(bus, 1)
        clock.pass_s(10)
        rows = await consumer.fetch(9, 0)
        assert [row.last if isinstance(row, Gap) else row.message.seq for row in rows] == [1, 3, 4]
        assert gaps(rows) == [(2, 3, 2, "ttl")]
        assert (consumer.ledger.lost, consumer.ledger.pending) == ({"ttl": 2}, 2)
        clock.pass_s(30)
        assert gaps(await consumer.fetch(9, 0)) == [(2, 3, 2, "ttl")]  # until it is read
        await consumer.ack([4])
        clock.pass_s(30)
        assert gaps(await consumer.fetch(9, 0)) == []
        assert consumer.ledger.gaps == ()


async def test_what_expires_around_a_message_leaves_the_message(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, max_deliver=9) as (bus, consumer):
        await publish(bus, 1, ttl_s=40)
        await publish(bus, 1)
        await publish(bus, 1, ttl_s=40)
        await consumer.fetch(9, 0)
        clock.pass_s(30)
        assert counts(await consumer.fetch(9, 0)) == {1: 2, 2: 2, 3: 2}
        consumer.nack([1, 3], 20)
        consumer.nack([2], 100)
        clock.pass_s(20)
        assert gaps(await consumer.fetch(9, 0)) == [(1, 3, 2, "ttl")]
        assert consumer.inflight == 1
        clock.pass_s(80)
        rows = await consumer.fetch(9, 0)
        assert counts(rows) == {2: 3}  # neither forgotten nor begun anew
        await consumer.ack([2, 3])
        ledger = consumer.ledger
        assert (ledger.acked, ledger.lost, ledger.pending, ledger.gaps, ledger.floor) == (1, {"ttl": 2}, 0, (), 3)


async def test_a_gap_that_was_not_delivered_is_not_acknowledged(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, max_deliver=9) as (bus, consumer):
        await publish(bus, 1, ttl_s=20)
        await publish(bus, 1)
        assert seqs(await consumer.fetch(1, 0)) == [1]
        consumer.nack([1], 25)
        await publish(bus, 1, ttl_s=10)
        clock.pass_s(10)
        assert gaps(await consumer.fetch(9, 0)) == [(3, 3, 1, "ttl")]
        clock.pass_s(15)
        fetching = asyncio.create_task(consumer.fetch(1, 0))
        await until(lambda: len(consumer.ledger.gaps) == 2, "1 expired")
        rows = await fetching
        if not gaps(rows):
            await consumer.ack([3])
            rows = await consumer.fetch(9, 0)
        assert (1, 1, 1, "ttl") in gaps(rows)


async def test_an_expiry_that_cannot_be_counted_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the floor would pass a message that is neither acknowledged nor lost."""
    clock = HandClock()
    parts = BusParts(tmp_path, clock=clock)
    bus = parts.bus
    await bus.start()
    await bus.make_consumer(make_terms("c"), 0)
    consumer = bus.consumer("c")
    await publish(bus, 1)
    await publish(bus, 1, ttl_s=1)
    await publish(bus, 1)
    clock.pass_s(1)

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(parts.writer, "_settle", fail)
        with pytest.raises(StoreError):
            await consumer.fetch(9, 0)
    rows = await consumer.fetch(9, 0)
    assert (seqs(rows), gaps(rows)) == ([1, 3], [(2, 2, 1, "ttl")])
    await consumer.ack_upto(3)
    assert (consumer.ledger.pending, consumer.ledger.lost) == (0, {"ttl": 1})
    await bus.stop()


async def test_messages_that_all_expire_do_not_lengthen_the_record(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, topic_filter="t") as (bus, consumer):
        for _ in range(60):
            await publish(bus, 1, "t", ttl_s=1)
            await publish(bus, 1, "u")
            clock.pass_s(1)
            await consumer.fetch(9, 0)
        assert consumer.ledger.lost == {"ttl": 60}
        assert len(consumer.ledger.settled) <= 1
        assert consumer.ledger.floor > 110


async def test_what_is_evicted_is_a_gap_whether_it_was_delivered_or_not(tmp_path: Path) -> None:
    config = StreamConfig(name="s", topics=("s/#",), bytes_max=64 * KIB, policy="drop-oldest")
    async with opened(tmp_path, config, stream="s") as (bus, consumer):
        await publish(bus, 7, "s/x", bytes(9000))
        assert seqs(await consumer.fetch(2, 0)) == [1, 2]
        await publish(bus, 4, "s/x", bytes(9000))
        assert consumer.inflight == 0
        rows = await consumer.fetch(100, 0)
        assert sum(messages for _, _, messages, _ in gaps(rows)) == 4
        assert seqs(rows) == [5, 6, 7, 8, 9, 10, 11]
        await consumer.ack([1, 2])  # what was in hand when it was evicted: no fault, and it stays lost
        await consumer.ack_upto(11)
        ledger = consumer.ledger
        assert (ledger.acked, ledger.lost, ledger.pending, ledger.gaps) == (7, {"bytes": 4}, 0, ())


# --- dead letters ---------------------------------------------------------------------------------


async def letters(bus: Bus) -> list[tuple[str, bytes, Origin | None]]:
    page = await bus.page("dead-letter", "#", 0, 1000, MIB)
    return [(item.topic, item.payload, item.origin) for item in page.items if not isinstance(item, Gap)]


async def test_after_its_last_delivery_a_message_is_a_dead_letter(tmp_path: Path) -> None:
    async with opened(tmp_path, max_deliver=2) as (bus, consumer):
        await bus.publish("poison", b"1", "text/x", Options(source_us=5))
        await bus.publish("fine", b"2")
        await consumer.fetch(9, 0)
        consumer.nack([1], 0)
        assert counts(await consumer.fetch(9, 0)) == {1: 2}
        consumer.nack([1], 0)
        assert await consumer.fetch(9, 0) == []
        assert await letters(bus) == [("poison", b"1", Origin("c", 2, "max_deliver"))]
        await consumer.ack([2])
        ledger = consumer.ledger
        assert (ledger.acked, ledger.dead_lettered, ledger.pending, ledger.floor) == (1, 1, 0, 2)


async def test_time_alone_buries_what_nobody_fetches(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, max_deliver=1) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        await bus.tick()
        assert await letters(bus) == []
        clock.pass_s(30)
        await bus.tick()
        assert len(await letters(bus)) == 1
        assert consumer.ledger.pending == 0


async def test_what_is_acknowledged_while_it_is_buried_is_no_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, max_deliver=1) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        clock.pass_s(30)
        acks: list[asyncio.Task[None]] = []

        async def acknowledge() -> None:
            acks.append(asyncio.create_task(consumer.ack([1])))
            await asyncio.sleep(0)

        with monkeypatch.context() as patched:
            before(bus, "pick", acknowledge, patched)
            assert await consumer.fetch(9, 0) == []
        await asyncio.gather(*acks)
        assert await letters(bus) == []
        assert consumer.ledger.acked == 1


async def test_spent_messages_wait_while_dead_letters_have_no_room(tmp_path: Path) -> None:
    clock = HandClock()
    config = StreamConfig(name="dead-letter", bytes_max=64 * KIB)
    async with opened(tmp_path, config, clock=clock, max_deliver=1, max_inflight=5) as (bus, consumer):
        await bus.make_consumer(make_terms("undertaker", stream="dead-letter"), 0)
        await publish(bus, 4, payload=bytes(20 * KIB))
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        clock.pass_s(30)
        for _ in range(5):
            await bus.tick()
        assert len(await letters(bus)) == 3
        assert (consumer.ledger.dead_lettered, consumer.ledger.pending) == (3, 2)
        with pytest.raises(StoreFull):
            await consumer.bury()
        await publish(bus, 1)
        assert seqs(await consumer.fetch(9, 0)) == [6]  # they do not hold up the rest
        undertaker = bus.consumer("undertaker")
        await undertaker.ack(seqs(await undertaker.fetch(9, 0)))
        await bus.tick()
        await bus.tick()
        assert consumer.ledger.dead_lettered == 5


async def test_a_fetch_that_waits_beside_spent_messages_does_not_spin(tmp_path: Path) -> None:
    config = StreamConfig(name="dead-letter", bytes_max=64 * KIB)
    clock = HandClock()
    async with opened(tmp_path, config, clock=clock, max_deliver=1) as (bus, consumer):
        await bus.make_consumer(make_terms("undertaker", stream="dead-letter"), 0)
        await publish(bus, 4, payload=bytes(20 * KIB))
        await consumer.fetch(9, 0)
        clock.pass_s(30)
        for _ in range(5):
            await bus.tick()
        consumer._clock = LoopClock()
        consumer._bury_from_s = 0.0
        for flight in consumer._delivery._flights.values():
            flight.due_s = 0.0
        turns, began_s = bus.turns, asyncio.get_running_loop().time()
        assert await consumer.fetch(9, 5 * FETCH_PAUSE_S) == []
        passed_s = asyncio.get_running_loop().time() - began_s
        assert bus.turns - turns <= 2 + passed_s  # a try a second, not one a millisecond


async def test_a_full_dead_letter_stream_of_one_consumer_does_not_stop_the_tick(tmp_path: Path) -> None:
    clock = HandClock()
    config = StreamConfig(name="dead-letter", bytes_max=64 * KIB)
    async with opened(tmp_path, config, clock=clock, max_deliver=1) as (bus, consumer):
        await bus.make_consumer(make_terms("undertaker", stream="dead-letter"), 0)
        await publish(bus, 4, payload=bytes(20 * KIB))
        await bus.make_consumer(make_terms("later", topic_filter="small", max_deliver=1), 0)
        await publish(bus, 1, "small")
        await consumer.fetch(4, 0)
        await bus.consumer("later").fetch(4, 0)
        clock.pass_s(30)
        for _ in range(4):
            await bus.tick()
        assert consumer.ledger.pending == 2
        assert bus.consumer("later").ledger.dead_lettered == 1


async def test_many_dead_letters_fit_into_the_smallest_stream(tmp_path: Path) -> None:
    """In portions: all at once would never fit, and nothing would ever be buried."""
    clock = HandClock()
    config = StreamConfig(name="dead-letter", bytes_max=64 * KIB)
    async with opened(tmp_path, config, clock=clock, max_deliver=1, max_inflight=1000) as (bus, consumer):
        await publish(bus, 200, payload=bytes(KIB))
        await consumer.fetch(1000, 0)
        clock.pass_s(30)
        for _ in range(40):
            await bus.tick()
        assert (consumer.ledger.dead_lettered, consumer.ledger.pending) == (200, 0)


async def test_a_consumer_that_is_deleted_while_it_buries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HandClock()
    async with opened(tmp_path, clock=clock, max_deliver=1) as (bus, consumer):
        await publish(bus, 1)
        await consumer.fetch(9, 0)
        clock.pass_s(30)

        async def delete() -> None:
            await bus.delete_consumer("c")

        with monkeypatch.context() as patched:
            before(bus, "pick", delete, patched)
            with pytest.raises(NotFound):
                await consumer.bury()
        assert await letters(bus) == []

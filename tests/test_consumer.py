"""A durable consumer at work: each message until it is settled, whatever is cancelled, fails or comes in between."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from edgegw.core.record import OCTETS, Batch
from edgegw.errors import Conflict, StoreError
from edgegw.limits import INFLIGHT_MAX, MIB, PAGE_BYTES, WINDOW_MESSAGES_MAX
from tests.bus_setup import BusParts, HandClock, make_terms, until
from tests.consumer_setup import LoopClock, before, counts, opened, publish, seqs

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

"""What a consumer does not get: gaps for what is gone, dead letters for what it could not handle."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from edgegw.bus import Bus, Options
from edgegw.config import StreamConfig
from edgegw.core.record import Gap, Origin
from edgegw.errors import NotFound, StoreError, StoreFull
from edgegw.limits import FETCH_PAUSE_S, KIB, MIB
from tests.bus_setup import BusParts, HandClock, make_terms, until
from tests.consumer_setup import LoopClock, before, counts, gaps, opened, publish, seqs

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

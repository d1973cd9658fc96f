"""The bus: topics to streams, receipts that are durable, live subscriptions, and consumers that are made while all runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgegw.bus import DEFAULT, Bus, Options, Share, all_streams
from edgegw.config import BUILT_IN_STREAMS, StreamConfig
from edgegw.core.record import JSON, OCTETS, Batch, Gap, Message
from edgegw.errors import Busy, Conflict, NotFound, RequestError, StoreError, StoreFull
from edgegw.limits import COUNT_RETRIES_MAX, KIB, MATCH_CACHE_MAX, MIB, PAGE_BYTES, RETAINED_PAGE_MAX, STREAMS_MAX
from edgegw.store.jobs import Receipt
from tests.bus_setup import START_MS, BusParts, HandClock, make_terms, make_writer, open_bus

ALARMS = StreamConfig(name="alarms", topics=("alarm/#", "+/alarm"), bytes_max=64 * KIB)
PLANT = StreamConfig(name="plant", topics=("plant/#",))


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with open_bus(tmp_path, ALARMS, PLANT) as opened:
        yield opened


async def stored(bus: Bus, stream: str = DEFAULT, topic_filter: str = "#", after: int = 0) -> list[Message | Gap]:
    items: list[Message | Gap] = []
    while after < bus.head(stream):
        page = await bus.page(stream, topic_filter, after, 1000, MIB)
        assert page.position > after
        items += page.items
        after = page.position
    return items


def batch(*topics: str, **columns: list[str | None]) -> Batch:
    return Batch(list(topics), [topic.encode() for topic in topics], OCTETS, **columns)  # type: ignore[arg-type]


# --- topics to streams ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "stream"),
    [
        ("alarm/1", "alarms"),
        ("alarm", "alarms"),
        ("plant/alarm", "alarms"),  # the first configured stream that matches
        ("plant/x", "plant"),
        ("plant", "plant"),
        ("other", "default"),
    ],
)
async def test_a_topic_belongs_to_the_first_stream_that_matches(bus: Bus, topic: str, stream: str) -> None:
    assert bus.route(topic) == stream
    assert (await bus.publish(topic, b"")).stream == stream


async def test_what_is_no_topic_is_refused(bus: Bus) -> None:
    for topic in ("", "a/+", "$SYS/x", "a\0"):
        with pytest.raises(RequestError) as caught:
            await bus.publish(topic, b"")
        assert caught.value.code == "bad_topic"
    with pytest.raises(RequestError) as caught:
        await bus.publish_batch(batch("a", "b", "#"))
    assert caught.value.where == "[2].topic"
    assert bus.head(DEFAULT) == 0


async def test_remembered_routes_are_bounded(bus: Bus) -> None:
    for n in range(MATCH_CACHE_MAX + 100):
        bus.route(f"t/{n}")
    assert len(bus._routes) <= MATCH_CACHE_MAX


def test_built_in_streams_are_always_there() -> None:
    configured = [StreamConfig(name="default", rows_max=7), PLANT]
    assert [(s.name, s.rows_max) for s in all_streams(configured, BUILT_IN_STREAMS)] == [
        ("plant", 0), ("default", 7), ("dead-letter", 0), ("host", 0),
    ]  # fmt: skip
    assert "host/load" in all_streams([StreamConfig(name="host", rows_max=5)], BUILT_IN_STREAMS)[-1].topics


async def test_streams_change_while_messages_come(bus: Bus) -> None:
    """What was accepted before goes where it was routed; from the change on, topics go to where it says. Nothing is lost."""
    subscription = bus.subscribe("#")
    bus.route("new/1"), bus.route("plant/x")  # remembered
    new = StreamConfig(name="new", topics=("new/#",))
    before = [asyncio.ensure_future(bus.publish("new/1", b"")), asyncio.ensure_future(bus.publish("plant/x", b""))]
    changing = asyncio.ensure_future(bus.change_streams(all_streams([new], BUILT_IN_STREAMS), 4 * MIB))
    await asyncio.sleep(0)
    between = bus.publish("new/1", b"")
    await changing
    assert [(await receipt).stream for receipt in before] == ["default", "plant"]
    assert (await between).stream in ("default", "new")
    assert await bus.publish("new/1", b"") == ("new", bus.head("new"), False)
    assert (await bus.publish("plant/x", b"")).stream == "default"
    assert not bus.streams["plant"].is_configured
    heard: list[Message | Gap] = []
    while len(heard) < 5:
        heard += await subscription.next()
    assert {(item.stream, item.seq) for item in heard if isinstance(item, Message)} == {
        (name, seq) for name, stats in bus.streams.items() for seq in range(1, stats.head + 1)
    }
    assert await stored(bus, "plant")
    bus.unsubscribe(subscription)


async def test_a_change_that_is_refused_leaves_the_topics_where_they_were(bus: Bus) -> None:
    many = [StreamConfig(name=f"s{n}", topics=("plant/#",)) for n in range(STREAMS_MAX)]
    with pytest.raises(StoreError):
        await bus.change_streams(all_streams(many, BUILT_IN_STREAMS), 4 * MIB)
    assert (await bus.publish("plant/x", b"")).stream == "plant"


# --- publish --------------------------------------------------------------------------------------


async def test_a_receipt_is_durable(tmp_path: Path) -> None:
    """A second connection sees it, as a start after a kill would."""
    async with open_bus(tmp_path) as bus:
        assert await bus.publish("t", b"1") == Receipt("default", 1, False)
        writer = make_writer(tmp_path)
        assert writer.open().streams["default"].head == 1
        writer.abandon()


async def test_a_message_comes_back_as_it_was_published(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_bus(tmp_path, clock=clock) as bus:
        await bus.publish("t", b"{}", JSON, Options(source_us=5, ttl_s=2.5))
        await bus.publish("t", b"")
        assert await stored(bus) == [
            Message("default", 1, "t", START_MS, JSON, b"{}", 5, START_MS + 2500),
            Message("default", 2, "t", START_MS, OCTETS, b""),
        ]


async def test_publishers_side_by_side_get_numbers_in_their_order(bus: Bus) -> None:
    receipts = await asyncio.gather(*(bus.publish(f"t/{n % 3}", str(n).encode()) for n in range(1000)))
    assert [receipt.seq for receipt in receipts] == list(range(1, 1001))
    assert [int(item.payload) for item in await stored(bus) if isinstance(item, Message)] == list(range(1000))
    assert bus.turns < 20


async def test_single_messages_batches_and_keys_keep_their_order(bus: Bus) -> None:
    first = bus.publish("t", b"1")
    second = asyncio.create_task(bus.publish_batch(batch("t", "t")))
    await asyncio.sleep(0)
    third = bus.publish("t", b"4")
    keyed = asyncio.ensure_future(bus.publish("t", b"5", OCTETS, Options(key="k")))
    await asyncio.sleep(0)
    last = bus.publish("t", b"6")
    shares = await second
    numbers = [(await first).seq, shares[0].part.first_seq, (await third).seq, (await keyed).seq, (await last).seq]
    assert numbers == [1, 2, 4, 5, 6]


async def test_a_repeated_key_gets_the_first_receipt(bus: Bus) -> None:
    options = Options(key="k")
    assert await bus.publish("t", b"1", OCTETS, options) == Receipt("default", 1, False)
    assert await bus.publish("t", b"1", OCTETS, options) == Receipt("default", 1, True)
    with pytest.raises(Conflict) as caught:
        await bus.publish("t", b"2", OCTETS, options)
    assert (caught.value.code, caught.value.where) == ("key_reused", "Idempotency-Key")


async def test_a_batch_over_streams_is_told_apart_and_keeps_its_keys(bus: Bus) -> None:
    keys = {"keys": ["k0", "k1", None, "k3"]}
    shares = await bus.publish_batch(batch("alarm/1", "t", "alarm/2", "t", **keys))
    assert [(part.stream, part.seqs, list(places)) for part, places in shares] == [
        ("alarms", [1, 2], [0, 2]), ("default", [1, 2], [1, 3]),
    ]  # fmt: skip
    again = await bus.publish_batch(batch("alarm/1", "t", "alarm/2", "t", **keys))
    assert [(part.seqs, part.repeats) for part, _ in again] == [([1, 3], [True, False]), ([1, 2], [True, True])]
    other = Batch(["alarm/9", "t", "t"], [b"", b"", b"t"], OCTETS, keys=["new", "k1", None])
    with pytest.raises(Conflict) as caught:
        await bus.publish_batch(other)
    assert caught.value.where == "[1].key"
    assert [bus.head(name) for name in ("alarms", "default")] == [3, 2]
    assert (await bus.publish("alarm/9", b"free", OCTETS, Options(key="new"))).seq == 4


async def test_a_batch_is_all_or_nothing_over_its_streams(bus: Bus) -> None:
    large = Batch(["t", "alarm/1"], [b"1", bytes(70 * KIB)], OCTETS)
    with pytest.raises(StoreFull):
        await bus.publish_batch(large)
    assert [bus.head(name) for name in ("alarms", "default")] == [0, 0]


async def test_a_batch_in_one_stream(bus: Bus) -> None:
    (share,) = await bus.publish_batch(batch("t", "u"))
    assert isinstance(share, Share)
    assert (share.part.first_seq, list(share.places)) == (1, [0, 1])


async def test_a_large_message_does_not_take_the_small_ones_beside_it_along(bus: Bus) -> None:
    small = [bus.publish("alarm/1", b"x") for _ in range(5)]
    large = bus.publish("alarm/1", bytes(70 * KIB))
    last = bus.publish("alarm/1", b"y")
    results = await asyncio.gather(*small, large, last, return_exceptions=True)
    assert [getattr(result, "seq", None) for result in results] == [1, 2, 3, 4, 5, None, 6]
    assert isinstance(results[5], StoreFull)


async def test_many_small_messages_at_once_fit_into_the_smallest_stream(bus: Bus) -> None:
    receipts = await asyncio.gather(*(bus.publish("alarm/x", b"x" * 1000) for _ in range(300)))
    assert receipts[-1].seq == 300
    assert bus.streams["alarms"].size_bytes <= 64 * KIB


async def test_a_caller_that_is_gone_disturbs_nobody(bus: Bus) -> None:
    async def publish() -> Receipt:
        return await bus.publish("t", b"x")

    tasks = [asyncio.create_task(publish()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert [(await tasks[0]).seq, (await tasks[2]).seq] == [1, 3]


async def test_after_the_stop_each_publish_is_refused(tmp_path: Path) -> None:
    async with open_bus(tmp_path) as bus:
        pass
    for options in (None, Options(key="k"), None):
        with pytest.raises(StoreError, match="stopping"):
            await bus.publish("t", b"", OCTETS, options)
    with pytest.raises(StoreError, match="stopping"):
        await bus.publish_batch(batch("t"))


# --- read -----------------------------------------------------------------------------------------


async def test_unknown_names_are_told(bus: Bus) -> None:
    with pytest.raises(NotFound, match="there is no stream 'x'") as caught:
        await bus.page("x", "#", 0, 1, 1)
    assert "alarms, dead-letter, default, host, plant" in caught.value.hint
    with pytest.raises(NotFound, match="there is no consumer 'x'"):
        bus.consumer("x")
    for call in (bus.delete_consumer("x"), bus.make_consumer(make_terms(stream="x"), 0), bus.seq_at("x", 0)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(NotFound):
        bus.subscribe("#", stream="x")


async def test_pick(bus: Bus) -> None:
    await bus.publish_batch(batch("t", "t", "t"))
    picked = await bus.pick(DEFAULT, [1, 3, 7], MIB)
    assert (list(picked.messages), picked.gone) == ([1, 3], [7])


async def test_seq_at(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_bus(tmp_path, clock=clock) as bus:
        assert await bus.seq_at(DEFAULT, 0) == 1
        for _ in range(3):
            await bus.publish("t", b"")
            clock.pass_s(1)
        assert [await bus.seq_at(DEFAULT, START_MS + ms) for ms in (-1, 0, 1, 1000, 2001)] == [1, 1, 2, 2, 4]


async def test_retained_values(bus: Bus) -> None:
    for topic in ("a/1", "a/2", "b", "a/1"):
        await bus.publish(topic, topic.encode() + b"!", OCTETS, Options(retain=True))
    await bus.publish("alarm/1", b"in another stream", OCTETS, Options(retain=True))
    found, after = await bus.retained("#", None, RETAINED_PAGE_MAX)
    assert [(message.topic, message.stream, message.seq) for message in found] == [
        ("a/1", "default", 4), ("a/2", "default", 2), ("alarm/1", "alarms", 1), ("b", "default", 3),
    ]  # fmt: skip
    assert after is None
    found, after = await bus.retained("a/+", None, 1)
    assert ([message.topic for message in found], after) == (["a/1"], "a/1")
    found, after = await bus.retained("a/+", after, 5)
    assert ([message.topic for message in found], after) == (["a/2"], None)


async def test_retained_values_of_one_answer_are_bounded(bus: Bus) -> None:
    for n in range(12):
        await bus.publish(f"t/{n:02}", bytes(MIB // 2), OCTETS, Options(retain=True))
    found, after = await bus.retained("#", None, 100)
    assert sum(len(message.payload) for message in found) <= PAGE_BYTES + MIB
    assert after is not None
    rest, after = await bus.retained("#", after, 100)
    assert [message.topic for message in found + rest] == [f"t/{n:02}" for n in range(12)]


# --- live subscriptions ---------------------------------------------------------------------------


async def test_a_subscription_hears_what_matches_after_it_is_durable(bus: Bus) -> None:
    subscription = bus.subscribe("a/+")
    await bus.publish("a/1", b"1", JSON, Options(source_us=3))
    await bus.publish("b/1", b"2")
    await bus.publish_batch(batch("a/2", "b", "alarm/1", "a/3"))
    items = await subscription.next()
    wanted = [item for stream in ("default", "alarms") for item in await stored(bus, stream, "a/+")]
    assert items == wanted
    bus.unsubscribe(subscription)
    bus.unsubscribe(subscription)
    assert bus.subscriptions == 0
    assert await subscription.next() == []


async def test_a_repeated_key_is_not_told_again(bus: Bus) -> None:
    subscription = bus.subscribe("#")
    await bus.publish("t", b"1", OCTETS, Options(key="k"))
    await bus.publish("t", b"1", OCTETS, Options(key="k"))
    await bus.publish_batch(Batch(["t", "t", "t"], [b"1", b"2", b"3"], OCTETS, keys=["k", "l", None]))
    assert [(item.seq, item.payload) for item in await subscription.next() if isinstance(item, Message)] == [
        (1, b"1"), (2, b"2"), (3, b"3"),
    ]  # fmt: skip


async def test_what_failed_is_not_told(bus: Bus) -> None:
    subscription = bus.subscribe("#")
    with pytest.raises(StoreFull):
        await bus.publish_batch(Batch(["t", "alarm/1"], [b"1", bytes(70 * KIB)], OCTETS))
    await bus.publish("t", b"2")
    assert [item.payload for item in await subscription.next() if isinstance(item, Message)] == [b"2"]


async def test_a_subscription_begins_where_it_is_told(bus: Bus) -> None:
    for n in range(1, 4):
        await bus.publish("t", str(n).encode())
    subscription = bus.subscribe("t", stream=DEFAULT, after=1)
    first = await subscription.next()
    await bus.publish("t", b"4")
    later = await subscription.next()
    assert [item.seq for item in first + later if isinstance(item, Message)] == [2, 3, 4]
    head = bus.subscribe("t", stream=DEFAULT, after=4)
    assert head.lag == 0


async def test_dead_letters_are_told_to_who_asked_for_them_and_to_nobody_else(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_bus(tmp_path, clock=clock) as bus:
        await bus.make_consumer(make_terms(max_deliver=1), 0)
        await bus.publish("t", b"poison")
        every, letters = bus.subscribe("#"), bus.subscribe("#", stream="dead-letter")
        await bus.consumer("c").fetch(1, 0)
        clock.pass_s(30)
        await bus.tick()
        (letter,) = await asyncio.wait_for(letters.next(), 20)
        assert [letter] == await stored(bus, "dead-letter")
        assert isinstance(letter, Message)
        assert letter.origin == ("c", 1, "max_deliver")
        assert every.queued == (0, 0)  # or each would get the message a second time, as news


async def test_subscriptions_are_bounded(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.bus.SUBSCRIPTIONS_MAX", 2)
    first = bus.subscribe("#")
    bus.subscribe("#")
    with pytest.raises(Busy):
        bus.subscribe("#")
    bus.unsubscribe(first)
    bus.subscribe("#")


# --- consumers ------------------------------------------------------------------------------------


async def test_a_consumer_is_made_once_and_can_be_changed(bus: Bus) -> None:
    assert await bus.make_consumer(make_terms(max_inflight=5), 0)
    assert not await bus.make_consumer(make_terms(max_inflight=5), 0)
    turns = bus.turns
    assert not await bus.make_consumer(make_terms(max_inflight=1), 0)
    assert bus.turns == turns + 1
    await bus.publish_batch(batch("t", "t"))
    assert len(await bus.consumer("c").fetch(9, 0)) == 1
    for other in (make_terms(topic_filter="x"), make_terms(stream="plant")):
        with pytest.raises(Conflict) as caught:
            await bus.make_consumer(other, 0)
        assert caught.value.code == "consumer_differs"


async def test_two_that_make_the_same_consumer_at_once(bus: Bus) -> None:
    assert sorted(await asyncio.gather(*(bus.make_consumer(make_terms(), 0) for _ in range(5)))) == [False] * 4 + [True]


@pytest.mark.parametrize(("floor", "wanted"), [(0, [1, 2, 3]), (1, [2, 3]), (3, []), (99, []), (-5, [1, 2, 3])])
async def test_a_consumer_begins_after_its_floor(bus: Bus, floor: int, wanted: list[int]) -> None:
    await bus.publish_batch(batch("t", "t", "t"))
    await bus.make_consumer(make_terms(), floor)
    await bus.publish("t", b"")
    consumer = bus.consumer("c")
    rows = await consumer.fetch(9, 0)
    assert [row.message.seq for row in rows if not isinstance(row, Gap)] == [*wanted, 4]
    assert consumer.ledger.matched == len(wanted) + 1


async def test_a_consumer_made_among_publishes_misses_nothing_and_counts_right(bus: Bus) -> None:
    async def publish() -> None:
        for n in range(100):
            await bus.publish(f"t/{n % 2}", b"x")

    publishing = asyncio.create_task(publish())
    names = []
    while not publishing.done():
        names.append(f"c{len(names)}")
        await bus.make_consumer(make_terms(names[-1], "t/1", max_inflight=1000), 0)
    await publishing
    for name in names:
        consumer = bus.consumer(name)
        assert consumer.ledger.matched == 50
        assert len(await consumer.fetch(1000, 0)) == 50


async def test_a_consumer_made_while_the_stream_evicts_counts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bus(tmp_path, ALARMS) as bus:
        for _ in range(7):
            await bus.publish("alarm/x", bytes(9000))
        reads = 0
        read = bus._journal.read

        async def evicting(*args: object) -> object:
            nonlocal reads
            reads += 1
            found = await read(*args)  # type: ignore[arg-type]
            if reads <= times:
                await bus.publish("alarm/x", bytes(9000))
            return found

        monkeypatch.setattr(bus._journal, "read", evicting)
        times = 2
        assert await bus.make_consumer(make_terms("a", stream="alarms"), 0)
        stats = bus.streams["alarms"]
        assert bus.consumer("a").ledger.matched == stats.rows
        await bus.delete_consumer("a")
        reads, times = 0, COUNT_RETRIES_MAX
        with pytest.raises(Busy):
            await bus.make_consumer(make_terms("b", stream="alarms"), 0)
        assert bus.consumers == {}


async def test_a_deleted_consumer_is_gone_and_its_name_is_free(bus: Bus) -> None:
    await bus.make_consumer(make_terms(), 0)
    await bus.publish("t", b"1")
    await bus.delete_consumer("c")
    with pytest.raises(NotFound):
        bus.consumer("c")
    assert await bus.make_consumer(make_terms(topic_filter="other"), 0)
    assert bus.consumer("c").ledger.matched == 0


async def test_both_ledgers_are_there_after_a_restart(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_bus(tmp_path, ALARMS, clock=clock) as bus:
        await bus.make_consumer(make_terms(), 0)
        await bus.publish_batch(batch("t", "alarm/1", "t"))
        await bus.consumer("c").fetch(1, 0)
        await bus.consumer("c").ack([1])
        streams, ledger = dict(bus.streams), bus.consumer("c").ledger
    async with open_bus(tmp_path, ALARMS, clock=clock) as bus:
        assert bus.streams == streams
        assert bus.consumer("c").ledger == ledger


# --- time -----------------------------------------------------------------------------------------


async def test_probe_returns_after_a_turn_of_the_writer(bus: Bus) -> None:
    turns = bus.turns
    await bus.probe()
    assert bus.turns == turns + 1
    assert bus.queued_bytes == 0


async def test_tick_lets_age_and_ttl_take_effect(tmp_path: Path) -> None:
    clock = HandClock()
    async with open_bus(tmp_path, StreamConfig(name="s", topics=("s/#",), age_max_s=10), clock=clock) as bus:
        await bus.publish("s/1", b"")
        await bus.publish("t", b"", OCTETS, Options(ttl_s=5))
        clock.pass_s(11)
        await bus.tick()
        assert (bus.streams["s"].removed, bus.streams["default"].removed) == ({"age": 1}, {"ttl": 1})


async def test_each_commit_is_told_with_its_jobs(tmp_path: Path) -> None:
    parts = BusParts(tmp_path)
    await parts.bus.start()
    await parts.bus.publish("t", b"1")
    await parts.bus.probe()
    await parts.bus.stop()
    assert len(parts.outcomes) == 2
    assert parts.outcomes[0].written_bytes > 0
    assert parts.deaths == []

"""What commits tell: metrics, both ledgers, and the conditions of the store and its streams; over a real store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgegw.bus import Bus, Options
from edgegw.conditions import Conditions
from edgegw.config import StreamConfig
from edgegw.core.record import OCTETS, Batch, Message
from edgegw.errors import StoreError, StoreFull
from edgegw.limits import KIB
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.store.reader import Reader
from edgegw.watch import StoreWatch
from tests.bus_setup import DEFAULT, HandClock, make_terms, make_writer, streams_of

SMALL = StreamConfig(name="small", topics=("small/#",), bytes_max=64 * KIB)
BIG = bytes(40 * KIB)


class Watched:
    """A bus whose commits are watched."""

    def __init__(self, folder: Path, *configs: StreamConfig) -> None:
        self.clock = HandClock()
        self.metrics = Metrics()
        self.conditions = Conditions(self.clock, Log("edgegw.conditions"))
        self.conditions.declare("store", required=True, text="commits reach the disk")
        watch = StoreWatch(self.metrics, self.conditions)
        self.writer = make_writer(folder, *configs, clock=self.clock)
        self.bus = Bus(
            self.writer,
            Reader(folder / "bus.db"),
            streams_of(*configs),
            self.clock,
            watch=watch.committed,
            on_death=lambda _: None,
        )
        self.opened = watch.opened

    def samples(self, name: str) -> dict[str, float]:
        """All samples of one metric, by their labels."""
        found: dict[str, float] = {}
        for line in self.metrics.render().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name:
                found[sample.removeprefix(name)] = float(value)
        return found

    def raised(self) -> dict[str, tuple[object, object]]:
        """Conditions that are raised: what, and what to do."""
        return {str(c["name"]): (c["what"], c["hint"]) for c in self.conditions.snapshot() if c["status"] == "raised"}

    def transitions(self, name: str) -> int:
        """How often the condition was raised or cleared."""
        return dict(self.conditions.transitions())[(name,)]

    def break_disk(self, is_broken: bool = True) -> None:
        """From now on SQLite refuses to write, or does so again."""
        self.writer._db.execute(f"PRAGMA query_only = {int(is_broken)}")


@asynccontextmanager
async def watched(folder: Path, *configs: StreamConfig) -> AsyncIterator[Watched]:
    """Started and stopped."""
    found = Watched(folder, *configs)
    await found.bus.start()
    found.opened(found.bus)
    try:
        yield found
    finally:
        await found.bus.stop()


async def test_commits_are_counted(tmp_path: Path) -> None:
    async with watched(tmp_path) as store:
        assert store.samples("edgegw_store_commits_total") == {"": 0}
        await store.bus.publish("t", b"x" * 100)
        await store.bus.publish_batch(Batch(["t"] * 500, [b"y" * 100] * 500, OCTETS))
        await store.bus.tick()  # a turn that stores nothing is no commit
        assert store.samples("edgegw_store_commits_total") == {"": 2}
        assert store.samples("edgegw_store_commits_failed_total") == {"": 0}
        assert store.samples("edgegw_store_commit_seconds_count") == {"": 2}
        assert 0 < store.samples("edgegw_store_commit_seconds_sum")[""] < 20
        chunks = store.samples("edgegw_store_chunk_bytes_total")[""]
        assert 501 * 100 < chunks < 501 * 150
        assert store.samples("edgegw_store_commit_bytes_sum") == {"": chunks}
        sizes = store.samples("edgegw_store_commit_bytes_bucket")
        assert (sizes['{le="512"}'], sizes['{le="8192"}'], sizes['{le="131072"}']) == (1, 1, 2)
        assert chunks < store.samples("edgegw_store_wal_bytes")[""] < 10 * chunks
        assert store.samples("edgegw_store_queue_bytes") == {"": 0}


async def test_subscriptions_are_counted(tmp_path: Path) -> None:
    async with watched(tmp_path) as store:
        one, two = store.bus.subscribe("#"), store.bus.subscribe("t", stream=DEFAULT, after=0)
        assert store.samples("edgegw_bus_subscriptions") == {"": 2}
        store.bus.unsubscribe(one)
        store.bus.unsubscribe(two)
        assert store.samples("edgegw_bus_subscriptions") == {"": 0}


async def test_the_ledger_of_a_stream(tmp_path: Path) -> None:
    aging = StreamConfig(name="aging", topics=("aging/#",), age_max_s=60)
    async with watched(tmp_path, aging) as store:
        for n in range(3):
            await store.bus.publish("aging/t", b"%d" % n)
        await store.bus.publish("else/where", b"x")
        await store.bus.publish("else/where", b"x", options=Options(key="k"))
        await store.bus.publish("else/where", b"x", options=Options(key="k"))  # a repeat is not received
        store.clock.pass_s(100)
        await store.bus.publish("aging/t", b"new")
        await store.bus.tick()
        received = {'{stream="aging"}': 4, '{stream="dead-letter"}': 0, '{stream="default"}': 2, '{stream="host"}': 0}
        assert store.samples("edgegw_stream_received_total") == received
        assert store.samples("edgegw_stream_removed_total") == {'{stream="aging",reason="age"}': 3}
        assert store.samples("edgegw_stream_rows") == received | {'{stream="aging"}': 1}
        size_bytes = store.samples("edgegw_stream_bytes")
        assert size_bytes['{stream="aging"}'] == store.bus.stream("aging").size_bytes > 0
        assert size_bytes['{stream="dead-letter"}'] == 0


async def test_the_ledger_of_a_consumer(tmp_path: Path) -> None:
    dropping = StreamConfig(name="small", topics=("small/#",), bytes_max=64 * KIB, policy="drop-oldest")
    async with watched(tmp_path, dropping) as store:
        await store.bus.make_consumer(make_terms("reads", "small/#", "small", max_deliver=1), 0)
        reader = store.bus.consumer("reads")
        for payload in (b"acked", b"dead", BIG):
            await store.bus.publish("small/t", payload)
        await reader.fetch(2, 0)
        await reader.ack([1])
        store.clock.pass_s(60)  # past ack_wait_s: delivered as often as it may be
        await store.bus.tick()
        await store.bus.publish("small/t", BIG)  # evicts the first one, which nobody has fetched
        name = '{consumer="reads"}'
        assert store.samples("edgegw_consumer_matched_total") == {name: 4}
        assert store.samples("edgegw_consumer_acked_total") == {name: 1}
        assert store.samples("edgegw_consumer_dead_lettered_total") == {name: 1}
        assert store.samples("edgegw_consumer_lost_total") == {'{consumer="reads",reason="bytes"}': 1}
        assert store.samples("edgegw_consumer_pending") == {name: 1}
        assert store.samples("edgegw_stream_received_total")['{stream="dead-letter"}'] == 1
        await store.bus.delete_consumer("reads")
        assert store.samples("edgegw_consumer_matched_total") == {}


async def test_a_commit_that_fails(tmp_path: Path) -> None:
    async with watched(tmp_path) as store:
        await store.bus.publish("t", b"before")
        store.break_disk()
        with pytest.raises(StoreError) as caught:
            await store.bus.publish("t", b"x")
        assert store.raised() == {"store": (caught.value.what, caught.value.hint)}
        assert not store.conditions.is_ready
        assert store.samples("edgegw_store_commits_failed_total") == {"": 1}
        for _ in range(3):
            await store.bus.tick()  # writes nothing, and so proves nothing
        with pytest.raises(StoreError):
            await store.bus.publish("t", b"x")
        assert store.transitions("store") == 1
        store.break_disk(False)
        assert (await store.bus.publish("t", b"after")).seq == 2
        assert store.raised() == {}
        assert store.conditions.is_ready
        assert store.samples("edgegw_store_commits_total") == {"": 2}
        assert store.samples("edgegw_store_commits_failed_total") == {"": 2}


async def test_a_consumer_s_commit_clears_the_store_as_well(tmp_path: Path) -> None:
    async with watched(tmp_path) as store:
        store.break_disk()
        with pytest.raises(StoreError):
            await store.bus.make_consumer(make_terms(), 0)
        assert list(store.raised()) == ["store"]
        store.break_disk(False)
        await store.bus.make_consumer(make_terms(), 0)
        assert store.raised() == {}


async def test_a_stream_that_is_full(tmp_path: Path) -> None:
    async with watched(tmp_path, SMALL) as store:
        await store.bus.make_consumer(make_terms("slow", "#", "small"), 0)
        slow = store.bus.consumer("slow")
        for payload in (b"a", b"b", BIG):
            await store.bus.publish("small/t", payload)
        with pytest.raises(StoreFull) as caught:
            await store.bus.publish("small/t", BIG)
        assert store.raised() == {"stream_small": (caught.value.what, caught.value.hint)}
        assert store.conditions.is_ready  # other streams take messages
        await store.bus.publish("else", b"another stream")
        await slow.fetch(3, 0)
        await slow.ack([1])  # a step, but no room yet
        with pytest.raises(StoreFull):
            await store.bus.publish("small/t", BIG)
        assert store.transitions("stream_small") == 1
        await slow.ack([2, 3])
        await store.bus.publish("small/t", BIG)
        assert store.raised() == {}
        assert store.transitions("stream_small") == 2


async def test_a_message_that_no_stream_could_hold_is_not_the_stream_s_fault(tmp_path: Path) -> None:
    async with watched(tmp_path, SMALL) as store:
        with pytest.raises(StoreFull):
            await store.bus.publish("small/t", bytes(100 * KIB))
        assert store.raised() == {}


async def test_a_stream_that_left_the_configuration(tmp_path: Path) -> None:
    async with watched(tmp_path, SMALL) as store:
        for n in range(3):
            await store.bus.publish("small/t", b"%d" % n)
    async with watched(tmp_path) as store:
        what = "the stream small left the configuration; its 3 messages are kept, read-only"
        assert store.raised() == {"stream_small": (what, "put it back")}
        assert store.conditions.is_ready
        assert (await store.bus.publish("small/t", b"x")).stream == DEFAULT
        store.clock.pass_s(10_000_000)
        await store.bus.tick()
        page = await store.bus.page("small", "#", 0, 10, KIB)
        assert [item.payload for item in page.items if isinstance(item, Message)] == [b"0", b"1", b"2"]
        assert store.samples("edgegw_stream_rows")['{stream="small"}'] == 3
        assert list(store.raised()) == ["stream_small"]
    async with watched(tmp_path, SMALL) as store:
        assert store.raised() == {}
        assert (await store.bus.publish("small/t", b"3")) == ("small", 4, False)


async def test_streams_that_leave_come_back_and_are_new_while_it_runs(tmp_path: Path) -> None:
    new = StreamConfig(name="new", topics=("new/#",), bytes_max=64 * KIB)
    async with watched(tmp_path, SMALL) as store:
        await store.bus.publish("small/t", b"0")
        await store.bus.change_streams(streams_of(new), 1 << 30)
        what = "the stream small left the configuration; its 1 messages are kept, read-only"
        assert store.raised() == {"stream_small": (what, "put it back")}
        assert not store.conditions.is_raised("stream_new")
        await store.bus.make_consumer(make_terms("slow", stream="new"), 0)
        with pytest.raises(StoreFull):
            for _ in range(3):
                await store.bus.publish("new/t", BIG)
        assert store.raised().keys() == {"stream_small", "stream_new"}
        await store.bus.change_streams(streams_of(new, SMALL), 1 << 30)
        assert store.raised().keys() == {"stream_new"}
        assert store.transitions("stream_small") == 2

"""The real bus, on real files, against the plain model of it: whatever is done, in whatever order, through restarts and kills.

Hypothesis prints the steps of a failure, as short as it can make them; a run that failed fails again (see conftest.py).
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from edgegw.bus import Bus, Options
from edgegw.config import StreamConfig
from edgegw.consumer import Consumer as RealConsumer
from edgegw.consumer import Delivered
from edgegw.core.record import OCTETS, Batch, Gap, Message
from edgegw.errors import Conflict, StoreError, StoreFull
from edgegw.subscription import Subscription
from tests.bus_setup import BusParts, HandClock, make_terms, until
from tests.sim.reference_bus import Consumer, KeyReusedError, ReferenceBus, Sent

T = TypeVar("T")

BYTES_MAX = 6000
# An encoded chunk may be this much larger than what was estimated for it: its own columns and marks.
ENVELOPE_BYTES = 250
CONFIGS = [
    StreamConfig(name="hold", topics=("h/#",), bytes_max=BYTES_MAX, age_max_s=0),
    StreamConfig(name="drop", topics=("d/#",), bytes_max=BYTES_MAX, rows_max=20, age_max_s=0, policy="drop-oldest"),
    StreamConfig(name="aged", topics=("a/#",), bytes_max=BYTES_MAX, rows_max=15, age_max_s=60),
    StreamConfig(name="dead-letter", bytes_max=2**20, age_max_s=0),
    StreamConfig(name="default", bytes_max=2**20, age_max_s=0),
]
# Small bounds, so that a few steps reach them.
PATCHES = {
    "edgegw.consumer.WINDOW_MESSAGES_MAX": 3,
    "edgegw.subscription.WINDOW_MESSAGES_MAX": 3,
    "edgegw.store.writer.CHUNK_MESSAGES": 4,
    "edgegw.store.reader.READ_CHUNKS": 2,
    "edgegw.store.evict.STREAM_GAPS_MAX": 4,
    "edgegw.store.evict._PAGE": 3,
    "edgegw.core.cursor.CONSUMER_GAPS_MAX": 3,
    "edgegw.store.journal.TRAY_BYTES": 1500,
    "edgegw.store.journal.WAKE_SLICE": 2,
}

TOPICS = st.sampled_from(["h/1", "h/2", "d/1", "d/2", "a/1", "a", "x/1", "x/2"])
SIZES = st.sampled_from([0, 1, 40, 300, 900])
KEYS = st.none() | st.sampled_from(["k1", "k2", "k3"])
TTLS = st.none() | st.none() | st.sampled_from([5, 40])
NAMES = st.sampled_from(["c1", "c2", "c3", "c4", "c5"])
ENTRIES = st.tuples(TOPICS, SIZES, KEYS, st.booleans(), TTLS)


def seq_of(row: Delivered | Gap) -> int:
    return row.last if isinstance(row, Gap) else row.message.seq


class BusMachine(RuleBasedStateMachine):
    """Each rule does one thing to both; `observe` compares all that can be seen afterwards."""

    @initialize(max_inflight=st.sampled_from([2, 5, 50]), max_deliver=st.sampled_from([1, 2, 5]))
    def begin(self, max_inflight: int, max_deliver: int) -> None:
        self.patches = [mock.patch(name, value) for name, value in PATCHES.items()]
        for patch in self.patches:
            patch.start()
        self.folders = Path(tempfile.mkdtemp())
        self.starts = 0
        self.published = 0
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock()
        self.model = ReferenceBus(CONFIGS)
        self.folder = self.folders / "0"
        self.folder.mkdir()
        self.open()
        for name, (stream, topic_filter) in {"c1": ("hold", "#"), "c2": ("drop", "d/1"), "c3": ("aged", "#")}.items():
            terms = make_terms(name, topic_filter, stream, max_inflight=max_inflight, max_deliver=max_deliver)
            self.run(self.bus.make_consumer(terms, 0))
            self.model.make_consumer(terms, 0)

    def teardown(self) -> None:
        self.run(self.bus.stop())
        self.watcher.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folders)
        for patch in self.patches:
            patch.stop()

    def open(self) -> None:
        self.parts = BusParts(self.folder, *CONFIGS, clock=self.clock)
        self.bus: Bus = self.parts.bus
        self.published_at_start = self.published
        self.run(self.bus.start())
        self.watcher = sqlite3.connect(self.folder / "bus.db", isolation_level=None)
        self.chunks = {name: self.read_chunks(name) for name in self.model.streams}
        self.live: list[tuple[Subscription, str, str | None, dict[str, int]]] = []
        self.acking: dict[str, set[int]] = {}

    def run(self, work: Awaitable[T]) -> T:
        async def within() -> T:
            return await asyncio.wait_for(work, 30)

        return self.loop.run_until_complete(within())

    def read_chunks(self, name: str) -> dict[int, int]:
        """First and last number of each stored chunk."""
        number = self.bus.streams[name].number
        rows = self.watcher.execute("SELECT id & ?, count FROM chunk WHERE id >> 48 = ?", (2**48 - 1, number)).fetchall()
        return {first: first + count - 1 for first, count in rows}

    def real(self, name: str) -> RealConsumer:
        return self.bus.consumer(name)

    # --- publish ----------------------------------------------------------------------------------

    def sent(self, topic: str, size: int, ttl_s: int | None) -> Sent:
        self.published += 1
        payload = f"{self.published}:".encode().ljust(size, b".") if size else b""
        now_ms = self.clock.wall_ms()
        return Sent(topic, payload, now_ms, self.published, None if ttl_s is None else now_ms + ttl_s * 1000)

    @rule(entries=st.lists(ENTRIES, min_size=1, max_size=6), repeat=st.booleans(), fails=st.sampled_from([False] * 9 + [True]))
    def publish_batch(self, entries: list[tuple[str, int, str | None, bool, int | None]], repeat: bool, fails: bool) -> None:
        wanted: list[tuple[Sent, str | None, bool]] = []
        for topic, size, key, retain, ttl_s in entries:
            sent = self.sent(topic, size, ttl_s)
            known = self.model.streams[self.model.route(topic)].keys.get(key or "")
            if known is not None and repeat:
                sent = Sent(known[1].topic, known[1].payload, sent.time_ms, sent.source_us, sent.expires_ms)
            wanted.append((sent, key, retain))
        with self.failing(fails):
            self.publish(wanted)

    def publish(self, wanted: list[tuple[Sent, str | None, bool]], *beside: Awaitable[None]) -> None:
        batch = Batch(
            [sent.topic for sent, _, _ in wanted],
            [sent.payload for sent, _, _ in wanted],
            OCTETS,
            keys=[key for _, key, _ in wanted],
            retain=[i for i, (_, _, retain) in enumerate(wanted) if retain],
            source_us=[sent.source_us for sent, _, _ in wanted],
            expires_ms=[sent.expires_ms for sent, _, _ in wanted],
        )

        async def both() -> list[Any]:
            return await asyncio.gather(self.bus.publish_batch(batch), *beside, return_exceptions=True)

        shares, *others = self.run(both())
        assert others == [None] * len(beside)
        if isinstance(shares, StoreFull):
            self.judge_refusal(wanted)
        elif isinstance(shares, Conflict):
            with pytest.raises(KeyReusedError):
                self.model.publish(wanted)
        elif isinstance(shares, Exception):
            assert isinstance(shares, StoreError)
            assert self.is_failing
        else:
            receipts = self.model.publish(wanted)
            for part, places in shares:
                for i, place in enumerate(places):
                    assert receipts[place] == (part.stream, part.seqs[i], part.repeats[i])

    @rule(topics=st.lists(st.tuples(TOPICS, SIZES), min_size=1, max_size=12))
    def publish_side_by_side(self, topics: list[tuple[str, int]]) -> None:
        """Single messages of one loop iteration: each has its own fate, in order."""
        sents = [self.sent(topic, size, None) for topic, size in topics]
        sents = [Sent(sent.topic, sent.payload, sent.time_ms) for sent in sents]

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self.bus.publish(s.topic, s.payload) for s in sents), return_exceptions=True)

        for sent, receipt in zip(sents, self.run(all_of_them()), strict=True):
            if isinstance(receipt, StoreFull):
                assert self.model.streams[self.model.route(sent.topic)].config.policy == "hold"
            else:
                assert [tuple(receipt)] == self.model.publish([(sent, None, False)])

    @rule(topic=TOPICS, count=st.integers(3, 9), ttl_s=TTLS)
    def fill(self, topic: str, count: int, ttl_s: int | None) -> None:
        for _ in range(count):
            self.publish([(self.sent(topic, 900, ttl_s), None, False)])
            self.judge()

    @rule(topic=TOPICS, size=SIZES, key=KEYS, retain=st.booleans(), ttl_s=TTLS)
    def publish_one(self, topic: str, size: int, key: str | None, retain: bool, ttl_s: int | None) -> None:
        sent = self.sent(topic, size, ttl_s)
        options = Options(key, retain, sent.source_us, ttl_s)
        try:
            receipt = self.run(self.bus.publish(topic, sent.payload, OCTETS, options))
        except StoreFull:
            self.judge_refusal([(sent, key, retain)])
        except Conflict:
            with pytest.raises(KeyReusedError):
                self.model.publish([(sent, key, retain)])
        else:
            assert [tuple(receipt)] == self.model.publish([(sent, key, retain)])

    def judge_refusal(self, wanted: list[tuple[Sent, str | None, bool]]) -> None:
        """Refused: then one of the streams is full of what is held, or would be."""
        now_ms = self.clock.wall_ms()
        for name in {self.model.route(sent.topic) for sent, _, _ in wanted}:
            stats = self.bus.streams[name]
            need = sum(len(s.payload) + len(s.topic) + 60 for s, _, _ in wanted if self.model.route(s.topic) == name)
            if stats.size_bytes + need + ENVELOPE_BYTES <= BYTES_MAX:
                continue
            chunks = self.read_chunks(name)
            held = self.model.held(name, now_ms)
            if all(held.intersection(range(first, last + 1)) for first, last in chunks.items()):
                return
        raise AssertionError("refused though there was room, or something to evict")

    # --- a commit that fails ----------------------------------------------------------------------

    is_failing = False

    def failing(self, fails: bool) -> "mock._patch[Any] | _Nothing":
        return _Failing(self) if fails else _Nothing()

    # --- consumers --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.consumers) < 5)
    @rule(
        name=NAMES,
        where=st.sampled_from([("hold", "#"), ("hold", "h/1"), ("drop", "d/+"), ("aged", "a/#"), ("default", "x/2"), ("dead-letter", "#")]),
        start=st.sampled_from(["new", "all", "middle"]),
        max_inflight=st.sampled_from([2, 5, 50]),
        max_deliver=st.sampled_from([1, 2, 5]),
    )  # fmt: skip
    def make_consumer(self, name: str, where: tuple[str, str], start: str, max_inflight: int, max_deliver: int) -> None:
        stream, topic_filter = where
        terms = make_terms(name, topic_filter, stream, max_inflight=max_inflight, max_deliver=max_deliver)
        head = self.model.streams[stream].head
        floor = {"new": head, "all": 0, "middle": head // 2}[start]
        known = self.model.consumers.get(name)
        if known is None:
            assert self.run(self.bus.make_consumer(terms, floor))
            self.model.make_consumer(terms, floor)
        elif (known.terms.stream, known.terms.filter) != where:
            with pytest.raises(Conflict):
                self.run(self.bus.make_consumer(terms, floor))
        else:
            assert not self.run(self.bus.make_consumer(terms, floor))
            known.terms = terms

    @precondition(lambda self: len(self.model.consumers) > 3)
    @rule(data=st.data())
    def delete_consumer(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.consumers)))
        self.run(self.bus.delete_consumer(name))
        del self.model.consumers[name]

    @precondition(lambda self: self.model.consumers)
    @rule(data=st.data(), most=st.sampled_from([1, 4, 100]))
    def fetch(self, data: st.DataObject, most: int) -> None:
        self.take(data.draw(st.sampled_from(sorted(self.model.consumers))), most)

    def take(self, name: str, most: int) -> None:
        consumer, now_s = self.model.consumers[name], self.clock.mono_s()
        due = consumer.due(now_s)[:most]
        rows = self.run(self.real(name).fetch(most, 0))
        self.judge()  # what expired or was buried first
        assert list(map(seq_of, rows)) == sorted(map(seq_of, rows))
        due = [seq for seq in due if seq in consumer.wanted]
        room = min(most - len(due), consumer.room)
        expected = sorted(due + consumer.fresh()[:room])
        assert [row.message.seq for row in rows if isinstance(row, Delivered)] == expected
        for row in rows:
            if isinstance(row, Delivered):
                self.compare(row.message, consumer.wanted[row.message.seq])
                assert row.deliveries == consumer.deliver(row.message.seq, now_s)
            else:
                assert row in self.real(name).ledger.gaps

    @rule(name=NAMES, share=st.sampled_from([0.0, 0.4, 1.0]), seconds=st.sampled_from([0, 31]))
    def work(self, name: str, share: float, seconds: int) -> None:
        """Fetch, settle a part of it, and take one's time."""
        if name in self.model.consumers:
            self.take(name, 100)
            consumer = self.model.consumers[name]
            seqs = sorted(consumer.out)[: round(len(consumer.out) * share)]
            self.run(self.real(name).ack(seqs))
            for seq in seqs:
                consumer.settle(seq)
                consumer.acked += 1
            self.judge()
            self.clock.pass_s(seconds)

    @precondition(lambda self: any(consumer.out for consumer in self.model.consumers.values()))
    @rule(data=st.data(), how=st.sampled_from(["ack", "ack", "upto", "gone", "beside", "fails"]))
    def acknowledge(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, c in self.model.consumers.items() if c.out)))
        consumer, real = self.model.consumers[name], self.real(name)
        seqs = data.draw(st.lists(st.sampled_from(sorted(consumer.out)), min_size=1, max_size=5, unique=True))
        if how == "upto":
            upto = max(seqs)
            seqs = [seq for seq in consumer.out if seq <= upto]
            self.run(real.ack_upto(upto))
        elif how == "gone":  # the caller does not wait for the end
            self.run(self.cancelled(real.ack(seqs)))
            self.run(self.bus.probe())
        elif how == "beside":  # in one commit with a publish that may push them out
            topic = {"hold": "h/1", "drop": "d/1", "aged": "a/1"}.get(consumer.terms.stream, "x/1")
            self.acking = {name: set(seqs)}
            self.publish([(self.sent(topic, 900, None), None, False) for _ in range(3)], real.ack(seqs))
            return
        elif how == "fails":
            with self.failing(True), pytest.raises(StoreError):
                self.run(real.ack(seqs))
            return
        else:
            self.run(real.ack(seqs))
            self.run(real.ack(seqs))  # again: no fault
        for seq in seqs:
            consumer.settle(seq)
            consumer.acked += 1

    async def cancelled(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    @precondition(lambda self: any(consumer.wanted for consumer in self.model.consumers.values()))
    @rule(data=st.data())
    def acknowledge_what_was_not_delivered(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, c in self.model.consumers.items() if c.wanted)))
        consumer = self.model.consumers[name]
        seq = data.draw(st.sampled_from(sorted(consumer.wanted)))
        if seq not in consumer.out:
            for call in (self.real(name).ack([*consumer.out, seq]), self.real(name).ack([seq])):
                with pytest.raises(Conflict):
                    self.run(call)

    @precondition(lambda self: any(consumer.out for consumer in self.model.consumers.values()))
    @rule(data=st.data(), delay_s=st.sampled_from([0, 0, 20, 100]))
    def refuse(self, data: st.DataObject, delay_s: int) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, c in self.model.consumers.items() if c.out)))
        consumer = self.model.consumers[name]
        seqs = data.draw(st.lists(st.sampled_from(sorted(consumer.out)), min_size=1, max_size=3, unique=True))
        self.real(name).nack(seqs, delay_s)
        for seq in seqs:
            consumer.out[seq].due_s = self.clock.mono_s() + delay_s

    # --- time and restarts ------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 10, 31, 31, 70, 86_400]), ticks=st.integers(0, 2))
    def pass_time(self, seconds: int, ticks: int) -> None:
        self.clock.pass_s(seconds)
        for _ in range(ticks):
            self.run(self.bus.tick())
            self.observe()

    @precondition(lambda self: self.published > self.published_at_start + 8)
    @rule(kills=st.booleans())
    def restart(self, kills: bool) -> None:
        self.starts += 1
        if kills:  # what a kill leaves: the files as they are, with no word from the process
            folder = self.folders / str(self.starts)
            folder.mkdir()
            for name in ("bus.db", "bus.db-wal"):
                if (self.folder / name).exists():
                    shutil.copy(self.folder / name, folder / name)
            self.folder = folder
        self.run(self.bus.stop())
        self.watcher.close()
        self.open()
        for name, consumer in self.model.consumers.items():
            known = {seq: n for seq, n in self.real(name).ledger.deliveries.items() if seq in consumer.wanted}
            delivered = {**consumer.earlier, **{seq: out.deliveries for seq, out in consumer.out.items()}}
            assert all(count <= delivered.get(seq, 0) for seq, count in known.items())
            consumer.earlier = known
            consumer.out.clear()

    # --- reading ----------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from([config.name for config in CONFIGS]),
        topic_filter=st.sampled_from(["#", "+/1", "a"]),
        share=st.sampled_from([0, 0, 0.5, 1]),
        most=st.sampled_from([1, 3, 1000]),
    )
    def read(self, name: str, topic_filter: str, share: float, most: int) -> None:
        stream, now_ms = self.model.streams[name], self.clock.wall_ms()
        after = int(stream.head * share)
        self.judge_reading(name, topic_filter, after, self.pages(name, topic_filter, after, most), stream.head, now_ms)

    def pages(self, name: str, topic_filter: str, after: int, most: int) -> list[Message | Gap]:
        items: list[Message | Gap] = []
        while after < self.bus.head(name):
            page = self.run(self.bus.page(name, topic_filter, after, most, 10**6))
            assert page.position > after
            items, after = items + page.items, page.position
        return items

    def judge_reading(self, name: str, topic_filter: str, after: int, items: list[Message | Gap], upto: int, now_ms: int) -> None:
        """Everything that matches and is stored is there, in order; what is not stored is covered by a gap."""
        from tests.sim.reference_bus import is_match

        stored = self.model.streams[name].stored
        there = {s: m for s, m in stored.items() if after < s <= upto and is_match(topic_filter, m.topic)}
        found = [item for item in items if isinstance(item, Message)]
        assert [item.seq for item in found] == sorted(seq for seq, sent in there.items() if not sent.is_expired(now_ms))
        for item in found:
            self.compare(item, there[item.seq])
        gaps = [item for item in items if isinstance(item, Gap)]
        covered = {seq for gap in gaps for seq in range(gap.first, gap.last + 1)}
        missing = {seq for seq in range(after + 1, upto + 1) if seq not in stored}
        expired = {seq for seq, sent in there.items() if sent.is_expired(now_ms)}
        assert missing | expired <= covered
        assert sum(gap.messages for gap in gaps) == len(missing | expired)

    @rule(topic_filter=st.sampled_from(["#", "h/+", "d/1", "a/#"]))
    def read_retained(self, topic_filter: str) -> None:
        from tests.sim.reference_bus import is_match

        found, after = self.run(self.bus.retained(topic_filter, None, 100))
        assert after is None
        now_ms = self.clock.wall_ms()
        wanted = {t: v for t, v in self.model.retained.items() if is_match(topic_filter, t) and not v[2].is_expired(now_ms)}
        assert [(item.topic, item.stream, item.seq) for item in found] == [(t, *wanted[t][:2]) for t in sorted(wanted)]
        for item in found:
            self.compare(item, wanted[item.topic][2])

    def compare(self, message: Message, sent: Sent) -> None:
        seen = Sent(message.topic, message.payload, message.time_ms, message.source_us, message.expires_ms)
        assert seen == sent

    # --- live subscriptions -----------------------------------------------------------------------

    @precondition(lambda self: len(self.live) < 2)
    @rule(topic_filter=st.sampled_from(["#", "+/1"]), stream=st.sampled_from([None, None, "drop", "hold"]))
    def subscribe(self, topic_filter: str, stream: str | None) -> None:
        heads = {name: s.head for name, s in self.model.streams.items() if stream in (None, name) and name != "dead-letter"}
        self.live.append((self.bus.subscribe(topic_filter, stream=stream), topic_filter, stream, heads))

    @precondition(lambda self: self.live)
    @rule(last=st.booleans())
    def listen(self, last: bool) -> None:
        """Everything since the last time, stream by stream: kept in memory, or read back."""
        subscription, topic_filter, _, heads = self.live[0]
        items = self.run(self.drained(subscription))
        now_ms = self.clock.wall_ms()
        for name, after in heads.items():
            self.judge_listening(name, topic_filter, after, [item for item in items if item.stream == name], now_ms)
            heads[name] = self.model.streams[name].head
        if last:
            self.bus.unsubscribe(subscription)
            del self.live[0]

    async def drained(self, subscription: Subscription) -> list[Message | Gap]:
        def is_ready() -> bool:
            return bool(subscription.queued[0] or subscription._behind)

        items: list[Message | Gap] = []
        while is_ready():
            task = asyncio.ensure_future(subscription.next())
            await until(lambda: task.done() or not is_ready(), "it caught up")
            if task.done():
                items += task.result()
            task.cancel()  # what it read back may all be for others: then it waits
            await asyncio.gather(task, return_exceptions=True)
        return items

    def judge_listening(self, name: str, topic_filter: str, after: int, items: list[Message | Gap], now_ms: int) -> None:
        from tests.sim.reference_bus import is_match

        seqs = [item.seq if isinstance(item, Message) else item.last for item in items]
        assert seqs == sorted(set(seqs))
        found = {item.seq for item in items if isinstance(item, Message)}
        covered = {seq for gap in items if isinstance(gap, Gap) for seq in range(gap.first, gap.last + 1)}
        for seq, sent in self.model.streams[name].stored.items():
            if seq > after and is_match(topic_filter, sent.topic):
                assert seq in found or (sent.is_expired(now_ms) and seq in covered)
        assert all(seq > after for seq in found)

    # --- what can be seen after each step ---------------------------------------------------------

    @invariant()
    def observe(self) -> None:
        if hasattr(self, "bus"):
            self.judge()
            for name, consumer in self.model.consumers.items():
                assert self.real(name).inflight == len(consumer.out)

    def judge(self) -> None:
        now_ms = self.clock.wall_ms()
        held = {name: self.model.held(name, now_ms) for name in self.model.streams}  # a tick evicts before it buries
        self.take_letters()
        for name in self.model.streams:
            self.judge_stream(name, held[name])
        for name in self.model.consumers:
            self.judge_consumer(name)
        self.acking = {}
        assert set(self.bus.consumers) == set(self.model.consumers)
        assert self.parts.deaths == []

    def take_letters(self) -> None:
        """New dead letters: each is what its consumer had delivered as often as it may."""
        stream = self.model.streams["dead-letter"]
        items = self.pages("dead-letter", "#", stream.head, 1000) if self.bus.head("dead-letter") > stream.head else []
        for item in items:
            assert isinstance(item, Message)
            assert item.origin is not None
            consumer = self.model.consumers[item.origin.consumer]
            ledger = self.real(item.origin.consumer).ledger
            seq = next(seq for seq in consumer.spent(self.clock.mono_s()) if not ledger.wants(seq))
            assert item.origin.deliveries == consumer.out[seq].deliveries
            sent = consumer.wanted[seq]
            assert (item.topic, item.payload, item.source_us) == (sent.topic, sent.payload, sent.source_us)
            consumer.settle(seq)
            consumer.dead += 1
            self.model.store("dead-letter", item.seq, Sent(item.topic, item.payload, item.time_ms, item.source_us))

    def judge_stream(self, name: str, held: set[int]) -> None:
        model, stats, now_ms = self.model.streams[name], self.bus.streams[name], self.clock.wall_ms()
        chunks = self.read_chunks(name)
        stored = {seq for first, last in chunks.items() for seq in range(first, last + 1)}
        gone = model.stored.keys() - stored
        assert stored <= model.stored.keys()
        assert stats.head == model.head
        assert stats.rows == len(stored)
        assert stats.first == (min(stored) if stored else model.head + 1)
        if gone:
            self.judge_eviction(name, gone, chunks, held, now_ms)
        assert Counter(stats.removed) == model.removed
        is_held = model.config.policy == "hold"
        assert stats.size_bytes <= (model.config.bytes_max or 0) + ENVELOPE_BYTES
        if model.config.rows_max and not is_held:
            assert stats.rows <= max(model.config.rows_max, 12)
        self.chunks[name] = chunks

    def judge_eviction(self, name: str, gone: set[int], chunks: dict[int, int], held: set[int], now_ms: int) -> None:
        """Whole chunks, the oldest first, for a reason, and nothing that is held."""
        model, stats = self.model.streams[name], self.bus.streams[name]
        removed = Counter(stats.removed) - model.removed
        assert removed.total() == len(gone)
        assert removed["ttl"] == sum(model.stored[seq].is_expired(now_ms) for seq in gone)
        if model.config.policy == "hold":
            assert not gone & held - set().union(*self.acking.values())
        for first, last in chunks.items():
            if last < max(gone):
                assert model.config.policy == "hold"
                assert held.intersection(range(first, last + 1))
        if "bytes" in removed:
            assert model.config.bytes_max is not None
        if "age" in removed:
            oldest_ms = min(model.stored[seq].time_ms for seq in gone)
            assert model.config.age_max_s
            assert oldest_ms + model.config.age_max_s * 1000 < now_ms
        if "rows" in removed:
            assert model.config.rows_max
        model.removed += removed
        for seq in gone:
            del model.stored[seq]

    def judge_consumer(self, name: str) -> None:
        """Whatever it no longer wants was lost for a reason, or is being acknowledged right now; the books balance."""
        consumer, ledger, now_ms = self.model.consumers[name], self.real(name).ledger, self.clock.wall_ms()
        stored = self.model.streams[consumer.terms.stream].stored
        settled = [seq for seq in sorted(consumer.wanted) if not ledger.wants(seq)]
        acking = self.acking.get(name, set())
        lost = Counter(ledger.lost) - consumer.lost
        for seq in settled:
            assert seq in acking or seq not in stored or consumer.wanted[seq].is_expired(now_ms)
        assert acking <= set(settled)
        assert len(settled) - len(acking) <= lost.total() <= len(settled)
        self.judge_gaps(consumer, [seq for seq in settled if seq not in acking], ledger.gaps)
        consumer.acked += len(settled) - lost.total()
        consumer.lost += lost
        for seq in settled:
            consumer.settle(seq)
        assert not any(seq not in stored for seq in consumer.wanted)
        assert (ledger.matched, ledger.acked, ledger.dead_lettered) == (consumer.matched, consumer.acked, consumer.dead)
        assert ledger.pending == len(consumer.wanted)
        assert all(ledger.wants(seq) for seq in consumer.wanted)
        assert set(ledger.lost) <= {"ttl", *self.bus.streams[consumer.terms.stream].removed}
        self.real(name)._delivery.check()
        ledger.check()

    def judge_gaps(self, consumer: Consumer, lost: list[int], gaps: tuple[Gap, ...]) -> None:
        for seq in lost:
            assert any(gap.first <= seq <= gap.last for gap in gaps)
        assert len(gaps) <= PATCHES["edgegw.core.cursor.CONSUMER_GAPS_MAX"]
        assert sum(gap.messages for gap in gaps) <= sum(consumer.lost.values()) + len(lost) + len(consumer.out)
        assert [gap.last for gap in gaps] == sorted(gap.last for gap in gaps)


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class _Failing:
    """The disk fails while this is entered."""

    def __init__(self, machine: BusMachine) -> None:
        self.machine = machine
        self.patch = mock.patch.object(machine.parts.writer, "_commit", side_effect=sqlite3.OperationalError("disk I/O error"))

    def __enter__(self) -> None:
        self.machine.is_failing = True
        self.patch.start()

    def __exit__(self, *_: object) -> None:
        self.patch.stop()
        self.machine.is_failing = False


def test_the_bus_behaves_as_its_model() -> None:
    run_state_machine_as_test(BusMachine, settings=settings(max_examples=60, stateful_step_count=40))


@pytest.mark.ci
@pytest.mark.timeout(1200)
def test_the_bus_behaves_as_its_model_for_long() -> None:
    run_state_machine_as_test(BusMachine, settings=settings(max_examples=600, stateful_step_count=60, derandomize=False))

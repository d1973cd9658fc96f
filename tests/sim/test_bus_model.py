"""The real bus, on real files, against the plain model of it: whatever is done, in whatever order, through restarts and kills.

Hypothesis prints the steps of a failure, as short as it can make them; a run that failed fails again (see conftest.py).
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar
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
from tests.bus_setup import BusParts, HandClock, begun, make_terms, until
from tests.sim.bus_judge import Judge
from tests.sim.reference_bus import KeyReusedError, ReferenceBus, Sent

T = TypeVar("T")

BYTES_MAX = 6000
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
WHERE = st.sampled_from(
    [("hold", "#"), ("hold", "h/1"), ("drop", "d/+"), ("aged", "a/#"), ("default", "x/2"), ("dead-letter", "#")],
)
NAMES = st.sampled_from(["c1", "c2", "c3", "c4", "c5"])
ENTRIES = st.tuples(TOPICS, SIZES, KEYS, st.booleans(), TTLS)


# What must have happened, or a green run says little.
HAPPENINGS = [
    "delivered", "delivered again", "gap delivered", "dead letter", "refused", "repeat", "evicted around what is held", "heard",
    "read back",
    "removed: bytes", "removed: ttl", "removed: age", "lost: bytes", "lost: ttl", "killed", "stopped",
]  # fmt: skip


def seq_of(row: Delivered | Gap) -> int:
    return row.last if isinstance(row, Gap) else row.message.seq


def is_ready(subscription: Subscription) -> bool:
    return bool(subscription.queued[0] or subscription._behind)


def is_heard(subscription: Subscription, task: asyncio.Future[list[Message | Gap]]) -> bool:
    return task.done() or not is_ready(subscription)


class BusMachine(RuleBasedStateMachine):
    """Each rule does one thing to both; `observe` compares all that can be seen afterwards."""

    seen: ClassVar[Counter[str]] = Counter()  # what has happened at all, in all runs

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
        self.judge = Judge(self.model, self.clock, self.seen)
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
        self.live: list[tuple[Subscription, str, str | None, dict[str, int]]] = []

    def run(self, work: Awaitable[T]) -> T:
        async def within() -> T:
            return await asyncio.wait_for(work, 30)

        return self.loop.run_until_complete(within())

    def read_chunks(self, name: str) -> dict[int, int]:
        """First and last number of each stored chunk."""
        number = self.bus.streams[name].number
        rows = self.watcher.execute("SELECT id & ?, count FROM chunk WHERE id >> 48 = ?", (2**48 - 1, number)).fetchall()
        return {first: first + count - 1 for first, count in rows}

    def all_chunks(self) -> dict[str, dict[int, int]]:
        return {name: self.read_chunks(name) for name in self.model.streams}

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
                sent = sent._replace(topic=known[1].topic, payload=known[1].payload)
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
            self.judge.refusal(self.bus, [sent for sent, _, _ in wanted], self.all_chunks())
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
                    self.seen["repeat"] += part.repeats[i]
                    assert receipts[place] == (part.stream, part.seqs[i], part.repeats[i])

    @rule(topics=st.lists(st.tuples(TOPICS, SIZES), min_size=1, max_size=12))
    def publish_side_by_side(self, topics: list[tuple[str, int]]) -> None:
        """Single messages of one loop iteration: each has its own fate, in order."""
        sents = [self.sent(topic, size, None)._replace(source_us=None) for topic, size in topics]

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
            self.compare()

    @rule(topic=TOPICS, size=SIZES, key=KEYS, retain=st.booleans(), ttl_s=TTLS)
    def publish_one(self, topic: str, size: int, key: str | None, retain: bool, ttl_s: int | None) -> None:
        sent = self.sent(topic, size, ttl_s)
        options = Options(key, retain, sent.source_us, ttl_s)
        try:
            receipt = self.run(self.bus.publish(topic, sent.payload, OCTETS, options))
        except StoreFull:
            self.judge.refusal(self.bus, [sent], self.all_chunks())
        except Conflict:
            with pytest.raises(KeyReusedError):
                self.model.publish([(sent, key, retain)])
        else:
            assert [tuple(receipt)] == self.model.publish([(sent, key, retain)])

    # --- a commit that fails ----------------------------------------------------------------------

    is_failing = False

    @contextmanager
    def failing(self, fails: bool) -> Iterator[None]:
        self.is_failing = fails
        error = sqlite3.OperationalError("disk I/O error")
        with mock.patch.object(self.parts.writer, "_commit", side_effect=error) if fails else nullcontext():
            yield
        self.is_failing = False

    # --- consumers --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.consumers) < 5)
    @rule(
        name=NAMES,
        where=WHERE,
        start=st.sampled_from(["new", "all", "middle"]),
        max_inflight=st.sampled_from([2, 5, 50]),
        max_deliver=st.sampled_from([1, 2, 5]),
    )
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
        self.compare()  # what expired or was buried first
        assert list(map(seq_of, rows)) == sorted(map(seq_of, rows))
        due = [seq for seq in due if seq in consumer.wanted]
        room = min(most - len(due), consumer.room)
        expected = sorted(due + consumer.fresh()[:room])
        assert [row.message.seq for row in rows if isinstance(row, Delivered)] == expected
        for row in rows:
            if isinstance(row, Delivered):
                self.judge.same(row.message, consumer.wanted[row.message.seq])
                assert row.deliveries == consumer.deliver(row.message.seq, now_s)
                self.seen["delivered again" if row.deliveries > 1 else "delivered"] += 1
            else:
                self.seen["gap delivered"] += 1
                assert row in self.real(name).ledger.gaps

    @rule(name=NAMES, shares=st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=1, max_size=3), seconds=st.sampled_from([5, 31]))
    def work(self, name: str, shares: list[float], seconds: int) -> None:
        """Fetch, settle a part of it, take one's time, and once more."""
        for share in shares if name in self.model.consumers else ():
            self.take(name, 100)
            consumer = self.model.consumers[name]
            seqs = sorted(consumer.out)[: round(len(consumer.out) * share)]
            self.run(self.real(name).ack(seqs))
            for seq in seqs:
                consumer.settle(seq)
                consumer.acked += 1
            self.compare()
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
            self.run(begun(real.ack(seqs)))
            self.run(self.bus.probe())
        elif how == "beside":  # in one commit with a publish that may push them out
            topic = {"hold": "h/1", "drop": "d/1", "aged": "a/1"}.get(consumer.terms.stream, "x/1")
            self.judge.acking = {name: set(seqs)}
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
        self.seen["killed" if kills else "stopped"] += 1
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
        after = int(self.model.streams[name].head * share)
        self.judge.reading(name, topic_filter, after, self.pages(name, topic_filter, after, most))

    def pages(self, name: str, topic_filter: str, after: int, most: int) -> list[Message | Gap]:
        items: list[Message | Gap] = []
        while after < self.bus.head(name):
            page = self.run(self.bus.page(name, topic_filter, after, most, 10**6))
            assert page.position > after
            items, after = items + page.items, page.position
        return items

    @rule(topic_filter=st.sampled_from(["#", "h/+", "d/1", "a/#"]))
    def read_retained(self, topic_filter: str) -> None:
        found, after = self.run(self.bus.retained(topic_filter, None, 100))
        assert after is None
        self.judge.retained(topic_filter, found)

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
        for name, after in heads.items():
            self.judge.listening(name, topic_filter, after, [item for item in items if item.stream == name])
            heads[name] = self.model.streams[name].head
        if last:
            self.bus.unsubscribe(subscription)
            del self.live[0]

    async def drained(self, subscription: Subscription) -> list[Message | Gap]:
        items: list[Message | Gap] = []
        while is_ready(subscription):
            task = asyncio.ensure_future(subscription.next())
            await until(partial(is_heard, subscription, task), "it caught up")
            if task.done():
                items += task.result()
                self.seen["heard"] += 1
                self.seen["read back"] += bool(subscription._behind)
            task.cancel()  # what it read back may all be for others: then it waits
            await asyncio.gather(task, return_exceptions=True)
        return items

    # --- what can be seen after each step ---------------------------------------------------------

    @invariant()
    def observe(self) -> None:
        if hasattr(self, "bus"):
            self.compare()
            for name, consumer in self.model.consumers.items():
                assert self.real(name).inflight == len(consumer.out)

    def compare(self) -> None:
        now_ms = self.clock.wall_ms()
        held = {name: self.model.held(name, now_ms) for name in self.model.streams}  # a tick evicts before it buries
        self.take_letters()
        for name in self.model.streams:
            self.judge.stream(self.bus, name, self.read_chunks(name), held[name])
        for name in self.model.consumers:
            self.judge.consumer(self.real(name), name, PATCHES["edgegw.core.cursor.CONSUMER_GAPS_MAX"])
        self.judge.acking = {}
        assert set(self.bus.consumers) == set(self.model.consumers)
        assert self.parts.deaths == []

    def take_letters(self) -> None:
        head = self.model.streams["dead-letter"].head
        for letter in self.pages("dead-letter", "#", head, 1000) if self.bus.head("dead-letter") > head else []:
            assert isinstance(letter, Message)
            assert letter.origin is not None
            self.judge.letter(self.real(letter.origin.consumer), letter)


@pytest.mark.timeout(240)
def test_the_bus_behaves_as_its_model() -> None:
    BusMachine.seen.clear()
    run_state_machine_as_test(BusMachine, settings=settings(max_examples=80, stateful_step_count=50))
    assert BusMachine.seen >= Counter(HAPPENINGS), f"the runs were too tame: {BusMachine.seen}"


@pytest.mark.all
@pytest.mark.timeout(7200)
def test_the_bus_behaves_as_its_model_for_long() -> None:
    run_state_machine_as_test(BusMachine, settings=settings(max_examples=600, stateful_step_count=60, derandomize=False))
    assert BusMachine.seen >= Counter(HAPPENINGS)

"""The real link between two real stores, seeded: through faults, evictions, TTLs and restarts each message counts once.

The upstream is a second bus behind a scripted answer: it takes what it gets as the API would, and then lies about it, or fails
before. Its own ledger says what arrived, the sender's says what became of it, and `judge` compares the two:

    matched = acked + dead_lettered + lost, and nothing is pending in the end
    nothing is twice at the upstream
    what is not there is a dead letter, was evicted, or expired
    no more was counted as taken than is there
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edgegw.api.bodies import parse_batch, parse_columns
from edgegw.api.problems import status_of
from edgegw.bus import Bus, Options
from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import LinkConfig, StreamConfig
from edgegw.core.columns import CONTENT_TYPE as COLUMNS
from edgegw.core.cursor import Ledger
from edgegw.core.record import Message
from edgegw.errors import GatewayError
from edgegw.limits import KIB
from edgegw.links import http_link
from edgegw.links.http_link import HttpLink, consumer_name
from edgegw.links.link_metrics import LinkMetrics
from edgegw.links.upstream import Reply, Verdict, judge
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.store import producers
from edgegw.store.reader import Range
from tests.bus_setup import BusParts

# Small and quick: what takes hours in the field happens every few messages.
QUICK = {
    "LINK_BACKOFF_FIRST_S": 0.002, "LINK_BACKOFF_CAP_S": 0.02, "LINK_RECORD_S": 0.01, "LINK_RECORD_PARCELS": 3,
    "LINK_IDLE_S": 0.01, "LINK_REST_NUMBERS": 15, "LINK_REST_S": 0.05, "LINK_AHEAD_MESSAGES": 60, "LINK_AHEAD_BLOCKS": 2,
    "LINK_SKIP_MESSAGES": 40, "LINK_SKIP_S": 0.02, "LINK_BATCH_BYTES": 4 * KIB, "LINK_BATCH_BYTES_MIN": KIB, "LINK_HOLES_MAX": 5,
}  # fmt: skip
RUNS_MAX = 12  # of ranges upstream: more than lanes and holes need, far fewer than parcels are sent
STEPS = 40
PATIENCE_S = 20.0


class OffsetClock(SystemClock):
    """The system's, and a wall clock that the run sets forward."""

    offset_ms = 0

    def wall_ms(self) -> int:
        """Ahead of the system's."""
        return super().wall_ms() + self.offset_ms


class Script:
    """What the upstream does with a request; stands in for `links.upstream.Upstream`."""

    def __init__(self, chance: random.Random, points: Counter[str]) -> None:
        self.chance = chance
        self.points = points
        self.bus: Bus | None = None  # None: it is gone
        self.is_kind = False
        self.messages_max = 12
        self.clock = SystemClock()

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def send(self, body: bytes, content_type: str, key: str) -> Reply:
        """One request: before, meanwhile and after it something may go wrong."""
        fault = "" if self.is_kind else self.chance.choice(("", "", "", "before", "after", "slow", "busy"))
        if fault:
            self.points[fault] += 1
        await _pass(self.chance.random() * (0.03 if fault == "slow" else 0.002))
        if fault == "before" or self.bus is None:
            return Reply(Verdict.GONE, "no way there")
        if fault == "busy":
            return Reply(Verdict.AGAIN, "429", 429, 0.001)
        reply = await self._take(self.bus, body, content_type)
        if fault == "after" and reply.verdict is Verdict.TAKEN:
            await _pass(self.chance.random() * 0.01)
            return Reply(Verdict.GONE, "reset")
        return reply

    async def _take(self, bus: Bus, body: bytes, content_type: str) -> Reply:
        try:
            if content_type == COLUMNS:
                batch, span = parse_columns(body, self.clock.wall_ms())
            else:
                batch, span = parse_batch(content_type, body, self.clock.wall_ms()), None
            if len(batch) > self.messages_max:
                self.points["split"] += 1
                return judge(413, "", "", 0)
            if any(topic.endswith("bad") for topic in batch.topics):
                self.points["refused"] += 1
                return judge(400, "", "bad", 0)
            await (bus.publish_batch(batch) if span is None else bus.publish_span(batch, span))
        except GatewayError as exc:
            self.points[exc.code] += 1
            return judge(status_of(exc), "", exc.code, 0)
        return judge(201, "", "", 0)


class Run:
    """One seed."""

    def __init__(self, folder: Path, seed: int, points: Counter[str]) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.points = points
        self.clock = OffsetClock()
        self.script = Script(self.chance, points)
        self.published = 0
        policy = self.chance.choice(("drop-oldest", "hold"))
        small = self.chance.random() < 0.5
        self.streams = (StreamConfig(name="default", bytes_max=64 * KIB if small else 0, policy=policy),)
        self.config = LinkConfig(
            name="up", url="http://up/", filter=self.chance.choice(("#", "want/#")), prefix=self.chance.choice(("", "p/")),
            format=self.chance.choice(("columns", "columns", "msgpack", "json")),
            batch_messages_max=self.chance.choice((5, 30, 200)),
            concurrency_max=self.chance.choice((1, 3, 6)), live_share=self.chance.choice((0.8, 0.8, 0.0)),
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None
        self.evicted: set[int] = set()
        self.expiring: set[int] = set()
        self.of_interest: dict[int, bytes] = {}

    async def run(self) -> None:
        """All steps, and the judgement."""
        for name in ("a", "b"):
            (self.folder / name).mkdir()
        self.sender = BusParts(self.folder / "a", *self.streams, clock=self.clock).bus
        await self.sender.start()
        await self._upstream_returns()
        self._start_link()
        steps: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._publish, 10), (self._wait, 6), (self._restart, 1), (self._crash, 1), (self._upstream_goes, 2),
            (self._upstream_returns, 2), (self._time_passes, 1), (self._sender_restarts, 1),
        ]  # fmt: skip
        works, weights = zip(*steps, strict=True)
        try:
            for _ in range(STEPS):
                await self.chance.choices(works, weights)[0]()
            await self._upstream_returns()
            self.script.is_kind = True
            await self._settled()
            await self._judge()
        finally:
            await self._stop_link()
            await self.sender.stop()
            if self.script.bus is not None:
                await self.script.bus.stop()

    # --- steps ------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        for _ in range(self.chance.choice((1, 3, 60))):
            topic = self.chance.choices(("want/t", "want/u", "other", "want/bad"), (20, 10, 10, 1))[0]
            ttl_s = 0.05 if self.chance.random() < 0.1 else None
            payload = b"%d " % self.published + bytes(self.chance.choice((1, 10, 300)))
            self.published += 1
            try:
                receipt = await self.sender.publish(topic, payload, options=None if ttl_s is None else Options(ttl_s=ttl_s))
            except GatewayError as exc:
                self.points[exc.code] += 1
                continue
            if topic != "other" or self.config.filter == "#":
                self.of_interest[receipt.seq] = payload
                if ttl_s is not None:
                    self.expiring.add(receipt.seq)

    async def _wait(self) -> None:
        await _pass(self.chance.random() * 0.03)

    async def _restart(self) -> None:
        self.points["restart"] += 1
        await self._stop_link()
        await self._wait()
        self._start_link()

    async def _crash(self) -> None:
        """What was taken and not recorded is forgotten."""
        self.points["crash"] += 1
        records = getattr(self.link, "_records", None)  # none while it begins
        if records is not None:
            records._spans.clear()
        await self._restart()

    async def _sender_restarts(self) -> None:
        self.points["sender"] += 1
        await self._stop_link()
        await self.sender.stop()
        self.sender = BusParts(self.folder / "a", *self.streams, clock=self.clock).bus
        await self.sender.start()
        self._start_link()

    async def _upstream_goes(self) -> None:
        if self.script.bus is not None:
            bus, self.script.bus = self.script.bus, None
            await bus.stop()

    async def _upstream_returns(self) -> None:
        if self.script.bus is None:
            self.points["upstream"] += 1
            bus = BusParts(self.folder / "b").bus
            await bus.start()
            self.script.bus = bus

    async def _time_passes(self) -> None:
        self.points["ttl"] += 1
        self.clock.offset_ms += 100
        await self.sender.tick()

    # --- the link ---------------------------------------------------------------------------------

    def _start_link(self) -> None:
        self.link = HttpLink(
            self.config, self.sender, self.clock, gateway="gw", conditions=Conditions(self.clock, Log("test")),
            metrics=LinkMetrics(Metrics(), lambda: [self.link.state()]), random01=self.chance.random,
        )  # fmt: skip
        self.task = asyncio.create_task(self.link.run())

    async def _stop_link(self) -> None:
        if self.task is None:
            return
        if self.task.done():
            await self.task
        self.task.cancel()
        await asyncio.wait({self.task})
        if not self.task.cancelled():
            raise AssertionError("the link ended") from self.task.exception()
        self.task = None

    @property
    def ledger(self) -> Ledger:
        """The link's record."""
        return self.sender.consumer(consumer_name("up")).ledger

    async def _settled(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while "link.up" not in self.sender.consumers or self.ledger.pending or self.ledger.settled:
                    assert self.task is not None and not self.task.done(), self.task
                    await _pass(0.005)
        except TimeoutError:
            raise AssertionError(f"not settled: {self.link.status()}, {self.ledger}") from None

    # --- judgement --------------------------------------------------------------------------------

    async def _judge(self) -> None:
        ledger = self.ledger
        assert self.script.bus is not None
        there = await _payloads(self.script.bus, "default")
        letters = await _payloads(self.sender, "dead-letter")
        stored = set(await _payloads(self.sender, "default"))
        twice = [payload.split()[0] for payload, count in Counter(there).items() if count > 1]
        assert not twice, f"twice upstream: {twice}"
        assert ledger.matched == len(self.of_interest)
        assert ledger.acked + ledger.dead_lettered + sum(ledger.lost.values()) == ledger.matched
        assert ledger.acked <= len(there), "counted as taken, and not there"
        known = set(there) | set(letters)
        missing = {seq for seq, payload in self.of_interest.items() if payload not in known}
        unexplained = {seq for seq in missing if self.of_interest[seq] in stored and seq not in self.expiring}
        assert not unexplained, f"neither there nor accounted for: {sorted(unexplained)}"
        assert len(missing) <= sum(ledger.lost.values()), f"{len(missing)} are missing, {ledger.lost} are counted"
        assert set(there) <= set(self.of_interest.values())


async def _payloads(bus: Bus, stream: str) -> list[bytes]:
    found: list[bytes] = []
    after = 0
    while after < bus.head(stream):
        part = Range(stream, bus.stream(stream).number, "#", after, bus.head(stream))
        page = await bus._journal.read(bus._journal.reader.read, part, 1000, 1 << 20, 0)  # at 1970 nothing has expired
        found += [item.payload for item in page.items if isinstance(item, Message)]
        after = page.position
    return found


async def _pass(seconds: float) -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


def simulate(folder: Path, monkeypatch: pytest.MonkeyPatch, seeds: range) -> Counter[str]:
    """One run a seed; what happened how often."""
    for name, value in QUICK.items():
        monkeypatch.setattr(http_link, name, value)
    monkeypatch.setattr(producers, "PRODUCER_RUNS_MAX", RUNS_MAX)
    points: Counter[str] = Counter()
    for seed in seeds:
        (folder / str(seed)).mkdir()
        run = Run(folder / str(seed), seed, points)
        monkeypatch.setattr(http_link, "Upstream", lambda *_, script=run.script: script)
        try:
            asyncio.run(run.run())
        except BaseException as exc:
            exc.add_note(f"seed {seed}: {run.config}, {run.streams}")
            raise
    return points


POINTS = {"before", "after", "slow", "busy", "split", "refused", "restart", "crash", "sender", "upstream", "ttl"}


@pytest.mark.timeout(120)
def test_each_message_is_upstream_once_or_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = simulate(tmp_path, monkeypatch, range(20))
    assert not POINTS - points.keys(), f"never happened: {POINTS - points.keys()}"
    assert not points["too_many_ranges"], "the link leaves gaps upstream"


@pytest.mark.all
@pytest.mark.timeout(3600)
def test_the_same_for_a_thousand_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path, monkeypatch, range(1000, 2000))

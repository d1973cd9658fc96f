"""A bus, or only its writer, on a real database in a test's folder, with a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import edgegw
from edgegw.bus import Bus, all_streams
from edgegw.clock import Clock
from edgegw.config import BUILT_IN_STREAMS, StreamConfig
from edgegw.core.cursor import Ledger, Terms
from edgegw.core.record import OCTETS, Batch, Chunk
from edgegw.core.topic import matches
from edgegw.limits import MIB
from edgegw.store.jobs import Create, Job, Outcome, Part, Publish, Settle, StreamStats, Tick
from edgegw.store.reader import Reader
from edgegw.store.writer import Writer

MIGRATIONS = Path(edgegw.__file__).parent / "migrations" / "bus"
START_MS = 1_800_000_000_000
DEFAULT = "default"


class HandClock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self.wall = START_MS
        self.mono = 1000.0

    def wall_ms(self) -> int:
        return self.wall

    def mono_s(self) -> float:
        return self.mono

    def pass_s(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += int(seconds * 1000)


def streams_of(*configs: StreamConfig) -> list[StreamConfig]:
    return all_streams(configs, BUILT_IN_STREAMS)


def make_writer(folder: Path, *configs: StreamConfig, clock: Clock | None = None, boot_id: str = "boot") -> Writer:
    return Writer(
        folder / "bus.db",
        streams_of(*configs),
        clock or HandClock(),
        boot_id=boot_id,
        migrations=MIGRATIONS,
        free_bytes=400 * MIB,
    )


def make_terms(
    name: str = "c",
    topic_filter: str = "#",
    stream: str = DEFAULT,
    *,
    max_inflight: int = 100,
    ack_wait_s: float = 30,
    max_deliver: int = 3,
) -> Terms:
    return Terms(name, stream, topic_filter, max_inflight, ack_wait_s, max_deliver)


class Shelf:
    """A writer, and what its commits told, kept as the bus keeps it."""

    def __init__(self, folder: Path, *configs: StreamConfig, clock: HandClock | None = None) -> None:
        self.folder = folder
        self.configs = configs
        self.clock = clock or HandClock()
        self.streams: dict[str, StreamStats] = {}
        self.ledgers: dict[int, Ledger] = {}
        self.start()

    def start(self) -> None:
        """Open it, with nothing known but what is on disk."""
        self.writer = make_writer(self.folder, *self.configs, clock=self.clock)
        self.streams, self.ledgers = {}, {}
        self._absorb(self.writer.open())

    def turn(self, *jobs: Job) -> Outcome:
        outcome = self.writer.turn(jobs)
        self._absorb(outcome)
        return outcome

    def publish(self, *payloads: bytes, stream: str = DEFAULT, topic: str = "t", **columns: object) -> Publish:
        """One batch in a commit of its own, and so a chunk of its own."""
        job = publish_job(*payloads, stream=stream, topic=topic, time_ms=self.clock.wall_ms(), **columns)
        self.turn(job)
        return job

    def consumer(self, terms: Terms, floor: int = 0) -> int:
        """Make a consumer of messages that are still to come, or (floor 0) of all that are stored; its number."""
        stats = self.streams[terms.stream]
        floor = max(floor, stats.first - 1)
        job = Create(terms, floor, floor, 0, stats.evictions)
        self.turn(job)
        assert job.error is None, job.error
        assert job.ledger is not None
        return job.ledger.number

    def settle(self, number: int, *seqs: int, floor: int = 0, how: str = "acked") -> Settle:
        job = Settle(number, sorted(seqs), floor, how)
        self.turn(job)
        return job

    def tick(self) -> Outcome:
        return self.turn(Tick())

    def ledger(self, number: int) -> Ledger:
        return self.ledgers[number]

    def chunks(self, stream: str = DEFAULT) -> list[Chunk]:
        """What is stored, read past everything that keeps count of it."""
        number = self.streams[stream].number
        rows = self.writer._db.execute("SELECT data FROM chunk WHERE id >> 48 = ? ORDER BY id", (number,)).fetchall()
        return [Chunk(data) for (data,) in rows]

    def stored(self, stream: str = DEFAULT) -> list[int]:
        """Numbers of the stored messages."""
        return [chunk.first_seq + i for chunk in self.chunks(stream) for i in range(chunk.count)]

    def stored_ids(self, stream: str = DEFAULT) -> list[int]:
        """Row numbers of the chunks, whether they can be read or not."""
        sql = "SELECT id FROM chunk WHERE id >> 48 = ? ORDER BY id"
        return [row for (row,) in self.writer._db.execute(sql, (self.streams[stream].number,))]

    def gaps(self, stream: str = DEFAULT) -> list[tuple[int, int, str]]:
        number = self.streams[stream].number
        sql = "SELECT first, last, reason FROM gap WHERE stream = ? ORDER BY first"
        return self.writer._db.execute(sql, (number,)).fetchall()

    def check(self) -> None:
        """Memory is what a start would find; both ledgers balance; what is missing is told as a gap."""
        reader = make_writer(self.folder, *self.configs, clock=self.clock)
        found = reader.open()
        reader.abandon()
        assert {name: _durable(stats) for name, stats in self.streams.items()} == {
            name: _durable(stats) for name, stats in found.streams.items()
        }
        assert self.ledgers == found.ledgers
        for name, stats in self.streams.items():
            stored = self.stored(name)
            assert stats.head == len(stored) + sum(stats.removed.values())
            assert stats.rows == len(stored)
            missing = [seq for first, last, _ in self.gaps(name) for seq in range(first, last + 1)]
            assert sorted(stored + missing) == list(range(1, stats.head + 1))
            if stored:
                assert stats.first == stored[0]
        for ledger in self.ledgers.values():
            ledger.check()
            assert ledger.pending == len(self.wanted(ledger))

    def wanted(self, ledger: Ledger) -> list[int]:
        """Numbers of the stored messages that the consumer matches and has not settled."""
        return [
            chunk.first_seq + i
            for chunk in self.chunks(ledger.terms.stream)
            for i in range(chunk.count)
            if ledger.wants(chunk.first_seq + i) and matches(ledger.terms.filter, chunk.topic_of(i))
        ]

    def _absorb(self, outcome: Outcome) -> None:
        self.streams.update(outcome.streams)
        for number, ledger in outcome.ledgers.items():
            if ledger is None:
                self.ledgers.pop(number, None)
            else:
                self.ledgers[number] = ledger


def _durable(stats: StreamStats) -> StreamStats:
    return stats._replace(evictions=0)  # counts from the start of the process


def publish_job(*payloads: bytes, stream: str = DEFAULT, topic: str = "t", time_ms: int = START_MS, **columns: object) -> Publish:
    topics = columns.pop("topics", None) or [topic] * len(payloads)
    batch = Batch(topics, list(payloads), OCTETS, **columns)  # type: ignore[arg-type]
    return Publish([Part(stream, batch, time_ms)])


class BusParts:
    """The bus with all its parts, and what it told of commits and of its death."""

    def __init__(self, folder: Path, *configs: StreamConfig, clock: Clock | None = None) -> None:
        self.clock = clock or HandClock()
        self.outcomes: list[Outcome] = []
        self.deaths: list[BaseException] = []
        self.writer = make_writer(folder, *configs, clock=self.clock)
        self.bus = Bus(
            self.writer,
            Reader(folder / "bus.db"),
            streams_of(*configs),
            self.clock,
            watch=lambda outcome, _: self.outcomes.append(outcome),
            on_death=self.deaths.append,
        )


@asynccontextmanager
async def open_bus(folder: Path, *configs: StreamConfig, clock: Clock | None = None) -> AsyncIterator[Bus]:
    """A bus that is started and stopped."""
    bus = BusParts(folder, *configs, clock=clock).bus
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


async def begun(work: Coroutine[Any, Any, object]) -> None:
    """Begin the work, and go away before it is done."""
    task = asyncio.get_running_loop().create_task(work)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds: a while, or the test fails."""
    deadline_s = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s, f"waited in vain until {what}"
        await asyncio.sleep(0)

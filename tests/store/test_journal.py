"""The journal as the loop sees it: jobs become durable together and come back in order; nothing waits for ever."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgegw.errors import Busy, StoreError
from edgegw.limits import KIB, QUEUE_BYTES_MAX, QUEUE_WAITERS_MAX, TRAY_BYTES, WAKE_SLICE
from edgegw.store.jobs import Job, Outcome, Receipt, Tick
from edgegw.store.journal import Journal
from edgegw.store.reader import Range, Reader
from tests.bus_setup import HandClock, make_writer, publish_job, until


class Rig:
    """A journal with a gate before its disk, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.writer = make_writer(folder)
        self.gate = threading.Event()
        self.gate.set()
        self.turns: list[list[Job]] = []
        self.commits: list[tuple[list[Job], Outcome]] = []
        self.deaths: list[BaseException] = []
        self.fault: BaseException | None = None
        turn = self.writer.turn

        def gated_turn(jobs: Iterable[Job]) -> Outcome:
            taken = list(jobs)
            self.turns.append(taken)
            assert self.gate.wait(20)
            if self.fault is not None:
                raise self.fault
            return turn(taken)

        self.writer.turn = gated_turn  # type: ignore[method-assign]
        self.journal = Journal(
            self.writer,
            Reader(folder / "bus.db"),
            HandClock(),
            on_commit=lambda jobs, outcome: self.commits.append((jobs, outcome)),
            on_death=self.deaths.append,
        )

    def send(self, payload: bytes) -> asyncio.Future[Receipt]:
        """As the bus publishes a single message."""
        tray = self.journal.tray("default", len(payload))
        assert tray is not None
        tray.room_bytes -= len(payload)
        tray.topics.append("t")
        tray.payloads.append(payload)
        tray.content_types.append("x/y")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        tray.futures.append(future)
        return future


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Rig]:
    rig = Rig(folder)
    await rig.journal.start()
    try:
        yield rig
    finally:
        rig.gate.set()
        await rig.journal.stop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def payloads(jobs: Iterable[Job]) -> list[bytes]:
    return [payload for job in jobs for part in getattr(job, "parts", ()) for payload in part.batch.payloads]


# --- group commit ---------------------------------------------------------------------------------


async def test_what_one_iteration_brings_is_one_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        receipts = await asyncio.gather(*(rig.send(str(n).encode()) for n in range(50)))
        assert [receipt.seq for receipt in receipts] == list(range(1, 51))
        assert len(rig.turns) == 1


async def test_what_comes_during_a_commit_is_the_next_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        rig.gate.clear()
        first = rig.send(b"1")
        await until(lambda: len(rig.turns) == 1, "the first commit began")
        later = [rig.send(str(n).encode()) for n in range(2, 10)]
        await asyncio.sleep(0)
        assert not first.done()
        rig.gate.set()
        assert [(await one).seq for one in (first, *later)] == list(range(1, 10))
        assert [len(payloads(jobs)) for jobs in rig.turns] == [1, 8]


async def test_jobs_keep_their_order_among_single_messages(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        first, job, last = rig.send(b"1"), publish_job(b"2", b"3"), None
        done = rig.journal.submit(job)
        last = rig.send(b"4")
        await asyncio.gather(first, done, last)
        assert (first.result().seq, job.parts[0].first_seq, last.result().seq) == (1, 2, 4)


async def test_a_commit_takes_so_many_bytes(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await asyncio.gather(*(rig.journal.submit(publish_job(bytes(900 * KIB))) for _ in range(4)))
        assert [len(jobs) for jobs in rig.turns] == [3, 1]


async def test_the_loop_hears_of_a_commit_before_its_publishers(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        future = rig.send(b"1")
        told = []
        future.add_done_callback(lambda _: told.append(len(rig.commits)))
        await future
        assert told == [1]
        assert (rig.journal.turns, rig.journal.queued_bytes) == (1, 0)


async def test_a_job_that_fails_tells_its_own_publisher(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        first, second = publish_job(b"1", keys=["k"]), publish_job(b"2", keys=["k"])
        results = await asyncio.gather(rig.journal.submit(first), rig.journal.submit(second), return_exceptions=True)
        assert results[0] is None
        assert getattr(results[1], "code", None) == "key_reused"


async def test_a_publisher_that_gave_up_disturbs_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        rig.gate.clear()
        futures = [rig.send(b"1"), rig.send(b"2"), rig.send(b"3")]
        futures[1].cancel()
        rig.gate.set()
        assert [(await futures[0]).seq, (await futures[2]).seq] == [1, 3]


async def test_many_publishers_are_woken_in_slices_and_all_of_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        count = 5 * WAKE_SLICE
        await asyncio.gather(*(rig.journal.submit(Tick()) for _ in range(count)))
        assert len(rig.turns) == 1


async def test_trays_are_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        small = [rig.send(b"x" * 1000) for _ in range(20)]
        large = rig.send(bytes(100 * KIB))
        assert max(len(payload) for payload in payloads(rig.journal._jobs)) == 1000
        after = rig.send(b"y")
        await asyncio.gather(*small, large, after)
        sizes = [sum(map(len, payloads([job]))) for job in rig.turns[0]]
        assert 100 * KIB in sizes  # alone: whether it fits is nobody else's concern
        assert max(size for size in sizes if size != 100 * KIB) <= TRAY_BYTES
        assert after.result().seq == 22


# --- backpressure ---------------------------------------------------------------------------------


async def fill(rig: Rig) -> list[asyncio.Future[None]]:
    """One commit under way, and a queue above its mark."""
    rig.gate.clear()
    waits = [rig.journal.submit(publish_job(b"first"))]
    await until(lambda: bool(rig.turns), "the first commit began")
    while not rig.journal.is_busy:
        waits.append(rig.journal.submit(publish_job(bytes(KIB * 512))))
    return waits


async def test_above_the_mark_publishers_wait_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        waits = await fill(rig)
        assert rig.journal.tray("default", 1) is None
        order: list[int] = []

        async def publish(n: int) -> None:
            await rig.journal.room(100, 20)
            order.append(n)

        tasks = [asyncio.create_task(publish(n)) for n in range(100)]
        await until(lambda: len(rig.journal._waiters) == 100, "all wait")
        assert order == []
        rig.gate.set()
        await asyncio.gather(*waits, *tasks)
        assert order == list(range(100))
        assert not rig.journal.is_busy


async def test_small_publishers_are_let_in_together_after_large_ones(tmp_path: Path) -> None:
    """Each brings little: letting in a few a commit would keep the queue short and the disk slow, for as long as they come."""
    async with opened(tmp_path) as rig:
        waits = await fill(rig)

        async def publish() -> None:
            if rig.journal.is_busy:
                await rig.journal.room(100, 20)
            await rig.journal.submit(publish_job(b"x" * 100))

        tasks = [asyncio.create_task(publish()) for _ in range(500)]
        await until(lambda: len(rig.journal._waiters) == 500, "all wait")
        before = len(rig.turns)
        rig.gate.set()
        await asyncio.gather(*waits, *tasks)
        assert len(rig.turns) - before < 20


async def test_no_more_is_let_in_than_there_is_room_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        waits = await fill(rig)
        largest = 0

        async def publish() -> None:
            nonlocal largest
            await rig.journal.room(QUEUE_BYTES_MAX // 4, 20)
            done = rig.journal.submit(publish_job(bytes(QUEUE_BYTES_MAX // 4)))
            largest = max(largest, rig.journal.queued_bytes)
            await done

        tasks = [asyncio.create_task(publish()) for _ in range(12)]
        await asyncio.sleep(0)
        rig.gate.set()
        await asyncio.gather(*waits, *tasks)
        assert largest < QUEUE_BYTES_MAX * 1.5


async def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        waits = await fill(rig)
        with pytest.raises(Busy, match=r"no room within 0.01 s"):
            await rig.journal.room(1, 0.01)
        assert not rig.journal._waiters
        rig.gate.set()
        await asyncio.gather(*waits)


async def test_too_many_may_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.store.journal.QUEUE_WAITERS_MAX", 3)
    assert QUEUE_WAITERS_MAX > 3
    async with opened(tmp_path) as rig:
        waits = await fill(rig)
        tasks = [asyncio.create_task(rig.journal.room(1, 20)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="3 publishers wait already"):
            await rig.journal.room(1, 20)
        rig.gate.set()
        await asyncio.gather(*waits, *tasks)


async def test_one_that_stops_waiting_leaves_its_place(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        waits = await fill(rig)
        tasks = [asyncio.create_task(rig.journal.room(1, 20)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        rig.gate.set()
        await asyncio.gather(*waits, tasks[0], tasks[2])
        assert tasks[1].cancelled()
        assert not rig.journal._waiters


# --- start and stop -------------------------------------------------------------------------------


async def test_stop_commits_what_was_accepted_and_leaves_nothing(tmp_path: Path) -> None:
    threads, before = threading.active_count(), descriptors()
    rig = Rig(tmp_path)
    await rig.journal.start()
    rig.gate.clear()
    futures = [rig.send(b"1")]
    await until(lambda: bool(rig.turns), "the commit began")
    futures.append(rig.send(b"2"))
    stopping = asyncio.create_task(rig.journal.stop())
    await asyncio.sleep(0)
    with pytest.raises(StoreError, match="stopping"):
        rig.journal.submit(Tick())
    with pytest.raises(StoreError, match="stopping"):
        await rig.journal.read(len, [])
    rig.gate.set()
    await stopping
    assert [(await one).seq for one in futures] == [1, 2]
    await rig.journal.stop()
    assert (threading.active_count(), descriptors()) == (threads, before)
    assert not (tmp_path / "bus.db-wal").exists()


async def test_stop_in_the_iteration_of_a_publish_keeps_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.journal.start()
    future = rig.send(b"1")
    await rig.journal.stop()
    assert (await future).seq == 1


async def test_who_waits_for_room_while_it_stops_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.journal.start()
    waits = await fill(rig)

    async def publish() -> None:
        await rig.journal.room(1, 20)
        await rig.journal.submit(publish_job(b"late"))

    tasks = [asyncio.create_task(publish()) for _ in range(3)]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(rig.journal.stop())
    await asyncio.sleep(0)
    rig.gate.set()
    await asyncio.gather(*waits, stopping)
    assert [getattr(error, "code", None) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [
        "store_closed"
    ] * 3


async def test_after_the_end_each_publish_is_refused(tmp_path: Path) -> None:
    """All of one iteration: none may be put where nobody looks any more."""
    rig = Rig(tmp_path)
    await rig.journal.start()
    await rig.journal.stop()
    for _ in range(3):
        with pytest.raises(StoreError, match="stopping"):
            rig.send(b"x")


async def test_a_store_that_cannot_be_opened_fails_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bus.db").write_bytes(b"no database " * 1000)
    threads, before = threading.active_count(), descriptors()
    rig = Rig(tmp_path)
    with pytest.raises(StoreError):
        await rig.journal.start()
    await rig.journal.stop()
    assert (threading.active_count(), descriptors()) == (threads, before)


@pytest.mark.parametrize("where", ["writer", "reader"])
async def test_a_fault_nobody_foresaw_fails_the_start_and_leaves_nothing(tmp_path: Path, where: str) -> None:
    threads, before = threading.active_count(), descriptors()
    rig = Rig(tmp_path)

    def fail() -> None:
        raise ValueError("a bug")

    if where == "writer":
        rig.writer._load = fail  # type: ignore[method-assign]
    else:
        rig.journal.reader.open = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(rig.journal.start(), 20)
    assert (threading.active_count(), descriptors()) == (threads, before)


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    threads, before = threading.active_count(), descriptors()
    rig = Rig(tmp_path)
    task = asyncio.create_task(rig.journal.start())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: threading.active_count() == threads, "the threads ended")
    assert descriptors() == before


async def test_reads_run_beside_commits(tmp_path: Path) -> None:
    async with opened(tmp_path) as rig:
        await rig.journal.submit(publish_job(b"1"))
        rig.gate.clear()
        writing = rig.journal.submit(publish_job(b"2"))
        number = 1
        page = await rig.journal.read(rig.journal.reader.read, Range("default", number, "#", 0, 1), 10, 10, 0)
        assert len(page.items) == 1
        rig.gate.set()
        await writing


# --- death ----------------------------------------------------------------------------------------


async def test_a_writer_that_dies_acknowledges_nothing_and_says_so(tmp_path: Path) -> None:
    threads, before = threading.active_count(), descriptors()
    rig = Rig(tmp_path)
    await rig.journal.start()
    waits = await fill(rig)
    rig.fault = MemoryError()
    waiting = asyncio.create_task(rig.journal.room(1, 20))
    await asyncio.sleep(0)
    rig.gate.set()
    results = await asyncio.gather(*waits, waiting, return_exceptions=True)
    assert [getattr(error, "code", None) for error in results] == ["store_failed"] * len(results)
    assert [type(exc) for exc in rig.deaths] == [MemoryError]
    for _ in range(2):
        with pytest.raises(StoreError, match="the writer of the store failed"):
            rig.send(b"x")
        with pytest.raises(StoreError, match="the writer of the store failed"):
            await rig.journal.room(1, 20)
    assert rig.journal.queued_bytes == 0
    await rig.journal.stop()
    assert (threading.active_count(), descriptors()) == (threads, before)


async def test_a_death_while_it_stops_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.journal.start()
    rig.gate.clear()
    future = rig.send(b"1")
    await until(lambda: bool(rig.turns), "the commit began")
    rig.fault = RuntimeError("dead")
    stopping = asyncio.create_task(rig.journal.stop())
    await asyncio.sleep(0)
    rig.gate.set()
    await asyncio.wait_for(stopping, 20)
    with pytest.raises(StoreError):
        await future


async def test_messages_of_a_tray_that_was_open_when_the_writer_died_are_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.journal.start()
    future = rig.send(b"1")
    rig.journal._died(RuntimeError("dead"))
    with pytest.raises(StoreError):
        await future
    with pytest.raises(StoreError):
        rig.send(b"2")
    await rig.journal.stop()

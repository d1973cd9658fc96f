"""The journal as the event loop sees it: jobs go in, become durable together, and come back.

Group commit without a timer: while the writer thread is in one commit, jobs collect; when it comes back they all go into the
next one. A commit begins at the end of the loop iteration that brought its first job, so that everything one iteration
brings shares an fsync. The slower the disk, the larger the commits.

Single messages without options share a job, a tray: what one loop iteration brings costs four list appends and a future each.

The reader thread takes reads one at a time. `stop` ends it before the writer, so that no one reads while the WAL goes away.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from edgegw.clock import Clock
from edgegw.errors import Busy, StoreError
from edgegw.limits import COMMIT_BYTES_MAX, QUEUE_BYTES_MAX, QUEUE_WAITERS_MAX, TRAY_BYTES, WAKE_SLICE
from edgegw.store.jobs import Job, Outcome, Tray
from edgegw.store.reader import Reader
from edgegw.store.writer import Writer

P = ParamSpec("P")
R = TypeVar("R")


class Journal:
    """Owns the two threads. All methods belong to the loop's thread.

    `on_commit(jobs, outcome)` runs in the loop after each commit, before its publishers wake; `on_death(exc)` when the writer
    thread failed in a way it does not know: nothing can be stored any more.
    """

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        *,
        on_commit: Callable[[list[Job], Outcome], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._on_commit = on_commit
        self._on_death = on_death
        self._queue: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._jobs: deque[Job] = deque()
        self.trays: dict[str, Tray] = {}  # open ones; for `Bus.publish`, which looks itself before it calls `tray`
        self._clock = clock
        self._queued_bytes = 0
        self._in_commit = False
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()  # with the bytes that each will bring
        self._closed = StoreError("store_closed", "the gateway is stopping", "try again in a moment")
        self._is_open = False
        self._is_started = False
        self._drained: asyncio.Future[None] | None = None
        self.turns = 0  # commits that came back; what the watchdog looks at

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> Outcome:
        """Open the database in its threads; returns all streams and consumers. Raises StoreError."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Outcome] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="edgegw-writer", daemon=True)
        self._pool = ThreadPoolExecutor(1, "edgegw-reader")
        self._thread.start()
        try:
            outcome = await opened
            await self._loop.run_in_executor(self._pool, self._reader.open)
        except BaseException:
            self._queue.put(None)
            self._thread.join()
            self._pool.shutdown()
            raise
        self._is_started = self._is_open = True
        return outcome

    async def stop(self) -> None:
        """Commit what was accepted, close both connections, end both threads. Twice is harmless."""
        if not self._is_started:
            return
        self._is_started = self._is_open = False
        if self._jobs or self._in_commit:
            self._drained = self._loop.create_future()
            await self._drained
        await self._loop.run_in_executor(self._pool, self._reader.close)
        self._pool.shutdown(wait=True)
        self._queue.put(None)
        await self._ended
        self._thread.join()
        self._fail_waiters()

    # --- writing ----------------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        """Bytes waiting for the writer."""
        return self._queued_bytes

    def submit(self, job: Job) -> asyncio.Future[None]:
        """Put the job into the next commit. The future ends when it is durable, or raises the job's error."""
        future = job.future = self._loop.create_future()
        self._seal_trays()  # what comes later must not overtake this job in an earlier tray
        self._append(job)
        return future

    def tray(self, stream: str, size_bytes: int) -> Tray | None:
        """A tray that has room for the stream's next message, or is its own; None when it should wait for `room` first."""
        tray = self.trays.get(stream)
        if tray is not None:
            if tray.room_bytes >= size_bytes:
                return tray
            self._queued_bytes += self.trays.pop(stream).seal()
        if self.is_busy:
            return None
        if not self.trays:
            self._loop.call_soon(self._seal_trays)  # at the end of this iteration
        tray = Tray(stream, self._clock.wall_ms(), TRAY_BYTES)
        self._append(tray)
        self.trays[stream] = tray
        return tray

    def _append(self, job: Job) -> None:
        if not self._is_open:
            raise self._closed
        if not self._jobs and not self._in_commit:
            self._loop.call_soon(self._flush)
        self._jobs.append(job)
        self._queued_bytes += job.size_bytes

    def _seal_trays(self) -> None:
        for tray in self.trays.values():
            self._queued_bytes += tray.seal()
        self.trays.clear()

    @property
    def is_busy(self) -> bool:
        """Whether a publisher should wait for `room` first."""
        return self._queued_bytes > QUEUE_BYTES_MAX or bool(self._waiters)

    async def room(self, size_bytes: int, wait_s: float) -> None:
        """Wait, in order of arrival, until the queue is below its mark and this is next. Raises Busy, StoreError."""
        if not self._is_open:
            raise self._closed
        if len(self._waiters) >= QUEUE_WAITERS_MAX:
            raise _busy(f"{QUEUE_WAITERS_MAX} publishers wait already")
        waiter: asyncio.Future[None] = self._loop.create_future()
        place = (waiter, size_bytes)
        self._waiters.append(place)
        try:
            async with asyncio.timeout(wait_s):
                await waiter
        except TimeoutError:
            raise _busy(f"no room within {wait_s:g} s") from None
        finally:
            if place in self._waiters:
                self._waiters.remove(place)

    # --- reading ----------------------------------------------------------------------------------

    async def read(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one of `reader`'s methods in its thread."""
        if not self._is_open:
            raise self._closed
        return await self._loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    @property
    def reader(self) -> Reader:
        """For `read`."""
        return self._reader

    # --- the loop's side of a turn ----------------------------------------------------------------

    def _flush(self) -> None:
        if self._in_commit or not self._jobs:
            return
        self._seal_trays()
        jobs: list[Job] = []
        size_bytes = 0
        while self._jobs and size_bytes < COMMIT_BYTES_MAX:
            job = self._jobs.popleft()
            jobs.append(job)
            size_bytes += job.size_bytes
        self._in_commit = True
        self._queue.put(jobs)

    def _came_back(self, jobs: list[Job], outcome: Outcome) -> None:
        self._in_commit = False
        self.turns += 1
        for job in jobs:
            self._queued_bytes -= job.size_bytes
        self._flush()
        self._on_commit(jobs, outcome)
        self._wake(iter(jobs))
        room_bytes = QUEUE_BYTES_MAX - self._queued_bytes
        while self._waiters and room_bytes > 0:
            waiter, size_bytes = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room_bytes -= size_bytes
        if self._drained is not None and not self._in_commit and not self._drained.done():
            self._drained.set_result(None)

    def _wake(self, jobs: Iterator[Job]) -> None:
        """Tell the publishers, a slice an iteration: the first ones' next messages are in a commit while the last ones wake."""
        woken = 0
        for job in jobs:
            woken += _resolve(job)
            if woken >= WAKE_SLICE:
                self._loop.call_soon(self._wake, jobs)
                return

    def _died(self, exc: BaseException) -> None:
        self._is_open = False
        self._closed = StoreError("store_failed", f"the writer of the store failed: {exc!r}", "the gateway ends; see its log")
        self.trays.clear()
        for job in self._jobs:
            job.error = self._closed
            _resolve(job)
        self._jobs.clear()
        self._queued_bytes = 0
        self._in_commit = False
        self._fail_waiters()
        for end in (self._drained, self._ended):
            if end is not None and not end.done():
                end.set_result(None)
        self._on_death(exc)

    def _fail_waiters(self) -> None:
        for waiter, _ in self._waiters:
            if not waiter.done():
                waiter.set_exception(self._closed)
        self._waiters.clear()

    # --- the writer thread ------------------------------------------------------------------------

    def _run(self, opened: asyncio.Future[Outcome]) -> None:
        call = self._loop.call_soon_threadsafe
        try:
            outcome = self._writer.open()
        except BaseException as exc:  # a StoreError, or a bug: whoever waits hears of it
            call(_end, opened, None, exc)
            return
        call(_end, opened, outcome, None)
        jobs: list[Job] | None = None
        try:
            while (jobs := self._queue.get()) is not None:
                call(self._came_back, jobs, self._writer.turn(jobs))
            self._writer.close()
            call(self._ended.set_result, None)
        except BaseException as exc:  # a bug, or out of memory: nothing more may be acknowledged
            self._writer.abandon()
            call(self._died_in, jobs or [], exc)

    def _died_in(self, jobs: list[Job], exc: BaseException) -> None:
        self._jobs.extendleft(reversed(jobs))
        self._died(exc)


def _end(opened: asyncio.Future[Outcome], outcome: Outcome | None, exc: BaseException | None) -> None:
    if not opened.done():  # cancelled: nobody waits any more
        if outcome is not None:
            opened.set_result(outcome)
        elif exc is not None:
            opened.set_exception(exc)


def _resolve(job: Job) -> int:
    if isinstance(job, Tray):
        job.resolve()
        return len(job.futures)
    if job.future is not None and not job.future.done():
        if job.error is None:
            job.future.set_result(None)
        else:
            job.future.set_exception(job.error)
    return 1


def _busy(why: str) -> Busy:
    return Busy("busy", f"the store is behind: {why}", "send less, or in larger batches; try again after Retry-After")

"""The one connection that writes and checkpoints `bus.db`; lives in the writer thread, knows no event loop.

A turn takes a list of jobs, in order, and makes one FULL commit of them: when `turn` returns, what its jobs report is durable.
Each job is all or nothing. SQL runs in one transaction that the first statement opens; a turn that only stores one chunk is a
single autocommit INSERT (one call into SQLite, one release of the GIL). Memory follows the database: every change in memory
leaves an undo behind, and a commit that fails runs them all, so sequence numbers have no holes.

What a chunk row carries beside its messages makes the rest derivable, so that a publish writes nothing else:
    head       of a stream   = last number of its newest chunk            (or stream.head, when all chunks were evicted)
    bytes      of a stream   = total_bytes of its newest chunk - removed
    received                 = head: numbers have no gaps, so it counts
    matched    of a consumer = its mark in the newest chunk               (or its own row, the larger)
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter_ns

from edgegw.clock import Clock
from edgegw.config import StreamConfig
from edgegw.core.cursor import ACKED, DEAD, Ledger
from edgegw.core.record import Batch, Chunk, ChunkBuilder, Gap
from edgegw.core.runs import covers, holds, overlaps
from edgegw.core.topic import matches
from edgegw.errors import Conflict, GatewayError, NotFound, StoreFull
from edgegw.limits import (
    CACHE_KIB,
    CHUNK_BYTES,
    CHUNK_MESSAGES,
    CHUNK_ROW_BYTES,
    CONSUMERS_MAX,
    EVICT_CHUNKS_PER_TURN,
    WAL_BUSY_MS,
    WAL_BYTES_MAX,
)  # fmt: skip
from edgegw.store.disk import sync_folder
from edgegw.store.evict import Evictor
from edgegw.store.faults import store_error
from edgegw.store.jobs import Change, Configure, Create, Delete, Job, Outcome, Part, Publish, Settle, Span, Tick
from edgegw.store.key_window import KeyWindow
from edgegw.store.ledgers import pack_ledger, unpack_ledger
from edgegw.store.load import bound, load_head, load_streams, make_streams, new_stream, stream_rows
from edgegw.store.migrate import migrate
from edgegw.store.producers import Producers
from edgegw.store.retained import RetainedValues, Value
from edgegw.store.streams import StreamState, row_id
from edgegw.store.wal import Wal

_PRAGMAS = (
    f"busy_timeout = {WAL_BUSY_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = OFF",  # deleted payloads stay on the flash until overwritten; ON writes 87 times as much to evict
    "mmap_size = 0",  # an I/O error must be an error, not a SIGBUS
    "wal_autocheckpoint = 0",  # wal.py decides
    f"journal_size_limit = {WAL_BYTES_MAX}",
    f"cache_size = -{CACHE_KIB}",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "temp_store = MEMORY",
)


class _Turn:
    """What one commit has staged so far."""

    __slots__ = ("builders", "outcome", "retained", "retained_count", "rows", "touched", "undo")

    def __init__(self, retained_count: int) -> None:
        self.outcome = Outcome()
        self.builders: dict[str, list[ChunkBuilder]] = {}
        self.touched: dict[str, StreamState] = {}
        self.undo: list[Callable[[], None]] = []
        self.rows: set[int] = set()  # consumers whose row is written
        self.retained: list[Value] = []
        self.retained_count = retained_count  # before it


class Writer:
    """Opens, migrates and owns the database. Every method runs in the writer thread."""

    def __init__(
        self, path: Path, streams: Sequence[StreamConfig], clock: Clock, *, boot_id: str, migrations: Path, free_bytes: int
    ) -> None:
        self._path = path
        self._configured = streams
        self._clock = clock
        self._boot_id = boot_id
        self._migrations = migrations
        self._free_bytes = free_bytes
        self._streams: dict[str, StreamState] = {}
        self._ledgers: dict[int, Ledger] = {}
        self._turn = _Turn(0)
        self._epoch = 1
        self._store_id = 0
        self._boot = 0

    # --- open and close ---------------------------------------------------------------------------

    def open(self) -> Outcome:
        """Open or make the database; returns every stream and consumer. Raises StoreError."""
        is_new = not self._path.exists()
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=64)
        except sqlite3.Error as exc:
            raise store_error(exc, self._path) from exc
        try:
            for pragma in _PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            migrate(self._db, self._migrations)
            if is_new:
                sync_folder(self._path.parent)
            self._keys = KeyWindow(self._db, self._clock)
            self._producers = Producers(self._db, self._clock)
            self._evictor = Evictor(self._db, self._ledgers_of, self._set_ledger)
            self._retained = RetainedValues(self._db)
            self._load()
        except sqlite3.Error as exc:
            self.abandon()
            raise store_error(exc, self._path) from exc
        except BaseException:
            self.abandon()
            raise
        return Outcome(
            streams={name: st.stats() for name, st in self._streams.items()},
            ledgers=dict(self._ledgers),
            epoch=f"{self._store_id:x}.{self._epoch}",
        )

    def close(self) -> None:
        """Copy the WAL into the database and close; nothing is lost if this does not happen."""
        with suppress(sqlite3.Error):  # what is committed is durable in the WAL
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the files as they are: what is committed is durable, what is not is rolled back at the next start."""
        with suppress(sqlite3.Error):
            self._db.close()

    def _load(self) -> None:
        db = self._db
        wal = self._path.with_name(f"{self._path.name}-wal")
        self._wal = Wal(db, wal.stat().st_size if wal.exists() else 0)  # what a kill left behind counts as well
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
        self._epoch, self._store_id = meta["epoch"], meta["store_id"]
        last = db.execute("SELECT number, id FROM boot ORDER BY number DESC LIMIT 1").fetchone()
        if last is None or last[1] != self._boot_id:
            db.execute("INSERT INTO boot (id, wall_ms) VALUES (?, ?)", (self._boot_id, self._clock.wall_ms()))
        self._boot = db.execute("SELECT max(number) FROM boot").fetchone()[0]
        self._streams = load_streams(db, self._configured, self._free_bytes)
        marks: dict[int, int] = {}
        for st in self._streams.values():
            marks |= load_head(db, st)
        for number, name, record in db.execute("SELECT number, name, record FROM consumer").fetchall():
            ledger = unpack_ledger(number, name, record)
            matched = max(ledger.matched, marks.get(number, 0))
            self._ledgers[number] = ledger.count(matched - ledger.matched)
            self._streams[ledger.terms.stream].consumers.add(ledger.terms.filter, number)

    # --- a turn -----------------------------------------------------------------------------------

    def turn(self, jobs: Iterable[Job]) -> Outcome:
        """Commit the jobs; on return they are durable, or carry an `error` and left nothing behind."""
        turn = self._turn = _Turn(self._retained.count)
        started = perf_counter_ns()
        try:
            for job in jobs:
                try:
                    self._stage(job)
                except GatewayError as exc:
                    job.error = exc
            self._commit()
        except sqlite3.Error as exc:
            self._roll_back()
            error = store_error(exc, self._path)
            for job in jobs:
                job.error = job.error or error
            return Outcome(error=error, wal_bytes=self._wal.size_bytes)
        for name, st in self._streams.items():
            if name in turn.touched:
                turn.outcome.streams[name] = st.stats()
        turn.outcome.commit_us = (perf_counter_ns() - started) // 1000
        self._wal.checkpoint()
        turn.outcome.wal_bytes = self._wal.size_bytes
        return turn.outcome

    def _stage(self, job: Job) -> None:
        if isinstance(job, Publish):
            if job.span is None:
                self._publish(job.parts)
            else:
                self._publish_span(job, job.span)
        elif isinstance(job, Settle):
            self._settle(job)
        elif isinstance(job, Tick):
            self._tick()
        elif isinstance(job, Create):
            self._create(job)
        elif isinstance(job, Change):
            ledger = self._ledger(job.number)
            self._set_ledger(ledger.change(job.terms))
        elif isinstance(job, Delete):
            self._delete(job)
        elif isinstance(job, Configure):
            self._configure(job)

    def _commit(self) -> None:
        turn, db = self._turn, self._db
        single = (
            not db.in_transaction
            and not turn.rows
            and not turn.retained
            and not self._keys.is_staged
            and not self._producers.is_staged
        )
        single = single and len(turn.builders) == 1 and all(len(builders) == 1 for builders in turn.builders.values())
        if not single and (turn.builders or turn.rows):
            self._begin()
        for name in list(turn.builders):
            self._write_chunks(self._streams[name])
        if turn.retained:
            self._write_retained()
        self._keys.write()
        self._producers.write()
        for number in turn.rows:
            ledger = self._ledgers.get(number)
            if ledger is not None:
                ledger.check()
                db.execute("UPDATE consumer SET record = ? WHERE number = ?", (pack_ledger(ledger), number))
        if db.in_transaction:
            db.execute("COMMIT")
            self._wal.add(2 + len(turn.rows))

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._keys.roll_back()
        self._producers.roll_back()
        self._retained.count = self._turn.retained_count
        for undo in reversed(self._turn.undo):
            undo()
        for name in self._turn.touched.keys() & self._streams.keys():
            self._streams[name].keys = None  # read again: its index may point at keys that were not stored

    def _touch(self, name: str) -> StreamState:
        st = self._streams[name]
        touched = self._turn.touched
        if name not in touched:
            kept = touched[name] = st.copy()
            self._turn.undo.append(lambda: self._streams.__setitem__(name, kept))
        return st

    def _configure(self, job: Configure) -> None:
        self._begin()
        make_streams(self._db, job.streams, job.free_bytes)
        configs = {config.name: config for config in job.streams}
        for name, number, made_with, _, _ in stream_rows(self._db):
            if name not in self._streams:
                self._streams[name] = self._turn.touched[name] = new_stream(name, number)
                self._turn.undo.append(partial(self._streams.__delitem__, name))
            st = self._touch(name)
            bound(st, configs.get(name), made_with)
            st.look_at_all()
            st.is_over = st.is_beyond
        self._turn.outcome.is_configured = True

    # --- publishing -------------------------------------------------------------------------------

    def _publish(self, parts: list[Part]) -> None:
        """Admit every part before the first is staged: what follows cannot fail except with the whole commit."""
        if any(part.batch.retain for part in parts):
            self._admit_retained(parts)
        if len(parts) == 1 and parts[0].batch.keys is None:
            self._make_room(self._touch(parts[0].stream), parts[0].batch)
            self._append(parts[0], parts[0].batch, None)
            return
        admitted: list[tuple[Part, Batch, list[int] | None]] = []
        self._keys.drop()
        for part in parts:
            st, batch = self._touch(part.stream), part.batch
            fresh: list[int] | None = None
            if batch.keys is not None:
                self._begin()
                fresh = self._keys.admit(st, part)
                batch = batch.only(fresh) if 0 < len(fresh) < len(batch) else batch
            if fresh is None or fresh:
                self._make_room(st, batch)
                admitted.append((part, batch, fresh))
        self._keys.keep()
        for part, batch, fresh in admitted:
            self._append(part, batch, fresh)

    def _publish_span(self, job: Publish, span: Span) -> None:
        """What of the range came before is left out; then the range is remembered, in the same commit."""
        self._begin()
        runs = self._producers.check(span)
        before = self._producers.runs(span.origin)
        if covers(before, span.first, span.last):
            job.repeats, job.parts = len(span.seqs), []
            return
        if overlaps(before, span.seqs[0], span.seqs[-1]):  # the range itself may reach over what came, without messages there
            for part in job.parts:
                assert part.places is not None
                fresh = [i for i, place in enumerate(part.places) if not holds(before, span.seqs[place])]
                job.repeats += len(part.batch) - len(fresh)
                part.batch = part.batch.only(fresh)
                part.places = [part.places[i] for i in fresh]
            job.parts = [part for part in job.parts if len(part.batch)]
        self._publish(job.parts)
        self._producers.keep(span.origin, runs)

    def _append(self, part: Part, batch: Batch, fresh: list[int] | None) -> None:
        st = self._streams[part.stream]
        first = st.head + 1
        if fresh is None:
            part.first_seq = first
        builders = self._turn.builders.setdefault(st.name, [])
        if not builders or builders[-1].size_bytes >= CHUNK_BYTES or builders[-1].count >= CHUNK_MESSAGES:
            builders.append(ChunkBuilder(first, part.time_ms))
        builders[-1].add(batch, part.time_ms)
        st.head += len(batch.topics)
        if batch.retain:
            self._turn.retained += [Value(st.number, first + i, part.time_ms, batch, i) for i in batch.retain]

    def _make_room(self, st: StreamState, batch: Batch) -> None:
        alone = batch.size_bytes + CHUNK_ROW_BYTES
        if alone > st.bytes_max:  # nothing that could be evicted would help
            raise StoreFull(
                "store_full",
                f"{alone} bytes do not fit into the stream {st.name!r}, which holds {st.bytes_max} at most",
                "publish less at once, or raise bytes_max",
            )
        staged = sum(builder.size_bytes + CHUNK_ROW_BYTES for builder in self._turn.builders.get(st.name, ()))
        need = staged + alone
        if st.size_bytes + need <= st.bytes_max and not (st.rows_max and st.rows + len(batch) > st.rows_max):
            return
        self._begin()
        if staged:
            self._write_chunks(st)
        if not self._evictor.make_room(st, alone, len(batch), self._clock.wall_ms()):
            error = self._turn.outcome.full[st.name] = StoreFull(
                "store_full",
                f"the stream {st.name!r} holds {st.size_bytes} of {st.bytes_max} bytes, and named consumers still want them",
                "let its consumers catch up, delete those that are gone, or raise bytes_max",
            )
            raise error

    def _admit_retained(self, parts: Iterable[Part]) -> None:
        if self._turn.retained:  # the rows are what it counts by
            self._begin()
            self._write_retained()
        self._begin()
        self._retained.admit([part.batch for part in parts], self._clock.wall_ms())

    def _write_chunks(self, st: StreamState) -> None:
        marks: dict[int, int] = {}
        for builder in self._turn.builders.pop(st.name, ()):
            counts: dict[int, int] = {}
            for topic, count in builder.topics().items() if len(st.consumers) else ():
                for number in st.consumers.match(topic):
                    counts[number] = counts.get(number, 0) + count
            for number, count in counts.items():
                self._set_ledger(self._ledgers[number].count(count), write=False)
            if len(st.consumers):
                marks = {ledger.number: ledger.matched for ledger in self._ledgers_of(st)}
            data = builder.encode(
                stream_number=st.number, epoch=self._epoch, boot=self._boot, mono_ms=int(self._clock.mono_s() * 1000), marks=marks
            )
            st.total_bytes += len(data) + CHUNK_ROW_BYTES
            if st.oldest_ms is None or st.first == builder.first_seq:
                st.first, st.oldest_ms = builder.first_seq, builder.t1_ms
            self._db.execute(
                "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    row_id(st.number, builder.first_seq),
                    builder.count,
                    builder.t0_ms,
                    builder.t1_ms,
                    st.total_bytes,
                    builder.expires_ms(),
                    data,
                ),
            )
            self._wal.add(len(data) // 4000 + 2)
            self._turn.outcome.written_bytes += len(data)

    def _write_retained(self) -> None:
        values, self._turn.retained = self._turn.retained, []
        size_bytes = self._retained.write(values)
        self._wal.add(size_bytes // 4000 + 3 * len(values))

    # --- consumers --------------------------------------------------------------------------------

    def _ledger(self, number: int) -> Ledger:
        ledger = self._ledgers.get(number)
        if ledger is None:
            raise NotFound("unknown_consumer", "the consumer was deleted meanwhile")
        return ledger

    def _ledgers_of(self, st: StreamState) -> list[Ledger]:
        return [ledger for ledger in self._ledgers.values() if ledger.terms.stream == st.name] if len(st.consumers) else []

    def _set_ledger(self, ledger: Ledger, *, write: bool = True) -> None:
        number = ledger.number
        before = self._ledgers[number]
        self._turn.undo.append(lambda: self._ledgers.__setitem__(number, before))
        self._ledgers[number] = self._turn.outcome.ledgers[number] = ledger
        if write:
            self._begin()
            self._turn.rows.add(number)

    def _settle(self, job: Settle) -> None:
        ledger = self._ledger(job.number)
        if job.letters is not None:
            self._publish([job.letters])
            ledger = self._ledger(job.number)  # it may stand on the dead-letter stream itself
        if job.how in (ACKED, DEAD):
            ledger = ledger.settle(job.seqs, job.floor, job.how, job.gaps)
        else:
            seqs = [seq for seq in job.seqs if ledger.wants(seq)]
            if seqs:
                ledger = ledger.lose(Gap(ledger.terms.stream, seqs[0], seqs[-1], len(seqs), job.how), seqs)
            ledger = ledger.settle((), job.floor)
        for first, last, taken in job.spans:
            ledger = ledger.settle_span(first, last, taken)
            self._touch(ledger.terms.stream).look_again(first, last)
        self._set_ledger(ledger.redelivered(job.deliveries))
        if job.seqs:
            self._touch(ledger.terms.stream).look_again(min(job.seqs), max(job.seqs))

    def _create(self, job: Create) -> None:
        terms = job.terms
        st = self._touch(terms.stream)
        if len(self._ledgers) >= CONSUMERS_MAX:
            raise Conflict("too_many_consumers", f"{CONSUMERS_MAX} consumers exist already", "delete one that is gone")
        if any(ledger.terms.name == terms.name for ledger in self._ledgers.values()):
            raise Conflict("consumer_exists", f"the consumer {terms.name!r} exists already")
        if st.evictions != job.evictions:
            raise Conflict("count_again", "chunks left the stream while it was counted")
        self._begin()
        self._write_chunks(st)
        matched = job.matched
        after = row_id(st.number, max(0, job.counted + 1))
        for (data,) in self._db.execute(
            "SELECT data FROM chunk WHERE id >= ? AND id < ?", (after, row_id(st.number + 1, 0))
        ).fetchall():
            chunk = Chunk(data)
            matched += len(chunk.places([matches(terms.filter, topic) for topic in chunk.topics], max(job.floor, job.counted)))
        row = self._db.execute("INSERT INTO consumer (name, record) VALUES (?, x'')", (terms.name,))
        number = row.lastrowid or 0
        ledger = job.ledger = Ledger(number, terms, min(job.floor, st.head), matched)
        self._ledgers[number] = ledger
        st.consumers.add(terms.filter, number)

        def undo() -> None:
            st.consumers.remove(terms.filter, number)
            del self._ledgers[number]

        self._turn.undo.append(undo)
        self._set_ledger(ledger)

    def _delete(self, job: Delete) -> None:
        ledger = self._ledger(job.number)
        st = self._touch(ledger.terms.stream)
        self._begin()
        self._db.execute("DELETE FROM consumer WHERE number = ?", (job.number,))
        st.consumers.remove(ledger.terms.filter, job.number)
        del self._ledgers[job.number]
        st.look_at_all()
        self._turn.outcome.ledgers[job.number] = None

        def undo() -> None:
            st.consumers.add(ledger.terms.filter, job.number)
            self._ledgers[job.number] = ledger

        self._turn.undo.append(undo)

    # --- upkeep -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        now_ms = self._clock.wall_ms()
        for name, st in self._streams.items():
            if st.is_configured and st.rows and self._evictor.is_due(st, now_ms):
                self._begin()
                evictions = self._touch(name).evictions
                self._evictor.make_room(st, 0, 0, now_ms, EVICT_CHUNKS_PER_TURN)
                st.is_over = st.is_over and st.is_beyond and st.evictions > evictions  # else what is left is held
            if self._keys.is_due(st):
                self._begin()
                self._keys.trim(self._touch(name))

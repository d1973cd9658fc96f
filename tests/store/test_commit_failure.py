"""A commit that fails at any statement: nothing is acknowledged, memory is what the disk says, and the next turn works."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.core.record import OCTETS, Batch
from edgegw.errors import StoreError, StoreFull
from edgegw.limits import KIB
from edgegw.store.jobs import Change, Create, Delete, Job, Outcome, Part, Publish, Settle, Span, Tick
from tests.bus_setup import HandClock, Shelf, make_terms, publish_job

SMALL = StreamConfig(name="small", topics=("small/#",), bytes_max=64 * KIB, policy="drop-oldest")
OLD = StreamConfig(name="old", topics=("old/#",), age_max_s=10)


class Faults:
    """Fails the n-th statement from now on, once."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.fail_at: int | None = None
        self.error = "disk I/O error"

    def execute(self, execute: Callable[..., sqlite3.Cursor], sql: str, values: object) -> sqlite3.Cursor:
        self.statements.append(sql)
        if self.fail_at is not None and len(self.statements) == self.fail_at:
            self.fail_at = None
            raise sqlite3.OperationalError(self.error)
        return execute(sql, values)

    def arm(self, fail_at: int | None) -> None:
        self.statements.clear()
        self.fail_at = fail_at


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    found = Faults()

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, values: object = (), /) -> sqlite3.Cursor:
            return found.execute(super().execute, sql, values)

        def executemany(self, sql: str, values: object, /) -> sqlite3.Cursor:
            return found.execute(super().executemany, sql, values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, **kwargs, factory=Failing))
    yield found
    found.arm(None)


def prepared(folder: Path) -> tuple[Shelf, list[Job]]:
    """A store with something of everything, and a turn that does everything to it."""
    folder.mkdir()
    shelf = Shelf(folder, SMALL, OLD)
    acker, loser, goner = (
        shelf.consumer(make_terms(name, stream=stream)) for name, stream in (("a", "default"), ("l", "small"), ("g", "default"))
    )
    shelf.publish(b"1", b"2", b"3", b"4", keys=["k1", None, "k3", None], retain=[0])
    shelf.publish(bytes(40 * KIB), stream="small")
    shelf.publish(b"1", stream="old")
    shelf.clock.pass_s(20)
    letters = Settle(acker, [3], 0, "dead")
    letters.letters = publish_job(b"3", stream="dead-letter").parts[0]
    both = publish_job(b"over two", keys=["k1"], stream="small")
    both.parts.append(Part("default", Batch(["t", "u"], [b"x", b"y"], OCTETS, keys=["k5", None], retain=[0, 1]), 0))
    jobs: list[Job] = [
        publish_job(b"plain"),
        publish_job(b"keyed", b"1", keys=["k6", "k1"]),
        publish_job(bytes(40 * KIB), stream="small"),  # pushes out what the consumer `l` wants
        both,
        Settle(acker, [1], 1),
        letters,
        Settle(acker, [4], 0, "ttl"),
        publish_job(b"", retain=[0]),
        Change(loser, make_terms("l", stream="small", max_inflight=3)),
        Delete(goner),
        Create(make_terms("new", "t"), 0, 4, 4, shelf.streams["default"].evictions),
        Tick(),
        publish_job(b"last", stream="old"),
    ]
    return shelf, jobs


def retained(shelf: Shelf) -> list[tuple[str, int, bytes]]:
    rows: list[tuple[str, int, bytes]] = shelf.writer._db.execute("SELECT topic, seq, payload FROM retained").fetchall()
    return rows


def everything(shelf: Shelf) -> object:
    """What is on disk, whole."""
    tables = [name for (name,) in shelf.writer._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: shelf.writer._db.execute(f"SELECT * FROM {name}").fetchall() for name in sorted(tables)}


def check_done(shelf: Shelf, jobs: list[Job], outcome: Outcome) -> None:
    assert outcome.error is None
    assert [job.error for job in jobs] == [None] * len(jobs)
    keyed = jobs[1]
    assert isinstance(keyed, Publish)
    assert (keyed.parts[0].seqs, keyed.parts[0].repeats) == ([6, 1], [False, True])
    assert shelf.streams["default"].head == 9
    assert {stats.name: stats.removed for stats in shelf.streams.values() if stats.removed} == {
        "small": {"bytes": 1},
        "old": {"age": 1},
    }
    assert retained(shelf) == [("u", 8, b"y")]
    assert sorted(ledger.terms.name for ledger in shelf.ledgers.values()) == ["a", "l", "new"]
    shelf.check()


def test_without_a_failure_everything_happens(tmp_path: Path) -> None:
    shelf, jobs = prepared(tmp_path / "store")
    check_done(shelf, jobs, shelf.turn(*jobs))


def test_a_failure_at_each_statement(tmp_path: Path, faults: Faults) -> None:
    shelf, jobs = prepared(tmp_path / "whole")
    faults.arm(None)
    shelf.turn(*jobs)
    count = len(faults.statements)
    assert count > 30
    assert {"BEGIN IMMEDIATE", "COMMIT"} <= set(faults.statements)
    for n in range(1, count + 1):
        shelf, jobs = prepared(tmp_path / str(n))
        before = everything(shelf)
        faults.arm(n)
        outcome = shelf.turn(*jobs)
        failed = faults.statements[n - 1]
        faults.arm(None)
        if "wal_checkpoint" in failed:
            assert outcome.error is None
            continue
        assert isinstance(outcome.error, StoreError), failed
        assert all(job.error is not None for job in jobs), failed
        assert everything(shelf) == before, failed
        shelf.check()
        again = prepared_again(jobs)
        check_done(shelf, again, shelf.turn(*again))
        shelf.writer.abandon()


def prepared_again(jobs: list[Job]) -> list[Job]:
    """The same jobs, as their publishers send them again."""
    for job in jobs:
        job.error = None
    return jobs


def span_turn() -> list[Job]:
    """From another gateway: half of it came before, one message for another stream; and a range that is settled here."""
    batch = Batch(["t"] * 3, [b"3", b"4", b"5"], OCTETS)
    parts = [Part("default", batch, 0, [0, 1, 2]), Part("small", Batch(["small/t"], [bytes(40 * KIB)], OCTETS), 0, [3])]
    return [
        Publish(parts, Span("gw/1/default/1", 3, 9, [3, 4, 5, 8])),
        publish_job(b"between"),
        Publish([Part("default", Batch(["t"], [b"9"], OCTETS), 0, [0])], Span("gw/1/default/1", 8, 12, [9])),
        Settle(1, [], 0, "acked", (), [(1, 2, [1, 2])]),
    ]


def with_spans(folder: Path) -> Shelf:
    folder.mkdir()
    shelf = Shelf(folder, SMALL, OLD)
    shelf.consumer(make_terms("link.up"))
    shelf.publish(bytes(40 * KIB), stream="small")  # the next pushes it out
    parts = [Part("default", Batch(["t"] * 3, [b"1", b"2", b"3"], OCTETS), 0, [0, 1, 2])]
    shelf.turn(Publish(parts, Span("gw/1/default/1", 1, 3, [1, 2, 3])))
    return shelf


def check_spans(shelf: Shelf, jobs: list[Job]) -> None:
    assert [job.error for job in jobs] == [None] * len(jobs)
    first, _, second, _ = jobs
    assert isinstance(first, Publish) and isinstance(second, Publish)
    assert (first.repeats, second.repeats) == (1, 1)
    assert [payload for chunk in shelf.chunks() for payload in chunk.payloads] == [b"1", b"2", b"3", b"4", b"5", b"between"]
    assert shelf.writer._producers.runs("gw/1/default/1") == ((1, 12),)
    assert (shelf.ledger(1).acked, shelf.ledger(1).floor) == (2, 2)
    shelf.check()


def test_ranges_of_another_gateway_through_a_failure_at_each_statement(tmp_path: Path, faults: Faults) -> None:
    shelf = with_spans(tmp_path / "whole")
    faults.arm(None)
    jobs = span_turn()
    shelf.turn(*jobs)
    count = len(faults.statements)
    assert any("producer" in sql for sql in faults.statements)
    check_spans(shelf, jobs)
    for n in range(1, count + 1):
        shelf = with_spans(tmp_path / str(n))
        before = everything(shelf)
        faults.arm(n)
        jobs = span_turn()
        outcome = shelf.turn(*jobs)
        failed = faults.statements[n - 1]
        faults.arm(None)
        if "wal_checkpoint" in failed:
            assert outcome.error is None
            continue
        assert isinstance(outcome.error, StoreError), failed
        assert all(job.error is not None for job in jobs), failed
        assert everything(shelf) == before, failed
        assert shelf.writer._producers.runs("gw/1/default/1") == ((1, 3),), failed
        shelf.check()
        again = span_turn()
        shelf.turn(*again)
        check_spans(shelf, again)
        shelf.writer.abandon()


def test_a_failure_of_the_only_statement(tmp_path: Path, faults: Faults) -> None:
    """One chunk is one statement, without a transaction around it."""
    shelf = Shelf(tmp_path)
    shelf.publish(b"1")
    faults.arm(1)
    job = shelf.publish(b"2")
    assert faults.statements[0].startswith("INSERT INTO chunk")
    assert isinstance(job.error, StoreError)
    shelf.check()
    assert shelf.publish(b"3").parts[0].first_seq == 2


def test_keys_of_a_failed_commit_are_free_again(tmp_path: Path, faults: Faults) -> None:
    shelf = Shelf(tmp_path)
    shelf.publish(b"0", keys=["known"])
    job = publish_job(b"1", keys=["k"])
    faults.arm(3)
    shelf.turn(job)
    assert job.error is not None
    faults.arm(None)
    again = shelf.publish(b"other body", keys=["k"])
    assert again.error is None
    assert again.parts[0].repeats == [False]
    known = shelf.publish(b"0", keys=["known"])
    assert known.parts[0].repeats == [True]


def test_a_refused_job_keeps_its_own_error(tmp_path: Path, faults: Faults) -> None:
    shelf = Shelf(tmp_path, SMALL)
    refused = publish_job(bytes(100 * KIB), stream="small")
    faults.arm(1)
    shelf.turn(refused, publish_job(b"x"))
    assert isinstance(refused.error, StoreFull)
    assert "do not fit" in refused.error.what


def test_a_checkpoint_that_fails_is_no_failure_of_the_commit(tmp_path: Path, faults: Faults) -> None:
    shelf = Shelf(tmp_path)
    shelf.writer._wal.size_bytes = 2**30
    faults.arm(2)
    job = shelf.publish(b"x")
    assert "wal_checkpoint" in faults.statements[1]
    assert job.error is None
    shelf.check()
    for _ in range(20):
        shelf.publish(bytes(500_000))
    assert (tmp_path / "bus.db-wal").stat().st_size < 8 * 2**20


def test_no_space_left_is_told_as_that_and_ends_when_there_is_some(tmp_path: Path) -> None:
    """SQLite's own SQLITE_FULL, which it rolls back by itself."""
    clock = HandClock()
    shelf = Shelf(tmp_path, clock=clock)
    number = shelf.consumer(make_terms())
    shelf.publish(b"1")
    db = shelf.writer._db
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages + 5}")
    for _ in range(3):
        jobs: list[Job] = [publish_job(b"2", keys=["k"], retain=[0]), Settle(number, [1], 1), publish_job(bytes(100_000))]
        shelf.turn(*jobs)
        assert [type(job.error) for job in jobs] == [StoreFull] * 3
        shelf.check()
    assert shelf.ledger(number).acked == 0
    job = shelf.publish(b"small enough")
    assert (job.error, job.parts[0].first_seq) == (None, 2)
    db.execute("PRAGMA max_page_count = 100000")
    jobs = [publish_job(b"2", keys=["k"], retain=[0]), Settle(number, [1], 1), publish_job(bytes(100_000))]
    shelf.turn(*jobs)
    assert [job.error for job in jobs] == [None] * 3
    assert shelf.stored() == [1, 2, 3, 4]
    shelf.check()

"""Turns of the writer: gapless numbers, both ledgers, all or nothing; memory is at every moment what a start would find."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.errors import Conflict, NotFound, StoreError, StoreFull
from edgegw.limits import (
    CHUNK_BYTES,
    CHUNK_MESSAGES,
    COMMIT_BYTES_MAX,
    CONSUMERS_MAX,
    KIB,
    WAL_BYTES_MAX,
)  # fmt: skip
from edgegw.store.jobs import Change, Create, Delete, Part, Settle, Tick
from edgegw.store.reader import Range, Reader
from tests.bus_setup import Shelf, make_terms, make_writer, publish_job

SMALL = StreamConfig(name="small", topics=("small/#",), bytes_max=64 * KIB)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, SMALL)


# --- publishing -----------------------------------------------------------------------------------


def test_numbers_have_no_holes_within_and_across_turns(shelf: Shelf) -> None:
    jobs = [publish_job(b"1"), publish_job(b"2", b"3", stream="small"), publish_job(b"4", b"5"), publish_job(b"6")]
    shelf.turn(*jobs)
    assert [(job.parts[0].stream, job.parts[0].first_seq) for job in jobs] == [
        ("default", 1), ("small", 1), ("default", 2), ("default", 4),
    ]  # fmt: skip
    assert shelf.publish(b"7").parts[0].first_seq == 5
    assert shelf.stored() == [1, 2, 3, 4, 5]
    shelf.check()


def test_one_turn_stores_one_chunk_a_stream_in_one_statement(shelf: Shelf) -> None:
    seen: list[str] = []
    shelf.writer._db.set_trace_callback(seen.append)
    shelf.turn(*[publish_job(b"x") for _ in range(100)])
    assert [text.split()[:3] for text in seen] == [["INSERT", "INTO", "chunk"]]
    assert len(shelf.chunks()) == 1


def test_chunks_are_closed_when_they_are_large(shelf: Shelf) -> None:
    half = bytes(CHUNK_BYTES // 2)
    shelf.turn(*[publish_job(half) for _ in range(5)], *[publish_job(*[b""] * CHUNK_MESSAGES, stream="small")] * 1)
    assert [chunk.count for chunk in shelf.chunks()] == [2, 2, 1]
    shelf.turn(publish_job(*[b""] * CHUNK_MESSAGES), publish_job(b""))
    assert [chunk.count for chunk in shelf.chunks()][3:] == [CHUNK_MESSAGES, 1]
    shelf.check()


def test_a_publish_over_two_streams_is_all_or_nothing(shelf: Shelf) -> None:
    job = publish_job(b"1")
    job.parts.append(Part("small", publish_job(bytes(65 * KIB)).parts[0].batch, 0))
    shelf.turn(job, publish_job(b"2"))
    assert isinstance(job.error, StoreFull)
    assert (shelf.stored(), shelf.stored("small")) == ([1], [])
    assert [message.payload for chunk in shelf.chunks() for message in chunk.messages("", range(1))] == [b"2"]
    shelf.check()


def test_a_job_that_fails_leaves_the_others_of_its_turn(shelf: Shelf) -> None:
    jobs = [publish_job(b"1"), Settle(99, [1], 1), Delete(99), Change(99, make_terms()), publish_job(b"2"), Tick()]
    shelf.turn(*jobs)
    assert [None if job.error is None else job.error.code for job in jobs] == [
        None, "unknown_consumer", "unknown_consumer", "unknown_consumer", None, None,
    ]  # fmt: skip
    assert shelf.stored() == [1, 2]


def test_what_can_never_fit_is_refused_and_nothing_goes_for_it(shelf: Shelf) -> None:
    shelf.publish(b"x" * 1000, stream="small")
    job = shelf.publish(bytes(64 * KIB), stream="small")
    assert isinstance(job.error, StoreFull)
    assert "do not fit" in job.error.what
    assert shelf.stored("small") == [1]
    assert not shelf.streams["small"].removed


def test_outcome_tells_what_changed(shelf: Shelf) -> None:
    outcome = shelf.turn(publish_job(b"1"))
    assert list(outcome.streams) == ["default"]
    assert outcome.written_bytes == shelf.streams["default"].size_bytes - 48
    assert outcome.wal_bytes > 0
    assert shelf.tick().streams == {}


# --- consumers ------------------------------------------------------------------------------------


def test_matches_are_counted_and_survive_a_start(shelf: Shelf) -> None:
    every, some = shelf.consumer(make_terms("every")), shelf.consumer(make_terms("some", "a/+"))
    for topic in ("a/1", "b", "a/2", "a"):
        shelf.publish(b"1", b"2", topic=topic)
    assert [shelf.ledger(number).matched for number in (every, some)] == [8, 4]
    shelf.check()
    shelf.settle(every, 1, 2, 5, floor=2)
    shelf.settle(some, 1, floor=1)
    assert [shelf.ledger(number).pending for number in (every, some)] == [5, 3]
    shelf.check()


def test_a_consumer_counts_what_came_while_it_was_counted(shelf: Shelf) -> None:
    for topic in ("a", "b", "a"):
        shelf.publish(b"1", topic=topic)
    stats = shelf.streams["default"]
    late, job = publish_job(b"4", topic="a"), Create(make_terms("c", "a"), 1, 3, 1, stats.evictions)
    shelf.turn(late, job, publish_job(b"5", topic="a"))
    assert job.ledger is not None
    assert shelf.ledger(job.ledger.number).matched == 3  # 3 was counted by the caller, 4 by the writer, 5 came after
    shelf.check()


def test_a_consumer_that_was_counted_before_an_eviction_is_counted_again(shelf: Shelf) -> None:
    shelf.publish(bytes(40 * KIB), stream="small")
    job = Create(make_terms("c", stream="small"), 0, 1, 1, shelf.streams["small"].evictions)
    shelf.turn(publish_job(bytes(40 * KIB), stream="small"), job)
    assert isinstance(job.error, Conflict)
    assert job.error.code == "count_again"
    assert shelf.ledgers == {}


def test_names_are_unique_and_bounded(shelf: Shelf) -> None:
    shelf.consumer(make_terms("c"))
    again = Create(make_terms("c"), 0, 0, 0, 0)
    shelf.turn(again)
    assert isinstance(again.error, Conflict)
    shelf.turn(*[Create(make_terms(f"n{n}"), 0, 0, 0, 0) for n in range(CONSUMERS_MAX - 1)])
    late = Create(make_terms("late"), 0, 0, 0, 0)
    shelf.turn(late)
    assert late.error is not None
    assert late.error.code == "too_many_consumers"
    assert len(shelf.ledgers) == CONSUMERS_MAX


def test_a_deleted_consumer_wants_nothing_and_its_number_is_not_used_again(shelf: Shelf) -> None:
    first = shelf.consumer(make_terms("c"))
    shelf.publish(b"1")
    shelf.turn(Delete(first))
    assert shelf.ledgers == {}
    second = shelf.consumer(make_terms("c"), floor=1)
    assert second > first
    shelf.publish(b"2")
    assert shelf.ledger(second).matched == 1
    shelf.check()
    gone = shelf.settle(first, 1)
    assert isinstance(gone.error, NotFound)


def test_new_terms(shelf: Shelf) -> None:
    number = shelf.consumer(make_terms())
    shelf.turn(Change(number, make_terms(max_inflight=7)))
    assert shelf.ledger(number).terms.max_inflight == 7
    shelf.check()


def test_dead_letters_are_stored_with_the_settling(shelf: Shelf) -> None:
    number = shelf.consumer(make_terms())
    shelf.publish(b"poison")
    job = Settle(number, [1], 1, "dead")
    job.letters = publish_job(b"poison", stream="dead-letter").parts[0]
    shelf.turn(job)
    ledger = shelf.ledger(number)
    assert (ledger.dead_lettered, ledger.acked, ledger.pending, shelf.stored("dead-letter")) == (1, 0, 0, [1])
    shelf.check()


def test_dead_letters_that_do_not_fit_leave_the_message_pending(shelf: Shelf) -> None:
    number = shelf.consumer(make_terms())
    shelf.publish(b"poison")
    job = Settle(number, [1], 1, "dead")
    job.letters = publish_job(b"poison", stream="dead-letter").parts[0]
    job.letters.batch.size_bytes = 2**40
    shelf.turn(job)
    assert isinstance(job.error, StoreFull)
    assert shelf.ledger(number).pending == 1
    shelf.check()


def test_a_consumer_of_dead_letters_whose_letters_push_out_what_it_has(tmp_path: Path) -> None:
    """Its ledger moves while its own dead letters are stored: by what matches, and by what is evicted for them."""
    shelf = Shelf(tmp_path, StreamConfig(name="dead-letter", bytes_max=64 * KIB, policy="drop-oldest"))
    number = shelf.consumer(make_terms("undertaker", stream="dead-letter"))
    for _ in range(3):
        shelf.publish(bytes(20 * KIB), stream="dead-letter")
    job = Settle(number, [3], 0, "dead")
    job.letters = publish_job(bytes(20 * KIB), stream="dead-letter").parts[0]
    shelf.turn(job)
    ledger = shelf.ledger(number)
    assert (ledger.matched, ledger.dead_lettered, ledger.lost, ledger.pending) == (4, 1, {"bytes": 1}, 2)
    shelf.check()


def test_losses_by_ttl(shelf: Shelf) -> None:
    number = shelf.consumer(make_terms())
    shelf.publish(b"1", b"2", b"3")
    shelf.settle(number, 1, 3, floor=0, how="ttl")
    shelf.settle(number, 1, 3, floor=3, how="ttl")
    ledger = shelf.ledger(number)
    assert (ledger.lost, ledger.floor, [(gap.first, gap.last, gap.messages) for gap in ledger.gaps]) == (
        {"ttl": 2}, 3, [(1, 3, 2)],
    )  # fmt: skip


# --- the WAL --------------------------------------------------------------------------------------


def wal_bytes(shelf: Shelf) -> int:
    return (shelf.folder / "bus.db-wal").stat().st_size


def test_the_estimate_of_the_wal_is_near(shelf: Shelf) -> None:
    number = shelf.consumer(make_terms())
    before, guess = wal_bytes(shelf), shelf.tick().wal_bytes
    for n in range(30):
        shelf.publish(bytes(5000), bytes(n * 100), topic=f"t{n}", retain=[0])
        shelf.publish(b"x" * 100)
        shelf.settle(number, n + 1, floor=n + 1)
    grown, guessed = wal_bytes(shelf) - before, shelf.tick().wal_bytes - guess
    assert grown * 0.8 < guessed < grown * 2


def test_the_wal_is_bounded_beside_a_reader_that_never_rests(shelf: Shelf) -> None:
    ended = threading.Event()
    everything = Range("default", shelf.streams["default"].number, "#", 0, 10**9)

    def read_on() -> int:
        reader = Reader(shelf.folder / "bus.db")
        reader.open()
        pages = 0
        while not ended.is_set():
            assert reader.read(everything, 10**9, 10**9, 0).items
            pages += 1
        reader.close()
        return pages

    payloads = [bytes(1000)] * 250
    shelf.publish(*payloads)
    with ThreadPoolExecutor(1) as pool:
        pages = pool.submit(read_on)
        try:
            largest = max(wal_bytes(shelf) for _ in range(160) if shelf.publish(*payloads).error is None)
        finally:
            ended.set()
        assert pages.result() > 10
    assert largest <= WAL_BYTES_MAX + COMMIT_BYTES_MAX


def test_after_a_reader_that_held_on_the_wal_starts_over(shelf: Shelf) -> None:
    shelf.writer._db.execute("PRAGMA busy_timeout = 1")
    reader = sqlite3.connect(shelf.folder / "bus.db", isolation_level=None)
    shelf.publish(b"1")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM chunk").fetchone()
    checkpoints: list[str] = []
    shelf.writer._db.set_trace_callback(lambda text: checkpoints.append(text) if "checkpoint" in text else None)
    for _ in range(80):
        assert shelf.publish(*[bytes(1000)] * 250).error is None
    assert wal_bytes(shelf) > 3 * WAL_BYTES_MAX  # nothing can be done about it …
    assert len(checkpoints) < 20  # … and it is not tried at every commit
    reader.execute("ROLLBACK")
    for _ in range(30):
        shelf.publish(*[bytes(1000)] * 250)
    assert wal_bytes(shelf) <= WAL_BYTES_MAX
    reader.close()


def test_kills_do_not_let_the_wal_grow(shelf: Shelf) -> None:
    largest = 0
    for _ in range(20):
        for _ in range(4):
            shelf.publish(*[bytes(1000)] * 250)  # less than a checkpoint takes
        largest = max(largest, wal_bytes(shelf))
        killed = shelf.writer
        shelf.start()
        killed.abandon()  # not the last connection: SQLite copies nothing on its close
    assert len(shelf.stored()) == 20 * 1000
    assert largest <= WAL_BYTES_MAX + COMMIT_BYTES_MAX


def test_a_clean_close_leaves_no_wal(shelf: Shelf) -> None:
    shelf.publish(b"1")
    shelf.writer.close()
    assert not (shelf.folder / "bus.db-wal").exists()
    shelf.start()
    assert shelf.stored() == [1]


# --- opening --------------------------------------------------------------------------------------


def test_a_start_finds_every_turn(shelf: Shelf) -> None:
    """As a kill between any two turns would leave it."""
    number = shelf.consumer(make_terms(stream="small"))
    for n in range(20):
        shelf.publish(bytes(9000), stream="small", topic=f"small/{n % 3}", retain=[0])
        shelf.check()
        wanted = shelf.wanted(shelf.ledger(number))
        if n % 3 == 0:
            shelf.settle(number, wanted[-1])
        elif n % 3 == 1:
            shelf.settle(number, wanted[0], floor=wanted[0])
        shelf.check()


def test_each_boot_has_a_number(tmp_path: Path) -> None:
    for boot_id, wanted in (("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)):
        writer = make_writer(tmp_path, boot_id=boot_id)
        writer.open()
        job = publish_job(b"x")
        writer.turn([job])
        data = writer._db.execute("SELECT data FROM chunk ORDER BY id DESC LIMIT 1").fetchone()[0]
        writer.close()
        assert writer._boot == wanted
        assert data


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bus.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError) as caught:
        make_writer(tmp_path).open()
    assert caught.value.code == "store_damaged"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        make_writer(tmp_path / "missing").open()
    assert caught.value.code == "store_unusable"


def test_a_start_that_fails_leaves_no_descriptor(shelf: Shelf) -> None:
    shelf.writer._db.execute("UPDATE meta SET value = 99 WHERE name = 'min_reader'")
    writer = make_writer(shelf.folder)
    with pytest.raises(StoreError) as caught:
        writer.open()
    assert caught.value.code == "schema_newer"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        writer._db.execute("SELECT 1")

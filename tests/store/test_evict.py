"""Eviction: whole chunks, oldest first, for a reason that is counted; what a consumer wants stays under `hold`."""

from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.errors import StoreFull
from edgegw.limits import CONSUMER_GAPS_MAX, EVICT_CHUNKS_PER_TURN, KIB, STREAM_GAPS_MAX
from edgegw.store.jobs import Delete
from tests.bus_setup import START_MS, Shelf, make_terms, publish_job

BYTES = 64 * KIB
CHUNK = b"x" * 9000  # seven fit, with the slack


def open_shelf(folder: Path, policy: str = "hold", **bounds: float) -> Shelf:
    values = {"bytes_max": BYTES, "age_max_s": 0, **bounds}
    return Shelf(folder, StreamConfig(name="s", topics=("s/#",), policy=policy, **values))  # type: ignore[arg-type]


def fill(shelf: Shelf, count: int, topic: str = "s/x", ttl_s: float | None = None, payload: bytes = CHUNK) -> None:
    for _ in range(count):
        columns = {} if ttl_s is None else {"expires_ms": [shelf.clock.wall_ms() + int(ttl_s * 1000)]}
        job = shelf.publish(payload, stream="s", topic=topic, **columns)
        assert job.error is None, job.error
        shelf.check()


# --- why a chunk leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["hold", "drop-oldest"])
def test_bytes(tmp_path: Path, policy: str) -> None:
    shelf = open_shelf(tmp_path, policy)
    for _ in range(30):
        fill(shelf, 1)
        assert shelf.streams["s"].size_bytes <= BYTES
    assert shelf.stored("s") == list(range(24, 31))
    assert shelf.streams["s"].removed == {"bytes": 23}
    assert shelf.gaps("s") == [(1, 23, "bytes")]


def test_bytes_leave_with_whole_chunks_and_some_slack(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    for _ in range(6):
        shelf.publish(*[b"x" * KIB] * 10, stream="s")
    assert shelf.stored("s") == list(range(1, 61))
    shelf.publish(*[b"x" * KIB] * 10, stream="s")
    assert shelf.stored("s") == list(range(11, 71))
    shelf.check()


def test_several_chunks_leave_for_a_large_one(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    fill(shelf, 7)
    fill(shelf, 1, payload=b"x" * (60 * KIB))
    assert shelf.stored("s") == [8]


def test_what_is_staged_in_the_same_turn_can_leave_again(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    shelf.turn(*[publish_job(CHUNK, stream="s") for _ in range(20)])
    assert shelf.streams["s"].head == 20
    assert shelf.streams["s"].size_bytes <= BYTES
    shelf.check()


def test_rows(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, rows_max=10)
    for n in range(1, 31):
        fill(shelf, 1, payload=b"x")
        assert shelf.streams["s"].rows <= 10
        assert shelf.stored("s")[-1] == n
    assert set(shelf.streams["s"].removed) == {"rows"}
    shelf.turn(*[publish_job(b"x", stream="s") for _ in range(25)])
    assert shelf.streams["s"].rows <= 10
    shelf.check()


def test_age_leaves_with_time_alone(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=60)
    for _ in range(3):
        fill(shelf, 1)
        shelf.clock.pass_s(20)
    shelf.tick()
    assert shelf.stored("s") == [1, 2, 3]  # exactly the age is not above it
    shelf.clock.pass_s(1)
    shelf.tick()
    assert shelf.stored("s") == [2, 3]
    shelf.clock.pass_s(100)
    shelf.tick()
    assert (shelf.stored("s"), shelf.streams["s"].removed) == ([], {"age": 3})
    assert shelf.streams["s"].first == 4
    fill(shelf, 1)
    assert shelf.stored("s") == [4]


def test_ttl_leaves_with_time_alone(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    fill(shelf, 2, ttl_s=10)
    fill(shelf, 1)
    shelf.clock.pass_s(10)
    shelf.tick()
    assert (shelf.stored("s"), shelf.streams["s"].removed) == ([3], {"ttl": 2})
    shelf.check()


def test_a_message_past_its_ttl_counts_as_that_whatever_its_chunk_left_for(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=60)
    shelf.publish(b"1", b"2", b"3", stream="s", expires_ms=[START_MS + 1, None, START_MS + 2])
    shelf.clock.pass_s(61)
    shelf.tick()
    assert shelf.streams["s"].removed == {"ttl": 2, "age": 1}
    shelf.check()


def test_an_overdue_backlog_goes_in_portions(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=10)
    for _ in range(EVICT_CHUNKS_PER_TURN + 3):
        shelf.publish(b"x", stream="s")
    shelf.clock.pass_s(11)
    shelf.tick()
    assert len(shelf.stored("s")) == 3
    shelf.check()
    shelf.tick()
    assert shelf.stored("s") == []


def test_a_stream_that_left_the_configuration_keeps_its_data(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=1)
    fill(shelf, 2)
    shelf.writer.abandon()
    shelf.configs = ()
    shelf.start()
    shelf.clock.pass_s(1000)
    shelf.tick()
    assert shelf.stored("s") == [1, 2]
    assert not shelf.streams["s"].is_configured


# --- hold -----------------------------------------------------------------------------------------


def test_what_a_consumer_wants_is_held_and_publishes_are_refused(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 7)
    job = publish_job(CHUNK, stream="s")
    outcome = shelf.turn(job)
    assert isinstance(job.error, StoreFull)
    assert "named consumers still want them" in job.error.what
    assert outcome.full["s"] is job.error
    assert shelf.stored("s") == list(range(1, 8))
    shelf.check()
    shelf.settle(number, 2)
    fill(shelf, 1)  # whole chunks, whatever their place
    assert shelf.stored("s") == [1, 3, 4, 5, 6, 7, 8]
    shelf.settle(number, 1, floor=2)
    fill(shelf, 1)
    assert shelf.stored("s") == [3, 4, 5, 6, 7, 8, 9]
    assert shelf.ledger(number).lost == {}


def test_what_is_not_wanted_goes_around_what_is_held(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(topic_filter="s/alarm", stream="s"))
    fill(shelf, 1, "s/alarm")
    fill(shelf, 20)
    fill(shelf, 1, "s/alarm")
    fill(shelf, 20)
    assert shelf.stored("s") == [1, 22, 38, 39, 40, 41, 42]
    assert shelf.gaps("s") == [(2, 21, "bytes"), (23, 37, "bytes")]
    assert shelf.streams["s"].first == 1
    shelf.settle(number, 1, 22, floor=22)
    fill(shelf, 1)
    assert shelf.stored("s") == [22, 38, 39, 40, 41, 42, 43]
    fill(shelf, 6)
    assert shelf.stored("s") == [43, 44, 45, 46, 47, 48, 49]
    shelf.check()


def test_age_and_rows_do_not_push_out_what_is_held(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=10, rows_max=3)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 5)
    shelf.clock.pass_s(100)
    shelf.tick()
    assert shelf.stored("s") == [1, 2, 3, 4, 5]
    shelf.settle(number, 1, 2, 3, floor=3)
    shelf.tick()
    assert (shelf.stored("s"), shelf.streams["s"].removed) == ([4, 5], {"age": 3})
    shelf.check()


def test_what_is_past_its_ttl_is_not_held(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 7, ttl_s=60)
    assert shelf.publish(CHUNK, stream="s").error is not None  # all are looked at, and held …
    shelf.clock.pass_s(60)
    fill(shelf, 1)  # … but not for ever
    ledger = shelf.ledger(number)
    assert (ledger.lost, ledger.pending) == ({"ttl": 7}, 1)
    shelf.check()


def test_time_alone_frees_what_was_held_when_it_was_overdue(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, age_max_s=10)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 1, ttl_s=60)
    shelf.publish(b"1", b"2", stream="s", expires_ms=[START_MS + 30_000, None])
    shelf.clock.pass_s(20)
    shelf.tick()
    assert len(shelf.stored("s")) == 3
    shelf.clock.pass_s(40)
    shelf.tick()
    assert shelf.stored("s") == [2, 3]  # a message without a TTL holds its chunk
    assert shelf.ledger(number).lost == {"ttl": 1}
    shelf.check()


def test_a_deleted_consumer_holds_nothing(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 7)
    assert shelf.publish(CHUNK, stream="s").error is not None
    shelf.turn(Delete(number))
    fill(shelf, 1)


def test_a_full_stream_is_not_read_again_for_every_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 7)
    looked: list[int] = []
    losses = shelf.writer._evictor._losses
    monkeypatch.setattr(shelf.writer._evictor, "_losses", lambda st, row, now: looked.append(row.first) or losses(st, row, now))
    for _ in range(3):
        shelf.publish(CHUNK, stream="s")
    assert looked == [1, 2, 3, 4, 5, 6, 7]
    looked.clear()
    shelf.settle(number, 4)
    fill(shelf, 1)
    shelf.publish(CHUNK, stream="s")
    assert looked == [4, 8]


def test_held_chunks_are_looked_at_in_portions(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(topic_filter="s/alarm", stream="s"))
    count = EVICT_CHUNKS_PER_TURN + 5
    for _ in range(count):
        shelf.publish(b"x" * 400, stream="s", topic="s/alarm")
    while shelf.streams["s"].size_bytes + 700 < BYTES:
        shelf.publish(b"x" * 400, stream="s")
    large = bytes(3 * KIB)
    assert shelf.publish(large, stream="s", topic="s/x").error is not None
    assert shelf.publish(large, stream="s", topic="s/x").error is None  # it went on where it had stopped
    assert shelf.ledger(number).pending == count
    shelf.check()


# --- what consumers lose --------------------------------------------------------------------------


def test_a_loss_is_counted_for_who_wanted_it(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "drop-oldest")
    every, some = shelf.consumer(make_terms("e", stream="s")), shelf.consumer(make_terms("p", "s/a", stream="s"))
    fill(shelf, 1, "s/a")
    fill(shelf, 2, "s/b")
    shelf.settle(every, 2)
    fill(shelf, 6, "s/a")
    assert shelf.stored("s")[0] == 3
    assert [shelf.ledger(number).lost for number in (every, some)] == [{"bytes": 1}, {"bytes": 1}]
    assert [[gap[1:] for gap in shelf.ledger(number).gaps] for number in (every, some)] == [[(1, 1, 1, "bytes")]] * 2
    assert shelf.ledger(every).floor == 2
    fill(shelf, 7, "s/b")
    assert (shelf.ledger(every).lost, shelf.ledger(every).floor) == ({"bytes": 8}, 9)
    assert (shelf.ledger(some).lost, shelf.ledger(some).pending) == ({"bytes": 7}, 0)


def test_both_reasons_of_one_chunk(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "drop-oldest", age_max_s=60)
    number = shelf.consumer(make_terms(stream="s"))
    shelf.publish(b"1", b"2", b"3", stream="s", expires_ms=[START_MS + 1, None, START_MS + 2])
    shelf.clock.pass_s(61)
    shelf.tick()
    ledger = shelf.ledger(number)
    assert (ledger.lost, ledger.floor) == ({"age": 1, "ttl": 2}, 3)
    assert sorted((gap.first, gap.last, gap.messages, gap.reason) for gap in ledger.gaps) == [(1, 3, 2, "ttl"), (2, 2, 1, "age")]
    shelf.check()


def test_an_absent_consumers_record_stays_short(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "drop-oldest")
    number = shelf.consumer(make_terms(topic_filter="s/a", stream="s"))
    for n in range(200):
        shelf.publish(CHUNK, stream="s", topic=f"s/{'ab'[n % 2]}")
    ledger = shelf.ledger(number)
    assert ledger.lost == {"bytes": 97}
    assert len(ledger.gaps) <= CONSUMER_GAPS_MAX
    assert len(ledger.settled) <= 7
    assert len(shelf.gaps("s")) == 1
    shelf.check()


def test_behind_one_held_message_the_record_stays_short_too(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    number = shelf.consumer(make_terms(stream="s"))
    fill(shelf, 1)
    for _ in range(100):
        shelf.clock.pass_s(10)
        assert shelf.publish(CHUNK, stream="s", expires_ms=[shelf.clock.wall_ms() + 5000]).error is None
    ledger = shelf.ledger(number)
    assert ledger.floor == 0
    assert len(ledger.settled) == 1
    shelf.check()


# --- gap rows -------------------------------------------------------------------------------------


def test_gap_rows_are_bounded_and_cover_what_is_gone(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path, "drop-oldest", age_max_s=10)
    for n in range(3 * STREAM_GAPS_MAX):
        shelf.publish(b"x", stream="s", expires_ms=[shelf.clock.wall_ms() + 1] if n % 2 else None)
        shelf.clock.pass_s(20)
        shelf.tick()
        shelf.check()
    gaps = shelf.gaps("s")
    assert len(gaps) == STREAM_GAPS_MAX
    assert (gaps[0][0], gaps[0][2], gaps[-1][1]) == (1, "several", 3 * STREAM_GAPS_MAX)


def test_a_chunk_that_cannot_be_read_stops_eviction_and_what_went_before_it_is_told(tmp_path: Path) -> None:
    shelf = open_shelf(tmp_path)
    shelf.consumer(make_terms(topic_filter="s/other", stream="s"))
    fill(shelf, 1, "s/other")
    fill(shelf, 5)
    shelf.settle(1, 1)
    shelf.publish(b"x", stream="s", topic="s/other")  # someone to be asked about each chunk
    row = shelf.stored_ids("s")[2]
    shelf.writer._db.execute("UPDATE chunk SET data = ? WHERE id = ?", (b"EC" + bytes(9000), row))
    before = len(shelf.stored_ids("s"))
    job = shelf.publish(b"x" * (50 * KIB), stream="s")
    assert job.error is not None
    assert job.error.code == "chunk_corrupt"
    gone = before - len(shelf.stored_ids("s"))
    assert gone == 2
    assert shelf.gaps("s") == [(1, 2, "bytes")]
    assert shelf.streams["s"].removed == {"bytes": 2}

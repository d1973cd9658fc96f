"""Streams change while the store is open: as a start would have it, in one commit, or not at all."""

from dataclasses import replace
from pathlib import Path

from edgegw.config import StreamConfig
from edgegw.errors import StoreFull
from edgegw.limits import EVICT_CHUNKS_PER_TURN, MIB, STREAM_BYTES_MIN, STREAMS_MAX
from edgegw.store.jobs import Configure
from tests.bus_setup import Shelf, make_terms, publish_job, streams_of

PLANT = StreamConfig(name="plant", topics=("plant/#",))


def configure(shelf: Shelf, *configs: StreamConfig, free_bytes: int = 400 * MIB) -> Configure:
    """Change the streams; what a start would find is what the writer has then."""
    job = Configure(streams_of(*configs), free_bytes)
    outcome = shelf.turn(job)
    assert job.error is None, job.error
    assert outcome.is_configured
    shelf.configs = configs
    shelf.check()
    return job


def test_bounds_and_policies_change(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    shelf.publish(b"x", stream="plant")
    configure(shelf, replace(PLANT, bytes_max=1 << 20, rows_max=50, age_max_s=9, policy="drop-oldest"))
    stats = shelf.streams["plant"]
    assert (stats.bytes_max, stats.rows_max, stats.age_max_s, stats.policy) == (1 << 20, 50, 9, "drop-oldest")
    assert (stats.head, stats.rows) == (1, 1)
    shelf.publish(b"y", stream="plant")
    assert shelf.stored("plant") == [1, 2]
    configure(shelf, PLANT)
    assert shelf.streams["plant"].rows_max == 0


def test_a_new_stream_is_made_and_a_removed_one_kept(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    shelf.publish(b"x", stream="plant")
    other = StreamConfig(name="other", topics=("other/#",))
    configure(shelf, other, free_bytes=4 * MIB)
    assert shelf.streams["other"].bytes_max == MIB  # a part of what is free now
    assert not shelf.streams["plant"].is_configured
    shelf.publish(b"y", stream="other")
    shelf.clock.pass_s(1e7)  # no age takes what is kept read-only
    shelf.tick()
    assert shelf.stored("plant") == [1]
    configure(shelf, other, PLANT)
    assert shelf.streams["plant"].is_configured
    shelf.publish(b"z", stream="plant")
    assert shelf.streams["plant"].head == 2
    shelf.start()
    assert shelf.stored("other") == []  # a week is over
    assert shelf.streams["other"].head == 1


def test_lowered_bounds_evict_by_and_by_without_a_publish(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    chunks = EVICT_CHUNKS_PER_TURN * 2 + 10
    for _ in range(chunks):
        shelf.publish(b"x" * 2000, stream="plant")
    configure(shelf, replace(PLANT, bytes_max=STREAM_BYTES_MIN))
    assert len(shelf.stored("plant")) == chunks
    shelf.tick()
    assert len(shelf.stored("plant")) == chunks - EVICT_CHUNKS_PER_TURN
    for _ in range(3):
        shelf.tick()
    assert shelf.streams["plant"].size_bytes <= STREAM_BYTES_MIN
    assert shelf.streams["plant"].removed.keys() == {"bytes"}
    stored = shelf.stored("plant")
    assert len(stored) > 10
    shelf.tick()
    assert shelf.stored("plant") == stored
    configure(shelf, replace(PLANT, rows_max=5))
    shelf.tick()
    assert len(shelf.stored("plant")) == 5
    shelf.check()


def test_what_a_consumer_wants_is_held_under_lowered_bounds(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    shelf.consumer(make_terms(stream="plant"))
    for _ in range(50):
        shelf.publish(b"x" * 2000, stream="plant")
    configure(shelf, replace(PLANT, bytes_max=STREAM_BYTES_MIN))
    for _ in range(3):
        shelf.tick()
    assert len(shelf.stored("plant")) == 50
    refused = publish_job(b"x", stream="plant")
    shelf.turn(refused)
    assert isinstance(refused.error, StoreFull)
    configure(shelf, replace(PLANT, bytes_max=STREAM_BYTES_MIN, policy="drop-oldest"))
    shelf.tick()
    assert 10 < len(shelf.stored("plant")) < 50
    shelf.check()


def test_too_many_are_refused_and_nothing_changed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    before = dict(shelf.streams)
    many = [StreamConfig(name=f"s{n}", topics=(f"s{n}",)) for n in range(STREAMS_MAX)]
    job = Configure(streams_of(replace(PLANT, rows_max=1), *many), 4 * MIB)
    shelf.turn(publish_job(b"x", stream="plant"), job)
    assert job.error is not None
    assert job.error.code == "too_many_streams"
    assert shelf.streams.keys() == before.keys()
    assert shelf.streams["plant"].rows_max == 0
    assert shelf.stored("plant") == [1]
    shelf.check()


def test_a_commit_that_fails_puts_all_streams_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, PLANT)
    shelf.publish(b"x", stream="plant")
    shelf.writer._db.execute("PRAGMA query_only = 1")
    other = StreamConfig(name="other", topics=("other/#",))
    job = Configure(streams_of(other), 4 * MIB)
    outcome = shelf.turn(publish_job(b"y", stream="plant"), job)
    assert outcome.error is not None
    assert job.error is outcome.error
    shelf.writer._db.execute("PRAGMA query_only = 0")
    shelf.check()
    shelf.publish(b"y", stream="plant")
    assert shelf.stored("plant") == [1, 2]
    configure(shelf, other)

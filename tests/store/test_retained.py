"""Retained values: the last one of each topic, so many topics and no more, exactly counted through failures."""

from pathlib import Path

import pytest

from edgegw.errors import StoreFull
from edgegw.store import retained
from edgegw.store.jobs import Part
from tests.bus_setup import START_MS, Shelf, publish_job

MOST = 5


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(retained, "RETAINED_MAX", MOST)
    return Shelf(tmp_path)


def values(shelf: Shelf) -> dict[str, bytes]:
    rows = dict(shelf.writer._db.execute("SELECT topic, payload FROM retained ORDER BY topic").fetchall())
    assert shelf.writer._retained.count == len(rows)
    return rows


def fill(shelf: Shelf, count: int = MOST, **columns: object) -> None:
    topics = [f"t/{n}" for n in range(count)]
    job = shelf.publish(*[b"1"] * count, topics=topics, retain=list(range(count)), **columns)
    assert job.error is None


def test_the_last_value_stays_and_an_empty_one_clears(shelf: Shelf) -> None:
    shelf.publish(b"1", b"2", b"3", topics=["a", "a", "b"], retain=[0, 1, 2])
    shelf.publish(b"not retained", topic="a")
    assert values(shelf) == {"a": b"2", "b": b"3"}
    shelf.publish(b"", topic="b", retain=[0])
    shelf.publish(b"", topic="never there", retain=[0])
    assert values(shelf) == {"a": b"2"}
    assert len(shelf.stored()) == 6


def test_one_topic_too_many_is_refused_whole(shelf: Shelf) -> None:
    fill(shelf)
    job = shelf.publish(b"1", b"2", topics=["t/0", "new"], retain=[0, 1])
    assert isinstance(job.error, StoreFull)
    assert job.error.code == "retained_full"
    assert values(shelf)["t/0"] == b"1"
    assert len(shelf.stored()) == MOST


def test_at_the_bound_values_can_be_replaced_and_cleared(shelf: Shelf) -> None:
    fill(shelf)
    assert shelf.publish(b"2", topic="t/0", retain=[0]).error is None
    assert shelf.publish(b"", topic="t/1", retain=[0]).error is None
    assert shelf.publish(b"2", topic="new", retain=[0]).error is None
    assert sorted(values(shelf)) == ["new", "t/0", "t/2", "t/3", "t/4"]


def test_the_bound_holds_within_a_turn(shelf: Shelf) -> None:
    jobs = [publish_job(b"1", topic=f"t/{n}", retain=[0]) for n in range(MOST + 3)]
    shelf.turn(*jobs)
    assert [job.error is None for job in jobs] == [True] * MOST + [False] * 3
    assert len(values(shelf)) == MOST


def test_the_bound_holds_over_the_streams_of_a_batch(shelf: Shelf) -> None:
    job = publish_job(*[b"1"] * 3, topics=["a", "b", "c"], retain=[0, 1, 2])
    job.parts.append(Part("dead-letter", publish_job(*[b"1"] * 3, topics=["d", "e", "f"], retain=[0, 1, 2]).parts[0].batch, 0))
    shelf.turn(job)
    assert isinstance(job.error, StoreFull)
    assert values(shelf) == {}


def test_what_expired_makes_place(shelf: Shelf) -> None:
    fill(shelf, expires_ms=[START_MS + 10, START_MS + 10, None, START_MS + 11, None])
    assert shelf.publish(b"1", topic="new", retain=[0]).error is not None
    shelf.clock.pass_s(0.01)
    assert shelf.publish(b"1", topic="new", retain=[0]).error is None
    assert sorted(values(shelf)) == ["new", "t/2", "t/3", "t/4"]


def test_a_start_counts_them(shelf: Shelf) -> None:
    fill(shelf)
    shelf.writer.close()
    shelf.start()
    assert shelf.publish(b"1", topic="new", retain=[0]).error is not None
    assert len(values(shelf)) == MOST


def test_a_failed_commit_leaves_the_count(shelf: Shelf) -> None:
    fill(shelf, MOST - 1)
    pages = shelf.writer._db.execute("PRAGMA page_count").fetchone()[0]
    shelf.writer._db.execute(f"PRAGMA max_page_count = {pages}")
    job = shelf.publish(bytes(50_000), topic="new", retain=[0])
    assert job.error is not None
    assert len(values(shelf)) == MOST - 1
    shelf.writer._db.execute("PRAGMA max_page_count = 100000")
    assert shelf.publish(b"1", topic="new", retain=[0]).error is None
    assert len(values(shelf)) == MOST

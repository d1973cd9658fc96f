"""A range that comes twice, in part or as a whole, is stored once; and what is remembered of it is in the same commit."""

from pathlib import Path

import pytest

from edgegw.core.record import OCTETS, Batch
from edgegw.errors import Conflict, StoreFull
from edgegw.limits import PRODUCER_RUNS_MAX, STREAM_BYTES_MIN
from edgegw.store import producers
from edgegw.store.jobs import Part, Publish, Span
from tests.bus_setup import START_MS, Shelf, StreamConfig


def sent(origin: str, first: int, last: int, *seqs: int, topics: dict[int, str] | None = None, size_bytes: int = 0) -> Publish:
    """A batch of another gateway; payloads are the numbers."""
    by_stream: dict[str, list[int]] = {}
    for place, seq in enumerate(seqs):
        by_stream.setdefault((topics or {}).get(seq, "default"), []).append(place)
    parts = [
        Part(stream, Batch(["t"] * len(places), [b"%d" % seqs[i] + b"x" * size_bytes for i in places], OCTETS), START_MS, places)
        for stream, places in by_stream.items()
    ]
    return Publish(parts, Span(origin, first, last, list(seqs)))


def payloads(shelf: Shelf, stream: str = "default") -> list[int]:
    return [int(payload) for chunk in shelf.chunks(stream) for payload in chunk.payloads]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_the_same_range_again(shelf: Shelf) -> None:
    for repeats in (0, 3):
        job = sent("a", 1, 9, 2, 3, 7)
        shelf.turn(job)
        assert (job.error, job.repeats) == (None, repeats)
    assert payloads(shelf) == [2, 3, 7]
    shelf.check()


def test_a_range_cut_in_another_way(shelf: Shelf) -> None:
    shelf.turn(sent("a", 1, 5, 1, 3, 5))
    job = sent("a", 4, 9, 5, 6, 9)
    shelf.turn(job)
    assert job.repeats == 1
    assert payloads(shelf) == [1, 3, 5, 6, 9]


def test_ranges_out_of_order_meet(shelf: Shelf) -> None:
    for first, last in ((21, 30), (1, 10), (11, 20)):
        shelf.turn(sent("a", first, last, first))
    assert shelf.writer._producers.runs("a") == ((1, 30),)
    assert payloads(shelf) == [21, 1, 11]


def test_origins_do_not_know_each_other(shelf: Shelf) -> None:
    shelf.turn(sent("a", 1, 2, 1))
    job = sent("b", 1, 2, 1)
    shelf.turn(job)
    assert job.repeats == 0


def test_two_of_a_range_in_one_turn(shelf: Shelf) -> None:
    jobs = [sent("a", 1, 2, 1, 2), sent("a", 1, 3, 1, 2, 3)]
    shelf.turn(*jobs)
    assert [job.repeats for job in jobs] == [0, 2]
    assert payloads(shelf) == [1, 2, 3]


def test_parts_of_several_streams(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, StreamConfig(name="other", topics=("o",)))
    shelf.turn(sent("a", 1, 2, 1, 2, topics={2: "other"}))
    job = sent("a", 1, 4, 1, 2, 3, 4, topics={2: "other", 4: "other"})
    shelf.turn(job)
    assert job.repeats == 2
    assert (payloads(shelf), payloads(shelf, "other")) == ([1, 3], [2, 4])
    shelf.check()


def test_a_restart_remembers(shelf: Shelf) -> None:
    shelf.turn(sent("a", 1, 2, 1))
    shelf.writer.abandon()
    shelf.start()
    job = sent("a", 1, 2, 1)
    shelf.turn(job)
    assert job.repeats == 1


def test_what_was_refused_is_not_remembered(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, StreamConfig(name="default", bytes_max=STREAM_BYTES_MIN))
    job = sent("a", 1, 2, 1, size_bytes=STREAM_BYTES_MIN)
    shelf.turn(job)
    assert isinstance(job.error, StoreFull)
    assert shelf.writer._producers.runs("a") == ()


def test_a_sender_with_ever_more_gaps_is_told(shelf: Shelf) -> None:
    for n in range(PRODUCER_RUNS_MAX):
        shelf.turn(sent("a", 2 * n + 1, 2 * n + 1, 2 * n + 1))
    job = sent("a", 10**6, 10**6, 10**6)
    shelf.turn(job)
    assert isinstance(job.error, Conflict) and job.error.code == "too_many_ranges"
    job = sent("a", 2, 2, 2)
    shelf.turn(job)
    assert job.error is None, "closing a gap always goes"


def test_those_not_heard_of_for_longest_are_forgotten(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 3)
    for name in "abcd":
        shelf.clock.pass_s(1)
        shelf.turn(sent(name, 1, 1, 1))
    assert [bool(shelf.writer._producers.runs(name)) for name in "abcd"] == [False, True, True, True]

"""Keys: a repeat gets the first receipt, for a day or a hundred thousand keys, through restarts and failures."""

from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.errors import Conflict
from edgegw.limits import KEY_AGE_S_MAX, KIB
from edgegw.store import key_window
from edgegw.store.jobs import Part, Publish
from tests.bus_setup import Shelf, publish_job

SMALL = StreamConfig(name="small", topics=("small/#",), bytes_max=64 * KIB, policy="drop-oldest")
WINDOW = 10


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, SMALL)


@pytest.fixture
def short_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_window, "KEYS_PER_STREAM_MAX", WINDOW)
    monkeypatch.setattr(key_window, "_TRIM_SLACK", 0)


def result(job: Publish) -> tuple[list[int] | None, list[bool] | None]:
    assert job.error is None, job.error
    return job.parts[0].seqs, job.parts[0].repeats


def error(job: Publish) -> Conflict:
    assert isinstance(job.error, Conflict)
    assert job.error.code == "key_reused"
    return job.error


def blocks(shelf: Shelf) -> list[int]:
    return [count for (count,) in shelf.writer._db.execute("SELECT count FROM key_block ORDER BY id")]


# --- repeats --------------------------------------------------------------------------------------


def test_a_repeat_stores_nothing_and_names_the_first(shelf: Shelf) -> None:
    assert result(shelf.publish(b"1", keys=["k"])) == ([1], [False])
    assert result(shelf.publish(b"1", keys=["k"])) == ([1], [True])
    assert shelf.stored() == [1]
    assert shelf.publish(b"2").parts[0].first_seq == 2


def test_repeats_within_a_turn_and_within_a_batch(shelf: Shelf) -> None:
    jobs = [publish_job(b"1", keys=["k"]), publish_job(b"0", b"1", b"0", b"2", keys=["l", "k", "l", None]), publish_job(b"3")]
    shelf.turn(*jobs)
    assert result(jobs[0]) == ([1], [False])
    assert result(jobs[1]) == ([2, 1, 2, 3], [False, True, True, False])
    assert jobs[2].parts[0].first_seq == 4
    assert shelf.stored() == [1, 2, 3, 4]
    shelf.check()


def test_repeats_after_a_restart(shelf: Shelf) -> None:
    shelf.publish(b"0", b"1", b"2", keys=[None, "k1", "k2"])
    shelf.publish(b"3", keys=["k3"])
    shelf.writer.close()
    shelf.start()
    assert result(shelf.publish(b"2", b"3", b"1", b"4", keys=["k2", "k3", "k1", "k4"])) == (
        [3, 4, 2, 5],
        [True, True, True, False],
    )


def test_a_repeat_of_what_was_evicted_is_still_one(shelf: Shelf) -> None:
    shelf.publish(b"1" * KIB, stream="small", keys=["k"])
    for _ in range(10):
        shelf.publish(bytes(30 * KIB), stream="small")
    assert 1 not in shelf.stored("small")
    assert result(shelf.publish(b"1" * KIB, stream="small", keys=["k"])) == ([1], [True])


def test_a_stream_does_not_know_the_keys_of_another(shelf: Shelf) -> None:
    shelf.publish(b"1", keys=["k"])
    assert result(shelf.publish(b"other", stream="small", keys=["k"])) == ([1], [False])


def test_a_repeat_does_not_retain_again(shelf: Shelf) -> None:
    shelf.publish(b"1", topic="t", keys=["k"], retain=[0])
    shelf.publish(b"2", topic="t", retain=[0])
    shelf.publish(b"1", topic="t", keys=["k"], retain=[0])
    shelf.publish(b"3", b"1", topics=["u", "t"], keys=["l", "k"], retain=[0, 1])
    assert shelf.writer._db.execute("SELECT topic, seq, payload FROM retained ORDER BY topic").fetchall() == [
        ("t", 2, b"2"),
        ("u", 3, b"3"),
    ]


# --- reuse ----------------------------------------------------------------------------------------


def test_another_body_topic_or_type_is_refused(shelf: Shelf) -> None:
    shelf.publish(b"1", topic="t", keys=["k"])
    for job in (publish_job(b"2", topic="t", keys=["k"]), publish_job(b"1", topic="u", keys=["k"])):
        shelf.turn(job)
        assert "as message 1" in error(job).what
        assert error(job).where == "Idempotency-Key"
    typed = publish_job(b"1", topic="t", keys=["k"])
    typed.parts[0].batch.content_types = "text/plain"
    shelf.turn(typed)
    error(typed)
    assert shelf.stored() == [1]


def test_one_reused_key_refuses_the_whole_batch_and_takes_no_key(shelf: Shelf) -> None:
    shelf.publish(b"1", keys=["k"])
    job = publish_job(b"a", b"b", b"c", keys=["new", "k", "newer"])
    job.parts[0].places = [4, 7, 9]
    shelf.turn(job, publish_job(b"x"))
    assert error(job).where == "[7].key"
    assert result(shelf.publish(b"different", keys=["new"])) == ([3], [False])


def test_reuse_within_one_batch(shelf: Shelf) -> None:
    error(shelf.publish(b"1", b"2", keys=["k", "k"]))
    assert result(shelf.publish(b"1", keys=["k"])) == ([1], [False])


def test_a_batch_over_two_streams_takes_its_keys_in_both_or_none(shelf: Shelf) -> None:
    def both(payload: bytes, large: bytes = b"") -> Publish:
        job = publish_job(payload, keys=["k"])
        job.parts.append(Part("small", publish_job(payload + large, keys=["k"]).parts[0].batch, 0))
        shelf.turn(job)
        return job

    assert both(b"1", bytes(70 * KIB)).error is not None
    done = both(b"2")
    assert [part.repeats for part in done.parts] == [[False], [False]]
    again = both(b"2")
    assert [(part.seqs, part.repeats) for part in again.parts] == [([1], [True]), ([1], [True])]


# --- the window -----------------------------------------------------------------------------------


def test_a_key_is_free_after_a_day(shelf: Shelf) -> None:
    shelf.publish(b"1", keys=["k"])
    shelf.clock.pass_s(KEY_AGE_S_MAX - 1)
    assert result(shelf.publish(b"1", keys=["k"])) == ([1], [True])
    shelf.clock.pass_s(1)
    assert result(shelf.publish(b"2", keys=["k"])) == ([2], [False])
    assert result(shelf.publish(b"2", keys=["k"])) == ([2], [True])
    shelf.tick()
    assert blocks(shelf) == [1]
    assert result(shelf.publish(b"2", keys=["k"])) == ([2], [True])


def test_a_key_is_free_a_day_after_its_first_use_though_the_process_restarted(shelf: Shelf) -> None:
    shelf.publish(b"1", keys=["k"])
    shelf.clock.pass_s(KEY_AGE_S_MAX)
    shelf.writer.close()
    shelf.start()
    assert result(shelf.publish(b"2", keys=["k"])) == ([2], [False])


@pytest.mark.usefixtures("short_window")
def test_so_many_newer_keys_free_one(shelf: Shelf) -> None:
    for n in range(3 * WINDOW):
        shelf.publish(str(n).encode(), keys=[f"k{n}"])
        shelf.tick()
    assert len(blocks(shelf)) == WINDOW
    kept = [result(shelf.publish(str(n).encode(), keys=[f"k{n}"]))[1] for n in range(2 * WINDOW, 3 * WINDOW)]
    assert kept == [[True]] * WINDOW
    assert result(shelf.publish(b"new body", keys=[f"k{2 * WINDOW - 1}"]))[1] == [False]


@pytest.mark.usefixtures("short_window")
def test_never_fewer_than_the_window_are_kept(shelf: Shelf) -> None:
    shelf.publish(*[b"x"] * (WINDOW - 1), keys=[f"a{n}" for n in range(WINDOW - 1)])
    shelf.publish(*[b"x"] * (WINDOW - 1), keys=[f"b{n}" for n in range(WINDOW - 1)])
    shelf.tick()
    assert blocks(shelf) == [WINDOW - 1] * 2  # without the first block fewer would be left
    shelf.publish(b"x", keys=["c"])
    shelf.tick()
    assert blocks(shelf) == [WINDOW - 1, 1]


@pytest.mark.usefixtures("short_window")
def test_many_small_blocks_are_removed_as_fast_as_they_come(shelf: Shelf) -> None:
    """A client that sends one keyed message after the other makes a block each, thousands between two ticks."""
    number = shelf.streams["default"].number
    shelf.publish(*[b"x"] * 6000)
    rows = [(number << 48 | seq, 1, shelf.clock.wall_ms(), bytes(28)) for seq in range(1, 6001)]
    shelf.writer._db.execute("BEGIN")
    shelf.writer._db.executemany("INSERT INTO key_block VALUES (?, ?, ?, ?)", rows)
    shelf.writer._db.execute("COMMIT")
    shelf.publish(b"y", keys=["l"])
    shelf.tick()
    assert sum(blocks(shelf)) == WINDOW


@pytest.mark.usefixtures("short_window")
def test_trimming_one_stream_leaves_the_others(shelf: Shelf) -> None:
    for n in range(3):
        shelf.publish(str(n).encode(), keys=[f"k{n}"], stream="small")
    for n in range(3 * WINDOW):
        shelf.publish(str(n).encode(), keys=[f"k{n}"])
    shelf.tick()
    assert result(shelf.publish(b"0", keys=["k0"], stream="small"))[1] == [True]


def test_keys_cost_one_block_a_commit(shelf: Shelf) -> None:
    shelf.turn(*[publish_job(str(n).encode(), keys=[f"k{n}"]) for n in range(100)])
    assert blocks(shelf) == [100]
    shelf.publish(b"0", b"1", keys=["k0", "k1"])
    assert blocks(shelf) == [100]

"""What a start finds: configured and forgotten streams, bounds, and heads that outlive their chunks."""

from pathlib import Path

import pytest

from edgegw.config import StreamConfig
from edgegw.errors import StoreError
from edgegw.limits import DEAD_LETTER_BYTES_MAX, KIB, MIB, STREAM_BYTES_MAX, STREAM_BYTES_MIN, STREAMS_MAX
from edgegw.store.writer import Writer
from tests.bus_setup import MIGRATIONS, HandClock, Shelf, make_terms, make_writer, streams_of


def restarted(shelf: Shelf, *configs: StreamConfig) -> Shelf:
    shelf.writer.close()
    shelf.configs = configs
    shelf.start()
    return shelf


@pytest.mark.parametrize(
    ("free_bytes", "default", "dead_letter"),
    [
        (400 * MIB, 100 * MIB, DEAD_LETTER_BYTES_MAX),
        (2**40, STREAM_BYTES_MAX, DEAD_LETTER_BYTES_MAX),
        (1000, STREAM_BYTES_MIN, STREAM_BYTES_MIN),
    ],
)
def test_the_default_bound_is_a_part_of_the_free_space(tmp_path: Path, free_bytes: int, default: int, dead_letter: int) -> None:
    writer = Writer(tmp_path / "bus.db", streams_of(), HandClock(), boot_id="b", migrations=MIGRATIONS, free_bytes=free_bytes)
    streams = writer.open().streams
    writer.close()
    assert (streams["default"].bytes_max, streams["dead-letter"].bytes_max) == (default, dead_letter)


def test_the_default_bound_stays_what_it_was_and_a_configured_one_counts_at_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    bound = shelf.streams["default"].bytes_max
    shelf.writer.close()
    writer = Writer(tmp_path / "bus.db", streams_of(), HandClock(), boot_id="b", migrations=MIGRATIONS, free_bytes=10**12)
    assert writer.open().streams["default"].bytes_max == bound
    writer.close()
    writer = make_writer(tmp_path, StreamConfig(name="default", bytes_max=99 * KIB, rows_max=7, policy="drop-oldest"))
    stats = writer.open().streams["default"]
    writer.close()
    assert (stats.bytes_max, stats.rows_max, stats.policy) == (99 * KIB, 7, "drop-oldest")


def test_a_stream_that_comes_back_goes_on_counting(tmp_path: Path) -> None:
    config = StreamConfig(name="s", topics=("s/#",))
    shelf = Shelf(tmp_path, config)
    number = shelf.streams["s"].number
    shelf.publish(b"1", stream="s")
    restarted(shelf)
    assert (shelf.streams["s"].is_configured, shelf.streams["s"].age_max_s) == (False, 0)
    restarted(shelf, StreamConfig(name="other", topics=("o/#",)), config)
    assert (shelf.streams["s"].number, shelf.streams["s"].is_configured) == (number, True)
    assert shelf.publish(b"2", stream="s").parts[0].first_seq == 2
    shelf.check()


def test_an_empty_stream_keeps_its_head(tmp_path: Path) -> None:
    """Or numbers would be given twice, and consumers and keys would take new messages for old ones."""
    config = StreamConfig(name="s", topics=("s/#",), age_max_s=1)
    shelf = Shelf(tmp_path, config)
    number = shelf.consumer(make_terms(stream="s"))
    shelf.publish(b"1", b"2", stream="s", keys=["k", None])
    shelf.settle(number, 1, 2, floor=2)
    shelf.clock.pass_s(2)
    shelf.tick()
    before = (shelf.streams["s"], shelf.ledger(number))
    restarted(shelf, config)
    after = (shelf.streams["s"], shelf.ledger(number))
    assert (before[0].head, before[0].rows, before[0].first, before[0].size_bytes) == (2, 0, 3, 0)
    assert (before[0]._replace(evictions=0), before[1]) == after
    assert shelf.publish(b"3", stream="s").parts[0].first_seq == 3
    assert shelf.ledger(number).matched == 3


def test_what_matched_is_known_though_the_newest_chunk_is_gone(tmp_path: Path) -> None:
    """Under `hold` the newest chunk may go before older ones, and its marks with it."""
    config = StreamConfig(name="s", topics=("s/#",), age_max_s=10)
    shelf = Shelf(tmp_path, config)
    alarm, every = shelf.consumer(make_terms("a", "s/a", stream="s")), shelf.consumer(make_terms("e", stream="s"))
    shelf.publish(b"1", stream="s", topic="s/a")
    shelf.publish(b"2", stream="s", topic="s/b")
    shelf.settle(every, 1, 2, floor=2)
    shelf.clock.pass_s(11)
    shelf.tick()
    assert shelf.stored("s") == [1]
    ledgers = dict(shelf.ledgers)
    restarted(shelf, config)
    assert shelf.ledgers == ledgers
    assert shelf.ledger(alarm).pending == 1
    shelf.check()


def test_too_many_streams_are_refused(tmp_path: Path) -> None:
    configs = [StreamConfig(name=f"s{n}", topics=(f"s{n}/#",)) for n in range(STREAMS_MAX - 3)]  # and those that are built in
    make = make_writer(tmp_path, *configs)
    assert len(make.open().streams) == STREAMS_MAX
    make.close()
    with pytest.raises(StoreError) as caught:
        make_writer(tmp_path, StreamConfig(name="more", topics=("m/#",))).open()
    assert caught.value.code == "too_many_streams"

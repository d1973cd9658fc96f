"""Row numbers, and what a stream's state knows about eviction."""

from hypothesis import given
from hypothesis import strategies as st

from edgegw.limits import STREAM_ROWS_MAX, STREAMS_MAX
from edgegw.store.streams import StreamState, row_id, seq_of


def state() -> StreamState:
    return StreamState("s", 3, 1000, 0, 0, "hold", is_configured=True)


@given(st.integers(1, STREAMS_MAX), st.integers(0, STREAM_ROWS_MAX))
def test_row_numbers_keep_stream_and_sequence_apart(number: int, seq: int) -> None:
    row = row_id(number, seq)
    assert (row >> 48, seq_of(row)) == (number, seq)
    assert row < 2**63


def test_rows_and_bytes_are_what_came_less_what_went() -> None:
    st_ = state()
    st_.head, st_.removed, st_.total_bytes, st_.removed_bytes, st_.oldest_ms = 10, {"age": 3, "ttl": 2}, 500, 200, 7
    assert (st_.rows, st_.size_bytes, st_.stats().rows, st_.stats().oldest_ms) == (5, 300, 5, 7)
    st_.removed["bytes"] = 5
    assert st_.stats().oldest_ms is None


def test_a_copy_does_not_share_what_a_turn_changes() -> None:
    st_ = state()
    kept = st_.copy()
    st_.removed["age"] = 1
    st_.head = 9
    st_.look_again(1, 2)
    assert (kept.removed, kept.head, kept.scan_last) == ({}, 0, -1)


def test_what_was_settled_is_looked_at_again() -> None:
    st_ = state()
    st_.scan_from = 50
    st_.look_again(7, 9)
    st_.look_again(3, 4)
    assert (st_.scan_first, st_.scan_last, st_.scan_from) == (3, 9, 50)
    st_.scan_again_ms = 5
    st_.look_at_all()
    assert (st_.scan_from, st_.scan_again_ms, st_.scan_first > st_.scan_last) == (0, None, True)

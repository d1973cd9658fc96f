"""Every message goes out once, whatever is read, taken, skipped and refused in between."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edgegw.core.block import Block
from edgegw.core.lanes import Lane, Lanes, Parcel
from edgegw.core.record import Message

BIG = 1 << 30


def message(seq: int, size_bytes: int = 1, time_ms: int = 0) -> Message:
    return Message("s", seq, "t", time_ms, "text/plain", b"x" * size_bytes)


def messages(*seqs: int) -> list[Message]:
    return [message(seq) for seq in seqs]


def blocks(*seqs: int, most: int = 10) -> list[Block]:
    return Block.of(messages(*seqs)).pieces(most, BIG) if seqs else []


def seqs(parcel: Parcel | None) -> list[int]:
    assert parcel is not None
    return [] if parcel.block is None else parcel.block.seqs


def test_one_line_when_there_is_no_backlog() -> None:
    lanes = Lanes(10, (), 10, 0.8)
    lanes.add_live(messages(11, 13), 14)
    parcel = lanes.take(10, BIG)
    assert seqs(parcel) == [11, 13]
    assert parcel is not None and (parcel.first, parcel.last, parcel.lane) == (11, 14, Lane.LIVE)
    assert lanes.take(10, BIG) is None
    assert lanes.next_read is None


def test_a_parcel_ends_at_its_bounds_and_the_next_begins_there() -> None:
    lanes = Lanes(0, (), 0, 0.8)
    lanes.add_live(messages(1, 2, 5), 9)
    a = lanes.take(2, BIG)
    b = lanes.take(2, BIG)
    assert a is not None and b is not None
    assert (seqs(a), a.first, a.last) == ([1, 2], 1, 2)
    assert (seqs(b), b.first, b.last) == ([5], 3, 9)


def test_bytes_bound_a_parcel_and_one_larger_message_passes_alone() -> None:
    lanes = Lanes(0, (), 0, 0.8)
    lanes.add_live([message(1, 10), message(2, 1000), message(3, 10), message(4, 10)], 4)
    assert [seqs(lanes.take(10, 300)) for _ in range(3)] == [[1], [2], [3, 4]]


def test_what_was_settled_out_of_order_is_not_read_again() -> None:
    lanes = Lanes(5, ((8, 9), (20, 30)), 25, 0.8)
    assert lanes.next_read == (5, 7)
    lanes.add_backlog(blocks(6, 7), 7)
    assert seqs(lanes.take(10, BIG)) == [6, 7]
    assert lanes.next_read == (9, 19)
    lanes.add_backlog((), 19)
    assert [(rest.first, rest.last) for rest in lanes.rest()] == [(10, 19)]
    assert lanes.next_read is None


def test_live_data_gets_its_share_while_both_have_something() -> None:
    lanes = Lanes(0, (), 1000, 0.8)
    lanes.add_backlog(blocks(*range(1, 501)), 500)
    lanes.add_live(messages(*range(1001, 1501)), 1500)
    taken = [lanes.take(10, BIG) for _ in range(50)]
    live = sum(1 for parcel in taken if parcel is not None and parcel.lane is Lane.LIVE)
    assert live == 40
    assert taken[0] is not None and taken[0].lane is Lane.LIVE


def test_nobody_saves_up_a_share() -> None:
    lanes = Lanes(0, (), 1000, 0.8)
    lanes.add_backlog(blocks(*range(1, 401)), 400)
    assert [parcel.lane for _ in range(30) if (parcel := lanes.take(10, BIG))] == [Lane.BACKLOG] * 30
    lanes.add_live(messages(*range(1001, 1101)), 1100)
    taken = [parcel.lane for _ in range(10) if (parcel := lanes.take(10, BIG))]
    assert taken.count(Lane.BACKLOG) in (1, 2)


def test_a_lane_that_may_not_go_is_passed_over() -> None:
    lanes = Lanes(0, (), 10, 0.8)
    lanes.add_live(messages(11), 11)
    assert lanes.take(1, BIG, live=False) is None
    lanes.add_backlog(blocks(1), 1)
    assert seqs(lanes.take(1, BIG, live=False)) == [1]
    assert lanes.take(1, BIG, backlog=False, live=True) is not None


def test_live_data_that_is_late_becomes_backlog() -> None:
    lanes = Lanes(0, (), 0, 0.8)
    lanes.add_live([message(seq, time_ms=seq) for seq in range(1, 100)], 99)
    assert lanes.live_oldest_ms == 1
    assert seqs(lanes.take(2, BIG)) == [1, 2]
    lanes.skip_to(500)
    assert (lanes.live_oldest_ms, lanes.live_first, lanes.live_position) == (None, 501, 500)
    assert lanes.next_read == (2, 500)
    lanes.add_live(messages(501), 501)
    assert seqs(lanes.take(9, BIG)) == [501]
    lanes.skip_to(501)
    assert lanes.holes == 1, "nothing was skipped"


def test_a_parcel_is_halved_without_losing_its_range() -> None:
    parcel = Parcel(Lane.LIVE, 1, 10, Block.of(messages(2, 5, 8)))
    left, right = parcel.halves()
    assert (left.first, left.last, right.first, right.last) == (1, 4, 5, 10)
    assert seqs(left) + seqs(right) == [2, 5, 8]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 40)),
        st.tuples(st.just("live"), st.integers(1, 20)),
        st.tuples(st.just("backlog"), st.integers(1, 20)),
        st.tuples(st.just("take"), st.integers(1, 15)),
        st.tuples(st.just("skip"), st.just(0)),
        st.tuples(st.just("rest"), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(0, 30), st.integers(1, 5), st.booleans())
def test_each_message_once_and_every_number_in_one_range(
    program: list[tuple[str, int]], backlog: int, every: int, is_short: bool
) -> None:
    """`every`: each so-many-th number matches. Ranges of all parcels make up all numbers that were looked at."""
    head = backlog
    lanes = Lanes(0, (), 0 if is_short else head, 0.7)
    given_out: list[int] = []
    ranges: list[tuple[int, int]] = []

    def wanted(after: int, upto: int) -> list[Message]:
        return messages(*(seq for seq in range(after + 1, upto + 1) if seq % every == 0))

    def read(how: str, most: int) -> None:
        if how == "live":
            upto = min(head, lanes.live_position + most)
            lanes.add_live(wanted(lanes.live_position, upto), upto)
        elif lanes.next_read is not None:
            after, end = lanes.next_read
            lanes.add_backlog(blocks(*(m.seq for m in wanted(after, min(end, after + most)))), min(end, after + most))

    def out(parcel: Parcel | None) -> None:
        if parcel is not None:
            given_out.extend(seqs(parcel))
            ranges.append((parcel.first, parcel.last))

    for what, n in program:
        if what == "publish":
            head += n
        elif what == "take":
            out(lanes.take(n, BIG))
        elif what == "skip":
            lanes.skip_to(head)
        elif what == "rest":
            for parcel in lanes.rest():
                out(parcel)
        else:
            read(what, n)
    while lanes.live_position < head or lanes.next_read is not None or lanes.live_queued:
        read("live", 100)
        read("backlog", 100)
        out(lanes.take(100, BIG))
        for parcel in list(lanes.rest()):
            out(parcel)
    assert sorted(given_out) == [seq for seq in range(1, head + 1) if seq % every == 0]
    covered = sorted(seq for first, last in ranges for seq in range(first, last + 1))
    assert covered == list(range(1, head + 1))

"""A consumer's ledger and its deliveries: what is settled counts once, what is not comes again, nothing is skipped."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgegw.core.cursor import ACKED, DEAD, Delivery, Ledger, Terms
from edgegw.core.record import Gap
from edgegw.errors import Conflict
from edgegw.limits import CONSUMER_GAPS_MAX, INFLIGHT_MAX

STREAM = "default"


def terms(max_inflight: int = 100, ack_wait_s: float = 30, max_deliver: int = 3) -> Terms:
    return Terms("c", STREAM, "#", max_inflight, ack_wait_s, max_deliver)


def ledger(matched: int = 100, floor: int = 0) -> Ledger:
    return Ledger(1, terms(), floor, matched)


def gap(first: int, last: int, messages: int = 1, reason: str = "bytes") -> Gap:
    return Gap(STREAM, first, last, messages, reason)


# --- the ledger -----------------------------------------------------------------------------------


def test_settling_in_order_moves_the_floor() -> None:
    after = ledger().settle([1, 2, 3], 0)
    assert (after.floor, after.settled, after.acked, after.pending) == (3, (), 3, 97)


def test_settling_out_of_order_waits_for_the_first() -> None:
    after = ledger().settle([2, 3, 5], 0)
    assert (after.floor, after.settled, after.acked) == (0, ((2, 3), (5, 5)), 3)
    assert [seq for seq in range(1, 7) if after.wants(seq)] == [1, 4, 6]
    assert after.settle([1], 0).floor == 3
    assert after.settle([1], 4).floor == 5  # 4 did not match


def test_what_is_settled_already_counts_once() -> None:
    after = ledger().settle([1, 2, 2, 4], 0).settle([1, 4, 4], 0).settle([2, 4], 3, DEAD)
    assert (after.acked, after.dead_lettered, after.floor) == (3, 0, 4)


def test_a_floor_never_goes_back() -> None:
    assert ledger(floor=9).settle([10], 3).floor == 10


def test_dead_letters_and_losses_are_counted_apart() -> None:
    after = ledger(10).settle([1], 1, DEAD).lose(gap(2, 3, 2), [2, 3]).lose(gap(5, 5, 1, "ttl"), [5]).settle([4], 0)
    assert (after.acked, after.dead_lettered, after.lost, after.pending) == (1, 1, {"bytes": 2, "ttl": 1}, 5)
    assert after.floor == 5


def test_what_was_lost_is_not_acknowledged_as_well() -> None:
    after = ledger(3).lose(gap(3, 3), [3]).settle([3], 0, ACKED)
    assert (after.acked, after.lost, after.pending) == (0, {"bytes": 1}, 2)


def test_a_range_counts_what_was_still_wanted_in_it() -> None:
    taken = ledger().settle_span(1, 10, [2, 5, 9])
    assert (taken.floor, taken.acked) == (10, 3)
    lost = ledger().lose(gap(5, 5), [5])
    assert lost.settle_span(1, 10, [2, 5, 9]).acked == 2, "5 was lost, not taken"
    assert ledger(floor=4).settle_span(1, 10, [2, 5, 9]).acked == 2, "2 was settled before"
    assert taken.settle_span(1, 10, [2, 5, 9]).acked == 3, "once"
    ahead = ledger().settle_span(20, 30, [25])
    assert (ahead.floor, ahead.settled, ahead.acked) == (0, ((20, 30),), 1)


def test_a_gap_stays_until_it_is_read() -> None:
    low, high = gap(1, 5, 5), gap(9, 9)
    after = ledger().lose(high, [9]).lose(low, range(1, 6))
    assert after.gaps == (low, high)  # in the order of the stream, not of the losses
    assert after.settle([], 0, gaps=[9]).gaps == (low,)  # the other was not delivered yet
    assert after.settle([], 0, gaps=[4]).gaps == (low, high)


def test_many_gaps_become_one_that_covers_them() -> None:
    after = ledger(1000)
    for first in (50, 10, 30, *range(100, 100 + 3 * CONSUMER_GAPS_MAX, 3)):
        after = after.lose(gap(first, first + 1, 2, "ttl" if first == 30 else "bytes"), [first, first + 1])
    assert len(after.gaps) == CONSUMER_GAPS_MAX
    assert sum(one.messages for one in after.gaps) == sum(after.lost.values()) == 2 * (CONSUMER_GAPS_MAX + 3)
    assert after.gaps[0] == gap(10, 101, 8, "several")
    assert all(one.first <= one.last for one in after.gaps)
    assert [one.last for one in after.gaps] == sorted(one.last for one in after.gaps)


def test_a_chunk_that_is_gone_is_one_run() -> None:
    after = ledger(1000).pass_over(11, 20).pass_over(21, 500)
    assert (after.floor, after.settled, after.pending) == (0, ((11, 500),), 1000)
    assert after.settle([], 10).floor == 500


def test_deliveries_are_kept_of_what_is_still_wanted() -> None:
    after = ledger().settle([1, 3], 0).redelivered({1: 2, 2: 3, 3: 4, 4: 5})
    assert after.deliveries == {2: 3, 4: 5}


def test_new_terms_leave_the_rest() -> None:
    before = ledger().settle([2], 0)
    after = before.change(terms(max_inflight=7))
    assert (after.terms.max_inflight, after.settled, after.acked) == (7, before.settled, 1)
    with pytest.raises(AssertionError):
        before.change(Terms("c", "other", "#", 1, 1, 1))


def test_more_settled_than_matched_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="settled more than matched"):
        ledger(matched=1).settle([1, 2], 0).check()


# --- deliveries -----------------------------------------------------------------------------------


def delivery(*seqs: int, now_s: float = 0, max_deliver: int = 3) -> Delivery:
    made = Delivery(Ledger(1, terms(max_deliver=max_deliver), 0, 100))
    for seq in seqs:
        made.deliver(seq, now_s)
    return made


def test_a_delivered_message_is_due_after_its_deadline() -> None:
    out = delivery(1, 2, now_s=0)
    out.deliver(3, 10)
    assert out.deadline_s == 30
    assert out.due(29.9, 10, spent=False) == []
    assert out.due(30, 10, spent=False) == [1, 2]
    assert out.due(30, 10, spent=False) == [1, 2]  # until they go out
    assert out.due(30, 1, spent=False) == [1]
    assert [out.deliver(seq, 30) for seq in (1, 2)] == [2, 2]
    assert out.due(40, 10, spent=False) == [3]
    assert out.deadline_s == 40


def test_after_its_last_delivery_a_message_is_spent() -> None:
    out = delivery(1, 2, max_deliver=1)
    out.terms = terms(max_deliver=2)
    out.nack([1], 0, 0)
    out.deliver(1, 0)
    out.nack([1, 2], 5, 0)
    assert out.due(5, 10, spent=False) == [2]
    assert out.due(5, 10, spent=True) == [1]
    assert (out.is_spent(1), out.is_spent(2)) == (True, False)
    assert out.due(5, 1, spent=False) == [2]  # what is spent does not stand in its way


def test_a_nack_delays() -> None:
    out = delivery(1, 2)
    out.nack([2], 0, 50)
    out.nack([1], 0, 0)
    assert out.due(0, 10, spent=False) == [1]
    assert out.due(49, 10, spent=False) == [1]
    assert out.due(50, 10, spent=False) == [1, 2]
    out.nack([1, 2], 50, 5)
    assert out.due(54, 10, spent=False) == []


def test_what_was_not_delivered_cannot_be_settled_or_refused() -> None:
    out, state = delivery(1, 3), ledger()
    with pytest.raises(Conflict, match="message 2 is not out"):
        out.settle([1, 2], state)
    with pytest.raises(Conflict, match="message 2 is not out"):
        out.nack([1, 2], 0, 0)
    with pytest.raises(Conflict, match="nothing beyond message 3"):
        out.settle_upto(4, state)
    out.check()
    assert out.due(30, 10, spent=False) == [1, 3]  # nothing was changed


def test_settling_again_is_no_fault() -> None:
    out, state = delivery(1, 2), ledger()
    assert out.settle([1], state) == ([1], 1)
    assert out.settle([1], state) == ([1], 1)  # it is not durable yet: this one's commit says when
    out.settled([1])
    assert out.settle([1], state.settle([1], 1)) == ([], 1)


def test_the_floor_stops_before_what_is_open() -> None:
    out, state = delivery(1, 2, 3, 5), ledger()
    assert out.settle([2], state) == ([2], 0)
    assert out.settle([3], state) == ([3], 0)
    assert out.settle([1], state) == ([1], 1)  # 2 and 3 are on their way: their commits may fail
    out.unsettle([2])
    out.settled([1, 3])
    assert out.settle([5], state) == ([5], 1)
    out.settled([5])
    assert out.settle([2], state) == ([2], 5)


def test_settling_up_to_a_number() -> None:
    out, state = delivery(1, 2, 5), ledger()
    assert out.settle_upto(3, state) == ([1, 2], 4)
    out.settled([1, 2])
    out.advance(9)
    assert out.settle_upto(9, state) == ([5], 9)


def test_what_a_failed_commit_leaves_comes_again() -> None:
    out, state = delivery(1), ledger()
    out.settle([1], state)
    assert out.due(30, 10, spent=False) == []
    assert out.deadline_s is None
    out.unsettle([1])
    assert out.due(30, 10, spent=False) == [1]
    out.settled([1])
    out.unsettle([1])  # it is gone: nothing to bring back
    assert (out.inflight, out.due(99, 10, spent=False)) == (0, [])


def test_a_delivery_that_is_recalled_does_not_count() -> None:
    out = delivery(1, max_deliver=1)
    out.recall([1], 3)
    assert (out.due(3, 10, spent=False), out.deliveries(1)) == ([1], 0)
    assert out.deliver(1, 3) == 1


def test_room() -> None:
    out = delivery(1, 2, 3)
    out.terms = terms(max_inflight=5)
    assert out.room(ledger()) == 2
    out.terms = terms(max_inflight=2)
    assert out.room(ledger()) == 0
    out.settled([1, 2, 3])
    assert out.room(ledger()) == 2


def test_a_message_nobody_settles_holds_back_the_rest_before_the_record_grows() -> None:
    runs = tuple((seq, seq) for seq in range(2, 2 * INFLIGHT_MAX, 2))
    assert Delivery(ledger()).room(Ledger(1, terms(), 0, 10**6, settled=runs)) == 1
    assert Delivery(ledger()).room(Ledger(1, terms(), 0, 10**6, settled=(*runs, (10**6, 10**6)))) == 0


def test_what_the_ledger_forgets_is_forgotten() -> None:
    out = Delivery(Ledger(1, terms(), 0, 100, deliveries={7: 4, 9: 2}))
    for seq in (1, 2, 3):
        out.deliver(seq, 0)
    # 1 and 3 expired, 2 did not: one gap over all three.
    state = ledger().lose(gap(1, 3, 2, "ttl"), [1, 3]).lose(gap(9, 9), [9])
    out.forget(state)
    assert out.inflight == 1
    assert [out.deliveries(seq) for seq in (2, 7, 9)] == [1, 4, 0]
    assert out.settle([1, 2, 3], state) == ([2], 3)


def test_deliveries_before_a_restart_count() -> None:
    out = Delivery(Ledger(1, terms(), 0, 100, deliveries={1: 2}))
    assert out.deliver(1, 0) == 3
    assert out.delivered_counts() == {1: 3}


# --- gaps -----------------------------------------------------------------------------------------


def test_a_gap_goes_out_after_the_messages_before_it_and_comes_again_until_it_is_read() -> None:
    out, gaps = delivery(1), [gap(3, 4)]
    assert out.deliver_gaps(gaps, 0) == []  # 2 may still be there
    out.advance(4)
    assert out.deliver_gaps(gaps, 0) == gaps
    assert out.deliver_gaps(gaps, 29) == []
    assert out.deadline_s == 30
    assert out.deliver_gaps(gaps, 30) == gaps
    out.nack([4], 31, 2)
    assert out.deliver_gaps(gaps, 33) == gaps
    assert out.read_gaps(3) == []
    assert out.read_gaps(4) == [4]
    assert out.deliver_gaps([], 33) == []
    assert out.read_gaps(4) == []


def test_a_gap_holds_up_no_floor() -> None:
    out = delivery(1)
    out.advance(4)
    out.deliver_gaps([gap(2, 3)], 0)
    assert out.settle([1], ledger()) == ([1], 4)


# --- both together --------------------------------------------------------------------------------


class Both(RuleBasedStateMachine):
    """Commits that come back late, fail, or are lost with the process, against sets of numbers."""

    @initialize(step=st.integers(1, 3))
    def begin(self, step: int) -> None:
        self.now_s = 0.0
        self.matching = list(range(step, 400, step))
        self.disk = Ledger(1, terms(max_inflight=6, ack_wait_s=10), 0, len(self.matching))
        self.out = Delivery(self.disk)
        self.commits: list[tuple[list[int], int]] = []
        self.acked: set[int] = set()
        self.lost: set[int] = set()

    @rule()
    def deliver(self) -> None:
        for seq in self.out.due(self.now_s, 2, spent=False):
            assert seq not in self.acked
            self.out.deliver(seq, self.now_s)
        if self.out.room(self.disk):
            fresh = next((seq for seq in self.matching if seq > self.out.position), None)
            if fresh is not None:
                self.out.advance(fresh - 1)
                if self.disk.wants(fresh):
                    self.out.deliver(fresh, self.now_s)
                self.out.advance(fresh)

    @precondition(lambda self: self.out.inflight)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        flying = sorted(self.out._flights)
        seqs = data.draw(st.lists(st.sampled_from(flying), min_size=1, max_size=3, unique=True))
        self.commits.append(self.out.settle(seqs, self.disk))

    @rule(share=st.floats(0, 1))
    def acknowledge_upto(self, share: float) -> None:
        self.commits.append(self.out.settle_upto(int(self.out.position * share), self.disk))

    @precondition(lambda self: self.commits)
    @rule(fails=st.booleans())
    def commit(self, fails: bool) -> None:
        seqs, floor = self.commits.pop(0)
        if fails:
            self.out.unsettle(seqs)
        else:
            self.disk = self.disk.settle(seqs, floor)
            self.out.settled(seqs)
            self.acked.update(set(seqs) - self.lost)

    @precondition(lambda self: self.out.inflight)
    @rule(data=st.data(), delay_s=st.sampled_from([0, 5]))
    def refuse(self, data: st.DataObject, delay_s: int) -> None:
        self.out.nack([data.draw(st.sampled_from(sorted(self.out._flights)))], self.now_s, delay_s)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        wanted = [seq for seq in self.matching if self.disk.wants(seq)][:8]
        seqs = sorted(data.draw(st.lists(st.sampled_from(wanted), min_size=1, max_size=3, unique=True)))
        self.disk = self.disk.lose(gap(seqs[0], seqs[-1], len(seqs)), seqs)
        self.lost.update(seqs)
        self.out.forget(self.disk)

    @rule(seconds=st.sampled_from([1, 10]))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def restart(self) -> None:
        self.out = Delivery(self.disk)
        self.commits.clear()

    @invariant()
    def nothing_is_skipped_or_counted_twice(self) -> None:
        self.disk.check()
        self.out.check()
        assert self.disk.acked == len(self.acked)
        assert sum(self.disk.lost.values()) == sum(one.messages for one in self.disk.gaps) == len(self.lost)
        assert {seq for seq in self.matching if not self.disk.wants(seq)} == self.acked | self.lost
        # Whatever was passed and is not settled is on its way, or will be after the commit.
        passed = {seq for seq in self.matching if self.disk.wants(seq) and seq <= self.out.position}
        assert passed == {seq for seq in self.out._flights if self.disk.wants(seq)}


Both.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestBoth = Both.TestCase

"""A durable consumer: what it has settled (on disk) and what is on its way to it (in memory).

Two machines, one for each side of the commit:

`Ledger` is the record on disk. Only the journal's writer moves it forward, in the transaction that makes it durable.
    floor      every message up to here is settled, or did not match
    settled    settled out of order, above the floor, as runs: a chunk that is gone is settled as a whole
    matched = acked + dead_lettered + sum(lost) + pending        holds by construction; `check()` says what must be true beside it

`Delivery` is the state of the messages between fetch and acknowledgement; lost at a restart, which means redelivery.
    event            a delivered message …
    deliver          → OUT until its deadline
    settle           OUT, DUE → SETTLING, while the commit is on its way
    settled          SETTLING → gone
    unsettle         SETTLING → OUT again: the commit failed
    nack             OUT, DUE → OUT until the delay has passed
    deadline passes  OUT → DUE
    deliver          DUE → OUT, one delivery more; at `max_deliver` the shell makes it a dead letter instead
    recall           OUT → DUE at once, one delivery less: it did not get out of the house
    forget           any → gone: the ledger no longer wants it

The floor that an acknowledgement asks for never passes a message that is OUT, DUE or SETTLING by another commit: if that
other commit fails, nothing is skipped. So a message must be OUT before the position passes it.

Gaps are delivered beside the messages and redelivered like them. They hold up no floor: what they tell of is settled.
"""

import heapq
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from edgegw.core.record import Gap
from edgegw.core.runs import Runs, above, holds, merged, overlaps
from edgegw.errors import Conflict
from edgegw.limits import CONSUMER_GAPS_MAX, INFLIGHT_MAX

ACKED, DEAD = "acked", "dead"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a consumer asked for."""

    name: str
    stream: str
    filter: str
    max_inflight: int
    ack_wait_s: float
    max_deliver: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """A consumer's durable state. Frozen: each step returns the next one."""

    number: int
    terms: Terms
    floor: int
    matched: int
    settled: Runs = ()
    acked: int = 0
    dead_lettered: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    deliveries: dict[int, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Messages this consumer still wants."""
        return self.matched - self.acked - self.dead_lettered - sum(self.lost.values())

    def wants(self, seq: int) -> bool:
        """Whether a matching message of this number is not settled yet."""
        return seq > self.floor and not holds(self.settled, seq)

    def settle(self, seqs: Iterable[int], floor: int, how: str = ACKED, gaps: Collection[int] = ()) -> "Ledger":
        """Count `seqs` as ACKED or DEAD and move the floor; what is settled already counts once. `gaps`: read, by their last."""
        new = {seq for seq in seqs if self.wants(seq)}
        return replace(
            self._moved(max(floor, self.floor), ((seq, seq) for seq in new)),
            acked=self.acked + (len(new) if how == ACKED else 0),
            dead_lettered=self.dead_lettered + (len(new) if how == DEAD else 0),
            gaps=tuple(gap for gap in self.gaps if gap.last not in gaps),
        )

    def settle_span(self, first: int, last: int, seqs: Sequence[int]) -> "Ledger":
        """Count `seqs` as ACKED, once; of what else lies from `first` to `last` nothing is wanted."""
        is_open = first > self.floor and not overlaps(self.settled, first, last)
        acked = len(seqs) if is_open else sum(map(self.wants, seqs))
        return replace(self._moved(self.floor, [(first, last)]), acked=self.acked + acked)

    def lose(self, gap: Gap, seqs: Iterable[int]) -> "Ledger":
        """Count `seqs`, which it wanted, as lost with this gap."""
        gaps = sorted((*self.gaps, gap), key=_last)
        if len(gaps) > CONSUMER_GAPS_MAX:
            a, b = gaps[:2]
            reason = a.reason if a.reason == b.reason else "several"
            gaps[:2] = [Gap(a.stream, min(a.first, b.first), b.last, a.messages + b.messages, reason)]
        return replace(
            self._moved(self.floor, ((seq, seq) for seq in seqs)),
            lost={**self.lost, gap.reason: self.lost.get(gap.reason, 0) + gap.messages},
            gaps=tuple(gaps),
        )

    def pass_over(self, first: int, last: int) -> "Ledger":
        """From `first` to `last` nothing is stored any more, and nothing is left that this consumer wanted."""
        return self._moved(self.floor, [(first, last)])

    def _moved(self, floor: int, more: Iterable[tuple[int, int]]) -> "Ledger":
        floor, settled = above(merged(self.settled, more), floor)
        return replace(self, floor=floor, settled=settled)

    def count(self, more: int) -> "Ledger":
        """`more` messages of the stream match this consumer."""
        return replace(self, matched=self.matched + more) if more else self

    def change(self, terms: Terms) -> "Ledger":
        """New terms for the same messages."""
        assert (terms.name, terms.stream, terms.filter) == (self.terms.name, self.terms.stream, self.terms.filter)
        return replace(self, terms=terms)

    def redelivered(self, deliveries: dict[int, int]) -> "Ledger":
        """Remember how often what is not settled was delivered."""
        return replace(self, deliveries={seq: n for seq, n in deliveries.items() if self.wants(seq)})

    def check(self) -> None:
        """The invariants; AssertionError is a bug of ours."""
        assert all(first > self.floor + 1 for first, _ in self.settled), "settled below the floor"
        assert self.pending >= 0, f"{self.terms.name}: settled more than matched"


OUT, DUE, SETTLING = "out", "due", "settling"


class _Flight:
    __slots__ = ("deliveries", "due_s", "state")

    def __init__(self, deliveries: int) -> None:
        self.deliveries = deliveries
        self.due_s = 0.0
        self.state = OUT


class Delivery:
    """The messages of one consumer that are delivered and not settled. Times: seconds of one monotonic clock."""

    def __init__(self, ledger: Ledger) -> None:
        self.terms = ledger.terms
        self.position = ledger.floor  # everything up to here was delivered, settled, or did not match
        self._flights: dict[int, _Flight] = {}
        self._timers: list[tuple[float, int]] = []  # a heap; each OUT flight stands in it with its due_s
        self._ready: list[int] = []  # a heap; each DUE flight stands in it
        self._gaps: dict[int, float] = {}  # gaps that were delivered, by their last: when they are due again
        self._earlier = dict(ledger.deliveries)

    @property
    def inflight(self) -> int:
        """Messages delivered and not settled."""
        return len(self._flights)

    @property
    def deadline_s(self) -> float | None:
        """When the next delivered message or gap becomes due again; it may have passed."""
        self._tidy()
        times = list(self._gaps.values())
        if self._timers:
            times.append(self._timers[0][0])
        if self._ready:
            times.append(self._flights[self._ready[0]].due_s)
        return min(times, default=None)

    def room(self, ledger: Ledger) -> int:
        """How many more messages may go out. One that is never settled holds back the rest before the record grows too long."""
        return max(0, min(self.terms.max_inflight - len(self._flights), INFLIGHT_MAX - len(ledger.settled)))

    def deliveries(self, seq: int) -> int:
        """How often this message was delivered, as far as known."""
        flight = self._flights.get(seq)
        return flight.deliveries if flight is not None else self._earlier.get(seq, 0)

    def delivered_counts(self) -> dict[int, int]:
        """Deliveries of what is not settled, for the record on disk."""
        return {**self._earlier, **{seq: flight.deliveries for seq, flight in self._flights.items()}}

    def advance(self, seq: int) -> None:
        """Everything up to `seq` was looked at, and what matched is OUT or settled."""
        self.position = max(self.position, seq)

    def deliver(self, seq: int, now_s: float) -> int:
        """The message goes out; returns how often it has now been delivered."""
        flight = self._flights.get(seq)
        if flight is None:
            flight = self._flights[seq] = _Flight(self._earlier.pop(seq, 0))
        flight.deliveries += 1
        self._send_out(seq, flight, now_s + self.terms.ack_wait_s)
        self.advance(seq)
        return flight.deliveries

    def recall(self, seqs: Iterable[int], now_s: float) -> None:
        """These went out and did not arrive: they are due at once, and their last delivery does not count."""
        for seq in seqs:
            flight = self._flights.get(seq)
            if flight is not None and flight.state == OUT:
                flight.deliveries -= 1
                self._send_out(seq, flight, now_s)

    def due(self, now_s: float, most: int, *, spent: bool) -> list[int]:
        """At most `most` messages to deliver again, or (`spent`) never again, lowest first; they stay due until they are."""
        while self._timers and self._timers[0][0] <= now_s:
            due_s, seq = heapq.heappop(self._timers)
            flight = self._flights.get(seq)
            if flight is not None and flight.state == OUT and flight.due_s == due_s:
                flight.state = DUE
                heapq.heappush(self._ready, seq)
        found: list[int] = []
        kept: list[int] = []
        while self._ready and len(found) < most:
            seq = heapq.heappop(self._ready)
            if self.is_due(seq) and (not kept or kept[-1] != seq):
                kept.append(seq)
                if self.is_spent(seq) == spent:
                    found.append(seq)
        for seq in kept:
            heapq.heappush(self._ready, seq)
        return found

    def is_due(self, seq: int) -> bool:
        """Whether this message waits to go out again."""
        flight = self._flights.get(seq)
        return flight is not None and flight.state == DUE

    def is_spent(self, seq: int) -> bool:
        """Whether this message may not be delivered again."""
        return self.deliveries(seq) >= self.terms.max_deliver

    def settle(self, seqs: Iterable[int], ledger: Ledger) -> tuple[list[int], int]:
        """The numbers to settle and the floor to ask for. Raises Conflict(not_delivered); settled already is no fault.

        What another commit is settling is settled by this one as well: whoever asks must not hear of success before it is true.
        """
        new: list[int] = []
        for seq in seqs:
            if seq in self._flights:
                new.append(seq)
            elif ledger.wants(seq):
                raise Conflict(
                    "not_delivered",
                    f"message {seq} is not out for delivery to consumer {self.terms.name!r}",
                    "after a restart of the gateway, fetch again: unacknowledged messages are delivered again",
                )
        for seq in new:
            self._flights[seq].state = SETTLING
        return new, self.floor(frozenset(new))

    def settle_upto(self, upto: int, ledger: Ledger) -> tuple[list[int], int]:
        """As `settle`, for every delivered message up to `upto`."""
        if upto > self.position:
            raise Conflict(
                "not_delivered",
                f"nothing beyond message {self.position} was delivered to consumer {self.terms.name!r}",
                "after a restart of the gateway, fetch again: unacknowledged messages are delivered again",
            )
        return self.settle([seq for seq in self._flights if seq <= upto], ledger)

    def settled(self, seqs: Iterable[int]) -> None:
        """The commit that settled them is durable."""
        for seq in seqs:
            self._flights.pop(seq, None)

    def unsettle(self, seqs: Iterable[int]) -> None:
        """The commit that should have settled them failed."""
        for seq in seqs:
            flight = self._flights.get(seq)
            if flight is not None and flight.state == SETTLING:
                self._send_out(seq, flight, flight.due_s)

    def nack(self, seqs: Iterable[int], now_s: float, delay_s: float) -> None:
        """Deliver these again after `delay_s`. Raises Conflict(not_delivered) before anything is changed."""
        wanted = list(seqs)
        for seq in wanted:
            if seq not in self._flights and seq not in self._gaps:
                raise Conflict("not_delivered", f"message {seq} is not out for delivery to consumer {self.terms.name!r}")
        for seq in wanted:
            if seq in self._gaps:
                self._gaps[seq] = now_s + delay_s
            flight = self._flights.get(seq)
            if flight is not None and flight.state != SETTLING:
                self._send_out(seq, flight, now_s + delay_s)

    def forget(self, ledger: Ledger) -> None:
        """Drop what this ledger does not want any more."""
        self.settled([seq for seq in self._flights if not ledger.wants(seq)])
        self._earlier = {seq: n for seq, n in self._earlier.items() if ledger.wants(seq)}

    def floor(self, settling: Collection[int]) -> int:
        """Up to where all is settled once `settling` is."""
        open_seqs = [seq for seq in self._flights if seq not in settling]
        return min(open_seqs) - 1 if open_seqs else self.position

    # --- gaps -------------------------------------------------------------------------------------

    def deliver_gaps(self, gaps: Iterable[Gap], now_s: float) -> list[Gap]:
        """Those of the ledger's gaps that go out now: none before the messages that come first."""
        self._gaps = {gap.last: self._gaps[gap.last] for gap in gaps if gap.last in self._gaps}
        found = [gap for gap in gaps if gap.last <= self.position and self._gaps.get(gap.last, now_s) <= now_s]
        for gap in found:
            self._gaps[gap.last] = now_s + self.terms.ack_wait_s
        return found

    def read_gaps(self, upto: int) -> list[int]:
        """Gaps, by their last, that an acknowledgement up to `upto` covers: those delivered."""
        return [last for last in self._gaps if last <= upto]

    # --- checks -----------------------------------------------------------------------------------

    def check(self) -> None:
        """The invariants; AssertionError is a bug of ours."""
        assert all(seq <= self.position for seq in self._flights), "delivered beyond the position"
        timers, ready = set(self._timers), set(self._ready)
        for seq, flight in self._flights.items():
            assert flight.state != OUT or (flight.due_s, seq) in timers, "a message nobody will redeliver"
            assert flight.state != DUE or seq in ready, "a message nobody will redeliver"

    def _send_out(self, seq: int, flight: _Flight, due_s: float) -> None:
        flight.state, flight.due_s = OUT, due_s
        heapq.heappush(self._timers, (due_s, seq))

    def _tidy(self) -> None:
        """Take stale entries from the tops of the heaps, and all of them when they are too many."""
        flights = self._flights
        if len(self._timers) > 2 * len(flights) + 64:
            self._timers = [(flight.due_s, seq) for seq, flight in flights.items() if flight.state == OUT]
            heapq.heapify(self._timers)
        while self._timers and not self._is_timed(*self._timers[0]):
            heapq.heappop(self._timers)
        while self._ready and not self.is_due(self._ready[0]):
            heapq.heappop(self._ready)

    def _is_timed(self, due_s: float, seq: int) -> bool:
        flight = self._flights.get(seq)
        return flight is not None and flight.state == OUT and flight.due_s == due_s


def _last(gap: Gap) -> int:
    return gap.last

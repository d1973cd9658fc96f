"""A durable consumer: what it has settled (on disk) and what is on its way to it (in memory).

Two machines, one for each side of the commit:

`Ledger` is the record on disk. Only the journal's writer moves it forward, in the transaction that makes it durable.
    floor      every message up to here is settled, or did not match
    settled    settled out of order, above the floor
    matched = acked + dead_lettered + sum(lost) + pending        holds by construction; `check()` says what must be true beside it

`Delivery` is the state of the messages between fetch and acknowledgement; lost at a restart, which means redelivery.
    event            a delivered message …
    deliver          → OUT until its deadline
    settle           OUT, DUE → SETTLING, while the commit is on its way
    settled          SETTLING → gone
    unsettle         SETTLING → OUT again: the commit failed
    nack             OUT → DUE after the delay
    deadline passes  OUT → DUE at once
    deliver          DUE → OUT, one delivery more; at `max_deliver` the shell makes it a dead letter instead
    lose             any → gone: the stream evicted it

The floor that an acknowledgement asks for never passes a message that is OUT, DUE or SETTLING by another commit: if that
other commit fails, nothing is skipped.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from edgegw.core.record import Gap
from edgegw.errors import Conflict
from edgegw.limits import CONSUMER_GAPS_MAX

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
    settled: frozenset[int] = frozenset()
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
        return seq > self.floor and seq not in self.settled

    def settle(self, seqs: Iterable[int], floor: int, how: str = ACKED, gaps_upto: int = 0) -> "Ledger":
        """Count `seqs` as ACKED or DEAD and move the floor; what is settled already counts once."""
        new = [seq for seq in set(seqs) if self.wants(seq)]
        floor = max(floor, self.floor)
        settled = self.settled.union(new)
        while floor + 1 in settled:
            floor += 1
        return replace(
            self,
            floor=floor,
            settled=frozenset(seq for seq in settled if seq > floor),
            acked=self.acked + (len(new) if how == ACKED else 0),
            dead_lettered=self.dead_lettered + (len(new) if how == DEAD else 0),
            gaps=tuple(gap for gap in self.gaps if gap.last > gaps_upto),
        )

    def lose(self, gap: Gap, seqs: Iterable[int], upto: int) -> "Ledger":
        """Count `seqs` as lost with this gap; the stream has nothing up to `upto` that this consumer could still get."""
        gaps = (*self.gaps, gap)
        if len(gaps) > CONSUMER_GAPS_MAX:
            a, b = gaps[0], gaps[1]
            reason = a.reason if a.reason == b.reason else "several"
            gaps = (Gap(a.stream, a.first, b.last, a.messages + b.messages, reason), *gaps[2:])
        floor = max(self.floor, upto)
        return replace(
            self,
            floor=floor,
            # What is lost above the floor is settled as well: an acknowledgement on its way must not count it again.
            settled=frozenset(seq for seq in self.settled.union(seqs) if seq > floor),
            lost={**self.lost, gap.reason: self.lost.get(gap.reason, 0) + gap.messages},
            gaps=gaps,
        )

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
        assert all(seq > self.floor for seq in self.settled), "settled below the floor"
        assert self.pending >= 0, f"{self.terms.name}: settled more than matched"


OUT, DUE, SETTLING = "out", "due", "settling"


class _Flight:
    __slots__ = ("deliveries", "due_s", "state")

    def __init__(self) -> None:
        self.deliveries = 0
        self.due_s = 0.0
        self.state = OUT


class Delivery:
    """The messages of one consumer that are delivered and not settled. Times: seconds of one monotonic clock."""

    def __init__(self, ledger: Ledger) -> None:
        self.terms = ledger.terms
        self.position = ledger.floor  # everything up to here was delivered, settled, or did not match
        self._flights: dict[int, _Flight] = {}
        self._due: list[tuple[float, int]] = []
        self._earlier = dict(ledger.deliveries)

    @property
    def room(self) -> int:
        """How many more messages may be on their way."""
        return max(0, self.terms.max_inflight - len(self._flights))

    @property
    def deadline_s(self) -> float | None:
        """When the next delivered message becomes due again."""
        self._drop_stale()
        return self._due[0][0] if self._due else None

    @property
    def inflight(self) -> int:
        """Messages delivered and not settled."""
        return len(self._flights)

    def deliveries(self, seq: int) -> int:
        """How often this message was delivered, as far as known."""
        flight = self._flights.get(seq)
        return flight.deliveries if flight is not None else self._earlier.get(seq, 0)

    def delivered_counts(self) -> dict[int, int]:
        """Deliveries of what is not settled, for the record on disk."""
        return {**self._earlier, **{seq: flight.deliveries for seq, flight in self._flights.items()}}

    def advance(self, seq: int) -> None:
        """Everything up to `seq` was looked at; what matched was delivered."""
        self.position = max(self.position, seq)

    def deliver(self, seq: int, now_s: float) -> int:
        """The message goes out; returns how often it has now been delivered."""
        flight = self._flights.get(seq)
        if flight is None:
            flight = self._flights[seq] = _Flight()
            flight.deliveries = self._earlier.pop(seq, 0)
        flight.deliveries += 1
        flight.state, flight.due_s = OUT, now_s + self.terms.ack_wait_s
        heapq.heappush(self._due, (flight.due_s, seq))
        self.position = max(self.position, seq)
        return flight.deliveries

    def due(self, now_s: float, most: int) -> list[int]:
        """At most `most` messages that should go out again, lowest first; they stay due until `deliver`, `settle` or `nack`."""
        self._drop_stale()
        found: list[int] = []
        while self._due and self._due[0][0] <= now_s:
            _, seq = heapq.heappop(self._due)
            flight = self._flights.get(seq)
            if flight is not None and flight.state != SETTLING and flight.due_s <= now_s and seq not in found:
                flight.state = DUE
                found.append(seq)
        found.sort()
        for seq in found:  # what is not taken now is due at the next call as well
            heapq.heappush(self._due, (self._flights[seq].due_s, seq))
        return found[:most]

    def is_spent(self, seq: int) -> bool:
        """Whether this message may not be delivered again."""
        return self.deliveries(seq) >= self.terms.max_deliver

    def settle(self, seqs: Iterable[int], ledger: Ledger) -> tuple[list[int], int]:
        """The numbers to settle and the floor to ask for. Raises Conflict(not_delivered); settled already is no fault."""
        new: list[int] = []
        for seq in seqs:
            flight = self._flights.get(seq)
            if flight is None:
                if ledger.wants(seq):
                    raise Conflict(
                        "not_delivered",
                        f"message {seq} is not out for delivery to consumer {self.terms.name!r}",
                        "after a restart of the gateway, fetch again: unacknowledged messages are delivered again",
                    )
            elif flight.state != SETTLING:
                new.append(seq)
        for seq in new:
            self._flights[seq].state = SETTLING
        return new, self._floor(frozenset(new))

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
            if flight is not None:
                flight.state = OUT
                heapq.heappush(self._due, (flight.due_s, seq))

    def nack(self, seqs: Iterable[int], now_s: float, delay_s: float) -> None:
        """Deliver these again after `delay_s`. Raises Conflict(not_delivered) before anything is changed."""
        wanted = list(seqs)
        for seq in wanted:
            if seq not in self._flights:
                raise Conflict("not_delivered", f"message {seq} is not out for delivery to consumer {self.terms.name!r}")
        for seq in wanted:
            flight = self._flights[seq]
            if flight.state != SETTLING:
                flight.state, flight.due_s = OUT, now_s + delay_s
                heapq.heappush(self._due, (flight.due_s, seq))

    def lose(self, first: int, last: int) -> None:
        """The stream no longer has these."""
        for seq in [seq for seq in self._flights if first <= seq <= last]:
            del self._flights[seq]
        for seq in [seq for seq in self._earlier if seq <= last]:
            del self._earlier[seq]

    def check(self) -> None:
        """The invariants; AssertionError is a bug of ours."""
        assert all(seq <= self.position for seq in self._flights), "delivered beyond the position"
        due = {seq for _, seq in self._due}
        assert all(flight.state == SETTLING or seq in due for seq, flight in self._flights.items()), (
            "a message nobody will redeliver"
        )

    def _floor(self, settling: frozenset[int]) -> int:
        open_seqs = [seq for seq in self._flights if seq not in settling]
        return min(open_seqs) - 1 if open_seqs else self.position

    def _drop_stale(self) -> None:
        flights = self._flights
        if len(self._due) > 2 * len(flights) + 64:
            self._due = [(flight.due_s, seq) for seq, flight in flights.items() if flight.state != SETTLING]
            heapq.heapify(self._due)
        while self._due:
            due_s, seq = self._due[0]
            flight = flights.get(seq)
            if flight is not None and flight.state != SETTLING and flight.due_s == due_s:
                return
            heapq.heappop(self._due)

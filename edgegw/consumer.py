"""A durable consumer at work: fetch, acknowledge, redeliver, bury. `core.cursor` decides; this shell reads and commits.

A fetch may be cancelled at any await, and acknowledgements come in between. So a message is OUT as soon as it leaves the
window, and a fetch that does not come to its end recalls what it took.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from edgegw.clock import Clock
from edgegw.core.cursor import ACKED, DEAD, Delivery, Ledger
from edgegw.core.record import Batch, Gap, Message, Origin
from edgegw.errors import StoreFull
from edgegw.limits import FETCH_PAUSE_S, LETTERS_BYTES, PAGE_BYTES, TICK_S, WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX
from edgegw.store.jobs import Job, Part, Settle
from edgegw.store.reader import Page, Picked
from edgegw.store.streams import DEAD_LETTER

# Consumers of links are named so; nobody else's are.
LINK_CONSUMERS = "link."


class Delivered(NamedTuple):
    """A message on its way to the consumer, for the `deliveries`-th time."""

    message: Message
    deliveries: int


class Source(Protocol):
    """The stream behind a consumer."""

    def head(self, stream: str) -> int:
        """Last committed sequence number of the stream."""

    async def page(self, stream: str, topic_filter: str, after: int, most: int, most_bytes: int) -> Page:
        """Committed messages after `after`."""

    async def pick(self, stream: str, seqs: list[int], most_bytes: int) -> Picked:
        """These messages, as far as they are stored and not expired."""

    def submit(self, job: Job) -> asyncio.Future[None]:
        """Put the job into the next commit."""


class Consumer:
    """One named consumer. `fetch` may be called by several workers at once; each message goes to one of them."""

    def __init__(self, source: Source, ledger: Ledger, clock: Clock) -> None:
        self.ledger = ledger
        self.is_deleted = False
        self.owner = ""  # a part of the gateway that drains it; nobody else may
        self._source = source
        self._clock = clock
        self._delivery = Delivery(ledger)
        self._window: deque[Message] = deque()
        self._scanned = ledger.floor
        self._turn = asyncio.Lock()
        self._changes = 0  # counts what may let a fetch find more than it did
        self._wake = asyncio.Event()
        self._bury_from_s = 0.0

    @property
    def inflight(self) -> int:
        """Messages delivered and not settled."""
        return self._delivery.inflight

    def committed(self, ledger: Ledger) -> None:
        """A commit moved the ledger; called before whoever waits for that commit goes on."""
        before, self.ledger = self.ledger, ledger
        if ledger.terms is not before.terms:
            self._delivery.terms = ledger.terms
            self._notice()
        if ledger.lost != before.lost:
            self._delivery.forget(ledger)
            self._window = deque(message for message in self._window if ledger.wants(message.seq))
        if ledger.matched != before.matched or ledger.gaps != before.gaps:
            self._notice()

    def deleted(self) -> None:
        """Nobody fetches from it any more."""
        self.is_deleted = True
        self._notice()

    async def fetch(self, most: int, wait_s: float) -> list[Delivered | Gap]:
        """At most `most` messages and the gaps among them, in order; waits up to `wait_s` for the first. Raises StoreError."""
        until_s = self._clock.mono_s() + wait_s
        while not self.is_deleted:
            changes = self._changes
            async with self._turn:
                taken = await self._take(most)
            now_s = self._clock.mono_s()
            if taken or now_s >= until_s:
                return taken
            if changes == self._changes:
                await self._pause(until_s, now_s)
        return []

    async def ack(self, seqs: Iterable[int]) -> None:
        """Settle these; durable on return. Raises Conflict(not_delivered), StoreError."""
        wanted = sorted(set(seqs))
        new, floor = self._delivery.settle(wanted, self.ledger)
        await self._settle(new, floor, wanted[-1] if wanted else 0)

    async def ack_upto(self, upto: int) -> None:
        """Settle every delivered message up to `upto`; durable on return. Raises Conflict(not_delivered), StoreError."""
        new, floor = self._delivery.settle_upto(upto, self.ledger)
        await self._settle(new, floor, upto)

    def nack(self, seqs: Iterable[int], delay_s: float) -> None:
        """Deliver these again after `delay_s`. Raises Conflict(not_delivered)."""
        self._delivery.nack(seqs, self._clock.mono_s(), delay_s)
        self._notice()

    async def bury(self) -> None:
        """Make dead letters of what was delivered as often as it may be and came back; durable on return. Raises StoreError."""
        async with self._turn:
            await self._bury()

    # --- waiting ----------------------------------------------------------------------------------

    def _notice(self) -> None:
        self._changes += 1
        self._wake.set()

    async def _pause(self, until_s: float, now_s: float) -> None:
        due_s = self._delivery.deadline_s
        self._wake.clear()
        with suppress(TimeoutError):
            # What is due and was not taken waits for room in the dead-letter stream: look again, but not at once.
            async with asyncio.timeout(max(min(until_s, until_s if due_s is None else due_s) - now_s, FETCH_PAUSE_S)):
                await self._wake.wait()

    # --- settling ---------------------------------------------------------------------------------

    async def _settle(self, seqs: list[int], floor: int, upto: int) -> None:
        # Whoever acknowledges a message has read the gaps before it.
        gaps = self._delivery.read_gaps(upto)
        if seqs or gaps or floor > self.ledger.floor:
            await self._commit(Settle(self.ledger.number, sorted(seqs), floor, ACKED, gaps))

    async def _commit(self, job: Settle) -> None:
        job.deliveries = {seq: n for seq, n in self._delivery.delivered_counts().items() if n > 1}
        future = self._source.submit(job)
        # Whoever waits here may be cancelled; the commit goes on, and what comes of it must be known.
        future.add_done_callback(lambda done: self._came_back(done, job.seqs))
        await asyncio.shield(future)

    def _came_back(self, done: asyncio.Future[None], seqs: list[int]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._delivery.unsettle(seqs)
        else:
            self._delivery.settled(seqs)
        self._notice()  # there is room again

    async def _expire(self, seqs: Iterable[int]) -> None:
        """Past their TTL: lost to this consumer, which hears of it as a gap."""
        wanted = [seq for seq in seqs if self.ledger.wants(seq)]
        if wanted:
            await self._commit(Settle(self.ledger.number, wanted, self._delivery.floor(frozenset(wanted)), "ttl"))

    # --- delivering -------------------------------------------------------------------------------

    async def _take(self, most: int) -> list[Delivered | Gap]:
        if self._clock.mono_s() >= self._bury_from_s:
            try:
                await self._bury()
            except StoreFull:  # what is spent waits, undelivered, until the dead-letter stream has room
                self._bury_from_s = self._clock.mono_s() + TICK_S
        taken: list[Delivered | Gap] = []
        try:
            await self._deliver_again(taken, most)
            await self._deliver_new(taken, most)
        except BaseException:
            self._delivery.recall(map(_order, taken), self._clock.mono_s())
            raise
        taken += self._delivery.deliver_gaps(self.ledger.gaps, self._clock.mono_s())
        if taken:
            self._notice()  # others who wait have a new deadline to look at
        taken.sort(key=_order)
        return taken

    async def _deliver_again(self, taken: list[Delivered | Gap], most: int) -> None:
        due = self._delivery.due(self._clock.mono_s(), most, spent=False)
        if due:
            picked = await self._source.pick(self.ledger.terms.stream, due, PAGE_BYTES)
            await self._expire(picked.gone)
            self._deliver(taken, [message for seq, message in picked.messages.items() if self._delivery.is_due(seq)])

    async def _deliver_new(self, taken: list[Delivered | Gap], most: int) -> None:
        room_bytes = PAGE_BYTES - sum(len(item.message.payload) for item in taken if isinstance(item, Delivered))
        while len(taken) < most and room_bytes > 0 and self._delivery.room(self.ledger) > 0:
            if not self._window and not await self._read_ahead():
                return
            while self._window and not self.ledger.wants(self._window[0].seq):
                self._delivery.advance(self._window.popleft().seq)
            if self._window:
                message = self._window.popleft()
                room_bytes -= len(message.payload)
                self._deliver(taken, [message])

    def _deliver(self, taken: list[Delivered | Gap], messages: list[Message]) -> None:
        now_s = self._clock.mono_s()
        taken += [Delivered(message, self._delivery.deliver(message.seq, now_s)) for message in messages]

    async def _read_ahead(self) -> bool:
        """Fill the empty window with what was never looked at; whether there was any."""
        terms = self.ledger.terms
        self._delivery.advance(self._scanned)
        if self._scanned >= self._source.head(terms.stream):
            return False
        page = await self._source.page(terms.stream, terms.filter, self._scanned, WINDOW_MESSAGES_MAX, WINDOW_BYTES_MAX)
        # First: a message that is neither in the window nor counted as lost must not be scanned.
        await self._expire(page.expired)
        self._window.extend(item for item in page.items if isinstance(item, Message))
        self._scanned = page.position
        return True

    # --- dead letters -----------------------------------------------------------------------------

    async def _bury(self) -> None:
        spent = self._delivery.due(self._clock.mono_s(), WINDOW_MESSAGES_MAX, spent=True)
        if not spent:
            return
        # One commit takes so many bytes that the smallest stream has room for them; the rest waits for the next call.
        picked = await self._source.pick(self.ledger.terms.stream, spent, LETTERS_BYTES)
        await self._expire(picked.gone)
        dead = [message for seq, message in picked.messages.items() if self._delivery.is_due(seq)]
        if dead:
            seqs, floor = self._delivery.settle([message.seq for message in dead], self.ledger)
            job = Settle(self.ledger.number, seqs, floor, DEAD)
            job.letters = Part(DEAD_LETTER, self._letters(dead), self._clock.wall_ms())
            await self._commit(job)

    def _letters(self, messages: list[Message]) -> Batch:
        name = self.ledger.terms.name
        return Batch(
            [message.topic for message in messages],
            [message.payload for message in messages],
            [message.content_type for message in messages],
            source_us=[message.source_us for message in messages],
            origins=[Origin(name, self._delivery.deliveries(message.seq), "max_deliver") for message in messages],
        )


def _order(item: Delivered | Gap) -> int:
    return item.last if isinstance(item, Gap) else item.message.seq

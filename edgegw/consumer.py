"""A durable consumer at work: fetch, acknowledge, redeliver, bury. `core.cursor` decides; this shell reads and commits."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

from edgegw.clock import Clock
from edgegw.core.cursor import ACKED, DEAD, Delivery, Ledger
from edgegw.core.record import Batch, Gap, Message, Origin
from edgegw.errors import StoreFull
from edgegw.limits import FETCH_PAUSE_S, WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX
from edgegw.store.jobs import Job, Settle
from edgegw.store.reader import Page


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

    async def pick(self, stream: str, seqs: list[int]) -> dict[int, Message]:
        """These messages, as far as they are stored and not expired."""

    def submit(self, job: Job) -> asyncio.Future[None]:
        """Put the job into the next commit."""


class Consumer:
    """One named consumer. `fetch` may be called by several workers at once; each message goes to one of them."""

    def __init__(self, source: Source, ledger: Ledger, clock: Clock) -> None:
        self.ledger = ledger
        self._source = source
        self._clock = clock
        self._delivery = Delivery(ledger)
        self._window: deque[Message] = deque()
        self._scanned = ledger.floor
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self.is_deleted = False

    @property
    def inflight(self) -> int:
        """Messages delivered and not settled."""
        return self._delivery.inflight

    def committed(self, ledger: Ledger) -> None:
        """A commit moved the ledger; called before whoever waits for that commit goes on."""
        if ledger.matched != self.ledger.matched or ledger.gaps != self.ledger.gaps:
            self._wake.set()
        if ledger.terms is not self.ledger.terms:
            self._delivery.terms = ledger.terms
            self._wake.set()
        self.ledger = ledger

    def lost(self, gap: Gap) -> None:
        """The stream evicted these before they were settled, or their TTL passed."""
        self._delivery.lose(gap.first, gap.last)
        self._window = deque(message for message in self._window if self.ledger.wants(message.seq))

    def deleted(self) -> None:
        """Nobody fetches from it any more."""
        self.is_deleted = True
        self._wake.set()

    async def fetch(self, most: int, wait_s: float) -> list[Delivered | Gap]:
        """At most `most` messages and the gaps before them, in order; waits up to `wait_s` for the first. Raises StoreError."""
        until_s = self._clock.mono_s() + wait_s
        while not self.is_deleted:
            self._wake.clear()
            async with self._turn:
                taken = await self._take(most)
            now_s = self._clock.mono_s()
            if taken or now_s >= until_s:
                return taken
            due_s = self._delivery.deadline_s
            wait_s = min(until_s, until_s if due_s is None else due_s) - now_s
            try:
                # What is due and was not taken waits for room in the dead-letter stream: look again, but not at once.
                async with asyncio.timeout(max(wait_s, FETCH_PAUSE_S)):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return []

    async def ack(self, seqs: Iterable[int]) -> None:
        """Settle these; durable on return. Raises Conflict(not_delivered), StoreError."""
        wanted = sorted(set(seqs))
        gaps = {gap.last for gap in self.ledger.gaps}
        new, floor = self._delivery.settle([seq for seq in wanted if seq not in gaps], self.ledger)
        await self._settle(new, floor, wanted[-1] if wanted else 0)

    async def ack_upto(self, upto: int) -> None:
        """Settle every delivered message up to `upto`; durable on return. Raises Conflict(not_delivered), StoreError."""
        new, floor = self._delivery.settle_upto(upto, self.ledger)
        gaps = {gap.last for gap in self.ledger.gaps}
        await self._settle([seq for seq in new if seq not in gaps], floor, upto)

    def nack(self, seqs: Iterable[int], delay_s: float) -> None:
        """Deliver these again after `delay_s`. Raises Conflict(not_delivered)."""
        self._delivery.nack(seqs, self._clock.mono_s(), delay_s)
        self._wake.set()

    async def bury(self) -> None:
        """Make dead letters of what was delivered as often as it may be and came back; durable on return. Raises StoreError."""
        async with self._turn:
            await self._bury()

    async def _settle(self, seqs: list[int], floor: int, upto: int) -> None:
        gaps = [gap.last for gap in self.ledger.gaps if gap.last <= upto and self._delivery.deliveries(gap.last)]
        if not seqs and not gaps and floor <= self.ledger.floor:
            return
        job = Settle(self.ledger.number, sorted(seqs), floor, ACKED, max(gaps, default=0))
        await self._commit(job, [*seqs, *gaps])

    async def _commit(self, job: Settle, flights: list[int]) -> None:
        job.deliveries = {seq: n for seq, n in self._delivery.delivered_counts().items() if n > 1}
        future = self._source.submit(job)
        # Not after the await: whoever waits here may be cancelled while the commit goes on.
        future.add_done_callback(lambda done: self._came_back(done, flights))
        await future

    def _came_back(self, done: asyncio.Future[None], flights: list[int]) -> None:
        if done.cancelled() or done.exception() is not None:
            # Cancelled: the commit may still happen. Then the redelivery is one too many, which at-least-once allows.
            self._delivery.unsettle(flights)
        else:
            self._delivery.settled(flights)
        self._wake.set()  # there is room again

    async def _take(self, most: int) -> list[Delivered | Gap]:
        with suppress(StoreFull):  # what is spent waits, undelivered, until the dead-letter stream has room
            await self._bury()
        now_s = self._clock.mono_s()
        gaps = {gap.last: gap for gap in self.ledger.gaps}
        due = [seq for seq in self._delivery.due(now_s, most) if not (seq not in gaps and self._delivery.is_spent(seq))]
        messages = await self._source.pick(self.ledger.terms.stream, [seq for seq in due if seq not in gaps])
        await self._expire([seq for seq in due if seq not in gaps and seq not in messages])
        taken: list[Message | Gap] = list(messages.values())
        taken += [gap for last, gap in gaps.items() if last in due or not self._delivery.deliveries(last)]
        room = min(most - len(messages), self._delivery.room)
        while room > 0 and (message := await self._next()) is not None:
            taken.append(message)
            room -= 1
        now_s = self._clock.mono_s()
        taken.sort(key=_order)
        return [self._deliver(item, now_s) for item in taken]

    def _deliver(self, item: Message | Gap, now_s: float) -> Delivered | Gap:
        deliveries = self._delivery.deliver(_order(item), now_s)
        return item if isinstance(item, Gap) else Delivered(item, deliveries)

    async def _next(self) -> Message | None:
        """The next message that was never taken; reads ahead when the window is empty."""
        terms = self.ledger.terms
        while True:
            while self._window:
                message = self._window.popleft()
                self._delivery.advance(message.seq)
                if self.ledger.wants(message.seq):
                    return message
            self._delivery.advance(self._scanned)
            if self._scanned >= self._source.head(terms.stream):
                return None
            page = await self._source.page(terms.stream, terms.filter, self._scanned, WINDOW_MESSAGES_MAX, WINDOW_BYTES_MAX)
            self._window.extend(item for item in page.items if isinstance(item, Message))
            self._scanned = page.position
            await self._expire(page.expired)

    async def _expire(self, seqs: list[int]) -> None:
        """Past their TTL: lost to this consumer, which hears of it as a gap."""
        wanted = [seq for seq in seqs if self.ledger.wants(seq)]
        if wanted:
            await self._commit(Settle(self.ledger.number, wanted, 0, "ttl"), wanted)

    async def _bury(self) -> None:
        gaps = {gap.last for gap in self.ledger.gaps}
        due = self._delivery.due(self._clock.mono_s(), WINDOW_MESSAGES_MAX)
        spent = [seq for seq in due if seq not in gaps and self._delivery.is_spent(seq)]
        if not spent:
            return
        terms = self.ledger.terms
        messages = await self._source.pick(terms.stream, spent)
        await self._expire([seq for seq in spent if seq not in messages])
        dead = [seq for seq in spent if seq in messages and self.ledger.wants(seq)]
        size_bytes, whole = 0, 0
        for seq in dead:  # one commit holds so much; the rest waits for the next call
            size_bytes += len(messages[seq].payload)
            if whole and size_bytes > WINDOW_BYTES_MAX:
                break
            whole += 1
        dead = dead[:whole]
        if not dead:
            return
        seqs, floor = self._delivery.settle(dead, self.ledger)
        job = Settle(self.ledger.number, seqs, floor, DEAD)
        job.time_ms = self._clock.wall_ms()
        job.letters = self._letters([messages[seq] for seq in seqs])
        await self._commit(job, seqs)

    def _letters(self, messages: list[Message]) -> Batch:
        name = self.ledger.terms.name
        return Batch(
            [message.topic for message in messages],
            [message.payload for message in messages],
            [message.content_type for message in messages],
            source_us=[message.source_us for message in messages],
            origins=[Origin(name, self._delivery.deliveries(message.seq), "max_deliver") for message in messages],
        )


def _order(item: Message | Gap) -> int:
    return item.last if isinstance(item, Gap) else item.seq

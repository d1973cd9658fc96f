"""What became of a link's messages, on its way to the consumer's record.

    taken by the upstream     remembered here, and settled about once a second: `settle`, `write`
    nothing to send           the same, without messages
    refused                   a dead letter, at once: `bury`
    past its TTL              lost, at once: `expire`

All of these are *over*: of their ranges nothing will be sent any more. A request's range reaches over what is over beside it, so
that ranges without a request (what did not match, expired, was refused) leave no gaps in what the upstream remembers.
What was evicted is not over while the link runs: it may be under way in a parcel, and arrive.
"""

import asyncio
from collections.abc import Callable, Sequence

from edgegw.bus import Bus
from edgegw.clock import Clock
from edgegw.consumer import LINK_CONSUMERS, Consumer
from edgegw.core.cursor import ACKED, DEAD
from edgegw.core.lanes import Parcel
from edgegw.core.record import Batch, Origin
from edgegw.core.runs import Runs, merged, run_around
from edgegw.errors import StoreError
from edgegw.limits import LINK_IDLE_S
from edgegw.links.link_metrics import LinkMetrics
from edgegw.store.jobs import Part, Settle
from edgegw.store.streams import DEAD_LETTER


class LinkRecords:
    """The records of one run of a link."""

    def __init__(self, bus: Bus, consumer: Consumer, clock: Clock, name: str, metrics: LinkMetrics) -> None:
        self._bus = bus
        self._consumer = consumer
        self._clock = clock
        self._name = name
        self._metrics = metrics
        self._spans: list[tuple[int, int, Sequence[int]]] = []  # without payloads: they wait for a disk
        ledger = consumer.ledger
        self._over: Runs = merged(ledger.settled, [(1, ledger.floor)] if ledger.floor else [])

    @property
    def unwritten(self) -> int:
        """Parcels that are settled here and not on disk."""
        return len(self._spans)

    def settle(self, parcel: Parcel) -> None:
        """The upstream has these messages, or there are none."""
        self._spans.append((parcel.first, parcel.last, () if parcel.block is None else parcel.block.seqs))
        self._end(parcel)

    def around(self, parcel: Parcel) -> tuple[int, int]:
        """The parcel's range, and what is over on either side of it."""
        return run_around(self._over, parcel.first, parcel.last)

    async def write(self) -> None:
        """One commit for what is settled. Raises StoreError; then it is as before."""
        spans, self._spans = self._spans, []
        if not spans:
            return
        ledger = self._consumer.ledger
        gaps = [gap.last for gap in ledger.gaps]  # nobody upstream reads them; they stay in the ledger as `lost`
        try:
            await asyncio.shield(self._bus.submit(Settle(ledger.number, [], ledger.floor, ACKED, gaps, spans)))
        except StoreError:
            self._spans = spans + self._spans
            raise

    async def bury(self, parcel: Parcel, reason: str) -> None:
        """Its only message goes to the dead letters, in one commit with its settling; one that is there already stays there."""
        block = parcel.block
        assert block is not None
        letter = Batch(
            block.topics, block.payloads, block.content_types, source_us=[*block.times_us],
            origins=[Origin(f"{LINK_CONSUMERS}{self._name}", parcel.tries, reason)],
        )  # fmt: skip

        def job() -> Settle:
            ledger = self._consumer.ledger
            settle = Settle(ledger.number, block.seqs, ledger.floor, DEAD, (), [(parcel.first, parcel.last, ())])
            if ledger.terms.stream != DEAD_LETTER:  # else it would come round for ever
                settle.letters = Part(DEAD_LETTER, letter, self._clock.wall_ms())
            return settle

        await self._insist(job)
        self._metrics.messages.labels(self._name, "dead_letter").inc()
        self._end(parcel)

    async def expire(self, seqs: Sequence[int]) -> None:
        """These are past their TTL: lost to the upstream, as far as they are wanted."""
        wanted = [seq for seq in seqs if self._consumer.ledger.wants(seq)]
        if wanted:
            await self._insist(lambda: Settle(self._consumer.ledger.number, wanted, self._consumer.ledger.floor, "ttl"))
            self._metrics.messages.labels(self._name, "expired").inc(len(wanted))

    async def _insist(self, job: Callable[[], Settle]) -> None:
        """Until the store takes it; the condition `store` says why it does not."""
        while True:
            try:
                await asyncio.shield(self._bus.submit(job()))
            except StoreError:
                await asyncio.sleep(LINK_IDLE_S)
                continue
            return

    def _end(self, parcel: Parcel) -> None:
        self._over = merged(self._over, [(parcel.first, parcel.last)])

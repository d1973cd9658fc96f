"""Publish, live subscriptions and durable consumers over one journal; the only door to it.

A publish returns when its commit is durable. Live subscriptions hear of it after that, consumers find it in the stream.
Every topic belongs to exactly one stream: the first configured one with a matching filter, else `default`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from edgegw.clock import Clock
from edgegw.config import StreamConfig
from edgegw.consumer import Consumer
from edgegw.core.cursor import Terms
from edgegw.core.record import OCTETS, RECORD_BYTES, Batch, Message
from edgegw.core.topic import FilterIndex, check_topic
from edgegw.errors import Busy, Conflict, NotFound, StoreFull
from edgegw.limits import (
    COUNT_RETRIES_MAX,
    MATCH_CACHE_MAX,
    PAGE_BYTES,
    PUBLISH_WAIT_S,
    SUBSCRIPTIONS_BYTES,
    SUBSCRIPTIONS_MAX,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
)
from edgegw.store.jobs import (
    Change,
    Configure,
    Create,
    Delete,
    Job,
    Outcome,
    Part,
    Publish,
    Receipt,
    Settle,
    Span,
    StreamStats,
    Tick,
)
from edgegw.store.journal import Journal
from edgegw.store.reader import Blocks, Page, Picked, Range, Reader
from edgegw.store.writer import Writer
from edgegw.subscription import Subscription

DEFAULT = "default"


class Options(NamedTuple):
    """What a single message may ask for beside being stored."""

    key: str | None = None
    retain: bool = False
    source_us: int | None = None
    ttl_s: float | None = None


class Share(NamedTuple):
    """What one stream took of a batch: `places[i]` in the batch is the part's message `i`."""

    part: Part
    places: Sequence[int]


class Bus:
    """Owns the journal. `watch(outcome, jobs)` is told of each commit, for metrics; `on_death` of a writer that died."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        streams: Iterable[StreamConfig],
        clock: Clock,
        *,
        watch: Callable[[Outcome, int], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.streams: dict[str, StreamStats] = {}
        self.consumers: dict[str, Consumer] = {}
        self.epoch = ""  # of the store: with stream and number it names a message among all there are
        self._journal = Journal(writer, reader, clock, on_commit=self._committed, on_death=on_death)
        self._clock = clock
        self._watch = watch
        self._by_number: dict[int, Consumer] = {}
        self._route_by(streams)
        self._live: FilterIndex[Subscription] = FilterIndex()
        self._subscriptions = 0
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Open the store. Raises StoreError."""
        self._create_future: Callable[[], asyncio.Future[Receipt]] = asyncio.get_running_loop().create_future
        outcome = await self._journal.start()
        self.epoch = outcome.epoch
        self._absorb(outcome)

    async def stop(self) -> None:
        """Commit what was accepted and close the store."""
        await self._journal.stop()

    @property
    def turns(self) -> int:
        """Commits so far: stands still when the writer does."""
        return self._journal.turns

    @property
    def queued_bytes(self) -> int:
        """Bytes waiting for the writer."""
        return self._journal.queued_bytes

    @property
    def window_bytes(self) -> int:
        """What the window of a live subscription may hold: less, the more there are."""
        return max(WINDOW_BYTES_MIN, min(WINDOW_BYTES_MAX, SUBSCRIPTIONS_BYTES // max(1, self._subscriptions)))

    @property
    def subscriptions(self) -> int:
        """Live subscriptions."""
        return self._subscriptions

    # --- publish ----------------------------------------------------------------------------------

    def route(self, topic: str, *, where: str = "topic") -> str:
        """The stream that takes this topic. Raises RequestError(bad_topic)."""
        stream = self._routes.get(topic)
        if stream is None:
            found = self._stream_filters.match(check_topic(topic, where=where))
            stream = min(found)[1] if found else DEFAULT
            if len(self._routes) >= MATCH_CACHE_MAX:
                del self._routes[next(iter(self._routes))]
            self._routes[topic] = stream
        return stream

    def publish(
        self,
        topic: str,
        payload: bytes,
        content_type: str = OCTETS,
        options: Options | None = None,
        *,
        wait_s: float = PUBLISH_WAIT_S,
    ) -> Awaitable[Receipt]:
        """Store one message; durable once awaited. Raises RequestError; awaited also Busy after `wait_s`, StoreError.

        Not a coroutine itself: its frame would cost as much as the rest of the publish.
        """
        stream = self._routes.get(topic) or self.route(topic)
        if options is None:
            journal = self._journal
            tray = journal.trays.get(stream)
            size_bytes = len(topic) + len(payload) + RECORD_BYTES
            if tray is None or tray.room_bytes < size_bytes:
                tray = journal.tray(stream, size_bytes)
            if tray is not None:
                tray.room_bytes -= size_bytes
                tray.topics.append(topic)
                tray.payloads.append(payload)
                tray.content_types.append(content_type)
                future = self._create_future()
                tray.futures.append(future)
                return future
        return self._publish(stream, topic, payload, content_type, options or Options(), wait_s)

    async def _publish(
        self, stream: str, topic: str, payload: bytes, content_type: str, options: Options, wait_s: float
    ) -> Receipt:
        journal = self._journal
        if journal.is_busy:
            await journal.room(len(topic) + len(payload) + RECORD_BYTES, wait_s)
        now_ms = self._clock.wall_ms()
        batch = Batch(
            [topic],
            [payload],
            content_type,
            keys=None if options.key is None else [options.key],
            retain=[0] if options.retain else None,
            source_us=None if options.source_us is None else [options.source_us],
            expires_ms=None if options.ttl_s is None else [now_ms + int(options.ttl_s * 1000)],
        )
        part = Part(stream, batch, now_ms)
        await journal.submit(Publish([part]))
        return Receipt(stream, part.first_seq, part.repeats is not None and part.repeats[0])

    async def publish_batch(self, batch: Batch, *, wait_s: float = PUBLISH_WAIT_S) -> list[Share]:
        """Store all messages of the batch, or none; durable on return. Raises RequestError, Busy after `wait_s`, StoreError."""
        shares = self._shares(batch)
        if self._journal.is_busy:
            await self._journal.room(batch.size_bytes, wait_s)
        await self._journal.submit(Publish([share.part for share in shares]))
        return shares

    async def publish_span(self, batch: Batch, span: Span, *, wait_s: float = PUBLISH_WAIT_S) -> int:
        """Store what of a range did not come before, and remember the range, at once; returns how many were there already."""
        shares = self._shares(batch)
        if self._journal.is_busy:
            await self._journal.room(batch.size_bytes, wait_s)
        job = Publish([share.part for share in shares], span)
        await self._journal.submit(job)
        return job.repeats

    def _shares(self, batch: Batch) -> list[Share]:
        routes = self._routes
        streams = [routes.get(topic) or self.route(topic, where=f"[{i}].topic") for i, topic in enumerate(batch.topics)]
        names = set(streams)
        now_ms = self._clock.wall_ms()
        shares: list[Share] = []
        if len(names) == 1:
            everywhere = range(len(streams))
            shares.append(Share(Part(streams[0], batch, now_ms, everywhere), everywhere))
        else:
            for name in sorted(names):
                places = [i for i, stream in enumerate(streams) if stream == name]
                shares.append(Share(Part(name, batch.only(places), now_ms, places), places))
        return shares

    def _route_by(self, streams: Iterable[StreamConfig]) -> None:
        self._stream_filters: FilterIndex[tuple[int, str]] = FilterIndex()
        for order, config in enumerate(streams):
            for topic_filter in config.topics:
                self._stream_filters.add(topic_filter, (order, config.name))
        self._routes: dict[str, str] = {}  # topics that were checked, with their stream

    # --- read -------------------------------------------------------------------------------------

    def stream(self, name: str) -> StreamStats:
        """The stream's ledger. Raises NotFound(unknown_stream)."""
        stats = self.streams.get(name)
        if stats is None:
            raise NotFound(
                "unknown_stream", f"there is no stream {name!r}", f"streams: {', '.join(sorted(self.streams))}", where="stream"
            )
        return stats

    def head(self, stream: str) -> int:
        """Last committed sequence number of the stream."""
        return self.streams[stream].head

    async def page(self, stream: str, topic_filter: str, after: int, most: int, most_bytes: int) -> Page:
        """Committed messages after `after`, in order, with gaps."""
        stats = self.stream(stream)
        reader = self._journal.reader
        return await self._journal.read(
            reader.read, Range(stream, stats.number, topic_filter, after, stats.head), most, most_bytes, self._clock.wall_ms()
        )

    async def blocks(self, stream: str, topic_filter: str, after: int, upto: int, most: int, most_bytes: int) -> Blocks:
        """Committed messages after `after` up to `upto`, as columns, in blocks of at most so many messages and bytes."""
        part = Range(stream, self.stream(stream).number, topic_filter, after, upto)
        return await self._journal.read(self._journal.reader.blocks, part, most, most_bytes, self._clock.wall_ms())

    async def pick(self, stream: str, seqs: list[int], most_bytes: int) -> Picked:
        """These messages, as far as they are stored and not expired; `seqs` ascending."""
        number = self.stream(stream).number
        return await self._journal.read(self._journal.reader.pick, stream, number, seqs, most_bytes, self._clock.wall_ms())

    async def retained(self, topic_filter: str, after: str | None, most: int) -> tuple[list[Message], str | None]:
        """Last values in the order of topics, and the topic to go on after when there may be more than one answer holds."""
        names = {stats.number: name for name, stats in self.streams.items()}
        found: list[Message] = []
        room_bytes = PAGE_BYTES
        while len(found) < most and room_bytes > 0:
            page = await self._journal.read(
                self._journal.reader.retained, topic_filter, names, after, self._clock.wall_ms(), most - len(found)
            )
            found += page.messages
            room_bytes -= sum(len(message.payload) for message in page.messages)
            after = page.after
            if after is None:
                break
        return found, after

    async def seq_at(self, stream: str, time_ms: int) -> int:
        """The first message that arrived at `time_ms` or later; one beyond the head if none did."""
        stats = self.stream(stream)
        return await self._journal.read(self._journal.reader.seq_at, stats.number, time_ms, stats.first, stats.head)

    # --- live subscriptions -----------------------------------------------------------------------

    def subscribe(self, topic_filter: str, *, stream: str | None = None, after: int | None = None) -> Subscription:
        """Messages from now on, or after `after` of one stream. The caller ends it with `unsubscribe`. Raises NotFound, Busy."""
        if self._subscriptions >= SUBSCRIPTIONS_MAX:
            raise Busy("too_many_subscriptions", f"{SUBSCRIPTIONS_MAX} subscriptions are open already", "close some")
        if stream is not None:
            self.stream(stream)
        subscription = Subscription(self, topic_filter, stream)
        if stream is not None and after is not None and after < self.head(stream):
            subscription.start_after(stream, after)
        self._live.add(topic_filter, subscription)
        self._subscriptions += 1
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; twice is harmless."""
        if not subscription.is_closed:
            subscription.close()
            self._live.remove(subscription.topic_filter, subscription)
            self._subscriptions -= 1

    # --- durable consumers ------------------------------------------------------------------------

    def consumer(self, name: str) -> Consumer:
        """The consumer of this name. Raises NotFound(unknown_consumer)."""
        consumer = self.consumers.get(name)
        if consumer is None:
            raise NotFound(
                "unknown_consumer", f"there is no consumer {name!r}", "make it with PUT /v1/consumers/{name}", where="name"
            )
        return consumer

    async def make_consumer(self, terms: Terms, floor: int) -> bool:
        """Make the consumer, beginning after `floor`, or change one that stands; whether it is new. Raises NotFound, Conflict."""
        async with self._changing:
            known = self.consumers.get(terms.name)
            if known is None:
                await self._create(terms, floor)
                return True
            stands = known.ledger.terms
            if (stands.stream, stands.filter) != (terms.stream, terms.filter):
                raise Conflict(
                    "consumer_differs",
                    f"the consumer {terms.name!r} stands on stream {stands.stream!r} with filter {stands.filter!r}",
                    "delete it first, or use another name",
                )
            if stands != terms:
                await self._journal.submit(Change(known.ledger.number, terms))
            return False

    async def delete_consumer(self, name: str) -> None:
        """Remove the consumer with its cursor. Raises NotFound."""
        async with self._changing:
            await self._journal.submit(Delete(self.consumer(name).ledger.number))

    async def _create(self, terms: Terms, floor: int) -> None:
        for _ in range(COUNT_RETRIES_MAX):
            stats = self.stream(terms.stream)
            floor = min(max(floor, stats.first - 1), stats.head)
            matched, position = 0, floor
            while position < stats.head:
                rest = Range(terms.stream, stats.number, terms.filter, position, stats.head)
                counted = await self._journal.read(self._journal.reader.count, rest)
                matched += counted.matched
                position = counted.position
            try:
                await self._journal.submit(Create(terms, floor, stats.head, matched, stats.evictions))
            except Conflict as exc:
                if exc.code != "count_again":
                    raise
                continue
            return
        raise Busy(
            "busy",
            f"the stream {terms.stream!r} loses old messages faster than they can be counted",
            "start the consumer with 'new'",
        )

    # --- commits and time -------------------------------------------------------------------------

    def submit(self, job: Job) -> asyncio.Future[None]:
        """Put a consumer's job into the next commit."""
        return self._journal.submit(job)

    async def probe(self) -> None:
        """Return when the writer has made a turn after this call. Raises StoreError."""
        await self._journal.submit(Tick())

    async def tick(self) -> None:
        """Age, TTL, keys, dead letters: what time alone brings about. Raises StoreError."""
        await self.probe()
        for consumer in list(self.consumers.values()):
            try:
                await consumer.bury()
            except (NotFound, StoreFull):
                continue  # deleted meanwhile, or no room for its dead letters, which wait

    async def change_streams(self, streams: Sequence[StreamConfig], free_bytes: int) -> None:
        """Work with these streams from now on, with the store open: what was accepted before goes where it was routed.

        One that is not among them keeps its data, as at a start. Raises StoreError: nothing changed.
        """
        await self._journal.submit(Configure(streams, free_bytes))

    def _committed(self, jobs: list[Job], outcome: Outcome) -> None:
        self._absorb(outcome)
        if outcome.is_configured:
            for job in jobs:
                if isinstance(job, Configure) and job.error is None:
                    self._route_by(job.streams)  # only now: before it, a new stream is not there
        if len(self._live):
            for job in jobs:
                if isinstance(job, Publish) and job.error is None:
                    for part in job.parts:
                        self._fan_out(part)
                elif isinstance(job, Settle) and job.letters is not None and job.error is None:
                    self._fan_out(job.letters)
        self._watch(outcome, len(jobs))

    def _absorb(self, outcome: Outcome) -> None:
        self.streams.update(outcome.streams)
        for number, ledger in outcome.ledgers.items():
            consumer = self._by_number.get(number)
            if ledger is None:
                if consumer is not None:
                    consumer.deleted()
                    del self._by_number[number], self.consumers[consumer.ledger.terms.name]
            elif consumer is None:
                self._by_number[number] = self.consumers[ledger.terms.name] = Consumer(self, ledger, self._clock)
            else:
                consumer.committed(ledger)

    def _fan_out(self, part: Part) -> None:
        batch = part.batch
        match = self._live.match
        found = {topic: subscriptions for topic in set(batch.topics) if (subscriptions := match(topic))}
        if not found:
            return
        # A dead letter keeps its topic; only who asked for that stream takes it for news.
        is_letter = batch.origins is not None
        for i, topic in enumerate(batch.topics):
            subscriptions = found.get(topic, ())
            if not subscriptions or (part.repeats is not None and part.repeats[i]):
                continue
            message = Message(
                part.stream,
                part.seqs[i] if part.seqs is not None else part.first_seq + i,
                topic,
                part.time_ms,
                batch.content_type(i),
                batch.payloads[i],
                batch.source_us[i] if batch.source_us is not None else None,
                batch.expires_ms[i] if batch.expires_ms is not None else None,
                batch.origins[i] if batch.origins is not None else None,
            )
            for subscription in subscriptions:
                if not is_letter or subscription.stream is not None:
                    subscription.offer(message)


def all_streams(configured: Sequence[StreamConfig], built_in: Mapping[str, StreamConfig]) -> list[StreamConfig]:
    """The configured streams, and the built-in ones behind them: their topics are theirs unless another stream takes them."""
    given = {config.name: config for config in configured}
    own = [config for config in configured if config.name not in built_in]
    return [*own, *(replace(given.get(name, config), topics=config.topics) for name, config in built_in.items())]

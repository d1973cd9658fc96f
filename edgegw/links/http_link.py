"""A link: a durable consumer that posts what it gets to an HTTP upstream, for as long as it takes.

Four kinds of tasks share one `core.lanes.Lanes`, and nothing else:

    live reader      a live subscription → the live lane; straight from memory while the upstream keeps up
    backlog reader   the stream on disk → the backlog lane
    senders          a parcel at a time: body, request, verdict; at most `Congestion.window` of them at work
    recorder         what the upstream took → one `Settle` a second

What an answer means is `upstream.py`'s, when to try again `core.breaker`'s, how much at once `core.pacing`'s, what became of
each message `link_records.py`'s. A parcel that was not taken is kept and sent again under the same keys, so an upstream that
knows keys takes each message once. What a crash forgets is at most a second of records: those parcels go out again.

A parcel that was not taken a few times over is cut in halves, for a slow line or a small stream upstream may never take it
whole; requests grow again while they are answered quickly.

A message that the upstream refuses is found by halving its parcel, and becomes a dead letter. But an upstream that refuses
everything is taken for a link that is set up wrongly: after LINK_REFUSED_MAX of them nothing is thrown away any more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edgegw.bus import Bus
from edgegw.clock import Clock
from edgegw.conditions import Conditions
from edgegw.config import LinkConfig
from edgegw.consumer import LINK_CONSUMERS, Consumer
from edgegw.core.breaker import Breaker, BreakerState
from edgegw.core.cursor import Terms
from edgegw.core.lanes import Lane, Lanes, Parcel
from edgegw.core.pacing import Bucket, Congestion
from edgegw.core.record import Gap, Message
from edgegw.core.retry import Backoff
from edgegw.errors import StoreError
from edgegw.limits import (
    ACK_WAIT_S_DEFAULT,
    LINK_AHEAD_BLOCKS,
    LINK_AHEAD_BYTES,
    LINK_AHEAD_MESSAGES,
    LINK_AUTONOMY_S,
    LINK_BACKOFF_CAP_S,
    LINK_BACKOFF_FIRST_S,
    LINK_BATCH_BYTES,
    LINK_BATCH_BYTES_MIN,
    LINK_BREAK_AFTER,
    LINK_CUT_AFTER,
    LINK_HOLES_MAX,
    LINK_IDLE_S,
    LINK_RECORD_PARCELS,
    LINK_RECORD_S,
    LINK_REFUSED_MAX,
    LINK_REST_NUMBERS,
    LINK_REST_S,
    LINK_SKIP_MESSAGES,
    LINK_SKIP_S,
    LINK_UNRECORDED_MAX,
)
from edgegw.links.link_metrics import LinkMetrics
from edgegw.links.link_records import LinkRecords
from edgegw.links.parcel_body import ParcelBodies
from edgegw.links.upstream import Reply, Upstream, Verdict
from edgegw.observe.log import Log
from edgegw.subscription import Subscription

_log = Log(__name__)


def consumer_name(link: str) -> str:
    """The name of a link's consumer."""
    return f"{LINK_CONSUMERS}{link}"


class HttpLink:
    """One link, run as a service. `gateway` is the name of this gateway, `random01` its chance."""

    def __init__(
        self,
        config: LinkConfig,
        bus: Bus,
        clock: Clock,
        *,
        gateway: str,
        conditions: Conditions,
        metrics: LinkMetrics,
        random01: Callable[[], float],
    ) -> None:
        self._config = config
        self._gateway = gateway
        self._bus = bus
        self._clock = clock
        self._conditions = conditions
        self._metrics = metrics
        self._random01 = random01
        self._condition = f"upstream_{config.name}"
        self._autonomy = f"autonomy_{config.name}"
        self._breaker = Breaker(LINK_BREAK_AFTER, Backoff(LINK_BACKOFF_FIRST_S, LINK_BACKOFF_CAP_S))
        self._congestion = Congestion(config.concurrency_max)
        self._gone_since_s: float | None = None
        self._last = Reply(Verdict.TAKEN, "")

    def status(self) -> dict[str, object]:
        """How it does, for /v1/status."""
        consumer = self._bus.consumers.get(consumer_name(self._config.name))
        gone_s = 0.0 if self._gone_since_s is None else self._clock.mono_s() - self._gone_since_s
        return {
            "url": self._config.url.partition("?")[0],
            "stream": self._config.stream,
            "filter": self._config.filter,
            "state": str(self._breaker.state),
            "pending": 0 if consumer is None else consumer.ledger.pending,
            "window": self._congestion.window,
            "gone_s": round(gone_s, 3),
            "last_error": self._last.words if self._gone_since_s is not None else "",
        }

    def state(self) -> tuple[str, int, int, bool]:
        """Name, pending messages, window, and whether the upstream takes what is sent; for metrics."""
        consumer = self._bus.consumers.get(consumer_name(self._config.name))
        pending = 0 if consumer is None else consumer.ledger.pending
        return self._config.name, pending, self._congestion.window, self._gone_since_s is None

    async def run(self) -> None:
        """Send until cancelled. Raises ConfigError(bad_link), Conflict(consumer_differs), StoreError."""
        stored = self._bus.stream(self._config.stream).head  # what comes while a new consumer is counted is live already
        self._consumer = await self._take_consumer()
        self._consumer.owner = f"link {self._config.name}"
        sender = f"{self._gateway}/{self._bus.epoch}/{self._config.stream}"
        self._bodies = ParcelBodies(sender, self._consumer.ledger.number, self._config.prefix, self._config.format)
        now_s = self._clock.mono_s()
        self._messages_left = Bucket(self._config.messages_per_s, now_s)
        self._bytes_left = Bucket(self._config.bytes_per_s, now_s)
        self._again: deque[Parcel] = deque()
        self._inflight = self._live_inflight = self._refused = 0
        self._batch_bytes = self._batch_bytes_max = LINK_BATCH_BYTES
        self._changed = asyncio.Event()
        self._records = LinkRecords(self._bus, self._consumer, self._clock, self._config.name, self._metrics)
        self._breaker.withdraw()  # what a run that crashed had asked is not under way any more
        self._begin_lanes(stored)
        name = self._config.name
        self._conditions.declare(self._condition, required=False, text=f"the upstream of link {name} takes what is sent")
        self._conditions.declare(self._autonomy, required=False, text=f"the upstream of link {name} can be reached")
        upstream = Upstream(self._config, self._bus.epoch, lambda: self._clock.wall_ms() / 1000)
        try:
            await upstream.open()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_live())
                tasks.create_task(self._read_backlog())
                tasks.create_task(self._record())
                for _ in range(self._config.concurrency_max):
                    tasks.create_task(self._send(upstream))
        finally:
            self._bus.unsubscribe(self._live)
            self._consumer.owner = ""
            await upstream.close()
            self._conditions.withdraw(self._condition)
            self._conditions.withdraw(self._autonomy)
            with suppress(StoreError):
                await self._records.write()

    async def _take_consumer(self) -> Consumer:
        config = self._config
        name = consumer_name(config.name)
        stats = self._bus.stream(config.stream)
        floor = stats.head if config.start == "new" else stats.first - 1
        terms = Terms(name, config.stream, config.filter, max_inflight=1, ack_wait_s=ACK_WAIT_S_DEFAULT, max_deliver=1)
        await self._bus.make_consumer(terms, floor)
        return self._bus.consumer(name)

    def _begin_lanes(self, stored: int) -> None:
        ledger = self._consumer.ledger
        is_short = stored - ledger.floor <= LINK_SKIP_MESSAGES or not self._config.live_share
        live_from = ledger.floor if is_short else stored
        self._lanes = Lanes(ledger.floor, ledger.settled, live_from, self._config.live_share)
        self._live = self._bus.subscribe(self._config.filter, stream=self._config.stream, after=live_from)

    # --- readers ----------------------------------------------------------------------------------

    async def _read_live(self) -> None:
        """Nobody else moves the lane on: what was read and does not stand in it yet must not be passed over."""
        while True:
            if not self._lanes.has_live_room(LINK_AHEAD_MESSAGES, LINK_AHEAD_BYTES):
                await self._wait()
                continue
            live, items = self._live, await _items(self._live)
            for item in items:
                if isinstance(item, Gap) and item.reason == "ttl":
                    await self._expire_between(item.first - 1, item.last)
            if live is not self._live:
                continue  # the lane went on with what is newer; these are in a hole now
            if items:
                last = items[-1]
                wants = self._consumer.ledger.wants
                wanted = [item for item in items if isinstance(item, Message) and wants(item.seq)]
                self._lanes.add_live(wanted, last.seq if isinstance(last, Message) else last.last)
                self._notify()
            elif live.queued == (0, 0) and not live.lag:
                self._lanes.add_live((), self._bus.head(self._config.stream))

    async def _expire_between(self, after: int, upto: int) -> None:
        """A gap tells how many expired there, not which."""
        while after < upto:
            most = self._config.batch_messages_max
            found = await self._bus.blocks(self._config.stream, self._config.filter, after, upto, most, self._batch_bytes)
            await self._records.expire(found.expired)
            after = found.position

    async def _read_backlog(self) -> None:
        stream, topic_filter = self._config.stream, self._config.filter
        while True:
            span = self._lanes.next_read
            if span is None or not self._lanes.has_backlog_room(LINK_AHEAD_BLOCKS, LINK_AHEAD_BYTES):
                await self._wait()
                continue
            after, upto = span
            if after >= upto:  # read to its end: what is left of it goes with the last parcel, or has nothing to send
                if not self._lanes.backlog_queued:
                    self._rest()
                await self._wait()
                continue
            most = self._config.batch_messages_max
            found = await self._bus.blocks(stream, topic_filter, after, upto, most, self._batch_bytes)
            await self._records.expire(found.expired)
            self._lanes.add_backlog(found.blocks, found.position)
            self._notify()

    def _skip_if_behind(self) -> None:
        """Live data that is not live any more becomes backlog."""
        oldest_ms = self._lanes.live_oldest_ms
        head = self._bus.head(self._config.stream)
        if (
            oldest_ms is None
            or not self._config.live_share
            or head - self._lanes.live_first < LINK_SKIP_MESSAGES
            or self._clock.wall_ms() - oldest_ms < LINK_SKIP_S * 1000
            or self._lanes.holes >= LINK_HOLES_MAX
        ):
            return
        behind, self._live = self._live, self._bus.subscribe(self._config.filter, stream=self._config.stream)
        self._bus.unsubscribe(behind)
        self._lanes.skip_to(head)
        self._metrics.skips.labels(self._config.name).inc()
        self._notify()

    # --- senders ----------------------------------------------------------------------------------

    async def _send(self, upstream: Upstream) -> None:
        while True:
            parcel = await self._next()
            if not await self._drop_expired(parcel):
                self._breaker.withdraw()
                self._end_flight(parcel)
                continue
            messages = len(parcel)
            body = self._bodies.body(parcel, self._records.around(parcel), self._clock.wall_ms())
            self._messages_left.spend(messages)
            self._bytes_left.spend(len(body))
            started_s = self._clock.mono_s()
            parcel.tries += 1
            reply = await upstream.send(body, self._bodies.content_type, self._bodies.key(parcel))
            took_s = self._clock.mono_s() - started_s
            self._end_flight(parcel)
            name = self._config.name
            self._metrics.requests.labels(name, str(reply.verdict)).inc()
            self._metrics.sent_bytes.labels(name).inc(len(body))
            self._metrics.took.labels(name).observe(int(took_s * 1e6))
            is_full = messages >= self._config.batch_messages_max or len(body) >= self._batch_bytes // 2
            await self._judged(parcel, reply, took_s if is_full else None)
            self._notify()

    async def _next(self) -> Parcel:
        """The next parcel that may go; it counts as under way."""
        while True:
            now_s = self._clock.mono_s()
            wait_s = max(self._breaker.wait_s(now_s), self._messages_left.wait_s(now_s), self._bytes_left.wait_s(now_s))
            is_full = self._inflight >= self._congestion.window or self._records.unwritten >= LINK_UNRECORDED_MAX
            if wait_s > 0 or is_full or not self._breaker.admit(now_s):
                await self._wait(wait_s or LINK_IDLE_S)
                continue
            parcel = self._again.popleft() if self._again else self._fresh()
            if parcel is not None:
                self._inflight += 1
                self._live_inflight += parcel.lane is Lane.LIVE
                if self._lanes.backlog_queued or self._lanes.live_queued:
                    self._notify()  # another sender may have work as well
                return parcel
            self._breaker.withdraw()
            await self._wait()

    def _fresh(self) -> Parcel | None:
        self._skip_if_behind()
        most = self._config.batch_messages_max
        # A request for each live message would cost more than it brings: while one is under way they gather.
        is_live = not self._live_inflight or self._lanes.live_queued >= most
        return self._lanes.take(most, self._batch_bytes, live=is_live)

    def _end_flight(self, parcel: Parcel) -> None:
        self._inflight -= 1
        self._live_inflight -= parcel.lane is Lane.LIVE

    async def _judged(self, parcel: Parcel, reply: Reply, took_s: float | None) -> None:
        verdict = reply.verdict
        if verdict is Verdict.TAKEN:
            self._refused = 0
            self._answers()
            if took_s is not None:
                self._congestion.answered(took_s)
                if took_s < self._config.timeout_s / 4:  # twice as much would still be there in time
                    self._batch_bytes = min(self._batch_bytes_max, 2 * self._batch_bytes)
            self._metrics.messages.labels(self._config.name, "taken").inc(len(parcel))
            self._records.settle(parcel)
        elif verdict in (Verdict.SPLIT, Verdict.REFUSED) and len(parcel) > 1:
            self._breaker.succeed()
            if verdict is Verdict.SPLIT and parcel.size_bytes > self._batch_bytes // 2:
                self._batch_bytes = self._batch_bytes_max = max(LINK_BATCH_BYTES_MIN, self._batch_bytes // 2)
            self._again.extendleft(reversed(parcel.halves()))
        elif self._is_refusal(parcel, verdict):
            self._answers()
            await self._bury(parcel, reply)
        else:
            self._again.extend(self._cut(parcel, verdict))
            self._fails(reply)

    def _is_refusal(self, parcel: Parcel, verdict: Verdict) -> bool:
        """Whether it is this message that the upstream will not have, and not the link that is wrong."""
        if verdict is Verdict.SPLIT and parcel.size_bytes > LINK_BATCH_BYTES_MIN:
            return True  # too large for it: that says nothing of others, however many there are
        if verdict not in (Verdict.SPLIT, Verdict.REFUSED) or self._refused >= LINK_REFUSED_MAX:
            return False
        self._refused += 1
        return True

    def _cut(self, parcel: Parcel, verdict: Verdict) -> tuple[Parcel, ...]:
        """Halves of a parcel that may be too large to arrive; itself while that is not the reason."""
        is_spent = verdict in (Verdict.AGAIN, Verdict.GONE) and parcel.tries >= LINK_CUT_AFTER
        if not is_spent or len(parcel) < 2 or parcel.size_bytes <= LINK_BATCH_BYTES_MIN:
            return (parcel,)
        self._batch_bytes = max(LINK_BATCH_BYTES_MIN, min(self._batch_bytes, parcel.size_bytes // 2))
        return parcel.halves()

    def _answers(self) -> None:
        was_gone, self._gone_since_s = self._gone_since_s is not None, None
        if was_gone:
            _log.info("link.up", link=self._config.name)
        self._breaker.succeed()
        self._conditions.clear(self._condition)
        self._conditions.clear(self._autonomy)

    def _fails(self, reply: Reply) -> None:
        now_s = self._clock.mono_s()
        self._last = reply
        self._congestion.failed()
        before = self._breaker.state
        self._breaker.fail(now_s, self._random01(), reply.wait_s)
        if self._gone_since_s is None:
            self._gone_since_s = now_s
            _log.warning("link.down", link=self._config.name, verdict=str(reply.verdict), answer=reply.words)
        if reply.verdict in (Verdict.ASTRAY, Verdict.REFUSED, Verdict.SPLIT):
            self._conditions.raise_(
                self._condition, f"the upstream answers {reply.words}", "see url, token_file and format of the link"
            )
        elif before is not BreakerState.OPEN and self._breaker.state is BreakerState.OPEN:
            self._conditions.raise_(
                self._condition, f"no success: {reply.words}", "nothing is lost; the link goes on when it can"
            )

    def _look_after(self) -> None:
        """What time alone brings about."""
        if self._gone_since_s is not None and self._clock.mono_s() - self._gone_since_s >= LINK_AUTONOMY_S:
            self._conditions.raise_(
                self._autonomy,
                f"the upstream has been gone for {LINK_AUTONOMY_S / 60:g} minutes: {self._last.words}",
                "the gateway works on its own and keeps what it is to send",
            )

    # --- records ----------------------------------------------------------------------------------

    async def _record(self) -> None:
        """Settle what the upstream took, a few parcels at a time."""
        rested_s = recorded_s = self._clock.mono_s()
        while True:
            await self._wait(LINK_RECORD_S)
            now_s = self._clock.mono_s()
            self._look_after()
            if not self._lanes.live_queued:
                passed = self._lanes.live_position - self._lanes.live_first + 1
                if passed >= LINK_REST_NUMBERS or now_s - rested_s >= LINK_REST_S:
                    rested_s = now_s
                    self._rest()
            unwritten = self._records.unwritten
            if unwritten >= LINK_RECORD_PARCELS or (unwritten and now_s - recorded_s >= LINK_RECORD_S):
                recorded_s = now_s
                with suppress(StoreError):  # the condition `store` says so; it is tried again in a second
                    await self._records.write()
                    self._notify()

    def _rest(self) -> None:
        for parcel in self._lanes.rest():
            self._records.settle(parcel)

    async def _bury(self, parcel: Parcel, reply: Reply) -> None:
        assert parcel.block is not None
        topic, seq = parcel.block.topics[0], parcel.block.seqs[0]
        _log.warning("link.refused", link=self._config.name, topic=topic, seq=seq, answer=reply.words)
        await self._records.bury(parcel, f"http_{reply.status}")

    async def _drop_expired(self, parcel: Parcel) -> bool:
        """Whether anything is left to send once what is past its TTL is gone."""
        block = parcel.block
        if block is None:
            return False
        expired = block.expired(self._clock.wall_ms())
        if expired:
            gone = frozenset(expired)
            await self._records.expire([block.seqs[i] for i in expired])
            left = [i for i in range(len(block)) if i not in gone]
            parcel.block = block.only(left) if left else None
        if parcel.block is None:
            self._records.settle(parcel)
        return parcel.block is not None

    # --- waiting ----------------------------------------------------------------------------------

    def _notify(self) -> None:
        """Something changed: everybody looks again."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _wait(self, at_most_s: float = LINK_IDLE_S) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._changed.wait()


async def _items(live: Subscription) -> list[Message | Gap]:
    """What it has next; none when nothing came for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINK_IDLE_S):
            return await live.next()
    return []

"""A live subscription: everything once and in order, from memory while it keeps up and from disk when it does not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.config import StreamConfig
from edgegw.core.record import OCTETS, Batch, Gap, Message
from edgegw.errors import StoreError
from edgegw.limits import KIB, WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX
from edgegw.store.reader import Page
from edgegw.subscription import Subscription
from tests.bus_setup import open_bus


class Stored:
    """What a subscription reads back from: lists instead of a disk, and a step that may come in between."""

    def __init__(self) -> None:
        self.messages: dict[str, list[Message]] = {"a": [], "b": []}
        self.window_bytes = WINDOW_BYTES_MAX
        self.gone = 0
        self.reads = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.fault: Exception | None = None

    def commit(self, subscription: Subscription, stream: str = "a", payload: bytes = b"x") -> None:
        message = Message(stream, self.head(stream) + 1, "t", 0, OCTETS, payload)
        self.messages[stream].append(message)
        subscription.offer(message)

    def head(self, stream: str) -> int:
        return len(self.messages[stream])

    async def page(self, stream: str, topic_filter: str, after: int, most: int, most_bytes: int) -> Page:
        self.reads += 1
        assert topic_filter == "#"
        items: list[Message | Gap] = []
        if after < self.gone:
            items.append(Gap(stream, after + 1, self.gone, self.gone - after, "bytes"))
        found = [message for message in self.messages[stream] if message.seq > max(after, self.gone)][:most]
        position = found[-1].seq if found else self.head(stream)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.fault is not None:
            raise self.fault
        return Page([*items, *found], position, [])


def subscription_of(stored: Stored, stream: str | None = None) -> Subscription:
    return Subscription(stored, "#", stream)


def seqs(items: list[Message | Gap]) -> list[int]:
    return [item.seq for item in items if isinstance(item, Message)]


async def drained(subscription: Subscription, count: int) -> list[Message | Gap]:
    """The next `count` messages, with the gaps among them."""
    items: list[Message | Gap] = []
    while len(seqs(items)) < count:
        items += await asyncio.wait_for(subscription.next(), 20)
    return items


# --- keeping up -----------------------------------------------------------------------------------


async def test_who_keeps_up_reads_no_disk() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    for _ in range(WINDOW_MESSAGES_MAX):
        stored.commit(subscription)
    assert seqs(await subscription.next()) == list(range(1, WINDOW_MESSAGES_MAX + 1))
    assert (stored.reads, subscription.queued, subscription.lag) == (0, (0, 0), 0)


async def test_next_waits_for_a_message() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    stored.commit(subscription)
    assert seqs(await waiting) == [1]


async def test_only_the_stream_that_was_asked_for() -> None:
    stored = Stored()
    subscription = subscription_of(stored, "b")
    stored.commit(subscription, "a")
    stored.commit(subscription, "b")
    assert [item.stream for item in await subscription.next()] == ["b"]


# --- falling behind -------------------------------------------------------------------------------


async def test_who_falls_behind_gets_the_rest_from_disk_in_order() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    total = 3 * WINDOW_MESSAGES_MAX
    for _ in range(total):
        stored.commit(subscription)
    assert subscription.queued[0] == WINDOW_MESSAGES_MAX
    assert subscription.lag == 2 * WINDOW_MESSAGES_MAX
    assert seqs(await drained(subscription, total)) == list(range(1, total + 1))
    stored.commit(subscription)
    reads = stored.reads
    assert seqs(await subscription.next()) == [total + 1]
    assert stored.reads == reads  # it is live again


async def test_the_window_is_bounded_in_bytes_and_one_large_message_still_passes() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    stored.commit(subscription, payload=bytes(WINDOW_BYTES_MAX + 1))
    for _ in range(5):
        stored.commit(subscription, payload=bytes(WINDOW_BYTES_MAX // 3))
    assert subscription.queued == (1, WINDOW_BYTES_MAX + 2)
    assert seqs(await drained(subscription, 6)) == list(range(1, 7))
    for _ in range(5):
        stored.commit(subscription, payload=bytes(WINDOW_BYTES_MAX // 3 - 1))
    assert subscription.queued == (3, WINDOW_BYTES_MAX // 3 * 3)


async def test_long_topics_count_as_well() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    for seq in range(1, 20):
        subscription.offer(Message("a", seq, "t" * 65_000, 0, OCTETS, b""))
    assert subscription.queued[0] == WINDOW_BYTES_MAX // 65_000


async def test_what_comes_while_it_reads_is_neither_lost_nor_doubled() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    for _ in range(WINDOW_MESSAGES_MAX + 1):
        stored.commit(subscription)
    steps = iter([3, 0, 2])

    async def meanwhile() -> None:
        for _ in range(next(steps, 0)):
            stored.commit(subscription)

    stored.meanwhile = meanwhile
    total = WINDOW_MESSAGES_MAX + 1 + 3
    assert seqs(await drained(subscription, total)) == list(range(1, total + 1))
    stored.commit(subscription)
    assert seqs(await drained(subscription, 1)) == [total + 1]


async def test_one_stream_that_is_behind_does_not_hold_up_the_other() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    for _ in range(4 * WINDOW_MESSAGES_MAX):
        stored.commit(subscription, "a")
    await subscription.next()
    stored.commit(subscription, "b")
    assert [item.stream for item in await subscription.next()] == ["b"]
    for _ in range(4 * WINDOW_MESSAGES_MAX):
        stored.commit(subscription, "b")
    items = await drained(subscription, 7 * WINDOW_MESSAGES_MAX)
    for stream, first in (("a", WINDOW_MESSAGES_MAX + 1), ("b", 2)):
        found = [item.seq for item in items if isinstance(item, Message) and item.stream == stream]
        assert found == list(range(first, first + len(found)))


async def test_what_was_evicted_meanwhile_is_a_gap() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    for _ in range(WINDOW_MESSAGES_MAX + 20):
        stored.commit(subscription)
    stored.gone = WINDOW_MESSAGES_MAX + 10
    await subscription.next()
    items = await subscription.next()
    assert items[0] == Gap("a", WINDOW_MESSAGES_MAX + 1, WINDOW_MESSAGES_MAX + 10, 10, "bytes")
    assert len(items) == 11


async def test_a_read_that_fails_or_is_cancelled_leaves_its_place() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    stored.commit(subscription)
    subscription.start_after("a", 0)
    await subscription.next()
    stored.fault = StoreError("store_failed", "no")
    with pytest.raises(StoreError):
        await subscription.next()
    stored.fault = None
    stored.meanwhile = asyncio.Event().wait  # type: ignore[assignment]
    reading = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    stored.meanwhile = None
    assert seqs(await subscription.next()) == [1]


# --- the end --------------------------------------------------------------------------------------


async def test_close_ends_next_and_forgets() -> None:
    stored = Stored()
    subscription = subscription_of(stored)
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    subscription.close()
    assert await waiting == []
    assert await subscription.next() == []
    assert subscription.queued == (0, 0)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "next"]), st.integers(1, 700)), max_size=12))
def test_any_interleaving_gives_everything_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        stored = Stored()
        subscription = subscription_of(stored)
        items: list[Message | Gap] = []
        for what, count in steps:
            if what == "next":
                if subscription.queued[0] or subscription.lag:
                    items += await subscription.next()
            else:
                for _ in range(count):
                    stored.commit(subscription, what)
            assert subscription.queued[0] <= WINDOW_MESSAGES_MAX
        while subscription.queued[0] or subscription.lag or subscription._behind:
            items += await subscription.next()
        for stream in ("a", "b"):
            found = [item.seq for item in items if isinstance(item, Message) and item.stream == stream]
            assert found == list(range(1, stored.head(stream) + 1))

    asyncio.run(run())


async def test_on_a_real_store_with_a_hole_where_messages_were_evicted(tmp_path: Path) -> None:
    config = StreamConfig(name="s", topics=("s/#",), bytes_max=256 * KIB)
    async with open_bus(tmp_path, config) as bus:
        subscription = bus.subscribe("s/#", stream="s")
        for _ in range(WINDOW_MESSAGES_MAX // 100 + 3):
            await bus.publish_batch(Batch(["s/x"] * 100, [b"x" * 1000] * 100, OCTETS))
        head = bus.head("s")
        covered: list[int] = []
        while not covered or covered[-1] < head:
            for item in await asyncio.wait_for(subscription.next(), 20):
                covered += range(item.first, item.last + 1) if isinstance(item, Gap) else [item.seq]
        assert covered == list(range(1, head + 1))
        bus.unsubscribe(subscription)

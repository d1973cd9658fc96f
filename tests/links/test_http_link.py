"""The link against upstreams that take, refuse, hang, reset and lie: each message arrives once, or is accounted for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import Bus, Options
from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import LinkConfig, StreamConfig
from edgegw.core.cursor import Ledger
from edgegw.core.record import JSON, Message
from edgegw.errors import Conflict
from edgegw.limits import (
    LINK_AUTONOMY_S,
    LINK_BACKOFF_CAP_S,
    LINK_BATCH_BYTES_MIN,
    LINK_RECORD_S,
    LINK_REFUSED_MAX,
    LINK_SKIP_MESSAGES,
)
from edgegw.links.http_link import HttpLink, consumer_name
from edgegw.links.link_metrics import LinkMetrics
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from tests.bus_setup import HandClock, open_bus
from tests.links.upstream_server import (
    UpstreamServer,
    at_most,
    hangs,
    never_ends,
    refuses,
    resets,
    says,
    takes_a_while,
    upstream_server,
)  # fmt: skip

PATIENCE_S = 30.0


class AheadClock(SystemClock):
    """The machine's clock, moved forward by a test."""

    ahead_s = 0.0

    def mono_s(self) -> float:
        return super().mono_s() + self.ahead_s


class Site:
    """A bus with one link on it."""

    def __init__(self, bus: Bus, config: LinkConfig) -> None:
        self.bus = bus
        self.clock = AheadClock()
        self.conditions = Conditions(SystemClock(), Log("test"))
        self.metrics = Metrics()
        self.link = HttpLink(
            config, bus, self.clock, gateway="gw", conditions=self.conditions,
            metrics=LinkMetrics(self.metrics, lambda: [self.link.state()]), random01=lambda: 1.0,
        )  # fmt: skip

    @property
    def ledger(self) -> Ledger:
        """The link's record."""
        return self.bus.consumer(consumer_name("up")).ledger

    async def publish(self, *topics: str, payload: bytes = b"1") -> None:
        """One message each."""
        for topic in topics:
            await self.bus.publish(topic, payload)

    async def flood(self, count: int, topic: str = "t") -> None:
        """Many at once."""
        await asyncio.gather(*(self.bus.publish(topic, b"%d" % i) for i in range(count)))

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    await _pause()
        except TimeoutError:
            raise AssertionError(f"waited in vain until {what}: {self.link.status()}") from None

    async def settled(self) -> None:
        """Until nothing is pending."""
        await self.until(lambda: not self.ledger.pending and not self.ledger.settled, "all is settled")

    def metric(self, name: str) -> float:
        """A sample."""
        (line,) = [line for line in self.metrics.render().splitlines() if line.startswith(name + " ")]
        return float(line.rpartition(" ")[2])


async def _pause() -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.005, passed.set)
    await passed.wait()


@asynccontextmanager
async def linked(bus: Bus, **config: Any) -> AsyncIterator[Site]:
    """The link at work."""
    site = Site(bus, LinkConfig(name="up", **config))
    task = asyncio.create_task(site.link.run())
    try:
        await site.until(lambda: task.done() or consumer_name("up") in bus.consumers, "the link stands")
        yield site
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]


@asynccontextmanager
async def both(folder: Path, *streams: StreamConfig, **config: Any) -> AsyncIterator[tuple[Site, UpstreamServer]]:
    """A bus, its link, and the upstream."""
    async with (
        upstream_server() as upstream,
        open_bus(folder, *streams, clock=SystemClock()) as bus,
        linked(bus, url=upstream.url, **config) as site,
    ):
        yield site, upstream


async def test_messages_arrive_with_their_keys_times_and_types(tmp_path: Path) -> None:
    async with both(tmp_path, format="msgpack") as (site, upstream):
        await site.bus.publish("a/b", b'{"x": 1.50}', JSON, Options(source_us=1_700_000_000_000_000))
        await site.bus.publish("a/c", b"\xff\x00")
        await site.settled()
        first, second = upstream.entries.values()
        epoch = site.bus.epoch
        assert first == {
            "topic": "a/b", "payload": b'{"x": 1.50}', "content_type": JSON, "time": "2023-11-14T22:13:20.000Z",
            "key": f"gw/{epoch}/default/1",
        }  # fmt: skip
        assert second["payload"] == b"\xff\x00"
        assert upstream.requests[0]["Idempotency-Key"].startswith(f"gw/{epoch}/default/1-")
        assert site.ledger.acked == 2
        assert site.link.status()["state"] == "closed"


async def test_json_keeps_the_bytes_of_a_number_and_everything_else_as_base64(tmp_path: Path) -> None:
    async with both(tmp_path, format="json", prefix="plant/") as (site, upstream):
        await site.bus.publish("a", b"[1.50]", JSON)
        await site.bus.publish("b", b"not json", JSON)
        await site.settled()
        first, second = upstream.entries.values()
        assert (first["topic"], first["payload"]) == ("plant/a", [1.5])
        assert second["payload_b64"] == "bm90IGpzb24="


async def test_only_what_the_filter_matches_goes_and_the_rest_holds_nothing_up(tmp_path: Path) -> None:
    async with both(tmp_path, filter="want/#") as (site, upstream):
        await site.publish("want/1", "other", "want/2", "other")
        await site.settled()
        assert upstream.topics() == ["want/1", "want/2"]
        assert (site.ledger.matched, site.ledger.acked) == (2, 2)


async def test_a_backlog_goes_out_and_live_data_goes_first(tmp_path: Path) -> None:
    backlog = 4 * LINK_SKIP_MESSAGES
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        for _ in range(8):
            await asyncio.gather(*(bus.publish("old", b"x") for _ in range(backlog // 8)))
        async with linked(bus, url=upstream.url, batch_messages_max=100, concurrency_max=1) as site:
            await site.until(lambda: bool(upstream.entries), "it begins")
            await site.publish("new")
            await site.until(lambda: "new" in upstream.topics(), "live data is there")
            assert len(upstream.entries) < backlog, "before the backlog is through"
            await site.settled()
            assert upstream.seqs().index(backlog + 1) < backlog - 1
            assert sorted(upstream.seqs()) == list(range(1, backlog + 2))
            assert (upstream.repeats, site.ledger.acked) == (0, backlog + 1)


async def test_strict_order_when_it_is_asked_for(tmp_path: Path) -> None:
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        await asyncio.gather(*(bus.publish("t", b"x") for _ in range(3 * LINK_SKIP_MESSAGES)))
        async with linked(bus, url=upstream.url, live_share=0.0, concurrency_max=1) as site:
            await site.flood(500)
            await site.settled()
            assert upstream.seqs() == list(range(1, 3 * LINK_SKIP_MESSAGES + 501))


async def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        async with linked(bus, url=upstream.url) as site:
            await site.flood(50)
            await site.settled()
        await site.publish("while/away")
        async with linked(bus, url=upstream.url) as site:
            await site.settled()
        assert sorted(upstream.seqs()) == list(range(1, 52))
        assert upstream.repeats == 0
        bus.consumer("link.up")


MISHAPS = {
    "500": says(500),
    "502 with HTML": says(502, "<html>bad gateway</html>"),
    "503 with Retry-After": says(503, Retry_After="0"),
    "429 with Retry-After": says(429, Retry_After="1"),
    "408": says(408),
    "200 with HTML": says(200, "<html>please log in</html>", Content_Type="text/html"),
    "taken, then reset": resets,
    "taken, then 500": says(500, keeps=True),
    "redirect": says(302, Location="http://127.0.0.1:1/"),
}


@pytest.mark.parametrize("name", MISHAPS)
async def test_a_mishap_costs_a_wait_and_no_message(name: str, tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.answers = [MISHAPS[name]]
        await site.publish("a", "b", "c")
        await site.settled()
        assert sorted(upstream.topics()) == ["a", "b", "c"]
        assert site.ledger.acked == 3
        assert site.link.status()["gone_s"] == 0


async def test_an_upstream_that_hangs_is_given_up_on_and_asked_again(tmp_path: Path) -> None:
    async with both(tmp_path, timeout_s=1.0) as (site, upstream):
        upstream.answers = [hangs]
        await site.publish("a")
        await site.settled()
        assert upstream.topics() == ["a"]


async def test_an_answer_that_never_ends_is_believed_by_its_status(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.answers = [never_ends]
        await site.publish("a")
        await site.settled()
        assert (upstream.topics(), upstream.repeats) == (["a"], 0)


async def test_requests_shrink_to_what_the_upstream_takes(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = at_most(3)
        await site.flood(40)
        await site.settled()
        assert sorted(upstream.seqs()) == list(range(1, 41))
        assert site.ledger.dead_lettered == 0


async def test_one_bad_message_is_found_and_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = refuses("bad")
        await asyncio.gather(*(site.bus.publish("bad" if i == 17 else "good", b"x") for i in range(40)))
        await site.settled()
        assert upstream.topics() == ["good"] * 39
        ledger = site.ledger
        assert (ledger.matched, ledger.acked, ledger.dead_lettered) == (40, 39, 1)
        page = await site.bus.page("dead-letter", "#", 0, 10, 1000)
        (letter,) = [item for item in page.items if isinstance(item, Message)]
        assert letter.topic == "bad" and letter.origin is not None
        assert (letter.origin.consumer, letter.origin.reason) == ("link.up", "http_400")


async def test_a_message_too_large_for_the_upstream_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = at_most(0)
        await site.publish("huge")
        await site.settled()
        assert site.ledger.dead_lettered == 1


async def test_any_number_of_large_messages_may_be_too_large(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = at_most(0)
        large = LINK_REFUSED_MAX + 5
        await asyncio.gather(*(site.bus.publish("huge", bytes(LINK_BATCH_BYTES_MIN)) for _ in range(large)))
        await site.settled()
        assert site.ledger.dead_lettered == large
        assert not site.conditions.is_raised("upstream_up")


async def test_an_upstream_that_refuses_everything_is_not_fed_the_whole_backlog(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = says(400)
        await site.flood(100)
        await site.until(lambda: site.conditions.is_raised("upstream_up"), "it says so")
        assert site.ledger.dead_lettered == LINK_REFUSED_MAX
        upstream.always = refuses("none")
        await site.settled()
        assert site.ledger.acked == 100 - LINK_REFUSED_MAX
        assert not site.conditions.is_raised("upstream_up")


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_link_that_is_set_up_wrongly_says_so_and_loses_nothing(status: int, tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.answers = [says(status, "who are you?")] * 2
        await site.publish("a")
        await site.until(lambda: site.conditions.is_raised("upstream_up"), "it says so")
        (told,) = [c for c in site.conditions.snapshot() if c["name"] == "upstream_up"]
        assert f"{status} who are you?" in str(told["what"])
        await site.settled()
        assert upstream.topics() == ["a"]


async def test_an_upstream_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    async with open_bus(tmp_path, clock=SystemClock()) as bus:
        async with upstream_server() as upstream:
            port, url = upstream.port, upstream.url
        async with linked(bus, url=url) as site:
            await site.flood(20)
            await site.until(lambda: site.conditions.is_raised("upstream_up"), "the breaker opens")
            site.clock.ahead_s = LINK_AUTONOMY_S - 20
            looked = site.clock.mono_s()
            await site.until(lambda: site.clock.mono_s() > looked + 2 * LINK_RECORD_S, "it has looked again")
            assert not site.conditions.is_raised("autonomy_up"), "14 minutes 40 seconds"
            site.clock.ahead_s = LINK_AUTONOMY_S
            await site.until(lambda: site.conditions.is_raised("autonomy_up"), "the gateway knows that it is alone")
            assert site.metric('edgegw_link_up{link="up"}') == 0
            site.clock.ahead_s = LINK_AUTONOMY_S + LINK_BACKOFF_CAP_S
            async with upstream_server(port) as upstream:
                await site.settled()
                assert len(upstream.entries) == 20
            assert not site.conditions.is_raised("autonomy_up")
            assert not site.conditions.is_raised("upstream_up")


async def test_what_expires_on_the_way_is_counted_as_lost(tmp_path: Path) -> None:
    clock = HandClock()
    clock.wall = SystemClock().wall_ms()
    async with upstream_server() as upstream, open_bus(tmp_path, clock=clock) as bus:
        upstream.always = says(500)
        async with linked(bus, url=upstream.url) as site:
            await bus.publish("fleeting", b"x", options=Options(ttl_s=0.05))
            await bus.publish("lasting", b"x", options=Options(ttl_s=3600))
            await site.until(lambda: len(upstream.requests) >= 2, "it tried")
            clock.pass_s(1)
            upstream.always = refuses("none")
            await site.settled()
            assert upstream.topics() == ["lasting"]
            assert (site.ledger.acked, site.ledger.lost) == (1, {"ttl": 1})


async def test_rates_hold(tmp_path: Path) -> None:
    async with both(tmp_path, messages_per_s=200, batch_messages_max=20) as (site, _):
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await site.flood(500)
        await site.settled()
        assert loop.time() - started_s > 1.2, "500 messages at 200 a second, one second's worth and a batch at once"


async def test_more_at_once_when_the_upstream_bears_it(tmp_path: Path) -> None:
    async with both(tmp_path, batch_messages_max=10, concurrency_max=4) as (site, upstream):
        upstream.always = takes_a_while
        await site.flood(1000)
        await site.settled()
        assert 1 < upstream.busy_most <= 4


async def test_a_consumer_of_that_name_on_another_filter_is_told(tmp_path: Path) -> None:
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        async with linked(bus, url=upstream.url) as site:
            await site.until(lambda: "link.up" in bus.consumers, "it stands")
            assert bus.consumer("link.up").owner == "link up"
        with pytest.raises(Conflict, match="stands on stream"):
            await Site(bus, LinkConfig(name="up", url=upstream.url, filter="a")).link.run()


async def test_live_data_that_cannot_keep_up_goes_on_with_the_newest(tmp_path: Path) -> None:
    async with both(tmp_path, batch_messages_max=500) as (site, upstream):
        upstream.always = says(500)
        await site.flood(3 * LINK_SKIP_MESSAGES)
        await site.until(lambda: len(upstream.requests) >= 3, "it tries")
        clock_ms = SystemClock().wall_ms()
        await site.until(lambda: SystemClock().wall_ms() > clock_ms + 1500, "time passes")
        upstream.always = refuses("none")
        await site.flood(10, "new")
        await site.until(lambda: "new" in upstream.topics(), "the newest are there")
        assert site.metric('edgegw_link_skips_total{link="up"}') >= 1
        await site.settled()
        assert sorted(upstream.seqs()) == list(range(1, 3 * LINK_SKIP_MESSAGES + 11))

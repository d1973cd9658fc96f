"""What a link does when time, disk, line and upstream are against it: nothing is passed over, nothing waits for ever."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgegw.bus import Options
from edgegw.clock import SystemClock
from edgegw.config import LinkConfig
from edgegw.core.record import Message
from edgegw.errors import StoreError
from edgegw.limits import KIB, LINK_CUT_AFTER
from edgegw.links import http_link
from edgegw.store.jobs import Settle
from tests.bus_setup import HandClock, open_bus
from tests.links.test_http_link import Site, _pause, both, linked
from tests.links.upstream_server import UpstreamServer, refuses, resets, says, taken, upstream_server


class Gate:
    """An upstream that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    async def __call__(self, server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> Any:
        """Wait, then take."""
        await self.is_open.wait()
        return await taken(server, request, entries)


async def test_what_expired_before_the_live_lane_read_it_is_counted(tmp_path: Path) -> None:
    clock = HandClock()
    clock.wall = SystemClock().wall_ms()
    async with upstream_server() as upstream, open_bus(tmp_path, clock=clock) as bus:
        for ttl_s in (3600, 1, 1, 3600, 1):
            await bus.publish("t", b"x", options=Options(ttl_s=ttl_s))
        clock.pass_s(2)
        async with linked(bus, url=upstream.url) as site:
            await site.settled()
            assert (site.ledger.acked, site.ledger.lost) == (2, {"ttl": 3})
        assert upstream.seqs() == [1, 4]


async def test_what_was_read_and_waits_for_room_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parcel empties the lane and is slow: what the reader still has in hand must not be taken for nothing to send."""
    monkeypatch.setattr(http_link, "LINK_AHEAD_MESSAGES", 10)
    monkeypatch.setattr(http_link, "LINK_REST_NUMBERS", 1)
    monkeypatch.setattr(http_link, "LINK_RECORD_S", 0.01)
    # The sender waits for its rate, so that nobody wakes the reader when it goes on.
    async with both(tmp_path, concurrency_max=1, messages_per_s=60) as (site, upstream):
        await site.flood(90)
        await site.until(lambda: len(upstream.entries) == 90, "the first are taken")
        gate = upstream.always = Gate()
        await site.flood(20)
        await site.flood(20)
        await site.until(lambda: upstream.busy == 1, "the next are under way")
        for _ in range(20):
            await _pause()
        gate.is_open.set()
        await site.settled()
        assert sorted(upstream.seqs()) == list(range(1, 131))
        assert site.ledger.acked == 130


async def test_a_run_that_ended_while_it_asked_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_link, "LINK_BACKOFF_FIRST_S", 0.01)
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        site = Site(bus, LinkConfig(name="up", url=upstream.url))
        upstream.answers = [says(500)] * 3
        gate = upstream.always = Gate()
        await bus.publish("t", b"x")
        run = asyncio.create_task(site.link.run())
        await site.until(lambda: str(site.link.status()["state"]) == "half-open" and upstream.busy == 1, "one request finds out")
        run.cancel()
        await asyncio.wait({run})
        gate.is_open.set()
        run = asyncio.create_task(site.link.run())
        await site.settled()
        run.cancel()
        await asyncio.wait({run})
        assert upstream.topics() == ["t"]


async def test_a_request_that_never_gets_through_is_cut_until_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow line, a proxy with bounds of its own, a small stream upstream: none of them says 413."""
    monkeypatch.setattr(http_link, "LINK_BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(http_link, "LINK_BACKOFF_CAP_S", 0.002)

    async def chokes(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> Any:
        size_bytes = sum(len(entry["payload"]) for entry in entries)
        if size_bytes > 32 * KIB:
            return web.Response(status=503)
        return await taken(server, request, entries)

    async with both(tmp_path) as (site, upstream):
        upstream.always = chokes
        for _ in range(4):
            await asyncio.gather(*(site.bus.publish("t", bytes(2000)) for _ in range(100)))
        await site.settled()
        assert sorted(upstream.seqs()) == list(range(1, 401))
        assert site.ledger.dead_lettered == 0
        failed = sum(1 for _ in upstream.requests) - len(upstream.entries) // 16
        assert failed >= LINK_CUT_AFTER


async def test_a_store_that_cannot_record_stops_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_link, "LINK_UNRECORDED_MAX", 3)
    monkeypatch.setattr(http_link, "LINK_RECORD_PARCELS", 2)
    async with both(tmp_path, batch_messages_max=1, concurrency_max=2) as (site, upstream):
        submit = site.bus.submit

        def fails(job: Any) -> Any:
            if isinstance(job, Settle):
                raise StoreError("store_failed", "the disk is full")
            return submit(job)

        with monkeypatch.context() as full:
            full.setattr(site.bus, "submit", fails)
            await site.flood(50)
            await site.until(lambda: len(upstream.entries) >= 3, "some are taken")
            for _ in range(60):
                await _pause()
            assert len(upstream.entries) <= 5, "what was taken and is not recorded would come again after a crash"
        await site.settled()
        assert (sorted(upstream.seqs()), upstream.repeats) == (list(range(1, 51)), 0)


async def test_a_dead_letter_that_is_refused_does_not_come_round_for_ever(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.always = refuses("bad")
        await site.publish("bad")
        await site.settled()
        assert site.bus.head("dead-letter") == 1
        async with upstream_server() as other:
            other.always = refuses("bad")
            letters = Site(site.bus, LinkConfig(name="letters", url=other.url, stream="dead-letter"))
            run = asyncio.create_task(letters.link.run())
            name = "link.letters"
            await site.until(lambda: name in site.bus.consumers and not site.bus.consumer(name).ledger.pending, "it is refused")
            run.cancel()
            await asyncio.wait({run})
            assert site.bus.consumer(name).ledger.dead_lettered == 1
            assert site.bus.head("dead-letter") == 1, "it stands there already"
            page = await site.bus.page("dead-letter", "#", 0, 10, 1000)
            assert [item.topic for item in page.items if isinstance(item, Message)] == ["bad"]


@pytest.mark.parametrize("form", ["columns", "msgpack", "json"])
async def test_a_prefix_that_changes_while_an_answer_is_lost(form: str, tmp_path: Path) -> None:
    async with upstream_server() as upstream, open_bus(tmp_path, clock=SystemClock()) as bus:
        upstream.answers = [resets]
        upstream.always = says(500)
        async with linked(bus, url=upstream.url, prefix="a/", format=form) as site:
            await site.publish("t")
            await site.until(lambda: len(upstream.requests) > 1, "the answer is lost")
        upstream.always = refuses_other_topics
        async with linked(bus, url=upstream.url, prefix="b/", format=form) as site:
            await site.publish("u")
            await site.settled()
            assert (site.ledger.acked, site.ledger.dead_lettered) == (2, 0)
        assert "b/u" in upstream.topics()


async def refuses_other_topics(server: UpstreamServer, request: web.BaseRequest, entries: list[dict[str, Any]]) -> Any:
    """As a gateway does: a key stands for one message. Columns have none: what came is not looked at."""
    for entry in entries:
        before = server.entries.get(entry["key"])
        if before is not None and before["topic"] != entry["topic"] and "columns" not in request.content_type:
            return web.json_response({"code": "key_reused"}, status=422)
    return await taken(server, request, entries)


async def test_rates_hold_for_bytes(tmp_path: Path) -> None:
    async with both(tmp_path, bytes_per_s=20_000, batch_messages_max=10) as (site, _):
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        for _ in range(60):
            await site.bus.publish("t", bytes(1000))
        await site.settled()
        assert loop.time() - started_s > 1.4, "60 KB at 20 KB a second, one second's worth and a batch at once"


async def test_a_wait_that_was_asked_for_is_kept_though_others_succeed(tmp_path: Path) -> None:
    async with both(tmp_path) as (site, upstream):
        upstream.answers = [says(429, Retry_After="1")]
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await site.publish("a")
        await site.until(lambda: bool(upstream.entries), "it is taken")
        assert loop.time() - started_s >= 1

"""Batches of other gateways at the API: each topic is one that the caller may use, and a range that came is not stored again."""

import json

import msgpack
import pytest

from edgegw.core import columns
from edgegw.core.access import PUBLISH
from edgegw.core.block import Block
from edgegw.core.columns import CONTENT_TYPE, SENDER
from edgegw.core.record import OCTETS
from edgegw.store import producers
from tests.api.in_process import Api, Reply

NOW_MS = 1_800_000_000_000


def body(*topics: str, first: int = 1) -> bytes:
    """One message each, numbered from `first`."""
    count = len(topics)
    seqs = list(range(first, first + count))
    block = Block(seqs, list(topics), [OCTETS] * count, [b"%d" % seq for seq in seqs], [NOW_MS * 1000] * count)
    return columns.encode("gw/1.1/default/1", first, seqs[-1], block, NOW_MS)


async def post(api: Api, content: bytes, **headers: str) -> Reply:
    return await api.request("POST", "/v1/messages", content, Content_Type=CONTENT_TYPE, **headers)


async def test_a_batch_that_comes_twice_is_stored_once(api: Api) -> None:
    for status, repeats in ((201, 0), (200, 2)):
        reply = await post(api, body("a", "b"))
        assert (reply.status, reply.json) == (status, {"count": 2, "repeats": repeats, "class": "power"})
    assert await api.payloads() == [b"1", b"2"]
    reply = await post(api, body("a", "b", "c", first=2))
    assert (reply.status, reply.json["repeats"]) == (201, 1)
    assert await api.payloads() == [b"1", b"2", b"3", b"4"]


async def test_every_topic_must_be_the_callers(api: Api) -> None:
    _, secret = await api.callers.create("narrow", (PUBLISH,), ("plant/#",), None)
    asks = {"Authorization": f"Bearer {secret}"}
    assert (await post(api, body("plant/a", "plant/b"), **asks)).status == 201
    reply = await post(api, body("plant/a", "office/b", "plant/c", first=3), **asks)
    assert (reply.status, reply.json["code"]) == (403, "not_allowed")
    assert "office/b" in reply.json["detail"]
    assert await api.payloads() == [b"1", b"2"], "all or nothing"
    assert (await post(api, body("plant/a", first=3), **asks)).json["repeats"] == 0, "what was refused is not remembered"


@pytest.mark.parametrize("topic", ["$SYS/x", "a/+", "", "a\0b", "a" * 70_000])
async def test_a_topic_that_is_none_refuses_the_batch(api: Api, topic: str) -> None:
    reply = await post(api, body("fine", topic))
    assert (reply.status, reply.json["code"], reply.json["where"]) == (400, "bad_topic", "[1].topic")
    assert await api.payloads() == []


async def test_an_origin_with_many_ranges_is_told_and_may_close_its_gaps(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCER_RUNS_MAX", 3)
    for first in (1, 3, 5):
        assert (await post(api, body("a", first=first))).status == 201
    reply = await post(api, body("a", first=7))
    assert (reply.status, reply.json["code"]) == (409, "too_many_ranges")
    assert (await post(api, body("a", first=2))).status == 201
    assert (await post(api, body("a", first=7))).status == 201


async def test_a_link_that_posts_to_its_own_gateway_is_told(api: Api) -> None:
    asks = {SENDER.replace("-", "_"): api.bus.epoch}
    reply = await post(api, body("a"), **asks)
    assert (reply.status, reply.json["code"]) == (508, "link_loop")
    content = json.dumps([{"topic": "a", "payload": 1}]).encode()
    reply = await api.request("POST", "/v1/messages", content, Content_Type="application/json", **asks)
    assert (reply.status, reply.json["code"]) == (508, "link_loop")
    assert await api.payloads() == []
    assert (await post(api, body("a"), **{SENDER.replace("-", "_"): "another"})).status == 201


async def test_a_body_that_would_fill_the_memory_is_refused(api: Api) -> None:
    hostile = b"\x9c\x01" + b"\x9b" * 90_000 + b"\x90" * 990_000
    reply = await post(api, hostile)
    assert (reply.status, reply.json["code"]) == (400, "bad_batch")
    reply = await post(api, msgpack.packb([1, "o", 1, 2**48, [1, 2**40], ["t"], 0, ["a"], 0, [b""], [2**40, 0], None]))
    assert (reply.status, reply.json["code"]) == (400, "bad_batch")

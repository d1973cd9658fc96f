"""What the routes do when all goes well, when the store is full, and when it is behind."""

import asyncio
import json
import re
import sqlite3
from typing import Any

import msgpack
import pytest

from edgegw.api.bodies import MSGPACK, NDJSON
from edgegw.config import StreamConfig
from edgegw.limits import QUEUE_BYTES_MAX, STREAM_BYTES_MIN
from tests.api.in_process import Api, Reply, pause, running, until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
RECEIPT = {"stream": "default", "class": "power"}


def balances(ledger: dict[str, Any]) -> bool:
    """received = stored + removed."""
    return bool(ledger["received"] == ledger["stored"] + sum(ledger["removed"].values()))


# --- state --------------------------------------------------------------------------------------


async def test_healthz(api: Api) -> None:
    reply = await api.request("GET", "/healthz")
    assert (reply.status, reply.body) == (200, b"")
    api.is_healthy = False
    reply = await api.request("GET", "/healthz")
    assert (reply.status, reply.body) == (503, b"")


async def test_readyz(api: Api) -> None:
    reply = await api.request("GET", "/readyz")
    assert (reply.status, reply.json["conditions"][0]["name"]) == (200, "store")
    api.conditions.raise_("store", "no disk")
    reply = await api.request("GET", "/readyz")
    assert (reply.status, reply.json["conditions"][0]["what"]) == (503, "no disk")


async def test_metrics(api: Api) -> None:
    await api.request("POST", "/v1/topics/a", b"1")
    reply = await api.request("GET", "/metrics")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'\nedgegw_stream_received_total{stream="default"} 1\n' in reply.body


async def test_status(api: Api) -> None:
    assert (await api.stream())["last"] is None
    await api.send_json("PUT", "/v1/consumers/reader", {"filter": "a"})
    for topic in ("a", "b"):
        await api.request("POST", f"/v1/topics/{topic}", b"1")
    status = (await api.request("GET", "/v1/status")).json
    assert sorted(status["streams"]) == ["dead-letter", "default", "host"]
    ledger = status["streams"]["default"]
    assert [ledger[name] for name in ("received", "stored", "rows", "first", "last")] == [2, 2, 2, 1, 2]
    assert balances(ledger)
    assert 0 <= ledger["oldest_age_s"] < 60
    consumer = status["consumers"]["reader"]
    assert [consumer[name] for name in ("matched", "acked", "pending", "dead_lettered", "lost")] == [1, 0, 1, 0, {}]
    assert [condition["name"] for condition in status["conditions"]] == [
        "store", "stream_default", "stream_dead-letter", "stream_host",
    ]  # fmt: skip


# --- publish ------------------------------------------------------------------------------------


async def test_a_receipt(api: Api) -> None:
    reply = await api.request("POST", "/v1/topics/a/b", b"21.5", Content_Type="text/plain")
    assert (reply.status, reply.json) == (201, {**RECEIPT, "seq": 1})
    assert reply.headers["content-type"] == "application/json"
    found = (await api.rows())[0]
    assert TIME.fullmatch(found.pop("time"))
    assert found == {"stream": "default", "seq": 1, "topic": "a/b", "content_type": "text/plain", "payload": "21.5"}


async def test_no_body_and_no_type(api: Api) -> None:
    assert (await api.request("POST", "/v1/topics/a")).status == 201
    found = (await api.rows())[0]
    assert (found["payload"], found["content_type"]) == ("", "application/octet-stream")


async def test_a_class_below_the_streams_is_raised(api: Api) -> None:
    for wanted in ("memory", "crash", "power"):
        assert (await api.request("POST", "/v1/topics/a", b"1", Edgegw_Class=wanted)).json["class"] == "power"


async def test_the_producers_time(api: Api) -> None:
    await api.request("POST", "/v1/topics/a", b"1", Edgegw_Time="2004-03-10T19:00:00.000001+01:00")
    await api.send_json("POST", "/v1/messages", [{"topic": "a", "payload": 1, "time": "2004-03-10T18:00:00Z"}])
    assert [found["source_time"] for found in await api.rows()] == ["2004-03-10T18:00:00.000001Z", "2004-03-10T18:00:00.000Z"]


async def test_a_key_is_stored_once(api: Api) -> None:
    first = await api.request("POST", "/v1/topics/a", b"1", Idempotency_Key="k")
    again = await api.request("POST", "/v1/topics/a", b"1", Idempotency_Key="k")
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json == {**RECEIPT, "seq": 1}
    assert await api.payloads() == [b"1"]
    assert (await api.stream())["received"] == 1


async def test_the_same_key_at_once(api: Api) -> None:
    wires = [await api.wire() for _ in range(20)]
    replies = await asyncio.gather(*(wire.request("POST", "/v1/topics/a", b"1", Idempotency_Key="k") for wire in wires))
    assert sorted(reply.status for reply in replies) == [200] * 19 + [201]
    assert {reply.json["seq"] for reply in replies} == {1}
    assert await api.payloads() == [b"1"]


async def test_many_at_once_get_numbers_without_gaps(api: Api) -> None:
    wires = [await api.wire() for _ in range(50)]

    async def publish(at: int) -> list[int]:
        return [(await wires[at].request("POST", f"/v1/topics/{at}", b"%d" % i)).json["seq"] for i in range(10)]

    found = await asyncio.gather(*map(publish, range(50)))
    assert all(seqs == sorted(seqs) for seqs in found)
    assert sorted(seq for seqs in found for seq in seqs) == list(range(1, 501))
    for row in await api.rows():
        assert found[int(row["topic"])][int(row["payload"])] == row["seq"]


# --- batches ------------------------------------------------------------------------------------

ENTRIES: list[dict[str, Any]] = [
    {"topic": "a", "payload": 1},
    {"topic": "b", "payload": {"x": [None]}},
    {"topic": "a", "payload": "ü"},
]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", json.dumps(ENTRIES).encode()),
        ("application/json; charset=utf-8", json.dumps(ENTRIES, ensure_ascii=False).encode()),
        (MSGPACK, msgpack.packb(ENTRIES)),
        (NDJSON, b"\n".join(json.dumps(entry).encode() for entry in ENTRIES)),
    ],
)
async def test_a_batch(api: Api, kind: str, body: bytes) -> None:
    reply = await api.request("POST", "/v1/messages", body, Content_Type=kind)
    assert (reply.status, reply.json) == (201, {**RECEIPT, "first": 1, "last": 3, "count": 3})
    rows = await api.rows()
    assert [{"topic": row["topic"], "payload": row["payload"]} for row in rows] == ENTRIES
    assert {row["content_type"] for row in rows} == {"application/json"}


STREAMS = (StreamConfig(name="alarms", topics=("alarm/#",)), StreamConfig(name="tele", topics=("tele/+", "alarm/tele")))


async def test_a_batch_for_several_streams() -> None:
    async with running(*STREAMS) as api:
        topics = ["tele/1", "x", "alarm/tele", "tele/2", "tele/1/x", "alarm"]
        reply = await api.send_json("POST", "/v1/messages", [{"topic": topic, "payload": topic} for topic in topics])
        assert reply.status == 201
        shares = {share["stream"]: (share["first"], share["last"], share["count"]) for share in reply.json}
        assert shares == {"alarms": (1, 2, 2), "default": (1, 2, 2), "tele": (1, 2, 2)}
        for stream, expected in (
            ("alarms", ["alarm/tele", "alarm"]),
            ("tele", ["tele/1", "tele/2"]),
            ("default", ["x", "tele/1/x"]),
        ):
            assert [row["payload"] for row in await api.rows(f"stream={stream}&after=0")] == expected


async def test_one_bad_entry_and_no_stream_has_anything() -> None:
    async with running(*STREAMS) as api:
        entries = [{"topic": "tele/1", "payload": 1}, {"topic": "x", "payload": 1}, {"topic": "alarm/+", "payload": 1}]
        reply = await api.send_json("POST", "/v1/messages", entries)
        assert (reply.status, reply.json["where"]) == (400, "[2].topic")
        for stream in ("alarms", "tele", "default"):
            assert (await api.stream(stream))["received"] == 0


async def test_repeats_in_a_batch(api: Api) -> None:
    entries = [{"topic": "a", "payload": i, "key": f"k{i}"} for i in range(3)]
    assert (await api.send_json("POST", "/v1/messages", entries[1:2])).status == 201
    reply = await api.send_json("POST", "/v1/messages", entries)
    assert reply.status == 201
    assert [(receipt["seq"], receipt["repeat"]) for receipt in reply.json["receipts"]] == [(2, False), (1, True), (3, False)]
    reply = await api.send_json("POST", "/v1/messages", entries)
    assert (reply.status, {receipt["repeat"] for receipt in reply.json["receipts"]}) == (200, {True})
    assert [row["payload"] for row in await api.rows()] == [1, 0, 2]


# --- reading ------------------------------------------------------------------------------------


async def pages(api: Api, target: str) -> list[Any]:
    """All rows, over as many answers as it takes."""
    found: list[Any] = []
    for _ in range(1000):
        reply = await api.request("GET", target)
        assert reply.status == 200, reply
        found += reply.json
        if "link" not in reply.headers:
            return found
        target, rel = reply.headers["link"].removeprefix("<").split(">; ")
        assert rel == 'rel="next"'
    raise AssertionError("the pages have no end")


async def test_pages(api: Api) -> None:
    topics = ["ü/a b", "x"] * 25
    await api.send_json("POST", "/v1/messages", [{"topic": topic, "payload": i} for i, topic in enumerate(topics)])
    assert [row["payload"] for row in await pages(api, "/v1/messages?limit=7")] == list(range(50))
    rows = await pages(api, "/v1/messages?topic=%C3%BC/%2B&limit=7&stream=default&after=10")
    assert [row["payload"] for row in rows] == list(range(10, 50, 2))
    assert await pages(api, "/v1/messages?topic=nothing&limit=1") == []
    assert [row["payload"] for row in await pages(api, "/v1/messages?after=49")] == [49]


async def test_a_page_is_bounded_in_bytes(api: Api) -> None:
    for i in range(10):
        await api.request("POST", "/v1/topics/a", bytes([i]) * 1_000_000)
    reply = await api.request("GET", "/v1/messages?raw=1&limit=1000")
    assert len(reply.body) < 8_000_000
    assert [row["seq"] for row in await pages(api, "/v1/messages?raw=1&limit=1000")] == list(range(1, 11))


async def test_filters(api: Api) -> None:
    for topic in ("a", "a/b", "a/b/c", "b", "/a"):
        await api.request("POST", f"/v1/topics/{topic}", b"1")
    for topic_filter, expected in (
        ("a", ["a"]),
        ("a/%23", ["a", "a/b", "a/b/c"]),
        ("%2B", ["a", "b"]),
        ("%2B/%2B", ["a/b", "/a"]),
        ("%23", ["a", "a/b", "a/b/c", "b", "/a"]),
    ):
        assert [row["topic"] for row in await api.rows(f"topic={topic_filter}")] == expected


async def test_gaps_after_eviction() -> None:
    async with running(StreamConfig(name="small", topics=("s",), bytes_max=STREAM_BYTES_MIN)) as api:
        for i in range(40):
            assert (await api.request("POST", "/v1/topics/s", bytes([i]) * 4000)).status == 201
        rows = await pages(api, "/v1/messages?stream=small&after=0&raw=1")
        ledger = await api.stream("small")
        gone = ledger["first"] - 1
        assert gone > 20
        assert rows[0] == {"gap": {"first": 1, "last": gone, "count": gone, "reason": "bytes"}}
        assert [row["seq"] for row in rows[1:]] == list(range(gone + 1, 41))
        assert ledger["removed"] == {"bytes": gone}
        assert balances(ledger)
        assert (await pages(api, "/v1/messages?stream=small&raw=1"))[0]["seq"] == gone + 1


# --- retained -----------------------------------------------------------------------------------


async def retained(api: Api, topic: str = "%23") -> list[tuple[str, Any]]:
    return [(row["topic"], row["payload"]) for row in await pages(api, f"/v1/retained?topic={topic}&limit=2")]


async def test_retained(api: Api) -> None:
    for topic, body in (("b", b"1"), ("a/x", b"2"), ("a", b"3"), ("c", b"4"), ("b", b"5")):
        await api.request("POST", f"/v1/topics/{topic}", body, Edgegw_Retain="true")
    await api.request("POST", "/v1/topics/b", b"6")
    await api.send_json("POST", "/v1/messages", [{"topic": "d", "payload": [7], "retain": True}, {"topic": "e", "payload": 8}])
    assert await retained(api) == [("a", "3"), ("a/x", "2"), ("b", "5"), ("c", "4"), ("d", [7])]
    assert await retained(api, "a/%23") == [("a", "3"), ("a/x", "2")]
    assert await retained(api, "b") == [("b", "5")]
    await api.request("POST", "/v1/topics/b", b"", Edgegw_Retain="true")
    assert [topic for topic, _ in await retained(api)] == ["a", "a/x", "c", "d"]
    assert (await api.stream())["received"] == 9  # taking a value away is a message as well


async def test_a_retained_value_is_gone_after_its_ttl(api: Api) -> None:
    await api.request("POST", "/v1/topics/a", b"1", Edgegw_Retain="true", Edgegw_TTL="0.3")
    await api.request("POST", "/v1/topics/b", b"2", Edgegw_Retain="true", Edgegw_TTL="1000")
    for _ in range(200):
        if await retained(api) == [("b", "2")]:
            break
        await pause(0.02)
    assert await retained(api) == [("b", "2")]
    assert [row.get("gap", {}).get("reason") for row in await api.rows("after=0")] == ["ttl", None]


# --- full, busy, failed -------------------------------------------------------------------------


async def test_full_and_again_not() -> None:
    async with running(StreamConfig(name="small", topics=("s",), bytes_max=STREAM_BYTES_MIN)) as api:
        await api.send_json("PUT", "/v1/consumers/reader", {"stream": "small"})
        replies: list[Reply] = []
        while not replies or replies[-1].status == 201:
            replies.append(await api.request("POST", "/v1/topics/s", bytes(4000)))
            assert len(replies) < 100
        assert (replies[-1].status, replies[-1].code) == (503, "store_full")
        assert int(replies[-1].headers["retry-after"]) > 0
        assert api.conditions.is_raised("stream_small")
        assert (await api.request("POST", "/v1/topics/other", b"1")).status == 201
        stored = len(replies) - 1
        assert balances(await api.stream("small"))
        assert (await api.stream("small"))["received"] == stored
        seqs = [row["seq"] for row in (await api.request("POST", "/v1/consumers/reader/fetch?raw=1")).json]
        assert seqs == list(range(1, stored + 1))
        await api.send_json("POST", "/v1/consumers/reader/ack", {"upto": stored})
        reply = await api.request("POST", "/v1/topics/s", bytes(4000))
        assert (reply.status, reply.json["seq"]) == (201, stored + 1)
        assert not api.conditions.is_raised("stream_small")
        assert balances(await api.stream("small"))


async def test_a_message_larger_than_its_stream() -> None:
    async with running(StreamConfig(name="small", topics=("s",), bytes_max=STREAM_BYTES_MIN)) as api:
        reply = await api.request("POST", "/v1/topics/s", bytes(STREAM_BYTES_MIN))
        assert (reply.status, reply.code) == (503, "store_full")
        assert (await api.request("POST", "/v1/topics/s", b"1")).json["seq"] == 1


async def test_busy_and_again_not() -> None:
    async with running(request_timeout_s=1.5) as api:
        api.writer.gate.clear()
        wires = [await api.wire() for _ in range(6)]
        for i, wire in enumerate(wires):
            # With a key, so that the test may ask afterwards.
            await wire.ask("POST", f"/v1/topics/{i}", bytes(1_000_000), Idempotency_Key=str(i))
        await until(lambda: api.bus.queued_bytes > QUEUE_BYTES_MAX, "the queue is full")
        for headers in ({}, {"Idempotency_Key": "x"}):
            reply = await api.request("POST", "/v1/topics/late", b"1", **headers)
            assert (reply.status, reply.code) == (429, "busy")
            assert int(reply.headers["retry-after"]) > 0
        reply = await api.send_json("POST", "/v1/messages", [{"topic": "late", "payload": 1}])
        assert (reply.status, reply.code) == (429, "busy")
        api.writer.gate.set()
        for wire in wires:
            assert (await wire.reply()).status in (201, 429, 503)
        await until(lambda: api.bus.queued_bytes == 0, "the queue is empty")
        assert await api.rows("topic=late") == []
        assert (await api.request("POST", "/v1/topics/5", bytes(1_000_000), Idempotency_Key="5")).status in (200, 201)
        assert len(await api.payloads()) == (await api.stream())["received"]
        await api.is_well()


async def test_who_waits_for_room_gets_it(api: Api) -> None:
    api.writer.gate.clear()
    wires = [await api.wire() for _ in range(12)]
    for i, wire in enumerate(wires):
        await wire.ask("POST", f"/v1/topics/{i}", bytes(1_000_000))
    await until(lambda: api.bus.queued_bytes > QUEUE_BYTES_MAX, "the queue is full")
    await pause(0.05)
    assert api.bus.queued_bytes < QUEUE_BYTES_MAX + 3_000_000
    api.writer.gate.set()
    assert [(await wire.reply()).status for wire in wires] == [201] * 12


async def test_a_database_that_somebody_else_locks(api: Api) -> None:
    other = sqlite3.connect(api.path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        reply = await api.request("POST", "/v1/topics/a", b"1")
        assert (reply.status, reply.code) == (503, "store_failed")
        assert (await api.request("GET", "/readyz")).status == 503
        assert await api.rows() == []
        other.execute("ROLLBACK")
    finally:
        other.close()
    reply = await api.request("POST", "/v1/topics/a", b"2")
    assert (reply.status, reply.json["seq"]) == (201, 1)
    assert (await api.request("GET", "/readyz")).status == 200
    assert api.metric("edgegw_store_commits_failed_total") == 1

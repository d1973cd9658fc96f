"""Durable consumers over HTTP."""

import asyncio
from typing import Any

import pytest

from edgegw.config import StreamConfig
from edgegw.limits import PAGE_BYTES, STREAM_BYTES_MIN
from tests.api.in_process import Api, pause, running, until

READER = "/v1/consumers/reader"


async def make(api: Api, **terms: Any) -> None:
    assert (await api.send_json("PUT", READER, terms)).status == 201


async def publish(api: Api, count: int, topic: str = "a") -> None:
    wire = await api.wire()
    for i in range(count):
        assert (await wire.request("POST", f"/v1/topics/{topic}", b"%d" % i)).status == 201


async def fetch(api: Api, query: str = "max=1000") -> list[Any]:
    reply = await api.request("POST", f"{READER}/fetch?{query}")
    assert reply.status == 200, reply
    found = reply.json
    assert isinstance(found, list)
    return found


async def ack(api: Api, **what: Any) -> int:
    return (await api.send_json("POST", f"{READER}/ack", what)).status


async def ledger(api: Api) -> dict[str, Any]:
    """The consumer's; it balances."""
    found = (await api.request("GET", READER)).json
    assert isinstance(found, dict)
    assert found["matched"] == found["acked"] + found["pending"] + found["dead_lettered"] + sum(found["lost"].values()), found
    return found


async def test_make_find_change_delete(api: Api) -> None:
    terms = {"filter": "a/#", "stream": "default", "start": "all", "max_inflight": 10, "ack_wait_s": 5, "max_deliver": 3}
    reply = await api.send_json("PUT", READER, terms)
    assert reply.status == 201
    for name, value in terms.items():
        assert name == "start" or reply.json[name] == value
    assert (await api.send_json("PUT", READER, terms)).status == 200
    assert (await api.send_json("PUT", READER, terms | {"max_deliver": 4})).json["max_deliver"] == 4
    for changed in ({"filter": "b"}, {"stream": "dead-letter"}):
        reply = await api.send_json("PUT", READER, terms | changed)
        assert (reply.status, reply.code) == (409, "consumer_differs")
    assert [found["name"] for found in (await api.request("GET", "/v1/consumers")).json] == ["reader"]
    assert (await api.request("DELETE", READER)).status == 204
    assert (await api.request("GET", READER)).status == 404
    assert (await api.send_json("PUT", READER, {"filter": "b"})).status == 201


@pytest.mark.parametrize(("start", "expected"), [("all", [1, 2, 3, 4]), ("new", [4]), ({"seq": 3}, [3, 4]), ({"seq": 4}, [4])])
async def test_start(api: Api, start: object, expected: list[int]) -> None:
    await publish(api, 3)
    await make(api, start=start)
    await publish(api, 1)
    assert [row["seq"] for row in await fetch(api)] == expected
    assert (await ledger(api))["matched"] == len(expected)


async def test_start_at_a_time(api: Api) -> None:
    await publish(api, 2)
    await pause(0.02)
    await publish(api, 2)
    rows = await api.rows()
    await make(api, start={"time": rows[2]["time"]})
    assert [row["seq"] for row in await fetch(api)] == [row["seq"] for row in rows if row["time"] >= rows[2]["time"]]


async def test_fetch_ack(api: Api) -> None:
    await make(api, filter="a")
    await publish(api, 5)
    await publish(api, 1, "b")
    rows = await fetch(api, "max=3&raw=1")
    assert [(row["seq"], row["topic"], row["deliveries"], row["payload_b64"]) for row in rows] == [
        (1, "a", 1, "MA=="),
        (2, "a", 1, "MQ=="),
        (3, "a", 1, "Mg=="),
    ]
    assert await ack(api, seqs=[2, 1]) == 204
    assert await ack(api, seqs=[2]) == 204  # once more is no fault
    found = await ledger(api)
    assert [found[name] for name in ("matched", "acked", "pending", "inflight", "cursor")] == [5, 2, 3, 1, 2]
    assert [row["seq"] for row in await fetch(api)] == [4, 5]
    assert await ack(api, upto=5) == 204
    found = await ledger(api)
    assert [found[name] for name in ("acked", "pending", "inflight")] == [5, 0, 0]
    assert await fetch(api) == []


async def test_two_workers_get_disjoint_messages(api: Api) -> None:
    await make(api)
    await publish(api, 300)
    wires = [await api.wire() for _ in range(4)]

    async def work(at: int) -> list[int]:
        seqs: list[int] = []
        while rows := (await wires[at].request("POST", f"{READER}/fetch?max=7")).json:
            seqs += [row["seq"] for row in rows]
        return seqs

    found = await asyncio.gather(*map(work, range(4)))
    assert sorted(seq for seqs in found for seq in seqs) == list(range(1, 301))
    assert all(seqs == sorted(seqs) for seqs in found)


async def test_a_wait_ends_with_the_first_message(api: Api) -> None:
    await make(api)
    wires = [await api.wire() for _ in range(3)]
    for wire in wires:
        await wire.ask("POST", f"{READER}/fetch?wait=30")
    await until(lambda: api.phases().count("work") == 3, "all wait")
    started_s = asyncio.get_running_loop().time()
    for _ in range(3):
        assert (await api.request("POST", "/v1/topics/a", b"1")).status == 201
        await pause(0.02)
    found = [(await wire.reply()).json for wire in wires]
    assert sorted(row["seq"] for rows in found for row in rows) == [1, 2, 3]
    assert asyncio.get_running_loop().time() - started_s < 15


async def test_a_wait_is_bounded(api: Api) -> None:
    await make(api)
    started_s = asyncio.get_running_loop().time()
    assert await fetch(api, "wait=0.3") == []
    assert 0.3 <= asyncio.get_running_loop().time() - started_s < 10
    assert await fetch(api, "wait=0") == []


async def test_a_wait_may_be_longer_than_a_request() -> None:
    async with running(request_timeout_s=0.2) as api:
        await make(api)
        assert await fetch(api, "wait=0.6") == []


async def test_a_wait_ends_with_its_consumer(api: Api) -> None:
    await make(api)
    wire = await api.wire()
    await wire.ask("POST", f"{READER}/fetch?wait=30")
    await until(lambda: "work" in api.phases(), "it waits")
    assert (await api.request("DELETE", READER)).status == 204
    assert (await wire.reply()).json == []


async def test_what_is_not_acknowledged_comes_again_and_then_is_a_dead_letter(api: Api) -> None:
    await make(api, ack_wait_s=0.1, max_deliver=2)
    await publish(api, 1)
    assert [(row["seq"], row["deliveries"]) for row in await fetch(api)] == [(1, 1)]
    assert [(row["seq"], row["deliveries"]) for row in await fetch(api, "wait=10")] == [(1, 2)]
    assert await fetch(api, "wait=0.5") == []
    found = await ledger(api)
    assert (found["dead_lettered"], found["pending"]) == (1, 0)
    letter = (await api.rows("stream=dead-letter"))[0]
    assert (letter["topic"], letter["payload"]) == ("a", "0")
    assert (letter["consumer"], letter["deliveries"], letter["reason"]) == ("reader", 2, "max_deliver")


async def test_nack(api: Api) -> None:
    await make(api)
    await publish(api, 3)
    assert len(await fetch(api)) == 3
    reply = await api.send_json("POST", f"{READER}/nack", {"seqs": [1, 3]})
    assert (reply.status, reply.body) == (204, b"")
    assert [(row["seq"], row["deliveries"]) for row in await fetch(api)] == [(1, 2), (3, 2)]
    await api.send_json("POST", f"{READER}/nack", {"seqs": [2], "delay_s": 0.3})
    assert await fetch(api) == []
    assert [(row["seq"], row["deliveries"]) for row in await fetch(api, "wait=10")] == [(2, 2)]


async def test_no_more_than_max_inflight(api: Api) -> None:
    await make(api, max_inflight=2)
    await publish(api, 5)
    assert [row["seq"] for row in await fetch(api)] == [1, 2]
    assert await fetch(api) == []
    await ack(api, seqs=[1])
    assert [row["seq"] for row in await fetch(api)] == [3]


async def test_an_answer_is_bounded_in_bytes(api: Api) -> None:
    await make(api)
    for _ in range(8):
        await api.request("POST", "/v1/topics/a", bytes(1_000_000))
    first = await fetch(api, "max=1000&raw=1")
    assert 0 < len(first) <= PAGE_BYTES // 1_000_000 + 1
    assert [row["seq"] for row in first + await fetch(api, "max=1000&raw=1")] == list(range(1, 9))


async def test_a_gap_is_told_in_order() -> None:
    small = StreamConfig(name="small", topics=("s",), bytes_max=STREAM_BYTES_MIN, policy="drop-oldest")
    async with running(small) as api:
        await make(api, stream="small")
        for i in range(40):
            assert (await api.request("POST", "/v1/topics/s", bytes([i]) * 4000)).status == 201
        rows = await fetch(api, "max=1000&raw=1")
        gaps = [row["gap"] for row in rows if "gap" in row]
        assert sum(gap["count"] for gap in gaps) + len(rows) - len(gaps) == 40
        assert {gap["reason"] for gap in gaps} == {"bytes"}
        places = [row["gap"]["last"] if "gap" in row else row["seq"] for row in rows]
        assert places == sorted(places)
        assert await ack(api, upto=40) == 204
        found = await ledger(api)
        assert (found["lost"]["bytes"], found["pending"]) == (sum(gap["count"] for gap in gaps), 0)


async def test_acknowledgements_at_once(api: Api) -> None:
    await make(api)
    await publish(api, 60)
    assert len(await fetch(api)) == 60
    wires = [await api.wire() for _ in range(6)]
    bodies = [b'{"seqs":[%s]}' % b",".join(b"%d" % seq for seq in range(1 + at, 61, 6)) for at in range(6)]
    replies = await asyncio.gather(
        *(wire.request("POST", f"{READER}/ack", body) for wire, body in zip(wires, bodies, strict=True))
    )
    assert {reply.status for reply in replies} == {204}
    found = await ledger(api)
    assert (found["acked"], found["pending"], found["cursor"]) == (60, 0, 60)


async def test_a_consumer_without_a_body(api: Api) -> None:
    assert (await api.request("PUT", READER, b"")).status == 400
    assert (await api.request("PUT", READER, b"{}")).status == 201

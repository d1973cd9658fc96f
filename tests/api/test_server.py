"""What every request goes through: ids, guards, deadlines, faults, the stop."""

import asyncio
from typing import Any

import pytest

from edgegw.api.routing import Answer, Call, Route, Router
from edgegw.core.access import OPEN
from edgegw.errors import StoreError
from tests.api.in_process import Api, Wire, pause, running, until

# --- request ids --------------------------------------------------------------------------------


async def test_every_answer_has_its_own_id(api: Api) -> None:
    wire = await api.wire()
    found = [(await wire.request("GET", path)).headers["x-request-id"] for path in ("/healthz", "/nothing", "/v1/status")]
    assert len(set(found)) == 3
    assert all(name.startswith("test-") for name in found)


@pytest.mark.parametrize("name", ["a", "550e8400-e29b-41d4-a716-446655440000", "A.b_c:d-1", "x" * 64])
async def test_an_id_is_taken_over(api: Api, name: str) -> None:
    assert (await api.request("GET", "/healthz", X_Request_Id=name)).headers["x-request-id"] == name
    reply = await api.request("GET", "/nothing", X_Request_Id=name)
    assert (reply.headers["x-request-id"], reply.json["request_id"]) == (name, name)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a;b", "ü", "{}", "a\tb", '"'])
async def test_an_id_that_is_not_valid_is_replaced(api: Api, name: str) -> None:
    reply = await api.request("GET", "/healthz", X_Request_Id=name)
    assert reply.status == 200
    assert reply.headers["x-request-id"].startswith("test-")


# --- whom the client means ----------------------------------------------------------------------


async def test_own_hosts(api: Api) -> None:
    port = api.host.rpartition(":")[2]
    for host in (api.host, f"localhost:{port}", f"LocalHost:{port}", f"[::1]:{port}"):
        assert (await api.request("GET", "/healthz", Host=host)).status == 200, host


async def test_foreign_hosts(api: Api) -> None:
    port = api.host.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{port}", "", "ü"):
        for method in ("GET", "HEAD", "POST"):
            reply = await api.request(method, "/v1/topics/a" if method == "POST" else "/healthz", Host=host)
            assert reply.status in (400, 403), (method, host, reply)
            assert method == "HEAD" or reply.code in ("foreign_host", "bad_http")
    assert await api.payloads() == []
    await api.is_well()


async def test_a_foreign_host_in_the_target(api: Api) -> None:
    for target in ("http://evil.example/v1/topics/a", f"http://evil.example@{api.host}/v1/topics/a", "http://evil.example?/"):
        reply = await api.request("POST", target, b"1")
        assert reply.status in (403, 404), target
    assert await api.payloads() == []


async def test_no_host(api: Api) -> None:
    wire = await api.wire()
    await wire.send("GET /healthz HTTP/1.1\r\n\r\n")
    reply = await wire.reply()
    assert (reply.status, reply.code) == (400, "bad_http")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "fish", ""])
async def test_a_page_of_another_site_changes_nothing(api: Api, site: str) -> None:
    for method, target in (("POST", "/v1/topics/a"), ("PUT", "/v1/consumers/a"), ("DELETE", "/v1/consumers/a")):
        reply = await api.request(method, target, b"{}", Sec_Fetch_Site=site)
        assert (reply.status, reply.code) == (403, "foreign_site")
    assert (await api.request("GET", "/v1/messages", Sec_Fetch_Site=site)).status == 200
    assert await api.payloads() == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "https://127.0.0.1", "file://", "http://127.0.0.1:1"])
async def test_a_foreign_origin_changes_nothing(api: Api, origin: str) -> None:
    reply = await api.request("POST", "/v1/topics/a", b"1", Origin=origin)
    assert (reply.status, reply.code) == (403, "foreign_origin")
    assert (await api.request("GET", "/v1/messages", Origin=origin)).status == 200
    assert await api.payloads() == []


async def test_the_own_page(api: Api) -> None:
    for site in ("same-origin", "none"):
        reply = await api.request("POST", "/v1/topics/a", b"1", Sec_Fetch_Site=site, Origin=f"http://{api.host}")
        assert reply.status == 201


# --- answers ------------------------------------------------------------------------------------


async def test_head_is_get_without_the_body(api: Api) -> None:
    wire = await api.wire()
    for path in ("/healthz", "/readyz", "/v1/messages", "/nothing"):
        seen = await wire.request("GET", path)
        head = await wire.request("HEAD", path)
        assert (head.status, head.body) == (seen.status, b""), path
        assert abs(int(head.headers.get("content-length", "0")) - len(seen.body)) <= 2, path


async def test_no_content_has_none(api: Api) -> None:
    await api.send_json("PUT", "/v1/consumers/a", {})
    reply = await api.request("DELETE", "/v1/consumers/a")
    assert reply.status == 204
    assert "content-length" not in reply.headers
    assert "content-type" not in reply.headers


async def test_a_connection_ends_when_asked(api: Api) -> None:
    wire = await api.wire()
    reply = await wire.request("GET", "/healthz", Connection="close")
    assert reply.status == 200
    assert await wire.is_closed()


async def test_requests_are_counted_by_route_and_status(api: Api) -> None:
    for _ in range(3):
        await api.request("POST", "/v1/topics/a/b", b"1")
    await api.request("POST", "/v1/topics/a/+", b"1")
    name = 'edgegw_http_requests_total{route="/v1/topics/{topic*}",status="%d"}'
    assert (api.metric(name % 201), api.metric(name % 400)) == (3, 1)
    assert api.metric('edgegw_http_request_seconds_count{route="/v1/topics/{topic*}"}') == 4


# --- faults and deadlines -----------------------------------------------------------------------


def route_to(api: Api, handler: Any, timeout_s: float = 10) -> None:
    """Let /test lead to `handler`."""
    router = Router([*api.router.routes, Route("POST", "/test", handler, OPEN)], timeout_s)
    api.server._router = router


async def test_a_fault_of_ours_costs_one_answer(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    async def handler(call: Call) -> Answer:
        raise ZeroDivisionError("secret")

    route_to(api, handler)
    wire = await api.wire()
    reply = await wire.request("POST", "/test", b"", X_Request_Id="broken-1")
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert (await wire.request("GET", "/healthz")).status == 200


async def test_a_cancellation_that_nobody_asked_for_costs_one_connection(api: Api) -> None:
    async def handler(call: Call) -> Answer:
        raise asyncio.CancelledError

    route_to(api, handler)
    wire = await api.wire()
    await wire.ask("POST", "/test", b"")
    assert await wire.is_closed()
    await api.is_well()


async def test_the_deadline_of_work(api: Api) -> None:
    ended: list[str] = []

    async def handler(call: Call) -> Answer:
        call.take()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")
        raise AssertionError

    route_to(api, handler, 0.2)
    wire = await api.wire()
    reply = await wire.request("POST", "/test", b"")
    assert (reply.status, reply.code) == (503, "deadline")
    assert ended == ["ended"]
    assert await wire.is_closed()


async def test_a_store_that_does_not_answer_in_time() -> None:
    async with running(request_timeout_s=0.6) as api:
        await api.request("POST", "/v1/topics/a", b"before")
        api.writer.gate.clear()
        wires = [await api.wire() for _ in range(3)]
        await wires[0].ask("POST", "/v1/topics/a", b"single")
        await wires[1].ask("POST", "/v1/topics/a", b"keyed", Idempotency_Key="k")
        await wires[2].ask("PUT", "/v1/consumers/a", b"{}")
        for wire in wires:
            reply = await wire.reply()
            assert (reply.status, reply.code) == (503, "deadline")
        # What does not need the writer works meanwhile.
        assert (await api.request("GET", "/healthz")).status == 200
        assert len(await api.rows()) == 1
        api.writer.gate.set()
        # "may or may not be stored": here it is, and the key tells.
        await until(lambda: api.bus.head("default") == 3, "the late commit")
        reply = await api.request("POST", "/v1/topics/a", b"keyed", Idempotency_Key="k")
        assert reply.status == 200
        await api.is_well()


async def test_a_writer_that_died(api: Api) -> None:
    api.writer.fault = MemoryError("no more")
    for path in ("/v1/topics/a", "/v1/topics/b"):
        reply = await api.request("POST", path, b"1")
        assert (reply.status, reply.code) == (503, "store_failed")
    assert len(api.died) == 1
    assert (await api.request("GET", "/v1/status")).status == 200


# --- the stop -----------------------------------------------------------------------------------


async def test_a_stop_answers_what_is_under_way(api: Api) -> None:
    idle, silent, busy = await api.wire(), await api.wire(), await api.wire()
    assert (await idle.request("GET", "/healthz")).status == 200
    api.writer.gate.clear()
    await busy.ask("POST", "/v1/topics/a", b"1")
    await until(lambda: "work" in api.phases(), "at work")
    api.server.stop_accepting()
    stopping = asyncio.create_task(api.server.stop(10))
    await pause(0.05)
    assert not stopping.done()
    api.writer.gate.set()
    assert (await busy.reply()).status == 201
    for wire in (busy, idle, silent):
        assert await wire.is_closed()
    await stopping


async def test_a_stop_does_not_wait_for_messages(api: Api) -> None:
    await api.send_json("PUT", "/v1/consumers/reader", {})
    wire = await api.wire()
    await wire.ask("POST", "/v1/consumers/reader/fetch?wait=30")
    await until(lambda: api.phases() == ["work"], "waiting")
    api.server.stop_accepting()
    reply = await wire.reply()
    assert (reply.status, reply.code) == (503, "stopping")
    assert await wire.is_closed()
    await api.server.stop(10)


async def test_a_stop_ends_in_its_time(api: Api) -> None:
    api.writer.gate.clear()
    wire = await api.wire()
    await wire.ask("POST", "/v1/topics/a", b"1")
    await until(lambda: api.phases() == ["work"], "at work")
    api.server.stop_accepting()
    await asyncio.wait_for(api.server.stop(0.1), 10)
    assert await wire.is_closed()


async def test_after_a_stop_connections_wait_for_the_next_server(api: Api) -> None:
    api.server.stop_accepting()
    reader, writer = await asyncio.open_connection(*api.socket.getsockname())
    wire = Wire(reader, writer, api.host)
    await wire.ask("GET", "/healthz")
    await pause(0.05)
    await api.server.stop(1)
    await api.server.start()
    assert (await wire.reply()).status == 200
    wire.close()


async def test_an_answer_says_when_to_come_back(api: Api) -> None:
    async def handler(call: Call) -> Answer:
        raise StoreError("store_failed", "no disk")

    route_to(api, handler)
    assert int((await api.request("POST", "/test", b"")).headers["retry-after"]) > 0

"""One connection: its deadlines, its phases, and what a client can do to it. No test waits for the real bounds."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from edgegw.api import connection
from edgegw.api.connection import Deadlines
from edgegw.api.doors import Door
from edgegw.core.access import LOCAL, Caller
from edgegw.limits import EARLY_BYTES_MAX, HEAD_BYTES_MAX, HEADER_LINE_BYTES_MAX, MIB, UNIX_CONNECTIONS_EXTRA
from tests.api.in_process import Api, Wire, pause, request_bytes, running, until

# One of them is short in each test, the others far away.
FAR_S = 60.0
HEAD_S = 0.5


def deadlines(**short: float) -> Deadlines:
    far = dict.fromkeys(("head_s", "body_s", "take_s", "idle_s"), FAR_S)
    return Deadlines(**{**far, "linger_s": 0.2, "sweep_s": 0.02, **short})


@pytest_asyncio.fixture
async def hasty() -> AsyncIterator[Api]:
    """An API that waits HEAD_S for a head."""
    async with running(deadlines=deadlines(head_s=HEAD_S)) as api:
        yield api


def head(api: Api, method: str = "GET", target: str = "/healthz", **headers: str) -> bytes:
    return request_bytes(api.host, method, target, None, headers)


async def drip(wire: Wire, data: bytes, gap_s: float) -> None:
    for at in range(len(data)):
        await wire.send(data[at : at + 1])
        await pause(gap_s)


async def is_refused(wire: Wire, code: str, since_s: float) -> None:
    """It gets a 408 in good time, and the connection ends."""
    reply = await wire.reply()
    assert (reply.status, reply.code) == (408, code)
    assert asyncio.get_running_loop().time() - since_s < FAR_S / 2
    assert await wire.is_closed()


# --- the head -----------------------------------------------------------------------------------


async def test_slow_header_nothing_sent_at_all(hasty: Api) -> None:
    started_s = asyncio.get_running_loop().time()
    wire = await hasty.wire()
    await is_refused(wire, "slow_head", started_s)
    assert asyncio.get_running_loop().time() - started_s >= HEAD_S
    assert hasty.metric('edgegw_http_requests_total{route="none",status="408"}') == 1
    assert hasty.metric("edgegw_http_deadlines_total") == 1
    await hasty.is_well()


async def test_slow_header_drip(hasty: Api) -> None:
    # Each byte comes in time; the bound is on all of them together.
    started_s = asyncio.get_running_loop().time()
    wire = await hasty.wire()
    dripping = asyncio.create_task(drip(wire, head(hasty, X="x" * 2000), HEAD_S / 20))
    await is_refused(wire, "slow_head", started_s)
    dripping.cancel()
    await asyncio.wait({dripping})
    await hasty.is_well()


async def test_slow_header_of_a_later_request(hasty: Api) -> None:
    wire = await hasty.wire()
    assert (await wire.request("GET", "/healthz")).status == 200
    await pause(1.5 * HEAD_S)  # idle is not slow
    started_s = asyncio.get_running_loop().time()
    await wire.send("GET /hea")
    await is_refused(wire, "slow_head", started_s)


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 100_000], ids=["no body", "a body", "a long body"])
async def test_slow_header_pipelined(hasty: Api, body: bytes) -> None:
    # The beginning of a second request comes in the same bytes as the first.
    started_s = asyncio.get_running_loop().time()
    wire = await hasty.wire()
    first = request_bytes(hasty.host, "POST", "/v1/topics/a", body, {})
    await wire.send(first + b"GET /healthz HTTP/1.1\r\nHos")
    assert (await wire.reply()).status == 201
    await is_refused(wire, "slow_head", started_s)


async def test_slow_header_pipelined_behind_a_head_in_parts(hasty: Api) -> None:
    first = head(hasty)
    for cut in (-1, -2, -3, -4, 5):
        wire = await hasty.wire()
        started_s = asyncio.get_running_loop().time()
        await wire.send(first[:cut])
        await pause()
        await wire.send(first[cut:] + b"GET / HT")
        assert (await wire.reply()).status == 200
        await is_refused(wire, "slow_head", started_s)


async def test_slow_header_pipelined_behind_chunks(hasty: Api) -> None:
    wire = await hasty.wire()
    started_s = asyncio.get_running_loop().time()
    await wire.send(head(hasty, "POST", "/v1/topics/a", Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\nGET /")
    assert (await wire.reply()).status == 201
    await is_refused(wire, "slow_head", started_s)


@pytest.mark.parametrize("cut", [1, 10, -1])
async def test_a_head_in_parts_is_a_head(api: Api, cut: int) -> None:
    wire = await api.wire()
    whole = request_bytes(api.host, "POST", "/v1/topics/a", b"abc", {})
    for _ in range(3):
        await wire.send(whole[:cut])
        await until(lambda: api.phases() in (["head"], ["body"]), "the first part is there")
        await wire.send(whole[cut:])
        assert (await wire.reply()).status == 201
        assert api.phases() == ["idle"]


async def test_a_head_in_single_bytes(api: Api) -> None:
    wire = await api.wire()
    for _ in range(2):
        await drip(wire, head(api), 0)
        assert (await wire.reply()).status == 200
        assert api.phases() == ["idle"]


async def test_idle_begins_where_a_request_ends(api: Api) -> None:
    # Were it taken for a head that began, a client that does nothing wrong would be cut off.
    chunked = head(api, "POST", "/v1/topics/a", Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    plain = request_bytes(api.host, "POST", "/v1/topics/a", b"abc", {})
    large = request_bytes(api.host, "POST", "/v1/topics/a", bytes(300_000), {})
    wire = await api.wire()
    for parts in ([chunked], [plain], [plain, plain, head(api)], [plain, chunked], [large], [large, large, plain], [chunked] * 3):
        await wire.send(b"".join(parts))
        for _ in parts:
            assert (await wire.reply()).status in (200, 201)
        assert api.phases() == ["idle"]


async def test_requests_one_after_the_other_while_one_is_at_work(api: Api) -> None:
    wire = await api.wire()
    api.writer.gate.clear()
    await wire.ask("POST", "/v1/topics/a", b"1")
    await until(lambda: api.phases() == ["work"], "at work")
    for _ in range(3):
        await wire.ask("POST", "/v1/topics/a", b"2")
        await pause()
    api.writer.gate.set()
    for _ in range(4):
        assert (await wire.reply()).status == 201
    assert api.phases() == ["idle"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET /" + b"a" * HEADER_LINE_BYTES_MAX + b" HTTP/1.1\r\n", id="request line too long"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEADER_LINE_BYTES_MAX + b"\r\n", id="header too long"),
        pytest.param(b"FISH / HTTP/1.1\r\n", id="method"),
        pytest.param(b"GET / HTTP/x\r\n", id="version"),
        pytest.param(b"GET /\r\nHost : a\r\n", id="no version"),
        pytest.param("GET /v1/topics/ü HTTP/1.1\r\n".encode(), id="bytes that need encoding"),
        pytest.param(b"GET / HTTP/1.1\r\nX: a\x00b\r\n", id="NUL in a header"),
        pytest.param(b"GET / HTTP/1.1\r\nX : a\r\n", id="space before the colon"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n", id="two lengths"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", id="length and chunks"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: -3\r\n", id="negative length"),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n", id="endless length"),
        pytest.param(b"GET http://[::1/ HTTP/1.1\r\n", id="bad URL"),
    ],
)
async def test_what_is_not_http_is_a_problem_like_every_other(hasty: Api, line: bytes) -> None:
    wire = await hasty.wire()
    await wire.send(line + f"Host: {hasty.host}\r\n\r\n".encode())
    reply = await wire.reply()
    assert (reply.status, reply.code) == (400, "bad_http")
    assert await wire.is_closed()
    assert hasty.metric('edgegw_http_requests_total{route="none",status="400"}') == 1
    await hasty.is_well()


async def test_the_longest_request_line(api: Api) -> None:
    topic = "%41" * 5000
    assert (await api.request("POST", f"/v1/topics/{topic}", b"1")).status == 201
    assert (await api.rows())[0]["topic"] == "A" * 5000


async def test_a_head_without_end(api: Api) -> None:
    wire = await api.wire()
    lines = b"".join(b"X-%d: a\r\n" % i for i in range(20_000))
    assert len(lines) > 3 * HEAD_BYTES_MAX
    await wire.send(head(api).removesuffix(b"\r\n") + lines)
    reply = await wire.reply()
    assert (reply.status, reply.code) == (400, "bad_http")
    await api.is_well()


# --- the body -----------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [{"Content_Length": "1000"}, {"Transfer_Encoding": "chunked"}], ids=["length", "chunked"])
async def test_slow_body(framing: dict[str, str]) -> None:
    async with running(deadlines=deadlines(body_s=HEAD_S)) as api:
        started_s = asyncio.get_running_loop().time()
        wire = await api.wire()
        await wire.send(head(api, "POST", "/v1/topics/a", **framing))
        dripping = asyncio.create_task(drip(wire, b"1\r\na\r\n" * 1000, HEAD_S / 20))
        await is_refused(wire, "slow_body", started_s)
        dripping.cancel()
        await asyncio.wait({dripping})
        assert await api.payloads() == []
        await api.is_well()


async def test_a_body_that_nobody_reads() -> None:
    # The answer does not wait for it, and the connection does not go on behind it.
    async with running(deadlines=deadlines()) as api:
        wire = await api.wire()
        await wire.send(head(api, Content_Length="1000") + b"abc")
        reply = await wire.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert api.phases() == ["last"]
        await wire.send(b"abc")
        assert await wire.is_closed()


async def test_chunks_that_are_none() -> None:
    async with running(deadlines=deadlines(body_s=HEAD_S)) as api:
        for at_once in (True, False):
            wire = await api.wire()
            await wire.send(head(api, "POST", "/v1/topics/a", Transfer_Encoding="chunked") + b"3\r\nabc\r\n")
            if not at_once:
                await pause()
            await wire.send(b"zz\r\nabc\r\n")
            # aiohttp tells a handler that reads already of the fault by no more than silence.
            assert (await wire.reply()).status in (400, 408)
            assert await wire.is_closed()
        assert await api.payloads() == []
        await api.is_well()


# --- half-closed, gone --------------------------------------------------------------------------


async def test_half_closed_with_a_request_under_way_gets_its_answer(api: Api) -> None:
    api.writer.gate.clear()
    wire = await api.wire()
    await wire.ask("POST", "/v1/topics/a", b"abc")
    await until(lambda: api.phases() == ["work"], "at work")
    wire.finish()
    await pause(0.05)
    api.writer.gate.set()
    assert (await wire.reply()).status == 201
    assert await wire.is_closed()
    assert await api.payloads() == [b"abc"]


async def test_half_closed_at_once(api: Api) -> None:
    for body in (None, b"abc"):
        wire = await api.wire()
        await wire.ask("POST", "/v1/topics/a", body)
        wire.finish()
        assert (await wire.reply()).status == 201
        assert await wire.is_closed()


async def test_half_closed_with_the_last_byte(api: Api) -> None:
    wire = await api.wire()
    await drip(wire, head(api)[:-1], 0)
    await wire.send("\n")
    wire.finish()
    assert (await wire.reply()).status == 200
    assert await wire.is_closed()


async def test_half_closed_inside_a_head(api: Api) -> None:
    wire = await api.wire()
    await wire.send("GET /healthz HTTP/1.1\r\nHo")
    wire.finish()
    reply = await wire.reply()
    assert (reply.status, reply.code) == (400, "bad_http")
    assert await wire.is_closed()


async def test_half_closed_while_idle_or_silent(api: Api) -> None:
    silent, idle = await api.wire(), await api.wire()
    assert (await idle.request("GET", "/healthz")).status == 200
    for wire in (silent, idle):
        wire.finish()
        assert await wire.is_closed()


@pytest.mark.parametrize("way", ["close", "abort"])
async def test_a_client_that_goes_while_its_commit_is_under_way(api: Api, way: str) -> None:
    api.writer.gate.clear()
    wires = [await api.wire() for _ in range(20)]
    for wire in wires:
        await wire.ask("POST", "/v1/topics/a", b"abc")
    await until(lambda: api.phases() == ["work"] * 20, "all at work")
    for wire in wires:
        getattr(wire, way)()
    await pause(0.05)
    api.writer.gate.set()
    await until(lambda: api.phases() == [], "connections closed")
    await until(lambda: api.bus.queued_bytes == 0, "the queue is empty")
    await api.is_well()


async def test_a_client_that_goes_while_it_waits_for_messages(api: Api) -> None:
    await api.send_json("PUT", "/v1/consumers/reader", {})
    wire = await api.wire()
    await wire.ask("POST", "/v1/consumers/reader/fetch?wait=30")
    await until(lambda: api.phases() == ["work"], "the fetch has begun")
    wire.close()
    await until(lambda: api.phases() == [], "the connection is closed")
    # Nobody took the message in the name of the one who went.
    await api.request("POST", "/v1/topics/a", b"1")
    found = (await api.request("POST", "/v1/consumers/reader/fetch")).json
    assert [row["deliveries"] for row in found] == [1]


# --- pipelined ----------------------------------------------------------------------------------


async def test_two_requests_pipelined(api: Api) -> None:
    wire = await api.wire()
    await wire.send(b"".join(request_bytes(api.host, "POST", f"/v1/topics/{i}", b"abc", {}) for i in range(2)))
    assert [(await wire.reply()).json["seq"] for _ in range(2)] == [1, 2]


async def test_requests_behind_a_bad_one_are_not_done(api: Api) -> None:
    wire = await api.wire()
    good = request_bytes(api.host, "POST", "/v1/topics/a", b"abc", {})
    await wire.send(good + b"FISH / HTTP/1.1\r\n\r\n" + good)
    assert (await wire.reply()).status in (201, 400)
    await pause(0.05)
    assert len(await api.payloads()) <= 1
    await api.is_well()


async def test_requests_far_ahead_wait_outside(api: Api) -> None:
    wire = await api.wire()
    api.writer.gate.clear()
    await wire.ask("POST", "/v1/topics/a", b"1")
    await until(lambda: api.phases() == ["work"], "at work")
    ahead = head(api, X="x" * 15_000)
    count = 32 * MIB // len(ahead)
    assert count * len(ahead) > 100 * EARLY_BYTES_MAX
    sending = asyncio.create_task(wire.send(ahead * count))
    with pytest.raises(TimeoutError):  # the kernel holds some MiB, we hold no more than the bound
        await asyncio.wait_for(asyncio.shield(sending), 0.5)
    api.writer.gate.set()
    assert (await wire.reply()).status == 201
    for _ in range(count):
        assert (await wire.reply()).status == 200
    await sending


# --- answers that are not taken, idle, too many -------------------------------------------------


async def test_an_answer_that_is_not_taken() -> None:
    async with running(deadlines=deadlines(take_s=HEAD_S)) as api:
        for _ in range(12):
            await api.request("POST", "/v1/topics/big", bytes(1000 * 1000))
        wire = await api.wire()
        for _ in range(8):  # more than the kernel takes
            await wire.ask("GET", "/v1/messages?after=0&raw=1&limit=1000")
        await until(lambda: api.metric("edgegw_http_deadlines_total") >= 1, "the connection was given up")
        await until(lambda: api.metric("edgegw_http_connections") == 0, "it is closed")
        await api.is_well()


async def test_an_idle_connection_ends() -> None:
    async with running(deadlines=deadlines(idle_s=HEAD_S)) as api:
        wire = await api.wire()
        assert (await wire.request("GET", "/healthz")).status == 200
        started_s = asyncio.get_running_loop().time()
        assert await wire.is_closed()
        assert HEAD_S / 2 < asyncio.get_running_loop().time() - started_s < 5 * HEAD_S  # aiohttp's own timer is at 10
        assert api.metric("edgegw_http_deadlines_total") == 0


async def test_work_keeps_a_connection_beyond_its_idle_time() -> None:
    async with running(deadlines=deadlines(idle_s=HEAD_S)) as api:
        await api.send_json("PUT", "/v1/consumers/reader", {})
        reply = await api.request("POST", f"/v1/consumers/reader/fetch?wait={3 * HEAD_S}")
        assert (reply.status, reply.json) == (200, [])


async def test_1000_idle_connections() -> None:
    async with running(connections_max=1024, deadlines=deadlines()) as api:
        idle = [await api.wire() for _ in range(500)]
        for wire in idle:
            assert (await wire.request("GET", "/healthz")).status == 200
        silent = [await api.wire() for _ in range(500)]
        loop = asyncio.get_running_loop()
        took_s = []
        for _ in range(20):
            started_s = loop.time()
            assert (await api.request("POST", "/v1/topics/a", b"1")).status == 201
            took_s.append(loop.time() - started_s)
        assert sorted(took_s)[10] < 1.0
        assert api.metric("edgegw_http_connections") >= 1000
        assert (await idle[7].request("GET", "/healthz")).status == 200
        await silent[7].ask("GET", "/healthz")
        assert (await silent[7].reply()).status == 200


async def test_the_longest_idle_makes_room() -> None:
    async with running(connections_max=3, deadlines=deadlines()) as api:
        wires = [await api.wire() for _ in range(3)]
        for at in (1, 0, 2, 1):
            assert (await wires[at].request("GET", "/healthz")).status == 200
        assert (await (await api.wire()).request("GET", "/healthz")).status == 200
        assert await wires[0].is_closed()
        assert (await wires[1].request("GET", "/healthz")).status == 200
        assert api.metric("edgegw_http_connections_refused_total") == 0


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
async def test_who_says_nothing_makes_room(monkeypatch: pytest.MonkeyPatch, patience_s: float) -> None:
    monkeypatch.setattr(connection, "HEAD_PATIENCE_S", patience_s)
    async with running(connections_max=3, deadlines=deadlines(head_s=60)) as api:
        idle, silent, half = [await api.wire() for _ in range(3)]
        assert (await idle.request("GET", "/healthz")).status == 200
        await half.send(b"GET /healthz HTTP/1.1\r\n")
        for _ in range(5):
            late = await api.wire()
            assert (await late.request("GET", "/healthz")).status == 200
            await late.ask("GET", "/healthz", Connection="close")
            assert (await late.reply()).status == 200
            await until(lambda: api.metric("edgegw_http_connections") == 2, "it is gone")
            await api.wire()
        if patience_s:  # they came just now: who is idle goes first
            assert await idle.is_closed()
        else:
            assert (await idle.request("GET", "/healthz")).status == 200
            assert await half.is_closed()
        assert await silent.is_closed()
        assert api.metric("edgegw_http_connections_refused_total") == 0


class OwnersDoor(Door):
    """A TCP socket that counts as the Unix socket."""

    def greet(self, transport: asyncio.Transport) -> tuple[Caller, bool]:
        self.is_unix = True
        return LOCAL, False


async def test_the_unix_socket_has_room_beyond_the_bound() -> None:
    async with running(connections_max=2, deadlines=deadlines(), make_door=OwnersDoor) as api:
        await api.send_json("PUT", "/v1/consumers/reader", {})
        waiting = [await api.wire() for _ in range(2 + UNIX_CONNECTIONS_EXTRA)]
        for wire in waiting:
            await wire.ask("POST", "/v1/consumers/reader/fetch?wait=30")
        await until(lambda: api.phases() == ["work"] * len(waiting), "all wait")
        assert (await (await api.wire()).reply()).code == "connections_full"


async def test_too_many_connections_at_work() -> None:
    async with running(connections_max=3, deadlines=deadlines()) as api:
        api.writer.gate.clear()
        wires = [await api.wire() for _ in range(3)]
        for wire in wires:
            await wire.ask("POST", "/v1/topics/a", b"1")
        await until(lambda: api.phases() == ["work"] * 3, "all at work")
        refused = await api.wire()
        reply = await refused.reply()
        assert (reply.status, reply.code) == (503, "connections_full")
        assert await refused.is_closed()
        assert api.metric("edgegw_http_connections_refused_total") == 1
        api.writer.gate.set()
        for wire in wires:
            assert (await wire.reply()).status == 201
        await api.is_well()

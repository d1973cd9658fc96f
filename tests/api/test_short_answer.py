"""The answer written by hand is one that every client understands, and the other path serves what it does not."""

import http.client
import io

import pytest

from edgegw.api.short_answer import short_answer_bytes
from edgegw.limits import SHORT_ANSWER_BYTES
from tests.api.in_process import running, until


class _Canned:
    """What http.client reads from instead of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@pytest.mark.parametrize("status", [200, 201, 400, 404, 422, 429, 503])
def test_another_parser_reads_it(status: int) -> None:
    data = short_answer_bytes(status, {"Content-Type": "text/plain", "Retry-After": "5"}, "id-1", "zwölf".encode(), 1_700_000_000)
    response = http.client.HTTPResponse(_Canned(data))  # type: ignore[arg-type]
    response.begin()
    assert (response.status, response.version) == (status, 11)
    assert response.reason == http.client.responses[status]
    assert response.read() == "zwölf".encode()
    assert response.headers["X-Request-Id"] == "id-1"
    assert response.headers["Date"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\nb", "a\rb"])
def test_no_header_begins_a_line(value: str) -> None:
    with pytest.raises(ValueError, match="line end"):
        short_answer_bytes(200, {"Link": value}, "id", b"", 0)


async def test_both_ways_say_the_same() -> None:
    async with running() as api:
        wire = await api.wire()
        short = await wire.request("GET", "/v1/consumers")
        await wire.send(f"GET /v1/consumers HTTP/1.0\r\nHost: {api.host}\r\nConnection: keep-alive\r\n\r\n")
        long = await wire.reply()
        for name in ("content-type", "content-length", "server"):
            assert short.headers[name] == long.headers[name], name
        assert short.body == long.body
        assert {"x-request-id", "date"} <= short.headers.keys() & long.headers.keys()


async def test_a_long_answer_and_head_go_the_other_way() -> None:
    async with running() as api:
        await api.bus.publish("t", b"x" * (SHORT_ANSWER_BYTES + 1))
        wire = await api.wire()
        reply = await wire.request("GET", "/v1/messages?raw=1")
        assert len(reply.body) > SHORT_ANSWER_BYTES
        head = await wire.request("HEAD", "/v1/consumers")
        assert (head.status, head.body) == (200, b"")
        assert (await wire.request("GET", "/healthz")).status == 200


async def test_a_client_that_is_gone_before_its_answer_disturbs_nobody() -> None:
    async with running() as api:
        api.writer.gate.clear()
        wire = await api.wire()
        await wire.ask("POST", "/v1/topics/t", b"x")
        await until(lambda: api.bus.queued_bytes > 0 or api.phases() == ["work"], "it is at work")
        wire.abort()
        api.writer.gate.set()
        await api.is_well()

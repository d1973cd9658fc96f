"""The API over TLS, with the standard library's TLS as the client; and with clients that do not speak it, or not to the end."""

import _ssl
import asyncio
import ctypes
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from edgegw.api import connection
from edgegw.api.connection import Deadlines
from edgegw.api.doors import Door
from edgegw.api.tls import TlsFiles
from tests.api.in_process import Api, Wire, running, until
from tests.certificates import Authority

HELLO = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("gw")


@pytest_asyncio.fixture
async def api(pair: tuple[Path, Path]) -> AsyncIterator[Api]:
    """An API behind TLS."""
    async with running(make_door=lambda sock: Door(sock, tls=TlsFiles(*pair, None))) as api:
        yield api


def client_context(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def connect(api: Api, context: ssl.SSLContext) -> Wire:
    """A connection over TLS."""
    reader, writer = await asyncio.open_connection(*api.socket.getsockname(), ssl=context)
    wire = Wire(reader, writer, api.host)
    api._wires.append(wire)
    return wire


def open_count(api: Api) -> int:
    return len(api.server._connections)


async def test_requests(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    payload = os.urandom(900_000)
    for _ in range(3):
        assert (await wire.request("POST", "/v1/topics/a", payload)).status == 201
    reply = await wire.request("GET", "/v1/messages?after=0&limit=3&raw=1")
    assert len(reply.body) > 3_600_000
    assert await api.payloads() == [payload] * 3
    assert (await wire.request("GET", "/healthz", Host="evil.example")).code == "foreign_host"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions(api: Api, authority: Authority, version: ssl.TLSVersion) -> None:
    context = client_context(authority)
    context.minimum_version = context.maximum_version = version
    wire = await connect(api, context)
    assert wire._writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
    assert (await wire.request("POST", "/v1/topics/a", b"1")).status == 201


async def test_an_older_version(api: Api, authority: Authority) -> None:
    context = client_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(api, context)
    await until(lambda: open_count(api) == 0, "it is gone")


async def test_a_reader_that_is_slow(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    payload = os.urandom(700_000)
    for _ in range(4):
        await wire.request("POST", "/v1/topics/a", payload)
    for _ in range(6):  # more than all buffers on the way hold
        await wire.ask("GET", "/v1/messages?after=0&limit=4&raw=1")
    for _ in range(6):
        assert len((await wire.reply()).body) > 3_700_000


async def test_many_requests_ahead(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    await wire.send(
        b"".join(
            b"POST /v1/topics/a HTTP/1.1\r\nHost: %b\r\nContent-Length: 9000\r\n\r\n" % api.host.encode() + b"x" * 9000
            for _ in range(60)
        )
    )
    for _ in range(60):
        assert (await wire.reply()).status == 201


async def test_a_client_that_says_goodbye(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    assert (await wire.request("GET", "/healthz")).status == 200
    wire.close()
    await until(lambda: open_count(api) == 0, "it is gone")


async def test_a_client_that_is_gone(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    await wire.ask("POST", "/v1/topics/a", None, Content_Length="10")
    wire.abort()
    await until(lambda: open_count(api) == 0, "it is gone")
    assert await api.payloads() == []


async def test_garbage_behind_the_handshake(api: Api, authority: Authority) -> None:
    wire = await connect(api, client_context(authority))
    assert (await wire.request("GET", "/healthz")).status == 200
    os.write(wire._writer.get_extra_info("socket").fileno(), b"garbage" * 100)
    await until(lambda: open_count(api) == 0, "it is gone")


# --- before the handshake is over ---------------------------------------------------------------


async def test_plain_http_is_told_so(api: Api) -> None:
    wire = await api.wire()
    await wire.send(HELLO)
    reply = await wire.reply()
    assert (reply.status, reply.code, reply.json["hint"]) == (400, "plain_on_tls_port", "use https://")
    assert await wire.is_closed()
    await until(lambda: open_count(api) == 0, "it is gone")


@pytest.mark.parametrize(
    "garbage", [b"\x00", b"\xff" * 1000, b"\x16\x03\x01\x00\x05hello", b"\x16" * 1000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000]
)
async def test_garbage(api: Api, garbage: bytes) -> None:
    wire = await api.wire()
    await wire.send(garbage)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        async with asyncio.timeout(20):
            await wire._reader.readuntil(b"HTTP/")
    await until(lambda: open_count(api) == 0, "it is gone")


async def test_a_handshake_that_never_ends_is_counted_and_cut_off(pair: tuple[Path, Path], authority: Authority) -> None:
    deadlines = Deadlines(head_s=0.2, sweep_s=0.02)
    async with running(make_door=lambda sock: Door(sock, tls=TlsFiles(*pair, None)), deadlines=deadlines) as api:
        silent, halfway = await api.wire(), await api.wire()
        await halfway.send(b"\x16\x03\x01\x02\x00\x01\x00")
        await until(lambda: open_count(api) == 2, "both are counted")
        for wire in (silent, halfway):
            assert await wire.is_closed()
        await until(lambda: open_count(api) == 0, "both are gone")
        assert api.metric("edgegw_http_deadlines_total") == 2
        late = await connect(api, client_context(authority))  # the head's time runs on through the handshake
        assert (await late.reply()).code == "slow_head"


async def test_handshakes_count_towards_the_bound(pair: tuple[Path, Path], authority: Authority) -> None:
    async with running(make_door=lambda sock: Door(sock, tls=TlsFiles(*pair, None)), connections_max=2) as api:
        wires = [await api.wire(), await api.wire()]
        await until(lambda: open_count(api) == 2, "both are counted")
        third = await connect(api, client_context(authority))
        assert (await third.request("GET", "/healthz")).status == 200
        assert await wires[0].is_closed()
        assert open_count(api) == 2
        assert api.metric("edgegw_http_connections_refused_total") == 0


async def test_encrypted_connections_have_a_bound_of_their_own(
    api: Api, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TLS_CONNECTIONS_MAX", 2)
    context = client_context(authority)
    first, second = [await connect(api, context) for _ in range(2)]
    for wire in (first, second):
        assert (await wire.request("GET", "/healthz")).status == 200
    third = await connect(api, context)
    assert (await third.request("GET", "/healthz")).status == 200
    assert await first.is_closed()
    api.writer.gate.clear()
    for wire in (second, third):
        await wire.ask("POST", "/v1/topics/a", b"1")
    await until(lambda: api.phases() == ["work"] * 2, "both are at work")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(api, context)
    assert api.metric("edgegw_http_connections_refused_total") == 1
    api.writer.gate.set()
    for wire in (second, third):
        assert (await wire.reply()).status == 201


class KeyUpdater:
    """A TLS client that asks for new keys, which the standard library cannot: OpenSSL itself, as Python has loaded it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._openssl = openssl = ctypes.CDLL(_ssl.__file__)
        if not hasattr(openssl, "SSL_key_update"):
            pytest.skip("this Python does not show its OpenSSL")
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(openssl, name).restype = ctypes.c_void_p
        self._sock = socket.create_connection(address, 20)
        self._sock.setblocking(True)
        self._context = ctypes.c_void_p(openssl.SSL_CTX_new(ctypes.c_void_p(openssl.TLS_client_method())))
        self._tls = ctypes.c_void_p(openssl.SSL_new(self._context))
        openssl.SSL_set_fd(self._tls, self._sock.fileno())
        assert openssl.SSL_connect(self._tls) == 1

    def asked(self, most: int) -> int:
        """How many it could ask for."""
        for count in range(most):
            self._openssl.SSL_key_update(self._tls, 1)
            if self._openssl.SSL_do_handshake(self._tls) != 1:
                return count
        return most

    def answer(self, request: bytes) -> bytes:
        """The first bytes that come back."""
        self._openssl.SSL_write(self._tls, request, len(request))
        buffer = ctypes.create_string_buffer(15)
        assert self._openssl.SSL_read(self._tls, buffer, 15) == 15
        return buffer.raw

    def close(self) -> None:
        """Everything."""
        self._sock.close()
        self._openssl.SSL_free(self._tls)
        self._openssl.SSL_CTX_free(self._context)


async def test_key_updates_are_answered_but_not_without_end(api: Api) -> None:
    def work() -> None:
        client = KeyUpdater(api.socket.getsockname())
        try:
            assert client.asked(100) == 100
            assert client.answer(HELLO.replace(b"localhost", api.host.encode())) == b"HTTP/1.1 200 OK"
            assert client.asked(10**9) < 10**9
        finally:
            client.close()

    async with asyncio.timeout(60):
        await asyncio.to_thread(work)
    await until(lambda: open_count(api) == 0, "it is gone")


async def test_a_stop_cuts_handshakes_off(api: Api) -> None:
    wire = await api.wire()
    await until(lambda: open_count(api) == 1, "it is counted")
    async with asyncio.timeout(5):
        await api.server.stop(60)
    assert await wire.is_closed()


# --- certificates -------------------------------------------------------------------------------


async def test_a_client_certificate(pair: tuple[Path, Path], authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.api.doors.is_loopback", lambda host: False)
    certificate, key = authority.issue("sensor-7")
    async with running(make_door=lambda sock: Door(sock, tls=TlsFiles(*pair, authority.certificate))) as api:
        context = client_context(authority)
        context.load_cert_chain(certificate, key)
        wire = await connect(api, context)
        assert (await wire.request("POST", "/v1/topics/a", b"1")).status == 201
        reply = await wire.request("GET", "/v1/tokens")
        assert (reply.status, reply.code) == (403, "not_allowed")
        assert "the certificate 'sensor-7'" in reply.json["detail"]
        _, secret = await api.callers.create("narrow", ("publish",), ("b",))
        reply = await wire.request("POST", "/v1/topics/a", b"1", Authorization=f"Bearer {secret}")
        assert (reply.status, reply.code) == (403, "not_allowed")


@pytest.mark.parametrize("is_foreign", [False, True])
async def test_without_a_certificate_that_is_asked_for(
    pair: tuple[Path, Path], authority: Authority, tmp_path: Path, is_foreign: bool
) -> None:
    async with running(make_door=lambda sock: Door(sock, tls=TlsFiles(*pair, authority.certificate))) as api:
        context = client_context(authority)
        if is_foreign:
            context.load_cert_chain(*Authority(tmp_path, "others").issue("sensor"))
        # In TLS 1.3 a client hears of it after its own handshake is over.
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            wire = await connect(api, context)
            await wire.request("POST", "/v1/topics/a", b"1")
        await until(lambda: open_count(api) == 0, "it is gone")
        assert await api.payloads() == []


async def test_a_new_certificate_is_for_new_connections(pair: tuple[Path, Path], authority: Authority, tmp_path: Path) -> None:
    tls = TlsFiles(*pair, None)
    other = Authority(tmp_path, "other")
    async with running(make_door=lambda sock: Door(sock, tls=tls)) as api:
        old = await connect(api, client_context(authority))
        tls.take_over(TlsFiles(*other.issue("gw"), None))
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(api, client_context(authority))
        new = await connect(api, client_context(other))
        for wire in (old, new):
            assert (await wire.request("GET", "/healthz")).status == 200


# --- TLS where none is spoken -------------------------------------------------------------------


async def test_tls_on_the_plain_port(authority: Authority) -> None:
    async with running() as api:
        with socket.create_connection(api.socket.getsockname()) as sock:
            sock.setblocking(False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
        wire = await api.wire()
        await wire.send(outgoing.read())
        reply = await wire.reply()
        assert (reply.status, reply.code, reply.json["hint"]) == (400, "tls_on_plain_port", "use http://")
        assert await wire.is_closed()


# --- clients that take their time, or end early ---------------------------------------------------


class Client:
    """A TLS client over a plain wire, which says what is sent when."""

    def __init__(self, wire: Wire, context: ssl.SSLContext) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def work(self, step: Callable[[], Any], slice_bytes: int = 65_536) -> Any:
        """Take a step, and send what it brings about in slices; until it is done."""
        async with asyncio.timeout(20):
            while True:
                try:
                    done, is_done = step(), True
                except ssl.SSLWantReadError:
                    done, is_done = None, False
                out = self._outgoing.read()
                for at in range(0, len(out), slice_bytes):
                    await self._wire.send(out[at : at + slice_bytes])
                    await asyncio.sleep(0)
                if is_done:
                    return done
                data = await self._wire._reader.read(65_536)
                if not data:
                    self._incoming.write_eof()
                self._incoming.write(data)


async def test_byte_after_byte(api: Api, authority: Authority) -> None:
    client = Client(await api.wire(), client_context(authority))
    await client.work(client.tls.do_handshake, 1)
    request = b"POST /v1/topics/a HTTP/1.1\r\nHost: %b\r\nContent-Length: 1\r\n\r\nx" % api.host.encode()
    await client.work(lambda: client.tls.write(request), 1)
    assert (await client.work(lambda: client.tls.read(65_536))).startswith(b"HTTP/1.1 201 ")
    assert await api.payloads() == [b"x"]


async def test_the_handshake_and_the_request_at_once(api: Api, authority: Authority) -> None:
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    client = Client(await api.wire(), context)
    await client.work(client.tls.do_handshake, 1 << 20)
    request = b"GET /healthz HTTP/1.1\r\nHost: %b\r\n\r\n" % api.host.encode()
    await client.work(lambda: client.tls.write(request * 20))
    answers = b""
    while answers.count(b"HTTP/1.1 200 ") < 20:
        answers += await client.work(lambda: client.tls.read(65_536))


async def test_a_goodbye_behind_a_request_does_not_cost_its_answer(api: Api, authority: Authority) -> None:
    client = Client(await api.wire(), client_context(authority))
    await client.work(client.tls.do_handshake)
    request = b"POST /v1/topics/a HTTP/1.1\r\nHost: %b\r\nContent-Length: 1\r\n\r\nx" % api.host.encode()

    def ask_and_go() -> None:
        client.tls.write(request)
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()

    await client.work(ask_and_go)
    assert await client._wire._reader.read(65_536)
    await until(lambda: open_count(api) == 0, "it is gone")
    assert await api.payloads() == [b"x"]


async def test_a_connection_that_is_cut_in_a_body(api: Api, authority: Authority) -> None:
    client = Client(await api.wire(), client_context(authority))
    await client.work(client.tls.do_handshake)
    request = b"POST /v1/topics/a HTTP/1.1\r\nHost: %b\r\nContent-Length: 9\r\n\r\nx" % api.host.encode()
    await client.work(lambda: client.tls.write(request))
    client._wire.finish()  # TCP only: a cut that somebody on the way can make
    await until(lambda: open_count(api) == 0, "it is gone")
    assert await api.payloads() == []

"""The bounds of the contract on a real process and a real clock: 5 s for a head, 10 s for a body, however the bytes drip."""

import select
import socket
import time
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess

pytestmark = [pytest.mark.ci, pytest.mark.timeout(120)]

HEAD_S, BODY_S = 5.0, 10.0
# The sweep looks four times a second; the rest is for a machine that does other things as well.
LATE_S = 2.0
DRIP_S = 0.1


class Dripping:
    """A client that sends a byte now and then, and notes when it is answered and closed."""

    def __init__(self, port: int, first: bytes, rest: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(first)
        self.started_s = time.monotonic()
        self.answer = b""
        self.answered_s = 0.0
        self.is_closed = False
        self._rest = iter(rest)

    def drip(self) -> None:
        """One more byte, as long as nobody answers."""
        byte = next(self._rest, None)
        if byte is not None and not self.answer:
            self.socket.sendall(bytes([byte]))

    def read(self) -> None:
        """Something came."""
        try:
            data = self.socket.recv(65_536)
        except ConnectionResetError:
            data = b""
        self.is_closed = not data
        if data and not self.answer:
            self.answered_s = time.monotonic() - self.started_s
        self.answer += data


def watch(clients: dict[str, Dripping]) -> None:
    """Drip with all of them until all are closed."""
    next_s = time.monotonic()
    while open_ones := [client for client in clients.values() if not client.is_closed]:
        ready, _, _ = select.select([client.socket for client in open_ones], [], [], max(0.0, next_s - time.monotonic()))
        for client in open_ones:
            if client.socket in ready:
                client.read()
        if time.monotonic() >= next_s:
            next_s += DRIP_S
            for client in open_ones:
                client.drip()


def test_who_drips_is_cut_off_in_time(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        host = f"Host: 127.0.0.1:{gateway.port}\r\n".encode()
        head = b"GET /healthz HTTP/1.1\r\n" + host + b"X: " + b"x" * 4000
        whole = b"GET /healthz HTTP/1.1\r\n" + host + b"\r\n"
        post = b"POST /v1/topics/a HTTP/1.1\r\n" + host
        clients = {
            "silent": Dripping(gateway.port, b"", b""),
            "head": Dripping(gateway.port, b"", head),
            "pipelined head": Dripping(gateway.port, whole + b"GET /", b"x" * 4000),
            "body": Dripping(gateway.port, post + b"Content-Length: 4000\r\n\r\n", b"x" * 4000),
            "chunked body": Dripping(gateway.port, post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 4000),
        }
        # The pipelined one is answered once before.
        clients["pipelined head"].socket.setblocking(True)
        while b"\r\n\r\n" not in clients["pipelined head"].socket.recv(65_536, socket.MSG_PEEK):
            pass
        clients["pipelined head"].socket.recv(65_536)
        watch(clients)
        for name, client in clients.items():
            limit_s, code = (BODY_S, b"slow_body") if "body" in name else (HEAD_S, b"slow_head")
            assert client.answer.startswith(b"HTTP/1.1 408 "), (name, client.answer)
            assert code in client.answer, (name, client.answer)
            assert b"X-Request-Id: " in client.answer, name
            assert limit_s - DRIP_S <= client.answered_s <= limit_s + LATE_S, (name, client.answered_s)
            client.socket.close()
        assert gateway.request("GET", "/v1/status")[1]["streams"]["default"]["received"] == 0
        assert gateway.stop() == 0

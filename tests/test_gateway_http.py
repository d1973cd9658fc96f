"""The HTTP API as a part of the gateway: what a reload does to its sockets, and what the supervisor hears of it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgegw.config import Inputs
from edgegw.errors import ConfigError
from edgegw.reload import Reloaded
from tests.gateway_in_process import Ear, Inside, alive

TEXT = '[gateway]\ndata = "{}"\n[http]\nlisten = "127.0.0.1:{}"\n{}\n[host]\ninterval_s = 0\n'


class House:
    """A gateway with the file of its configuration."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "edgegw.toml"
        self.inputs = Inputs(self.file, {}, {})
        self._data = folder / "data"
        self.gateway: Inside

    def write(self, port: int, more: str = "") -> None:
        self.file.write_text(TEXT.format(self._data, port, more))

    async def reload(self) -> Reloaded:
        return await self.gateway.gateway._reload.reload()

    async def refusal(self) -> ConfigError:
        try:
            await self.reload()
        except ConfigError as error:
            return error
        raise AssertionError("it was taken")


@asynccontextmanager
async def housed(folder: Path, environ: dict[str, str], more: str = "") -> AsyncIterator[House]:
    house = House(folder)
    house.write(0, more)
    async with alive(house.inputs.read().config, environ, house.inputs) as house.gateway:
        yield house


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_a_moved_socket_replaces_what_the_supervisor_keeps(tmp_path: Path) -> None:
    with Ear() as ear:
        async with housed(tmp_path, ear.environ) as house:
            assert ear.heard()[-1] == "READY=1"
            house.gateway.port = free_port()
            house.write(house.gateway.port)
            assert (await house.reload()).restarted == ("http",)
            told = ear.heard()
            assert told[0].startswith("RELOADING=1")
            assert told[-1] == "READY=1"
            forgotten = [n for n, each in enumerate(told) if each == "FDSTOREREMOVE=1\nFDNAME=http"]
            kept = [n for n, each in enumerate(told) if each == "FDSTORE=1\nFDNAME=http"]
            assert len(forgotten) == len(kept) == 1
            assert forgotten < kept
            assert (await house.gateway.request("GET", "/healthz")).status == 200


async def test_limits_hold_from_the_next_connection_on(tmp_path: Path) -> None:
    async with housed(tmp_path, {}) as house:
        wires = [await house.gateway.wire() for _ in range(3)]
        for wire in wires:
            assert (await wire.request("GET", "/healthz")).status == 200
            await wire.send("GET /healthz HTTP/1.1\r\n")  # busy: none of them makes room
        house.write(0, "connections_max = 3")
        assert (await house.reload()).restarted == ()
        late = await house.gateway.wire()
        assert (await late.reply()).code == "connections_full"
        for wire in wires:
            await wire.send(f"Host: {wire.host}\r\n\r\n")
            assert (await wire.reply()).status == 200, "who is there stays"


async def test_an_address_that_is_taken_is_a_fault_of_its_line(tmp_path: Path) -> None:
    async with housed(tmp_path, {}) as house:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            house.write(taken.getsockname()[1])
            error = await house.refusal()
        (fault,) = error.faults
        assert (fault.file, fault.line, fault.key) == (str(house.file), 4, "http.listen")
        assert (await house.gateway.request("GET", "/healthz")).status == 200


async def test_what_is_bound_for_a_refused_configuration_is_let_go(tmp_path: Path) -> None:
    async with housed(tmp_path, {}) as house:
        port = free_port()
        house.write(port)
        house.file.write_text(house.file.read_text().replace('/data"', '/elsewhere"'))
        error = await house.refusal()
        assert "gateway.data" in error.what
        with socket.create_server(("127.0.0.1", port)):
            pass
        assert (await house.gateway.request("GET", "/healthz")).status == 200


async def test_a_certificate_that_is_wrong_is_refused_at_once(tmp_path: Path) -> None:
    async with housed(tmp_path, {}) as house:
        house.write(0, f'tls_certificate = "{tmp_path}/no.pem"\ntls_key = "{tmp_path}/no.key"')
        error = await house.refusal()
        assert error.code == "config_invalid"
        assert "no.pem cannot be read" in error.what
        assert (await house.gateway.request("GET", "/healthz")).status == 200

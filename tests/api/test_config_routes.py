"""/v1/config over the Unix socket, to a whole gateway: what holds, and reloads that are taken and refused."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edgegw.config import Inputs
from tests.api.in_process import Reply, Wire
from tests.gateway_in_process import Inside, alive

GOOD = '[gateway]\ndata = "{}"\n[http]\nlisten = "127.0.0.1:0"\nconnections_max = {}\n[host]\ninterval_s = 0\n'


class Owner:
    """Asks as the gateway's own user."""

    def __init__(self, gateway: Inside, file: Path, data: Path) -> None:
        self.gateway = gateway
        self.file = file
        self._data = data

    def write(self, connections: int, more: str = "") -> None:
        self.file.write_text(GOOD.format(self._data, connections) + more)

    async def ask(self, method: str, target: str) -> Reply:
        wire = Wire(*await asyncio.open_unix_connection(self._data / "edgegw.sock"), "localhost")
        try:
            return await wire.request(method, target)
        finally:
            wire.close()


@asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[Owner]:
    file, data = folder / "edgegw.toml", folder / "data"
    file.write_text(GOOD.format(data, 50))
    inputs = Inputs(file, {}, {})
    async with alive(inputs.read().config, {}, inputs) as gateway:
        yield Owner(gateway, file, data)


async def test_what_holds_and_where_it_comes_from(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        owner.write(60)
        assert (await owner.ask("POST", "/v1/config/reload")).status == 200
        shown = await owner.ask("GET", "/v1/config")
        assert shown.status == 200
        assert shown.json["config"]["http"]["connections_max"] == {"value": 60, "origin": f"{owner.file}:5"}
        assert shown.json["config"]["log"]["level"] == {"value": "info", "origin": "default"}
        assert shown.json["files"] == [str(owner.file)]
        last = shown.json["reload"]
        assert (last["result"], last["cause"], last["changed"]) == ("ok", "api", ["http.connections_max"])


async def test_a_reload_says_what_it_did(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        owner.write(70, '[[stream]]\nname = "a"\ntopics = ["a/#"]\n')
        done = await owner.ask("POST", "/v1/config/reload")
        assert done.json == {"changed": ["http.connections_max", "stream[a]"], "restarted": [], "needs_restart": []}
        assert (await owner.gateway.request("POST", "/v1/topics/a/b", b"1")).json["stream"] == "a"
        done = await owner.ask("POST", "/v1/config/reload")
        assert done.json["changed"] == []


async def test_a_wrong_one_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        owner.write(0, "[log]\nlevel = 5\n")
        refused = await owner.ask("POST", "/v1/config/reload")
        assert (refused.status, refused.code) == (400, "config_invalid")
        assert [fault.partition(": ")[0] for fault in refused.json["faults"]] == [f"{owner.file}:5", f"{owner.file}:9"]
        shown = (await owner.ask("GET", "/v1/config")).json
        assert shown["config"]["http"]["connections_max"]["value"] != 0
        assert (shown["reload"]["result"], shown["reload"]["faults"]) == ("refused", refused.json["faults"])
        assert (await owner.gateway.condition("config"))["status"] == "raised"


async def test_what_two_parts_refuse_is_told_at_once(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            text = GOOD.format(tmp_path / "elsewhere", 50).replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}")
            owner.file.write_text(text)
            refused = await owner.ask("POST", "/v1/config/reload")
        assert (refused.status, refused.code) == (400, "config_invalid")
        assert [fault.partition(": ")[0] for fault in refused.json["faults"]] == [f"{owner.file}:2", f"{owner.file}:4"]
        assert (await owner.gateway.request("GET", "/healthz")).status == 200


async def test_it_is_for_the_admin_alone(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        for method, target in (("GET", "/v1/config"), ("POST", "/v1/config/reload")):
            refused = await owner.gateway.request(method, target)
            assert (refused.status, refused.code) == (401, "no_token")
        assert (await owner.ask("GET", "/v1/config?x=1")).code == "unknown_parameter"


async def test_a_changed_address_is_served_and_the_old_one_drained(tmp_path: Path) -> None:
    async with owned(tmp_path) as owner:
        idle, busy = await owner.gateway.wire(), await owner.gateway.wire()
        assert (await idle.request("GET", "/healthz")).status == 200
        await busy.request("PUT", "/v1/consumers/c", b"{}", Content_Type="application/json")
        await busy.send(f"POST /v1/topics/t HTTP/1.1\r\nHost: {busy.host}\r\nContent-Length: 2\r\n\r\na")
        assert (await owner.gateway.request("GET", "/healthz")).status == 200  # it has been read by now
        old = owner.gateway.port
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        owner.file.write_text(owner.file.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
        done = await owner.ask("POST", "/v1/config/reload")
        assert done.json["restarted"] == ["http"]
        assert await idle.is_closed()
        await busy.send("b")
        assert (await busy.reply()).status == 201, "a request under way is finished"
        assert await busy.is_closed()
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port), f"127.0.0.1:{port}")
        assert (await wire.request("GET", "/v1/messages")).json[0]["payload"] == "ab"
        wire.close()
        try:
            late = await asyncio.open_connection("127.0.0.1", old)
        except ConnectionRefusedError:
            return
        late[1].close()
        raise AssertionError("the old address still takes connections")

"""What a section of the configuration brings about: applied while the gateway runs, in this process and over real files."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import Config, GatewayConfig, Inputs, LogConfig, Reading
from edgegw.config_source import Origin
from edgegw.errors import ConfigError
from edgegw.gateway_parts import LogPart, ProcessPart, ServicesPart
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.reload import Applied
from edgegw.services import Run, Services
from tests.gateway_in_process import Ear, Inside, alive
from tests.virtual_time import pass_time, run_virtual

FILE = """
[gateway]
data = "{data}"
stop_timeout_s = 20
[http]
listen = "127.0.0.1:0"
connections_max = {connections}
[host]
interval_s = {interval}
"""


def reading(config: Config) -> Reading:
    return Reading(config, {}, ())


# --- the small ones ------------------------------------------------------------------------------


async def test_the_data_folder_cannot_change(tmp_path: Path) -> None:
    part = ProcessPart(Config(gateway=GatewayConfig(data=tmp_path)))
    await part.prepare(reading(Config(gateway=GatewayConfig(data=tmp_path, stop_timeout_s=1))))
    new = Config(gateway=GatewayConfig(data=tmp_path / "other"))
    with pytest.raises(ConfigError, match="cannot change while the gateway runs") as caught:
        await part.prepare(Reading(new, {"gateway.data": Origin("a.toml", 3, "gateway.data")}, ()))
    assert caught.value.code == "config_invalid"
    assert [(fault.file, fault.line) for fault in caught.value.faults] == [("a.toml", 3)]
    with pytest.raises(ConfigError, match="the default"):
        await part.prepare(reading(Config()))


async def test_the_log_is_set_up_when_it_changed() -> None:
    told: list[LogConfig] = []
    part = LogPart(Config(), told.append)
    assert await part.apply(reading(Config())) == Applied()
    assert told == []
    for _ in range(2):
        await part.apply(reading(Config(log=LogConfig(level="debug"))))
    assert told == [LogConfig(level="debug")]


def test_only_services_whose_value_changed_are_restarted() -> None:
    async def main() -> None:
        story: list[str] = []
        wanted: dict[str, object] = {"a": 1, "b": 1}

        def make(value: object) -> Run:
            async def run() -> None:
                story.append(f"{value} runs")
                try:
                    await asyncio.Event().wait()
                finally:
                    story.append(f"{value} ends")

            return run

        services = Services(Metrics(), Conditions(SystemClock(), Log("edgegw.conditions")), lambda: 0.0)
        part = ServicesPart(services, lambda _: wanted, make)
        part.start(Config())
        await pass_time(1)
        assert await part.apply(reading(Config())) == Applied()
        wanted.update(b="two", c="three")
        assert await part.apply(reading(Config())) == Applied(("b", "c"))
        del wanted["a"]
        assert await part.apply(reading(Config())) == Applied()
        await pass_time(1)
        assert story == ["1 runs", "1 runs", "1 ends", "two runs", "three runs", "1 ends"]
        assert await services.stop() == []

    run_virtual(main())


# --- a gateway -----------------------------------------------------------------------------------


class Files:
    """A gateway's configuration, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.file = folder / "edgegw.toml"
        self.inputs = Inputs(self.file, {}, {})

    def write(self, more: str = "", *, connections: int = 100, interval: float = 0) -> None:
        self.file.write_text(FILE.format(data=self.data, connections=connections, interval=interval) + more)


@asynccontextmanager
async def living(folder: Path, more: str = "", environ: dict[str, str] | None = None) -> AsyncIterator[tuple[Inside, Files]]:
    files = Files(folder)
    files.write(more)
    async with alive(files.inputs.read().config, environ or {}, files.inputs) as gateway:
        yield gateway, files


async def reloads(gateway: Inside, result: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await gateway.metric(f'edgegw_config_reload_total{{result="{result}"}}') < count:
            pass


BULK = '[[stream]]\nname = "bulk"\ntopics = ["bulk/#"]\n'


async def test_streams_change_by_a_signal_and_connections_stay(tmp_path: Path) -> None:
    with Ear() as ear:
        async with living(tmp_path, BULK, ear.environ) as (gateway, files):
            ear.heard()
            kept = await gateway.wire()
            assert (await kept.request("POST", "/v1/topics/bulk/x", b"1")).json == {"stream": "bulk", "seq": 1, "class": "power"}
            waiting = await gateway.wire()
            await waiting.request("PUT", "/v1/consumers/c", b'{"stream": "bulk"}', Content_Type="application/json")
            await waiting.ask("POST", "/v1/consumers/c/fetch?wait=30")
            files.write(BULK + "rows_max = 5\n" + '[[stream]]\nname = "new"\ntopics = ["new/#"]\n')
            signal.raise_signal(signal.SIGHUP)
            await reloads(gateway, "ok", 1)
            assert ear.hear().startswith("RELOADING=1\nMONOTONIC_USEC=")
            assert ear.hear() == "READY=1"
            assert (await kept.request("POST", "/v1/topics/new/x", b"1")).json["stream"] == "new"
            assert (await kept.request("POST", "/v1/topics/bulk/x", b"2")).json["seq"] == 2
            (row,) = (await waiting.reply()).json
            assert (row["seq"], row["payload"]) == (2, "2")
            stream = (await gateway.request("GET", "/v1/status")).json["streams"]["bulk"]
            assert stream["rows_max"] == 5
            files.write()
            signal.raise_signal(signal.SIGHUP)
            await reloads(gateway, "ok", 2)
            assert (await gateway.condition("stream_bulk"))["status"] == "raised"
            assert (await kept.request("POST", "/v1/topics/bulk/x", b"3")).json["stream"] == "default"


async def test_a_refused_one_changes_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.reload.CONFIG_WATCH_S", 0.02)
    async with living(tmp_path, BULK) as (gateway, files):
        files.write(BULK.replace("bulk/#", "a/+b") + "nonsense = 1\n")
        await reloads(gateway, "refused", 1)
        shown = await gateway.condition("config")
        assert shown["status"] == "raised"
        assert f"{files.file}:1" in shown["what"]
        assert "(and 1 more)" in shown["what"]
        assert (await gateway.request("GET", "/readyz")).status == 200
        assert (await gateway.request("POST", "/v1/topics/bulk/x", b"1")).json["stream"] == "bulk"
        files.write(BULK, connections=99)
        await reloads(gateway, "ok", 1)
        assert (await gateway.condition("config"))["status"] == "ok"


async def test_the_host_source_starts_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.sources.host.HOST_FIRST_S", 0.0)
    async with living(tmp_path) as (gateway, files):
        files.write(interval=0.1)
        signal.raise_signal(signal.SIGHUP)
        async with asyncio.timeout(20):
            while (await _host(gateway))["received"] < 20:
                pass
        rows = (await gateway.request("GET", "/v1/messages?stream=host&topic=host/load")).json
        assert rows[0]["payload"]["load_1m"] >= 0
        files.write()
        signal.raise_signal(signal.SIGHUP)
        await reloads(gateway, "ok", 2)
        assert "service_host" not in [each["name"] for each in (await gateway.request("GET", "/readyz")).json["conditions"]]
        before = await _host(gateway)
        assert (await gateway.request("POST", "/v1/topics/t", b"1")).json["seq"] == 1
        assert await _host(gateway) == before


async def _host(gateway: Inside) -> dict[str, Any]:
    found = (await gateway.request("GET", "/v1/status")).json["streams"]["host"]
    assert isinstance(found, dict)
    return found | {"oldest_age_s": 0}

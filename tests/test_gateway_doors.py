"""The doors of a gateway over a reload: renewed certificates, TLS that comes, and the rules for those beyond loopback."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegw.api.routing import Answer, Call, Route, Router
from edgegw.callers import Callers
from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import Config, GatewayConfig, HttpConfig, Reading
from edgegw.core.access import OPEN
from edgegw.errors import ConfigError
from edgegw.gateway_http import HttpPart
from edgegw.notify import Supervisor
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from tests.api.in_process import Wire
from tests.certificates import Authority


async def hello(call: Call) -> Answer:
    return Answer(200, b"hello", {})


class Served:
    """An HTTP part that serves one route."""

    def __init__(self, data: Path, http: HttpConfig) -> None:
        self.clock = SystemClock()
        self.conditions = Conditions(self.clock, Log("test"))
        self.callers = Callers(self.clock, os.urandom)
        self.config = Config(gateway=GatewayConfig(data=data), http=http)
        supervisor = Supervisor.from_environ({}, os.getpid())
        self.part = HttpPart(self.config, supervisor, Metrics(), self.conditions, self.clock, self.callers)

    async def reload(self, **changes: Any) -> tuple[str, ...]:
        """Prepare and apply; what was started anew."""
        reading = Reading(replace(self.config, http=replace(self.config.http, **changes)), {}, ())
        try:
            await self.part.prepare(reading)
        except BaseException:
            self.part.withdraw()
            raise
        applied = await self.part.apply(reading)
        self.config = reading.config
        return applied.restarted

    def raised(self) -> list[str]:
        """The conditions that are."""
        return [str(each["name"]) for each in self.conditions.snapshot() if each["status"] == "raised"]

    async def is_served(self, *wires: Wire) -> bool:
        """Whether each of them gets its answer; then they are closed."""
        bodies = [(await wire.request("GET", "/hello")).body for wire in wires]
        for wire in wires:
            wire.close()
        return bodies == [b"hello"] * len(wires)

    async def wire(self, authority: Authority | None = None) -> Wire:
        """A connection to where it is now."""
        address = self.part.url.partition("://")[2]
        host, _, port = address.rpartition(":")
        context = None if authority is None else ssl.create_default_context(cafile=str(authority.certificate))
        return Wire(*await asyncio.open_connection(host, int(port), ssl=context), address)


@asynccontextmanager
async def served(data: Path, **http: Any) -> AsyncIterator[Served]:
    found = Served(data, HttpConfig(**({"listen": "127.0.0.1:0"} | http)))
    await found.callers.load()
    found.part.open()
    try:
        await found.part.start(Router([Route("GET", "/hello", hello, OPEN)], 10))
        sweeper = asyncio.create_task(found.part.run())
        yield found
        found.part.stop_accepting()
        await found.part.stop(5)
        sweeper.cancel()
        await asyncio.wait({sweeper})
    finally:
        found.part.close()
    assert not (data / "edgegw.sock").exists()


async def test_a_renewed_certificate_drops_nobody(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    certificate, key = first.issue("gw")
    async with served(tmp_path, tls_certificate=certificate, tls_key=key) as api:
        old = await api.wire(first)
        assert (await old.request("GET", "/hello")).body == b"hello"
        assert api.raised() == []
        second.issue("gw", days=3)  # over the files of the first
        assert await api.reload() == ()
        assert api.raised() == ["certificate"]
        assert await api.is_served(old, await api.wire(second))


async def test_from_plain_to_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gw")
    async with served(tmp_path) as api:
        port = api.part.url.rpartition(":")[2]
        assert await api.reload(tls_certificate=certificate, tls_key=key) == ("http",)
        assert api.part.url == f"https://127.0.0.1:{port}"
        assert await api.is_served(await api.wire(authority))


async def test_the_rules_hold_in_a_reload_too(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        url = api.part.url
        for changes in ({}, {"allow_plaintext": True}, {"tls_certificate": tmp_path / "none", "tls_key": tmp_path / "none"}):
            with pytest.raises(ConfigError):
                await api.reload(listen="0.0.0.0:0", **changes)
            assert api.part.url == url
        await api.callers.create("pump", ("publish",))
        assert await api.reload(listen="0.0.0.0:0", allow_plaintext=True) == ("http",)
        assert api.raised() == ["plaintext"]
        assert await api.reload(listen="127.0.0.1:0") == ("http",)
        assert api.raised() == []
        assert await api.is_served(await api.wire())

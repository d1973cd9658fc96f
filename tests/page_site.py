"""A gateway, a browser that shows its page, and somebody who publishes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.browser import Page, browsing
from tests.gateway_process import GatewayProcess

# Without its readings of the machine: what the tests look at is what they sent.
QUIET = {"EDGEGW_HOST__INTERVAL_S": "0"}
HOSTILE = '<img src=x onerror="window.owned=1"><script>window.owned=2</script>'
OVERRIDE = "cellar/\u202egnp.exe"
LONG = "/".join(["a-level-with-a-long-name"] * 40)
LIVE = "document.getElementById('messages-state').dataset.state === 'live'"
KNOWN = "document.getElementById('version').textContent !== ''"
READ_OUT = "document.querySelector('canvas')?.getAttribute('aria-valuetext')"
FIRST = "document.querySelector('#messages-list li')"


class Site:
    """A gateway, somebody who publishes, and the page."""

    def __init__(self, gateway: GatewayProcess, page: Page, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.page = page
        self.session = session

    async def open(self) -> None:
        """Open the page; it is connected."""
        await self.page.go(self.gateway.url + "/")
        await self.page.until(f"{LIVE} && {KNOWN}")

    async def publish(self, topic: str, payload: Any) -> None:
        """One message; bytes as they are, anything else as JSON."""
        await self.publish_all([{"topic": topic, "payload": payload}])

    async def publish_all(self, batch: list[dict[str, Any]]) -> None:
        """Many messages."""
        async with self.session.post(self.gateway.url + "/v1/messages", json=batch) as response:
            assert response.status == 201, await response.text()

    async def publish_raw(self, topic: str, payload: bytes, content_type: str) -> None:
        """One message with its own content type."""
        url = f"{self.gateway.url}/v1/topics/{topic}"
        async with self.session.post(url, data=payload, headers={"Content-Type": content_type}) as response:
            assert response.status == 201, await response.text()


@asynccontextmanager
async def visiting(data: Path, *options: str) -> AsyncIterator[Site]:
    """A site whose page neither complained nor asked another host by the end."""
    with GatewayProcess(data, *options, environ=QUIET) as gateway:
        async with browsing(f"127.0.0.1:{gateway.port}") as page, aiohttp.ClientSession() as session:
            yield Site(gateway, page, session)
            assert page.foreign == []
            assert page.faults == []

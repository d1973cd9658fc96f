"""A headless Chromium, driven through the DevTools protocol over aiohttp's WebSocket: as much of it as the page's tests need.

https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

# Far beyond what anything here takes on a busy machine: only a hang reaches it.
PATIENCE_S = 30.0
_POLL_S = 0.05
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
_FLAGS = [
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check", "--disable-gpu",
    "--disable-dev-shm-usage", "--disable-extensions", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--disable-background-networking", "--hide-scrollbars", "--force-color-profile=srgb", "--lang=en-GB",
]  # fmt: skip


def program() -> str | None:
    """Where Chromium is, if it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One tab. What goes wrong in it, and what it asks other hosts for, is collected in `faults` and `foreign`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, host: str) -> None:
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self._socket = socket
        self._host = host
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def listen(self) -> None:
        """Take in what the browser says, until it says no more."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                answer = self._answers.pop(told["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(told)
            else:
                self._event(told["method"], told["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append(f"{details['text']} {details.get('exception', {}).get('description', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.faults.append(f"console.{params['type']}: {[value.get('value') for value in params['args']]}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.faults.append(f"{params['entry']['source']}: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith((f"http://{self._host}/", "data:")):
                self.foreign.append(url)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            told = await answer
        assert "error" not in told, (method, told)
        result: dict[str, Any] = told["result"]
        return result

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        told = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, (script, told)
        return told["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until an expression is true in the page; its value."""
        value = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (value := await self.run(script)):
                    await _pause()
        except TimeoutError:
            text = await self.run("document.body.innerText.slice(0, 600).replace(/\\s+/g, ' ')")
            raise AssertionError(f"not within {PATIENCE_S} s: {script}\n{self.faults}\n{text}") from None
        return value

    async def look(self, width: int, height: int, *, scheme: str = "light", scale: float = 1, is_phone: bool = False) -> None:
        """The screen, and what its owner prefers."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def go(self, url: str) -> None:
        """Open; ready when the scripts ran."""
        told = await self.call("Page.navigate", url=url)
        assert "errorText" not in told, (url, told)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """One key, down and up."""
        code = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": _KEYS[key], "modifiers": 8 * shift}
        text = {"Enter": "\r", " ": " "}.get(key)
        await self.call("Input.dispatchKeyEvent", type="keyDown", **code, **({"text": text} if text else {}))
        await self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    async def type(self, text: str) -> None:
        """Text into whatever has the focus."""
        for char in text:
            await self.call("Input.dispatchKeyEvent", type="char", text=char)

    async def shoot(self) -> bytes:
        """The screen as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        return base64.b64decode(shot["data"])


async def _pause() -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(_POLL_S, passed.set)
    await passed.wait()


@asynccontextmanager
async def browsing(host: str) -> AsyncIterator[Page]:
    """A browser with a profile of its own and one empty tab, which is to speak to nobody but `host`."""
    found = program()
    assert found, "there is no Chromium on this machine"
    with tempfile.TemporaryDirectory(prefix="edgegw-browser-", ignore_cleanup_errors=True) as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        process = await asyncio.create_subprocess_exec(
            found, *_FLAGS, *root, f"--user-data-dir={profile}", "about:blank",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            port = await _port(Path(profile) / "DevToolsActivePort", process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    tabs = await response.json()
                url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(url, max_msg_size=0) as socket:
                    page = Page(socket, host)
                    listener = asyncio.create_task(page.listen())
                    for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
                        await page.call(f"{domain}.enable")
                    try:
                        yield page
                    finally:
                        listener.cancel()
                        await asyncio.wait({listener})
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads its own group
            await process.wait()


async def _port(path: Path, process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while not (text := _read(path)).count("\n"):
            assert process.returncode is None, f"the browser ended with {process.returncode}"
            await _pause()
    return int(text.split("\n", 1)[0])


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""

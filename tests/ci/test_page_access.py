"""The page where a token is needed: asked for, kept for the tab, told what it may not."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgegw.cli.lan import own_address
from tests.browser import Page, browsing, program
from tests.gateway_process import TREE, GatewayProcess
from tests.page_site import FIRST, KNOWN, LIVE, QUIET

pytestmark = [
    pytest.mark.ci,
    pytest.mark.timeout(180),
    pytest.mark.skipif(program() is None, reason="there is no chromium on this machine"),
]

ASKED = "document.getElementById('token-dialog').open"


async def _enter(page: Page, token: str) -> None:
    await page.until(f"{ASKED} && document.activeElement.id === 'token-field'")
    await page.type(token)
    await page.press("Enter")


async def test_a_token_is_asked_for_and_kept_for_the_tab(tmp_path: Path) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no network, and on loopback no token is asked for")
    with GatewayProcess(tmp_path / "data", "--lan", environ=QUIET) as gateway:
        token = re.findall(r"egw_[\w-]+", gateway.log)[0]
        host = f"{address}:{gateway.port}"
        async with browsing(host) as page:
            await page.go(f"http://{host}/")
            await page.until("document.getElementById('token-why').textContent.includes('token')")
            await _enter(page, "egw_wrong")
            await page.until("document.getElementById('token-why').textContent.includes('not known')")
            await page.run("document.getElementById('token-cancel').click()")
            # Who said no is not asked again by itself.
            await page.run("document.getElementById('retry').click()")
            await page.until("document.getElementById('state-words').textContent.startsWith('Token needed')")
            assert not await page.run(ASKED)
            await page.run("document.getElementById('token-open').click()")
            await _enter(page, token)
            await page.until(f"{LIVE} && {KNOWN} && !{ASKED}")
            assert "plaintext" in await page.run("document.getElementById('conditions-raised').innerText")
            await page.run("document.getElementById('welcome-send').click()")
            await page.until(f"{FIRST}?.innerText.includes('cellar/temperature')")
            command = await page.run("document.getElementById('publish-command').textContent")
            assert '-H "Authorization: Bearer $EDGEGW_TOKEN"' in command
            assert token not in await page.run(
                "document.documentElement.innerHTML + location.href + JSON.stringify({...localStorage})"
            )
            await page.go(f"http://{host}/?again")
            await page.until(f"{LIVE} && {KNOWN}")
            await page.run("document.getElementById('token-open').click(); document.getElementById('token-forget').click()")
            await page.until(ASKED)
            assert [fault for fault in page.faults if "401" not in fault] == []
            assert page.foreign == []


async def test_a_token_for_some_topics_is_told_what_it_may_not_see(tmp_path: Path) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no network, and on loopback no token is asked for")
    data = tmp_path / "data"
    with GatewayProcess(data, "--lan", environ=QUIET) as gateway:
        terms = ["--scope", "subscribe", "--topic", "cellar/#", "--data", str(data), "--json", "narrow"]
        command = [sys.executable, "-m", "edgegw", "token", "create", *terms]
        made = await asyncio.to_thread(subprocess.run, command, cwd=TREE, check=True, capture_output=True)
        host = f"{address}:{gateway.port}"
        async with browsing(host) as page:
            await page.go(f"http://{host}/")
            await _enter(page, json.loads(made.stdout)["token"])
            await page.until("document.getElementById('messages-state').textContent.includes('may not')")
            assert not await page.run(ASKED)
            await page.run(
                "document.getElementById('follow-filter').value = 'cellar/#'; document.getElementById('follow').requestSubmit()"
            )
            gateway.request("POST", "/v1/messages", [{"topic": "attic/x", "payload": 1}, {"topic": "cellar/x", "payload": 1}])
            await page.until(f"{FIRST}?.innerText.includes('cellar/x')")
            await page.run("document.getElementById('publish-form').requestSubmit()")
            await page.until("document.getElementById('publish-result').textContent.includes('token')")
            assert not await page.run(ASKED)

"""`./build.sh screenshots`: the pictures of the page in docs/, taken from a gateway with real readings.

A scratch gateway gets two hours of three rooms and a pump, the year of tests/data, and a few live messages. Where the font
Inter is installed, the pictures have it, as any reader's page would.
"""

import asyncio
import math
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from tests.browser import Page, browsing, program
from tests.gateway_process import TREE, GatewayProcess

DOCS = TREE / "docs"
BYTES_MAX = 200_000
RECORDING = TREE / "tests" / "data" / "air-quality-uci.csv"
ROOMS = {"hall": 20.0, "attic": 24.0, "cellar": 14.0}
PLOTTED = [
    "hall/temperature · celsius", "attic/temperature · celsius", "cellar/temperature · celsius",
    "plant/pump-3/state · pressure_bar", "air-quality/T", "air-quality/AH",
]  # fmt: skip

# Ticks the boxes of the series to be plotted, and closes the list again.
CHOOSE = """(async () => {
    const choose = document.getElementById('series-choose')
    choose.open = true
    await new Promise(resume => setTimeout(resume, 300))
    const boxes = () => [...document.querySelectorAll('#series-list label')].map(one =>
        [one.querySelector('.series-name').textContent, one.querySelector('input')])
    for (let again = 0; again < 2; again += 1) for (const [name, box] of boxes())
        if (box.checked !== wanted.includes(name)) box.click()
    choose.open = false
})()"""
OLDER = "document.getElementById('series-older').click()"
OLDER_DONE = "!document.getElementById('series-older').disabled"


def readings(at: datetime) -> list[dict[str, Any]]:
    """What the devices measure at one moment."""
    day_s = at.timestamp()
    entries: list[dict[str, Any]] = [
        {
            "topic": f"{room}/temperature",
            "payload": {"celsius": round(mean + 2 * math.sin(day_s / 1700 + mean) + 0.3 * math.sin(day_s / 61 + mean), 2)},
        }
        for room, mean in ROOMS.items()
    ]
    pressure = 4.2 + 0.3 * math.sin(day_s / 900) + (0.4 if day_s % 1800 < 120 else 0)
    entries.append(
        {
            "topic": "plant/pump-3/state",
            "payload": {"rpm": round(1450 + 60 * math.sin(day_s / 300)), "pressure_bar": round(pressure, 3)},
        }
    )
    return [entry | {"time": at.isoformat()} for entry in entries]


async def furnish(gateway: GatewayProcess, session: aiohttp.ClientSession) -> None:
    """A gateway as it looks after a while."""
    now = datetime.now(UTC)
    past = [entry for ago in range(7200, 0, -20) for entry in readings(now - timedelta(seconds=ago))]
    for start in range(0, len(past), 500):
        await session.post(f"{gateway.url}/v1/messages", json=past[start : start + 500])
    options = ["--topic", "air-quality/{column}", "--time-column", "Date,Time", "--missing", "-200", "--url", gateway.url]
    command = [sys.executable, "-m", "edgegw", "message", "replay", str(RECORDING), *options]
    await asyncio.to_thread(subprocess.run, command, cwd=TREE, check=True, stdout=subprocess.DEVNULL)
    async with session.get(f"{gateway.url}/v1/status") as response:
        last = (await response.json())["streams"]["default"]["last"]
    for name, topics, start in (
        ("historian", "#", "new"),
        ("display", "+/temperature", "new"),
        ("cloud", "air-quality/#", {"seq": last * 3 // 4}),
    ):
        await session.put(f"{gateway.url}/v1/consumers/{name}", json={"filter": topics, "start": start})


async def live(gateway: GatewayProcess, session: aiohttp.ClientSession) -> None:
    """Readings and an event or two, until cancelled."""
    count = 0
    while True:
        for entry in readings(datetime.now(UTC)):
            await session.post(f"{gateway.url}/v1/messages", json=[entry])
        if count % 4 == 1:
            await session.post(
                f"{gateway.url}/v1/topics/door/front",
                data=b"open" if count % 8 == 1 else b"closed",
                headers={"Content-Type": "text/plain"},
            )
        if count % 5 == 2:
            frame = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40
            await session.post(f"{gateway.url}/v1/topics/yard/camera", data=frame, headers={"Content-Type": "image/jpeg"})
        for name in ("historian", "display"):
            async with session.post(f"{gateway.url}/v1/consumers/{name}/fetch?max=1000") as response:
                seqs = [row["seq"] for row in await response.json()]
            if seqs:
                await session.post(f"{gateway.url}/v1/consumers/{name}/ack", json={"seqs": seqs})
        count += 1
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(0.4, passed.set)
        await passed.wait()


async def shoot(page: Page, name: str, width: int, height: int, **look: Any) -> None:
    """One picture into docs/."""
    await page.look(width, height, **look)
    await page.run("new Promise(resume => setTimeout(resume, 1500))")  # for the drawing to follow the size
    picture = await page.shoot()
    assert len(picture) <= BYTES_MAX, f"{name} has {len(picture)} bytes"
    (DOCS / name).write_bytes(picture)
    print(f"docs/{name}: {len(picture)} bytes")  # noqa: T201  a command of build.sh


async def main() -> None:
    """All pictures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        GatewayProcess(Path(folder) / "data", environ={"EDGEGW_HOST__INTERVAL_S": "0"}) as gateway,
    ):
        async with aiohttp.ClientSession() as session, browsing(f"127.0.0.1:{gateway.port}") as page:
            await furnish(gateway, session)
            publisher = asyncio.create_task(live(gateway, session))
            await page.look(1280, 880)
            await page.go(gateway.url + "/")
            await page.until("document.querySelectorAll('#charts figure').length >= 4")
            await page.run(CHOOSE.replace("wanted", repr(PLOTTED)))
            for _ in range(3):
                await page.run(OLDER)
                await page.until(OLDER_DONE)
            await shoot(page, "page-light.png", 1280, 880)
            await shoot(page, "page-dark.png", 1280, 880, scheme="dark")
            await shoot(page, "page-phone.png", 360, 780, scale=2, is_phone=True)
            publisher.cancel()
            await asyncio.wait({publisher})
            assert page.faults == [], page.faults


if __name__ == "__main__":
    if program() is None:
        sys.exit("screenshots: there is no chromium on this machine: install it (as root: apt-get install chromium)")
    DOCS.mkdir(exist_ok=True)
    asyncio.run(main())

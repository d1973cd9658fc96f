"""The page in a real browser, over a real gateway: what a person sees, and what must not happen."""

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser import PATIENCE_S, program
from tests.page_site import FIRST, HOSTILE, LIVE, LONG, OVERRIDE, READ_OUT, Site, visiting

pytestmark = [
    pytest.mark.ci,
    pytest.mark.timeout(180),
    pytest.mark.skipif(program() is None, reason="there is no chromium on this machine"),
]


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with visiting(tmp_path / "data") as site:
        await site.page.look(1280, 900)
        yield site


# --- what is seen -------------------------------------------------------------------------------


async def test_a_new_gateway_says_how_to_begin(site: Site) -> None:
    await site.open()
    page = site.page
    command = await page.until(
        "!document.getElementById('welcome').hidden && document.getElementById('welcome-command').textContent"
    )
    assert command == (
        f"curl -H 'Content-Type: application/json' -d '{{\"celsius\": 21.5}}' {site.gateway.url}/v1/topics/cellar/temperature"
    )
    await page.run("document.getElementById('welcome-send').click()")
    await page.until("document.getElementById('messages-list').innerText.includes('cellar/temperature')")
    await page.until("document.querySelector('.legend-value').textContent === '21.5 °C'")
    await page.until("document.getElementById('welcome').hidden")
    assert await page.run("document.getElementById('state-words').textContent") == "Ready"


async def test_a_message_is_there_as_it_comes_and_opens(site: Site) -> None:
    await site.open()
    page = site.page
    # What a double cannot hold is shown as it was sent.
    await site.publish_raw("plant/meter", b'{"serial": 12345678901234567890, "a": [1, {}]}', "application/json")
    await page.until(f"{FIRST}?.innerText.includes('plant/meter')")
    assert "12345678901234567890" in await page.run(f"{FIRST}?.innerText")
    await page.run(f"{FIRST}?.querySelector('summary').click()")
    shown = await page.until(f"{FIRST}?.querySelector('pre')?.textContent")
    assert shown == '{\n  "serial": 12345678901234567890,\n  "a": [\n    1,\n    {}\n  ]\n}'
    # While it is open the list stands still; then it goes on.
    await site.publish("plant/other", 1)
    await page.until("document.getElementById('messages-state').textContent.includes('1 new')")
    assert "plant/meter" in await page.run(f"{FIRST}?.innerText")
    await page.run(f"{FIRST}?.querySelector('summary').click()")
    await site.publish("plant/third", 1)
    await page.until(f"{FIRST}?.innerText.includes('plant/third')")


async def test_what_is_stored_is_there_at_once(site: Site) -> None:
    times = [f"2026-01-01T{i // 60:02}:{i % 60:02}:00Z" for i in range(500)]
    await site.publish_all([{"topic": f"room/{i % 3}/air", "payload": {"celsius": 20 + i}, "time": times[i]} for i in range(500)])
    await site.open()
    page = site.page
    await page.until("document.querySelectorAll('#messages-list li').length === 200")
    assert "room/1/air" in await page.run(f"{FIRST}?.innerText")
    # Three topics of one quantity are one chart, with the whole history and not only what the list holds.
    await page.until("document.querySelectorAll('#charts figure li').length === 3")
    await page.run("document.querySelector('canvas').focus()")
    async with asyncio.timeout(PATIENCE_S):
        while " 20 °C" not in (await page.run(READ_OUT) or ""):
            await page.press("Home")  # what is older is still on its way
    await page.press("ArrowRight")
    await page.until(f"{READ_OUT}.includes(' 23 °C')")


async def test_values_stand_at_the_time_of_their_source(site: Site) -> None:
    times = [f"2004-03-{day:02}T12:00:00Z" for day in range(1, 29)]
    await site.publish_all([{"topic": "old/level", "payload": {"mm": i}, "time": time} for i, time in enumerate(times)])
    await site.open()
    await site.page.run("document.querySelector('canvas')?.focus()")
    await site.page.until(f"{READ_OUT}?.startsWith('2004-03-28')")


async def test_ledgers_and_conditions_show_what_the_status_says(site: Site) -> None:
    await site.session.put(site.gateway.url + "/v1/consumers/cloud", json={"filter": "#", "start": "all"})
    await site.publish_all([{"topic": "a", "payload": i} for i in range(1234)])
    await site.open()
    page = site.page
    row = await page.until("document.querySelector('#streams-rows [data-key=default]')?.innerText")
    assert "1,234" in row
    assert " of " in row
    row = await page.until("document.querySelector('#consumers-rows [data-key=cloud]')?.innerText")
    assert "1,234" in row
    await page.until("/All \\d+ conditions are good/.test(document.getElementById('conditions-summary').textContent)")
    assert await page.run("document.getElementById('update').hidden")


# --- what must not happen -----------------------------------------------------------------------


async def test_messages_stay_text_whatever_they_say(site: Site) -> None:
    await site.open()
    page = site.page
    await site.publish_all(
        [
            {"topic": f"x/{HOSTILE}", "payload": {HOSTILE: 1, "__proto__": 2, "constructor": {"unit": HOSTILE, "v": 3}}},
            {"topic": OVERRIDE, "payload": f"{OVERRIDE}\x1b[31m\u2028 \u200b"},
            {"topic": LONG, "payload": "x" * 900_000},
            {"topic": "نص", "payload": "نص عربي"},
            {"topic": "toString", "payload": {"hasOwnProperty": 5, "valueOf": 1e308}},
        ]
    )
    await site.publish_raw("bin", bytes(range(256)) * 4, "application/octet-stream")
    await site.publish_raw("empty", b"", "text/plain")
    await site.publish_raw("liar", b"{not json", f"application/json; x={'y' * 100}")
    await page.until("document.querySelectorAll('#messages-list li').length === 8")
    await page.run("document.querySelectorAll('#messages-list details').forEach(one => { one.open = true })")
    await page.until("document.querySelectorAll('#messages-list pre').length === 8")
    text = await page.run("document.getElementById('messages-list').innerText")
    assert HOSTILE in text
    assert "\\u202egnp.exe" in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "The beginning of 879 KiB" in text
    assert "0008  08 09 0a 0b" in text
    assert "The first 64 of 1.0 KiB" in text
    assert await page.run("document.querySelectorAll('#messages-list :is(img, script)').length") == 0
    assert await page.run("window.owned") is None
    await page.run("document.getElementById('series-choose').open = true")
    await page.until("document.getElementById('series-list').innerText.includes('onerror')")
    assert await page.run("document.querySelectorAll('#values :is(img, script)').length") == 0
    assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_markup_from_text_is_refused_by_the_policy(site: Site) -> None:
    await site.open()
    page = site.page
    assert await page.run("(() => { try { document.body.innerHTML = '<b>x</b>' } catch (e) { return e.name } })()") == "TypeError"
    page.faults.clear()  # it says so itself


async def test_the_page_answers_while_two_thousand_messages_come_each_second(site: Site) -> None:
    await site.open()
    page = site.page
    await page.run(
        """(() => {
            window.gaps = []; let last = performance.now()
            const beat = () => { const now = performance.now(); gaps.push(now - last); last = now; requestAnimationFrame(beat) }
            requestAnimationFrame(beat)
        })()"""
    )
    await page.until("gaps.length > 120")
    quiet = await page.run("Math.max(...gaps.splice(0))")
    seconds, rate = 8, 2000
    loop = asyncio.get_running_loop()
    started_s, sent = loop.time(), 0
    await page.run("document.getElementById('publish-topic').select()")
    typing = asyncio.create_task(page.type("flood/typed/while/messages/come"))
    while sent < seconds * rate:
        batch = [{"topic": f"flood/{i % 50}", "payload": {"level": math.sin(i / 99), "n": i}} for i in range(sent, sent + 100)]
        await site.publish_all(batch)
        sent += len(batch)
        await _until_s(started_s + sent / rate)
    took_s = loop.time() - started_s
    await typing
    assert await page.run("document.getElementById('publish-topic').value") == "flood/typed/while/messages/come"
    gaps = sorted(await page.run("gaps"))
    # Half the frames of a quiet screen at least, and no pause that a person would call a stutter.
    assert len(gaps) > took_s * 60 / 2 * min(1, 50 / quiet), (len(gaps), took_s, quiet)
    assert gaps[len(gaps) * 99 // 100] < max(100, 4 * quiet), (gaps[-20:], quiet)
    assert "sampled" in await page.run("document.getElementById('messages-state').textContent") or took_s > 2 * seconds
    # Nothing was left out on the way: the last value drawn is the last one sent.
    await page.until(f"document.getElementById('charts').textContent.includes('{sent - 50:,}')")
    assert await page.run("document.querySelectorAll('#messages-list li').length") <= 200
    assert await page.run("document.querySelectorAll('*').length") < 5000


async def _until_s(when_s: float) -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_at(when_s, passed.set)
    await passed.wait()


# Another tab comes to the front, and goes again.
AWAY = (
    "Object.defineProperty(document, 'hidden', { configurable: true, get: () => window.away });"
    " window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
)
BACK = "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"


# --- connections --------------------------------------------------------------------------------


async def test_it_comes_back_by_itself_and_misses_nothing_of_a_stream(site: Site) -> None:
    await site.open()
    page = site.page
    await page.run(
        "document.getElementById('follow-stream').value = 'default'; document.getElementById('follow').requestSubmit()"
    )
    await site.publish("a/before", 1)
    await page.until(f"{FIRST}?.innerText.includes('a/before')")
    site.gateway.kill()
    await page.until("document.getElementById('state').dataset.state === 'lost'")
    assert "does not answer" in await page.run("document.getElementById('spoken').textContent")
    site.gateway.start()
    for name in ("first", "second"):
        await site.publish(f"a/{name}", 1)
    await page.run("document.getElementById('retry').click()")
    await page.until("document.getElementById('state').dataset.state === 'ready'")
    await page.until(f"{FIRST}?.innerText.includes('a/second')")
    seen = await page.run("[...document.querySelectorAll('#messages-list .topic')].map(one => one.textContent)")
    assert seen == ["a/second", "a/first", "a/before"]
    page.faults = [fault for fault in page.faults if "ERR_CONNECTION" not in fault and "ERR_INCOMPLETE" not in fault]


async def test_what_is_gone_shows_as_a_gap(tmp_path: Path) -> None:
    config = tmp_path / "edgegw.toml"
    config.write_text('[[stream]]\nname = "small"\ntopics = ["small/#"]\nbytes_max = 65536\npolicy = "drop-oldest"\n')
    async with visiting(tmp_path / "data", "--config", str(config)) as site:
        await site.open()
        page = site.page
        await page.until("document.querySelector('#follow-stream [value=small]') !== null")
        await page.run(
            "document.getElementById('follow-stream').value = 'small'; document.getElementById('follow').requestSubmit()"
        )
        await page.until(LIVE)
        await site.publish("small/first", 1)
        await page.until(f"{FIRST}?.innerText.includes('small/first')")
        await page.run(AWAY)
        while "edgegw_event_streams 0" not in await _metrics(site):
            await page.run("new Promise(resume => setTimeout(resume, 50))")
        for _ in range(100):
            await site.publish("small/more", "x" * 2000)
        await page.run(BACK)
        gap = await page.until("document.querySelector('#messages-list .gap')?.textContent")
        assert gap.startswith("Gap: ")
        assert "(small 2–" in gap
        assert "bytes)" in gap
        seen = await page.run("document.getElementById('messages-list').lastElementChild.innerText")
        assert "small/first" in seen


async def test_a_filter_steers_what_comes_and_a_bad_one_is_told(site: Site) -> None:
    await site.open()
    page = site.page
    await page.run("document.getElementById('follow-filter').value = 'x/+'; document.getElementById('follow').requestSubmit()")
    await page.until(LIVE)
    await site.publish_all([{"topic": "y/1", "payload": 1}, {"topic": "x/1", "payload": 1}])
    await page.until(f"{FIRST}?.innerText.includes('x/1')")
    assert await page.run("document.querySelectorAll('#messages-list li').length") == 1
    await page.run("document.getElementById('follow-filter').value = 'x/#/y'; document.getElementById('follow').requestSubmit()")
    await page.until("document.getElementById('messages-state').textContent.startsWith('Refused')")
    page.faults = [fault for fault in page.faults if "400" not in fault]


async def test_a_page_that_nobody_looks_at_asks_nothing(site: Site) -> None:
    await site.open()
    page = site.page
    await page.run(AWAY)
    while "edgegw_event_streams 0" not in await _metrics(site):
        await page.run("new Promise(resume => setTimeout(resume, 50))")
    before = await _asked(site)
    await page.run("new Promise(resume => setTimeout(resume, 5000))")
    assert await _asked(site) == before
    await page.run(BACK)
    await page.until(LIVE)
    await site.publish("back/again", 1)
    await page.until(f"{FIRST}?.innerText.includes('back/again')")


async def _metrics(site: Site) -> str:
    async with site.session.get(site.gateway.url + "/metrics") as response:
        return await response.text()


async def _asked(site: Site) -> list[str]:
    return [line for line in (await _metrics(site)).splitlines() if "requests_total" in line and "/v1/" in line]

"""The page on every screen, without a mouse, and for who does not see it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser import program
from tests.page_site import FIRST, LONG, Site, visiting

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


async def _furnish(site: Site) -> None:
    """Something everywhere, with names that are long."""
    await site.session.put(f"{site.gateway.url}/v1/consumers/{'c' * 64}", json={"filter": LONG, "start": "all"})
    await site.publish_all([{"topic": LONG, "payload": {"a" * 200: 1e300, "b": -0.000001}}, {"topic": "a b", "payload": 1}])
    await site.open()
    await site.page.until("document.querySelectorAll('#charts figure').length >= 3")
    await site.page.run("document.querySelectorAll('main details').forEach(one => { one.open = true })")
    await site.page.until("document.querySelectorAll('#series-list li').length >= 3")
    await site.page.until("document.querySelectorAll('#consumers-rows tr').length === 1")


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1920])
async def test_nothing_is_wider_than_the_screen(site: Site, width: int) -> None:
    await site.page.look(width, 740, is_phone=width < 500)
    await _furnish(site)
    wide = await site.page.run(
        """[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1
            && !one.closest('.unseen, pre, nav') && getComputedStyle(one).position !== 'absolute')
            .map(one => one.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    assert await site.page.run("document.documentElement.scrollWidth") <= width


_CONTRAST = """(() => {
    const parse = text => { const m = text.match(/[\\d.]+/g).map(Number); return { rgb: m.slice(0, 3), a: m[3] ?? 1 } }
    const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    const ground = node => { for (let one = node; one; one = one.parentElement) {
        const { rgb, a } = parse(getComputedStyle(one).backgroundColor); if (a > 0.99) return rgb } return [255, 255, 255] }
    const poor = []
    for (const node of document.querySelectorAll('body *')) {
        const words = [...node.childNodes].some(one => one.nodeType === 3 && one.textContent.trim())
        if (!words && !node.matches('input, textarea, select')) continue
        if (!node.checkVisibility() || node.closest('.unseen, .skip')) continue
        const style = getComputedStyle(node)
        const [a, b] = [light(parse(style.color).rgb), light(ground(node))].sort((x, y) => y - x)
        const ratio = (a + 0.05) / (b + 0.05)
        const isLarge = parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 600
        if (ratio < (isLarge ? 3 : 4.5)) poor.push([node.outerHTML.slice(0, 90), ratio])
    }
    return poor
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_from_its_ground(site: Site, scheme: str) -> None:
    await site.page.look(1280, 900, scheme=scheme)
    await _furnish(site)
    ground = await site.page.run("getComputedStyle(document.body).backgroundColor")
    dark = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")) < 3 * 64
    assert dark == (scheme == "dark")
    assert await site.page.run(_CONTRAST) == []


_CONTROLS = "a[href], button, input, select, textarea, summary, canvas, [tabindex='0']"
_REACHABLE = f'[...document.querySelectorAll("{_CONTROLS}")].filter(one => one.checkVisibility() && !one.disabled)'
_WALKED = "document.activeElement === document.body ? null : document.activeElement.dataset.walked ?? 'new'"


async def test_the_keyboard_reaches_every_control_and_one_sees_where_it_is(site: Site) -> None:
    await _furnish(site)
    page = site.page
    await page.run("document.getElementById('follow-pause').click()")
    await page.run("document.activeElement.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    wanted = await page.run(f"{_REACHABLE}.length")
    hidden: list[str] = []
    for _ in range(wanted + 20):
        await page.press("Tab")
        where = await page.run(_WALKED)
        if where == "1":
            break
        outline = (
            await page.run(
                "(one => { one.dataset.walked = '1'; const style = getComputedStyle(one);"
                " return [style.outlineStyle, parseFloat(style.outlineWidth)] })"
                "(document.activeElement)"
            )
            if where
            else ["auto", 2]
        )
        if outline[0] == "none" or outline[1] < 1:
            hidden.append(await page.run("document.activeElement.outerHTML.slice(0, 120)"))
    missed = await page.run(f"{_REACHABLE}.filter(one => !one.dataset.walked).map(one => one.outerHTML.slice(0, 120))")
    assert missed == []
    assert hidden == []


async def test_the_form_works_without_a_mouse(site: Site) -> None:
    await site.open()
    page = site.page
    await page.run("document.getElementById('publish-topic').select()")
    await page.type("by/keyboard")
    await page.press("Enter")
    await page.until("document.getElementById('publish-result').textContent.startsWith('Stored as default')")
    await page.until(f"{FIRST}?.innerText.includes('by/keyboard')")
    await page.run("document.querySelector('#messages-list summary').focus()")
    await page.press("Enter")
    await page.until("document.querySelector('#messages-list pre')?.textContent")


_NAMED = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "slider",
    "meter",
    "table",
    "region",
    "dialog",
    "form",
}


async def test_a_screen_reader_has_a_name_for_everything(site: Site) -> None:
    await site.page.look(360, 740, is_phone=True)  # where tables are laid out as cards
    await _furnish(site)
    tree = (await site.page.call("Accessibility.getFullAXTree"))["nodes"]
    seen: dict[str, int] = {}
    nameless = []
    for node in tree:
        role = node.get("role", {}).get("value", "").lower()
        if node.get("ignored"):
            continue
        seen[role] = seen.get(role, 0) + 1
        if role in _NAMED - {"form"} and not node.get("name", {}).get("value", "").strip():
            nameless.append(json.dumps(node)[:300])
    assert nameless == []
    assert seen["main"] == seen["banner"] == 1
    assert seen["table"] == 2
    assert seen["columnheader"] == 12
    assert seen["rowheader"] >= 3
    assert seen["cell"] >= 15
    assert seen["slider"] >= 3
    assert seen["heading"] >= 7
    # What speaks by itself: the state, and the answers to what a person did. The list of messages does not.
    live = await site.page.run("[...document.querySelectorAll('[role=status], [aria-live]')].map(one => one.id)")
    assert set(live) == {"spoken", "welcome-result", "series-note-older", "publish-result"}

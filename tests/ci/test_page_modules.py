"""The page's pure modules, each by itself, in a browser that loads them from the gateway."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.browser import Page, browsing, program
from tests.gateway_process import GatewayProcess

pytestmark = [
    pytest.mark.ci,
    pytest.mark.timeout(120),
    pytest.mark.skipif(program() is None, reason="there is no chromium on this machine"),
]


class Modules:
    """Runs scripts that use what a module exports."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def run(self, module: str, script: str, **given: Any) -> Any:
        """The value of `script`, which may name the module's exports as `m` and what is given by its name."""
        names = "".join(f"const {name} = {json.dumps(value)}; " for name, value in given.items())
        return await self._page.run(f"import('/ui/{module}.js').then(m => {{ {names} return {script} }})")


@pytest_asyncio.fixture
async def modules(tmp_path: Path) -> AsyncIterator[Modules]:
    with GatewayProcess(tmp_path / "data") as gateway:
        async with browsing(f"127.0.0.1:{gateway.port}") as page:
            await page.go(gateway.url + "/")
            yield Modules(page)
            assert page.faults == []


STREAM = (
    ': hello\r\n\r\nid: default:1\ndata: {"a":1}\n\nevent: gap\r\nid: default:7\r\ndata: {"gap":\r\ndata:  {}}\r\n\r\n'
    "id: empty\n\ndata\n\ndata:é\u2028x\n\n: bye\n\nunknown: x\ndata: cut off"
)
EVENTS = [
    {"type": "message", "data": '{"a":1}', "id": "default:1"},
    {"type": "gap", "data": '{"gap":\n {}}', "id": "default:7"},
    {"type": "message", "data": "", "id": None},
    {"type": "message", "data": "é\u2028x", "id": None},
]


async def test_events_are_the_same_however_they_are_cut(modules: Modules) -> None:
    script = """[1, 2, 3, 5, 7, 1000].map(size => {
        const parser = new m.EventParser(); const events = []
        for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)))
        return events
    })"""
    for events in await modules.run("sse", script, text=STREAM):
        assert events == EVENTS


async def test_an_event_that_is_too_long_is_dropped_and_the_next_one_is_not(modules: Modules) -> None:
    script = """(() => {
        const parser = new m.EventParser(); const piece = 'x'.repeat(1 << 20); const events = []
        events.push(...parser.push('data: '))
        for (let i = 0; i < 9; i += 1) events.push(...parser.push(piece))
        events.push(...parser.push('\\n\\ndata: next\\n\\n'))
        return events.map(one => one.data)
    })()"""
    assert await modules.run("sse", script) == ["next"]


ROWS = (
    '[{"stream":"s","seq":1,"topic":"a,\\"payload\\":{","time":"t","content_type":"application/json","payload":'
    '{"n":12345678901234567890,"s":"]}\\\\\\"[{","f":1.50}},\n'
    '{"gap":{"first":2,"last":3,"count":2,"reason":"age"}},\n'
    '{"stream":"dead-letter","seq":4,"topic":"b","time":"t","content_type":"application/json","payload":[1,{"x":[]}],'
    '"consumer":"c","deliveries":3,"reason":"nack"},\n'
    '{"stream":"s","seq":5,"topic":"c","time":"t","content_type":"text/plain","payload":"two\\nlines"},\n'
    '{"stream":"s","seq":6,"topic":"d","time":"t","content_type":"x","payload_b64":"AAECAw=="}]'
)


async def test_payloads_keep_the_digits_they_came_with(modules: Modules) -> None:
    script = "m.rowsOf(new Response(text)).then(rows => rows.map(([row, raw]) => [row.seq, m.shownPayload(row, raw)]))"
    shown = dict(await modules.run("payload", script, text=ROWS))
    assert [*shown] == [1, 4, 5, 6]
    assert shown[1]["text"] == '{"n":12345678901234567890,"s":"]}\\\\\\"[{","f":1.50}'
    assert shown[4]["text"] == '[1,{"x":[]}]'
    assert (shown[5]["kind"], shown[5]["text"], shown[5]["size"]) == ("text", "two\nlines", 9)
    assert (shown[6]["kind"], shown[6]["text"].split(), shown[6]["size"]) == (
        "binary",
        ["0000", "00", "01", "02", "03", "····"],
        4,
    )


async def test_indents_leave_the_value_as_it_is(modules: Modules) -> None:
    for text in ('{"a":[1,2,{"b":"x,{}:[]\\\\"}],"c":{},"d":[ ],"e":-1.50e10}', "[]", '"x"', "17", "[" * 300 + "]" * 300):
        indented = await modules.run("payload", "m.indented(text)", text=text)
        assert json.loads(indented) == json.loads(text)
    assert await modules.run("payload", "m.indented(text)", text='{"a":[1,{}]}') == '{\n  "a": [\n    1,\n    {}\n  ]\n}'


async def test_a_full_series_halves_itself_and_keeps_every_extreme(modules: Modules) -> None:
    script = """(() => {
        const series = new m.Series('t', 'f', ''); series.isPlotted = true
        for (let i = 0; i < 100000; i += 1) series.add(i, i === 31337 ? 1000 : i === 777 ? -1000 : Math.sin(i / 50))
        series.sort()
        const values = [...series.values.subarray(0, series.length)]; const times = [...series.times.subarray(0, series.length)]
        const isSorted = times.every((t, i) => i === 0 || t >= times[i - 1])
        return [series.length, Math.max(...values), Math.min(...values), isSorted, times.at(-1)]
    })()"""
    length, high, low, is_sorted, last = await modules.run("series", script)
    assert length <= 4096
    assert (high, low, is_sorted, last) == (1000, -1000, True, 99999)


async def test_series_are_bounded_and_ignore_what_came_before(modules: Modules) -> None:
    row = {"stream": "s", "topic": "t", "time": "2026-01-01T00:00:00Z", "content_type": "application/json"}
    script = """(() => {
        const store = new m.SeriesStore()
        for (let i = 0; i < 1000; i += 1) store.take({ ...row, topic: `t${i}`, seq: i + 1, payload: i }, 10)
        const before = store.series.get('t7\\u0000').total
        store.take({ ...row, topic: 't7', seq: 8, payload: 1 }, 10)
        store.take({ ...row, topic: 't7', seq: 9999, payload: 1 }, 10)
        return [store.series.size, before, store.series.get('t7\\u0000').total]
    })()"""
    assert await modules.run("series", script, row=row) == [300, 1, 2]


async def test_numbers_are_found_where_they_are(modules: Modules) -> None:
    cases: list[tuple[Any, list[Any]]] = [
        (21.5, [["", 21.5, ""]]),
        (" 1e3 ", [["", 1000, ""]]),
        ("0x10", []),
        ("", []),
        (True, []),
        (None, []),
        ({"a": {"b": [1, "x", 2]}}, [["a.b.0", 1, ""], ["a.b.2", 2, ""]]),
        ({"value": 3, "unit": "bar"}, [["value", 3, "bar"]]),
        ({"a": {"b": {"c": {"d": {"e": 1}}}}}, []),
    ]
    for payload, expected in cases:
        assert await modules.run("series", "m.leavesOf(payload)", payload=payload) == expected
    assert len(await modules.run("series", "m.leavesOf(payload)", payload=list(range(1000)))) == 16


async def test_quantities_read_well(modules: Modules) -> None:
    script = """[m.count(0), m.count(9999999), m.count(12345678), m.bytes(0), m.bytes(1023), m.bytes(1048575), m.bytes(2 ** 53),
        m.age(0), m.age(59.9), m.age(3600), m.age(90061), m.age(null), m.rate(0), m.rate(0.01), m.rate(2.25), m.rate(1999.6),
        m.rate(null), m.measured(-0.5, 'V'), m.measured(1e300, ''), m.measured(0.1 + 0.2, ''), m.measured(1234567, '')]"""
    assert await modules.run("format", script) == [
        "0", "9,999,999", "12.3M", "0 B", "1023 B", "1.0 MiB", "8.0 PiB",
        "0 s", "59 s", "1 h", "1 d 1 h", "–", "0", "< 0.1", "2.3", "2,000",
        "–", "−0.5 V", "1.000e300", "0.3", "1,234,567",
    ]  # fmt: skip


async def test_unseen_characters_are_seen(modules: Modules) -> None:
    text = "a\u202eb\u0000c\nd\te\u200bf\ufeff😀"
    assert await modules.run("format", "m.visible(text)", text=text) == "a\\u202eb\\u0000c↵d⇥e\\u200bf\\ufeff😀"
    assert await modules.run("format", "m.visibleLines(text)", text=text) == "a\\u202eb\\u0000c\nd\te\\u200bf\\ufeff😀"
    assert await modules.run("format", "[m.cut('ab😀', 3), m.cut('ab😀', 4)]") == ["ab", "ab😀"]


async def test_ticks_are_few_round_and_in_their_span(modules: Modules) -> None:
    script = "spans.map(span => m.timeTicks(first, first + span, 4))"
    spans = [1000 * 10**exponent for exponent in range(10)]
    first = 1_078_000_000_000
    for span, ticks in zip(spans, await modules.run("chart", script, spans=spans, first=first), strict=True):
        assert 1 <= len(ticks) <= 6, (span, ticks)
        assert all(first <= ms <= first + span for ms, _ in ticks)
        assert len({label for _, label in ticks}) == len(ticks)

"""Logging end to end: real loggers, real pipes, storms and stalls."""

import io
import json
import logging
import os
import pty
from collections.abc import Iterator
from threading import Thread
from typing import TextIO

import pytest

from edgegw.errors import StoreError
from edgegw.limits import LOG_EVENTS_MAX, LOG_REPEATS_MAX, LOG_REPEATS_WINDOW_S
from edgegw.observe.log import REQUEST_ID, LineHandler, Log, Repeats, setup
from edgegw.observe.log_lines import json_line


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Put the loggers back as they were."""
    root, ours = logging.getLogger(), logging.getLogger("edgegw")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    for handler in set(root.handlers).difference(handlers):
        handler.close()
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def _handler(stream: TextIO, now_s: list[float]) -> LineHandler:
    handler = LineHandler(stream, json_line, lambda: now_s[0])
    logging.getLogger().handlers = [handler]
    logging.getLogger("edgegw").setLevel(logging.DEBUG)
    return handler


def test_an_event_with_fields() -> None:
    stream = io.StringIO()
    setup("info", "auto", stream)
    log = Log("edgegw.x")
    token = REQUEST_ID.set("r-7")
    log.info("store.opened", rows=3)
    REQUEST_ID.reset(token)
    log.error("store.failed", error=StoreError("disk_io", "100 % broken %s"))
    log.debug("not.shown")
    first, second = _lines(stream.getvalue())
    assert (first["logger"], first["event"], first["rows"], first["request_id"]) == ("edgegw.x", "store.opened", 3, "r-7")
    assert (second["level"], second["event"]) == ("error", "store.failed")
    assert second["error"] == {"code": "disk_io", "class": "StoreError", "category": "disk", "text": "100 % broken %s"}


def test_another_set_up_tells_what_the_one_before_held_back() -> None:
    stream = io.StringIO()
    setup("info", "json", stream)
    for _ in range(LOG_REPEATS_MAX + 3):
        Log("edgegw.x").info("x.happened")
    setup("debug", "json", stream)
    last = _lines(stream.getvalue())[-1]
    assert (last["event"], last["what"], last["count"]) == ("log.suppressed", "x.happened", 3)
    Log("edgegw.x").debug("x.seen")
    assert _lines(stream.getvalue())[-1]["event"] == "x.seen"


def test_other_libraries_use_the_same_stream() -> None:
    stream = io.StringIO()
    setup("info", "json", stream)
    setup("info", "json", stream)  # again: nothing is written twice
    logging.getLogger("aiohttp.server").error("Error handling %s\n", "request", exc_info=ValueError("x"))
    logging.getLogger("asyncio").info("a step of the library")
    logging.getLogger("asyncio").warning("takes %d", "no number")
    first, second = _lines(stream.getvalue())
    assert (first["event"], first["message"]) == ("log.message", "Error handling request\n")
    assert first["error"]["class"] == "ValueError"  # type: ignore[index]
    assert second["message"] == "takes %d ('no number',)"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["ours debug", "ours info", "ours error", "theirs debug", "theirs warning"]),
        ("info", ["ours info", "ours error", "theirs warning"]),
        ("error", ["ours error"]),
    ],
)
def test_levels(level: str, shown: list[str]) -> None:
    stream = io.StringIO()
    setup(level, "json", stream)
    log = Log("edgegw.x")
    log.debug("ours debug")
    log.info("ours info")
    log.error("ours error")
    logging.getLogger("asyncio").debug("theirs debug")
    logging.getLogger("asyncio").warning("theirs warning")
    assert [line.get("message", line["event"]) for line in _lines(stream.getvalue())] == shown


def test_text_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    inner, outer = pty.openpty()
    with os.fdopen(inner, "rb", 0) as screen, os.fdopen(outer, "w") as stream:
        setup("info", "auto", stream)
        Log("edgegw.x").warning("disk.slow", ms=7)
        assert "\x1b[33mwarning\x1b[0m disk.slow" in screen.read(200).decode()
        setup("info", "json", stream)
        Log("edgegw.x").info("disk.slow", ms=7)
        assert json.loads(screen.read(200))["ms"] == 7
        monkeypatch.setenv("NO_COLOR", "1")
        setup("info", "text", stream)
        Log("edgegw.x").warning("disk.slow", ms=7)
        assert b"\x1b" not in screen.read(200)


def test_a_storm_is_counted() -> None:
    stream, now_s = io.StringIO(), [0.0]
    _handler(stream, now_s)
    log = Log("edgegw.x")
    for _ in range(LOG_REPEATS_MAX + 30):
        log.warning("peer.refused")
    log.warning("another.event")
    assert len(_lines(stream.getvalue())) == LOG_REPEATS_MAX + 1
    now_s[0] = LOG_REPEATS_WINDOW_S
    log.warning("another.event")
    told, last = _lines(stream.getvalue())[-2:]
    assert (told["event"], told["logger"], told["what"], told["count"]) == ("log.suppressed", "edgegw.x", "peer.refused", 30)
    assert last["event"] == "another.event"
    log.warning("peer.refused")
    assert _lines(stream.getvalue())[-1]["event"] == "peer.refused"


def test_a_storm_from_a_library_is_counted_by_place() -> None:
    stream, now_s = io.StringIO(), [0.0]
    _handler(stream, now_s)
    for number in range(LOG_REPEATS_MAX + 5):
        logging.getLogger("asyncio").error(f"task {number} failed")  # noqa: G004 -- as asyncio does
    assert len(_lines(stream.getvalue())) == LOG_REPEATS_MAX


def test_the_rest_of_a_storm_is_told_at_the_end() -> None:
    stream = io.StringIO()
    handler = _handler(stream, [0.0])
    for _ in range(LOG_REPEATS_MAX + 3):
        Log("edgegw.x").warning("peer.refused")
    handler.close()
    assert _lines(stream.getvalue())[-1]["count"] == 3


def test_the_table_of_storms_is_bounded() -> None:
    repeats = Repeats()
    for number in range(LOG_EVENTS_MAX + 1000):
        repeats.admit(("a", str(number)), 0.0)
    assert sum(count for _, count in repeats.overdue(99.0)) == 1000 - LOG_REPEATS_MAX
    # When their windows have ended there is room again.
    assert all(repeats.admit(("b", str(number)), 99.0) for number in range(LOG_EVENTS_MAX))


def test_a_stalled_reader_holds_up_nobody() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader:
        with os.fdopen(writing, "w") as stream:
            now_s = [0.0]
            _handler(stream, now_s)
            log = Log("edgegw.x")
            for number in range(2000):  # far more than a pipe holds: without the poll this would never end
                now_s[0] += LOG_REPEATS_WINDOW_S
                log.info("some.event", number=number, filler="x" * 400)
            first = os.read(reading, 64 * 1024)
            log.info("last.event")
        lines = _lines((first + reader.read()).decode())
    assert [line["event"] for line in lines[-2:]] == ["log.lost", "last.event"]
    assert lines[-2]["count"] == 2000 - len(lines[:-2])
    assert [line["number"] for line in lines[:-2]] == list(range(len(lines) - 2))


def test_a_reader_that_is_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        _handler(stream, [0.0])
        Log("edgegw.x").info("into.nothing")


def test_a_closed_stream() -> None:
    stream = io.StringIO()
    _handler(stream, [0.0])
    stream.close()
    Log("edgegw.x").info("into.nothing")


def test_a_line_that_cannot_be_made() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError("no text")

    stream = io.StringIO()
    _handler(stream, [0.0])
    logging.getLogger("edgegw.x").warning(Name("x"))
    Log("edgegw.x").info("next")
    assert [line["event"] for line in _lines(stream.getvalue())] == ["log.lost", "next"]


def test_threads_do_not_mix_their_lines() -> None:
    stream = io.StringIO()
    _handler(stream, [0.0])

    def talk(number: int) -> None:
        for turn in range(LOG_REPEATS_MAX):
            Log(f"edgegw.x{number}").info("turn", number=turn)

    threads = [Thread(target=talk, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_lines(stream.getvalue())) == 4 * LOG_REPEATS_MAX

"""Lines: whatever is logged, one bounded line that a strict reader takes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegw.errors import Busy, ConfigError, GatewayError, PeerError, StoreFull, TooLarge
from edgegw.limits import LOG_ENTRIES_MAX, LOG_FRAMES_MAX, LOG_LINE_BYTES_MAX, LOG_VALUE_CHARS_MAX
from edgegw.observe.log_lines import Entry, category, json_line, plain, text_line


def _entry(error: BaseException | None = None, /, *, request_id: str = "", has_trace: bool = True, **fields: object) -> Entry:
    return Entry(1_700_000_000.1239, "warning", "edgegw.store", "store.opened", request_id, fields, error, has_trace)


def _read(line: str) -> dict[str, object]:
    """One line as a strict reader sees it."""

    def refuse(text: str) -> float:
        raise AssertionError(f"not JSON: {text}")

    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert line.isascii()
    assert len(line) <= LOG_LINE_BYTES_MAX
    value = json.loads(line, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()  # no half characters in it
    assert isinstance(value, dict)
    return value


def _raised(make: Callable[[], object]) -> BaseException:
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Endless:
    def __str__(self) -> str:
        return str(self)


def test_a_line_in_json() -> None:
    assert _read(json_line(_entry(rows=3, path=Path("bus.db"), request_id="r-1"))) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "edgegw.store",
        "event": "store.opened",
        "request_id": "r-1",
        "rows": 3,
        "path": "bus.db",
    }


def test_a_line_for_a_person() -> None:
    line = text_line(_entry(rows=3, path="a b", what='"', empty="", ok=True, request_id="r-1"))
    assert line == '22:13:20.123Z warning store.opened             rows=3 path="a b" what="\\"" empty="" ok=true request_id=r-1\n'
    assert "\x1b[33mwarning" in text_line(_entry(), has_color=True)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (10**5000, "<int of 16610 bits>"),
        (0.25, 0.25),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("x" * (LOG_VALUE_CHARS_MAX + 7), "x" * LOG_VALUE_CHARS_MAX + "…+7"),
        ("\udc80\ud83d", "\\udc80\\ud83d"),
        (b"\xff\x00a", "\\xff\x00a"),
        ((1, {2}, [3]), [1, [2], [3]]),
        (list(range(100)), [*range(LOG_ENTRIES_MAX), f"…+{100 - LOG_ENTRIES_MAX}"]),
        ({1: {2: {3: {4: 5}}}}, {"1": {"2": {"3": "…"}}}),
        (dict.fromkeys(range(100)), {**dict.fromkeys(map(str, range(LOG_ENTRIES_MAX))), "…": 100 - LOG_ENTRIES_MAX}),
        (Path("a") / "b", "a/b"),
        (Broken(), "<unprintable Broken>"),
        (Endless(), "<unprintable Endless>"),
        ([Broken(), 1], ["<unprintable Broken>", 1]),
        (ValueError("no"), "no"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(value: object, shown: object) -> None:
    assert plain(value) == shown
    _read(json_line(_entry(value=value)))


def test_a_list_that_holds_itself() -> None:
    ring: list[object] = []
    ring.append(ring)
    assert plain(ring) == [[["…"]]]


def test_fields_do_not_replace_the_line_s_own() -> None:
    line = _read(json_line(_entry(time=1, level=2, logger=3, event=4, error=5, cut=6)))
    assert line["event"] == "store.opened"
    assert [line[name] for name in ("time_", "level_", "logger_", "event_", "error_", "cut_")] == [1, 2, 3, 4, 5, 6]


def test_what_does_not_fit_is_counted() -> None:
    # Escaped, a value takes six times its length.
    line = _read(json_line(_entry(a=1, b="\x01" * 400, c="\x01" * 400, d="\x01" * 400, z=2)))
    assert (line["a"], line["z"], line["cut"]) == (1, 2, 2)
    assert {"b", "c", "d"} & line.keys() == {"b"}


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (ConfigError("bad_key", ""), "bad_key", "operator"),
        (StoreFull("store_full", ""), "store_full", "disk"),
        (Busy("busy", ""), "busy", "disk"),
        (PeerError("refused", ""), "refused", "peer"),
        (TooLarge("body_too_large", ""), "body_too_large", "caller"),
        (GatewayError("new", ""), "new", "bug"),
        (ConnectionRefusedError(111, "refused"), "ECONNREFUSED", "peer"),
        (TimeoutError(), "unexpected", "peer"),
        (PermissionError(13, "no"), "EACCES", "operator"),
        (OSError(28, "full"), "ENOSPC", "disk"),
        (OSError("no number"), "unexpected", "disk"),
        (ValueError(), "unexpected", "bug"),
        (KeyboardInterrupt(), "unexpected", "bug"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_who_must_act(error: BaseException, code: str, name: str) -> None:
    assert category(error) == name
    shown = _read(json_line(_entry(error)))["error"]
    assert isinstance(shown, dict)
    assert (shown["code"], shown["category"], shown["class"]) == (code, name, type(error).__name__)


def _fail() -> None:
    try:
        raise OSError(28, "disk\nfull")
    except OSError as cause:
        raise StoreFull("store_full", "no room for 10 bytes", "make room") from cause


def test_an_error_with_trace_and_cause() -> None:
    error = _raised(_fail)
    shown = _read(json_line(_entry(error, rows=1)))["error"]
    assert isinstance(shown, dict)
    assert (shown["text"], shown["hint"]) == ("no room for 10 bytes", "make room")
    assert shown["trace"][-1].endswith(" _fail")
    assert "test_log_lines.py:" in shown["trace"][-1]
    assert shown["cause"]["code"] == "ENOSPC"
    assert shown["cause"]["text"] == "[Errno 28] disk\nfull"
    text = text_line(_entry(error, rows=1)).splitlines()
    assert text[1] == "    StoreFull store_full [disk]: no room for 10 bytes (make room)"
    assert any(line == "    caused by" for line in text)
    assert any(line == "      OSError ENOSPC [disk]: [Errno 28] disk\\nfull" for line in text)


def test_an_error_while_another_was_handled() -> None:
    def fail() -> None:
        try:
            raise OSError(5, "the disk")
        except OSError:
            assert not "reached", "a second fault"

    shown = _read(json_line(_entry(_raised(fail))))["error"]
    assert isinstance(shown, dict)
    assert shown["cause"]["code"] == "EIO"


def test_an_error_without_trace() -> None:
    shown = _read(json_line(_entry(_raised(_fail), has_trace=False)))["error"]
    assert isinstance(shown, dict)
    assert "trace" not in shown


def test_a_deep_trace_keeps_its_inner_end() -> None:
    def dive(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        dive(depth - 1)

    shown = _read(json_line(_entry(_raised(lambda: dive(400)))))["error"]
    assert isinstance(shown, dict)
    assert len(shown["trace"]) == LOG_FRAMES_MAX
    assert all(frame.endswith(" dive") for frame in shown["trace"])


def test_a_group_shows_its_first_error() -> None:
    group = ExceptionGroup("two tasks", [PeerError("refused", "the broker refused"), ValueError()])
    shown = _read(json_line(_entry(group)))["error"]
    assert isinstance(shown, dict)
    assert shown["cause"]["code"] == "refused"


def test_an_error_without_text() -> None:
    shown = _read(json_line(_entry(RuntimeError(Broken()))))["error"]
    assert isinstance(shown, dict)
    assert shown["text"] == "<unprintable RuntimeError>"


def test_a_huge_error_gives_way_and_fields_stay() -> None:
    error = ConfigError("bad_key", "\x01" * 5000, "\x02" * 5000)
    line = _read(json_line(_entry(error, service="mqtt", rest="\x01" * 400)))
    assert line["service"] == "mqtt"
    assert line["cut"] == 1
    shown = line["error"]
    assert isinstance(shown, dict)
    assert shown["code"] == "bad_key"


def test_everything_huge_at_once() -> None:
    wide = "\U0001f600" * 5000
    kind = type("X" * 500, (ConfigError,), {})
    entry = Entry(0.0, "warning", wide, wide, wide, {wide: wide, "a": 1}, kind(wide, wide, wide), has_trace=True)
    line = _read(json_line(entry))
    assert line["a"] == 1
    assert len(text_line(entry).encode()) <= LOG_LINE_BYTES_MAX


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.text(st.characters(categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)


@settings(max_examples=40)
@given(fields=st.dictionaries(st.text(), _anything), event=st.text(), hint=st.text())
def test_any_entry_is_one_line(fields: dict[str, object], event: str, hint: str) -> None:
    entry = Entry(1.0, "info", event, event, hint, fields, PeerError(event, hint, hint), has_trace=True)
    line = _read(json_line(entry))
    assert {"time", "level", "logger", "event", "error"} <= line.keys()
    text = text_line(entry)
    assert len(text.encode()) <= LOG_LINE_BYTES_MAX
    assert all(char.isprintable() for char in text.replace("\n", ""))

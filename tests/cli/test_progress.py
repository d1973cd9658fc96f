"""edgegw/cli/progress.py"""

import io
import os
import pty

import pytest

from edgegw.cli.progress import Progress, clock_text
from edgegw.limits import PROGRESS_LINE_S, PROGRESS_REDRAW_S


class Watch:
    """A clock and a file that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.done_bytes = 0

    def clock(self) -> float:
        return self.now_s

    def done(self) -> int:
        return self.done_bytes

    def progress(self, stream: io.StringIO, *, total_bytes: int | None = 1000, terminal: bool = True) -> Progress:
        return Progress(stream, clock=self.clock, done_bytes=self.done, total_bytes=total_bytes, terminal=terminal)


def test_bar_on_a_terminal() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream)
    progress.update(0)
    watch.now_s, watch.done_bytes = 110.0, 250
    progress.update(5000)
    watch.now_s, watch.done_bytes = 120.0, 1000
    progress.update(20_000)
    progress.close()
    assert stream.getvalue().split("\r\x1b[K")[1:] == [
        "[                        ]   0%  0 readings, 0/s",
        "[######                  ]  25%  5,000 readings, 500/s, 0:30 left",
        "[########################] 100%  20,000 readings, 1,000/s, 0:00 left",
        "",
    ]


def test_bar_is_not_drawn_more_often_than_it_can_be_seen() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream)
    for _ in range(100):
        progress.update(1)
        watch.now_s += PROGRESS_REDRAW_S / 50
    assert stream.getvalue().count("\r") == 2


def test_lines_where_no_terminal_is() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream, terminal=False)
    for step in range(1, 5):
        watch.now_s, watch.done_bytes = 100.0 + step * PROGRESS_LINE_S / 2, 100 * step
        progress.update(1000 * step)
    progress.note("said")
    progress.close()
    assert stream.getvalue() == "20%, 2,000 readings, 200/s\n40%, 4,000 readings, 200/s, 1:00 left\nsaid\n"


def test_a_short_replay_leaves_no_lines() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream, terminal=False)
    progress.update(1)
    progress.close()
    assert stream.getvalue() == ""


def test_notes_stay_above_the_bar() -> None:
    stream = io.StringIO()
    Watch().progress(stream).note("said")
    assert stream.getvalue() == "\r\x1b[Ksaid\n"


def test_input_of_unknown_size_has_no_bar() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream, total_bytes=None)
    watch.now_s = 102.0
    progress.update(10)
    assert stream.getvalue() == "\r\x1b[K10 readings, 5/s"


def test_what_a_resumed_replay_skips_is_not_taken_for_speed() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = watch.progress(stream)
    watch.done_bytes = 500
    progress.update(0)
    watch.now_s, watch.done_bytes = 110.0, 600
    progress.update(100)
    assert stream.getvalue().endswith("100 readings, 10/s, 0:40 left")


@pytest.mark.parametrize(("columns", "length"), [(20, 19), (0, 48)])
def test_bar_fits_its_terminal(columns: int, length: int) -> None:
    import fcntl
    import struct
    import termios

    try:
        main, terminal = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals here")
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    watch = Watch()
    with os.fdopen(terminal, "w") as stream:
        Progress(stream, clock=watch.clock, done_bytes=watch.done, total_bytes=1000, terminal=True).update(0)
        drawn = os.read(main, 1000).decode()
    os.close(main)
    assert len(drawn.removeprefix("\r\x1b[K")) == length


@pytest.mark.parametrize(("span_s", "text"), [(0, "0:00"), (59.6, "1:00"), (65, "1:05"), (7400, "2:03:20"), (90_000, "25:00:00")])
def test_clock_text(span_s: float, text: str) -> None:
    assert clock_text(span_s) == text


def test_it_says_what_it_counts() -> None:
    watch, stream = Watch(), io.StringIO()
    progress = Progress(stream, clock=watch.clock, done_bytes=watch.done, total_bytes=None, terminal=True, things="messages")
    progress.update(2)
    assert "2 messages, 0/s" in stream.getvalue()

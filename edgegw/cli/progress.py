"""How far a replay is: a bar on a terminal, a line now and then elsewhere."""

import os
import sys
from collections.abc import Callable
from typing import TextIO

from edgegw.limits import PROGRESS_LINE_S, PROGRESS_REDRAW_S

_BAR_CELLS = 24
_ERASE = "\r\x1b[K"


class Progress:
    """Draws on `stream`; `done_bytes` tells how much of `total_bytes` is read (None = nobody knows). `things` are counted."""

    def __init__(
        self,
        stream: TextIO,
        *,
        clock: Callable[[], float],
        done_bytes: Callable[[], int],
        total_bytes: int | None,
        terminal: bool,
        things: str = "readings",
    ) -> None:
        self._things = things
        self._stream = stream
        self._clock = clock
        self._done_bytes = done_bytes
        self._total_bytes = total_bytes
        self._terminal = terminal
        self._started_s = clock()
        # On a terminal at once; a log hears only of replays that take long.
        self._due_s = self._started_s + (0 if terminal else PROGRESS_LINE_S)
        self._skipped: float | None = None

    def update(self, count: int) -> None:
        """Show that `count` of them are in, unless that was shown a moment ago."""
        now_s = self._clock()
        if now_s < self._due_s:
            return
        self._due_s = now_s + (PROGRESS_REDRAW_S if self._terminal else PROGRESS_LINE_S)
        line = self._line(count, now_s - self._started_s)
        if self._terminal:
            # One column stays free: a full line would wrap, and the next erase would miss it.
            self._write(_ERASE + line[: _columns(self._stream) - 1])
        else:
            self._write(line + "\n")

    def note(self, text: str) -> None:
        """Say something that stays."""
        self._write(f"{_ERASE if self._terminal else ''}{text}\n")

    def close(self) -> None:
        """Take the bar away."""
        if self._terminal:
            self._write(_ERASE)

    def _line(self, count: int, elapsed_s: float) -> str:
        text = f"{count:,} {self._things}, {count / elapsed_s if elapsed_s > 0 else 0:,.0f}/s"
        if not self._total_bytes:
            return text
        share = min(1.0, self._done_bytes() / self._total_bytes)
        # A replay that resumes skips the beginning in no time; that says nothing about the rest.
        self._skipped = share if self._skipped is None else self._skipped
        if share > self._skipped and elapsed_s > 0:
            text += f", {clock_text(elapsed_s * (1 - share) / (share - self._skipped))} left"
        if not self._terminal:
            return f"{share:.0%}, {text}"
        return f"[{'#' * round(share * _BAR_CELLS):{_BAR_CELLS}}] {share:4.0%}  {text}"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def is_terminal() -> bool:
    """Whether stderr can draw."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def clock_text(span_s: float) -> str:
    """`1:05` or `2:03:20`."""
    minutes, seconds = divmod(round(span_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _columns(stream: TextIO) -> int:
    try:
        # A terminal that does not know its size says 0.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80

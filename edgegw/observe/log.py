"""Logging: the standard library's loggers, one line a record, on one stream.

The house form is an event, a literal that one search finds, and fields:

    _log = Log(__name__)
    _log.info("store.opened", path=path, rows=rows)
    _log.error("writer.failed", error=error, stream=name)      # with its trace

A field may be anything: the line stays bounded and whole (log_lines.py). What other libraries log goes out the same way, as
event `log.message`. Logging never raises, and holds up the event loop for at most LOG_STALL_MS: the stream is polled first,
and a line that it does not take is counted and told later (`log.lost`). An event that comes in a storm is written
LOG_REPEATS_MAX times in a window and then counted (`log.suppressed`).

There are no secrets in the gateway yet; a field must not carry a payload.
"""

import logging
import math
import os
import select
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Final, TextIO

from edgegw.limits import LOG_EVENTS_MAX, LOG_REPEATS_MAX, LOG_REPEATS_WINDOW_S, LOG_STALL_MS
from edgegw.observe.log_lines import Entry, json_line, text_line

# The request that the current task works for; its lines carry it. Only a context variable follows a request through awaits.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="")

# Logger, and what it says: the event, or for other libraries the place in the source.
Key = tuple[str, str]

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_OTHERS: Final[Key] = (__name__, "others")


class Log:
    """A logger that takes an event and fields; `error` is an exception."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """For who looks for a fault."""
        self._write(logging.DEBUG, event, error, fields)

    def info(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """A step in the life of the process."""
        self._write(logging.INFO, event, error, fields)

    def warning(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """Somebody may have to act."""
        self._write(logging.WARNING, event, error, fields)

    def error(self, event: str, /, *, error: BaseException | None = None, **fields: object) -> None:
        """Something failed; `error` is written with its trace."""
        self._write(logging.ERROR, event, error, fields)

    def _write(self, level: int, event: str, error: BaseException | None, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=error, extra={"fields": fields})


def setup(level: str, format: str, stream: TextIO) -> None:
    """Send the records of all loggers to `stream` alone; level debug|info|warning|error, format auto|json|text."""
    is_terminal = stream.isatty()
    line_of: Callable[[Entry], str] = json_line
    if format == "text" or (format == "auto" and is_terminal):
        line_of = partial(text_line, has_color=is_terminal and not os.environ.get("NO_COLOR"))
    root = logging.getLogger()
    for handler in tuple(root.handlers):
        root.removeHandler(handler)
        if isinstance(handler, LineHandler):  # of an earlier set-up: it may have something left to tell
            handler.close()
    root.addHandler(LineHandler(stream, line_of))
    # Libraries tell their steps only to who debugs; the gateway's own loggers follow `level`.
    root.setLevel(_LEVELS[level] if level == "debug" else max(_LEVELS[level], logging.WARNING))
    logging.getLogger("edgegw").setLevel(_LEVELS[level])


class LineHandler(logging.Handler):
    """Writes each record as one line. Never raises; what could not be written is counted and told with the next line."""

    def __init__(self, stream: TextIO, line_of: Callable[[Entry], str], mono_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._stream = stream
        self._line_of = line_of
        self._mono_s = mono_s
        self._repeats = Repeats()
        self._lost = 0
        self._fd = _descriptor(stream)
        self._poll = select.poll()
        if self._fd is not None:
            self._poll.register(self._fd, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; called with the handler's lock held."""
        try:
            now_s = self._mono_s()
            self._tell_suppressed(record.created, now_s)
            entry, key = _entry(record)
            if self._repeats.admit(key, now_s):
                self._put(entry)
        except Exception:
            # Whoever logs must not fail because the line does.
            self._lost += 1

    def close(self) -> None:
        """Tell what was only counted so far. The stream is not ours to close."""
        self.acquire()
        try:
            self._tell_suppressed(time.time(), math.inf)
        finally:
            self.release()
        super().close()

    def _tell_suppressed(self, time_s: float, now_s: float) -> None:
        for (logger, what), count in self._repeats.overdue(now_s):
            self._put(_own(time_s, logger, "log.suppressed", what=what, count=count))

    def _put(self, entry: Entry) -> None:
        if self._lost and self._write(self._line_of(_own(entry.time_s, __name__, "log.lost", count=self._lost))):
            self._lost = 0
        if not self._write(self._line_of(entry)):
            self._lost += 1

    def _write(self, line: str) -> bool:
        """Whether the line went out. A stream that stalled once is not waited for again until it takes a line."""
        try:
            if self._fd is None:
                self._stream.write(line)
                self._stream.flush()
                return True
            if not self._poll.poll(0 if self._lost else LOG_STALL_MS):
                return False
            os.write(self._fd, line.encode())
        except (OSError, ValueError):
            # The reader is gone, the disk behind it is full, or the stream is closed: nobody to tell.
            return False
        return True


class Repeats:
    """Which records go out: the first LOG_REPEATS_MAX of a key in each window; the others are counted."""

    __slots__ = ("_storms", "_windows")

    def __init__(self) -> None:
        self._windows: dict[Key, _Window] = {}
        self._storms: dict[Key, _Window] = {}  # those that hold something back

    def overdue(self, now_s: float) -> list[tuple[Key, int]]:
        """How many records of which keys were held back in windows that have ended; to be asked before `admit`."""
        ended = [(key, window) for key, window in self._storms.items() if now_s >= window.end_s]
        for key, _ in ended:
            del self._storms[key]
        return [(key, window.count - LOG_REPEATS_MAX) for key, window in ended]

    def admit(self, key: Key, now_s: float) -> bool:
        """Whether a record with this key goes out now."""
        if key not in self._windows and len(self._windows) >= LOG_EVENTS_MAX:
            self._windows = {known: window for known, window in self._windows.items() if now_s < window.end_s}
            if len(self._windows) >= LOG_EVENTS_MAX:
                key = _OTHERS
        window = self._windows.get(key)
        if window is None or now_s >= window.end_s:
            window = self._windows[key] = _Window(now_s + LOG_REPEATS_WINDOW_S)
        window.count += 1
        if window.count <= LOG_REPEATS_MAX:
            return True
        self._storms[key] = window
        return False


class _Window:
    __slots__ = ("count", "end_s")

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s
        self.count = 0


def _descriptor(stream: TextIO) -> int | None:
    """The stream's descriptor, to be written to past the stream's buffer; None where it has none."""
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _entry(record: logging.LogRecord) -> tuple[Entry, Key]:
    error = record.exc_info[1] if record.exc_info else None
    fields = record.__dict__.get("fields")
    event = str(record.msg)
    key = (record.name, event)
    if not isinstance(fields, dict):
        fields = {"message": _message(record)}
        event = "log.message"
        key = (record.name, f"{record.filename}:{record.lineno}")
    has_trace = record.levelno >= logging.ERROR
    entry = Entry(record.created, record.levelname.lower(), record.name, event, REQUEST_ID.get(), fields, error, has_trace)
    return entry, key


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # The arguments do not fit the text: somebody else's mistake, and still worth reading.
        return f"{record.msg} {record.args!r}"


def _own(time_s: float, logger: str, event: str, **fields: object) -> Entry:
    return Entry(time_s, "warning", logger, event, "", fields, None, has_trace=False)

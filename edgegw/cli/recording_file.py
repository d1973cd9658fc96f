"""The file (or standard input) a recording lies in: bounded lines out of it, and how far it is read."""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from edgegw.errors import RequestError
from edgegw.limits import RECORD_LINE_CHARS_MAX

STDIN = Path("-")


class RecordingFile:
    """Opens `path`; `size_bytes` is None where nobody knows it. Raises RequestError(no_recording)."""

    def __init__(self, path: Path, encoding: str) -> None:
        self._path = path
        try:
            self._raw = io.FileIO(0, closefd=False) if path == STDIN else io.FileIO(path)
            status = os.fstat(self._raw.fileno())
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise self._unreadable(error) from None
        self.size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        # Undecodable bytes become lone surrogates, so that the row they stand in can be named.
        self._text = io.TextIOWrapper(io.BufferedReader(self._raw), encoding, errors="surrogateescape", newline="")
        self._read_chars = self._used_chars = 0

    def __enter__(self) -> "RecordingFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._text.close()

    def lines(self) -> Iterator[str]:
        """The lines; of one that is too long, enough to see that. Raises RequestError when the file cannot be read further."""
        try:
            while line := self._text.readline(RECORD_LINE_CHARS_MAX + 1):
                piece = line
                self._read_chars += len(piece)
                while len(piece) > RECORD_LINE_CHARS_MAX and not piece.endswith("\n"):
                    piece = self._text.readline(RECORD_LINE_CHARS_MAX + 1)
                    self._read_chars += len(piece)
                yield line
        except UnicodeDecodeError as error:
            # An encoding of two bytes a character cannot go on behind a fault, so this is not the fault of a row.
            raise RequestError("bad_recording", f"{self._path}: {error}", "say its encoding with --encoding") from None
        except OSError as error:
            raise self._unreadable(error) from None

    def counted(self, lines: Iterator[str]) -> Iterator[str]:
        """The same lines; `used_bytes` follows them, not what lies in buffers or was only looked at."""
        for line in lines:
            self._used_chars += len(line)
            yield line

    def used_bytes(self) -> int:
        """About how many bytes of the file have gone through `counted`."""
        return self._raw.tell() * self._used_chars // max(1, self._read_chars)

    def _unreadable(self, error: Exception) -> RequestError:
        words = error.strerror if isinstance(error, OSError) else None
        return RequestError("no_recording", f"{self._path}: {words or error}", "give the path of a CSV or NDJSON file")

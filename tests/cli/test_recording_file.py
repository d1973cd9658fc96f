"""edgegw/cli/recording_file.py"""

import os
from itertools import islice
from pathlib import Path

import pytest

from edgegw.cli.recording_file import RecordingFile
from edgegw.errors import RequestError
from edgegw.limits import RECORD_LINE_CHARS_MAX


def test_lines_keep_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"a\r\n\nb\xff\nc")
    with RecordingFile(path, "utf-8-sig") as file:
        assert list(file.lines()) == ["a\r\n", "\n", "b\udcff\n", "c"]


def test_byte_order_mark_goes(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("a", encoding="utf-8-sig")
    with RecordingFile(path, "utf-8-sig") as file:
        assert list(file.lines()) == ["a"]


@pytest.mark.parametrize("extra", [0, 1, RECORD_LINE_CHARS_MAX, 3 * RECORD_LINE_CHARS_MAX + 5])
@pytest.mark.parametrize("end", ["\nb\n", "\n", ""])
def test_a_long_line_is_cut_and_stays_one_line(extra: int, end: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("x" * (RECORD_LINE_CHARS_MAX + extra) + end)
    with RecordingFile(path, "utf-8-sig") as file:
        first, *others = file.lines()
    assert len(first) == RECORD_LINE_CHARS_MAX + (1 if extra or end else 0)
    assert others == (["b\n"] if "b" in end else [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_used_bytes_follow_what_went_through(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("0123456 é\n" * 20_000, encoding=encoding)
    with RecordingFile(path, encoding) as file:
        lines = file.lines()
        looked_at = list(islice(lines, 500))
        assert file.used_bytes() == 0
        assert len(list(islice(file.counted(lines), 10_000 - 500))) == 9500
        assert file.size_bytes is not None
        # The file is read ahead of its lines by a buffer or two.
        assert file.used_bytes() / file.size_bytes == pytest.approx(0.475, abs=0.1)
        assert sum(1 for _ in file.counted(iter([*looked_at, *lines]))) == 10_500
        assert file.used_bytes() == file.size_bytes


def test_a_pipe_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    os.mkfifo(path)
    # Both ends at once, so that neither waits for the other.
    end = os.open(path, os.O_RDWR)
    os.write(end, b"a\n")
    with RecordingFile(path, "utf-8-sig") as file:
        assert file.size_bytes is None
        assert next(file.lines()) == "a\n"
    os.close(end)


def test_broken_encoding(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes("a\n".encode("utf-16") + b"\n")
    with RecordingFile(path, "utf-16") as file, pytest.raises(RequestError, match="utf-16") as caught:
        list(file.lines())
    assert caught.value.code == "bad_recording"


@pytest.mark.parametrize(("name", "words"), [("none", "No such file"), (".", "Is a directory"), ("a\0b", "null byte")])
def test_no_file(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        RecordingFile(tmp_path / name, "utf-8")
    assert caught.value.code == "no_recording"


def test_a_file_that_cannot_be_read_further(tmp_path: Path) -> None:
    with RecordingFile(Path("/proc/self/mem"), "utf-8") as file, pytest.raises(RequestError, match="/proc/self/mem: "):
        list(file.lines())

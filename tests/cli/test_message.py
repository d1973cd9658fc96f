"""edgegw/cli/message.py"""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.limits import RECORD_LINE_CHARS_MAX, REPLAY_BATCH, REPLAY_BATCH_MAX
from tests.cli.scripted_gateway import NO_ANSWER, STORE_AND_DIE, Reply, ScriptedGateway, Seen, problem

AIR_QUALITY = Path(__file__).parent.parent / "data" / "air-quality-uci.csv"
T = "2026-01-02T12:00:00Z"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEGW_URL", "EDGEGW_SOCKET", "EDGEGW_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three rows with two columns."""
    path = tmp_path / "r.csv"
    path.write_text("time,a,b\n" + "".join(f"2026-01-02T12:0{i}:00Z,{i}.50,{10 * i}\n" for i in range(3)))
    return path


def arguments(file: Path | str, *more: str) -> list[str]:
    return ["message", "replay", str(file), "--topic", "s/{column}", "--time-column", "time", *more]


def environment(**more: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("EDGEGW_")}, **more}


# --- what is sent --------------------------------------------------------------------------------


def test_a_newcomer_needs_no_more_than_this(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = tmp_path / "air-quality-uci.csv"
    hours.write_text("".join(AIR_QUALITY.read_text().splitlines(keepends=True)[:240]))
    command = [
        "message",
        "replay",
        str(hours),
        "--topic",
        "air-quality/{column}",
        "--time-column",
        "Date,Time",
        "--missing",
        "-200",
    ]
    with ScriptedGateway() as gateway:
        monkeypatch.setenv("EDGEGW_URL", gateway.url)
        assert main(command) == 0
    output = capsys.readouterr()
    assert gateway.stored[0]["topic"] == "air-quality/CO(GT)"
    assert gateway.stored[0]["payload"] == 2.6
    assert gateway.stored[0]["time"] == "2004-03-10T18:00:00Z"
    assert {message["payload"] for message in gateway.stored}.isdisjoint({-200})
    count = len(gateway.stored)
    assert output.out.startswith(f"sent {count:,} readings of 239 rows in 0:0")
    assert "recorded 2004-03-10T18:00:00Z to 2004-03-20T16:00:00Z\n" in output.out
    assert f"stream default: {count:,} receipts, 1 to {count}\n" in output.out
    assert output.out.endswith("0 repeats, 0 requests sent again, 0 bad rows left out\n")
    assert output.err.startswith(
        "air-quality-uci.csv: cells separated by ';', decimal ',', time '%d/%m/%Y %H.%M.%S' in UTC; run id "
    )


def test_summary_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedGateway([STORE_AND_DIE]) as gateway:
        assert main(arguments(file, "--url", gateway.url, "--run-id", "mine", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary.pop("seconds") >= 0
    assert summary.pop("rate_per_s") >= 0
    assert summary == {
        "run_id": "mine",
        "readings": 6,
        "repeats": 6,
        "rows": 3,
        "bad_rows": 0,
        "retries": 1,
        "first_time": "2026-01-02T12:00:00Z",
        "last_time": "2026-01-02T12:02:00Z",
        "streams": {"default": {"first": 1, "last": 6, "count": 6}},
    }
    assert len(gateway.stored) == 6


def test_keys_differ_between_runs_and_not_within_one(file: Path) -> None:
    with ScriptedGateway() as gateway:
        for run in ([], [], ["--run-id", "x"], ["--run-id", "x"]):
            assert main(arguments(file, "--url", gateway.url, *run)) == 0
    assert len(gateway.stored) == 3 * 6


def test_kills_on_the_way_leave_each_reading_once(file: Path) -> None:
    script = [NO_ANSWER, STORE_AND_DIE, Reply(201, b"half", cut=2), None, problem(503, "store_full", "full"), STORE_AND_DIE]
    with ScriptedGateway(script) as gateway:
        assert main(arguments(file, "--url", gateway.url, "--batch", "2", "--run-id", "x")) == 0
    assert [message["key"] for message in gateway.stored] == [f"x/{line}/{column}" for line in (2, 3, 4) for column in "ab"]


def test_unix_socket(file: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "g.sock")
    with ScriptedGateway(socket_path=path) as gateway:
        assert main(arguments(file, "--socket", path)) == 0
    assert len(gateway.stored) == 6


def test_all_options_arrive(tmp_path: Path) -> None:
    file = tmp_path / "r.txt"
    file.write_bytes("time|T °C|x\n02.01.26 13|1,5|?\nbad|1|1\n02.01.26 14|2|?\n".encode("cp1252"))
    options = ["--time-format", "%d.%m.%y %H", "--timezone", "+01:00", "--delimiter", "|", "--decimal", ",", "--missing", "?"]
    options += ["--missing=2", "--encoding", "cp1252", "--skip-bad", "--speed", "1e9", "--retry-for", "0", "--start-line", "2"]
    with ScriptedGateway() as gateway:
        assert main(arguments(file, "--url", gateway.url, "--run-id", "x", *options)) == 0
    assert gateway.stored == [{"topic": "s/T °C", "payload": 1.5, "key": "x/2/T °C", "time": "2026-01-02T12:00:00Z"}]


def test_tabulators_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "r.tsv"
    file.write_text(f"time\ta;b\n{T}\t1\n")
    with ScriptedGateway() as gateway:
        assert main(arguments(file, "--url", gateway.url, "--delimiter", "tab")) == 0
    assert [message["topic"] for message in gateway.stored] == ["s/a;b"]


def test_standard_input() -> None:
    lines = f'{{"time":"{T}","a":1}}\n{{"time":"{T}","a":2}}\n'
    with ScriptedGateway() as gateway:
        command = [sys.executable, "-m", "edgegw", *arguments("-", "--url", gateway.url)]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    assert [message["payload"] for message in gateway.stored] == [1, 2]


def test_bar_on_a_terminal(file: Path) -> None:
    try:
        main_end, terminal = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals here")
    with ScriptedGateway() as gateway, os.fdopen(terminal, "w") as stderr:
        command = [sys.executable, "-m", "edgegw", *arguments(file, "--url", gateway.url)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=stderr, timeout=30, check=False, env=environment(TERM="xterm")
        )
        drawn = os.read(main_end, 10_000).decode()
    os.close(main_end)
    assert done.returncode == 0
    assert "\r\x1b[K[####" in drawn
    assert drawn.endswith("\r\x1b[K")


# --- what stops it -------------------------------------------------------------------------------


def test_interrupted_it_says_how_to_resume(file: Path) -> None:
    processes: list[subprocess.Popen[str]] = []

    def interrupt(_: Seen) -> Reply:
        processes[0].send_signal(signal.SIGINT)
        processes[0].wait(30)
        return NO_ANSWER

    # The process is made before it asks anything, so the list is filled by then.
    with ScriptedGateway([None, interrupt]) as gateway:
        command = [sys.executable, "-m", "edgegw", *arguments(file, "--url", gateway.url, "--batch", "3", "--run-id", "x")]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()))
        out, err = processes[0].communicate(timeout=30)
        assert processes[0].returncode == 130
        assert out == ""
        assert err.endswith("stopped: 3 readings are in, 0 of them were before; to resume, add: --run-id x --start-line 3\n")
        resumed = arguments(file, "--url", gateway.url, "--run-id", "x", "--start-line", "3")
        assert main(resumed) == 0
    assert [message["key"] for message in gateway.stored] == [f"x/{line}/{column}" for line in (2, 3, 4) for column in "ab"]


def test_gateway_away(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedGateway() as gateway:
        url = gateway.url
    assert main(arguments(file, "--url", url, "--retry-for", "0", "--run-id", "x")) == 69
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == [
        "stopped: 0 readings are in, 0 of them were before; to resume, add: --run-id x --start-line 2",
        f"edgegw: gateway_unreachable: {url} does not answer: Connection refused; gave up after 0 s"
        " (is it running? `edgegw run` starts one; --url or --socket names another)",
    ]


def test_refusal_names_the_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal = problem(400, "bad_topic", "the topic has a wildcard", hint="see MQTT", where="[3].topic")
    with ScriptedGateway([refusal]) as gateway:
        assert main(arguments(file, "--url", gateway.url)) == 1
    assert capsys.readouterr().err.endswith("edgegw: bad_topic: r.csv:3: the topic has a wildcard (see MQTT)\n")


def test_bad_row_names_the_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(file.read_text() + "noon,1,2\n")
    with ScriptedGateway() as gateway:
        assert main(arguments(file, "--url", gateway.url)) == 1
    assert "edgegw: bad_row: r.csv:5: the time 'noon' is not of the form 'iso' (--skip-bad" in capsys.readouterr().err
    assert len(gateway.stored) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "bad_recording: r.csv:1: one column only"),
        (b"Zeit;a\n1;2\n", "no_such_column: r.csv:1: no column is named 'time' (there are: Zeit, a)"),
        (b"time,a\n01/02/2026,1\n", "unknown_time_form: r.csv: the time '01/02/2026' can be read as"),
        (b"\x00\x01\xff" * 1000, "bad_recording: r.csv:1: one column only"),
    ],
)
def test_what_is_no_recording_is_told_before_anything_is_sent(
    content: bytes, words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(content)
    assert main(arguments(file, "--url", "http://127.0.0.1:9")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"edgegw: {words}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("name", "words"), [("none.csv", "No such file"), ("folder.csv", "Is a directory")])
def test_no_file(name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert main(arguments(tmp_path / name)) == 1
    assert capsys.readouterr().err.startswith(f"edgegw: no_recording: {tmp_path / name}: {words}")


def test_broken_utf_16_is_no_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes(f"time,a\n{T},1\n".encode("utf-16") + b"\n")
    assert main(arguments(file, "--encoding", "utf-16", "--skip-bad")) == 1
    assert "edgegw: bad_recording: " in capsys.readouterr().err


def test_utf_16(tmp_path: Path) -> None:
    file = tmp_path / "r.csv"
    file.write_bytes(f"time,a\n{T},1\n".encode("utf-16"))
    with ScriptedGateway() as gateway:
        assert main(arguments(file, "--url", gateway.url, "--encoding", "utf-16")) == 0
    assert [message["payload"] for message in gateway.stored] == [1]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.ndjson"
    record = f'{{"time":"{T}","a":1}}\n'
    file.write_text(record + "x" * (3 * RECORD_LINE_CHARS_MAX) + "\n" + record)
    with ScriptedGateway() as gateway:
        assert main(arguments(file, "--url", gateway.url, "--skip-bad", "--run-id", "x", "--json")) == 0
    assert [message["key"] for message in gateway.stored] == ["x/1/a", "x/3/a"]
    assert json.loads(capsys.readouterr().out)["bad_rows"] == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--speed", "0"], "the fastest is max"),
        (["--speed", "fast"], "'fast' is not a number from 0"),
        (["--speed", "nan"], "'nan' is not a number from 0"),
        (["--retry-for", "-1"], "'-1' is not a number from 0"),
        (["--retry-for", "inf"], "'inf' is not a number from 0"),
        (["--batch", "0"], "'0' is not a number from 1"),
        (["--batch", "1.5"], "'1.5' is not a number from 1"),
        (["--batch", str(REPLAY_BATCH_MAX + 1)], f"more than {REPLAY_BATCH_MAX}"),
        (["--start-line", "²"], "'²' is not a number from 1"),
        (["--run-id", "a/b"], "'a/b' is not 1 to 64 letters"),
        (["--run-id", "x" * 65], "is not 1 to 64 letters"),
        (["--delimiter", ";;"], "is not one character"),
        (["--delimiter", '"'], "is not one character"),
        (["--decimal", ";"], "invalid choice"),
        (["--timezone", "Mars/Olympus"], "knows no time zone 'Mars/Olympus'"),
        (["--time-format", "%Q"], "'%Q' is no form of time"),
        (["--time-column", "a,,b"], "has an empty name"),
        (["--topic", "a/{b"], "braces"),
        (["--encoding", "utf-9"], "'utf-9' is no encoding"),
        (["--encoding", "base64"], "'base64' is no encoding"),
        (["--url", "http://a", "--socket", "b"], "not allowed with"),
    ],
)
def test_usage(more: list[str], words: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(file, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("edgegw: usage: ")
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["r.csv.gz", "r.xlsx", "r"])
def test_other_files_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(name)) == 2
    assert f"'{name}' must end in .csv" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["message", "replay", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("--start-line", "--run-id", f"default: {REPLAY_BATCH}", "24 hours or 100,000 messages", "EDGEGW_SOCKET"):
        assert words in text
    assert main(["message"]) == 2


def test_bad_url_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(file, "--url", "8080")) == 1
    assert capsys.readouterr().err.startswith("edgegw: bad_url: '8080' is not the URL of a gateway")


def test_help_agrees_with_the_bounds() -> None:
    from edgegw.limits import KEY_AGE_S_MAX, KEYS_PER_STREAM_MAX

    assert (KEY_AGE_S_MAX, KEYS_PER_STREAM_MAX) == (24 * 3600, 100_000)

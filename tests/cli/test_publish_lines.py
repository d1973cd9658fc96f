"""edgegw/cli/publish_lines.py"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.cli.publish_lines import LineSource
from edgegw.limits import BODY_BYTES_MAX
from tests.cli.scripted_gateway import NO_ANSWER, STORE_AND_DIE, Reply, ScriptedGateway, problem
from tests.gateway_process import GatewayProcess


def arguments(file: Path, *more: str) -> list[str]:
    return ["message", "publish", "log/a", "--lines", "--file", str(file), *more]


def test_each_line_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'hello\r\n1.50\n\n{"x":[1,\t2]}\n\xff\xfe\nlast')
    with GatewayProcess(tmp_path / "data") as gateway:
        assert main([*arguments(file), "--url", gateway.url, "--ttl", "60"]) == 0
        rows = gateway.request("GET", "/v1/messages")[1]
    assert [row.get("payload", row.get("payload_b64")) for row in rows] == ["hello", 1.5, {"x": [1, 2]}, "//4=", "last"]
    assert [row["content_type"].partition(";")[0] for row in rows][:2] == ["text/plain", "application/json"]
    assert capsys.readouterr().out == "sent 5 messages in 0:00\nstream default: 5 receipts, 1 to 5\n"


def test_what_is_lost_on_the_way_is_sent_again_and_stored_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_text("".join(f"{i}\n" for i in range(1200)))
    script = [STORE_AND_DIE, NO_ANSWER, problem(503, "store_full", "full"), None]
    with ScriptedGateway(script) as gateway:
        assert main([*arguments(file, "--class", "crash", "--retain"), "--url", gateway.url, "--json"]) == 0
    assert [message["payload"] for message in gateway.stored] == list(range(1200))
    assert {message["retain"] for message in gateway.stored} == {True}
    assert {seen.headers["Edgegw-Class"] for seen in gateway.seen} == {"crash"}
    summary = json.loads(capsys.readouterr().out)
    assert (summary["messages"], summary["streams"]["default"]["last"]) == (1200, 1200)
    assert summary["retries"] >= 2


def test_a_given_type_is_kept_and_the_payload_with_it(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("1\n")
    with ScriptedGateway() as gateway:
        assert main([*arguments(file, "--content-type", "text/x"), "--url", gateway.url]) == 0
    assert gateway.stored[0].items() >= {"payload_b64": "MQ==", "content_type": "text/x", "topic": "log/a"}.items()


def test_a_pipe_goes_out_as_it_fills() -> None:
    """`tail -f … | edgegw message publish …`: a line does not wait for the next one."""
    with ScriptedGateway() as gateway:
        command = [sys.executable, "-m", "edgegw", "message", "publish", "log/a", "--lines", "--url", gateway.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            for count in (1, 2):
                process.stdin.write(f"line {count}\n")
                process.stdin.flush()
                gateway.wait_for_requests(count)
            output, _ = process.communicate(timeout=30)
    assert len(gateway.stored) == 2
    assert output.startswith("sent 2 messages")


def test_a_line_that_is_too_long_stops_behind_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1\n" + b"x" * (2 * BODY_BYTES_MAX))
    with ScriptedGateway() as gateway:
        assert main([*arguments(file), "--url", gateway.url]) == 1
    assert len(gateway.stored) == 1
    error = capsys.readouterr().err
    assert f"stopped: 1 messages are in\nedgegw: bad_row: f:2: the line has more than {BODY_BYTES_MAX} bytes" in error


def test_a_refusal_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_text("1\n\n2\n")
    with ScriptedGateway([problem(400, "bad_payload", "no", where="[1].payload")]) as gateway:
        assert main([*arguments(file), "--url", gateway.url]) == 1
    assert "bad_payload: f:3: no" in capsys.readouterr().err


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (tmp_path / "none", tmp_path):
        assert main([*arguments(file), "--url", "http://127.0.0.1:1"]) == 1
        assert capsys.readouterr().err.startswith("edgegw: bad_file: ")


def test_lines_are_whole_however_they_come() -> None:
    here, there = os.pipe()
    source = LineSource(Path(f"/dev/fd/{here}"))
    os.close(here)
    lines = source.lines()
    os.write(there, b"a\nb")
    assert [next(lines), next(lines)] == [(1, b"a"), (0, b"")]
    os.write(there, b"c\n\nd")
    assert [next(lines), next(lines), next(lines)] == [(2, b"bc"), (3, b""), (0, b"")]
    os.close(there)
    assert list(lines) == [(4, b"d")]
    assert source.used_bytes == 7
    with source:
        pass


def test_an_answer_that_is_no_receipt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "f"
    file.write_text("1\n")
    with ScriptedGateway([Reply(201, b"[1]")]) as gateway:
        assert main([*arguments(file), "--url", gateway.url]) == 69
    assert "bad_answer" in capsys.readouterr().err

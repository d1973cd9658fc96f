"""edgegw/cli/tail.py"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.cli.tail import ServerEvent, events
from tests.cli.scripted_gateway import NO_ANSWER, Reply, ScriptedGateway, problem
from tests.gateway_process import GatewayProcess

STREAM = {"Content-Type": "text/event-stream"}


def publish(gateway: GatewayProcess, *payloads: object) -> None:
    assert gateway.request("POST", "/v1/messages", [{"topic": "a/b", "payload": payload} for payload in payloads])[0] == 201


@contextmanager
def tailing(gateway: GatewayProcess, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A tail in a process of its own."""
    command = [sys.executable, "-m", "edgegw", "message", "tail", "--url", gateway.url, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_messages_come_as_they_are_published(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        publish(gateway, 1.5)
        with tailing(gateway, "--topic", "a/#", "--from-start") as process:
            assert line_of(process).split()[1:] == ["a/b", "1.5"]
            publish(gateway, "now")
            assert line_of(process).split()[1:] == ["a/b", "now"]
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=30)
            assert (process.returncode, output) == (130, ("", ""))


def test_a_restart_of_the_gateway_costs_no_message(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        publish(gateway, 1, 2)
        with tailing(gateway, "--stream", "default", "--after", "1", "--json", "--count", "4") as process:
            assert json.loads(line_of(process))["payload"] == 2
            gateway.kill()
            gateway.start()
            publish(gateway, 3, 4, 5, 6)
            output, errors = process.communicate(timeout=60)
    assert [json.loads(line)["payload"] for line in output.splitlines()] == [3, 4, 5]
    assert process.returncode == 0
    assert errors.splitlines()[0].endswith("; trying again")
    assert errors.splitlines()[-1] == "connected again"


def test_resuming_asks_behind_the_last_event(capsys: pytest.CaptureFixture[str]) -> None:
    first = b'id: s:7\ndata: {"time":"T","topic":"a","payload":1}\n\nid: s:8\ndata: {"half'
    gap = b'event: gap\nid: s:9\ndata: {"gap":{"first":8,"last":9,"count":2,"reason":"age"}}\n\n'
    last = b'id: s:10\ndata: {"time":"T","topic":"a","payload":2}\n\n'
    script = [Reply(200, first, STREAM), problem(503, "stopping", "it is"), NO_ANSWER, Reply(200, gap + last, STREAM)]
    with ScriptedGateway(script) as scripted:
        assert main(["message", "tail", "--stream", "s", "--after", "6", "--count", "2", "--url", scripted.url]) == 0
    assert [seen.path for seen in scripted.seen] == ["/v1/stream?topic=%23&stream=s&after=6"] + 3 * [
        "/v1/stream?topic=%23&stream=s"
    ]
    assert [seen.headers.get("Last-Event-ID") for seen in scripted.seen] == [None] + 3 * ["s:7"]
    assert [line.split()[1:3] for line in capsys.readouterr().out.splitlines()] == [["a", "1"], ["gap:", "2"], ["a", "2"]]


def test_across_streams_what_came_meanwhile_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    row = b'data: {"time":"T","topic":"a","payload":1}\n\n'
    with ScriptedGateway([Reply(200, row, STREAM), Reply(200, row, STREAM)]) as scripted:
        assert main(["message", "tail", "--count", "2", "--url", scripted.url]) == 0
    assert [seen.path for seen in scripted.seen] == 2 * ["/v1/stream?topic=%23"]
    wanted = "the gateway ended the stream; trying again\nconnected again; what came meanwhile is missing\n"
    assert capsys.readouterr().err == wanted


def test_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    row = Reply(200, b'data: {"payload":1}\n\n', STREAM)
    for script, code in (
        ([NO_ANSWER], 69),
        ([problem(503, "stopping", "it is")], 69),
        ([problem(404, "unknown_stream", "no")], 1),
        ([row, problem(404, "unknown_stream", "no")], 1),
        ([Reply(200, b"data: no\n\n", STREAM)], 69),
    ):
        with ScriptedGateway(script) as scripted:
            assert main(["message", "tail", "--url", scripted.url, "--stream", "s"]) == code
    assert main(["message", "tail", "--after", "1", "--from-start"]) == 2
    assert capsys.readouterr().err.count("unknown_stream") == 2


def test_a_pipe_that_closes_ends_it(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        publish(gateway, 1)
        with tailing(gateway, "--from-start") as process:
            line_of(process)
            assert process.stdout is not None
            process.stdout.close()
            publish(gateway, 2, 3)
            assert process.wait(30) == 1
            assert process.stderr is not None
            assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"data: a\n\n", [ServerEvent("message", "", "a")]),
        (b": hello\n\ndata:a\ndata:  b\n\n", [ServerEvent("message", "", "a\n b")]),
        (b"event: gap\nid: s:1\ndata: x\n\ndata: y\n\n", [ServerEvent("gap", "s:1", "x"), ServerEvent("message", "", "y")]),
        (b"id: s:1\n\nretry: 5\nevent\ndata\n\ndata: half", [ServerEvent("", "", "")]),
    ],
)
def test_events(text: bytes, found: list[ServerEvent]) -> None:
    lines = text.split(b"\n")[:-1]  # what has no end is no line
    assert list(events(iter(lines))) == found

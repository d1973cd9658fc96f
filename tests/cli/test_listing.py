"""edgegw/cli/listing.py"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.limits import LIST_LAST_MAX
from tests.cli.scripted_gateway import Reply, ScriptedGateway
from tests.gateway_process import GatewayProcess

COUNT = 2500


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One with more messages than an answer holds, every tenth of them an alarm."""
    with GatewayProcess(tmp_path_factory.mktemp("list") / "data") as gateway:
        entries = [{"topic": "alarm/a" if i % 10 == 0 else "data/a", "payload": i} for i in range(1, COUNT + 1)]
        assert gateway.request("POST", "/v1/messages", entries)[0] == 201
        yield gateway


def listed(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str], *options: str) -> list[int]:
    """The payloads that are printed."""
    assert main(["message", "list", "--url", gateway.url, "--json", *options]) == 0
    return [json.loads(line)["payload"] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], range(1, 101)),
        (["--limit", "2200"], range(1, 2201)),
        (["--after", "2490"], range(2491, 2501)),
        (["--after", "7", "--limit", "3"], range(8, 11)),
        (["--last", "3"], range(2498, 2501)),
        (["--last", "9999"], range(1, 2501)),
        (["--topic", "alarm/#", "--limit", "3"], (10, 20, 30)),
        (["--topic", "alarm/#", "--last", "3"], (2480, 2490, 2500)),
        (["--topic", "alarm/#", "--last", "150"], range(1010, 2501, 10)),
        (["--last", "5", "--limit", "2"], (2499, 2500)),
        (["--topic", "none", "--last", "5"], ()),
        (["--topic", "none"], ()),
        (["--stream", "dead-letter", "--last", "5"], ()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_listed(
    gateway: GatewayProcess, capsys: pytest.CaptureFixture[str], options: list[str], wanted: tuple[int, ...]
) -> None:
    assert listed(gateway, capsys, *options) == list(wanted)


def test_for_people(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["message", "list", "--url", gateway.url, "--last", "1"]) == 0
    time, topic, payload = capsys.readouterr().out.split()
    assert (time[4], time[-1], topic, payload) == ("-", "Z", "alarm/a", "2500")


def test_gaps_have_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"stream": "s", "seq": 9, "topic": "a", "time": "2026-01-02T03:04:05.000Z", "content_type": "a/b", "payload_b64": "AAEC"}
    ]
    gap = {"gap": {"first": 1, "last": 8, "count": 8, "reason": "age"}}
    with ScriptedGateway([Reply(200, json.dumps([gap, *rows]).encode())]) as scripted:
        assert main(["message", "list", "--stream", "s", "--after", "0", "--url", scripted.url]) == 0
    assert scripted.seen[0].path == "/v1/messages?stream=s&topic=%23&limit=100&after=0"
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{'-':24}  gap: 8 gone, 1 to 8 (age)", "2026-01-02T03:04:05.000Z  a  <3 bytes of a/b>"]


def test_refusals(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    for options, code in (
        (["--stream", "x"], "unknown_stream"),
        (["--stream", "x", "--last", "1"], "unknown_stream"),
        (["--after", "99999"], "beyond_end"),
        (["--topic", "a/#/b"], "bad_filter"),
        (["--last", str(LIST_LAST_MAX + 1)], "bad_option"),
    ):
        assert main(["message", "list", "--url", gateway.url, *options]) == 1
        assert capsys.readouterr().err.startswith(f"edgegw: {code}: ")
    assert main(["message", "list", "--last", "1", "--after", "1"]) == 2
    assert main(["message", "list", "--last", "0"]) == 2


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"[{}", b"[{}]", b"no"])
def test_an_answer_that_is_no_list_of_messages(body: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    status = Reply(200, b'{"streams": {"default": {"first": 1, "last": 5}}}')
    for options, script in ([], [Reply(200, body)]), (["--last", "3"], [status, Reply(200, body)]):
        with ScriptedGateway(script) as scripted:
            code = main(["message", "list", "--url", scripted.url, *options])
        error = capsys.readouterr().err
        assert (code, "bad_answer" in error) == ((69, True) if body != b"[{}]" or options else (0, False))
    with ScriptedGateway([Reply(200, b"[]")]) as scripted:
        assert main(["message", "list", "--url", scripted.url, "--last", "3"]) == 69

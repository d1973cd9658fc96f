"""edgegw/cli/publish.py"""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.limits import BODY_BYTES_MAX
from tests.cli.scripted_gateway import NO_ANSWER, Reply, ScriptedGateway, Seen, problem
from tests.gateway_process import GatewayProcess

RECEIPT = Reply(201, b'{"stream":"default","seq":7,"class":"power"}')


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayProcess]:
    """A real one, which the command line goes to by itself."""
    for name in ("EDGEGW_SOCKET", "EDGEGW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with GatewayProcess(tmp_path / "data") as gateway:
        monkeypatch.setenv("EDGEGW_URL", gateway.url)
        yield gateway


def sent(options: list[str], script: list[Reply] | None = None) -> list[Seen]:
    """What a gateway sees of a publish."""
    with ScriptedGateway(script or [RECEIPT]) as scripted:
        assert main(["message", "publish", *options, "--url", scripted.url]) == 0
    return scripted.seen


def test_the_receipt_is_for_people_or_for_programs(gateway: GatewayProcess, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["message", "publish", "a/b", "21.50", "--key", "k"]
    for _ in range(2):
        assert main(arguments) == 0
    assert main([*arguments, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stored: message 1 of stream default, class power"
    assert lines[1] == "was stored before: message 1 of stream default, class power"
    assert json.loads(lines[2]) == {"stream": "default", "seq": 1, "class": "power", "repeat": True}
    rows = gateway.request("GET", "/v1/messages")[1]
    assert [(row["topic"], row["payload"], row["content_type"]) for row in rows] == [("a/b", 21.5, "application/json")]


def test_all_options_arrive() -> None:
    options = [
        "ä/b c",
        "x",
        "--content-type",
        "text/csv",
        "--key",
        "k",
        "--ttl",
        "1.5",
        "--retain",
        "--time",
        "2026-01-02T03:04:05Z",
    ]
    seen = sent([*options, "--class", "crash"])[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/topics/%C3%A4/b%20c", b"x")
    wanted = {"Content-Type": "text/csv", "Idempotency-Key": "k", "Edgegw-TTL": "1.5", "Edgegw-Retain": "true"}
    wanted |= {"Edgegw-Time": "2026-01-02T03:04:05Z", "Edgegw-Class": "crash"}
    assert wanted.items() <= seen.headers.items()
    assert not [name for name in sent(["a", "x"])[0].headers if name.startswith("Edgegw-") or name == "Idempotency-Key"]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ("21.5", "application/json"),
        ('{"a": 1}', "application/json"),
        ("-5", "application/json"),
        ("NaN", "text/plain; charset=utf-8"),
        ("warm", "text/plain; charset=utf-8"),
        ("", "text/plain; charset=utf-8"),
        ("\udcff", "application/octet-stream"),
    ],
)
def test_the_media_type_is_found(payload: str, kind: str) -> None:
    assert sent(["a", payload])[0].headers["Content-Type"] == kind
    assert sent(["a", payload, "--json-type"])[0].headers["Content-Type"] == "application/json"


def test_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_bytes(b"\x00\xff\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from\nthere")))
    assert [sent(["a", "--file", str(tmp_path / "f")])[0].body, sent(["a", "-"])[0].body] == [b"\x00\xff\n", b"from\nthere"]
    assert main(["message", "publish", "a", "--file", str(tmp_path / "none")]) == 1
    assert "bad_file: " in capsys.readouterr().err


def test_too_large(gateway: GatewayProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f").write_bytes(b"x" * (BODY_BYTES_MAX + 1))
    assert main(["message", "publish", "a", "--file", str(tmp_path / "f")]) == 1
    assert capsys.readouterr().err.startswith("edgegw: body_too_large: ")


def test_a_lost_answer_is_asked_for_again_under_one_key(capsys: pytest.CaptureFixture[str]) -> None:
    seen = sent(
        ["a", "1", "--retry-for", "20"], [NO_ANSWER, problem(503, "store_full", "full", headers={"Retry-After": "0"}), RECEIPT]
    )
    assert len({each.headers["Idempotency-Key"] for each in seen}) == 1
    assert len(seen) == 3
    with ScriptedGateway([NO_ANSWER]) as scripted:
        assert main(["message", "publish", "a", "1", "--url", scripted.url]) == 69
    assert len(scripted.seen) == 1
    assert capsys.readouterr().err.startswith("edgegw: gateway_unreachable: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a"], "a payload is missing"),
        (["a", "x", "--file", "f"], "both a payload and --file"),
        (["a", "x", "--lines"], "not a payload"),
        (["a", "--lines", "--key", "k"], "--key and --time are not for it"),
        (["a", "x", "--class", "iron"], "invalid choice: 'iron'"),
        (["a", "x", "--ttl", "-1"], "'-1' is not a number from 0"),
        (["a", "x", "--json-type", "--content-type", "a/b"], "not allowed with"),
    ],
)
def test_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["message", "publish", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_what_no_header_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["message", "publish", "a", "x", "--key", "a\nb"]) == 1
    assert capsys.readouterr().err.startswith("edgegw: bad_option: ")


def test_an_answer_that_is_no_receipt(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedGateway([Reply(201, b"{}")]) as scripted:
        assert main(["message", "publish", "a", "x", "--url", scripted.url]) == 69
    assert "bad_answer" in capsys.readouterr().err

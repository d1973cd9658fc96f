"""`edgegw token`: on a data folder that nobody runs on, and through the socket of a gateway that runs."""

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.store.disk import DataFolder
from tests.gateway_process import GatewayProcess


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("EDGEGW_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("g") / "data") as gateway:
        yield gateway


def test_without_a_gateway(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = ["--data", str(data)]
    assert (
        main(
            [
                "token",
                "create",
                "pump",
                "--scope",
                "publish,subscribe",
                "--topic",
                "a/#",
                "--topic",
                "b",
                "--expires",
                "90d",
                *here,
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert re.fullmatch(r"egw_[A-Za-z0-9_-]{43}\n", out)
    assert "shown this once" in err
    assert out.strip() not in err
    assert main(["token", "create", "all", "--scope", "admin", "--json", *here]) == 0
    assert json.loads(capsys.readouterr().out)["scopes"] == ["admin"]
    assert main(["token", "list", *here]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "SCOPES", "TOPICS", "CREATED", "EXPIRES", "LAST", "USED"]
    assert first.split()[:3] == ["all", "admin", "all"]
    assert second.split()[:4] == ["pump", "publish,subscribe", "a/#", "b"]
    assert main(["token", "list", "--json", *here]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["expires"] is None) for row in rows] == [("all", True), ("pump", False)]
    assert main(["token", "revoke", "pump", *here]) == 0
    assert capsys.readouterr().out == "revoked pump\n"
    assert main(["token", "revoke", "all", "--json", *here]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "all", "revoked": True}
    folder = DataFolder(data)
    folder.acquire()  # it was let go
    folder.release()


def test_with_a_gateway(running: GatewayProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEGW_TOKEN", "egw_of-another-gateway")  # by our own socket we are known without
    here = ["--data", str(running.data)]
    assert main(["token", "create", "boss", "--scope", "admin", *here]) == 0
    secret = capsys.readouterr().out.strip()
    monkeypatch.setenv("EDGEGW_TOKEN", secret)
    assert main(["token", "create", "pump", "--scope", "publish", "--url", running.url]) == 0
    capsys.readouterr()
    assert main(["token", "list", "--json", "--url", running.url]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["boss", "pump"]
    assert rows[0]["last_used"] is not None
    monkeypatch.delenv("EDGEGW_TOKEN")
    assert main(["token", "revoke", "pump", "--socket", str(running.data / "edgegw.sock")]) == 0
    monkeypatch.setenv("EDGEGW_URL", running.url)
    assert main(["token", "list"]) == 1
    assert "edgegw: no_token: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["create", "a/b", "--scope", "publish"], 1, "bad_token_name"),
        (["create", "a", "--scope", "fish"], 1, "bad_scope"),
        (["create", "a", "--scope", "publish", "--topic", "#/a"], 1, "bad_filter"),
        (["create", "a", "--scope", "publish", "--expires", "0s"], 1, "bad_expiry"),
        (["create", "a", "--scope", "publish", "--expires", "soon"], 2, "usage"),
        (["create", "a"], 2, "usage"),
        (["revoke", "a"], 1, "unknown_token"),
        ([], 2, "usage"),
    ],
)
def test_what_it_refuses(
    arguments: list[str], code: int, error: str, data: Path, running: GatewayProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    data.mkdir()
    for place in (data, running.data):
        options = ["--data", str(place)] if arguments else []
        assert main(["token", *arguments, *options]) == code
        assert capsys.readouterr().err.startswith(f"edgegw: {error}: ")


def test_a_folder_that_is_not_there(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["list"], ["revoke", "a"]):
        assert main(["token", *verb, "--data", str(data)]) == 78
        assert capsys.readouterr().err.startswith("edgegw: data_folder: ")
    assert not data.exists()


def test_a_folder_that_another_command_has_for_a_moment(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = DataFolder(data)
    folder.acquire()
    release = threading.Timer(0.2, folder.release)
    release.start()
    assert main(["token", "create", "a", "--scope", "publish", "--data", str(data)]) == 0
    release.join()
    assert capsys.readouterr().out.startswith("egw_")


def test_a_gateway_that_does_not_answer(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.cli.token.TOKEN_FOLDER_S", 0.1)
    folder = DataFolder(data)
    folder.acquire()
    assert main(["token", "list", "--data", str(data)]) == 69
    assert capsys.readouterr().err.startswith("edgegw: gateway_unreachable: ")
    folder.release()

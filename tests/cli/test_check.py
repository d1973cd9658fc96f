"""`edgegw check` as a person and a script see it: lines, JSON, exit codes."""

import json
from pathlib import Path

import pytest

from edgegw.cli import check as command
from edgegw.cli import main
from edgegw.config import setting_rows
from tests.gateway_process import GatewayProcess, free_port

NAMES = ["config", "clock", "boot", "memory", "disk", "mount", "store", "certificates", "listen", "gateway"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of a gateway that does not run."""
    for row in setting_rows():
        monkeypatch.delenv(row.env or "EDGEGW_NONE", raising=False)
    for name in ("EDGEGW_URL", "EDGEGW_SOCKET", "EDGEGW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "edgegw.toml"
    path.write_text(f'[gateway]\ndata = "{tmp_path}/data"\n[http]\nlisten = "127.0.0.1:{free_port()}"\n')
    return path


def test_a_line_each(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[6:].partition(":")[0] for line in lines] == NAMES
    assert {line[:4] for line in lines} <= {"ok  ", "warn"}
    assert f"ok    config: {file}" in lines
    assert all("(" in line for line in lines if line.startswith("warn")), "what is wrong has a hint"
    assert not (file.parent / "data").exists(), "a doctor makes nothing"


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "--config", str(file), "--data", str(file.parent / "other")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert [each["name"] for each in found["checks"]] == NAMES
    assert found["checks"][6]["what"].startswith(f"{file.parent}/other: none yet")


def test_what_fails_is_exit_1(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "data").mkdir()
    (file.parent / "data" / "bus.db").write_text("nonsense")
    assert main(["check", "--config", str(file)]) == 1
    captured = capsys.readouterr()
    assert "fail  store: free; " in captured.out
    assert captured.err == ""


def test_a_wrong_configuration_is_exit_78(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[http]\nlisten = 5\nconnections_max = 0\n")
    assert main(["check", "--config", str(file)]) == 78
    captured = capsys.readouterr()
    assert [line.partition(": ")[0] for line in captured.out.splitlines()] == ["fail  config"] * 2
    assert captured.err == "edgegw: config_invalid: 2 faults in the configuration (see edgegw config check)\n"
    assert main(["check", "--json", "--config", str(file)]) == 78
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_without_mount_table(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "PROC", file.parent / "proc")
    assert main(["check", "--config", str(file)]) == 0
    assert "unknown file system" in capsys.readouterr().out


def test_a_gateway_that_runs(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with GatewayProcess(tmp_path / "data", "--config", str(file)) as gateway:
        assert main(["check", "--config", str(file)]) == 0
        out = capsys.readouterr().out
        assert f"ok    store: held by process {gateway.pid}; " in out
        assert "ok    gateway: " in out
        assert main(["check", "--config", str(file), "--url", gateway.url]) == 0
        assert f"ok    gateway: {gateway.url} is ready" in capsys.readouterr().out
        assert gateway.request("POST", "/v1/messages", [{"topic": "t", "payload": 1}])[1]["first"] == 1, "it was not disturbed"
        assert gateway.stop() == 0
        assert main(["check", "--config", str(file), "--url", gateway.url]) == 1
        assert "fail  gateway: " in capsys.readouterr().out

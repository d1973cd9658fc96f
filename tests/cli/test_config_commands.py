"""`edgegw config show|check`."""

import json
import tomllib
from pathlib import Path

import pytest

from edgegw.cli import main
from edgegw.config import load_config, setting_rows
from edgegw.config_source import LISTS

TEXT = """
[http]
connections_max = 5
[[stream]]
name = "air"
topics = ["air/\\"x\\"", "Straße/#", "del\\u007f"]
rows_max = 10
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in setting_rows():
        monkeypatch.delenv(row.env or "EDGEGW_NONE", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edgegw.toml"
    path.write_text(TEXT)
    return path


def test_show_says_each_value_and_where_it_is_from(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEGW_LOG__LEVEL", "debug")
    assert main(["config", "show", "--config", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'data = "/var/lib/edgegw"  # default' in lines
    assert f"connections_max = 5  # {file}:3" in lines
    assert 'level = "debug"  # environment: EDGEGW_LOG__LEVEL' in lines
    assert f'name = "air"  # {file}:5' in lines
    assert f'topics = ["air/\\"x\\"", "Straße/#", "del\\u007f"]  # {file}:6' in lines
    assert "# bytes_max is not set  # default" in lines
    assert [line for line in lines if line.startswith("[")] == ["[gateway]", "[http]", "[log]", "[host]", "[[stream]]"]


def test_what_show_prints_is_a_configuration(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", str(file)]) == 0
    again = tmp_path / "again.toml"
    again.write_text(capsys.readouterr().out)
    assert load_config(again, {}, {}) == load_config(file, {}, {})
    tomllib.loads(again.read_text())


def test_show_explains_every_setting(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", str(file)]) == 0
    out = capsys.readouterr().out
    for row in setting_rows():
        if row.section not in LISTS:
            line = f"# {row.key} is not set" if row.default is None else f"{row.key} = "
            assert f"\n# {row.meaning}\n{line}" in out


def test_show_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json", "--config", str(file)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["files"] == [str(file)]
    http = answer["config"]["http"]
    assert (http["listen"], http["connections_max"]) == ("127.0.0.1:8080", 5)
    assert (http["tls_key"], http["allow_plaintext"]) == (None, False)
    assert answer["config"]["gateway"]["data"] == "/var/lib/edgegw"
    (stream,) = answer["config"]["stream"]
    assert (stream["name"], stream["rows_max"], stream["bytes_max"]) == ("air", 10, None)
    assert answer["origins"]["http.connections_max"] == f"{file}:3"
    assert answer["origins"]["stream[air].rows_max"] == f"{file}:7"


def test_check_says_which_files_it_read(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "a.toml").write_text("")
    assert main(["config", "check", "--config", str(file)]) == 0
    assert capsys.readouterr() == (f"ok: {file}, {file.parent / 'conf.d' / 'a.toml'}\n", "")
    assert main(["config", "check", "--json", "--config", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "files": [str(file), str(file.parent / "conf.d" / "a.toml")]}


@pytest.mark.parametrize("verb", ["show", "check"])
def test_every_fault_is_a_line(verb: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('[http]\nlistn = "x"\nconnections_max = 0\n')
    assert main(["config", verb, "--config", str(file)]) == 78
    assert capsys.readouterr() == (
        "",
        f'edgegw: config_invalid: {file}:2: http.listn: unknown key (did you mean "listen"?)\n'
        f"edgegw: config_invalid: {file}:3: http.connections_max: must be 1 to 16384, is 0\n",
    )


def test_the_faults_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[http]\nconnections_max = 0\n")
    assert main(["config", "check", "--json", "--config", str(file)]) == 78
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "faults": [{"file": str(file), "line": 2, "key": "http.connections_max", "what": "must be 1 to 16384, is 0"}],
    }


def test_a_named_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.toml"
    assert main(["config", "check", "--config", str(file)]) == 78
    assert capsys.readouterr().err == f"edgegw: config_invalid: {file}: cannot be read: No such file or directory\n"

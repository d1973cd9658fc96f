"""`edgegw run`, up to the gateway itself: what it is given, and what ends it before."""

import sys
from pathlib import Path
from types import ModuleType
from typing import TextIO

import pytest

from edgegw.cli import main
from edgegw.config import Config, Inputs, Reading, setting_rows


class Gateway:
    """Stands for gateway.py and log.py, and keeps what it is given."""

    def __init__(self) -> None:
        self.configs: list[Config] = []
        self.inputs: list[Inputs] = []
        self.logs: list[tuple[str, str, TextIO]] = []

    def run(self, inputs: Inputs, reading: Reading) -> int:
        assert self.logs, "logging comes first"
        self.inputs.append(inputs)
        self.configs.append(reading.config)
        return 7

    def setup(self, level: str, format: str, stream: TextIO) -> None:
        self.logs.append((level, format, stream))


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    for row in setting_rows():
        monkeypatch.delenv(row.env or "EDGEGW_NONE", raising=False)
    stand_in = Gateway()
    for name in ("edgegw.gateway", "edgegw.observe.log"):
        module = ModuleType(name)
        vars(module).update(run=stand_in.run, setup=stand_in.setup)
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


def test_the_options_win(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "edgegw.toml"
    file.write_text('[gateway]\ndata = "a"\n[http]\nlisten = "127.0.0.1:1"\n[log]\nlevel = "debug"\nformat = "json"\n')
    monkeypatch.setenv("EDGEGW_HTTP__LISTEN", "127.0.0.1:2")
    assert main(["run", "--config", str(file), "--data", "b", "--listen", "[::1]:3"]) == 7
    assert main(["run", "--config", str(file), "--data", "b", "--data", "c"]) == 7
    first, second = gateway.configs
    assert (first.gateway.data, first.http.listen) == (Path("b"), "[::1]:3")
    assert (second.gateway.data, second.http.listen) == (Path("c"), "127.0.0.1:2")
    assert gateway.inputs[0].read().config == first, "a reload reads the same, with the same options"
    assert gateway.logs == [("debug", "json", sys.stderr)] * 2


@pytest.mark.parametrize("listen", ["127.0.0.1:9", "0.0.0.0:9"])
def test_the_network_may_be_named_or_not(gateway: Gateway, tmp_path: Path, listen: str) -> None:
    assert main(["run", "--lan", "--data", str(tmp_path), "--listen", listen]) == 7
    (found,) = gateway.configs
    assert (found.http.listen, found.http.allow_plaintext) == ("0.0.0.0:9", True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--listen", "0.0.0.0:80"], 'command line: http.listen: "0.0.0.0:80" is not on loopback'),
        (["--data", ""], 'command line: gateway.data: must be a path, is ""'),
        (["--config", "none/edgegw.toml"], "none/edgegw.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_fault_ends_it_before_the_gateway_starts(
    arguments: list[str], error: str, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["run", *arguments]) == 78
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"edgegw: config_invalid: {error}")
    assert not gateway.configs
    assert not gateway.logs

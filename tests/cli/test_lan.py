"""`edgegw run --lan`: the settings, and what a newcomer is told."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from edgegw.cli import lan
from edgegw.cli.lan import introduce, lan_overrides, own_address
from edgegw.cli.token import make_first_token
from edgegw.config import Config, GatewayConfig, HttpConfig
from edgegw.errors import RequestError


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("127.1.2.3:9000", "0.0.0.0:9000"),
        ("[::1]:8080", "[::]:8080"),
        ("192.0.2.1:8080", "192.0.2.1:8080"),
        ("0.0.0.0:1", "0.0.0.0:1"),
    ],
)
def test_the_port_stays(listen: str, expected: str) -> None:
    assert lan_overrides(listen) == {"http.listen": expected, "http.allow_plaintext": "true"}


def test_a_port_that_nobody_knows() -> None:
    with pytest.raises(RequestError) as caught:
        lan_overrides("127.0.0.1:0")
    assert caught.value.code == "no_port"


def config(data: Path, listen: str) -> Config:
    return Config(gateway=GatewayConfig(data=data), http=HttpConfig(listen=listen))


def test_the_first_time_it_shows_the_token_and_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lan, "own_address", lambda: "192.0.2.9")
    here = config(tmp_path / "data", "0.0.0.0:8080")
    introduce(here)
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "on the LAN: http://192.0.2.9:8080"
    secret = first[1].partition(": ")[2]
    assert secret.startswith("egw_")
    assert first[-1] == (
        f"  curl -i -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' -d '{{\"celsius\": 21.5}}'"
        " http://192.0.2.9:8080/v1/topics/cellar/temperature"
    )
    introduce(here)
    assert secret not in capsys.readouterr().out
    assert make_first_token(here.gateway.data, "other", ["publish"]) is None


def test_an_address_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    introduce(config(tmp_path, "[2001:db8::1]:80"))
    assert capsys.readouterr().out.startswith("on the LAN: http://[2001:db8::1]:80\n")
    with_tls = replace(config(tmp_path, "192.0.2.1:443").http, tls_certificate=Path("x"), tls_key=Path("y"))
    introduce(replace(config(tmp_path, ""), http=with_tls))
    assert capsys.readouterr().out.startswith("on the LAN: https://192.0.2.1:443\n")


def test_a_machine_without_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan, "_ELSEWHERE", ("255.255.255.255", 9))  # the kernel refuses it, as it does without a route
    assert own_address() is None
    introduce(config(tmp_path, "0.0.0.0:8080"))
    assert capsys.readouterr().out.startswith(f"on the LAN: http://{socket.gethostname()}:8080\n")

"""The doors: taken over or made, the rules beyond loopback, what a reload changes, and what it leaves as it is."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgegw.api.doors import Door
from edgegw.api.listeners import Listeners
from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import HttpConfig
from edgegw.errors import ConfigError, GatewayError
from edgegw.observe.log import Log
from tests.certificates import Authority

LOCAL = HttpConfig(listen="127.0.0.1:0")
OPEN = HttpConfig(listen="0.0.0.0:0", allow_plaintext=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> dict[str, Path]:
    certificate, key = authority.issue("gw")
    return {"tls_certificate": certificate, "tls_key": key}


class Opened:
    """Listeners over a data folder of their own; closed at the end of the test."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.run_folder = folder / "run"
        self._opened: list[Listeners] = []

    def __call__(self, config: HttpConfig, tokens: int = 0, **handed: socket.socket) -> Listeners:
        listeners = Listeners(config, self.data, run_folder=self.run_folder)
        listeners.open({name.replace("_", "-"): [sock] for name, sock in handed.items()}, tokens=tokens)
        self._opened.append(listeners)
        return listeners

    def close(self) -> None:
        for listeners in self._opened:
            listeners.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    found = Opened(tmp_path)
    yield found
    found.close()


def code(opened: Opened, config: HttpConfig, **more: Any) -> str:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(GatewayError) as caught:
        opened(config, **more)
    assert set(os.listdir("/proc/self/fd")) <= before, "a socket is left open"
    return caught.value.code


def conditions_of(listeners: Listeners, now_ms: int | None = None) -> dict[str, bool]:
    clock = SystemClock()
    conditions = Conditions(clock, Log("test"))
    listeners.tell_conditions(conditions, clock.wall_ms() if now_ms is None else now_ms)
    return {each["name"]: each["status"] == "raised" for each in conditions.snapshot()}  # type: ignore[misc]


# --- rules --------------------------------------------------------------------------------------


def test_on_loopback_nothing_is_asked_for(opened: Opened, tls: dict[str, Path]) -> None:
    plain = opened(LOCAL)
    assert [(door.is_unix, door.is_exposed, door.tls) for door in plain.doors] == [(False, False, None), (True, False, None)]
    assert plain.url == f"http://127.0.0.1:{plain.doors[0].sock.getsockname()[1]}"
    assert conditions_of(plain) == {}
    plain.close()
    assert os.listdir(opened.data) == []
    assert opened(replace(LOCAL, **tls)).url.startswith("https://127.0.0.1:")


def test_beyond_loopback_a_token_is_needed_and_tls_or_a_word(opened: Opened, tls: dict[str, Path], authority: Authority) -> None:
    bare = HttpConfig(listen="0.0.0.0:0")
    assert code(opened, bare, tokens=1) == "plaintext_not_allowed"
    assert code(opened, OPEN) == "token_needed"
    assert code(opened, replace(bare, **tls)) == "token_needed"
    for config, tokens, conditions in (
        (OPEN, 1, {"plaintext": True}),
        (replace(bare, **tls), 1, {"certificate": False}),
        (replace(bare, **tls, tls_client_ca=authority.certificate), 0, {"certificate": False}),
    ):
        listeners = opened(config, tokens=tokens)
        assert conditions_of(listeners) == conditions
        assert listeners.url.split(":")[1] == "//127.0.0.1"
        listeners.close()


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_socket_that_is_handed_over_obeys_the_same_rules(opened: Opened, address: str) -> None:
    def handed() -> socket.socket:
        return socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    for config, tokens, expected in ((LOCAL, 1, "plaintext_not_allowed"), (OPEN, 0, "token_needed")):
        sock = handed()
        with pytest.raises(ConfigError) as caught:
            opened(config, tokens, http=sock)
        assert (caught.value.code, sock.fileno()) == (expected, -1)
    sock = handed()
    assert opened(OPEN, 1, http=sock).doors[0].sock is sock


def test_what_is_handed_over_and_cannot_be(opened: Opened) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match="no TCP socket") as caught:
            opened(LOCAL, http=sock)
        assert (caught.value.code, sock.fileno()) == ("bad_supervisor", -1)


def test_a_unix_socket_that_is_handed_over(opened: Opened, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, socket.create_server(("127.0.0.1", 0)) as other:
        sock.bind(str(tmp_path / "x.sock"))
        listeners = opened(LOCAL, http_unix=sock, mqtt=other)
        assert [door.sock for door in listeners.doors if door.is_unix] == [sock]
        assert list(listeners.socks) == ["http-unix", "http"]
        assert other.fileno() == -1  # nobody here wants it
        assert os.listdir(opened.data) == []
        listeners.close()
        assert (tmp_path / "x.sock").is_socket()  # whoever made it removes it


def test_a_certificate_that_ends_soon(opened: Opened, tls: dict[str, Path]) -> None:
    listeners = opened(replace(LOCAL, **tls))
    assert conditions_of(listeners) == {"certificate": False}
    assert conditions_of(listeners, SystemClock().wall_ms() + 340 * 86_400_000) == {"certificate": True}


def test_a_bad_certificate(opened: Opened, tls: dict[str, Path]) -> None:
    assert code(opened, replace(LOCAL, **tls | {"tls_key": Path("none")})) == "bad_certificate"


# --- where the Unix socket is -------------------------------------------------------------------


def test_the_unix_socket_is_where_services_have_theirs(opened: Opened) -> None:
    opened.run_folder.mkdir()
    listeners = opened(LOCAL)
    assert (opened.run_folder / "edgegw.sock").is_socket()
    assert (opened.data / "edgegw.sock").readlink() == opened.run_folder / "edgegw.sock"
    listeners.close()
    assert os.listdir(opened.run_folder) == os.listdir(opened.data) == []


def test_a_second_gateway_has_it_in_its_data_folder(opened: Opened, tmp_path: Path) -> None:
    opened.run_folder.mkdir()
    opened(LOCAL)
    other = Opened(tmp_path / "run")
    other.run_folder = opened.run_folder
    other(LOCAL)
    assert not (other.data / "edgegw.sock").is_symlink()
    assert (other.data / "edgegw.sock").is_socket()
    other.close()


def test_a_path_that_was_asked_for_must_be_had(opened: Opened, tmp_path: Path) -> None:
    listeners = opened(replace(LOCAL, socket=tmp_path / "x.sock"))
    assert (tmp_path / "x.sock").is_socket()
    assert code(opened, replace(LOCAL, socket=tmp_path / "x.sock")) == "socket_in_use"
    assert code(opened, replace(LOCAL, socket=tmp_path / ("x" * 200))) == "bad_socket_path"
    listeners.close()


def test_one_that_nobody_asked_for_may_be_missing(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    opened = Opened(deep)
    assert [door.is_unix for door in opened(LOCAL).doors] == [False]
    opened.close()


# --- reload -------------------------------------------------------------------------------------


def change(listeners: Listeners, config: HttpConfig, tokens: int = 0) -> list[tuple[Door, Door]]:
    listeners.prepare(config, tokens=tokens)
    replaced = listeners.apply()
    for old, _ in replaced:
        old.sock.close()
    return replaced


def test_what_did_not_change_stays(opened: Opened, tls: dict[str, Path]) -> None:
    listeners = opened(replace(LOCAL, **tls))
    doors = listeners.doors
    assert change(listeners, replace(LOCAL, **tls, connections_max=5)) == []
    assert listeners.doors == doors


def test_another_address(opened: Opened) -> None:
    listeners = opened(LOCAL)
    tcp, unix = listeners.doors
    ((old, new),) = change(listeners, replace(LOCAL, listen="127.0.0.2:0"))
    assert (old, listeners.doors) == (tcp, [new, unix])
    assert new.sock.getsockname()[0] == "127.0.0.2"


def test_another_address_with_the_same_port(opened: Opened) -> None:
    listeners = opened(LOCAL)
    port = listeners.doors[0].sock.getsockname()[1]
    for listen in (f"0.0.0.0:{port}", f"127.0.0.1:{port}", f"[::]:{port}", f"0.0.0.0:{port}"):
        listeners.prepare(HttpConfig(listen=listen, allow_plaintext=True), tokens=1)
        ((old, new),) = listeners.apply()
        for door in (old, new):
            assert not door.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        old.sock.close()
        with socket.create_connection(("127.0.0.1", port), 5), new.sock.accept()[0]:
            pass
    with socket.create_server(("127.0.0.2", 0)) as taken:
        with pytest.raises(GatewayError) as caught:
            change(listeners, replace(LOCAL, listen=f"127.0.0.2:{taken.getsockname()[1]}"))
        assert caught.value.code == "cannot_listen"


def test_a_renewed_certificate(opened: Opened, tls: dict[str, Path], authority: Authority, tmp_path: Path) -> None:
    mine = {name: tmp_path / path.name for name, path in tls.items()}
    for name, path in tls.items():
        mine[name].write_bytes(path.read_bytes())
    listeners = opened(replace(LOCAL, **mine))
    door = listeners.doors[0]
    assert door.tls is not None
    before = door.tls.context
    for name, path in zip(mine, authority.issue("next", days=3), strict=True):
        mine[name].write_bytes(path.read_bytes())
    assert change(listeners, replace(LOCAL, **mine)) == []
    assert door.tls.context is not before
    assert conditions_of(listeners) == {"certificate": True}
    mine["tls_key"].write_text("fish")
    with pytest.raises(ConfigError):
        listeners.prepare(replace(LOCAL, **mine), tokens=0)
    listeners.withdraw()
    assert listeners.doors[0] is door


def test_from_plain_to_tls_and_back_on_the_same_socket(opened: Opened, tls: dict[str, Path]) -> None:
    listeners = opened(OPEN, tokens=1)
    address = listeners.doors[0].sock.getsockname()
    clock = SystemClock()
    conditions = Conditions(clock, Log("test"))
    for config, expected in ((replace(OPEN, **tls), ["certificate"]), (OPEN, ["plaintext"])):
        ((_, new),) = change(listeners, config, tokens=1)
        assert (new.tls is None, new.sock.getsockname()) == ("tls_key" not in expected and config is OPEN, address)
        listeners.tell_conditions(conditions, clock.wall_ms())
        assert [each["name"] for each in conditions.snapshot()] == expected


def test_a_reload_obeys_the_rules(opened: Opened) -> None:
    listeners = opened(LOCAL)
    for config, expected in (
        (HttpConfig(listen="0.0.0.0:0"), "plaintext_not_allowed"),
        (OPEN, "token_needed"),
        (replace(LOCAL, socket=Path("/none/x.sock")), "cannot_listen"),
    ):
        before = os.listdir("/proc/self/fd")
        with pytest.raises(GatewayError) as caught:
            listeners.prepare(config, tokens=0)
        listeners.withdraw()
        assert caught.value.code == expected
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_another_unix_socket(opened: Opened, tmp_path: Path) -> None:
    listeners = opened(LOCAL)
    config = replace(LOCAL, socket=tmp_path / "x.sock")
    listeners.prepare(config, tokens=0)
    listeners.withdraw()
    assert not (tmp_path / "x.sock").exists()
    assert (opened.data / "edgegw.sock").is_socket()
    ((_, new),) = change(listeners, config)
    assert new.is_unix
    assert (tmp_path / "x.sock").is_socket()
    assert (opened.data / "edgegw.sock").readlink() == tmp_path / "x.sock"
    change(listeners, LOCAL)
    assert not (tmp_path / "x.sock").exists()
    assert not (opened.data / "edgegw.sock").is_symlink()
    listeners.close()
    assert os.listdir(opened.data) == []

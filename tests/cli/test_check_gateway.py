"""What `edgegw check` asks the gateway's own things: the lock, the store, addresses, links, and a gateway that runs."""

import fcntl
import json
import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from edgegw.cli.check_gateway import (
    UNKNOWN,
    check_certificates,
    check_config,
    check_gateway,
    check_links,
    check_listen,
    check_store,
    gateway_target,
    look_at_store,
    owner_of,
)
from edgegw.cli.client import Target
from edgegw.cli.findings import Finding
from edgegw.config import Config, GatewayConfig, HttpConfig, LinkConfig, Reading
from edgegw.errors import StoreError
from edgegw.limits import WAL_BYTES_MAX
from edgegw.store.glance import Glance
from tests.bus_setup import Shelf
from tests.cli.scripted_gateway import Reply, ScriptedGateway

PROC = Path("/proc")
GOOD = Glance(4096, 0, 1, 3, None)


# --- store ---------------------------------------------------------------------------------------


def test_who_holds_the_store(tmp_path: Path) -> None:
    assert owner_of(tmp_path, PROC) is None
    lock = tmp_path / "lock"
    lock.write_text(f"{os.getpid()}\n")
    assert owner_of(tmp_path, PROC) is None, "what a killed gateway left behind"
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert owner_of(tmp_path, PROC) == os.getpid()
        table = (PROC / "locks").read_text()
        (tmp_path / "locks").write_text(table.replace(f" {os.getpid()} ", " -1 "))
        assert owner_of(tmp_path, tmp_path) == UNKNOWN, "of another namespace"
    assert owner_of(tmp_path, PROC) is None
    assert owner_of(tmp_path, tmp_path / "no proc") is None


def test_what_this_user_may_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr("pathlib.Path.stat", refuse)
    assert owner_of(tmp_path, PROC) == UNKNOWN
    monkeypatch.setattr("pathlib.Path.open", refuse)
    found = look_at_store(tmp_path)
    assert isinstance(found, PermissionError)
    assert check_store(tmp_path, found, UNKNOWN).status == "warn"
    target = gateway_target(Reading(Config(GatewayConfig(data=tmp_path), HttpConfig(listen="127.0.0.1:1")), {}, ()))
    assert target == Target("127.0.0.1", 1)
    (finding,) = check_gateway(target, UNKNOWN, is_asked=False)
    assert finding.status == "warn"
    assert "may not see" in check_store(tmp_path, GOOD, UNKNOWN).what


def test_the_store(tmp_path: Path) -> None:
    assert look_at_store(tmp_path) is None
    assert check_store(tmp_path, None, None).status == "ok"
    shelf = Shelf(tmp_path)
    found = look_at_store(tmp_path)
    assert isinstance(found, Glance)
    assert check_store(tmp_path, found, 7).what.startswith("held by process 7; ")
    shelf.writer.close()
    assert check_store(tmp_path, look_at_store(tmp_path), None).what.startswith("free; ")
    (tmp_path / "bus.db").write_bytes(b"nonsense")
    broken = look_at_store(tmp_path)
    assert isinstance(broken, StoreError)
    assert check_store(tmp_path, broken, None).status == "fail"


@pytest.mark.parametrize(
    ("found", "status"),
    [(GOOD, "ok"), (GOOD._replace(min_reader=99), "fail"), (GOOD._replace(wal_bytes=5 * WAL_BYTES_MAX), "warn")],
)
def test_odd_stores(tmp_path: Path, found: Glance, status: str) -> None:
    finding = check_store(tmp_path, found, None)
    assert finding.status == status
    assert bool(finding.hint) == (status != "ok")


def test_the_files_of_the_configuration() -> None:
    assert check_config(Reading(Config(), {}, ("/a.toml", "/b.toml"))).what == "/a.toml, /b.toml"
    assert "no file" in check_config(Reading(Config(), {}, ())).what


# --- addresses and certificates ------------------------------------------------------------------


def test_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = HttpConfig(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert check_listen(config, None).status == "fail"
        assert check_listen(config, 7).status == "ok"
    assert check_listen(config, None) == ("listen", "ok", f"{config.listen} is free", "")
    assert check_listen(HttpConfig(listen="192.0.2.1:80"), None).status == "fail"
    assert check_listen(HttpConfig(listen="[::1]:0"), None).status in ("ok", "fail")  # a machine may have no IPv6


def test_no_certificates() -> None:
    assert check_certificates(HttpConfig()).what == "TLS is not configured"


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    config = HttpConfig(tls_certificate=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")
    finding = check_certificates(config)
    assert finding.status == "fail"
    assert "c.pem cannot be read" in finding.what


# --- links ---------------------------------------------------------------------------------------


def link_to(port: int, scheme: str = "http") -> LinkConfig:
    return LinkConfig(name="up", url=f"{scheme}://127.0.0.1:{port}/v1/messages")


def test_an_upstream_that_takes_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        (finding,) = check_links((link_to(port),))
        assert finding == ("link up", "ok", f"127.0.0.1:{port} takes connections", "")
    (finding,) = check_links((link_to(port),))
    assert finding.status == "warn", "to be offline is no fault"
    assert "Connection refused" in finding.what


def test_an_upstream_that_does_not_shake_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegw.cli.check_gateway.CHECK_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (finding,) = check_links((link_to(silent.getsockname()[1], "https"),))
    assert finding.status == "fail"
    assert "no TLS" in finding.what


def test_what_a_link_names_and_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        port = upstream.getsockname()[1]
        token = replace(link_to(port), token_file=tmp_path / "token")
        ca = replace(link_to(port, "https"), ca_file=tmp_path / "ca.pem")
        for finding in check_links((token, ca)):
            assert finding.status == "fail"
            assert finding.hint


def test_a_certificate_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubting(ssl.SSLContext):
        def wrap_socket(self, *_: object, **__: object) -> ssl.SSLSocket:  # type: ignore[override]
            error = ssl.SSLCertVerificationError(1, "x")
            error.verify_message = "self-signed certificate"
            raise error

    monkeypatch.setattr("ssl.create_default_context", lambda **_: Doubting(ssl.PROTOCOL_TLS_CLIENT))
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        (finding,) = check_links((link_to(upstream.getsockname()[1], "https"),))
    assert finding.status == "fail"
    assert "self-signed certificate" in finding.what
    assert "ca_file" in finding.hint


# --- a gateway that runs -------------------------------------------------------------------------


def condition(name: str, *, required: bool = False, status: str = "raised") -> dict[str, object]:
    return {"name": name, "status": status, "required": required, "what": f"{name} is wrong", "hint": "mend it"}


def asked(reply: Reply) -> list[Finding]:
    """What is found about a gateway that answers so."""
    with ScriptedGateway([reply]) as gateway:
        target = Target("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        found = list(check_gateway(target, 7, is_asked=False))
        assert [seen.path for seen in gateway.seen] == ["/readyz"]
    return found


def readiness(status: int, *conditions: dict[str, object]) -> Reply:
    return Reply(status, json.dumps({"conditions": conditions}).encode())


def test_where_the_gateway_is(tmp_path: Path) -> None:
    reading = Reading(Config(GatewayConfig(data=tmp_path), HttpConfig(listen="0.0.0.0:81")), {}, ())
    assert gateway_target(reading) == Target("127.0.0.1", 81)
    secured = Reading(Config(GatewayConfig(data=tmp_path), HttpConfig(tls_certificate=tmp_path / "c.pem")), {}, ())
    assert gateway_target(secured) is None
    (finding,) = check_gateway(None, 7, is_asked=False)
    assert finding.status == "warn"
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "edgegw.sock"))
        assert gateway_target(reading).socket_path == str(tmp_path / "edgegw.sock")


def test_a_gateway_that_does_not_run() -> None:
    (finding,) = check_gateway(Target("127.0.0.1", 1), None, is_asked=False)
    assert (finding.status, finding.what) == ("ok", "it does not run")
    (finding,) = check_gateway(Target("127.0.0.1", 1), None, is_asked=True)
    assert finding.status == "fail"


def test_a_gateway_that_runs_and_does_not_answer(tmp_path: Path) -> None:
    (finding,) = check_gateway(Target("127.0.0.1", 1), 7, is_asked=False)
    assert finding.status == "warn", "it may listen elsewhere"
    target = Target("localhost", 80, socket_path=str(tmp_path / "edgegw.sock"))
    (finding,) = check_gateway(target, 7, is_asked=False)
    assert finding.status == "fail"
    assert "does not answer" in finding.what


def test_a_gateway_that_is_ready() -> None:
    assert [f.status for f in asked(readiness(200, condition("store", status="ok")))] == ["ok"]
    ready, raised = asked(readiness(200, condition("certificate")))
    assert ready.status == "ok"
    assert raised == ("condition certificate", "warn", "certificate is wrong", "mend it")


def test_a_gateway_that_is_not_ready() -> None:
    not_ready, raised = asked(readiness(503, condition("store", required=True)))
    assert (not_ready.status, raised.status) == ("fail", "fail")


@pytest.mark.parametrize("reply", [Reply(200, b"<html>"), Reply(200, b"[]"), Reply(404, b"{}"), Reply(200, b'{"conditions": 5}')])
def test_what_is_no_gateway(reply: Reply) -> None:
    (finding,) = asked(reply)
    assert finding.status == "fail"
    assert finding.hint

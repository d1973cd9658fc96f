"""A real gateway beyond loopback: what it does not start without, and what a newcomer, a sensor and a stranger get."""

import contextlib
import http.client
import json
import os
import re
import resource
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgegw.cli.lan import own_address
from edgegw.config_values import is_loopback
from tests.certificates import Authority
from tests.gateway_process import GatewayProcess, free_port

PLAIN = {"EDGEGW_HTTP__ALLOW_PLAINTEXT": "true"}


def token(data: Path, *options: str) -> str:
    """Makes one where no gateway runs; its secret."""
    command = [sys.executable, "-m", "edgegw", "token", "create", "pump", "--data", str(data), *options]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EDGEGW_")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout.strip()


def refused(data: Path, environ: dict[str, str], *options: str) -> str:
    """The one line that a start ends with."""
    gateway = GatewayProcess(data, *options, environ=environ)
    gateway.spawn()
    assert gateway.wait() == 78, gateway.log
    assert gateway.log.count("\n") == 1
    line = gateway.log
    gateway.data.with_name(data.name + ".log").unlink()
    return line


def test_what_it_does_not_start_without(tmp_path: Path) -> None:
    data, beyond = tmp_path / "data", ("--listen", f"0.0.0.0:{free_port()}")
    certificate, key = map(str, Authority(tmp_path).issue("gw"))
    pair = {"EDGEGW_HTTP__TLS_CERTIFICATE": certificate, "EDGEGW_HTTP__TLS_KEY": key}
    assert "is not on loopback: set tls_certificate and tls_key, or allow_plaintext = true" in refused(data, {}, *beyond)
    for environ in (PLAIN, pair):
        assert refused(data, environ, *beyond).startswith("edgegw: token_needed: ")
    assert "stands without tls_key" in refused(data, {"EDGEGW_HTTP__TLS_CERTIFICATE": certificate})
    assert "stands without tls_certificate" in refused(data, {"EDGEGW_HTTP__TLS_CLIENT_CA": certificate})
    missing = refused(data, pair | {"EDGEGW_HTTP__TLS_KEY": "none.key"})
    assert missing.startswith("edgegw: bad_certificate: none.key cannot be read: No such file or directory")
    assert "is not the key of" in refused(data, pair | {"EDGEGW_HTTP__TLS_KEY": str(Authority(tmp_path, "x").folder / "x.key")})
    token(data, "--scope", "publish")
    assert "is not on loopback: set" in refused(data, {}, *beyond)


def test_a_certificate_that_expired_stops_nothing(tmp_path: Path) -> None:
    certificate, key = map(str, Authority(tmp_path).issue("gw", days=-1, since_days=9))
    environ = {"EDGEGW_HTTP__TLS_CERTIFICATE": certificate, "EDGEGW_HTTP__TLS_KEY": key}
    gateway = GatewayProcess(tmp_path / "data", environ=environ)
    gateway.spawn()
    try:
        path = tmp_path / "data" / "edgegw.sock"
        while not path.exists():
            assert gateway.lives(0.05), gateway.log
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        conditions = {each["name"]: each for each in json.loads(answer.partition(b"\r\n\r\n")[2])["conditions"]}
        assert conditions["certificate"]["status"] == "raised"
        assert "expired on" in conditions["certificate"]["what"]
        assert gateway.stop() == 0
        assert not path.exists()
    finally:
        gateway.kill()


def test_from_loopback_to_a_sensor_on_the_lan(tmp_path: Path) -> None:
    address = own_address()
    if address is None or is_loopback(address):
        pytest.skip("this machine has no network")
    with GatewayProcess(tmp_path / "data", "--lan") as gateway:
        said = gateway.log
        (line,) = (line for line in said.splitlines() if line.startswith("  curl "))
        words = shlex.split(line)
        assert words[-1].startswith(f"http://{address}:{gateway.port}/")
        secret = re.findall(r"egw_[\w-]+", line)[0]

        def post(host: str, **headers: str) -> int:
            connection = http.client.HTTPConnection(host, gateway.port, timeout=30)
            connection.request("POST", "/v1/topics/cellar/temperature", b'{"celsius": 21.5}', headers)
            status = connection.getresponse().status
            connection.close()
            return status

        assert post(address, Authorization=f"Bearer {secret}") == 201
        assert post(address) == 401
        assert post(address, Authorization=f"Bearer {secret}x") == 401
        assert post("127.0.0.1") == 201
        assert post("127.0.0.1", Host="evil.example") == 403
        conditions = gateway.request("GET", "/readyz")[1]["conditions"]
        assert [each["name"] for each in conditions if each["status"] == "raised"] == ["plaintext"]
        assert secret not in gateway.log.replace(said, "")
        assert gateway.stop() == 0
    with GatewayProcess(tmp_path / "data", "--lan", port=gateway.port) as again:
        assert secret not in again.log.replace(said, "")
        assert "it has tokens already" in again.log


def test_a_killed_gateway_leaves_a_socket_that_the_next_replaces(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as gateway:
        gateway.kill()
        assert (gateway.data / "edgegw.sock").is_socket()
        gateway.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(gateway.data / "edgegw.sock"))
        assert gateway.stop() == 0
        assert not (gateway.data / "edgegw.sock").exists()


def test_a_data_folder_that_others_may_look_into_shows_them_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    token(data, "--scope", "publish")
    with GatewayProcess(data) as gateway:
        assert gateway.request("POST", "/v1/topics/a", 1)[0] == 201
        modes = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
        assert {"bus.db", "bus.db-wal", "state.db", "edgegw.sock", "lock"} <= modes.keys()
        assert [name for name, mode in modes.items() if mode & 0o007] == []
        assert modes["state.db"] == 0o600


def test_descriptors_are_enough_for_all_connections(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        gateway = GatewayProcess(tmp_path / "data")
        gateway.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with contextlib.ExitStack() as stack:
        stack.callback(gateway.kill)
        for _ in range(400):
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
        assert gateway.request("GET", "/healthz")[0] == 200


def test_damaged_tokens_keep_nobody_in_and_no_reading_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    secret = token(data, "--scope", "publish")
    (data / "state.db").write_bytes(b"damaged" * 1000)
    with GatewayProcess(data, "--listen", f"0.0.0.0:{(port := free_port())}", port=port, environ=PLAIN) as gateway:
        assert gateway.request("POST", "/v1/topics/a", 1)[0] == 201
        raised = [each["name"] for each in gateway.request("GET", "/readyz")[1]["conditions"] if each["status"] == "raised"]
        assert sorted(raised) == ["plaintext", "tokens"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/v1/topics/a", b"1", {"Authorization": f"Bearer {secret}"})
        assert connection.getresponse().status == 401
        connection.close()

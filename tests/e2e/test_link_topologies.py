"""Links between real gateways: in a chain, to oneself, and over TLS with certificates on both sides."""

import http.client
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.gateway_process import GatewayProcess, free_port

QUIET = "[host]\ninterval_s = 0\n"
LINK = '[[link]]\nname = "up"\nurl = "{url}/v1/messages"\n{more}'


def configured(folder: Path, name: str, text: str, port: int | None = None) -> GatewayProcess:
    """A gateway that is not started."""
    file = folder / f"{name}.toml"
    file.write_text(QUIET + text)
    return GatewayProcess(folder / name, "--config", str(file), port=port)


def until(gateway: GatewayProcess, path: str, is_so: Any, what: str) -> Any:
    """The answer of `path` once it is so."""
    pause = threading.Event()
    answer = None
    for _ in range(300):
        answer = gateway.request("GET", path)[1]
        if is_so(answer):
            return answer
        pause.wait(0.1)
    raise AssertionError(f"waited in vain until {what}: {answer}\n{gateway.log[-3000:]}")


def rows(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """What it has in `default`."""
    return [row for row in gateway.request("GET", "/v1/messages?after=0&limit=1000")[1] if "gap" not in row]


@pytest.mark.timeout(120)
def test_a_chain_brings_each_message_once_through_a_restart_in_the_middle(tmp_path: Path) -> None:
    last = configured(tmp_path, "c", "")
    middle = configured(tmp_path, "b", LINK.format(url=last.url, more='prefix = "site/"\n'))
    first = configured(tmp_path, "a", LINK.format(url=middle.url, more='prefix = "cell/"\n'))
    with last, middle, first:
        for n in range(20):
            if n == 10:
                middle.kill()
                middle.start()
            assert first.request("POST", "/v1/topics/t", n)[0] == 201
        until(last, "/v1/status", lambda s: s["streams"]["default"]["received"] >= 20, "all are there")
        found = rows(last)
        assert sorted(row["payload"] for row in found) == list(range(20))
        assert {row["topic"] for row in found} == {"site/cell/t"}
        assert found[0]["source_time"] == rows(first)[0]["time"], "when it was measured survives"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("form", ["columns", "json"])
def test_a_link_to_itself_is_told_and_does_not_fill_the_store(form: str, tmp_path: Path) -> None:
    port = free_port()
    with configured(tmp_path, "a", LINK.format(url=f"http://127.0.0.1:{port}", more=f'format = "{form}"\n'), port) as gateway:
        assert gateway.request("POST", "/v1/topics/t", 1)[0] == 201
        ready = until(
            gateway, "/readyz", lambda r: any(c["name"] == "upstream_up" and c["status"] != "ok" for c in r["conditions"]), "told"
        )
        (told,) = [c for c in ready["conditions"] if c["name"] == "upstream_up"]
        assert "508" in told["what"] and "link_loop" in told["what"]
        assert len(rows(gateway)) == 1


class Behind(GatewayProcess):
    """A gateway that is asked through its Unix socket: its address takes TLS only."""

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float = 30.0) -> tuple[int, Any]:
        """As on the address."""
        connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout_s)
        try:
            connection.sock.connect(str(self.data / "edgegw.sock"))
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return response.status, json.loads(content) if content else None


@pytest.mark.timeout(120)
def test_tls_with_an_authority_of_ones_own_and_a_client_certificate(tmp_path: Path) -> None:
    servers, clients = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    certificate, key = servers.issue("upstream")
    mine, my_key = clients.issue("cell-7")
    others, others_key = servers.issue("stranger")
    http_section = f'[http]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\ntls_client_ca = "{clients.certificate}"\n'
    file = tmp_path / "up.toml"
    file.write_text(QUIET + http_section)
    with Behind(tmp_path / "up", "--config", str(file)) as upstream:
        url = f"https://127.0.0.1:{upstream.port}"

        def link(authority: Authority, shown: Path, its_key: Path) -> str:
            return LINK.format(url=url, more=f'ca_file = "{authority.certificate}"\ncertificate = "{shown}"\nkey = "{its_key}"\n')

        with configured(tmp_path, "source", link(servers, mine, my_key)) as source:
            assert source.request("POST", "/v1/topics/t", 1)[0] == 201
            until(upstream, "/v1/status", lambda s: s["streams"]["default"]["received"] == 1, "it arrives")

            for wrong, words in ((link(clients, mine, my_key), "certificate"), (link(servers, others, others_key), "")):
                (tmp_path / "source.toml").write_text(QUIET + wrong)
                source.hang_up()
                assert source.request("POST", "/v1/topics/t", 2)[0] == 201
                status = until(source, "/v1/status", lambda s: s["links"]["up"]["gone_s"] > 0, "it is refused")
                assert words in status["links"]["up"]["last_error"]
                assert upstream.request("GET", "/v1/status")[1]["streams"]["default"]["received"] == 1

            (tmp_path / "source.toml").write_text(QUIET + link(servers, mine, my_key))
            source.hang_up()
            until(upstream, "/v1/status", lambda s: s["streams"]["default"]["received"] == 3, "what waited arrives")
            assert [row["payload"] for row in rows(upstream)] == [1, 2, 2]

"""Links as the configuration has them: started, changed and ended by a reload, shown in the status, their consumers guarded."""

import json
from pathlib import Path

import pytest

from tests.gateway_process import GatewayProcess

LINK = '[[link]]\nname = "up"\nurl = "http://127.0.0.1:{port}/v1/messages"\n{more}'
QUIET = "[host]\ninterval_s = 0\n"


def until(gateway: GatewayProcess, path: str, wanted: str) -> str:
    """The answer of `path` once `wanted` is in it."""
    import threading

    pause = threading.Event()
    for _ in range(300):
        text = json.dumps(gateway.request("GET", path)[1])
        if wanted in text:
            return text
        pause.wait(0.05)
    raise AssertionError(f"{wanted} is not in {text}\n{gateway.log[-2000:]}")


@pytest.mark.timeout(120)
def test_the_life_of_a_link(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(QUIET)
    with (
        GatewayProcess(tmp_path / "up") as upstream,
        GatewayProcess(tmp_path / "source", "--config", str(config)) as source,
    ):
        assert source.request("GET", "/v1/status")[1]["links"] == {}
        assert source.request("POST", "/v1/topics/a/before", 1)[0] == 201

        config.write_text(QUIET + LINK.format(port=upstream.port, more='filter = "a/#"\n'))
        source.hang_up()
        until(upstream, "/v1/messages", "a/before")
        until(source, "/v1/consumers/link.up", '"acked": 1')
        assert source.request("GET", "/v1/status")[1]["links"]["up"]["state"] == "closed"

        for method, path, body in (
            ("POST", "fetch", None), ("POST", "ack", {"upto": 1}), ("POST", "nack", {"seqs": [1]}), ("DELETE", "", None),
        ):  # fmt: skip
            status, answer = source.request(method, f"/v1/consumers/link.up/{path}".rstrip("/"), body)
            assert (status, answer["code"]) == (409, "consumer_owned")
        assert source.request("PUT", "/v1/consumers/link.other", {})[1]["code"] == "bad_name"

        config.write_text(QUIET + LINK.format(port=upstream.port, more='filter = "a/#"\nprefix = "plant/"\n'))
        source.hang_up()
        until(source, "/v1/status", '"up"')
        assert source.request("POST", "/v1/topics/a/after", 2)[0] == 201
        until(upstream, "/v1/messages", "plant/a/after")

        config.write_text(QUIET)
        source.hang_up()
        until(source, "/v1/status", '"links": {}')
        assert source.request("DELETE", "/v1/consumers/link.up")[0] == 204
        conditions = source.request("GET", "/readyz")[1]["conditions"]
        assert not [c["name"] for c in conditions if "up" in c["name"]], conditions


@pytest.mark.timeout(60)
def test_a_token_file_that_is_missing_is_a_condition_and_mends_itself(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(QUIET + LINK.format(port=9, more=f'token_file = "{tmp_path}/token"\n'))
    with GatewayProcess(tmp_path / "source", "--config", str(config)) as source:
        until(source, "/readyz", "cannot be read")
        (tmp_path / "token").write_text("egw_x")
        until(source, "/v1/status", '"status": "ok", "severity": "warning", "required": false')
        assert source.request("POST", "/v1/topics/a", 1)[0] == 201

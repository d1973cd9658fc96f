"""A reload of the real process under load: no message lost, no connection dropped, whoever asked for it."""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway_process import GatewayProcess

PUBLISHERS = 4
PATIENCE_S = 30.0
STREAM = '[[stream]]\nname = "bulk"\ntopics = ["bulk/#"]\nbytes_max = {}\npolicy = "drop-oldest"\n'
LARGE, SMALL = 64 << 20, 256 << 10
PAYLOAD = b"x" * 2000


class Publisher(threading.Thread):
    """Publishes on one connection until it is told to stop; keeps the receipts."""

    def __init__(self, port: int, topic: str) -> None:
        super().__init__()
        self.topic = topic
        self.seqs: list[int] = []
        self.fault: BaseException | None = None
        self.is_over = threading.Event()
        self._port = port

    def run(self) -> None:
        """http.client opens another connection when this one was closed: the socket must stay the same."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            connection.connect()
            first = connection.sock
            while not self.is_over.is_set():
                connection.request("POST", f"/v1/topics/{self.topic}", PAYLOAD)
                response = connection.getresponse()
                receipt = json.loads(response.read())
                assert response.status == 201, receipt
                assert connection.sock is first, "the connection was dropped"
                assert receipt["stream"] == "bulk"
                self.seqs.append(receipt["seq"])
        except BaseException as caught:
            self.fault = caught
        finally:
            connection.close()


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():  # each look is a request, so others run meanwhile
        assert time.monotonic() < deadline_s, f"waited in vain until {what}"


@pytest.mark.parametrize("cause", ["signal", "files"])
def test_a_bound_changes_under_load(tmp_path: Path, cause: str) -> None:
    file = tmp_path / "edgegw.toml"
    file.write_text(STREAM.format(LARGE))

    def change(text: str) -> None:
        file.write_text(text)
        if cause == "signal":
            os.kill(gateway.pid, signal.SIGHUP)

    def stream() -> dict[str, Any]:
        found = gateway.request("GET", "/v1/status")[1]["streams"]["bulk"]
        assert isinstance(found, dict)
        return found

    with GatewayProcess(tmp_path / "data", "--config", str(file)) as gateway:
        publishers = [Publisher(gateway.port, f"bulk/{n}") for n in range(PUBLISHERS)]
        for each in publishers:
            each.start()
        try:
            until(lambda: stream()["bytes"] > 2 * SMALL, "there is more than the small bound")
            change(STREAM.format(SMALL))
            until(lambda: stream()["bytes_max"] == SMALL, "the bound is lowered")
            until(lambda: stream()["bytes"] <= SMALL, "it holds")
            change(STREAM.format(SMALL) + "nonsense = 1\n")
            until(lambda: _is_refused(gateway), "a wrong one is refused")
            received = stream()["received"]
            until(lambda: stream()["received"] > received + 100, "publishing goes on")
            change(STREAM.format(LARGE))
            until(lambda: stream()["bytes_max"] == LARGE, "the bound is raised")
            until(lambda: stream()["bytes"] > SMALL, "it holds more again")
        finally:
            for each in publishers:
                each.is_over.set()
            for each in publishers:
                each.join()
        assert [each.fault for each in publishers] == [None] * PUBLISHERS
        seqs = sorted(seq for each in publishers for seq in each.seqs)
        assert seqs == list(range(1, len(seqs) + 1)), "each receipt has a number of its own, and none is missing"
        found = stream()
        assert found["received"] == len(seqs) == found["stored"] + sum(found["removed"].values())
        assert found["removed"].keys() == {"bytes"}
        rows = gateway.request("GET", f"/v1/messages?stream=bulk&limit=1000&after={found['first'] - 1}")[1]
        assert [row["seq"] for row in rows] == list(range(found["first"], found["first"] + len(rows)))
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log


def _is_refused(gateway: GatewayProcess) -> bool:
    conditions = gateway.request("GET", "/readyz")[1]["conditions"]
    return any(each["name"] == "config" and each["status"] == "raised" for each in conditions)

"""Thirteen months of readings through the real gateway, killed on the way: a durable consumer gets each once, in order."""

import csv
import http.client
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.gateway_process import TREE, GatewayProcess

AIR_QUALITY = Path(__file__).parent.parent / "data" / "air-quality-uci.csv"
KILLS = 8
CONSUMER = "/v1/consumers/reader"
LIMIT_S = 240


class Taken(NamedTuple):
    """A reading as the file has it, and as the consumer got it."""

    topic: str
    value: float
    time: datetime


def recorded() -> list[Taken]:
    """Every value of the file, row by row; read here without any code of the gateway."""
    with AIR_QUALITY.open(newline="", encoding="ascii") as file:
        header, *rows = csv.reader(file, delimiter=";")
    found = []
    for row in rows:
        time = datetime.strptime(f"{row[0]} {row[1]}", "%d/%m/%Y %H.%M.%S").replace(tzinfo=UTC)
        for name, cell in zip(header[2:15], row[2:15], strict=True):
            value = float(cell.replace(",", "."))
            if value != -200:
                found.append(Taken(f"air-quality/{name}", value, time))
    assert len(rows) == 9357
    return found


class Reader:
    """A durable consumer that lives through the kills. What it was given it may be given again, but never differently."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.taken: dict[int, Taken] = {}
        self.done = threading.Event()
        self._gateway = gateway

    def run(self) -> None:
        """Fetch and acknowledge until `done` is set and nothing is left."""
        while True:
            last_round = self.done.is_set()
            try:
                status, rows = self._gateway.request("POST", f"{CONSUMER}/fetch?max=1000&wait=0.5")
                assert status == 200, f"{rows}\n{self._gateway.log}"
                self._take(rows)
                if rows:
                    status, answer = self._gateway.request("POST", f"{CONSUMER}/ack", {"upto": rows[-1]["seq"]})
                    # 409: killed in between, and the new process has not delivered them yet.
                    assert status in (204, 409), f"{answer}\n{self._gateway.log}"
            except (OSError, http.client.HTTPException):
                if last_round:
                    raise
                self.done.wait(0.05)
                continue
            if last_round and not rows:
                return

    def _take(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            assert "gap" not in row, row
            assert row["stream"] == "default", row
            taken = Taken(row["topic"], row["payload"], datetime.fromisoformat(row["source_time"]))
            known = self.taken.setdefault(row["seq"], taken)
            assert known == taken, row
            if known is taken:
                # The dict keeps the order of arrival: what is new comes after everything before it.
                assert len(self.taken) == row["seq"], f"{row} came as number {len(self.taken)}"


def received(gateway: GatewayProcess) -> int:
    return int(gateway.request("GET", "/v1/status")[1]["streams"]["default"]["received"])


def kill_when(gateway: GatewayProcess, count: int, replay: subprocess.Popen[str]) -> int:
    """Kill the gateway when `count` messages are in; returns how many there were."""
    while (found := received(gateway)) < count:
        with suppress(subprocess.TimeoutExpired):
            replay.wait(0.01)
            raise AssertionError(f"the replay ended with {found} of {count} messages:\n{replay.communicate()}\n{gateway.log}")
    gateway.kill()
    return found


@pytest.mark.timeout(LIMIT_S)
def test_each_reading_arrives_once_and_in_order_whatever_is_killed(tmp_path: Path) -> None:
    expected = recorded()
    with GatewayProcess(tmp_path / "data") as gateway, ThreadPoolExecutor(1) as pool:
        terms = {"filter": "air-quality/#", "stream": "default", "start": "all", "max_deliver": 1000}
        assert gateway.request("PUT", CONSUMER, terms)[0] == 201
        reader = Reader(gateway)
        reading = pool.submit(reader.run)
        command = [sys.executable, "-m", "edgegw", "message", "replay", str(AIR_QUALITY), "--url", gateway.url, "--json"]
        command += ["--topic", "air-quality/{column}", "--time-column", "Date,Time", "--missing", "-200"]
        with subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as replay:
            try:
                for kill in range(1, KILLS + 1):
                    found = kill_when(gateway, kill * len(expected) // (KILLS + 1), replay)
                    assert found < len(expected)
                    gateway.start()
                out, err = replay.communicate(timeout=LIMIT_S)
            finally:
                replay.kill()
                reader.done.set()
        assert replay.returncode == 0, f"{err}\n{gateway.log}"
        reading.result(LIMIT_S)
        status = gateway.request("GET", "/v1/status")[1]
        assert gateway.stop() == 0

    # The reader has checked that sequence numbers began at 1 and left none out.
    assert len(reader.taken) == len(expected)
    assert list(reader.taken.values()) == expected
    summary = json.loads(out)
    assert (summary["readings"], summary["rows"], summary["bad_rows"]) == (len(expected), 9357, 0)
    assert (summary["first_time"], summary["last_time"]) == ("2004-03-10T18:00:00Z", "2005-04-04T14:00:00Z")
    assert summary["retries"] >= KILLS
    assert summary["streams"]["default"]["last"] == len(expected)
    # The books balance.
    stream, consumer = status["streams"]["default"], status["consumers"]["reader"]
    assert stream["received"] == len(expected)
    assert stream["received"] == stream["stored"] + sum(stream["removed"].values())
    assert consumer["matched"] == len(expected)
    settled = consumer["acked"] + consumer["pending"] + consumer["dead_lettered"] + sum(consumer["lost"].values())
    assert consumer["matched"] == settled
    assert (consumer["acked"], consumer["dead_lettered"]) == (len(expected), 0)

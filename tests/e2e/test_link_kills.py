"""Gateway to gateway through kills of both and cuts of the line: each acknowledged message is upstream, once."""

import http.client
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cut_line import CutLine
from tests.gateway_process import GatewayProcess

# Rests of the publisher between batches of 50. Keys are remembered for 100,000 messages, and what is sent again after a kill
# comes behind newer live data: beyond some 20,000 messages a second a key may be forgotten by then. Ranges are not.
RESTS_S = {"columns": 0.0, "msgpack": 0.01}
FORMS = tuple(RESTS_S)


class Publisher:
    """Posts numbered messages, each under a key until it is acknowledged; keeps what was."""

    def __init__(self, gateway: GatewayProcess, rest_s: float) -> None:
        self._rest_s = rest_s
        self.acknowledged: list[int] = []
        self.done = threading.Event()
        self._gateway = gateway

    def run(self) -> None:
        """Until `done`."""
        number = 0
        while not self.done.is_set():
            batch = range(number, number + 50)
            body = [{"topic": f"t/{n % 7}", "payload": n, "key": f"n{n}"} for n in batch]
            try:
                status, answer = self._gateway.request("POST", "/v1/messages", body, timeout_s=10)
            except (OSError, http.client.HTTPException):
                self.done.wait(0.05)
                continue
            if status in (200, 201):
                self.acknowledged += batch
                number += 50
                self.done.wait(self._rest_s)
            else:
                assert status in (429, 503), answer
                self.done.wait(0.05)


def stored(gateway: GatewayProcess) -> list[int]:
    """Every message of the upstream, in its order."""
    found: list[int] = []
    after = 0
    while True:
        status, rows = gateway.request("GET", f"/v1/messages?stream=default&after={after}&limit=1000")
        assert status == 200, rows
        if not rows:
            return found
        assert not any("gap" in row for row in rows)
        found += [row["payload"] for row in rows]
        after = rows[-1]["seq"]


def settled(gateway: GatewayProcess, limit_s: float) -> dict[str, Any]:
    """The link's consumer once nothing is pending."""
    waiting = threading.Event()
    for _ in range(round(limit_s / 0.2)):
        status, consumer = gateway.request("GET", "/v1/consumers/link.up")
        if status == 200 and consumer["pending"] == 0:
            return dict(consumer)
        waiting.wait(0.2)
    raise AssertionError(f"{consumer} after {limit_s} s\n{gateway.log[-3000:]}")


def run(folder: Path, form: str, seed: int, mishaps: int) -> None:
    """Mishaps at random, a run of each `seed` the same in what it does to whom."""
    chance = random.Random(seed)
    upstream = GatewayProcess(folder / "up")
    pause = threading.Event()
    with upstream, CutLine(upstream.port) as line:
        config = folder / "link.toml"
        config.write_text(f'[[link]]\nname = "up"\nurl = "http://127.0.0.1:{line.port}/v1/messages"\nformat = "{form}"\n')
        source = GatewayProcess(folder / "source", "--config", str(config))
        with source:
            publisher = Publisher(source, RESTS_S[form])
            thread = threading.Thread(target=publisher.run)
            thread.start()
            done: Counter[str] = Counter()
            try:
                plan = ["source", "upstream", "cut"] * (mishaps // 3)
                chance.shuffle(plan)
                for what in plan:
                    pause.wait(chance.uniform(0.2, 0.8))
                    done[what] += 1
                    if what == "cut":
                        line.cut()
                        pause.wait(chance.uniform(0.05, 1))
                        line.mend()
                    else:
                        victim = source if what == "source" else upstream
                        victim.kill()
                        victim.start()
            finally:
                publisher.done.set()
                thread.join()
            consumer = settled(source, 90)
            status, answer = source.request("GET", "/v1/status")
            assert status == 200
            published = answer["streams"]["default"]["received"]
            numbers = stored(upstream)
        wanted = set(publisher.acknowledged)
        twice = [n for n, count in Counter(numbers).items() if count > 1]
        assert not twice, f"seed {seed}, {done}: {len(twice)} twice: {twice[:10]}"
        missing = wanted - set(numbers)
        assert not missing, f"seed {seed}, {done}: {len(missing)} lost: {sorted(missing)[:10]}"
        assert len(numbers) == published
        assert consumer["matched"] == consumer["acked"] == published
        assert consumer["lost"] == {} and consumer["dead_lettered"] == 0
        assert line.cuts, "no connection was cut in the middle"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_lost_and_nothing_twice(form: str, tmp_path: Path) -> None:
    run(tmp_path, form, seed=1, mishaps=6)


@pytest.mark.ci
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", FORMS)
def test_through_many_mishaps(form: str, tmp_path: Path) -> None:
    run(tmp_path, form, seed=2, mishaps=60)

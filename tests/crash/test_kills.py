"""SIGKILL the real process under load: nothing that was acknowledged is lost, out of order, or there twice."""

import random
import sys
from pathlib import Path

import pytest

from tests.crash.outside import Clients, assert_balanced, kill_while_busy
from tests.gateway_process import GatewayProcess

SEED = 20_261_121
RECEIPTS_BETWEEN = 100


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.ci, pytest.mark.timeout(600)])])
def test_kills(tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(SEED)
    gateway = GatewayProcess(tmp_path / "data")
    gateway.start()
    status, answer = gateway.request(
        "PUT", "/v1/consumers/outside", {"filter": "kills/#", "start": "all", "max_deliver": 1_000_000}
    )
    assert status == 201, answer
    clients = Clients(gateway, SEED)
    clients.start()
    counted = early = 0
    while counted < kills:
        least = RECEIPTS_BETWEEN + chance.randrange(2000)
        counted += kill_while_busy(clients, clients.count, least)
        if chance.random() < 0.3:  # one more, somewhere between exec and the first request
            gateway.spawn()
            assert gateway.lives(chance.random() * 0.6), gateway.log
            gateway.kill()
            early += 1
        gateway.start()
        assert_balanced(gateway)
    clients.end()
    report = clients.report(counted)
    with capsys.disabled():
        sys.stdout.write(f"\n  seed {SEED}: {report}, {early} more kills during start\n")
    assert (report.lost, report.out_of_order, report.duplicated, report.torn) == (0, 0, 0, 0)
    assert report.receipts >= kills * RECEIPTS_BETWEEN
    assert report.unanswered >= kills
    stored = {seq for receipts in clients.receipts.values() for _, seq in receipts}
    assert stored <= clients.delivered.keys(), "the consumer did not get what was acknowledged"
    assert_balanced(gateway)
    assert gateway.stop() == 0

"""Schemathesis against a real gateway: what /openapi.json says is what happens, for thousands of requests that it makes up.

All of its checks are on, with a fixed seed. `schemathesis.toml` and `fuzz_hooks.py` hold what differs from its defaults, with
reasons. The first test is a small part for every day; the second has the full number and takes about a minute.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgegw.cli.client import GatewayClient, Target
from tests.api.fuzz_names import OWN_TOKEN, STANDING
from tests.gateway_process import TREE, GatewayProcess

pytestmark = pytest.mark.skipif(find_spec("schemathesis") is None, reason="no schemathesis: its jsonschema-rs has no wheel here")

SEED = 20_26
# Every operation is asked; a case that none of these phases made would have to be counted apart.
PHASES = ["examples", "coverage", "fuzzing", "stateful"]


def fuzz(tmp_path: Path, *options: str) -> dict[str, Any]:
    """Run it; its report. Fails with its own words when it found anything."""
    report, document = tmp_path / "report.json", tmp_path / "openapi.json"
    with GatewayProcess(tmp_path / "data") as gateway:
        secret = _prepare(gateway)
        described = gateway.request("GET", "/openapi.json")[1]
        document.write_text(json.dumps(described))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(TREE / "tests/api/schemathesis.toml"), "run"]
        # From a file: what is loaded from its address leaves out the operation behind that address.
        command += [str(document), "--url", gateway.url, "--checks", "all", "--seed", str(SEED), "--generation-database", "none"]
        command += ["--header", f"Authorization: Bearer {secret}", "--no-color", "--report-json-path", str(report), *options]
        environ = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks", "PYTHONPATH": str(TREE)}
        ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert gateway.request("GET", "/healthz")[0] == 200
        faults = [line for line in gateway.log.splitlines() if '"level":"error"' in line]
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    assert faults == []
    found: dict[str, Any] = json.loads(report.read_bytes())
    assert (found["complete"], found["failures"], found["errors"]) == (True, [], [])
    assert found["operations"]["tested"] == sum(map(len, described["paths"].values()))
    return found


def _prepare(gateway: GatewayProcess) -> str:
    """What the cases meet; returns the secret of a token that may do everything."""
    gateway.request("PUT", f"/v1/consumers/{STANDING}", {"start": "all", "ack_wait_s": 0.1, "max_deliver": 1000})
    token = {"name": OWN_TOKEN, "scopes": ["publish", "subscribe", "admin"]}
    with GatewayClient(Target("localhost", 80, socket_path=str(gateway.data / "edgegw.sock"))) as client:
        made: Any = client.call("POST", "/v1/tokens", json.dumps(token).encode()).json()
    return str(made["token"])


@pytest.mark.timeout(180)
def test_a_part_of_it(tmp_path: Path) -> None:
    found = fuzz(tmp_path, "--phases", "examples,fuzzing", "--max-examples", "12")
    assert found["test_cases"]["generated"] >= 250


@pytest.mark.ci
@pytest.mark.timeout(600)
def test_all_of_it(tmp_path: Path) -> None:
    found = fuzz(tmp_path, "--phases", ",".join(PHASES), "--max-examples", "60")
    assert found["test_cases"]["generated"] >= 2000

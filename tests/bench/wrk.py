"""Load from a C client: wrk with one thread, so that the server, not the client, is what is measured."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.measure import BenchError

_SCRIPT = Path(__file__).with_name("post.lua")


class Load(NamedTuple):
    """What wrk did and saw."""

    requests: int
    duration_us: int
    refused: int  # answers above 399
    broken: int  # connections and requests that failed or took longer than 2 s
    p50_us: int
    p99_us: int

    @property
    def per_s(self) -> float:
        """Answered requests a second."""
        return self.requests * 1e6 / self.duration_us


def parse_load(output: str) -> Load:
    """The line of `post.lua` in wrk's output. Raises BenchError."""
    for line in output.splitlines():
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise BenchError(f"wrk said nothing of use: {output.strip()[-400:]}")


def post(url: str, body: Path, content_type: str, *, connections: int, seconds: float) -> Load:
    """Post the body over keep-alive connections for so long. Raises BenchError; also when an answer was not a success."""
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is missing: install the package wrk (as root: apt-get install wrk), then run this again")
    command = [program, "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"]
    environ = {**os.environ, "BENCH_BODY": str(body), "BENCH_CONTENT_TYPE": content_type}
    done = subprocess.run([*command, "--script", str(_SCRIPT), url], env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    load = parse_load(done.stdout)
    if load.refused or load.broken or not load.requests:
        raise BenchError(f"{url}: {load.requests} answers, of them {load.refused} refusals; {load.broken} broken")
    return load

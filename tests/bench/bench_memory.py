"""Resident memory of a gateway as users run it: idle, under a steady load, and with --soak after ten minutes of it."""

import asyncio
import json
import time
from typing import Any

from tests.bench.budgets import budgets
from tests.bench.measure import Goal, Options, Result, judged, rounded, void
from tests.bench.paced_client import PacedClient
from tests.bench.servers import GatewayServer, LimitServer

# The row of a Go service in the table of peers.
AIM_MIB = 42.3
IDLE_S = 10
LOAD_S = 60
SOAK_S = 600
RATE = 500
BODY_BYTES = 4096
# Below this part of the rate the gateway was not under the load that the figure is about.
RATE_PART_MIN = 0.99


def run(options: Options) -> Result:
    """Idle, then loaded; the budget of the loaded figure is the line's limit, both must hold."""
    held = budgets()
    goal = Goal("value", at_most=True, must=held.loaded_mib, aim=AIM_MIB)
    with LimitServer(options.loop) as bare:
        bare_mib = bare.rss_mib()
    with GatewayServer(options.folder / "memory", options.loop) as gateway:
        idle_mib, idle_pss_mib = idle(gateway, IDLE_S)
        loaded_mib, rate = loaded(gateway, LOAD_S)
        more: dict[str, Any] = {
            "idle_mib": rounded(idle_mib),
            "idle_must": held.idle_mib,
            "idle_pss_mib": rounded(idle_pss_mib),
            "loaded_mib": rounded(loaded_mib),
            "loaded_pss_mib": rounded(gateway.pss_mib()),
            "bare_server_idle_mib": rounded(bare_mib),
            "rate": rounded(rate),
            "loop": options.loop,
        }
        is_held = held.idle_mib >= idle_mib
        if options.is_soak:
            # The minute before counts: the load has not stopped for longer than it takes to read a file.
            soaked_mib, rate_soaked = loaded(gateway, SOAK_S - LOAD_S)
            more |= {"soaked_mib": rounded(soaked_mib), "soak_growth_mib": rounded(soaked_mib - loaded_mib)}
            more |= {"soak_growth_must": held.soak_growth_mib}
            is_held = is_held and soaked_mib - loaded_mib <= held.soak_growth_mib
            rate = min(rate, rate_soaked)
    result = judged("memory", loaded_mib, "MiB", held.loaded_mib, goal, **more)
    result["ok"] = result["ok"] and is_held
    slow = rate < RATE * RATE_PART_MIN
    return void(result, f"{rate:.1f} requests a second were answered, not {RATE}" if slow else "")


def idle(gateway: GatewayServer, seconds: float) -> tuple[float, float]:
    """VmRSS and PSS in MiB after so long without a request."""
    time.sleep(seconds)
    return gateway.rss_mib(), gateway.pss_mib()


def loaded(gateway: GatewayServer, seconds: float) -> tuple[float, float]:
    """VmRSS in MiB at the end of so long under load, and the rate that was reached."""
    client = PacedClient(gateway.port, "/v1/topics/bench/json", _reading(), "application/json", RATE)
    reached = asyncio.run(client.run(seconds))
    return gateway.rss_mib(), reached.per_s


def _reading() -> bytes:
    body = json.dumps({"sensor": "s1", "values": [i / 7 for i in range(200)]}).encode()
    return body[:-1] + b" " * (BODY_BYTES - len(body)) + b"}"

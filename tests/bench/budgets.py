"""The figures of tests/budgets.toml, which later work must still hold."""

import tomllib
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parent.parent / "budgets.toml"


class Budgets(NamedTuple):
    """What a gateway may cost at most."""

    idle_mib: float
    loaded_mib: float
    soak_growth_mib: float
    start_ratio: float


def budgets() -> Budgets:
    """As written down."""
    with FILE.open("rb") as file:
        tables = tomllib.load(file)
    memory, start = tables["memory"], tables["start"]
    return Budgets(memory["idle_mib"], memory["loaded_mib"], memory["soak_growth_mib"], start["ratio"])

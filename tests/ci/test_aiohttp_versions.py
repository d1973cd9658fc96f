"""The API with the aiohttp of Debian 13, which boards run: the deadlines lean on how its connections work inside."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TREE = Path(__file__).parent.parent.parent
AIOHTTP = "3.11.16"
# Everything else as it is here, so that a failure is aiohttp's.
OTHERS = ("msgpack", "aiosqlite", "uvloop", "pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "schemathesis")

pytestmark = [pytest.mark.ci, pytest.mark.timeout(900)]


def wanted() -> list[str]:
    """What pip shall install."""
    found = [f"aiohttp=={AIOHTTP}"]
    for name in OTHERS:
        try:
            found.append(f"{name}=={version(name)}")
        except PackageNotFoundError:
            assert name == "uvloop", f"{name} is missing here"
    return found


def run(*command: str | Path) -> str:
    """Its output; a failure shows the end of it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)),
        cwd=TREE,
        env=environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[1:]}\n{done.stdout[-4000:]}"
    return done.stdout


def test_the_api_with_the_aiohttp_of_debian_13(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted())
    assert run(python, "-c", "import aiohttp; print(aiohttp.__version__)").strip() == AIOHTTP
    # Not below tmp_path: a Unix socket's path has 107 bytes at most.
    with TemporaryDirectory(prefix="aio-") as short:
        output = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={short}", "tests/api")
    summary = re.search(r"(\d+) passed", output)
    assert summary, output[-2000:]
    assert int(summary[1]) > 500

"""A test that hangs fails and the next one runs, on either event loop: what tests/conftest.py is for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HANGING = """
import asyncio
import {library}

async def hang():
    await asyncio.Event().wait()

def test_that_hangs():
    loop = {library}.new_event_loop()
    try:
        loop.run_until_complete(hang())
    finally:
        loop.close()

def test_that_follows():
    pass
"""


@pytest.mark.parametrize("library", ["asyncio", "uvloop"])
def test_a_test_that_hangs_fails_alone(tmp_path: Path, library: str) -> None:
    pytest.importorskip(library)
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (tmp_path / "test_hanging.py").write_text(HANGING.format(library=library))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--timeout", "1", "--rootdir", str(tmp_path)]
    ended = subprocess.run([*command, str(tmp_path)], check=False, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr

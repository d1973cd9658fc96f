"""The command line: which noun is called, exit codes, errors in one line, and that nothing is loaded that is not needed."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from edgegw import __version__
from edgegw.cli import NOUNS, main

TREE = Path(__file__).parent.parent.parent
SAMPLE = {"sample": ("tests.cli.sample_noun", "end in every way there is")}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=TREE, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_can_be_called(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, about = NOUNS[noun]
    assert callable(import_module(module).build)
    assert main([noun, "--help"]) == 0
    assert about in " ".join(capsys.readouterr().out.split())


def test_help_lists_the_nouns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert all([noun, about] in lines for noun, (_, about) in NOUNS.items())


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edgegw {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "a command is missing (see edgegw --help)"),
        (["confg"], 'unknown command "confg", did you mean "config"? (see edgegw --help)'),
        (["confg", "show", "--json"], 'unknown command "confg", did you mean "config"? (see edgegw --help)'),
        (["--verbose"], 'unknown option "--verbose" (see edgegw --help)'),
        (["--json", "config", "show"], 'options stand behind the command "config" (see edgegw --help)'),
        (["--", "run"], 'options stand behind the command "run" (see edgegw --help)'),
        (["config"], "the following arguments are required: VERB (see edgegw config --help)"),
        (["config", "show", "--jso"], "unrecognized arguments: --jso (see edgegw config --help)"),
        (["config", "show", "--config"], "argument --config: expected one argument (see edgegw config show --help)"),
        (["config", "show", "a\nb"], "unrecognized arguments: a\\nb (see edgegw config --help)"),
        (["--vers"], 'unknown option "--vers" (see edgegw --help)'),
        (["run", "--dat", "x"], "unrecognized arguments: --dat x (see edgegw run --help)"),
        (["run", "now"], "unrecognized arguments: now (see edgegw run --help)"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"edgegw: usage: {error}\n")


@pytest.mark.parametrize("code", [0, 1, 7])
def test_a_verb_gives_the_exit_code(code: int) -> None:
    assert main(["sample", "give", "--code", str(code)], SAMPLE) == code


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("config", 78, "edgegw: data_denied: the data folder cannot be written (give it to the user edgegw)\n"),
        ("peer", 69, "edgegw: gateway_unreachable: nothing listens\n"),
        ("store", 1, "edgegw: disk: two\\nlines\n"),
        ("busy", 1, "edgegw: busy: the disk is slow\n"),
        ("request", 1, "edgegw: no_consumer: there is no consumer\n"),
        ("other", 1, "edgegw: other: x (y)\n"),
        ("interrupt", 130, ""),
    ],
)
def test_an_error_is_a_line_and_an_exit_code(how: str, code: int, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "fail", how], SAMPLE) == code
    assert capsys.readouterr() == ("", error)


def test_each_fault_is_a_line_up_to_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "fail", "faults"], SAMPLE) == 78
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "edgegw: config_invalid: f.toml:1: a.b: is wrong"
    assert lines[99:] == ["edgegw: config_invalid: f.toml:100: a.b: is wrong", "edgegw: config_invalid: and 23 more faults"]


def test_a_reader_that_goes_away_is_no_noise() -> None:
    code = f"from edgegw.cli import main; raise SystemExit(main(['sample', 'write'], {SAMPLE!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(50) == 1


def test_a_reader_that_has_gone_already_is_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgegw", "config", "check"]
    # Buffered, so that it is the last flush that finds out.
    environ = {**os.environ, "PYTHONUNBUFFERED": ""}
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(command, cwd=TREE, env=environ, stdout=stdout, stderr=subprocess.PIPE, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_module_is_the_program() -> None:
    done = python("-m", "edgegw", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"edgegw {__version__}\n", "")
    done = python("-m", "edgegw", "nothing")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("call", "unwanted"),
    [
        ("main(['--version'])", ["aiohttp", "asyncio", "dataclasses", "difflib", "edgegw.config", "json", "tomllib"]),
        ("main(['config', 'check'])", ["aiohttp", "asyncio", "difflib", "edgegw.cli.run", "edgegw.gateway"]),
        ("import_module('edgegw.cli.run')", ["aiohttp", "difflib", "edgegw.cli.message", "http.client", "json", "tomllib"]),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(call: str, unwanted: list[str]) -> None:
    code = f"import sys; from importlib import import_module; from edgegw.cli import main; {call}; print(*sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert set(unwanted).isdisjoint(done.stdout.split())

"""build.sh and the locks: what set-up does when it is repeated, interrupted, doubled or short of something.

The interpreter is a stand-in that makes environments of itself and writes down how it was called: no network, no waiting.
The real thing runs in tests/ci/test_clean_root.py.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

TREE = Path(__file__).parent.parent

# All that set-up may use besides Python. apt-get is missing on purpose; the tests that want it bring their own.
TOOLS = ["bash", "cat", "chmod", "dirname", "flock", "rm", "sh", "sha256sum", "stat"]

# Its folder ($SCRATCH) steers it: no-venv, no-pip and no-uvloop make it fail, hold (a FIFO) makes pip wait, exit is
# its status. As pip does, it turns a signal into a failure.
PYTHON = """#!/bin/bash
case "$*" in
    *'import ensurepip, venv'*) [[ ! -e $SCRATCH/no-venv ]]; exit ;;
    *sys.version_info*) [[ ! -e $SCRATCH/too-old ]]; exit ;;
    '-m venv -- '*) echo venv >>"$SCRATCH/calls"; /bin/mkdir -p "$4/bin" "$4/lib"; /bin/cp "$0" "$4/bin/python" ;;
    *'-m pip install'*)
        trap 'exit 1' INT TERM
        last=${*: -1}; echo "pip ${last##*/} $*" >>"$SCRATCH/calls"
        [[ ! -p $SCRATCH/hold ]] || { echo held >"$SCRATCH/hold"; /bin/cat "$SCRATCH/release" >/dev/null; }
        [[ ! -e $SCRATCH/no-pip ]] || { echo 'pip: no such package'; exit 1; }
        [[ $* != *uvloop.txt ]] || [[ ! -e $SCRATCH/no-uvloop ]]
        ;;
    *'import uvloop'*) [[ ! -e $SCRATCH/no-uvloop ]]; exit ;;
    *sysconfig*) echo "${0%/bin/python}/lib" ;;
    *) echo "$@" >>"$SCRATCH/calls"; exit "$(/bin/cat "$SCRATCH/exit" 2>/dev/null || echo 0)" ;;
esac
"""


class Scratch:
    """A copy of build.sh and the locks in a folder of its own, with nothing on the PATH but TOOLS and the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.path = folder / "bin"
        self.path.mkdir(parents=True)
        self.copy_tree()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is missing on this machine"
            (self.path / tool).symlink_to(found)
        self.write_program("python3", PYTHON)

    def copy_tree(self) -> None:
        self.tree.mkdir()
        shutil.copy(TREE / "build.sh", self.tree)
        shutil.copytree(TREE / "requirements", self.tree / "requirements")

    def write_program(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        (self.path / name).chmod(0o755)

    def steer(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def start(self, *args: str) -> subprocess.Popen[str]:
        environ = {"PATH": str(self.path), "SCRATCH": str(self.folder), "HOME": str(self.folder)}
        command = [str(self.tree / "build.sh"), *args]
        return subprocess.Popen(
            command, cwd="/", env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def build(self, *args: str) -> tuple[int, str]:
        """The exit status and what went to stderr; what went to stdout must be nothing."""
        process = self.start(*args)
        out, err = process.communicate()
        assert out == ""
        return process.returncode, err

    def calls(self) -> list[str]:
        """What the stand-in was asked to do since the last call of this; installs as `pip LOCK`."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [" ".join(line.split()[:2]) if line.startswith("pip ") else line for line in lines]


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path / "scratch")


RUN_SET_UP = ["venv", "pip run.txt", "pip uvloop.txt"]


def _running(scratch: Scratch, *args: str) -> str:
    return " ".join([f"{scratch.tree}/.venv/bin/edgegw run --data {scratch.tree}/var", *args])


# --- verbs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["sim"], ["binary"], ["deb", "arm64"], ["Run"], ["check", "edgegw"]])
def test_a_usage_error_is_one_line_that_names_the_verbs(scratch: Scratch, args: list[str]) -> None:
    status, err = scratch.build(*args)
    assert status == 2
    assert re.fullmatch(r"build\.sh: .*run, test, check, bench.*\n", err)
    assert scratch.calls() == []


def test_help_lists_the_verbs(scratch: Scratch) -> None:
    process = scratch.start("help")
    out, _ = process.communicate()
    assert process.returncode == 0
    assert {"run", "test", "check", "bench"} <= set(re.findall(r"^  (\w+)", out, re.MULTILINE))


def test_run_hands_its_arguments_on_and_the_callers_data_wins(scratch: Scratch) -> None:
    assert scratch.build("run", "--listen", "127.0.0.1:0", "--data", "elsewhere")[0] == 0
    assert scratch.calls() == [*RUN_SET_UP, _running(scratch, "--listen 127.0.0.1:0 --data elsewhere")]


@pytest.mark.parametrize(
    ("args", "marks"),
    [
        (["test", "-k", "x"], "-m pytest -m not ci and not all -k x"),
        (["test", "--ci"], "-m pytest -m ci and not all"),
        (["test", "--all", "-x"], "-m pytest -m  -x"),
        (["bench", "start", "--soak"], "-m tests.bench start --soak"),
    ],
)
def test_a_verb_starts_its_program(scratch: Scratch, args: list[str], marks: str) -> None:
    assert scratch.build(*args)[0] == 0
    assert scratch.calls() == [*RUN_SET_UP, "pip dev.txt", marks]


@pytest.mark.parametrize(("exit_status", "expected"), [("0", 0), ("1", 1), ("2", 2), ("5", 1)])
def test_test_fails_when_pytest_does(scratch: Scratch, exit_status: str, expected: int) -> None:
    scratch.steer("exit", exit_status)
    status, err = scratch.build("test")
    assert status == expected
    assert ("no test matched" in err) == (exit_status == "5")


def test_check_runs_every_step_and_names_those_that_failed(scratch: Scratch) -> None:
    scratch.steer("exit", "1")
    status, err = scratch.build("check")
    assert status == 1
    assert err.endswith("build.sh: check failed: format lint types house\n")
    assert [call.split()[1] for call in scratch.calls()[4:]] == ["ruff", "ruff", "mypy", "pytest"]


def test_run_is_the_gateway_itself_so_that_signals_reach_it(scratch: Scratch) -> None:
    scratch.build("run")
    (scratch.tree / ".venv/bin/python").write_text("#!/bin/bash\necho $$\n")
    process = scratch.start("run")
    out, _ = process.communicate()
    assert out == f"{process.pid}\n"


# --- set-up --------------------------------------------------------------------------------------


def test_set_up_is_done_once(scratch: Scratch) -> None:
    scratch.build("run")
    scratch.calls()
    assert scratch.build("run") == (0, "")
    assert scratch.calls() == [_running(scratch)]


def test_tests_are_added_to_what_run_has_set_up(scratch: Scratch) -> None:
    scratch.build("run")
    scratch.calls()
    scratch.build("test")
    assert scratch.calls()[:-1] == ["pip dev.txt"]
    scratch.build("test")
    scratch.build("run")
    assert scratch.calls() == ["-m pytest -m not ci and not all", _running(scratch)]


def test_pip_takes_locked_wheels_only(scratch: Scratch) -> None:
    scratch.build("test")
    installs = [line for line in (scratch.folder / "calls").read_text().splitlines() if line.startswith("pip ")]
    assert len(installs) == 3
    assert all("--require-hashes --only-binary :all:" in line and "--no-input" in line for line in installs)


def _change_lock(scratch: Scratch) -> None:
    with (scratch.tree / "requirements/run.txt").open("a") as lock:
        lock.write("# later\n")


def _change_interpreter(scratch: Scratch) -> None:
    scratch.write_program("python3", PYTHON + "# another version\n")


def _move_tree(scratch: Scratch) -> None:
    scratch.tree = scratch.tree.rename(scratch.folder / "moved")


def _lose_interpreter(scratch: Scratch) -> None:
    (scratch.tree / ".venv/bin/python").unlink()


@pytest.mark.parametrize("change", [_change_lock, _change_interpreter, _move_tree, _lose_interpreter])
def test_an_environment_that_does_not_fit_is_made_anew(scratch: Scratch, change: Callable[[Scratch], None]) -> None:
    scratch.build("run")
    (scratch.tree / ".venv/left-over").touch()
    scratch.calls()
    change(scratch)
    assert scratch.build("run")[0] == 0
    assert scratch.calls() == [*RUN_SET_UP, _running(scratch)]
    assert not (scratch.tree / ".venv/left-over").exists()


def test_a_changed_dev_lock_leaves_run_alone(scratch: Scratch) -> None:
    scratch.build("test")
    with (scratch.tree / "requirements/dev.txt").open("a") as lock:
        lock.write("# later\n")
    scratch.calls()
    scratch.build("run")
    assert scratch.calls() == [_running(scratch)]
    scratch.build("test")
    assert scratch.calls()[:-1] == [*RUN_SET_UP, "pip dev.txt"]


def test_a_failed_install_shows_pips_words_and_is_started_over(scratch: Scratch) -> None:
    scratch.steer("no-pip")
    status, err = scratch.build("run")
    assert status == 1
    assert "pip: no such package" in err
    assert "requirements/run.txt" in err
    (scratch.folder / "no-pip").unlink()
    scratch.calls()
    assert scratch.build("run")[0] == 0
    assert scratch.calls()[:-1] == RUN_SET_UP


def test_without_uvloop_it_says_so_in_one_line_and_goes_on(scratch: Scratch) -> None:
    scratch.steer("no-uvloop")
    status, err = scratch.build("run")
    assert status == 0
    assert err.count("uvloop") == 1
    assert scratch.build("run") == (0, "")


@pytest.fixture
def held(scratch: Scratch) -> Iterator[subprocess.Popen[str]]:
    """A set-up that stands still inside pip; write to `release` to let it go on."""
    for name in ("hold", "release"):
        os.mkfifo(scratch.folder / name)
    process = scratch.start("run")
    _until_held(scratch)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _until_held(scratch: Scratch) -> None:
    assert (scratch.folder / "hold").read_text() == "held\n"
    (scratch.folder / "hold").unlink()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_an_interrupted_set_up_is_started_over(
    scratch: Scratch, held: subprocess.Popen[str], number: signal.Signals, status: int
) -> None:
    os.killpg(held.pid, number)
    _, err = held.communicate()
    assert held.returncode == status, err
    assert not list((scratch.tree / ".venv").glob(".ready-*"))
    scratch.calls()
    assert scratch.build("run")[0] == 0
    assert scratch.calls() == [*RUN_SET_UP, _running(scratch)]


def test_tests_added_half_way_are_started_over(scratch: Scratch) -> None:
    scratch.build("run")
    os.mkfifo(scratch.folder / "hold")
    os.mkfifo(scratch.folder / "release")
    process = scratch.start("test")
    _until_held(scratch)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    scratch.calls()
    assert scratch.build("test")[0] == 0
    assert scratch.calls()[:-1] == [*RUN_SET_UP, "pip dev.txt"]


def test_two_at_once_make_one_environment(scratch: Scratch, held: subprocess.Popen[str]) -> None:
    second = scratch.start("run", "second")
    assert second.stderr
    assert "waiting" in second.stderr.readline()
    assert (scratch.folder / "calls").read_text().count("venv\n") == 1
    (scratch.folder / "release").write_text("go")
    assert (held.communicate()[1].count("setting up"), held.returncode) == (1, 0)
    second.communicate()
    assert second.returncode == 0
    calls = scratch.calls()
    assert calls[:3] == RUN_SET_UP
    assert sorted(calls[3:]) == sorted([_running(scratch), _running(scratch, "second")])


def test_without_the_venv_module_and_without_root_one_line_says_what_to_install(scratch: Scratch) -> None:
    scratch.steer("no-venv")
    status, err = scratch.build("run")
    assert status == 1
    assert re.fullmatch(r"build\.sh: .*install the package python3-venv.*\n", err)
    assert scratch.calls() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
def test_without_the_venv_module_root_installs_it(scratch: Scratch) -> None:
    scratch.steer("no-venv")
    # Without package lists an install fails; `update` brings them.
    scratch.write_program(
        "apt-get",
        """#!/bin/bash
echo "apt-get $*" >>"$SCRATCH/calls"
case $1 in
    update) : >"$SCRATCH/lists" ;;
    install) [[ -e $SCRATCH/lists && $DEBIAN_FRONTEND == noninteractive ]] && /bin/rm "$SCRATCH/no-venv" ;;
esac
""",
    )
    assert scratch.build("run")[0] == 0
    install = "apt-get install -y python3-venv"
    assert scratch.calls() == [install, "apt-get update", install, *RUN_SET_UP, _running(scratch)]


def test_an_old_python_is_refused(scratch: Scratch) -> None:
    scratch.steer("too-old")
    status, err = scratch.build("run")
    assert status == 1
    assert re.fullmatch(r"build\.sh: .*Python 3\.11 or newer.*\n", err)


def test_a_tree_whose_path_has_blanks(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "a b")
    assert scratch.build("run")[0] == 0
    assert scratch.calls()[-1] == _running(scratch)
    # The command is shell and Python at once; the stand-in has read the shell half.
    last = ast.parse((scratch.tree / ".venv/bin/edgegw").read_text()).body[-1]
    assert ast.unparse(last) == "raise SystemExit(main())"


# --- locks ---------------------------------------------------------------------------------------


def _lock(name: str) -> dict[str, Requirement]:
    """The pins of a lock, by name; each with a hash, none with a place."""
    text = (TREE / "requirements" / f"{name}.txt").read_text()
    pins: dict[str, Requirement] = {}
    for block in re.split(r"\n(?=[a-z])", re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE)):
        requirement, *hashes = re.sub(r"\\\n", "", block).split("--hash=")
        assert hashes, f"{requirement}: no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", line.strip()) for line in hashes), requirement
        pin = Requirement(requirement.strip())
        pins[pin.name] = pin
    return pins


def _wanted(name: str) -> list[Requirement]:
    lines = (TREE / "requirements" / f"{name}.in").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _pinned(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.mark.parametrize("name", ["run", "uvloop", "dev"])
def test_a_lock_pins_what_is_wanted(name: str) -> None:
    pins = _lock(name)
    for wanted in _wanted(name):
        assert wanted.specifier.contains(_pinned(pins[wanted.name])), f"lock requirements/{name}.in again, as it says at its top"


@pytest.mark.parametrize("path", sorted((TREE / "requirements").iterdir()), ids=lambda path: path.name)
def test_a_lock_names_no_place(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b", text, re.MULTILINE)


def test_the_locks_agree() -> None:
    run, dev = _lock("run"), _lock("dev")
    for name in run.keys() & dev.keys():
        assert run[name].specifier == dev[name].specifier, f"lock requirements/dev.in again: {name} differs from run.txt"


def test_the_project_and_the_locks_want_the_same() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    assert _wanted("run") == [Requirement(wanted) for wanted in project["dependencies"]]
    (uvloop,) = _wanted("uvloop")
    assert [f"{uvloop.name}{uvloop.specifier}"] == project["optional-dependencies"]["uvloop"]


# What boards run: the versions of Debian 13.
DEBIAN_13 = {"aiohttp": "3.11.16", "aiosqlite": "0.21.0", "msgpack": "1.0.3", "uvloop": "0.21.0", "python": "3.13.5"}


def test_debian_13_satisfies_the_project() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["uvloop"], f"python{project['requires-python']}"]
    for bound in map(Requirement, bounds):
        assert bound.specifier.contains(Version(DEBIAN_13[bound.name])), f"{bound} leaves Debian 13 out"

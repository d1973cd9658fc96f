"""Both commands of a newcomer, each in a Debian that has nothing but git and python3: a fresh clone, an empty HOME, no root.

The roots are made by mmdebstrap from the mirror that this machine's apt uses, and entered with a /proc and process ids of
their own, so that nothing outlives a test. The clone comes from a bundle of the tree as it stands, committed or not.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent.parent

# Making a root takes half a minute and the whole test suite runs in one of them.
pytestmark = [pytest.mark.ci, pytest.mark.timeout(1200)]

NEWCOMER = "1000"
CLONE = "/home/newcomer/edgegw"
BUNDLE = "/srv/edgegw.bundle"

# Starts a gateway, waits for its /healthz, stops it, and ends as it ended. Arguments: port, seconds, command.
PROBE = """
import http.client, signal, subprocess, sys, time
port, deadline = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
gateway = subprocess.Popen(sys.argv[3:])
status = 0
while status != 200:
    if gateway.poll() is not None:
        sys.exit(f"it ended with {gateway.returncode} before it was healthy")
    if time.monotonic() > deadline:
        gateway.kill()
        sys.exit("it is not healthy in time")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError:
        time.sleep(0.1)
gateway.send_signal(signal.SIGTERM)
sys.exit(gateway.wait(40))
"""

# Enters a root in a mount namespace of its own. Arguments: folder, network device to bring up, user, command.
ENTER = """
root=$0 device=$1 user=$2; shift 2
# A mount of its own, so that there is a file system at / in there.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
if [ "$device" ]; then ip link set "$device" up; fi
exec chroot --userspec="$user:$user" "$root" "$@"
"""


# --- what the machine says -----------------------------------------------------------------------


def _mirror() -> str | None:
    """Where this machine's apt gets the release that it runs; None where it is no Debian."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    if release.get("ID") != "debian":
        return None
    suite = release.get("VERSION_CODENAME", "")
    apt = Path("/etc/apt")
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^(Types|URIs|Suites|Enabled):\s*(.*)$", stanza, re.MULTILINE))
            if fields.get("Enabled", "yes") != "no" and suite in fields.get("Suites", "").split():
                return str(fields["URIs"].split()[0])
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        line = re.search(rf"^deb\s+(?:\[.*?\]\s+)?(\S+)\s+{suite}\s", path.read_text() if path.is_file() else "", re.MULTILINE)
        if line:
            return line[1]
    return None


def _apt_options() -> list[str]:
    """How this machine's apt reaches its mirror (proxies, dates), for mmdebstrap and the apt inside."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    return [f"--aptopt={line}" for line in dump.splitlines() if re.match(r"Acquire::(https?|Check-[\w-]+)\b", line)]


# Variables that say how pip and TLS reach the package index.
_PASSED_ON = re.compile(r"PIP_\w+|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|\w+_proxy", re.IGNORECASE)


def _copied_files() -> dict[Path, str]:
    """Files of this machine that say how the network is reached, and their place in a root."""
    home = Path.home()
    files = {Path(path): path for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")}
    for path in (home / ".pip/pip.conf", home / ".config/pip/pip.conf", Path("/etc/xdg/pip/pip.conf")):
        files[path] = "/etc/xdg/pip/pip.conf"
    files |= {Path(value): value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name) and value.startswith("/")}
    return {path: place for path, place in files.items() if path.is_file()}


# --- roots ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it stands, as something to clone from; the repository itself is only read."""
    folder = tmp_path_factory.mktemp("bundle")
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for line in (
        "init --quiet --initial-branch main",
        "add --all",
        "-c user.name=test -c user.email=test@localhost commit --quiet --message snapshot",
        f"bundle create --quiet {shlex.quote(str(folder / 'bundle'))} HEAD main",
    ):
        command = ["git", f"--git-dir={folder / 'git'}", f"--work-tree={TREE}", *shlex.split(line)]
        subprocess.run(command, check=True, env=environ, cwd=TREE)
    return folder / "bundle"


class Root:
    """A Debian in a folder, with a newcomer in it."""

    def __init__(self, folder: Path, bundle: Path, suite: str, packages: str) -> None:
        self.folder = folder
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io"]
        command += [f"--include=git,ca-certificates,{packages}", *_apt_options(), suite, str(folder), str(_mirror())]
        made = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr[-3000:]
        for path, place in _copied_files().items():
            target = folder / place.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        shutil.copy(bundle, folder / BUNDLE.lstrip("/"))
        self.run(f"useradd --create-home --uid {NEWCOMER} newcomer", root=True)
        self.run(f"git clone --quiet {BUNDLE} {CLONE}", cwd="/")

    def run(self, script: str, *, root: bool = False, cwd: str = CLONE, network: bool = True) -> str:
        """Runs a shell script inside that must succeed; what it said."""
        status, said = self.attempt(script, root=root, cwd=cwd, network=network)
        assert status == 0, f"{script}: exit {status}\n{said[-6000:]}"
        return said

    def attempt(self, script: str, *, root: bool = False, cwd: str = CLONE, network: bool = True) -> tuple[int, str]:
        """Runs a shell script inside; its exit status and what it said. Without network there is a loopback of its own."""
        user, home, folder = ("0", "/root", "/") if root else (NEWCOMER, "/home/newcomer", cwd)
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        command += ["sh", "-ec", ENTER, str(self.folder), "" if network else "lo", user]
        command += ["env", "-i", f"--chdir={folder}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={home}"]
        command += [f"{name}={value}" for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)]
        command += ["sh", "-c", script]
        ended = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return ended.returncode, ended.stdout

    def probe(self, command: str, port: int, *, network: bool = True) -> None:
        """`command` starts a gateway that is healthy on `port` and ends well on SIGTERM."""
        self.run(f"exec python3 -c {shlex.quote(PROBE)} {port} 240 {command}", network=network)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a root may grow; it is taken away at once, pytest would keep it for three runs."""
    for program in ("mmdebstrap", "git", "ip", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (.ci/run installs it as root)")
    if os.geteuid() != 0:
        pytest.skip("only root can make and enter a Debian root")
    if _mirror() is None:
        pytest.skip("this machine's apt names no Debian mirror")
    yield tmp_path / "root"
    shutil.rmtree(tmp_path / "root", ignore_errors=True)


def test_debian_12_without_the_venv_module(folder: Path, bundle: Path) -> None:
    root = Root(folder, bundle, "bookworm", "python3")
    status, said = root.attempt("./build.sh run")
    assert status == 1
    assert re.fullmatch(r"build\.sh: .*python3-venv.*\n", said)

    root.run(f"git clone --quiet {BUNDLE} /root/edgegw && /root/edgegw/build.sh run --help", root=True)

    port = _free_port()
    root.probe(f"./build.sh run --listen 127.0.0.1:{port}", port)
    root.run("./build.sh test tests/core")


def test_debian_13(folder: Path, bundle: Path) -> None:
    root = Root(folder, bundle, "trixie", "python3,python3-venv")
    port = _free_port()
    root.probe(f"./build.sh run --listen 127.0.0.1:{port}", port)
    assert (folder / CLONE.lstrip("/") / ".venv/bin/edgegw").is_file()
    assert (folder / CLONE.lstrip("/") / "var").is_dir()
    # What is set up needs no network; and 8080 is free in there, so that the command runs as it stands in the README.
    root.probe("./build.sh run", 8080, network=False)
    said = root.run("./build.sh test")
    assert re.search(r"^=+ .*\d+ passed", said, re.MULTILINE), said[-2000:]
    assert root.run("git status --porcelain") == "", "set-up or tests leave files that .gitignore does not name"


def test_debian_13_with_its_own_packages(folder: Path, bundle: Path) -> None:
    root = Root(folder, bundle, "trixie", "python3,python3-venv,python3-aiohttp,python3-aiosqlite,python3-msgpack,python3-uvloop")
    root.probe("python3 -m edgegw run --data var", 8080, network=False)
    # What boards run is older than what the locks pin: what leans on it must pass with it. The tools are the locked ones.
    root.run("python3 -m venv --system-site-packages ~/tools")
    install = "install --quiet --require-hashes --only-binary :all: --requirement requirements/dev.txt"
    root.run(f"~/tools/bin/python -m pip {install}")
    said = root.run("~/tools/bin/python -c 'import aiohttp; print(aiohttp.__version__, aiohttp.__file__)'", network=False)
    assert said.startswith("3.11.")
    assert "/dist-packages/" in said
    root.run("~/tools/bin/python -m pytest -m 'not ci and not all' tests/api tests/core", network=False)

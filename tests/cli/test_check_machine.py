"""What `edgegw check` asks the machine, on machines that the test makes up."""

import os
from pathlib import Path

import pytest

from edgegw.cli import check_machine
from edgegw.cli.check_machine import Mount, check_boot, check_clock, check_disk, check_memory, check_mount, mount_of, nearest

# 2026-11-21
NOW_S = 1_795_219_200.0
EXT4 = Mount("/", "ext4", frozenset({"rw"}))


@pytest.mark.parametrize(
    ("now_s", "newest_ms", "is_synchronised", "status", "word"),
    [
        (NOW_S, None, True, "ok", "2026-11-21 00:00:00 UTC, synchronised"),
        (NOW_S, int(NOW_S * 1000) + 30_000, True, "ok", "synchronised"),
        (NOW_S, None, False, "warn", "not synchronised"),
        (NOW_S, None, None, "warn", "does not say"),
        (NOW_S, int(NOW_S * 1000) + 3_600_000, True, "warn", "arrived 3600 s later: the clock was set back"),
        (0.0, None, True, "fail", "1970-01-01"),
    ],
)
def test_clock(now_s: float, newest_ms: int | None, is_synchronised: bool | None, status: str, word: str) -> None:
    finding = check_clock(now_s, newest_ms, is_synchronised)
    assert finding.status == status
    assert word in finding.what
    assert bool(finding.hint) == (status != "ok")


def test_the_kernel_is_asked_for_real() -> None:
    assert check_machine.is_clock_synchronised() in (True, False, None)


def test_boot(tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("183900.5 1\n")
    assert check_boot(tmp_path).what == "2 days 3 h 5 min ago"
    assert check_boot(tmp_path / "none").status == "warn"


class Machine:
    """/proc and /sys/fs/cgroup with so much memory."""

    def __init__(self, folder: Path, available_mib: int = 500) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        for pid in ("self", "77"):
            (self.proc / pid).mkdir(parents=True)
        (self.proc / "meminfo").write_text(f"MemTotal: {1 << 20} kB\nMemAvailable: {available_mib << 10} kB\n")

    def limit(self, place: str, size_bytes: str) -> None:
        path = self.cgroups / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(size_bytes + "\n")

    def group(self, text: str, pid: str = "self") -> None:
        (self.proc / pid / "cgroup").write_text(text)


def test_memory_of_the_machine(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert check_memory(machine.proc, machine.cgroups, None) == ("memory", "ok", "500.0 MiB of 1.0 GiB available", "")
    assert check_memory(Machine(tmp_path / "small", 20).proc, machine.cgroups, None).status == "warn"
    assert check_memory(tmp_path / "none", machine.cgroups, None).status == "ok"


def test_memory_of_a_control_group(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.group("0::/system.slice/edgegw.service\n", "77")
    machine.group("0::/user.slice\n")
    machine.limit("system.slice/edgegw.service/memory.max", "max")
    machine.limit("system.slice/memory.max", str(100 << 20))
    assert check_memory(machine.proc, machine.cgroups, 77).what.endswith("limited to 100.0 MiB")
    assert "limited" not in check_memory(machine.proc, machine.cgroups, None).what
    machine.limit("system.slice/edgegw.service/memory.max", str(40 << 20))
    assert check_memory(machine.proc, machine.cgroups, 77).status == "fail"
    machine.group("5:cpu:/\n4:memory:/edgegw\n", "77")
    machine.limit("memory/edgegw/memory.limit_in_bytes", str(2**63 - 4096))
    machine.limit("memory/memory.limit_in_bytes", str(2**63 - 4096))
    assert check_memory(machine.proc, machine.cgroups, 77).status == "ok"
    machine.limit("memory/edgegw/memory.limit_in_bytes", str(1 << 20))
    assert check_memory(machine.proc, machine.cgroups, 77).status == "fail"


# --- the data folder ------------------------------------------------------------------------------


def test_where_it_is_mounted(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    spaced = str(data).replace(" ", r"\040")
    info = (
        "20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        f"30 20 8:2 / {spaced} rw,noexec - vfat /dev/vdb1 rw\n"
        f"31 20 8:3 / {spaced}x rw - tmpfs tmpfs rw\n"
        "half a line\n"
    )
    assert mount_of(data, info) == Mount(str(data), "vfat", frozenset({"rw", "noexec"}))
    assert mount_of(tmp_path, info) == Mount("/", "ext4", frozenset({"rw", "relatime"}))
    assert mount_of(tmp_path, "") is None


def test_the_nearest_folder(tmp_path: Path) -> None:
    assert nearest(tmp_path) == tmp_path
    assert nearest(tmp_path / "a" / "b") == tmp_path
    assert nearest(Path("not there at all/x")) == Path.cwd()


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path, EXT4).status == "ok"
    assert check_disk(tmp_path, Mount("/", "tmpfs", frozenset())).status == "warn"
    assert "fsync is the server's word" in check_disk(tmp_path, Mount("/", "nfs4", frozenset())).hint
    real = os.statvfs(tmp_path)

    def pretend(**changes: int) -> None:
        names = (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_flag",
            "f_namemax",
        )
        fields = {name: getattr(real, name) for name in names} | changes
        monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result([fields[name] for name in names]))

    pretend(f_bavail=10)
    assert check_disk(tmp_path, EXT4).status == "fail"
    pretend(f_files=1000, f_favail=3)
    assert (check_disk(tmp_path, EXT4).status, "3 inodes" in check_disk(tmp_path, EXT4).what) == ("warn", True)
    pretend(f_files=0, f_favail=0)  # btrfs has no number of them
    assert check_disk(tmp_path, EXT4).status == "ok"
    pretend(f_flag=os.ST_RDONLY)
    assert check_disk(tmp_path, EXT4).status == "fail"


def test_links_and_exchanges_are_tried_for_real(tmp_path: Path) -> None:
    assert check_mount(tmp_path, EXT4) == ("mount", "ok", "with the root file system; links and exchanges work", "")
    assert check_mount(tmp_path, Mount("/data", "ext4", frozenset())).what.startswith("under /data")
    assert list(tmp_path.iterdir()) == []


def test_what_a_mount_may_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_mount(tmp_path / "later", EXT4).status == "ok"
    assert "noexec" in check_mount(tmp_path, Mount("/", "ext4", frozenset({"noexec"}))).what

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr("os.link", refuse)
    finding = check_mount(tmp_path, EXT4)
    assert (finding.status, finding.what) == ("warn", "with the root file system, without hard links")
    monkeypatch.setattr(check_machine, "_exchange", refuse)
    assert check_mount(tmp_path, EXT4).what.endswith("without hard links and RENAME_EXCHANGE")
    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    assert "this user may not" in check_mount(tmp_path, EXT4).what
    assert list(tmp_path.iterdir()) == []

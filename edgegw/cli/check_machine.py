"""What `edgegw check` asks the machine: clock, memory, and the file system under the data folder."""

import ctypes
import errno
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edgegw.cli.findings import Finding, fail, ok, size_text, warn
from edgegw.limits import CHECK_FREE_BYTES_MIN, CHECK_INODES_MIN, CHECK_MEMORY_BYTES_MIN, CLOCK_JUMP_S, CLOCK_YEAR_MIN

# Files that go with the machine, that a power cut may take, or where fsync is somebody else's word.
_POOR_TYPES: Final = {
    "tmpfs": "its content goes with the power", "ramfs": "its content goes with the power",
    "overlay": "writes are copied, and may go with the container", "vfat": "a power cut may damage all of it",
    "exfat": "a power cut may damage all of it", "msdos": "a power cut may damage all of it",
    "nfs": "fsync is the server's word, and locks are too", "nfs4": "fsync is the server's word, and locks are too",
    "cifs": "fsync is the server's word, and locks are too", "smb3": "fsync is the server's word, and locks are too",
    "9p": "fsync is the host's word", "fuse.sshfs": "fsync is the server's word", "virtiofs": "fsync is the host's word",
}  # fmt: skip
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
# adjtimex(2): the state TIME_ERROR, and the flag STA_UNSYNC.
_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x40
# cgroup v1 says "no limit" by a number near 2^63.
_NO_LIMIT_BYTES: Final = 2**60


class Mount(NamedTuple):
    """Where a path is mounted."""

    point: str
    kind: str
    options: frozenset[str]


class _Timex(ctypes.Structure):
    """The beginning of struct timex; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("room", ctypes.c_byte * 256),
    )  # fmt: skip


# --- clock and memory -----------------------------------------------------------------------------


def check_clock(now_s: float, newest_ms: int | None, is_synchronised: bool | None) -> Finding:
    """The wall clock; `newest_ms` is the arrival of the newest message in the store."""
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    if time.gmtime(now_s).tm_year < CLOCK_YEAR_MIN:
        return fail("clock", f"it is {shown}, before this release was made", "set the clock: has the board a battery for it?")
    if newest_ms is not None and newest_ms / 1000 > now_s + CLOCK_JUMP_S:
        ahead_s = newest_ms / 1000 - now_s
        what = f"it is {shown}, and the store has a message that arrived {ahead_s:.0f} s later: the clock was set back"
        return warn("clock", what, "messages keep their order; let a time service set the clock at boot")
    if is_synchronised is None:
        return warn("clock", f"{shown}; the kernel does not say whether it is synchronised", "is a time service running?")
    if not is_synchronised:
        return warn("clock", f"{shown}, not synchronised", "start systemd-timesyncd or chrony, or set the clock by GPS")
    return ok("clock", f"{shown}, synchronised")


def is_clock_synchronised() -> bool | None:
    """What the kernel was told by a time service (adjtimex); None where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (AttributeError, OSError):
        return None
    timex = _Timex()
    state = adjtimex(ctypes.byref(timex))
    return None if state < 0 else state != _TIME_ERROR and not timex.status & _STA_UNSYNC


def check_boot(proc: Path) -> Finding:
    """How long the machine runs."""
    try:
        uptime_s = float((proc / "uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return warn("boot", "the time since boot is not known", "is /proc mounted?")
    days, rest = divmod(int(uptime_s), 86_400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    return ok("boot", f"{f'{days} days ' if days else ''}{hours} h {minutes} min ago")


def check_memory(proc: Path, cgroups: Path, pid: int | None) -> Finding:
    """Memory of the machine, and the limit of the gateway's control group, of ours where it does not run."""
    found = _meminfo(proc)
    limit_bytes = _cgroup_limit(proc / (str(pid) if pid else "self") / "cgroup", cgroups)
    total_bytes, available_bytes = found.get("MemTotal", 0), found.get("MemAvailable", 0)
    what = f"{size_text(available_bytes)} of {size_text(total_bytes)} available"
    if limit_bytes is not None:
        what += f", limited to {size_text(limit_bytes)}"
    if limit_bytes is not None and limit_bytes < CHECK_MEMORY_BYTES_MIN:
        return fail("memory", what, f"the gateway needs {size_text(CHECK_MEMORY_BYTES_MIN)}: raise MemoryMax")
    if found and available_bytes < CHECK_MEMORY_BYTES_MIN:
        return warn("memory", what, f"the gateway needs {size_text(CHECK_MEMORY_BYTES_MIN)} at load")
    return ok("memory", what)


def _meminfo(proc: Path) -> dict[str, int]:
    try:
        lines = (proc / "meminfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {each[0].rstrip(":"): int(each[1]) * 1024 for each in words if len(each) == 3 and each[1].isdecimal()}


def _cgroup_limit(membership: Path, cgroups: Path) -> int | None:
    """The smallest limit on the way up from the group (cgroups(7), v1 and v2); None where there is none."""
    try:
        lines = membership.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    limits: list[int] = []
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers == "":
            limits += _limits(cgroups, place, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(cgroups / "memory", place, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(root: Path, place: str, name: str) -> Iterator[int]:
    folder = root / place.lstrip("/")
    for each in (folder, *folder.parents):
        if each == root.parent:
            return
        try:
            text = (each / name).read_text("ascii").strip()
        except OSError:
            continue  # the root has none; in a container the path may be another's
        if text.isdecimal() and int(text) < _NO_LIMIT_BYTES:
            yield int(text)


# --- the data folder ------------------------------------------------------------------------------


def nearest(folder: Path) -> Path:
    """The folder, or what of its path is there already."""
    return next(place for place in (folder, *folder.absolute().parents) if _is_folder(place))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # its parent is closed to this user
        return False


def mount_of(folder: Path, mountinfo: str) -> Mount | None:
    """Where it is mounted, by /proc/self/mountinfo (proc(5)); of two mounts on one place the later holds."""
    target = os.path.realpath(folder)
    found: Mount | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        words, tail = left.split(), right.split()
        if len(words) < 6 or len(tail) < 3:
            continue
        point = words[4].encode().decode("unicode_escape")
        is_above = target == point or target.startswith(point.rstrip("/") + "/")
        if is_above and (found is None or len(point) >= len(found.point)):
            found = Mount(point, tail[0], frozenset((*words[5].split(","), *tail[2].split(","))))
    return found


def check_disk(folder: Path, mount: Mount | None) -> Finding:
    """Space, and what kind of file system it is."""
    there = nearest(folder)
    found = os.statvfs(there)
    free_bytes, total_bytes = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    kind = mount.kind if mount else "an unknown file system"
    what = f"{there}: {size_text(free_bytes)} of {size_text(total_bytes)} free on {kind}"
    if found.f_flag & os.ST_RDONLY:
        return fail("disk", f"{what}, read-only", "mount it read-write; after an error the kernel does this: see dmesg")
    if free_bytes < CHECK_FREE_BYTES_MIN:
        return fail("disk", what, f"make room: publishes are refused for want of {size_text(CHECK_FREE_BYTES_MIN)}")
    if found.f_files and found.f_favail < CHECK_INODES_MIN:
        return warn("disk", f"{what}, {found.f_favail} inodes free", "remove files: soon no new one can be made")
    if kind in _POOR_TYPES:
        return warn("disk", what, f"{kind}: {_POOR_TYPES[kind]}; use ext4, xfs, f2fs or btrfs")
    return ok("disk", what)


def check_mount(folder: Path, mount: Mount | None) -> Finding:
    """Whether updates can work there: programs run, links and exchanges are possible. Tried for real, in a folder of its own."""
    there = nearest(folder)
    if there != folder.absolute() and there != folder:
        return ok("mount", f"{folder} is not there yet; it is made at the first start")
    place = "with the root file system" if mount is None or mount.point == "/" else f"under {mount.point}"
    if mount is not None and "noexec" in mount.options:
        return warn("mount", f"{place}, noexec", "updates start programs from there: mount it without noexec")
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=folder) as made:
            missing = _missing_operations(Path(made))
    except PermissionError:
        return warn("mount", f"{place}; this user may not try links there", "ask as root or as the gateway's user")
    except OSError as error:
        return fail("mount", f"{place}; no folder can be made there: {error.strerror}", "see dmesg, and the disk above")
    if missing:
        return warn("mount", f"{place}, without {' and '.join(missing)}", "updates need both: use ext4, xfs, f2fs or btrfs")
    return ok("mount", f"{place}; links and exchanges work")


def _missing_operations(folder: Path) -> list[str]:
    one, two = folder / "one", folder / "two"
    one.write_text("1")
    two.write_text("2")
    missing: list[str] = []
    if not _works(lambda: os.link(one, folder / "link")):
        missing.append("hard links")
    if not _works(lambda: _exchange(one, two)) or one.read_text() != "2":
        missing.append("RENAME_EXCHANGE")
    return missing


def _works(act: Callable[[], None]) -> bool:
    try:
        act()
    except OSError:
        return False
    return True


def _exchange(one: Path, two: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE. Raises OSError."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # an old C library
        raise OSError(errno.ENOSYS, "renameat2") from None
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")

"""What /proc and /sys say, as values: text in, readings out. What is odd is left out, whatever it is; nothing here raises.

Names of values carry their unit. Counters grow since the machine's start; `rates` makes figures per second of two rounds.
"""

import re
from collections.abc import Mapping
from typing import Final

Values = dict[str, int | float | str]

# The kernel counts sectors of this size whatever the device's own is (Documentation/admin-guide/iostats.rst).
_SECTOR_BYTES: Final = 512
_NETWORK: Final = {
    "rx_bytes": 0, "rx_packets": 1, "rx_errors": 2, "rx_dropped": 3,
    "tx_bytes": 8, "tx_packets": 9, "tx_errors": 10, "tx_dropped": 11,
}  # fmt: skip
_MEMORY: Final = {
    "MemTotal": "total_bytes", "MemAvailable": "available_bytes", "MemFree": "free_bytes", "Cached": "cached_bytes",
    "SwapTotal": "swap_total_bytes", "SwapFree": "swap_free_bytes",
}  # fmt: skip


def load(loadavg: str, stat: str) -> Values:
    """/proc/loadavg, and the ticks of all processors together from /proc/stat, to be turned into a share by `busy`."""
    values: Values = {}
    words = loadavg.split()
    for name, word in zip(("load_1m", "load_5m", "load_15m"), words, strict=False):
        if (value := _float(word)) is not None:
            values[name] = value
    running, slash, total = words[3].partition("/") if len(words) > 3 else ("", "", "")
    if slash and running.isdecimal() and total.isdecimal():
        values |= {"running": int(running), "threads": int(total)}
    ticks = _integers(stat.partition("\n")[0].removeprefix("cpu").split()[:8]) if stat.startswith("cpu ") else []
    if len(ticks) >= 4:
        # user nice system idle iowait irq softirq steal; waiting for a disk is idleness.
        idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
        values |= {"cpu_ticks": sum(ticks), "cpu_idle_ticks": idle}
    return values


def memory(meminfo: str) -> Values:
    """/proc/meminfo."""
    values: Values = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if name in _MEMORY and len(words) == 2 and words[1] == "kB" and words[0].isdecimal():
            values[_MEMORY[name]] = int(words[0]) * 1024
    return values


def uptime(text: str) -> Values:
    """/proc/uptime."""
    value = _float(text.partition(" ")[0])
    return {} if value is None else {"uptime_s": value}


def pressure(resource: str, text: str) -> Values:
    """/proc/pressure/RESOURCE: the share of the last 10 s and 60 s in which some, or all, waited for it."""
    values: Values = {}
    for who, average, word in re.findall(r"^(some|full) .*?avg(10)=([0-9.]+)", text, re.MULTILINE):
        if (value := _float(word)) is not None:
            values[f"{resource}_{who}_{average}s_percent"] = value
    return values


def network(text: str) -> dict[str, Values]:
    """/proc/net/dev, by interface; without loopback."""
    found: dict[str, Values] = {}
    for line in text.splitlines()[2:]:
        name, colon, rest = line.partition(":")
        counts = _integers(rest.split())
        if colon and len(counts) >= 12 and name.strip() != "lo":
            found[name.strip()] = {key: counts[place] for key, place in _NETWORK.items()}
    return found


def disks(text: str, names: frozenset[str]) -> dict[str, Values]:
    """/proc/diskstats, by whole device: `names` are those of /sys/block."""
    found: dict[str, Values] = {}
    for line in text.splitlines():
        words = line.split()
        counts = _integers(words[3:14])
        if len(counts) == 11 and words[2] in names and not words[2].startswith(("loop", "ram")):
            found[words[2]] = {
                "reads": counts[0],
                "read_bytes": counts[2] * _SECTOR_BYTES,
                "writes": counts[4],
                "written_bytes": counts[6] * _SECTOR_BYTES,
                "busy_ms": counts[9],
            }
    return found


def temperature(millidegrees: str) -> Values:
    """A `temp` of /sys/class/thermal, or a `temp1_input` of hwmon; nothing for what a sensor says that is not connected."""
    match = re.fullmatch(r"-?[0-9]{1,7}", millidegrees.strip(), re.ASCII)
    celsius = int(match[0]) / 1000 if match else -300
    return {"celsius": celsius} if -100 < celsius < 1000 else {}


def rates(before: Mapping[str, int | float | str], now: Values, seconds: float) -> Values:
    """Counters per second since `before`; none for one that began anew meanwhile."""
    found: Values = {}
    for name, value in now.items():
        earlier = before.get(name)
        if isinstance(value, int) and isinstance(earlier, int) and value >= earlier and seconds > 0:
            found[f"{name}_per_s"] = round((value - earlier) / seconds, 1)
    return found


def busy(before: Mapping[str, int | float | str], now: Values) -> Values:
    """The share of the time that the processors were not idle, of `load`."""
    total, idle = ((now.get(name), before.get(name)) for name in ("cpu_ticks", "cpu_idle_ticks"))
    if not all(isinstance(count, int) for count in (*total, *idle)):
        return {}
    ticks, idle_ticks = (int(after or 0) - int(earlier or 0) for after, earlier in (total, idle))
    return {"cpu_busy_percent": round(100 * (ticks - idle_ticks) / ticks, 1)} if ticks > 0 <= idle_ticks <= ticks else {}


def level_of(name: str) -> str:
    """A name as one level of a topic: whatever else it holds becomes `_`."""
    return re.sub(r"[^A-Za-z0-9._:@-]", "_", name, flags=re.ASCII)[:64] or "_"


def _float(word: str) -> float | None:
    return float(word) if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", word, re.ASCII) else None


def _integers(words: list[str]) -> list[int]:
    """The numbers up to the first word that is none."""
    found: list[int] = []
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) <= 20):
            break
        found.append(int(word))
    return found

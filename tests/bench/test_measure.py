"""The measuring code itself: medians, parsers, what is judged, and the parts that run apart."""

import asyncio
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from edgegw.core.topic import matches
from tests.bench import __main__ as command
from tests.bench import bench_matching, environment, paced_client, raw_store
from tests.bench.budgets import budgets
from tests.bench.measure import (
    BenchError,
    Goal,
    Options,
    Pair,
    Pairs,
    Result,
    cpu_ticks,
    interleaved,
    judged,
    labelled_bytes,
    measured_apart,
    medians,
    mount_of,
    percentile,
    plain_environ,
    rounded,
    void,
    written_sectors,
)
from tests.bench.servers import LimitServer
from tests.bench.wrk import Load, parse_load

AT_LEAST = Goal("ratio", at_most=False, must=0.5, aim=0.65)
AT_MOST = Goal("value", at_most=True, must=300, aim=220)


def test_a_pair_is_limit_then_ours() -> None:
    order: list[str] = []

    def measured(side: str, figures: Iterator[float]) -> float:
        order.append(side)
        return next(figures)

    theirs, ours = iter([10.0, 20.0, 40.0]), iter([5.0, 16.0, 16.0])
    pairs = interleaved(lambda: measured("limit", theirs), lambda: measured("ours", ours), 3)
    assert order == ["limit", "ours"] * 3
    assert pairs == Pairs(ours=16.0, limit=20.0, ratio=0.5, ratios=[0.5, 0.8, 0.4])


def test_one_bad_pair_moves_nothing() -> None:
    good = [Pair(100.0, 60.0)] * 3
    assert medians([*good, Pair(100.0, 1.0)]).ratio == 0.6


@pytest.mark.parametrize(("part", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentile(part: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == expected


def test_percentile_of_few() -> None:
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(("number", "expected"), [(123456.7, 123457), (999.99, 1000.0), (0.123456, 0.1235), (0.0, 0.0)])
def test_rounded(number: float, expected: float) -> None:
    assert rounded(number) == expected


@pytest.mark.parametrize(("value", "ok"), [(49.0, False), (50.0, True), (80.0, True)])
def test_a_ratio_that_must_be_reached(value: float, ok: bool) -> None:
    result = judged("http_single", value, "requests/s", 100.0, AT_LEAST)
    assert (result["ok"], result["ratio"]) == (ok, value / 100)


@pytest.mark.parametrize(("value", "ok"), [(300.0, True), (301.0, False)])
def test_a_value_that_must_not_be_passed(value: float, ok: bool) -> None:
    assert judged("wear", value, "bytes", 300, AT_MOST)["ok"] is ok


def test_the_ratio_of_pairs_counts() -> None:
    result = judged("http_single", 90.0, "requests/s", 100.0, AT_LEAST, ratio=0.4, loop="uvloop")
    assert (result["ratio"], result["ok"], result["loop"]) == (0.4, False, "uvloop")
    assert {"bench", "value", "unit", "limit", "ratio", "must", "aim", "ok"} <= result.keys()


def test_a_void_result_holds_no_must() -> None:
    result = judged("http_single", 90.0, "requests/s", 100.0, AT_LEAST)
    assert void(result, "") is result
    assert void(result, "it waited") == {**result, "ok": False, "void": True, "reason": "it waited"}


# --- what the kernel says ------------------------------------------------------------------------


def test_cpu_ticks_of_an_odd_name() -> None:
    assert cpu_ticks("7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 8 9 20 0 3 0 100 1 2") == 300


def test_labelled_bytes() -> None:
    status = "Name:\tpython\nVmHWM:\t  9 kB\nVmRSS:\t   44712 kB\nThreads:\t3\n"
    assert labelled_bytes(status, "VmRSS") == 44712 * 1024
    assert labelled_bytes("rchar: 1\nwrite_bytes: 8192\n", "write_bytes") == 8192
    with pytest.raises(BenchError, match="nothing of Pss"):
        labelled_bytes(status, "Pss")


def test_written_sectors() -> None:
    assert written_sectors("   10    2   30   4   50   6   70   8    0   10   12\n") == 70


MOUNTS = (
    "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/vdb /srv/my\\040data btrfs rw 0 0\n"
    "/dev/vdc /run/disk xfs rw 0 0\n"
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/x", ("/dev/vda", "ext4")),
        ("/run", ("tmpfs", "tmpfs")),
        ("/runs", ("/dev/vda", "ext4")),
        ("/run/disk/a", ("/dev/vdc", "xfs")),
        ("/srv/my data/a", ("/dev/vdb", "btrfs")),
    ],
)
def test_mount_of(path: str, expected: tuple[str, str]) -> None:
    assert mount_of(path, MOUNTS) == expected


def test_a_folder_in_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "mount_of", lambda path, mounts: ("tmpfs", "tmpfs"))
    with pytest.raises(BenchError, match="tmpfs"):
        environment.file_system(tmp_path)


def test_the_environment_says_what_a_figure_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_IN_MEMORY", set())
    said = environment.environment(tmp_path, "asyncio")
    assert said["fsync_p50_ms"] > 0
    assert said["cpu"] and said["file_system"] and said["aiohttp"]
    assert not list(tmp_path.iterdir())


# --- clients -------------------------------------------------------------------------------------


def test_what_wrk_says() -> None:
    output = 'Running 1s test @ http://127.0.0.1:1/\n  16 requests in 1.00s\n\n{"requests":16,"duration_us":2000000,'
    output += '"refused":1,"broken":2,"p50_us":300,"p99_us":900}\n'
    load = parse_load(output)
    assert load == Load(16, 2_000_000, 1, 2, 300, 900)
    assert load.per_s == 8.0
    with pytest.raises(BenchError, match="nothing of use"):
        parse_load("unable to connect to 127.0.0.1:1\n")


async def test_the_paced_client_keeps_its_rate_and_counts_answers() -> None:
    with LimitServer("asyncio") as server:
        client = paced_client.PacedClient(server.port, "/v1/topics/bench/x", b"{}", "application/json", rate=200)
        reached = await client.run(0.5)
        assert 0 < reached.per_s <= 205
        assert server.cpu_s() >= 0
        assert server.rss_mib() > 1
        with pytest.raises(BenchError, match="not 201"):
            await paced_client.PacedClient(server.port, "/elsewhere", b"{}", "application/json", rate=200).run(0.1)


# --- parts that run apart ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rows", "chunks"])
def test_the_limits_of_the_store_store(kind: str, tmp_path: Path) -> None:
    prepare = {"rows": raw_store.rows, "chunks": raw_store.chunks}[kind]
    assert raw_store.measure(prepare, tmp_path, 0.05, warm_s=0.0) > 0
    assert not list(tmp_path.iterdir())


def test_the_publishers_publish(tmp_path: Path) -> None:
    figures = measured_apart("tests.bench.publishers", tmp_path, 0.2, "asyncio")
    assert figures["per_s"] > 0
    assert figures["commits_per_s"] > 0


def test_a_part_that_fails_says_why() -> None:
    with pytest.raises(BenchError, match=r"nowhere ended with 1: .*No module"):
        measured_apart("tests.bench.nowhere")


def test_the_other_subscriptions_match_nothing() -> None:
    others = bench_matching.others(500)
    assert len(set(others)) == 500
    assert sum("+" in f for f in others) > 100 and sum(f.endswith("#") for f in others) > 100
    assert not [f for f in others for topic in bench_matching.TOPICS[::37] if matches(f, topic)]


def test_budgets_are_those_of_the_benches() -> None:
    assert budgets().idle_mib <= budgets().loaded_mib
    assert budgets().start_ratio > 1


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """Benches that take no time: NAME → what it measures, below zero for one that cannot."""
    figures = dict.fromkeys(command.NAMES, 1.0)

    class Scripted:
        def __init__(self, module: str) -> None:
            self.name = module.rpartition("bench_")[2]

        def run(self, options: Options) -> Result:
            if figures[self.name] < 0:
                raise BenchError("wrk is missing")
            return judged(self.name, figures[self.name], "x", 1.0, AT_LEAST)

    monkeypatch.setattr(command, "import_module", Scripted)
    monkeypatch.setattr(command, "environment", lambda folder, loop: {"bench": "environment"})
    monkeypatch.setattr(command, "file_system", lambda folder: "ext4")
    return figures


def test_every_bench_says_a_line(scripted: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--dir", str(tmp_path / "new")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["bench"] for line in lines] == ["environment", *command.NAMES]


def test_a_must_that_is_missed_is_exit_1(scripted: dict[str, float], tmp_path: Path) -> None:
    scripted["start"] = 0.1
    assert command.main(["--dir", str(tmp_path), "start"]) == 1
    assert command.main(["--dir", str(tmp_path), "wear"]) == 0


def test_one_that_cannot_measure_does_not_stop_the_rest(
    scripted: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted["http_single"] = -1.0
    assert command.main(["--dir", str(tmp_path), "http_single", "wear"]) == 1
    said = capsys.readouterr()
    assert [json.loads(line)["bench"] for line in said.out.splitlines()] == ["environment", "wear"]
    assert said.err == "bench: http_single: wrk is missing\n"


@pytest.mark.parametrize("arguments", [["no_such_bench"], ["--pairs", "0"], ["--loop", "trio"]])
def test_wrong_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2


def test_every_name_is_a_bench() -> None:
    for name in command.NAMES:
        assert callable(import_module(f"tests.bench.bench_{name}").run)


def test_the_loop_of_a_name() -> None:
    from tests.bench.limit_server import loop_factory

    with asyncio.Runner(loop_factory=loop_factory("asyncio")) as runner:
        assert isinstance(runner.get_loop(), asyncio.SelectorEventLoop)


def test_nothing_of_the_caller_reaches_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("EDGEGW_LOG__LEVEL", "debug")
    monkeypatch.setenv("HOME_OF_NOBODY", "kept")
    environ = plain_environ()
    assert environ["HOME_OF_NOBODY"] == "kept"
    assert not [name for name in environ if name.startswith(("PYTHON", "EDGEGW_"))]

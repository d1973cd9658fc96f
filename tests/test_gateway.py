"""The gateway as a whole: how it starts and stops, and what of it lives on when a part fails. In this process, on each loop."""

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgegw.bus import Bus
from edgegw.errors import GatewayError, StoreError
from edgegw.gateway import Gateway
from tests.api.in_process import GatedWriter, until
from tests.gateway_in_process import Ear, Inside, alive, in_folder

CYCLES = 20
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on a loop of its own, and see that it leaves no task behind."""

    def run_once(coroutine: Coroutine[Any, Any, None]) -> None:
        async def checked() -> None:
            await coroutine
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(checked())

    return run_once


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> list[GatedWriter]:
    """The writers of the gateways to come, each with a door before its commits."""
    made: list[GatedWriter] = []

    class Kept(GatedWriter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr("edgegw.gateway.Writer", Kept)
    return made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks, restarts and the verdict on a writer that stands still come in no time."""
    monkeypatch.setattr("edgegw.gateway.TICK_S", 0.02)
    monkeypatch.setattr("edgegw.gateway.HEALTH_STALL_S", 0.5)
    monkeypatch.setattr("edgegw.services.SERVICE_BACKOFF_FIRST_S", 0.02)


async def wait_for_health(gateway: Inside, status: int) -> None:
    async with asyncio.timeout(20):
        while (await gateway.request("GET", "/healthz")).status != status:  # each asks anew, so others run meanwhile
            pass


# --- life ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_its_life_in_order(
    run: Run, tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        async with alive(in_folder(tmp_path), ear.environ) as gateway:
            assert capsys.readouterr().out == f"http://127.0.0.1:{gateway.port}\n"
            assert ear.heard() == ["FDSTORE=1\nFDNAME=http-unix", "FDSTORE=1\nFDNAME=http", "READY=1"]
            status = (await gateway.request("GET", "/v1/status")).json
            assert status["pid"] == os.getpid()
            assert [c["name"] for c in status["conditions"] if c["status"] != "ok"] == []
            assert {c["name"] for c in status["conditions"]} >= {"store", "service_tick", "service_api", "stream_default"}
            signal.raise_signal(number)
            await gateway.end()
        assert ear.heard() == ["STOPPING=1"]

    with Ear() as ear, caplog.at_level(logging.INFO):
        run(main())
    told = ["store.opened", "gateway.ready", "gateway.stopping", "gateway.stopped"]
    assert [record.message for record in caplog.records if record.message in told] == told


def test_a_signal_while_it_starts_is_a_stop_like_any_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = Bus.start

    async def interrupted(bus: Bus) -> None:
        signal.raise_signal(signal.SIGTERM)
        await start(bus)

    async def main() -> None:
        async with alive(in_folder(tmp_path)) as gateway:
            await gateway.end()

    monkeypatch.setattr(Bus, "start", interrupted)
    with caplog.at_level(logging.INFO):
        run(main())
    assert caplog.records[-1].message == "gateway.stopped"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_requests_under_way_are_finished(run: Run, tmp_path: Path, gated: list[GatedWriter]) -> None:
    async def main() -> None:
        async with alive(in_folder(tmp_path)) as gateway:
            await gateway.request("PUT", "/v1/consumers/c", b'{"filter": "#"}', Content_Type="application/json")
            fetch, commit, idle, late = [await gateway.wire() for _ in range(4)]
            await fetch.ask("POST", "/v1/consumers/c/fetch?wait=30")
            await idle.request("GET", "/healthz")
            gated[0].gate.clear()
            await commit.ask("POST", "/v1/topics/commit", b"x")
            await gateway.request("GET", "/healthz")  # the others have been read by now
            signal.raise_signal(signal.SIGTERM)
            assert (await fetch.reply()).code == "stopping"
            new = await asyncio.open_connection("127.0.0.1", gateway.port)  # waits in the kernel for whoever is next
            new[1].write(f"GET /healthz HTTP/1.1\r\nHost: {idle.host}\r\n\r\n".encode())
            signal.raise_signal(signal.SIGINT)  # impatience changes nothing
            gated[0].gate.set()
            assert (await commit.reply()).status == 201
            await gateway.end()
            assert await commit.is_closed()
            assert await idle.is_closed()
            assert await late.is_closed()
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await gateway.wire()
            with pytest.raises(ConnectionError):
                assert not await new[0].read(1)
                raise ConnectionResetError
            new[1].close()
            with suppress(ConnectionError):
                await new[1].wait_closed()
        async with alive(in_folder(tmp_path)) as gateway:
            rows = (await gateway.request("GET", "/v1/messages?after=0")).json
            assert [row["topic"] for row in rows] == ["commit"]

    run(main())


def test_a_body_that_is_still_coming_is_waited_for(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with alive(in_folder(tmp_path, stop_timeout_s=2)) as gateway:
            half, silent = await gateway.wire(), await gateway.wire()
            for wire in (half, silent):
                await wire.send(f"POST /v1/topics/t HTTP/1.1\r\nHost: {half.host}\r\nContent-Length: 8\r\n\r\nhalf")
            await gateway.request("GET", "/healthz")  # they have been read by now
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            await half.send("half")
            reply = await half.reply()
            assert (reply.status, reply.headers["connection"]) == (201, "close")
            assert await half.is_closed()
            await gateway.end()
            assert await silent.is_closed()

    run(main())


def test_nothing_is_left_behind(run: Run, tmp_path: Path) -> None:
    async def main(environ: dict[str, str]) -> None:
        async with alive(in_folder(tmp_path), environ) as gateway:
            assert (await gateway.request("POST", "/v1/topics/t", b"x")).status == 201
            wire = await gateway.wire()
            await wire.send("GET / HT")

    with Ear() as ear:
        run(main(ear.environ))
        kept = ear.heard()
        assert kept[-1] == "STOPPING=1"
        for sock in ear.kept:
            sock.close()
        before = _held()
        for _ in range(CYCLES):
            run(main(ear.environ))
            ear.heard()
            for sock in ear.kept:
                sock.close()
            assert _held() == before
    with sqlite3.connect(f"file:{tmp_path / 'bus.db'}?mode=ro", uri=True) as db:
        assert db.execute("SELECT sum(count) FROM chunk").fetchone() == (CYCLES + 1,)
    db.close()


def _held() -> tuple[Counter[str], set[threading.Thread], Any]:
    """Descriptors by what they are, threads, and who gets SIGTERM."""
    gc.collect()
    descriptors: Counter[str] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # the one that lists
            continue
        descriptors[target.partition("[")[0]] += 1
    return descriptors, set(threading.enumerate()), signal.getsignal(signal.SIGTERM)


# --- starts that fail ----------------------------------------------------------------------------


def in_use(data: Path, blocker: socket.socket) -> str:
    blocker.listen()
    return "cannot_listen"


def newer(data: Path, _: socket.socket) -> str:
    with sqlite3.connect(data / "bus.db") as db:
        db.execute("UPDATE meta SET value = 999 WHERE name = 'min_reader'")
    db.close()
    return "schema_newer"


def damaged(data: Path, _: socket.socket) -> str:
    (data / "bus.db").write_bytes(b"no database" * 1000)
    return "store_damaged"


def unreadable(data: Path, _: socket.socket) -> str:
    (data / "bus.db").unlink()
    (data / "bus.db").mkdir()
    return "store_unusable"


@pytest.mark.parametrize("hinder", [in_use, newer, damaged, unreadable])
def test_a_start_that_fails_leaves_nothing_behind(run: Run, tmp_path: Path, hinder: Callable[[Path, socket.socket], str]) -> None:
    async def live(listen: str) -> None:
        async with alive(in_folder(tmp_path, listen=listen)):
            pass

    async def fail() -> None:
        with pytest.raises(GatewayError) as caught:
            await live(f"127.0.0.1:{port}")
        assert caught.value.code == code
        assert caught.value.hint

    run(live("127.0.0.1:0"))
    with socket.socket() as blocker:
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocker.bind(("127.0.0.1", 0))
        port = blocker.getsockname()[1]
        code = hinder(tmp_path, blocker)
        run(fail())
        before = _held()
        for _ in range(3):
            run(fail())
            assert _held() == before
    if hinder is in_use:
        run(live(f"127.0.0.1:{port}"))


def test_who_has_the_address_has_it_before_the_store_opens(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two may bind it at once. The later one must fail at once, not with all of its parts up."""
    start = Bus.start

    async def overtaken(bus: Bus) -> None:
        with pytest.raises(OSError, match="in use"):
            blocker.listen()
        await start(bus)

    async def main() -> None:
        async with alive(in_folder(tmp_path, listen=listen)) as gateway:
            assert (await gateway.request("GET", "/healthz")).status == 200

    monkeypatch.setattr(Bus, "start", overtaken)
    with socket.socket() as blocker:
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        blocker.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{blocker.getsockname()[1]}"
        run(main())


# --- parts that fail -----------------------------------------------------------------------------


def test_a_service_that_crashes_is_contained(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    tick = Gateway._tick
    crashes = 0

    async def flaky(gateway: Gateway, bus: Bus) -> None:
        nonlocal crashes
        if crashes < 2:
            crashes += 1
            raise ZeroDivisionError("on purpose")
        await tick(gateway, bus)

    async def main() -> None:
        nonlocal crashes
        crashes = 0
        async with alive(in_folder(tmp_path)) as gateway:
            restarts = 'edgegw_service_restarts_total{service="tick"}'
            async with asyncio.timeout(20):
                while await gateway.metric(restarts) < 2:
                    assert (await gateway.request("POST", "/v1/topics/t", b"x")).status == 201
            shown = await gateway.condition("service_tick")
            assert (shown["status"], shown["required"]) == ("raised", False)
            assert shown["what"] == "the service tick crashed: ZeroDivisionError: on purpose"
            assert (await gateway.request("GET", "/readyz")).status == 200
            assert await gateway.metric('edgegw_condition_raised{condition="service_tick"}') == 1
            await wait_for_health(gateway, 200)  # the third one ticks
            assert await gateway.metric(restarts) == 2

    monkeypatch.setattr(Gateway, "_tick", flaky)
    run(main())


def test_a_writer_that_hangs_is_not_covered_up(
    run: Run, tmp_path: Path, gated: list[GatedWriter], caplog: pytest.LogCaptureFixture, hasty: None
) -> None:
    async def main() -> None:
        async with alive(in_folder(tmp_path), ear.environ | {"WATCHDOG_USEC": "500000"}) as gateway:
            assert [ear.hear() for _ in range(3)][1:] == ["FDSTORE=1\nFDNAME=http", "READY=1"]
            assert (await gateway.request("GET", "/healthz")).status == 200
            await until(lambda: ear.hear(0) == "WATCHDOG=1", "the watchdog is fed")
            gated[0].gate.clear()
            await until(lambda: bool(stuck()), "the watchdog sees it")
            ear.heard()
            more = len(stuck()) + 2
            await until(lambda: len(stuck()) >= more, "it goes on seeing it")
            assert ear.heard() == []
            await wait_for_health(gateway, 503)  # the loop lives, and says so itself
            gated[0].gate.set()
            await until(lambda: ear.hear(0) == "WATCHDOG=1", "the watchdog is fed again")
            await wait_for_health(gateway, 200)

    def stuck() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.message == "watchdog.no_progress"]

    with Ear() as ear:
        run(main())


def test_a_disk_that_fails_is_no_writer_that_hangs(
    run: Run, tmp_path: Path, gated: list[GatedWriter], monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    async def main() -> None:
        async with alive(in_folder(tmp_path), ear.environ | {"WATCHDOG_USEC": "200000"}) as gateway:
            await gateway.request("POST", "/v1/topics/t", b"x")
            is_broken.set()
            gated[0]._db.execute("PRAGMA query_only = 1")
            refused = await gateway.request("POST", "/v1/topics/t", b"y")
            assert (refused.status, refused.code) == (503, "store_unusable")
            failed = "edgegw_store_commits_failed_total"
            async with asyncio.timeout(20):
                while await gateway.metric(failed) < 10:  # ticks among them
                    pass
            ear.heard()
            await until(lambda: ear.hear(0) == "WATCHDOG=1", "the watchdog is fed")
            assert (await gateway.request("GET", "/readyz")).status == 503
            assert (await gateway.condition("store"))["status"] == "raised"
            assert (await gateway.condition("service_tick"))["status"] == "ok"
            is_broken.clear()
            gated[0]._db.execute("PRAGMA query_only = 0")
            assert (await gateway.request("POST", "/v1/topics/t", b"y")).status == 201
            assert (await gateway.request("GET", "/readyz")).status == 200

    def writes(writer: GatedWriter) -> None:
        if is_broken.is_set():
            writer._db.execute("UPDATE meta SET value = value")

    is_broken = threading.Event()
    monkeypatch.setattr(GatedWriter, "_tick", writes)
    with Ear() as ear:
        run(main())


def test_a_writer_that_dies_ends_the_gateway(
    run: Run, tmp_path: Path, gated: list[GatedWriter], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with pytest.raises(StoreError, match="broken on purpose") as caught:
            async with alive(in_folder(tmp_path)) as gateway:
                kept, *wires = [await gateway.wire() for _ in range(10)]
                assert (await kept.request("GET", "/healthz")).status == 200
                gated[0].gate.clear()
                for n, wire in enumerate(wires):
                    await wire.ask("POST", "/v1/topics/t", b"%d" % n)
                await kept.request("GET", "/v1/status")
                gated[0].fault = RuntimeError("broken on purpose")
                gated[0].gate.set()
                for wire in wires:
                    reply = await wire.reply()
                    assert (reply.status, reply.code) == (503, "store_failed")
                await kept.ask("GET", "/healthz")
                if not await kept.is_closed():  # it was still there, and a byte of its answer was read
                    assert b" 503 " in await kept._reader.readline()
                await gateway.end()
        assert caught.value.code == "store_failed"
        assert isinstance(caught.value.__cause__, RuntimeError)

    run(main())
    assert "service.crashed" in [record.message for record in caplog.records]
    run(_holds(tmp_path, []))


def test_a_writer_that_dies_over_the_last_commit_is_not_hidden(run: Run, tmp_path: Path, gated: list[GatedWriter]) -> None:
    async def main() -> None:
        with pytest.raises(StoreError, match="broken on purpose"):
            async with alive(in_folder(tmp_path)) as gateway:
                assert (await gateway.request("POST", "/v1/topics/t", b"stored")).status == 201
                wire = await gateway.wire()
                gated[0].gate.clear()
                await wire.ask("POST", "/v1/topics/t", b"lost")
                await gateway.request("GET", "/healthz")
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(0)
                gated[0].fault = RuntimeError("broken on purpose")
                gated[0].gate.set()
                assert (await wire.reply()).status == 503
                await gateway.end()

    run(main())
    run(_holds(tmp_path, ["stored"]))


async def _holds(data: Path, payloads: list[str]) -> None:
    async with alive(in_folder(data)) as gateway:
        rows = json.loads((await gateway.request("GET", "/v1/messages?after=0")).body)
        assert [row["payload"] for row in rows] == payloads

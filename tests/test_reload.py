"""Reload: asked for or by files that changed, one at a time, taken as a whole or not at all; on virtual time, over real files."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.config import Inputs, Reading
from edgegw.errors import ConfigError, GatewayError, StoreError
from edgegw.limits import CONFIG_WATCH_S
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.reload import Applied, Reload, Reloaded
from tests.bus_setup import until
from tests.virtual_time import pass_time, run_virtual

GOOD = "[http]\nconnections_max = {}\n"


class Recorder:
    """A part that remembers, and refuses when it is told to."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.refusal: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def prepare(self, new: Reading) -> None:
        self.story.append(f"{self.name} prepares {new.config.http.connections_max}")
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal

    def withdraw(self) -> None:
        self.story.append(f"{self.name} withdraws")

    async def apply(self, new: Reading) -> Applied:
        self.story.append(f"{self.name} applies {new.config.http.connections_max}")
        return Applied((self.name,), ("its socket",) if self.name == "two" else ())


class House:
    """A reload with two parts, and the file that it reads."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "edgegw.toml"
        self.story: list[str] = []
        self.parts = [Recorder("one", self.story), Recorder("two", self.story)]
        self.metrics = Metrics()
        self.conditions = Conditions(SystemClock(), Log("edgegw.conditions"))
        self.told: list[bool] = []
        self.write(1)
        inputs = Inputs(self.file, {}, {})
        self.reload = Reload(
            inputs, inputs.read(), SystemClock(), self.conditions, self.metrics, tell=lambda us: self.told.append(us is not None)
        )

    def write(self, connections: int) -> None:
        self.file.write_text(GOOD.format(connections))

    def count(self, result: str) -> int:
        line = next(line for line in self.metrics.render().splitlines() if f'reload_total{{result="{result}"}}' in line)
        return int(line.split()[1])

    @property
    def connections(self) -> int:
        return self.reload.reading.config.http.connections_max

    async def attempts(self, count: int) -> None:
        """Until so many came to an end."""
        await until(lambda: self.count("ok") + self.count("refused") >= count, f"{count} reloads")


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[House]:
    house = House(folder)
    task = asyncio.get_running_loop().create_task(house.reload.run(house.parts))
    await asyncio.sleep(0)
    yield house
    task.cancel()
    await asyncio.wait({task})


def test_a_signal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running(tmp_path) as house:
            house.write(2)
            house.reload.request()
            await house.attempts(1)
            assert house.story == ["one prepares 2", "two prepares 2", "one applies 2", "two applies 2"]
            assert house.connections == 2
            assert house.told == [True, False]
            assert house.reload.last is not None
            assert house.reload.last.to_json() | {"time": ""} == {
                "time": "", "cause": "signal", "result": "ok", "changed": ("http.connections_max",),
                "restarted": ("one", "two"), "needs_restart": ("its socket",),
            }  # fmt: skip
            await pass_time(10 * CONFIG_WATCH_S)  # what was loaded is no news
            assert house.count("ok") == 1

    with caplog.at_level(logging.INFO):
        run_virtual(main())
    assert [record.message for record in caplog.records] == ["config.reloaded"]


def test_the_api_hears_what_was_done_or_every_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with running(tmp_path) as house:
            house.write(3)
            assert await house.reload.reload() == Reloaded(("http.connections_max",), ("one", "two"), ("its socket",))
            house.file.write_text("[http]\nconnections_max = 0\nlisten = 5\n[nonsense]\n")
            with pytest.raises(ConfigError) as caught:
                await house.reload.reload()
            assert caught.value.code == "config_invalid"
            assert len(caught.value.faults) == 3
            assert house.connections == 3
            assert not any("0" in line for line in house.story)
            (condition,) = house.conditions.snapshot()
            assert (condition["name"], condition["status"], condition["required"]) == ("config", "raised", False)
            assert f"{house.file}:2: http.connections_max" in str(condition["what"])
            assert "(and 2 more)" in str(condition["what"])
            assert (house.count("ok"), house.count("refused")) == (1, 1)
            view = house.reload.view()["reload"]
            assert isinstance(view, dict)
            assert (view["result"], view["code"], len(view["faults"])) == ("refused", "config_invalid", 3)
            house.write(4)
            await house.reload.reload()
            assert not house.conditions.is_raised("config")
            assert house.connections == 4

    run_virtual(main())
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "config.fault", "config.fault", "config.fault", "config.refused", "condition.raised",
    ]  # fmt: skip


@pytest.mark.parametrize("refusal", [ConfigError("config_invalid", "in use"), StoreError("too_many_streams", "too many")])
def test_a_part_that_refuses_refuses_for_all(tmp_path: Path, refusal: GatewayError) -> None:
    async def main() -> None:
        async with running(tmp_path) as house:
            house.write(2)
            house.parts[1].refusal = refusal
            with pytest.raises(type(refusal)):
                await house.reload.reload()
            assert house.story == ["one prepares 2", "two prepares 2", "one withdraws", "two withdraws"]
            assert house.connections == 1
            assert house.conditions.is_raised("config")
            assert house.told == [True, False]

    run_virtual(main())


def test_a_fault_of_ours_is_no_refusal_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        house = House(tmp_path)
        house.parts[0].refusal = ZeroDivisionError("on purpose")
        service = asyncio.get_running_loop().create_task(house.reload.run(house.parts))
        await asyncio.sleep(0)
        with pytest.raises(GatewayError, match="the reload failed") as caught:
            await house.reload.reload()
        assert caught.value.code == "internal"
        await asyncio.wait({service})
        assert isinstance(service.exception(), ZeroDivisionError)
        assert house.count("refused") == 0
        with pytest.raises(StoreError, match="stopping"):
            await house.reload.reload()

    run_virtual(main())


def test_requests_during_a_reload_get_one_that_begins_after_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as house:
            gate = house.parts[1].gate
            gate.clear()
            house.write(2)
            loop = asyncio.get_running_loop()
            first = loop.create_task(house.reload.reload())
            await until(lambda: "two prepares 2" in house.story, "it is under way")
            house.write(3)
            second, third = loop.create_task(house.reload.reload()), loop.create_task(house.reload.reload())
            house.reload.request()
            await asyncio.sleep(0)
            third.cancel()  # a client that went away
            gate.set()
            await first
            assert house.connections == 2
            await second
            assert house.connections == 3
            assert house.count("ok") == 2
            assert house.told == [True, False] * 2

    run_virtual(main())


def test_who_waits_while_all_ends_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        waiting: list[asyncio.Task[Reloaded]] = []
        async with running(tmp_path) as house:
            house.parts[0].gate.clear()
            for _ in range(2):
                waiting.append(asyncio.get_running_loop().create_task(house.reload.reload()))
                await until(lambda: bool(house.story), "it is under way")
        for each in waiting:
            with pytest.raises(StoreError, match="stopping"):
                await each
        assert "one withdraws" in house.story

    run_virtual(main())


# --- files ---------------------------------------------------------------------------------------


def test_files_are_taken_up_when_they_stand_still(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as house:
            await pass_time(CONFIG_WATCH_S / 2)  # between two looks
            for step in range(2, 6):  # somebody writes in steps
                house.write(step)
                await pass_time(CONFIG_WATCH_S)
                assert house.story == []
            await pass_time(CONFIG_WATCH_S)
            await house.attempts(1)
            assert house.connections == 5
            assert house.reload.last is not None
            assert house.reload.last.cause == "files"
            house.file.write_text("nonsense")
            await pass_time(2.5 * CONFIG_WATCH_S)
            await house.attempts(2)
            assert house.count("refused") == 1
            await pass_time(20 * CONFIG_WATCH_S)
            assert house.count("refused") == 1, "it was told once"
            house.write(6)
            await pass_time(2.5 * CONFIG_WATCH_S)
            await house.attempts(3)
            assert house.connections == 6
            assert not house.conditions.is_raised("config")

    run_virtual(main())


def test_a_file_that_the_configuration_names_is_watched(tmp_path: Path) -> None:
    async def main() -> None:
        token = tmp_path / "token"
        async with running(tmp_path) as house:
            text = f'[[link]]\nname = "up"\nurl = "https://example.org/"\ntoken_file = "{token}"\n'
            house.file.write_text(text)
            await house.reload.reload()
            house.story.clear()
            token.write_text("x")
            await pass_time(2.5 * CONFIG_WATCH_S)
            await house.attempts(2)
            assert house.story[-1].startswith("two applies"), "the parts look at it again"
            assert house.reload.last is not None
            assert house.reload.last.done.changed == ()
            house.file.write_text(text + "nonsense")
            await pass_time(2.5 * CONFIG_WATCH_S)
            await house.attempts(3)
            assert house.count("refused") == 1
            await pass_time(10 * CONFIG_WATCH_S)
            assert house.count("refused") == 1

    run_virtual(main())

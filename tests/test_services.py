"""Services: crashes are contained, told and followed by a new start; fatal ones are not; nothing outlives `stop`."""

import asyncio
import gc
import logging
import weakref

import pytest

from edgegw.clock import SystemClock
from edgegw.conditions import Conditions
from edgegw.errors import PeerError, StoreError
from edgegw.limits import SERVICE_BACKOFF_CAP_S, SERVICE_HEALTHY_S, SERVICE_STOP_S
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.services import Services
from tests.virtual_time import pass_time, run_virtual


class House:
    """Services with their surroundings; chance is 0, so every wait is the whole one."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.conditions = Conditions(SystemClock(), Log("edgegw.conditions"))
        self.services = Services(self.metrics, self.conditions, lambda: 0.0)
        self.starts: list[float] = []

    def started(self) -> None:
        self.starts.append(asyncio.get_running_loop().time())

    def restarts(self, name: str) -> int:
        line = next(line for line in self.metrics.render().splitlines() if f'{{service="{name}"}}' in line)
        return int(line.split()[1])


async def _forever() -> None:
    await asyncio.Event().wait()


def test_a_crash_is_told_and_the_service_starts_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House()

        async def mqtt() -> None:
            house.started()
            raise PeerError("broker_gone", "the broker does not answer")

        house.services.start("mqtt", mqtt)
        assert not house.conditions.is_raised("service_mqtt")
        await pass_time(8)
        assert house.starts == [0, 0.5, 1.5, 3.5, 7.5]
        assert house.restarts("mqtt") == 5
        shown = house.conditions.snapshot()[0]
        assert shown["status"] == "raised"
        assert shown["what"] == "the service mqtt crashed: PeerError: the broker does not answer"
        assert house.conditions.is_ready  # it was not required
        assert await house.services.stop() == []

    with caplog.at_level(logging.ERROR):
        run_virtual(main())
    crashes = [record for record in caplog.records if record.message == "service.crashed"]
    assert len(crashes) == 5
    assert crashes[0].exc_info is not None
    assert crashes[0].exc_info[2] is not None, "without a traceback"
    assert crashes[1].__dict__["fields"] == {"service": "mqtt", "crashes": 2, "restart_in_s": 1.0}


def test_the_wait_has_a_cap() -> None:
    async def main() -> None:
        house = House()

        async def mqtt() -> None:
            house.started()
            raise OSError

        house.services.start("mqtt", mqtt)
        await pass_time(3600)
        gaps = [later - earlier for earlier, later in zip(house.starts, house.starts[1:], strict=False)]
        assert max(gaps) == gaps[-1] == SERVICE_BACKOFF_CAP_S
        await house.services.stop()

    run_virtual(main())


def test_a_healthy_stretch_clears_the_condition_and_the_back_off() -> None:
    async def main() -> None:
        house = House()
        crash = asyncio.Event()

        async def mqtt() -> None:
            house.started()
            if len(house.starts) > 3:
                await crash.wait()
            raise OSError

        house.services.start("mqtt", mqtt, required=True)
        await pass_time(4)
        assert house.starts == [0, 0.5, 1.5, 3.5]
        assert not house.conditions.is_ready
        await pass_time(SERVICE_HEALTHY_S - 1)
        assert not house.conditions.is_ready
        await pass_time(1)
        assert house.conditions.is_ready
        crash.set()
        now_s = asyncio.get_running_loop().time()
        await pass_time(0.6)
        assert house.starts[4] == now_s + 0.5  # the first wait again
        assert not house.conditions.is_ready
        await house.services.stop()

    run_virtual(main())


def test_a_service_that_returns_has_crashed() -> None:
    async def main() -> None:
        house = House()

        async def brief() -> None:
            house.started()

        house.services.start("brief", brief)
        await pass_time(1)
        assert house.starts == [0, 0.5]
        assert "ended though nobody told it to" in str(house.conditions.snapshot()[0]["what"])
        await house.services.stop()

    run_virtual(main())


def test_a_cancellation_from_inside_is_a_crash() -> None:
    async def main() -> None:
        house = House()

        async def waits_for_another() -> None:
            house.started()
            other = asyncio.get_running_loop().create_future()
            other.cancel()
            await other

        house.services.start("waits", waits_for_another)
        await pass_time(1)
        assert house.starts == [0, 0.5]
        assert "cancelled from inside" in str(house.conditions.snapshot()[0]["what"])
        await house.services.stop()

    run_virtual(main())


def test_one_crash_leaves_the_others_alone() -> None:
    async def main() -> None:
        house = House()

        async def crashes() -> None:
            raise ExceptionGroup("tasks", [ValueError("x")])

        async def lives() -> None:
            house.started()
            await _forever()

        house.services.start("lives", lives)
        house.services.start("crashes", crashes)
        await pass_time(100)
        assert house.starts == [0]
        assert house.restarts("lives") == 0
        await house.services.stop()

    run_virtual(main())


def test_the_crash_of_a_fatal_service_is_not_hidden() -> None:
    async def main() -> None:
        house = House()

        async def store() -> None:
            house.started()
            await pass_time(3)
            raise StoreError("disk_io", "the disk does not answer")

        house.services.start("store", store, fatal=True)
        house.services.start("other", _forever)
        with pytest.raises(StoreError, match="the disk does not answer"):
            await house.services.wait()
        assert not house.conditions.is_ready
        await pass_time(100)
        assert house.starts == [0]
        assert house.restarts("store") == 0
        await house.services.stop()

    run_virtual(main())


def test_a_fatal_service_may_not_return_either() -> None:
    async def main() -> None:
        house = House()

        async def store() -> None:
            return

        house.services.start("store", store, fatal=True)
        with pytest.raises(RuntimeError, match="ended though nobody told it to"):
            await house.services.wait()
        await house.services.stop()

    run_virtual(main())


def test_wait_returns_when_asked() -> None:
    async def main() -> None:
        house = House()
        house.services.start("store", _forever, fatal=True)
        asyncio.get_running_loop().call_later(5, house.services.request_stop)
        await house.services.wait()
        assert asyncio.get_running_loop().time() == 5
        await house.services.stop()

    run_virtual(main())


def test_stop_is_in_reverse_order_and_one_after_the_other() -> None:
    async def main() -> None:
        house = House()
        ends: list[tuple[str, float]] = []

        async def takes_a_second(name: str) -> None:
            try:
                await _forever()
            finally:
                await pass_time(1)
                ends.append((name, asyncio.get_running_loop().time()))

        for name in ("store", "bus", "api"):
            house.services.start(name, lambda name=name: takes_a_second(name))
        await pass_time(1)
        async with asyncio.TaskGroup() as group:  # twice at once, and once more: no second cancellation, no fault
            group.create_task(house.services.stop())
            group.create_task(house.services.stop())
        assert await house.services.stop() == []
        assert ends == [("api", 2), ("bus", 3), ("store", 4)]

    run_virtual(main())


def test_a_service_that_does_not_stop_is_left_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House()
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        house.services.start("first", _forever)
        house.services.start("stubborn", stubborn)
        await pass_time(1)
        assert await house.services.stop() == ["stubborn"]
        assert asyncio.get_running_loop().time() == 1 + SERVICE_STOP_S
        release.set()
        await pass_time(1)

    run_virtual(main())
    assert [record.message for record in caplog.records] == ["service.stuck"]


def test_a_clean_up_that_fails_is_told_and_not_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        house = House()

        async def fails_at_the_end() -> None:
            try:
                await _forever()
            finally:
                raise OSError("not closed")

        house.services.start("x", fails_at_the_end)
        await pass_time(1)
        assert await house.services.stop() == []
        assert house.restarts("x") == 0

    run_virtual(main())
    assert [record.message for record in caplog.records] == ["service.stop_failed"]


def test_stop_during_the_wait_for_a_new_start_and_before_the_first() -> None:
    async def main() -> None:
        house = House()

        async def crashes() -> None:
            house.started()
            raise OSError

        house.services.start("crashes", crashes)
        await pass_time(0.1)
        house.services.start("never-ran", crashes)
        assert await house.services.stop() == []
        await pass_time(100)
        assert house.starts == [0]

    run_virtual(main())


def test_the_end_of_the_loop_is_a_stop_too() -> None:
    houses: list[House] = []

    async def main() -> None:
        houses.append(House())
        houses[0].services.start("x", _forever)
        await asyncio.sleep(0)

    asyncio.run(main())  # hangs when the cancellation at its end counts as a crash
    assert houses[0].restarts("x") == 0


def test_a_crashed_service_s_things_are_let_go_while_it_waits() -> None:
    class Connection:
        pass

    async def main() -> None:
        house = House()
        seen: list[weakref.ref[Connection]] = []

        async def mqtt() -> None:
            connection = Connection()
            seen.append(weakref.ref(connection))
            raise OSError

        house.services.start("mqtt", mqtt)
        await pass_time(0.1)
        gc.collect()
        assert seen[0]() is None
        await house.services.stop()

    logging.disable(logging.CRITICAL)  # the test's own log capture would hold the traceback
    try:
        run_virtual(main())
    finally:
        logging.disable(logging.NOTSET)


def test_a_name_is_used_once() -> None:
    async def main() -> None:
        house = House()
        house.services.start("x", _forever)
        with pytest.raises(AssertionError, match="service x runs"):
            house.services.start("x", _forever)
        await house.services.stop()
        house.services.start("x", _forever)  # after a stop it may start again
        await house.services.stop()

    run_virtual(main())


# --- one of them ---------------------------------------------------------------------------------


def names(house: House) -> list[str]:
    return [str(condition["name"]) for condition in house.conditions.snapshot()]


def test_one_service_stops_and_takes_its_condition_along() -> None:
    async def main() -> None:
        house = House()

        async def crashes() -> None:
            raise OSError

        house.services.start("first", _forever)
        house.services.start("x", crashes)
        house.services.start("last", _forever)
        await pass_time(0.1)
        assert house.conditions.is_raised("service_x")
        assert await house.services.stop_one("x")
        assert names(house) == ["service_first", "service_last"]
        assert await house.services.stop_one("x"), "it is gone already"
        await pass_time(100)
        assert house.restarts("x") == 1
        assert await house.services.stop() == []

    run_virtual(main())


def test_a_restart_runs_the_new_one_after_the_old_one_ended() -> None:
    async def main() -> None:
        house = House()
        told: list[str] = []

        async def old() -> None:
            try:
                await _forever()
            finally:
                await pass_time(1)
                told.append("old ended")

        async def new() -> None:
            told.append("new runs")
            await _forever()

        house.services.start("x", old)
        await pass_time(1)
        assert await house.services.restart("x", new)
        assert await house.services.restart("y", new), "what does not run is started"
        await pass_time(1)
        assert told == ["old ended", "new runs", "new runs"]
        assert names(house) == ["service_x", "service_y"]
        assert await house.services.stop() == []
        assert not await house.services.restart("x", new), "all are being stopped"
        await pass_time(1)
        assert told == ["old ended", "new runs", "new runs"]

    run_virtual(main())


def test_no_second_one_beside_one_that_does_not_end() -> None:
    async def main() -> None:
        house = House()
        release = asyncio.Event()

        async def stubborn() -> None:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        async def new() -> None:
            house.started()
            await _forever()

        house.services.start("x", stubborn)
        await pass_time(1)
        assert not await house.services.restart("x", new)
        assert house.conditions.is_raised("service_x")
        release.set()
        await pass_time(1)
        assert await house.services.restart("x", new)
        await pass_time(1)
        assert house.starts == [1 + SERVICE_STOP_S + 1]
        assert not house.conditions.is_raised("service_x")
        assert await house.services.stop() == []

    run_virtual(main())

"""The services of the gateway: the one place that owns tasks.

A service is a coroutine function that runs until it is cancelled. What it raises, and its return, is a crash: told, counted,
shown as the condition `service_<name>`, and followed by a new start after a back-off. A service that ran for SERVICE_HEALTHY_S
is healthy again: its condition is cleared and its back-off starts over. The crash of a `fatal` service is not contained: it
comes out of `wait`, and the gateway ends.

`stop` cancels the services in the reverse order of their start, one after the other, each with SERVICE_STOP_S to clean up.
`stop_one` and `restart` do so for a service whose part of the configuration changed; one that was restarted is the last one.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from edgegw.conditions import Conditions
from edgegw.core.retry import Backoff
from edgegw.limits import (
    SERVICE_BACKOFF_CAP_S,
    SERVICE_BACKOFF_FACTOR,
    SERVICE_BACKOFF_FIRST_S,
    SERVICE_BACKOFF_JITTER,
    SERVICE_HEALTHY_S,
    SERVICE_STOP_S,
)
from edgegw.observe.log import Log
from edgegw.observe.log_lines import plain
from edgegw.observe.metrics import Counter, Metrics

_log = Log(__name__)

Run = Callable[[], Coroutine[Any, Any, None]]


class _Service:
    __slots__ = ("condition", "crashes", "is_fatal", "name", "restarts", "run", "task")

    def __init__(self, name: str, run: Run, restarts: Counter, is_fatal: bool) -> None:
        self.name = name
        self.run = run
        self.restarts = restarts
        self.is_fatal = is_fatal
        self.condition = f"service_{name}"
        self.crashes = 0  # since it was last healthy
        self.task: asyncio.Task[None] | None = None


class Services:
    """Runs services, contains their crashes, and stops them; time is the event loop's, chance is `random01`."""

    def __init__(self, metrics: Metrics, conditions: Conditions, random01: Callable[[], float]) -> None:
        self._conditions = conditions
        self._random01 = random01
        self._backoff = Backoff(SERVICE_BACKOFF_FIRST_S, SERVICE_BACKOFF_CAP_S, SERVICE_BACKOFF_FACTOR, SERVICE_BACKOFF_JITTER)
        self._restarts = metrics.counters("edgegw_service_restarts_total", "Services started again after a crash.", ("service",))
        self._services: list[_Service] = []
        self._failure: Exception | None = None
        self._ended = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._is_over = False

    def start(self, name: str, run: Run, *, fatal: bool = False, required: bool = False) -> None:
        """Run `run()` from now on; `required`: the gateway is not ready while it is down."""
        assert all(service.name != name for service in self._services), f"service {name} runs"
        service = _Service(name, run, self._restarts.labels(name), fatal)
        self._conditions.declare(service.condition, required=required or fatal, text=f"the service {name} runs")
        service.task = asyncio.create_task(self._keep(service), name=service.condition)  # noqa: TID251 -- the owner of tasks
        self._services.append(service)

    def request_stop(self) -> None:
        """Let `wait` return; for a signal handler."""
        self._ended.set()

    async def wait(self) -> None:
        """Until `request_stop` is called. Raises what a fatal service crashed with, if one does."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> list[str]:
        """Stop all services, last first; returns the names of those that did not end in their time. May be called again."""
        left: list[str] = []
        async with self._stopping:
            self._is_over = True
            while self._services:
                service = self._services[-1]
                if not await self._end(service):
                    left.append(service.name)
                self._services.remove(service)
        return left

    async def stop_one(self, name: str) -> bool:
        """Stop this service and take its condition back; False when it does not end in its time."""
        async with self._stopping:
            return await self._stop_one(name)

    async def restart(self, name: str, run: Run, *, required: bool = False) -> bool:
        """Stop this service, if it runs, and start `run()` in its place; whether it was started.

        It is not when the old one did not end in its time, since two of them would be at work, nor when all are being stopped.
        """
        async with self._stopping:
            if self._is_over or not await self._stop_one(name):
                return False
            self.start(name, run, required=required)
            return True

    async def _stop_one(self, name: str) -> bool:
        service = next((service for service in self._services if service.name == name), None)
        if service is None:
            return True
        has_ended = await self._end(service)
        if has_ended:
            self._services.remove(service)
            self._conditions.withdraw(service.condition)
        else:  # it stays in the list: two of a name would be at work
            self._conditions.raise_(service.condition, f"the service {name} does not end", "restart the gateway")
        return has_ended

    async def _end(self, service: _Service) -> bool:
        assert service.task is not None
        service.task.cancel()
        _, pending = await asyncio.wait({service.task}, timeout=SERVICE_STOP_S)
        if pending:
            _log.error("service.stuck", service=service.name, waited_s=SERVICE_STOP_S)
        return not pending

    async def _keep(self, service: _Service) -> None:
        while True:
            # The error is not held while we wait: its traceback holds everything that the service held.
            delay_s = self._crashed(service, await self._attempt(service))
            if delay_s is None:
                return
            await asyncio.sleep(delay_s)

    async def _attempt(self, service: _Service) -> Exception | None:
        """Run it once; returns what it crashed with, None when it ended because it was told to."""
        task = asyncio.current_task()
        assert task is not None
        healthy = asyncio.get_running_loop().call_later(SERVICE_HEALTHY_S, self._is_healthy, service)
        try:
            await service.run()
            error: Exception | None = None
        except asyncio.CancelledError:
            if task.cancelling():
                raise
            # Something that it waited for was cancelled; nobody told it to stop.
            error = RuntimeError("the service was cancelled from inside")
        except Exception as caught:
            error = caught
        finally:
            healthy.cancel()
        if not task.cancelling():
            return error or RuntimeError("the service ended though nobody told it to")
        if error is not None:
            _log.error("service.stop_failed", error=error, service=service.name)
        return None

    def _crashed(self, service: _Service, error: Exception | None) -> float | None:
        """Tell of a crash; returns the seconds until the next start, None for none."""
        if error is None:
            return None
        what = f"the service {service.name} crashed: {type(error).__name__}: {plain(error)}"
        if service.is_fatal:
            _log.error("service.crashed", error=error, service=service.name, fatal=True)
            self._conditions.raise_(service.condition, what, "the gateway ends; its log has the trace")
            self._failure = self._failure or error
            self._ended.set()
            return None
        delay_s = self._backoff.next_delay(service.crashes, self._random01())
        service.crashes += 1
        service.restarts.inc()
        _log.error("service.crashed", error=error, service=service.name, crashes=service.crashes, restart_in_s=round(delay_s, 3))
        self._conditions.raise_(service.condition, what, "it is started again by itself; the log has the trace")
        return delay_s

    def _is_healthy(self, service: _Service) -> None:
        service.crashes = 0
        self._conditions.clear(service.condition)

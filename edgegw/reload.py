"""A new configuration while the gateway runs: asked for by SIGHUP, by the API, or by files that changed.

One reload at a time, in one service. Each reads and checks the whole configuration, has every part prepare for it, and only
then lets every part work with it. A part that cannot (an address that is in use) refuses it as a whole: the last good value
holds, the condition `config` says why, and the next change of the files is the next try. A request that comes while one is
under way gets one of its own, since the files may have changed after they were read.

Files are watched by looking at them: a new look that differs from what was loaded, and equals the look before it, is a change
that is complete. Editors write in steps, and a look costs a few microseconds a file.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from edgegw.clock import Clock
from edgegw.conditions import Conditions
from edgegw.config import Inputs, Reading
from edgegw.config_changes import changes
from edgegw.config_files import Look, look_at, look_at_named
from edgegw.config_view import config_view
from edgegw.core.times import time_text_ms
from edgegw.errors import ConfigError, GatewayError, StoreError
from edgegw.limits import CONFIG_FAULTS_SHOWN_MAX, CONFIG_WATCH_S
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics

CONDITION = "config"
SIGNAL, FILES, API = "signal", "files", "api"

_log = Log(__name__)


class Applied(NamedTuple):
    """What a part did for a new configuration: what it started anew, and what only a restart of the gateway brings about."""

    restarted: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()


class Part(Protocol):
    """What works with some of the configuration. It knows itself which of that changed."""

    async def prepare(self, new: Reading) -> None:
        """Take what the new configuration needs, and go on with the old one. Raises GatewayError: it is refused as a whole."""

    def withdraw(self) -> None:
        """It was refused by another: let go of what `prepare` took."""

    async def apply(self, new: Reading) -> Applied:
        """Work with it from now on; after `prepare`, this cannot fail."""


class Reloaded(NamedTuple):
    """What a reload that was taken did: settings that changed, services started anew, what waits for a restart."""

    changed: tuple[str, ...]
    restarted: tuple[str, ...]
    needs_restart: tuple[str, ...]


class Attempt(NamedTuple):
    """The latest reload: when, by what, and what came of it."""

    time_ms: int
    cause: str
    error: GatewayError | None
    done: Reloaded

    def to_json(self) -> dict[str, object]:
        """For the API; `faults` are those of a refused configuration."""
        told: dict[str, object] = {
            "time": time_text_ms(self.time_ms),
            "cause": self.cause,
            "result": "ok" if self.error is None else "refused",
        }
        if self.error is None:
            return told | self.done._asdict()
        faults = self.error.faults if isinstance(self.error, ConfigError) else ()
        return told | {"code": self.error.code, "detail": self.error.what, "faults": [str(fault) for fault in faults]}


NOTHING = Reloaded((), (), ())


class Reload:
    """Holds the configuration that is at work. `tell(mono_us)` says that a reload begins, `tell(None)` that it ended."""

    def __init__(
        self,
        inputs: Inputs,
        reading: Reading,
        clock: Clock,
        conditions: Conditions,
        metrics: Metrics,
        *,
        tell: Callable[[int | None], object],
    ) -> None:
        self.reading = reading
        self.last: Attempt | None = None
        self._inputs = inputs
        self._clock = clock
        self._conditions = conditions
        self._tell = tell
        self._parts: Sequence[Part] = ()
        self._loaded: Look = self._look()
        self._asked = asyncio.Event()
        self._waiting: list[asyncio.Future[Reloaded]] = []
        self._is_over = True
        conditions.declare(CONDITION, required=False, text="the configuration files are at work")
        results = metrics.counters("edgegw_config_reload_total", "Reloads of the configuration.", ("result",))
        self._taken, self._refused = results.labels("ok"), results.labels("refused")
        self._last_s = metrics.gauge("edgegw_config_last_reload_timestamp_seconds", "When the configuration was last read.")
        self._last_s.set(clock.wall_ms() / 1000)

    def request(self) -> None:
        """Reload soon; for a signal handler."""
        self._asked.set()

    def view(self) -> dict[str, object]:
        """What holds, each value with its origin, and the latest reload."""
        return {**config_view(self.reading), "reload": None if self.last is None else self.last.to_json()}

    async def reload(self) -> Reloaded:
        """Reload now, on behalf of the API. Raises ConfigError with all faults, or what a part refuses it with."""
        if self._is_over:
            raise _stopping()
        waiter: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._asked.set()
        return await waiter

    async def run(self, parts: Sequence[Part]) -> None:
        """Until cancelled: reload when asked, and when the files changed. `parts` prepare and apply in their order.

        The last of them may make its change when it prepares: no other can refuse after it.
        """
        self._parts = parts
        self._is_over = False
        before = self._loaded
        try:
            while True:
                is_asked = await self._is_asked()
                now = self._look()
                is_complete, before = now == before, now
                if is_asked:
                    self._asked.clear()
                    waiting, self._waiting = self._waiting, []
                    await self._answer(waiting, API if waiting else SIGNAL)
                elif is_complete and now != self._loaded:
                    await self._answer([], FILES)
        finally:
            self._is_over = True
            _tell(self._waiting, _stopping())
            self._waiting = []

    async def _is_asked(self) -> bool:
        try:
            async with asyncio.timeout(CONFIG_WATCH_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True

    async def _answer(self, waiting: list[asyncio.Future[Reloaded]], cause: str) -> None:
        """Reload for all who asked until now. A fault of ours ends the service, which starts anew."""
        try:
            done = await self._reload(cause)
        except GatewayError as error:
            _tell(waiting, error)
        except asyncio.CancelledError:
            _tell(waiting, _stopping())
            raise
        except Exception:
            _tell(waiting, GatewayError("internal", "the reload failed; the gateway's log says why"))
            raise
        else:
            for waiter in waiting:
                if not waiter.done():  # else who asked is gone
                    waiter.set_result(done)

    async def _reload(self, cause: str) -> Reloaded:
        self._tell(int(self._clock.mono_s() * 1e6))
        try:
            done = await self._take()
        except GatewayError as error:
            self._refused.inc()
            self._was_refused(error)
            self._remember(Attempt(self._clock.wall_ms(), cause, error, NOTHING))
            raise
        finally:
            self._tell(None)
        self._taken.inc()
        self._conditions.clear(CONDITION)
        self._remember(Attempt(self._clock.wall_ms(), cause, None, done))
        _log.info("config.reloaded", cause=cause, **done._asdict())
        return done

    async def _take(self) -> Reloaded:
        # Looked at before it is read: what changes from now on is a change.
        loaded = look_at(self._inputs.file)
        try:
            # A thread, because the disk may be slow, and a large file takes its time to parse.
            new = await asyncio.to_thread(self._inputs.read)
            named = look_at_named(new.config)
            await self._prepare(new)
            changed = changes(self.reading.config, new.config)
            self.reading = new
        except BaseException:
            self._loaded = loaded | look_at_named(self.reading.config)
            raise
        self._loaded = loaded | named
        applied = [await part.apply(new) for part in self._parts]
        restarted = tuple(name for each in applied for name in each.restarted)
        return Reloaded(changed, restarted, tuple(name for each in applied for name in each.needs_restart))

    async def _prepare(self, new: Reading) -> None:
        """Every part says what is wrong for it; the last one only prepares when nothing is, since its change is made then."""
        *parts, last = self._parts
        prepared: list[Part] = []
        errors: list[ConfigError] = []
        try:
            for part in parts:
                prepared.append(part)
                try:
                    await part.prepare(new)
                except ConfigError as error:
                    errors.append(error)
            if len(errors) > 1:
                faults = tuple(fault for error in errors for fault in error.faults)
                raise ConfigError("config_invalid", "; ".join(error.what for error in errors), errors[0].hint, faults=faults)
            if errors:
                raise errors[0]
            prepared.append(last)
            await last.prepare(new)
        except BaseException:
            for part in prepared:
                part.withdraw()
            raise

    def _was_refused(self, error: GatewayError) -> None:
        faults = error.faults if isinstance(error, ConfigError) else ()
        for fault in faults[:CONFIG_FAULTS_SHOWN_MAX]:
            _log.warning("config.fault", fault=str(fault))
        _log.warning("config.refused", error=error, faults=len(faults))
        first = str(faults[0]) if faults else error.what
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        what = f"the new configuration was refused, the last good one holds: {first}{more}"
        self._conditions.raise_(CONDITION, what, error.hint)

    def _remember(self, attempt: Attempt) -> None:
        self.last = attempt
        self._last_s.set(attempt.time_ms / 1000)

    def _look(self) -> Look:
        return look_at(self._inputs.file) | look_at_named(self.reading.config)


def _tell(waiting: Sequence[asyncio.Future[Reloaded]], error: GatewayError) -> None:
    for waiter in waiting:
        if not waiter.done():
            waiter.set_exception(error)


def _stopping() -> GatewayError:
    return StoreError("stopping", "the gateway is stopping", "try again in a moment")

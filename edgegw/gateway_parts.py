"""The parts of the gateway that a section of the configuration brings about, other than the HTTP API; see `reload.Part`."""

from collections.abc import Callable, Mapping

from edgegw.bus import Bus, all_streams
from edgegw.config import BUILT_IN_STREAMS, Config, LogConfig, Reading
from edgegw.errors import ConfigError
from edgegw.reload import Applied
from edgegw.services import Run, Services


class ProcessPart:
    """[gateway]: what cannot change while it runs is refused; the rest is read when it is needed."""

    def __init__(self, config: Config) -> None:
        self._data = config.gateway.data

    async def prepare(self, new: Reading) -> None:
        """Raises ConfigError."""
        if new.config.gateway.data != self._data:
            origin = new.origins.get("gateway.data")
            what = f'cannot change while the gateway runs, which has "{self._data}"; restart it'
            place = "the default" if origin is None else origin.file
            faults = () if origin is None else (origin.fault(what),)
            raise ConfigError("config_invalid", f"gateway.data ({place}) {what}", "restart the gateway", faults=faults)

    def withdraw(self) -> None:
        """Nothing was taken."""

    async def apply(self, new: Reading) -> Applied:
        """Nothing holds a copy."""
        return Applied()


class LogPart:
    """[log]: at once."""

    def __init__(self, config: Config, setup: Callable[[LogConfig], None]) -> None:
        self._log = config.log
        self._setup = setup

    async def prepare(self, new: Reading) -> None:
        """Any value will do."""

    def withdraw(self) -> None:
        """Nothing was taken."""

    async def apply(self, new: Reading) -> Applied:
        """Set the loggers up anew."""
        if new.config.log != self._log:
            self._log = new.config.log
            self._setup(self._log)
        return Applied()


class StreamsPart:
    """[[stream]]: bounds and topics change in the writer's next turn, with the store open.

    The change itself is made by `prepare`, because the store may refuse it: this part is the last, see `Reload.run`.
    """

    def __init__(self, config: Config, bus: Bus, free_bytes: Callable[[], int]) -> None:
        self._streams = config.streams
        self._bus = bus
        self._free_bytes = free_bytes

    async def prepare(self, new: Reading) -> None:
        """Raises StoreError."""
        streams = new.config.streams
        if streams != self._streams:
            await self._bus.change_streams(all_streams(streams, BUILT_IN_STREAMS), self._free_bytes())
            self._streams = streams

    def withdraw(self) -> None:
        """It refused itself, and nothing changed."""

    async def apply(self, new: Reading) -> Applied:
        """It is done."""
        return Applied()


class ServicesPart:
    """A section whose services are started, restarted and stopped as it says.

    `wanted(config)` has what each service is made of, by its name; `make(value)` its coroutine function. Who finds its value
    unchanged is left alone.
    """

    def __init__(self, services: Services, wanted: Callable[[Config], Mapping[str, object]], make: Callable[..., Run]) -> None:
        self._services = services
        self._wanted = wanted
        self._make = make
        self._running: dict[str, object] = {}

    def start(self, config: Config) -> None:
        """Start all of them."""
        for name, value in self._wanted(config).items():
            self._services.start(name, self._make(value))
            self._running[name] = value

    async def prepare(self, new: Reading) -> None:
        """What a service cannot do it tells when it runs."""

    def withdraw(self) -> None:
        """Nothing was taken."""

    async def apply(self, new: Reading) -> Applied:
        """Stop who is gone, start who is new, restart who changed."""
        wanted = self._wanted(new.config)
        restarted: list[str] = []
        stuck: list[str] = []
        for name in [name for name in self._running if name not in wanted]:
            if not await self._services.stop_one(name):
                stuck.append(name)
            del self._running[name]
        for name, value in wanted.items():
            if name in self._running and self._running[name] == value:
                continue
            self._running[name] = value
            (restarted if await self._services.restart(name, self._make(value)) else stuck).append(name)
        return Applied(tuple(restarted), tuple(stuck))

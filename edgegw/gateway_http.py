"""The HTTP API as a part of the gateway: its socket, its server, and how both change while it runs.

The socket is bound before the store opens, since who has the address must know at once, and served when the rest is up. A new
address is bound before the old one is let go: a reload that cannot have it is refused, and the old one keeps serving.
"""

import asyncio
import random

from edgegw.api.listeners import Listeners
from edgegw.api.routing import Router
from edgegw.api.server import ApiServer
from edgegw.callers import Callers
from edgegw.clock import Clock
from edgegw.conditions import Conditions
from edgegw.config import Config, Reading
from edgegw.errors import ConfigError, GatewayError
from edgegw.limits import CERTIFICATE_LOOK_S
from edgegw.notify import Supervisor
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.reload import Applied

_log = Log(__name__)


class HttpPart:
    """[http]: `open` → `start` → `run` as a service → `stop` → `close`; `apply` in between."""

    def __init__(
        self,
        config: Config,
        supervisor: Supervisor,
        metrics: Metrics,
        conditions: Conditions,
        clock: Clock,
        callers: Callers,
    ) -> None:
        self._config = config.http
        self._supervisor = supervisor
        self._metrics = metrics
        self._conditions = conditions
        self._clock = clock
        self._callers = callers
        self._listeners = Listeners(config.http, config.gateway.data)

    # --- life -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the sockets a supervisor kept for us, or bind new ones. Raises GatewayError(cannot_listen), ConfigError."""
        self._listeners.open(self._supervisor.take_sockets(), tokens=self._tokens())

    def close(self) -> None:
        """Let go of the sockets."""
        self._listeners.close()

    async def start(self, router: Router) -> None:
        """Serve."""
        seed = f"{random.getrandbits(40):010x}-"
        doors = self._listeners.doors
        self._server = ApiServer(router, self._config, doors, self._metrics, callers=self._callers, id_seed=seed)
        await self._server.start()
        self._tell_conditions()

    async def run(self) -> None:
        """Enforce deadlines until cancelled."""
        await self._server.run()

    async def watch_certificate(self) -> None:
        """Until cancelled: look at the dates of the certificate, if there is one."""
        while True:
            self._tell_conditions()
            await asyncio.sleep(CERTIFICATE_LOOK_S)

    def stop_accepting(self) -> None:
        """New connections wait in the kernel."""
        self._server.stop_accepting()

    async def stop(self, timeout_s: float) -> None:
        """Finish the requests under way, at most `timeout_s`."""
        await self._server.stop(timeout_s)

    def keep(self) -> None:
        """Give the sockets to the supervisor, for the next process."""
        for name, sock in self._listeners.socks.items():
            self._listeners.is_kept = self._supervisor.store(name, sock)

    @property
    def url(self) -> str:
        """Where people on this machine find it."""
        return self._listeners.url

    def _tokens(self) -> int:
        """Their number. Of those on a disk that failed there was one at least: the gateway lets nobody in, and works on."""
        return len(self._callers) if self._callers.is_loaded else 1

    def _tell_conditions(self) -> None:
        self._listeners.tell_conditions(self._conditions, self._clock.wall_ms())

    # --- reload -----------------------------------------------------------------------------------

    async def prepare(self, new: Reading) -> None:
        """Bind a changed address, read the certificate. Raises ConfigError."""
        try:
            self._listeners.prepare(new.config.http, tokens=self._tokens())
        except GatewayError as error:
            origin = new.origins.get("http.listen") if error.code == "cannot_listen" else None
            faults = () if origin is None else (origin.fault(error.what),)
            raise ConfigError("config_invalid", error.what, error.hint, faults=faults) from error

    def withdraw(self) -> None:
        """Let go of what is not going to be served."""
        self._listeners.withdraw()

    async def apply(self, new: Reading) -> Applied:
        """Limits hold from the next connection or request on; a changed address is served before the old one is drained."""
        self._config = new.config.http
        self._server.change(self._config)
        replaced = self._listeners.apply()
        self._tell_conditions()
        if not replaced:
            return Applied()
        for old, door in replaced:
            await self._server.replace(old, door)
            old.sock.close()
        for name in self._listeners.socks:
            self._supervisor.forget(name)
        self.keep()
        _log.info("http.moved", url=self.url)
        return Applied(restarted=("http",))

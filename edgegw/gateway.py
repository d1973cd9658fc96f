"""The composition root: builds every part from the configuration, starts them in order, and stops them in the reverse order.

Start:  data folder (one owner), listening sockets (the supervisor's, or new ones), store, services, API, parts, READY.
Stop:   STOPPING, no new connections, requests under way finish, services, store (commits what was accepted), data folder.
Reload: each part prepares for the new configuration, then works with it; see `reload.py`, and `_parts` for their order.
Whatever fails on the way up undoes what came before it.
"""

import asyncio
import gc
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import edgegw
from edgegw.api.config_routes import ConfigRoutes
from edgegw.api.routes import Routes
from edgegw.api.routing import Router
from edgegw.api.token_routes import TokenRoutes
from edgegw.bus import Bus, all_streams
from edgegw.callers import Callers
from edgegw.clock import Clock, SystemClock
from edgegw.conditions import Conditions
from edgegw.config import BUILT_IN_STREAMS, Config, Inputs, LogConfig, Reading
from edgegw.errors import StoreError
from edgegw.gateway_http import HttpPart
from edgegw.gateway_links import Links
from edgegw.gateway_parts import LogPart, ProcessPart, ServicesPart, StreamsPart
from edgegw.limits import CONNECTIONS_MAX, FILES_OWN_MAX, HEALTH_STALL_S, SETTLE_S, SWITCH_INTERVAL_S, TICK_S
from edgegw.notify import Supervisor, Watchdog
from edgegw.observe.log import Log, setup
from edgegw.observe.loop_lag import LoopLag
from edgegw.observe.metrics import Metrics
from edgegw.observe.process_metrics import watch_process
from edgegw.reload import Part, Reload
from edgegw.services import Services
from edgegw.sources.host import HostSource
from edgegw.store.disk import DataFolder
from edgegw.store.faults import SQLITE_VERSION
from edgegw.store.reader import Reader
from edgegw.store.state import StateFile
from edgegw.store.writer import Writer
from edgegw.watch import StoreWatch

_log = Log(__name__)
_MIGRATIONS = Path(edgegw.__file__).parent / "migrations"


def run(inputs: Inputs, reading: Reading) -> int:
    """Run a gateway until it is told to stop; the exit code. Raises GatewayError when it cannot start or cannot go on.

    `reading` is what `inputs` said at the start; they are read again at each reload.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    os.umask(os.umask(0o027) | 0o027)  # messages are not for every user of the machine, whoever made the data folder
    _allow_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        supervisor = Supervisor.from_environ(os.environ, os.getpid())
        runner.run(Gateway(inputs, reading, SystemClock(), supervisor, set_up_log=_log_to_stderr).run())
    return 0


def _log_to_stderr(log: LogConfig) -> None:
    setup(log.level, log.format, sys.stderr)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this architecture: everything works, a third slower
        return None
    return uvloop.new_event_loop


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _allow_files() -> None:
    """1,024 descriptors, as services get them, are fewer than so many connections and the store need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_OWN_MAX
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settle_memory() -> None:
    """What is loaded stays: the collector need not look at it again. It takes 20 ms once, after the start, not in it."""
    gc.collect()
    gc.freeze()
    gc.enable()


class Gateway:
    """One gateway in one process. `set_up_log` is told of a changed [log]."""

    def __init__(
        self, inputs: Inputs, reading: Reading, clock: Clock, supervisor: Supervisor, *, set_up_log: Callable[[LogConfig], None]
    ) -> None:
        self._clock = clock
        self._supervisor = supervisor
        self._set_up_log = set_up_log
        self._metrics = Metrics()
        self._conditions = Conditions(clock, Log("edgegw.conditions"))
        self._reload = Reload(inputs, reading, clock, self._conditions, self._metrics, tell=self._tell_reload)
        self._started_s = self._ticked_s = clock.mono_s()

    async def run(self) -> None:
        """The life of the process. Raises GatewayError."""
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            services = Services(self._metrics, self._conditions, random.random)
            # First in and last out: a signal while the store opens or closes is a stop like any other.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, services.request_stop)
                stack.callback(loop.remove_signal_handler, number)
            loop.add_signal_handler(signal.SIGHUP, self._reload.request)
            stack.callback(loop.remove_signal_handler, signal.SIGHUP)
            folder = DataFolder(self._config.gateway.data)
            folder.acquire()
            stack.callback(folder.release)
            callers = Callers(self._clock, os.urandom, StateFile(folder.path / "state.db", _MIGRATIONS / "state"))
            await self._load_tokens(callers)
            http = HttpPart(self._config, self._supervisor, self._metrics, self._conditions, self._clock, callers)
            http.open()
            stack.callback(http.close)
            bus = await self._start_store(folder, stack)
            stack.push_async_callback(self._stop_services, services)
            services.start("store", self._store_death, fatal=True)
            services.start("tick", lambda: self._tick(bus))
            services.start("lag", LoopLag(self._metrics, self._clock.mono_s).run)
            await http.start(self._router(bus, callers))
            stack.push_async_callback(self._stop_http, http)
            services.start("api", http.run, required=True)
            services.start("certificate", http.watch_certificate)
            parts = self._parts(services, folder, http, bus)
            services.start("reload", lambda: self._reload.run(parts))
            self._tell_ready(bus, services, http)
            stack.callback(loop.call_later(SETTLE_S, _settle_memory).cancel)
            try:
                await services.wait()
            finally:
                self._supervisor.stopping()
                http.stop_accepting()
                _log.info("gateway.stopping")
                await services.stop_one("reload")  # it would start what is being stopped
        self._check_writer()  # it may have died over the last commit
        _log.info("gateway.stopped")

    @property
    def _config(self) -> Config:
        """What holds now."""
        return self._reload.reading.config

    # --- parts ------------------------------------------------------------------------------------

    async def _load_tokens(self, callers: Callers) -> None:
        """Damage there must not keep readings out: the gateway starts, and knows nobody's token."""
        self._conditions.declare("tokens", required=False, text="tokens are known")
        try:
            await callers.load()
        except StoreError as exc:
            self._conditions.raise_("tokens", exc.what, exc.hint)

    async def _start_store(self, folder: DataFolder, stack: AsyncExitStack) -> Bus:
        self._conditions.declare("store", required=True, text="commits reach the disk")
        self._dead: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        streams = all_streams(self._config.streams, BUILT_IN_STREAMS)
        path = folder.path / "bus.db"
        free_bytes = folder.free_bytes()
        writer = Writer(path, streams, self._clock, boot_id=_boot_id(), migrations=_MIGRATIONS / "bus", free_bytes=free_bytes)
        watch = StoreWatch(self._metrics, self._conditions)
        bus = Bus(writer, Reader(path), streams, self._clock, watch=watch.committed, on_death=self._dead.set_result)
        await bus.start()
        stack.push_async_callback(bus.stop)
        watch.opened(bus)
        _log.info("store.opened", path=str(path), sqlite=SQLITE_VERSION, streams=len(bus.streams), consumers=len(bus.consumers))
        return bus

    def _router(self, bus: Bus, callers: Callers) -> Router:
        routes = Routes(bus, self._conditions, self._metrics, self._clock, status=self._status, is_healthy=self._is_healthy)
        config_routes = ConfigRoutes(self._reload.view, self._reload_for_api)
        table = [*routes.table(), *config_routes.table(), *TokenRoutes(callers).table()]
        return Router(table, self._config.http.request_timeout_s)

    async def _reload_for_api(self) -> dict[str, object]:
        return (await self._reload.reload())._asdict()

    def _parts(self, services: Services, folder: DataFolder, http: HttpPart, bus: Bus) -> Sequence[Part]:
        """Start what the sections bring about; returns who takes part in a reload, in the order of `prepare` and `apply`."""
        self._links = Links(bus, self._clock, self._conditions, self._metrics)
        source = HostSource(bus, self._metrics, self._clock.mono_s, folder=folder.path)
        running = [
            ServicesPart(services, self._links.wanted, self._links.make),
            ServicesPart(
                services,
                lambda config: {"host": config.host.interval_s} if config.host.interval_s else {},
                lambda interval_s: lambda: source.run(interval_s),
            ),
        ]
        for part in running:
            part.start(self._config)
        return (
            ProcessPart(self._config),
            LogPart(self._config, self._set_up_log),
            http,
            *running,
            StreamsPart(self._config, bus, folder.free_bytes),  # the last that may refuse: its change cannot be withdrawn
        )

    def _tell_ready(self, bus: Bus, services: Services, http: HttpPart) -> None:
        watch_process(self._metrics)
        self._metrics.gauges_from(
            "edgegw_condition_raised", "1 while the condition is raised.", ("condition",), self._conditions.raised
        )
        self._metrics.counters_from(
            "edgegw_condition_transitions_total", "Changes of a condition.", ("condition",), self._conditions.transitions
        )
        if self._supervisor.watchdog_s is not None:
            watchdog = Watchdog(self._supervisor, self._supervisor.watchdog_s, lambda: self._writer_turn(bus))
            services.start("watchdog", watchdog.run)
        http.keep()
        self._supervisor.ready()
        data = str(self._config.gateway.data)
        _log.info("gateway.ready", url=http.url, pid=os.getpid(), version=edgegw.__version__, data=data)
        print(http.url, flush=True)  # noqa: T201  what the one command of the README shows

    def _tell_reload(self, since_us: int | None) -> None:
        """The supervisor waits for the end of a reload that it asked for, and may show one that it did not."""
        if since_us is None:
            self._supervisor.ready()
        else:
            self._supervisor.reloading(since_us)

    async def _stop_http(self, http: HttpPart) -> None:
        await http.stop(self._config.gateway.stop_timeout_s)

    async def _stop_services(self, services: Services) -> None:
        left = await services.stop()
        if left:
            # It ignores its cancellation and would hold the process for ever. What was acknowledged is on disk.
            _log.error("gateway.killed", services=left)
            os._exit(1)

    # --- services ---------------------------------------------------------------------------------

    async def _store_death(self) -> None:
        """Fatal: without its writer thread the gateway could only refuse."""
        await asyncio.shield(self._dead)
        self._check_writer()

    def _check_writer(self) -> None:
        if self._dead.done():
            error = self._dead.result()
            raise StoreError("store_failed", f"the writer of the store failed: {error!r}", "its log has the trace") from error

    async def _writer_turn(self, bus: Bus) -> None:
        """The writer made a turn. One that failed counts: a new process would not find the disk better. Raises StoreError."""
        try:
            await bus.probe()
        except StoreError:
            self._check_writer()

    async def _tick(self, bus: Bus) -> None:
        while True:
            try:
                await bus.tick()
            except StoreError:
                self._check_writer()  # a commit that failed is the condition `store`; the next tick tries again
            self._ticked_s = self._clock.mono_s()
            await asyncio.sleep(TICK_S)

    # --- state ------------------------------------------------------------------------------------

    def _is_healthy(self) -> bool:
        """Whether the loop and the writer both made progress lately; no disk is touched to know."""
        return not self._dead.done() and self._clock.mono_s() - self._ticked_s < HEALTH_STALL_S

    def _status(self) -> dict[str, object]:
        return {
            "version": edgegw.__version__,
            "sha256": None,  # known when started from the one-file program, which verifies itself
            "pid": os.getpid(),
            "uptime_s": round(self._clock.mono_s() - self._started_s, 3),
            "links": self._links.status(),
        }

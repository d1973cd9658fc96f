"""The composition root: builds every part from the configuration, starts them in order, and stops them in the reverse order.

Start: supervisor's sockets, data folder (one owner), listening socket, store, services, API, READY.
Stop:  STOPPING, no new connections, requests under way finish, services, store (commits what was accepted), data folder.
Whatever fails on the way up undoes what came before it.
"""

import asyncio
import errno
import gc
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import edgegw
from edgegw.api.routes import Routes
from edgegw.api.routing import Router
from edgegw.api.server import ApiServer
from edgegw.bus import Bus, all_streams
from edgegw.clock import Clock, SystemClock
from edgegw.conditions import Conditions
from edgegw.config import BUILT_IN_STREAMS, Config
from edgegw.config_values import split_address
from edgegw.errors import ConfigError, GatewayError, StoreError
from edgegw.limits import HEALTH_STALL_S, LISTEN_BACKLOG, SETTLE_S, SWITCH_INTERVAL_S, TICK_S
from edgegw.notify import Supervisor, Watchdog
from edgegw.observe.log import Log
from edgegw.observe.metrics import Metrics
from edgegw.observe.process_metrics import watch_process
from edgegw.services import Services
from edgegw.store.disk import DataFolder
from edgegw.store.faults import SQLITE_VERSION
from edgegw.store.reader import Reader
from edgegw.store.writer import Writer
from edgegw.watch import StoreWatch

_log = Log(__name__)
_SOCKET = "http"
_MIGRATIONS = Path(edgegw.__file__).parent / "migrations" / "bus"


def run(config: Config) -> int:
    """Run a gateway until it is told to stop; the exit code. Raises GatewayError when it cannot start or cannot go on."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(Gateway(config, SystemClock(), Supervisor.from_environ(os.environ, os.getpid())).run())
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this architecture: everything works, a third slower
        return None
    return uvloop.new_event_loop


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _settle_memory() -> None:
    """What is loaded stays: the collector need not look at it again. It takes 20 ms once, after the start, not in it."""
    gc.collect()
    gc.freeze()
    gc.enable()


class Gateway:
    """One gateway in one process."""

    def __init__(self, config: Config, clock: Clock, supervisor: Supervisor) -> None:
        self._config = config
        self._clock = clock
        self._supervisor = supervisor
        self._metrics = Metrics()
        self._conditions = Conditions(clock, Log("edgegw.conditions"))
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
            folder = DataFolder(self._config.gateway.data)
            folder.acquire()
            stack.callback(folder.release)
            sock = self._listening_socket()
            stack.callback(sock.close)
            bus = await self._start_store(folder, stack)
            stack.push_async_callback(self._stop_services, services)
            services.start("store", self._store_death, fatal=True)
            services.start("tick", lambda: self._tick(bus))
            api = self._api(bus, sock)
            await api.start()
            stack.push_async_callback(api.stop, self._config.gateway.stop_timeout_s)
            services.start("api", api.run, required=True)
            self._tell_ready(bus, services, sock)
            stack.callback(loop.call_later(SETTLE_S, _settle_memory).cancel)
            try:
                await services.wait()
            finally:
                self._supervisor.stopping()
                api.stop_accepting()
                _log.info("gateway.stopping")
        self._check_writer()  # it may have died over the last commit
        _log.info("gateway.stopped")

    # --- parts ------------------------------------------------------------------------------------

    def _listening_socket(self) -> socket.socket:
        """The socket a supervisor kept for us, or a new one. Raises GatewayError(cannot_listen)."""
        handed = self._supervisor.take_sockets()
        for name, extra in handed.items():
            for sock in extra[1:] if name == _SOCKET else extra:
                _log.warning("socket.unwanted", name=name, address=str(sock.getsockname()))
                sock.close()
        if handed.get(_SOCKET):
            _check_handed(handed[_SOCKET][0])
            return handed[_SOCKET][0]
        host, port = split_address(self._config.http.listen)
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(LISTEN_BACKLOG)  # two may bind an address; the first who listens has it
        except OSError as exc:
            sock.close()
            hint = "choose another address with http.listen or --listen"
            if exc.errno == errno.EADDRINUSE:
                hint = f"stop what listens there, or {hint}"
            raise GatewayError("cannot_listen", f"cannot listen on {self._config.http.listen}: {exc.strerror}", hint) from exc
        return sock

    async def _start_store(self, folder: DataFolder, stack: AsyncExitStack) -> Bus:
        self._conditions.declare("store", required=True, text="commits reach the disk")
        self._dead: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        streams = all_streams(self._config.streams, BUILT_IN_STREAMS)
        path = folder.path / "bus.db"
        writer = Writer(path, streams, self._clock, boot_id=_boot_id(), migrations=_MIGRATIONS, free_bytes=folder.free_bytes())
        watch = StoreWatch(self._metrics, self._conditions)
        bus = Bus(writer, Reader(path), streams, self._clock, watch=watch.committed, on_death=self._dead.set_result)
        await bus.start()
        stack.push_async_callback(bus.stop)
        watch.opened(bus)
        _log.info("store.opened", path=str(path), sqlite=SQLITE_VERSION, streams=len(bus.streams), consumers=len(bus.consumers))
        return bus

    def _api(self, bus: Bus, sock: socket.socket) -> ApiServer:
        routes = Routes(bus, self._conditions, self._metrics, self._clock, status=self._status, is_healthy=self._is_healthy)
        router = Router(routes.table(), self._config.http.request_timeout_s)
        return ApiServer(router, self._config.http, sock, self._metrics, id_seed=f"{random.getrandbits(40):010x}-")

    def _tell_ready(self, bus: Bus, services: Services, sock: socket.socket) -> None:
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
        self._supervisor.store(_SOCKET, sock)
        self._supervisor.ready()
        host, port = sock.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("gateway.ready", url=url, pid=os.getpid(), version=edgegw.__version__, data=str(self._config.gateway.data))
        print(url, flush=True)  # noqa: T201  what the one command of the README shows

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
        }


def _check_handed(sock: socket.socket) -> None:
    """A socket that is handed over obeys the rule of http.listen. Raises ConfigError(bad_supervisor)."""
    host, port = map(str, (*sock.getsockname(), "", "")[:2])
    try:
        if sock.type != socket.SOCK_STREAM or sock.family not in {socket.AF_INET, socket.AF_INET6}:
            raise ValueError("it is no TCP socket")
        split_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except ValueError as exc:
        sock.close()
        raise ConfigError(
            "bad_supervisor", f"the socket {_SOCKET!r} that was handed over: {exc}", "let its unit listen on 127.0.0.1 or [::1]"
        ) from exc

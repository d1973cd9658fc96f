"""The supervisor that started us: systemd, or the guard, which speaks the same protocol (sd_notify(3), sd_listen_fds(3)).

We tell it by datagrams on `$NOTIFY_SOCKET` that we are ready, stopping and alive, and give it our listening sockets to keep
(FDSTORE); the next process gets them back as descriptors from 3 on, named by `$LISTEN_FDNAMES`. `$LISTEN_PID` and
`$WATCHDOG_PID` say whom it means. The variables stay in the environment: an exec keeps the process id, so they stay true.

Without a supervisor nothing is sent and there are no sockets; the gateway runs the same code.
"""

import asyncio
import os
import socket
import stat
from array import array
from collections.abc import Awaitable, Callable, Mapping

from edgegw.errors import ConfigError, GatewayError
from edgegw.limits import LISTEN_FDS_MAX, NOTIFY_SEND_S
from edgegw.observe.log import Log

# SD_LISTEN_FDS_START: the first one after stdin, stdout and stderr.
FIRST_FD = 3
# What sd_listen_fds_with_names(3) calls a socket without a name.
NAMELESS = "unknown"

_log = Log(__name__)


class Supervisor:
    """The way to the supervisor; every message is a no-op where there is none. Made by `from_environ`."""

    def __init__(self, address: str, watchdog_s: float | None, names: list[str], first_fd: int) -> None:
        self.watchdog_s = watchdog_s  # it wants WATCHDOG=1 within each such interval; None: it does not watch
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._names = names
        self._first_fd = first_fd

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int, first_fd: int = FIRST_FD) -> "Supervisor":
        """The supervisor that the environment of process `pid` names. Raises ConfigError(bad_supervisor)."""
        address = environ.get("NOTIFY_SOCKET", "")
        if address and (address[0] not in "/@" or len(address) == 1):
            raise _fault(f"NOTIFY_SOCKET is {address!r}, not a path or an @name")
        watchdog_us = _whole(environ, "WATCHDOG_USEC") if environ.get("WATCHDOG_PID", str(pid)) == str(pid) else 0
        names: list[str] = []
        if environ.get("LISTEN_PID") == str(pid):
            count = _whole(environ, "LISTEN_FDS")
            if count > LISTEN_FDS_MAX:
                raise _fault(f"LISTEN_FDS is {count}, more than {LISTEN_FDS_MAX}")
            names = environ["LISTEN_FDNAMES"].split(":") if environ.get("LISTEN_FDNAMES") else [NAMELESS] * count
            if len(names) != count:
                raise _fault(f"LISTEN_FDNAMES has {len(names)} names for LISTEN_FDS={count}")
        return cls(address, watchdog_us / 1e6 if address and watchdog_us else None, names, first_fd)

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def take_sockets(self) -> dict[str, list[socket.socket]]:
        """The sockets handed over, by name, closed on exec. They are the caller's; to be called once.

        Raises ConfigError(bad_supervisor) when one is not there or is no socket.
        """
        descriptors = range(self._first_fd, self._first_fd + len(self._names))
        # All are looked at before the first is owned, so that a fault leaves nothing half taken.
        for descriptor in descriptors:
            try:
                is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
                os.set_inheritable(descriptor, False)
            except OSError as error:
                raise _fault(f"descriptor {descriptor} of LISTEN_FDS is not open") from error
            if not is_socket:
                raise _fault(f"descriptor {descriptor} of LISTEN_FDS is not a socket")
        taken: dict[str, list[socket.socket]] = {}
        for name, descriptor in zip(self._names, descriptors, strict=True):
            taken.setdefault(name, []).append(socket.socket(fileno=descriptor))
        return taken

    def ready(self) -> bool:
        """Everything is up. Each message returns whether it was sent."""
        return self._send("READY=1")

    def reloading(self, mono_us: int) -> bool:
        """The configuration is being read again, since this time of CLOCK_MONOTONIC; `ready` ends it (Type=notify-reload)."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={mono_us}")

    def stopping(self) -> bool:
        """The stop has begun."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """A line for people who ask the supervisor."""
        return self._send("STATUS=" + text.replace("\n", " "))

    def alive(self) -> bool:
        """WATCHDOG=1: the process makes progress."""
        return self._send("WATCHDOG=1")

    def store(self, name: str, kept: socket.socket) -> bool:
        """Keep this socket over our end and hand it to the next process under this name."""
        assert name.isascii() and name.isprintable() and ":" not in name and 0 < len(name) < 256, name
        return self._send(f"FDSTORE=1\nFDNAME={name}", kept.fileno())

    def forget(self, name: str) -> bool:
        """Let go of the sockets kept under this name."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, state: str, *descriptors: int) -> bool:
        if not self._address:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            # A new socket each time: a supervisor that starts anew binds the same name again.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.settimeout(NOTIFY_SEND_S)
                way.connect(self._address)
                way.sendmsg([state.encode("utf-8", "backslashreplace")], rights)
        except OSError as error:
            _log.warning("supervisor.unreachable", error=error, state=state)
            return False
        return True


class Watchdog:
    """Tells the supervisor that we live, and only when both sides of the gateway do.

    That this coroutine runs shows the event loop's progress; `probe` returns when the writer thread has made some. As long as
    it does not, nothing is sent, and the supervisor ends us.
    """

    def __init__(self, supervisor: Supervisor, interval_s: float, probe: Callable[[], Awaitable[None]]) -> None:
        self._supervisor = supervisor
        self._interval_s = interval_s
        self._probe = probe

    async def run(self) -> None:
        """Until cancelled: probe and tell, twice in each interval, so that one late answer is not the end."""
        loop = asyncio.get_running_loop()
        while True:
            next_s = loop.time() + self._interval_s / 2
            if await self._has_progress():
                self._supervisor.alive()
            await asyncio.sleep(next_s - loop.time())

    async def _has_progress(self) -> bool:
        try:
            async with asyncio.timeout(self._interval_s):
                await self._probe()
        except TimeoutError:
            _log.error("watchdog.no_progress", waited_s=self._interval_s)
            return False
        except GatewayError as error:
            _log.error("watchdog.probe_failed", error=error)
            return False
        return True


def _whole(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _fault(f"{name} is {text!r}, not a whole number")
    return int(text)


def _fault(what: str) -> ConfigError:
    return ConfigError("bad_supervisor", f"the supervisor's environment: {what}", "start the gateway from its unit, or unset it")

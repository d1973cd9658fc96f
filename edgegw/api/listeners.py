"""The doors of the API: made, or taken over from a supervisor; the rules for those beyond loopback; how they change in a reload.

A reload is in two steps, as `reload.Part` has it: `prepare` makes what is new and may refuse, `apply` puts it to work and may
not. TLS files are read at each, so that a certificate that was renewed in place is taken over; who is connected stays.
"""

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from edgegw.api.doors import Door
from edgegw.api.unix_socket import RUN_FOLDER, SOCKET_NAME, UnixSocket, group_id
from edgegw.conditions import Conditions
from edgegw.config import HttpConfig
from edgegw.config_values import split_address
from edgegw.errors import ConfigError, GatewayError
from edgegw.limits import LISTEN_BACKLOG
from edgegw.observe.log import Log

if TYPE_CHECKING:
    from edgegw.api.tls import TlsFiles

_log = Log(__name__)
# Names under which a supervisor hands the sockets over and keeps them.
HTTP: Final = "http"
UNIX: Final = "http-unix"


class _Next(NamedTuple):
    """What `prepare` made; None is what stays as it is."""

    config: HttpConfig
    tls: "TlsFiles | None"
    tcp: socket.socket | None
    unix: UnixSocket | None


class Listeners:
    """The TCP door, and the Unix door where there can be one. `open` first, `close` last."""

    def __init__(self, config: HttpConfig, data: Path, *, run_folder: Path = RUN_FOLDER) -> None:
        self._config = config
        self._data = data
        self._run_folder = run_folder
        self._tls: TlsFiles | None = None
        self._tcp: Door | None = None
        self._unix: Door | None = None
        self._unix_socket: UnixSocket | None = None  # None too when it was handed over
        self._next: _Next | None = None
        self._told: set[str] = set()  # conditions
        self.is_kept = False  # a supervisor has the sockets: the file of the Unix socket stays

    @property
    def doors(self) -> list[Door]:
        """All of them."""
        return [door for door in (self._tcp, self._unix) if door is not None]

    @property
    def socks(self) -> dict[str, socket.socket]:
        """All sockets, by the names that a supervisor keeps them under; TCP last."""
        return {UNIX if door.is_unix else HTTP: door.sock for door in reversed(self.doors)}

    @property
    def url(self) -> str:
        """Where a program on this machine reaches the API."""
        assert self._tcp is not None
        host, port = self._tcp.sock.getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not listened on
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    # --- life -------------------------------------------------------------------------------------

    def open(self, handed: Mapping[str, Sequence[socket.socket]], *, tokens: int) -> None:
        """Take over what was handed over, make the rest. Raises ConfigError, GatewayError(cannot_listen, socket_in_use)."""
        tcp, unix = _sort(handed)
        try:
            self._tls = _tls_of(self._config)
            self._tcp = Door(tcp or _tcp_socket(self._config.listen), tls=self._tls)
            tcp = None
            _check_exposed(self._tcp, self._config, tokens, self._data)
            if unix is not None and not os.path.exists(unix.getsockname()):
                unix.close()  # its file is gone, as from a folder of systemd's that ends with the service: nobody finds it
                unix = None
            if unix is None:
                self._unix_socket = self._make_unix(self._config)
                if self._unix_socket is not None:
                    self._unix_socket.point()
            sock = unix or (self._unix_socket.sock if self._unix_socket is not None else None)
            if sock is not None:
                self._unix = Door(sock, group_id=group_id())
            unix = None
        except BaseException:
            for left in (tcp, unix):
                if left is not None:
                    left.close()
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets; the file of the Unix socket goes too."""
        self.withdraw()
        if self._unix_socket is not None:
            self._unix_socket.close(is_kept=self.is_kept)
        for door in self.doors:
            door.sock.close()
        self._tcp = self._unix = self._unix_socket = None

    # --- reload -----------------------------------------------------------------------------------

    def prepare(self, config: HttpConfig, *, tokens: int) -> None:
        """Make what another configuration needs. Raises ConfigError, GatewayError(cannot_listen, socket_in_use)."""
        assert self._tcp is not None
        tls = _tls_of(config)
        tcp = _tcp_socket(config.listen, self._tcp.sock) if config.listen != self._config.listen else None
        try:
            _check_exposed(Door(tcp or self._tcp.sock, tls=tls), config, tokens, self._data)
            unix = self._make_unix(config) if config.socket != self._config.socket else None
        except BaseException:
            if tcp is not None:
                tcp.close()
            raise
        self._next = _Next(config, tls, tcp, unix)

    def withdraw(self) -> None:
        """Let go of what `prepare` made."""
        made, self._next = self._next, None
        if made is not None:
            if made.tcp is not None:
                made.tcp.close()
            if made.unix is not None:
                made.unix.close()
                if self._unix_socket is not None:
                    self._unix_socket.point()

    def apply(self) -> list[tuple[Door, Door]]:
        """Put to work what `prepare` made; returns the doors that were replaced, old and new: whose sockets are the caller's."""
        made, self._next = self._next, None
        assert made is not None and self._tcp is not None
        self._config = made.config
        replaced: list[tuple[Door, Door]] = []
        if self._tls is not None and made.tls is not None:
            self._tls.take_over(made.tls)
        elif self._tls is not made.tls or made.tcp is not None:
            self._tls = made.tls
        if made.tcp is not None or self._tcp.tls is not self._tls:
            old, self._tcp = self._tcp, Door(made.tcp or self._tcp.sock.dup(), tls=self._tls)
            replaced.append((old, self._tcp))
        if made.unix is not None and self._unix is not None:
            if self._unix_socket is not None:
                self._unix_socket.remove()
            self._unix_socket = made.unix
            made.unix.point()
            old, self._unix = self._unix, Door(made.unix.sock, group_id=group_id())
            replaced.append((old, self._unix))
        return replaced

    def tell_conditions(self, conditions: Conditions, now_ms: int) -> None:
        """Raise or clear what an operator should know about the doors."""
        told, self._told = self._told, set()
        if self._tcp is not None and self._tcp.is_exposed and self._tls is None:
            self._told.add("plaintext")
            conditions.declare("plaintext", required=False, text="what goes beyond loopback is encrypted")
            what = f"{_shown_address(self._tcp.sock)} takes tokens and data in plain text"
            conditions.raise_("plaintext", what, "set http.tls_certificate and http.tls_key")
        if self._tls is not None:
            self._told.add("certificate")
            conditions.declare("certificate", required=False, text="the TLS certificate holds, for a month at least")
            fault = self._tls.fault(now_ms / 1000)
            if fault is None:
                conditions.clear("certificate")
            else:
                conditions.raise_("certificate", *fault)
        for name in told - self._told:
            conditions.withdraw(name)

    def _make_unix(self, config: HttpConfig) -> UnixSocket | None:
        """The Unix socket. One that nobody asked for is not worth failing a start for."""
        if config.socket is not None:
            return UnixSocket(config.socket, self._data)
        for folder in (self._run_folder, self._data):
            if folder is self._run_folder and not os.access(folder, os.W_OK | os.X_OK):
                continue
            try:
                return UnixSocket(folder / SOCKET_NAME, self._data)
            except GatewayError as exc:
                _log.warning("socket.unavailable", error=exc, path=str(folder / SOCKET_NAME))
        return None


def _tls_of(config: HttpConfig) -> "TlsFiles | None":
    if config.tls_certificate is None or config.tls_key is None:
        return None
    from edgegw.api.tls import TlsFiles  # only who speaks TLS pays for it

    return TlsFiles(config.tls_certificate, config.tls_key, config.tls_client_ca)


def _check_exposed(door: Door, config: HttpConfig, tokens: int, data: Path) -> None:
    """The rules for a socket that others reach. Raises ConfigError(plaintext_not_allowed, token_needed)."""
    if not door.is_exposed:
        return
    where = _shown_address(door.sock)
    if door.tls is None and not config.allow_plaintext:
        raise ConfigError(
            "plaintext_not_allowed",
            f"{where} is not on loopback, and there is no TLS",
            "set http.tls_certificate and http.tls_key, or http.allow_plaintext = true",
        )
    if not tokens and config.tls_client_ca is None:
        raise ConfigError(
            "token_needed",
            f"{where} is not on loopback, and there is no token yet",
            f"edgegw token create NAME --scope publish,subscribe --data {data}; or set http.tls_client_ca",
        )


def _sort(handed: Mapping[str, Sequence[socket.socket]]) -> tuple[socket.socket | None, socket.socket | None]:
    """The TCP and the Unix socket that were handed over; others are closed. Raises ConfigError(bad_supervisor)."""
    found: dict[bool, socket.socket] = {}
    every = [(name, sock) for name, socks in handed.items() for sock in socks]
    for name, sock in every:
        is_unix = sock.family == socket.AF_UNIX
        if name not in (HTTP, UNIX) or is_unix in found:
            _log.warning("socket.unwanted", name=name, address=str(sock.getsockname()))
            sock.close()
        elif sock.type == socket.SOCK_STREAM and sock.family in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
            found[is_unix] = sock
        else:
            for _, other in every:
                other.close()
            raise ConfigError(
                "bad_supervisor",
                f"the socket {name!r} that was handed over: it is no TCP socket and no Unix stream",
                "let its unit listen with ListenStream=",
            )
    return found.get(False), found.get(True)


def _tcp_socket(address: str, before: socket.socket | None = None) -> socket.socket:
    """A socket that listens; it may have the port of the one that it is to replace. Raises GatewayError(cannot_listen)."""
    host, port = split_address(address)
    siblings = [] if before is None or before.getsockname()[1] != port else [before]
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":  # all addresses are meant, whatever the sysctl of this machine says
            with suppress(OSError):  # a kernel with IPv6 only
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        with _sharing_a_port(sock, *siblings):
            sock.bind((host, port))
            sock.listen(LISTEN_BACKLOG)  # two may bind an address; the first who listens has it
    except OSError as exc:
        sock.close()
        hint = "choose another address with http.listen or --listen"
        if exc.errno == errno.EADDRINUSE:
            hint = f"stop what listens there, or {hint}"
        raise GatewayError("cannot_listen", f"cannot listen on {address}: {exc.strerror}", hint) from exc
    return sock


@contextmanager
def _sharing_a_port(sock: socket.socket, *siblings: socket.socket) -> Iterator[None]:
    """From 127.0.0.1 to 0.0.0.0 and back the port stays, and the old one must listen until the new one does.

    The kernel lets them while each of them says so, and nobody else in: before and after, they say no such thing.
    """
    sharing = [sock, *siblings] if siblings else []
    try:
        for each in sharing:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for each in sharing:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _shown_address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

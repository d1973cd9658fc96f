"""What `edgegw check` asks the gateway's own things: store, certificates, addresses, links, and a gateway that runs."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Final
from urllib.parse import urlsplit

from edgegw.cli.client import GatewayClient, Target
from edgegw.cli.findings import Finding, fail, ok, size_text, warn
from edgegw.config import HttpConfig, LinkConfig, Reading
from edgegw.config_values import split_address
from edgegw.errors import ConfigError, GatewayError, StoreError
from edgegw.limits import CHECK_CONNECT_S, CHECK_LOCKS_BYTES_MAX, WAL_BYTES_MAX
from edgegw.store.glance import Glance, glance

# `migrations/bus` of this release can be read by it; a store that asks for more was written by a later one.
READER: Final = 1
_SOCKET_NAME: Final = "edgegw.sock"
# The owner of a data folder that this user may not look into.
UNKNOWN: Final = 0


def check_config(reading: Reading) -> Finding:
    """That it is valid was seen already; which files it came from."""
    return ok("config", ", ".join(reading.files) or "no file: every setting has its default, or comes from the environment")


# --- store ----------------------------------------------------------------------------------------


def owner_of(data: Path, proc: Path) -> int | None:
    """The process that holds the data folder; None when nobody does, UNKNOWN when this user may not know.

    The kernel's table of locks tells: to try the lock itself could make a start fail that happens just now.
    """
    try:
        inode = (data / "lock").stat().st_ino
        with (proc / "locks").open("rb") as file:
            table = file.read(CHECK_LOCKS_BYTES_MAX).decode("ascii", "replace")
    except PermissionError:
        return UNKNOWN
    except OSError:
        return None
    for words in (line.split() for line in table.splitlines()):
        if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == str(inode):
            # 0 or less: a process of another namespace.
            return max(int(words[4]), UNKNOWN) if words[4].lstrip("-").isdecimal() else UNKNOWN
    return None


def look_at_store(data: Path) -> Glance | StoreError | PermissionError | None:
    """What is in it; None where there is no store yet."""
    try:
        return glance(data / "bus.db")
    except FileNotFoundError:
        return None
    except (StoreError, PermissionError) as error:
        return error


def check_store(data: Path, found: Glance | StoreError | PermissionError | None, pid: int | None) -> Finding:
    """Who holds it, and whether it can be read."""
    held = (
        "free" if pid is None else "held by a process that this user may not see" if pid == UNKNOWN else f"held by process {pid}"
    )
    if isinstance(found, PermissionError):
        return warn("store", f"{data}: this user may not look into it", "ask as root or as the gateway's user")
    if found is None:
        return ok("store", f"{data}: none yet; it is made at the first start")
    if isinstance(found, StoreError):
        return fail("store", f"{held}; {found.what}", found.hint)
    what = f"{held}; {size_text(found.size_bytes)}, {found.streams} streams, WAL {size_text(found.wal_bytes)}"
    if found.min_reader > READER:
        return fail("store", f"{what}; written by a later release", "run that release, or give this one another folder")
    if found.wal_bytes > 4 * WAL_BYTES_MAX:
        return warn("store", what, "the WAL should not grow so: does something else read the database?")
    return ok("store", what)


# --- addresses and certificates -------------------------------------------------------------------


def check_listen(config: HttpConfig, pid: int | None) -> Finding:
    """Whether the address is free, or taken by the gateway itself."""
    host, port = split_address(config.listen)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            if pid is None:
                sock.listen(1)  # only who listens sees another who does
        except PermissionError:
            return warn("listen", f"{config.listen} is not for this user", "ports under 1024 need CAP_NET_BIND_SERVICE")
        except OSError as error:
            if pid is None:
                return fail("listen", f"{config.listen}: {error.strerror}", "stop what listens there, or set http.listen")
            return ok("listen", f"{config.listen} is in use, and a gateway runs")
    return ok("listen", f"{config.listen} is free")


def check_certificates(config: HttpConfig) -> Finding:
    """Whether they exist, belong together and hold today."""
    if config.tls_certificate is None or config.tls_key is None:
        return ok("certificates", "TLS is not configured")
    from edgegw.api.tls import TlsFiles

    try:
        files = TlsFiles(config.tls_certificate, config.tls_key, config.tls_client_ca)
    except ConfigError as error:
        return fail("certificates", error.what, error.hint)
    fault = files.fault(time())
    if fault is not None:
        what, hint = fault
        return (warn if "expires" in what else fail)("certificates", what, hint)
    return ok("certificates", f"{config.tls_certificate} and its key belong together and hold")


# --- links ----------------------------------------------------------------------------------------


def check_links(links: tuple[LinkConfig, ...]) -> Iterator[Finding]:
    """Whether each upstream takes a connection. One that does not is no fault: messages wait for it."""
    for link in links:
        yield _check_link(link)


def _check_link(link: LinkConfig) -> Finding:
    name = f"link {link.name}"
    parts = urlsplit(link.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    place = f"{parts.hostname}:{port}"
    if link.token_file is not None and not os.access(link.token_file, os.R_OK):
        return fail(name, f"the token file {link.token_file} cannot be read by this user", "see token_file of the link")
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CHECK_CONNECT_S) as sock:
            if parts.scheme == "https":
                return _shake_hands(name, place, link, sock)
    except OSError as error:
        words = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return warn(name, f"{place}: {words}", "messages are kept until it is back; is the network there?")
    return ok(name, f"{place} takes connections")


def _shake_hands(name: str, place: str, link: LinkConfig, sock: socket.socket) -> Finding:
    import ssl

    host = urlsplit(link.url).hostname
    try:
        context = ssl.create_default_context(cafile=None if link.ca_file is None else str(link.ca_file))
        if link.certificate is not None:
            context.load_cert_chain(link.certificate, link.key)
    except OSError as error:  # ssl.SSLError is one
        return fail(name, f"a certificate of the link cannot be used: {error}", "see ca_file, certificate and key of the link")
    try:
        with context.wrap_socket(sock, server_hostname=host) as wrapped:
            return ok(name, f"{place} takes connections, {wrapped.version()}")
    except ssl.SSLCertVerificationError as error:
        return fail(name, f"{place}: {error.verify_message}", "set ca_file of the link to the CA of the upstream")
    except OSError as error:
        return fail(name, f"{place}: no TLS: {error}", "is the URL right?")


# --- a gateway that runs --------------------------------------------------------------------------


def gateway_target(reading: Reading) -> Target | None:
    """Where the gateway of this configuration is: its Unix socket, else its address, unless that speaks TLS."""
    config = reading.config
    path = config.http.socket or config.gateway.data / _SOCKET_NAME
    with suppress(PermissionError):
        if path.is_socket() and os.access(path, os.W_OK):
            return Target("localhost", 80, socket_path=str(path))
    if config.http.tls_certificate is not None:  # for which names it was made is not known here
        return None
    host, port = split_address(config.http.listen)
    return Target({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104  compared, not listened on


def check_gateway(target: Target | None, pid: int | None, *, is_asked: bool) -> Iterator[Finding]:
    """What it says of itself, each raised condition in a line. `is_asked`: the user named it, so it should be there."""
    if pid is None and not is_asked:
        yield ok("gateway", "it does not run")
        return
    if target is None:
        yield warn("gateway", "it speaks TLS, and its Unix socket is not for this user", "name it with --url and --ca")
        return
    try:
        with GatewayClient(target, timeout_s=CHECK_CONNECT_S) as client:
            answer = client.request("GET", "/readyz")
            found = answer.json()
    except GatewayError as error:
        if (
            error.code == "gateway_unreachable" and not is_asked and not target.socket_path
        ):  # it may listen elsewhere, by an option
            yield warn("gateway", error.what, "ask as root or as the gateway's user, or name it with --url")
            return
        yield fail("gateway", error.what, "does it hang? see its log, and stop it with SIGTERM")
        return
    conditions = found.get("conditions") if isinstance(found, dict) else None
    if not isinstance(conditions, list) or answer.status not in (200, 503):
        yield fail("gateway", f"{target} answered {answer.status} to /readyz", "is this the address of a gateway?")
        return
    if answer.status == 200:
        yield ok("gateway", f"{target} is ready")
    else:
        yield fail("gateway", f"{target} is not ready", "see the conditions below")
    for each in conditions:
        if isinstance(each, dict) and each.get("status") == "raised":
            found_as = fail if each.get("required") else warn
            yield found_as(f"condition {each.get('name')}", str(each.get("what")), str(each.get("hint") or "see the log"))

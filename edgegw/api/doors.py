"""Where connections come in, and who comes: the kernel or TLS says so before the first byte of a request.

    TCP from this machine   may publish and read; a page in its browser is held off by Host and Origin, so it is guarded
    TCP from elsewhere      nobody, until a token or a client certificate says who
    Unix socket             root, our own user and members of the group `edgegw` may do all; anybody else nothing

Whether TCP comes from this machine is judged by both its addresses: with 0.0.0.0 one socket takes both kinds.
"""

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from edgegw.config_values import is_loopback
from edgegw.core.access import LOCAL, NOBODY, OWNER, STRANGER, Caller, certificate_caller
from edgegw.limits import PEER_GROUPS_MAX

if TYPE_CHECKING:
    from edgegw.api.tls import TlsFiles

# <asm-generic/socket.h>; Python does not name it.
_SO_PEERGROUPS = 59
_GID_BYTES = 4


class Door:
    """One listening socket. `group_id` is the group whose members own the gateway, for a Unix socket."""

    def __init__(self, sock: socket.socket, *, tls: "TlsFiles | None" = None, group_id: int | None = None) -> None:
        self.sock = sock
        self.tls = tls
        self.is_unix = sock.family == socket.AF_UNIX
        self.is_exposed = not self.is_unix and not is_loopback(sock.getsockname()[0])
        self._group_id = group_id

    def greet(self, transport: asyncio.Transport) -> tuple[Caller, bool]:
        """Who came, and whether Host and Origin guard it."""
        if self.is_unix:
            return (OWNER if self._is_owner(transport) else STRANGER), False
        is_local = not self.is_exposed or _is_local(transport)
        if self.tls is not None:
            name = _certificate_name(transport)
            if name is not None:
                return certificate_caller(name), is_local
        return (LOCAL if is_local else NOBODY), is_local

    def _is_owner(self, transport: asyncio.Transport) -> bool:
        peer = transport.get_extra_info("socket")
        try:
            _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
            if uid in (0, os.geteuid()):
                return True
            return self._group_id is not None and (gid == self._group_id or self._group_id in _groups(peer))
        except OSError:  # it is gone already, or the kernel does not say
            return False


def _groups(peer: Any) -> tuple[int, ...]:
    """Supplementary groups that the peer had when it connected. Raises OSError when it has more than PEER_GROUPS_MAX."""
    raw = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, PEER_GROUPS_MAX * _GID_BYTES)
    return struct.unpack(f"{len(raw) // _GID_BYTES}I", raw)


def _is_local(transport: asyncio.Transport) -> bool:
    ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return all(end and is_loopback(end[0]) for end in ends)


def _certificate_name(transport: asyncio.Transport) -> str | None:
    """The common name of the certificate that the client showed; None when it showed none. The CA was checked already."""
    certificate = transport.get_extra_info("ssl_object").getpeercert()
    if not certificate:
        return None
    names = (value for part in certificate.get("subject", ()) for key, value in part if key == "commonName")
    return next(names, "without a name")

"""Who comes through which door: by both ends of a TCP connection, and by the kernel's word at the Unix socket."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgegw.api.doors import Door
from edgegw.core.access import LOCAL, NOBODY, Caller
from tests.api.in_process import Api, running

# A client in a process of its own, with this user and these groups. Arguments: path, uid, gid, groups.
CLIENT = """
import json, os, socket, sys
path, uid, gid, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups])
os.setgid(int(gid))
os.setuid(int(uid))
with socket.socket(socket.AF_UNIX) as client:
    client.connect(path)
    found = []
    for line in ("GET /v1/tokens", "POST /v1/topics/a", "GET /healthz"):
        client.sendall(f"{line} HTTP/1.1\\r\\nHost: any\\r\\nContent-Length: 0\\r\\n\\r\\n".encode())
        found.append(int(client.recv(65536).split()[1]))
print(json.dumps(found))
"""
STRANGERS_UID, OUR_GID, OTHER_GID = 34_567, 45_678, 45_679


class Ends:
    """A transport with these addresses."""

    def __init__(self, peer: object, own: object) -> None:
        self._names = {"peername": peer, "sockname": own}

    def get_extra_info(self, name: str) -> object:
        return self._names[name]


def greeted(bound: str, peer: object, own: object) -> tuple[Caller, bool]:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((bound, 0))
        transport: Any = Ends(peer, own)
        return Door(sock).greet(transport)


@pytest.mark.parametrize(
    ("bound", "peer", "own", "caller"),
    [
        ("127.0.0.1", ("127.0.0.1", 1), ("127.0.0.1", 2), LOCAL),
        ("0.0.0.0", ("127.0.0.1", 1), ("127.0.0.1", 2), LOCAL),
        ("0.0.0.0", ("192.0.2.7", 1), ("192.0.2.1", 2), NOBODY),
        ("0.0.0.0", ("127.0.0.1", 1), ("192.0.2.1", 2), NOBODY),
        ("0.0.0.0", ("192.0.2.7", 1), ("127.0.0.1", 2), NOBODY),
        ("0.0.0.0", None, None, NOBODY),
        ("::", ("::1", 1, 0, 0), ("::1", 2, 0, 0), LOCAL),
        ("::", ("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.1", 2, 0, 0), LOCAL),
        ("::", ("::ffff:192.0.2.7", 1, 0, 0), ("::ffff:192.0.2.1", 2, 0, 0), NOBODY),
    ],
)
def test_tcp(bound: str, peer: object, own: object, caller: Caller) -> None:
    try:
        assert greeted(bound, peer, own) == (caller, caller is LOCAL)
    except OSError:
        pytest.skip("this machine has no IPv6")


async def ask_as(path: Path, uid: int, gid: int, groups: Sequence[int] = ()) -> list[int]:
    """Statuses of: tokens, publish, healthz; as this user."""
    command = [sys.executable, "-I", "-c", CLIENT, str(path), str(uid), str(gid), *map(str, groups)]
    ran = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    found: list[int] = json.loads(ran.stdout)
    return found


def unix_door(path: Path) -> Door:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    for place in (path, *path.parents):
        if place.owner() == "root" and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o777 if place == path else place.stat().st_mode | 0o111)
    return Door(sock, group_id=OUR_GID)


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "statuses"),
    [
        (0, 0, (), [200, 201, 200]),
        (STRANGERS_UID, OUR_GID, (), [200, 201, 200]),
        (STRANGERS_UID, OTHER_GID, (1, OUR_GID, 2), [200, 201, 200]),
        (STRANGERS_UID, OTHER_GID, (), [403, 403, 200]),
        (STRANGERS_UID, OTHER_GID, tuple(range(50_000, 50_200)), [403, 403, 200]),
    ],
)
async def test_peers_of_the_unix_socket(tmp_path: Path, uid: int, gid: int, groups: Sequence[int], statuses: list[int]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can come as somebody else")
    path = tmp_path / "x.sock"
    door = unix_door(path)
    try:
        async with running(make_door=lambda sock: door) as api:
            assert await ask_as(path, uid, gid, groups) == statuses
            assert len(await api.payloads()) == (statuses[1] == 201)
    finally:
        door.sock.close()


async def test_our_own_user_may_do_all(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    try:
        async with running(make_door=lambda _: Door(sock)) as api:
            assert await over(api, path, "GET /v1/tokens") == 200
            assert await over(api, path, "GET /v1/tokens", "Authorization: Bearer egw_x\r\n") == 401
            # No browser comes this way, so any Host will do; a page that came through a proxy is still told by its Origin.
            assert await over(api, path, "POST /v1/topics/a", "Origin: http://evil.example\r\n") == 403
            assert await over(api, path, "POST /v1/topics/a", "Origin: http://any\r\n") == 201
    finally:
        sock.close()


async def over(api: Api, path: Path, line: str, headers: str = "") -> int:
    """The status of one request over the Unix socket."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"{line} HTTP/1.1\r\nHost: any\r\nContent-Length: 0\r\n{headers}\r\n".encode())
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1])

"""`edgegw token create|list|revoke`: who may ask the gateway.

A running gateway is asked through its Unix socket. Where none runs, the data folder is locked as a gateway would lock it, and
its state.db is changed directly: the first token must be there before a gateway may listen beyond loopback.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from edgegw.cli.client import GatewayClient, Target, add_target_options, target_of
from edgegw.config import read_config
from edgegw.config_source import DEFAULT_FILE
from edgegw.core.access import SCOPES
from edgegw.errors import ConfigError, StoreError
from edgegw.limits import TOKEN_FOLDER_S

if TYPE_CHECKING:
    from edgegw.store.disk import DataFolder

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_Row = dict[str, Any]


def build(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `edgegw token`."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    make = _verb(verbs, "create", create, "make a token; its secret is printed once")
    make.add_argument("name", metavar="NAME", help="what it is called in lists and logs")
    make.add_argument("--scope", required=True, action="append", metavar="SCOPE[,SCOPE]", help=", ".join(SCOPES))
    make.add_argument(
        "--topic", action="append", default=[], metavar="FILTER", help="topics it is for (may be given again; default: all)"
    )
    make.add_argument("--expires", type=_seconds, metavar="TIME", help="how long it lives, as 90d, 12h (default: until revoked)")
    _verb(verbs, "list", show, "all tokens, without their secrets")
    _verb(verbs, "revoke", revoke, "make a token good for nothing").add_argument("name", metavar="NAME")


def create(args: argparse.Namespace) -> int:
    """Make a token. Raises RequestError, Conflict, StoreError, PeerError."""
    scopes = [scope.strip() for each in args.scope for scope in each.split(",")]
    fields = {"name": args.name, "scopes": scopes, "topics": args.topic, "expires_s": args.expires}
    body = json.dumps(fields).encode()
    with _place(args, is_made=True) as place:
        if isinstance(place, Target):
            with GatewayClient(place) as client:
                row: Any = client.call("POST", "/v1/tokens", body).json()
        else:
            row = _directly(place, lambda tokens: tokens.create(args.name, scopes, args.topic, args.expires))
    if args.json:
        print(json.dumps(row))
    else:
        print(row["token"])
        print(f"token {row['name']}: shown this once; send it as `Authorization: Bearer {row['token'][:8]}…`", file=sys.stderr)
    return 0


def show(args: argparse.Namespace) -> int:
    """Print all tokens. Raises StoreError, PeerError."""
    with _place(args) as place:
        if isinstance(place, Target):
            with GatewayClient(place) as client:
                rows: Any = client.call("GET", "/v1/tokens", repeatable=True).json()
        else:
            rows = _directly(place, lambda tokens: tokens.rows())
    if args.json:
        print(json.dumps(rows))
    else:
        sys.stdout.writelines(f"{line}\n" for line in _table(rows))
    return 0


def revoke(args: argparse.Namespace) -> int:
    """Revoke a token. Raises NotFound, StoreError, PeerError."""
    with _place(args) as place:
        if isinstance(place, Target):
            with GatewayClient(place) as client:
                client.call("DELETE", f"/v1/tokens/{quote(args.name, safe='')}")
        else:
            _directly(place, lambda tokens: tokens.revoke(args.name))
    print(json.dumps({"name": args.name, "revoked": True}) if args.json else f"revoked {args.name}")
    return 0


def make_first_token(data: Path, name: str, scopes: list[str]) -> str | None:
    """Where no gateway runs and there is no token yet, make one; its secret. Raises ConfigError, StoreError."""
    from edgegw.store.disk import DataFolder

    folder = DataFolder(data)
    folder.acquire()
    try:
        if _directly(data, lambda tokens: tokens.rows()):
            return None
        return str(_directly(data, lambda tokens: tokens.create(name, scopes, [], None))["token"])
    finally:
        folder.release()


# --- where ----------------------------------------------------------------------------------------


@contextmanager
def _place(args: argparse.Namespace, *, is_made: bool = False) -> Iterator[Target | Path]:
    """The gateway to ask, or the data folder of one that does not run, held. `is_made`: the folder need not be there yet."""
    if args.url or args.socket or os.environ.get("EDGEGW_URL") or os.environ.get("EDGEGW_SOCKET"):
        yield target_of(args.url, args.socket, os.environ, args.ca)
        return
    overrides = {} if args.data is None else {"gateway.data": args.data}
    data = read_config(args.config or DEFAULT_FILE, os.environ, overrides, must_exist=args.config is not None).config.gateway.data
    from edgegw.api.unix_socket import RUN_FOLDER, SOCKET_NAME
    from edgegw.store.disk import DataFolder

    if not is_made and not data.is_dir():
        raise ConfigError("data_folder", f"there is no data folder {data}", "--data names another, --socket a running gateway")
    folder = DataFolder(data)
    # No token goes along: by this way we are known as who we are.
    try:
        if not _is_held(folder, data / SOCKET_NAME):
            yield Target("localhost", 80, socket_path=str(data / SOCKET_NAME))
            return
    except ConfigError:
        public = RUN_FOLDER / SOCKET_NAME  # who is in the group only gets in here
        if not os.access(public, os.W_OK):
            raise
        yield Target("localhost", 80, socket_path=str(public))
        return
    try:
        yield data
    finally:
        folder.release()


def _is_held(folder: "DataFolder", path: Path) -> bool:
    """Whether the folder is ours now, else a gateway is to be asked. Raises ConfigError, StoreError.

    Another command, and a gateway that starts or stops, have the folder for a moment and answer nobody.
    """
    from edgegw.api.unix_socket import is_answering

    give_up_s = time.monotonic() + TOKEN_FOLDER_S
    while True:
        try:
            folder.acquire()
            return True
        except StoreError as error:
            if error.code != "data_folder_in_use":
                raise
        if is_answering(path) or time.monotonic() >= give_up_s:
            return False
        Event().wait(TOKEN_FOLDER_S / 100)


class _Tokens:
    """The tokens of a gateway that does not run, as its API would tell them."""

    def __init__(self, data: Path) -> None:
        import edgegw
        from edgegw.callers import Callers
        from edgegw.clock import SystemClock
        from edgegw.store.state import StateFile

        migrations = Path(edgegw.__file__).parent / "migrations" / "state"
        self.callers = Callers(SystemClock(), os.urandom, StateFile(data / "state.db", migrations))

    async def rows(self) -> list[_Row]:
        """All."""
        from edgegw.callers import token_json

        return [token_json(held) for held in self.callers.held()]

    async def create(self, name: str, scopes: list[str], topics: list[str], expires_s: float | None) -> _Row:
        """A new one."""
        from edgegw.callers import token_json

        held, secret = await self.callers.create(name, tuple(scopes), tuple(topics), expires_s)
        return token_json(held) | {"token": secret}

    async def revoke(self, name: str) -> None:
        """It is gone."""
        await self.callers.revoke(name)


def _directly(data: Path, change: Callable[[_Tokens], Coroutine[Any, Any, Any]]) -> Any:
    import asyncio

    async def work() -> Any:
        tokens = _Tokens(data)
        await tokens.callers.load()
        return await change(tokens)

    return asyncio.run(work())


# --- forms ----------------------------------------------------------------------------------------


def _verb(verbs: Any, name: str, call: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
    add_target_options(verb)
    verb.add_argument("--config", type=Path, metavar="FILE", help=f"configuration that names the data folder ({DEFAULT_FILE})")
    verb.add_argument("--data", metavar="DIR", help="data folder of the gateway, instead of gateway.data")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.set_defaults(call=call)
    return verb


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,10})([smhdw]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, as 90d, 12h, 30m or 3600")
    return int(match[1]) * _UNITS[match[2]]


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    head = ("NAME", "SCOPES", "TOPICS", "CREATED", "EXPIRES", "LAST USED")
    lines = [head] + [
        (
            row["name"],
            ",".join(row["scopes"]),
            " ".join(row["topics"]) or "all",
            row["created"],
            row["expires"] or "never",
            row["last_used"] or "not since the start",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()

"""state.db: what the gateway knows beside its messages. Today that is its tokens.

It is read whole at a start, if it is there, and opened again for each change, which is rare: a gateway without tokens pays
nothing for it. A rollback journal and synchronous=EXTRA: when a call returns, the change is on disk, the folder's entry too.
"""

import json
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgegw.core.access import Token
from edgegw.errors import StoreError
from edgegw.limits import STATE_BUSY_S
from edgegw.store.disk import give_to_owner, sync_folder
from edgegw.store.migrate import migrate

if TYPE_CHECKING:
    import aiosqlite


class StateFile:
    """`DATA/state.db`; whoever uses it holds the lock of the data folder. Every call may raise StoreError(state_failed)."""

    def __init__(self, path: Path, migrations: Path) -> None:
        self.path = path
        self._migrations = migrations

    async def tokens(self) -> list[Token]:
        """All of them by name; none when there is no file yet."""
        if not self.path.exists():
            return []
        async with self._open() as db:
            rows = await db.execute_fetchall(
                "SELECT name, digest, scopes, topics, created_ms, expires_ms FROM token ORDER BY name"
            )
            return [_token(tuple(row)) for row in rows]

    async def put_token(self, token: Token) -> None:
        """Keep it; one of its name is replaced."""
        row = (
            token.name, token.digest, " ".join(token.scopes), json.dumps(token.topics), token.created_ms, token.expires_ms
        )  # fmt: skip
        async with self._open() as db:
            await db.execute("INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?, ?)", row)

    async def remove_token(self, name: str) -> None:
        """Forget it."""
        async with self._open() as db:
            await db.execute("DELETE FROM token WHERE name = ?", (name,))

    @asynccontextmanager
    async def _open(self) -> AsyncIterator["aiosqlite.Connection"]:
        import aiosqlite  # a gateway without tokens never needs it

        faults: list[BaseException] = []
        try:
            async with aiosqlite.Connection(lambda: self._connect_or(faults), 64) as db:
                if faults:
                    raise faults[0]
                yield db
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(
                "state_failed",
                f"{self.path} cannot be used: {exc}",
                "see the disk; or move the file away and make the tokens anew",
            ) from exc

    def _connect_or(self, faults: list[BaseException]) -> sqlite3.Connection:
        """Where the database cannot be opened, an empty one: aiosqlite waits for its thread only if that came to work."""
        try:
            return self._connect()
        except Exception as exc:
            faults.append(exc)
            return sqlite3.connect(":memory:", check_same_thread=False)

    def _connect(self) -> sqlite3.Connection:
        """In aiosqlite's thread: open, make or bring up to date."""
        is_new = not self.path.exists()
        if is_new:  # for nobody else's eyes, and sqlite's journals take the mode over
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            give_to_owner(self.path)
        db = sqlite3.connect(self.path, timeout=STATE_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA synchronous = EXTRA")
            migrate(db, self._migrations)
            if is_new:
                sync_folder(self.path.parent)
        except BaseException:
            db.close()
            raise
        return db


def _token(row: tuple[str, bytes, str, str, int, int | None]) -> Token:
    name, digest, scopes, topics, created_ms, expires_ms = row
    return Token(name, digest, tuple(scopes.split()), tuple(json.loads(topics)), created_ms, expires_ms)

"""The write-ahead log: how much of it waits to be copied into the database, and when that is done."""

import sqlite3

from edgegw.limits import WAL_BYTES_MAX, WAL_CHECKPOINT_BYTES

FRAME_BYTES = 4096 + 24


class Wal:
    """The log of the one connection that writes. `size_bytes`: frames not copied yet, an estimate between checkpoints."""

    def __init__(self, db: sqlite3.Connection, size_bytes: int) -> None:
        self._db = db
        self._next_bytes = WAL_CHECKPOINT_BYTES  # of the log at which to try the next
        self.size_bytes = size_bytes

    def add(self, pages: int) -> None:
        """A transaction wrote about so many pages."""
        self.size_bytes += pages * FRAME_BYTES

    def checkpoint(self) -> None:
        """Copy the log into the database, so that it starts over with the next commit if no reader still needs it.

        When one did, the log grew on: then wait for the readers, a moment, and try again when as much has come again.
        """
        if self.size_bytes < self._next_bytes:
            return
        try:
            _, frames, copied = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames * FRAME_BYTES > (WAL_CHECKPOINT_BYTES + WAL_BYTES_MAX) // 2:
                is_busy, frames, copied = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                copied = 0 if is_busy else copied
        except sqlite3.Error:
            frames, copied = self.size_bytes // FRAME_BYTES, 0  # the commit is durable; the next checkpoint tries again
        self.size_bytes = 0 if frames == copied else frames * FRAME_BYTES
        self._next_bytes = self.size_bytes + WAL_CHECKPOINT_BYTES

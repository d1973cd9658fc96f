"""What SQLite says, as the caller must hear it."""

import sqlite3
from pathlib import Path

from edgegw.errors import StoreError, StoreFull

SQLITE_VERSION = sqlite3.sqlite_version


def store_error(exc: sqlite3.Error, path: Path) -> StoreError:
    """The error of ours for an error of SQLite."""
    name = getattr(exc, "sqlite_errorname", "SQLITE_ERROR")
    if name.startswith("SQLITE_FULL"):
        return StoreFull(
            "store_full", f"no space left for {path.name}: nothing of this commit was stored", "free space on its file system"
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return StoreError(
            "store_unusable", f"{path} cannot be opened for writing: {exc}", "check the owner and the rights of the data folder"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StoreError("store_damaged", f"{path} is damaged: {exc}", "move the file away to start anew, keep it for salvage")
    return StoreError("store_failed", f"{path.name}: {name}: {exc}", "see the log of the kernel for disk errors")

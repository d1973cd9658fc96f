"""Schema migrations: numbered SQL files, forward only, each in one transaction together with the number it reaches.

`PRAGMA user_version` is the newest migration applied. A release that changes the schema so that older ones must not open it
raises `meta.min_reader` in that migration; a database whose `min_reader` is above ours is refused, a merely newer one is not.
"""

import sqlite3
from pathlib import Path

from edgegw.errors import StoreError


def migrate(db: sqlite3.Connection, folder: Path) -> int:
    """Bring `db` to the newest schema in `folder`; returns its version. Raises StoreError(schema_newer)."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    steps = {int(path.name[:4]): path for path in folder.iterdir() if path.suffix == ".sql"}
    newest = max(steps)
    if version:
        needed = int(db.execute("SELECT value FROM meta WHERE name = 'min_reader'").fetchone()[0])
        if needed > newest:
            raise StoreError(
                "schema_newer",
                f"the database needs a gateway that knows schema {needed}; this one knows up to {newest}",
                "start the newer release that wrote it, or use another data folder",
            )
    for number in range(version + 1, newest + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(steps[number].read_text("utf-8")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    return max(version, newest)


def _statements(script: str) -> list[str]:
    """The statements of a script; `executescript` would commit before and between them."""
    found: list[str] = []
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in text.splitlines()):
        raise StoreError("bad_migration", f"a migration ends inside a statement: {text.strip()[:60]}")
    return found

"""What came from whom, as ranges of the sender's own numbers: a message that comes twice is known, however batches are cut.

A row an origin (see core.columns): the runs of its numbers that are stored. A sender closes its gaps, so there are few runs; it
is written in the commit that stores the messages. Origins that were not heard of for longest are forgotten beyond
PRODUCERS_MAX: a gateway that comes back after that and repeats itself is stored twice.
"""

import sqlite3

import msgpack

from edgegw.clock import Clock
from edgegw.core.runs import Runs, merged
from edgegw.errors import Conflict
from edgegw.limits import PRODUCER_RUNS_MAX, PRODUCERS_MAX
from edgegw.store.jobs import Span


class Producers:
    """Finds and remembers ranges inside the writer's open transaction."""

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._staged: dict[str, Runs] = {}

    @property
    def is_staged(self) -> bool:
        """Whether this turn has ranges to write."""
        return bool(self._staged)

    def runs(self, origin: str) -> Runs:
        """What is stored of this origin."""
        staged = self._staged.get(origin)
        if staged is not None:
            return staged
        row = self._db.execute("SELECT runs FROM producer WHERE origin = ?", (origin,)).fetchone()
        return () if row is None else tuple((first, last) for first, last in msgpack.unpackb(row[0]))

    def check(self, span: Span) -> Runs:
        """The origin's runs with this one. Raises Conflict(too_many_ranges)."""
        runs = merged(self.runs(span.origin), [(span.first, span.last)])
        if len(runs) > PRODUCER_RUNS_MAX:
            raise Conflict(
                "too_many_ranges",
                f"{span.origin[:60]!r} has {len(runs)} ranges with gaps between them",
                "send what lies between first: an empty range needs no messages, but a batch that covers it",
            )
        return runs

    def keep(self, origin: str, runs: Runs) -> None:
        """These go into the commit."""
        self._staged[origin] = runs

    def write(self) -> None:
        """Write the turn's ranges."""
        if not self._staged:
            return
        now_ms = self._clock.wall_ms()
        for origin, runs in self._staged.items():
            self._db.execute("INSERT OR REPLACE INTO producer VALUES (?, ?, ?)", (origin, now_ms, msgpack.packb(runs)))
        (count,) = self._db.execute("SELECT count(*) FROM producer").fetchone()
        if count > PRODUCERS_MAX:
            self._db.execute(
                "DELETE FROM producer WHERE origin IN (SELECT origin FROM producer ORDER BY t_ms LIMIT ?)",
                (count - PRODUCERS_MAX,),
            )
        self._staged = {}

    def roll_back(self) -> None:
        """The commit failed."""
        self._staged = {}

"""Eviction: whole chunks leave a stream, oldest first, when a bound says so; every message that leaves is counted.

Why a chunk leaves, in this order: all its messages are past their TTL (`ttl`), it is older than the stream's age (`age`), the
stream has too many rows (`rows`) or bytes (`bytes`). Under the policy `hold` a chunk in which a consumer still wants a message
stays, and the next one is looked at: an alarm that waits for its consumer does not pin the telemetry around it.

A message past its TTL counts as `ttl` whatever made its chunk leave. What a consumer wanted counts as lost for that consumer,
and its ledger gets the gap, in the same transaction.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from edgegw.core.cursor import Ledger
from edgegw.core.record import Chunk, Gap
from edgegw.core.topic import matches
from edgegw.limits import CHUNK_ROW_BYTES, EVICT_CHUNKS_PER_TURN, EVICT_SLACK, STREAM_GAPS_MAX
from edgegw.store.streams import StreamState, row_id, seq_of

_PAGE = 32


class _Row(NamedTuple):
    first: int
    rows: int
    t1_ms: int
    expires_ms: int | None
    size_bytes: int

    @property
    def last(self) -> int:
        return self.first + self.rows - 1


class _Loss(NamedTuple):
    ledger: Ledger
    seqs: list[int]
    expired: frozenset[int]
    until_ms: int | None  # when the last of them expires, if all do


class Evictor:
    """Removes chunks inside the writer's open transaction."""

    def __init__(
        self,
        db: sqlite3.Connection,
        ledgers_of: Callable[[StreamState], Iterable[Ledger]],
        set_ledger: Callable[[Ledger], None],
    ) -> None:
        self._db = db
        self._ledgers_of = ledgers_of
        self._set_ledger = set_ledger

    def is_due(self, st: StreamState, now_ms: int) -> bool:
        """A look at the oldest chunk only that is not held; what is held is looked at when it may be so no longer."""
        if st.is_over or st.scan_first <= st.scan_last or (st.scan_again_ms is not None and st.scan_again_ms <= now_ms):
            return True
        row = self._db.execute(
            "SELECT t1_ms, expires_ms FROM chunk WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
            (row_id(st.number, st.scan_from), row_id(st.number + 1, 0)),
        ).fetchone()
        if row is None:
            return False
        return bool((st.age_max_s and row[0] + st.age_max_s * 1000 < now_ms) or (row[1] and row[1] <= now_ms))

    def make_room(self, st: StreamState, need_bytes: int, need_rows: int, now_ms: int, most: int | None = None) -> bool:
        """Evict what the bounds ask for before `need_*` are added; `most` chunks at the most. Whether the bytes now fit."""
        bytes_goal = rows_goal = None
        if st.size_bytes + need_bytes > st.bytes_max:
            bytes_goal = st.bytes_max - need_bytes - st.bytes_max // EVICT_SLACK
        if st.rows_max and st.rows + need_rows > st.rows_max:
            rows_goal = st.rows_max - need_rows - st.rows_max // EVICT_SLACK
        if st.scan_again_ms is not None and st.scan_again_ms <= now_ms:
            st.look_at_all()
        gone: list[tuple[_Row, str]] = []
        held = 0
        try:
            for row in self._candidates(st):
                reason = _why(st, row, bytes_goal, rows_goal, now_ms)
                # What is held costs its decoding, and a stream may be full of it: the next call goes on from there.
                if reason is None or len(gone) + held == most or held == EVICT_CHUNKS_PER_TURN:
                    break
                losses = self._losses(st, row, now_ms)
                if st.policy == "hold" and any(len(loss.expired) < len(loss.seqs) for loss in losses):
                    held += 1
                    _hold(st, losses)
                else:
                    self._remove(st, row, reason, losses, now_ms)
                    gone.append((row, reason))
                if row.first < st.scan_from:
                    st.scan_first = row.last + 1
                else:
                    st.scan_from = row.last + 1
        finally:  # a chunk that cannot be read stops this, and what went before it is gone all the same
            if gone:
                self._account(st, gone)
        return st.size_bytes + need_bytes <= st.bytes_max

    def _candidates(self, st: StreamState) -> Iterator[_Row]:
        """Chunks that may go, oldest first: `make_room` moves on what says where they are."""
        if st.scan_first <= st.scan_last:
            yield from self._rows(st, st.scan_first, min(st.scan_last, st.scan_from - 1))
            st.scan_first, st.scan_last = 0, -1
        yield from self._rows(st, st.scan_from, st.head)

    def _rows(self, st: StreamState, first: int, last: int) -> Iterator[_Row]:
        """The chunks with messages from `first` to `last`."""
        start, end = row_id(st.number, first), row_id(st.number, max(last, 0))
        while True:
            rows = self._db.execute(
                "SELECT id, count, t1_ms, expires_ms, length(data) FROM chunk"
                " WHERE id >= coalesce((SELECT max(id) FROM chunk WHERE id <= ?1 AND id >= ?2), ?1) AND id + count > ?1"
                " AND id <= ?3 ORDER BY id LIMIT ?4",
                (start, row_id(st.number, 0), end, _PAGE),
            ).fetchall()
            for row, count, t1_ms, expires_ms, size in rows:
                yield _Row(seq_of(row), count, t1_ms, expires_ms, size + CHUNK_ROW_BYTES)
            if len(rows) < _PAGE:
                return
            start = rows[-1][0] + rows[-1][1]

    def _losses(self, st: StreamState, row: _Row, now_ms: int) -> list[_Loss]:
        behind = [ledger for ledger in self._ledgers_of(st) if ledger.floor < row.last and ledger.pending]
        if not behind:
            return []
        chunk = self._chunk(st, row)
        expired = frozenset(chunk.first_seq + i for i in chunk.expired(now_ms))
        losses = []
        for ledger in behind:
            flags = [matches(ledger.terms.filter, topic) for topic in chunk.topics]
            seqs = [chunk.first_seq + i for i in chunk.places(flags, ledger.floor) if ledger.wants(chunk.first_seq + i)]
            if seqs:
                until_ms = chunk.expire_by_ms(seq - chunk.first_seq for seq in seqs)
                losses.append(_Loss(ledger, seqs, expired.intersection(seqs), until_ms))
        return losses

    def _remove(self, st: StreamState, row: _Row, reason: str, losses: list[_Loss], now_ms: int) -> None:
        expired = 0
        if row.expires_ms is not None:
            expired = row.rows if 0 < row.expires_ms <= now_ms else len(self._chunk(st, row).expired(now_ms))
        self._db.execute("DELETE FROM chunk WHERE id = ?", (row_id(st.number, row.first),))
        st.removed_bytes += row.size_bytes
        for why, count in (("ttl", expired), (reason, row.rows - expired)):
            if count:
                st.removed[why] = st.removed.get(why, 0) + count
                self._db.execute(
                    "INSERT INTO removed VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
                    (st.number, why, count),
                )
        self._db.execute(
            "INSERT INTO removed VALUES (?, ?, 0, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
            (st.number, reason if row.rows > expired else "ttl", row.size_bytes),
        )
        for loss in losses:
            self._lose(st, reason, loss)
        for ledger in self._ledgers_of(st):  # or its record would name every chunk that is gone
            if ledger.settled and ledger.floor < row.last:
                self._set_ledger(ledger.pass_over(row.first, row.last))

    def _lose(self, st: StreamState, reason: str, loss: _Loss) -> None:
        ledger = loss.ledger
        parts = ((reason, [seq for seq in loss.seqs if seq not in loss.expired]), ("ttl", sorted(loss.expired)))
        for why, seqs in parts:
            if seqs:
                ledger = ledger.lose(Gap(st.name, seqs[0], seqs[-1], len(seqs), why), seqs)
        self._set_ledger(ledger)

    def _account(self, st: StreamState, gone: list[tuple[_Row, str]]) -> None:
        st.evictions += 1
        self._db.execute("UPDATE stream SET head = ?, total_bytes = ? WHERE number = ?", (st.head, st.total_bytes, st.number))
        runs: list[tuple[int, int, str]] = []
        for row, reason in gone:
            if runs and runs[-1][1] == row.first - 1 and runs[-1][2] == reason:
                runs[-1] = (runs[-1][0], row.last, reason)
            else:
                runs.append((row.first, row.last, reason))
        for first, last, reason in runs:
            grown = self._db.execute(
                "UPDATE gap SET last = ? WHERE stream = ? AND last = ? AND reason = ?", (last, st.number, first - 1, reason)
            ).rowcount
            if not grown:
                self._db.execute("INSERT INTO gap VALUES (?, ?, ?, ?)", (st.number, first, last, reason))
        self._merge_gaps(st)
        row = self._db.execute(
            "SELECT id, t1_ms FROM chunk WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
            (row_id(st.number, 0), row_id(st.number + 1, 0)),
        ).fetchone()
        st.first, st.oldest_ms = (seq_of(row[0]), row[1]) if row else (st.head + 1, None)
        if row is None:  # the marks in the last chunk are gone with it: the ledgers' own rows carry them now
            for ledger in self._ledgers_of(st):
                self._set_ledger(ledger)

    def _merge_gaps(self, st: StreamState) -> None:
        gaps = self._db.execute("SELECT first, last, reason FROM gap WHERE stream = ? ORDER BY first", (st.number,)).fetchall()
        if len(gaps) <= STREAM_GAPS_MAX:
            return
        merged = [gaps[0]]
        surplus = len(gaps) - STREAM_GAPS_MAX
        for first, last, reason in gaps[1:]:
            before = merged[-1]
            if surplus > 0 and before[1] + 1 == first:
                merged[-1] = (before[0], last, reason if before[2] == reason else "several")
                surplus -= 1
            else:
                merged.append((first, last, reason))
        self._db.execute("DELETE FROM gap WHERE stream = ?", (st.number,))
        self._db.executemany("INSERT INTO gap VALUES (?, ?, ?, ?)", [(st.number, *gap) for gap in merged])

    def _chunk(self, st: StreamState, row: _Row) -> Chunk:
        return Chunk(self._db.execute("SELECT data FROM chunk WHERE id = ?", (row_id(st.number, row.first),)).fetchone()[0])


def _hold(st: StreamState, losses: list[_Loss]) -> None:
    """Remember when TTLs free this chunk, if they do."""
    times = [loss.until_ms for loss in losses]
    if None not in times:
        st.scan_again_ms = min(filter(None, (*times, st.scan_again_ms)))


def _why(st: StreamState, row: _Row, bytes_goal: int | None, rows_goal: int | None, now_ms: int) -> str | None:
    if row.expires_ms and row.expires_ms <= now_ms:
        return "ttl"
    if st.age_max_s and row.t1_ms + st.age_max_s * 1000 < now_ms:
        return "age"
    if rows_goal is not None and st.rows > rows_goal:
        return "rows"
    if bytes_goal is not None and st.size_bytes > bytes_goal:
        return "bytes"
    return None

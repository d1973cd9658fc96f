"""Retained values: the last message of each topic that was published to be kept, in rows of their own."""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from edgegw.core.record import Batch
from edgegw.errors import StoreFull
from edgegw.limits import RETAINED_MAX


class Value(NamedTuple):
    """Message `seq` of a stream, which stands at `place` in its batch. An empty payload clears the topic."""

    stream_number: int
    seq: int
    time_ms: int
    batch: Batch
    place: int


class RetainedValues:
    """Admits and writes them inside the writer's open transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.count: int = db.execute("SELECT count(*) FROM retained").fetchone()[0]

    def admit(self, batches: Iterable[Batch], now_ms: int) -> None:
        """Raises StoreFull(retained_full) when topics that have no value yet have no place either."""
        topics = {batch.topics[i] for batch in batches for i in batch.retain or () if batch.payloads[i]}
        if self.count + len(topics) <= RETAINED_MAX:
            return
        new = sum(1 for topic in topics if not self._has(topic))
        if new and self.count + new > RETAINED_MAX:
            self.count -= self._db.execute("DELETE FROM retained WHERE expires_ms <= ?", (now_ms,)).rowcount
        if new and self.count + new > RETAINED_MAX:
            raise StoreFull(
                "retained_full",
                f"{self.count} topics have a retained value already, and {RETAINED_MAX} may",
                "clear some: publish an empty payload with retain",
            )

    def write(self, values: Iterable[Value]) -> int:
        """Set or clear the topics' values; returns the bytes written."""
        written_bytes = 0
        for number, seq, time_ms, batch, i in values:
            topic, payload = batch.topics[i], batch.payloads[i]
            if not payload:
                self.count -= self._db.execute("DELETE FROM retained WHERE topic = ?", (topic,)).rowcount
                continue
            self.count += not self._has(topic)
            source_us = batch.source_us[i] if batch.source_us is not None else None
            expires_ms = batch.expires_ms[i] if batch.expires_ms is not None else None
            self._db.execute(
                "INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (topic, number, seq, time_ms, batch.content_type(i), source_us, expires_ms, payload),
            )
            written_bytes += len(topic) + len(payload)
        return written_bytes

    def _has(self, topic: str) -> bool:
        return self._db.execute("SELECT 1 FROM retained WHERE topic = ?", (topic,)).fetchone() is not None

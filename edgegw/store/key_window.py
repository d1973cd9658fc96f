"""Idempotency keys: per stream, kept for a day or for the newest hundred thousand, whichever ends first.

On disk: `key_block`, appended in order, 28 bytes a key; no index to wear the card. In memory: `core.keys.KeyIndex`, loaded
with the first keyed publish after a start. A hit is confirmed in the block before it is believed.

A turn stages keys job by job: `admit` looks and remembers, `keep` accepts what the job brought, an error in between drops it.
"""

import sqlite3
from struct import Struct

from edgegw.clock import Clock
from edgegw.core.keys import KeyIndex, digest, fingerprint
from edgegw.errors import Conflict
from edgegw.limits import KEY_AGE_S_MAX, KEY_BLOCKS_PER_TURN, KEYS_PER_STREAM_MAX
from edgegw.store.jobs import Part
from edgegw.store.streams import StreamState, row_id, seq_of

_ENTRY = Struct("<I16s8s")  # sequence number less the block's first, key digest, fingerprint
_TRIM_SLACK = 1024


class KeyWindow:
    """Finds and remembers keys inside the writer's open transaction."""

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        # (stream, key digest) → (sequence number, fingerprint) of this turn, and of the job being admitted
        self._staged: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._admitted: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._states: dict[str, StreamState] = {}

    @property
    def is_staged(self) -> bool:
        """Whether this turn has keys to write."""
        return bool(self._staged)

    def admit(self, st: StreamState, part: Part) -> list[int]:
        """Places of the messages that are new; sets the part's `seqs` and `repeats`. Raises Conflict(key_reused)."""
        batch = part.batch
        if st.keys is None:
            self._load(st)
        self._states[st.name] = st
        fresh: list[int] = []
        part.seqs, part.repeats = [], []
        for i, key in enumerate(batch.keys or ()):
            seq: int | None = None
            if key is not None:
                key_digest = digest(key)
                body = fingerprint(batch.topics[i], batch.content_type(i), batch.payloads[i])
                found = self._find(st, key_digest)
                if found is not None:
                    if found[1] != body:
                        raise Conflict(
                            "key_reused",
                            f"the key {key!r} came before with another topic, content type or body, as message {found[0]}",
                            "use a new key for each message",
                            where="Idempotency-Key" if part.places is None else f"[{part.places[i]}].key",
                        )
                    seq = found[0]
                else:
                    self._admitted[st.name, key_digest] = (st.head + len(fresh) + 1, body)
            part.repeats.append(seq is not None)
            if seq is None:
                seq = st.head + len(fresh) + 1
                fresh.append(i)
            part.seqs.append(seq)
        part.first_seq = part.seqs[0]
        return fresh

    def drop(self) -> None:
        """Forget what was admitted and not kept."""
        self._admitted = {}

    def keep(self) -> None:
        """The job whose keys were admitted goes into the commit."""
        self._staged.update(self._admitted)
        self._admitted = {}

    def write(self) -> None:
        """Append the turn's keys, a block for each stream."""
        if not self._staged:
            return
        now_ms = self._clock.wall_ms()
        blocks: dict[str, list[tuple[int, bytes, bytes]]] = {}
        for (stream, key_digest), (seq, body) in self._staged.items():
            blocks.setdefault(stream, []).append((seq, key_digest, body))
        for stream, entries in blocks.items():
            st = self._states[stream]
            first = entries[0][0]
            data = b"".join([_ENTRY.pack(seq - first, key_digest, body) for seq, key_digest, body in entries])
            self._db.execute("INSERT INTO key_block VALUES (?, ?, ?, ?)", (row_id(st.number, first), len(entries), now_ms, data))
            st.key_count += len(entries)
            if st.keys is not None:
                for seq, key_digest, _ in entries:
                    st.keys.put(key_digest, seq)
        self._staged = {}

    def roll_back(self) -> None:
        """The commit failed: forget its keys. The indexes are read again, so that nothing points at what is not there."""
        self._staged, self._admitted, self._states = {}, {}, {}

    def is_due(self, st: StreamState) -> bool:
        """Whether old keys should go."""
        if st.keys is None or not st.key_count:
            return False
        row = self._db.execute("SELECT t_ms FROM key_block WHERE id >= ? ORDER BY id LIMIT 1", (row_id(st.number, 0),)).fetchone()
        return st.key_count > KEYS_PER_STREAM_MAX + _TRIM_SLACK or (row is not None and row[0] <= self._oldest_ms())

    def trim(self, st: StreamState) -> None:
        """Remove blocks that have left the window."""
        rows = self._db.execute(
            "SELECT id, count, t_ms FROM key_block WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (row_id(st.number, 0), row_id(st.number + 1, 0), KEY_BLOCKS_PER_TURN),
        ).fetchall()
        oldest_ms = self._oldest_ms()
        upto = row_id(st.number, 0)
        for row, count, t_ms in rows:
            if st.key_count - count < KEYS_PER_STREAM_MAX and t_ms > oldest_ms:
                break
            st.key_count -= count
            upto = row
        self._db.execute("DELETE FROM key_block WHERE id >= ? AND id <= ?", (row_id(st.number, 0), upto))
        if st.keys is not None:
            st.keys.floor = seq_of(upto)

    def _find(self, st: StreamState, key_digest: bytes) -> tuple[int, bytes] | None:
        staged = self._admitted.get((st.name, key_digest)) or self._staged.get((st.name, key_digest))
        if staged is not None or st.keys is None:
            return staged
        seq = st.keys.get(key_digest)
        if seq is None:
            return None
        row = self._db.execute(
            "SELECT id, t_ms, data FROM key_block WHERE id <= ? AND id >= ? ORDER BY id DESC LIMIT 1",
            (row_id(st.number, seq), row_id(st.number, 0)),
        ).fetchone()
        if row is None or row[1] <= self._oldest_ms():
            return None
        for offset, stored_digest, body in _ENTRY.iter_unpack(row[2]):
            if stored_digest == key_digest:
                return seq_of(row[0]) + offset, body
        return None

    def _load(self, st: StreamState) -> None:
        st.keys, st.key_count = KeyIndex(), 0
        rows = self._db.execute(
            "SELECT id, data FROM key_block WHERE id >= ? AND id < ?", (row_id(st.number, 0), row_id(st.number + 1, 0))
        )
        for row, data in rows:
            first = seq_of(row)
            for offset, key_digest, _ in _ENTRY.iter_unpack(data):
                st.keys.put(key_digest, first + offset)
                st.key_count += 1

    def _oldest_ms(self) -> int:
        return self._clock.wall_ms() - KEY_AGE_S_MAX * 1000

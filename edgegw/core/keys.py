"""Which keys a stream has seen: 16 bytes of memory a key.

An open-addressing table over two `array('Q')` columns: 63 bits of the key's digest, and the sequence number of the message
that brought it. Python's own dict needs about 100 bytes for the same, 10 MiB a stream at the bound.

The table only points at the truth: the digests lie in the journal (`key_block`), where a hit is confirmed. A key that
has left the window is not deleted here: its sequence number is below the floor, and the next rebuild drops it.
"""

from array import array
from hashlib import blake2b
from itertools import compress

DIGEST_BYTES = 16
_SLOTS_MIN = 64


def digest(key: str) -> bytes:
    """16 bytes that stand for the key."""
    return blake2b(key.encode(), digest_size=DIGEST_BYTES).digest()


def fingerprint(topic: str, content_type: str, payload: bytes) -> bytes:
    """8 bytes that tell one body, content type and topic from another."""
    mix = blake2b(payload, digest_size=8)
    mix.update(b"\0" + topic.encode() + b"\0" + content_type.encode())
    return mix.digest()


class KeyIndex:
    """digest → sequence number of the first message with that key, for those above `floor`."""

    __slots__ = ("_hashes", "_mask", "_seqs", "_used", "floor")

    def __init__(self) -> None:
        self.floor = 0
        self._clear(_SLOTS_MIN)

    def __len__(self) -> int:
        return self._used

    def get(self, key_digest: bytes) -> int | None:
        """The sequence number under this digest, if it is above the floor."""
        wanted = _hash(key_digest)
        slot = (wanted >> 1) & self._mask
        while found := self._hashes[slot]:
            if found == wanted:
                seq = self._seqs[slot]
                return seq if seq > self.floor else None
            slot = (slot + 1) & self._mask
        return None

    def put(self, key_digest: bytes, seq: int) -> None:
        """Remember (or move) the digest's sequence number."""
        if self._used * 4 >= (self._mask + 1) * 3:
            self._rebuild()
        self._insert(_hash(key_digest), seq)

    def _insert(self, wanted: int, seq: int) -> None:
        slot = (wanted >> 1) & self._mask
        while found := self._hashes[slot]:
            if found == wanted:
                break
            slot = (slot + 1) & self._mask
        else:
            self._hashes[slot] = wanted
            self._used += 1
        self._seqs[slot] = seq

    def _rebuild(self) -> None:
        hashes, seqs, floor = self._hashes, self._seqs, self.floor
        live = [bool(h) and seq > floor for h, seq in zip(hashes, seqs, strict=True)]
        slots = _SLOTS_MIN
        while slots < 2 * (sum(live) + 1):
            slots *= 2
        self._clear(slots)
        for wanted, seq in zip(compress(hashes, live), compress(seqs, live), strict=True):
            self._insert(wanted, seq)

    def _clear(self, slots: int) -> None:
        self._mask = slots - 1
        self._hashes = array("Q", bytes(8 * slots))
        self._seqs = array("Q", bytes(8 * slots))
        self._used = 0


def _hash(key_digest: bytes) -> int:
    return int.from_bytes(key_digest[:8], "little") | 1  # never 0: 0 marks an empty slot

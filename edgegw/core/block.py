"""Messages on their way out, as columns: what a thousand of them share is handled once, not a thousand times."""

from collections.abc import Sequence

from edgegw.core.record import Chunk, Message

# Names, times and framing beside topic and payload of a message.
BLOCK_ROW_BYTES = 96


class Block:
    """Parallel columns of at least one message, numbers ascending. `times_us`: the producer's time, else the arrival."""

    __slots__ = ("content_types", "expires_ms", "payloads", "seqs", "times_us", "topics")

    def __init__(
        self,
        seqs: list[int],
        topics: list[str],
        content_types: list[str],
        payloads: list[bytes],
        times_us: list[int],
        expires_ms: list[int | None] | None = None,
    ) -> None:
        self.seqs = seqs
        self.topics = topics
        self.content_types = content_types
        self.payloads = payloads
        self.times_us = times_us
        self.expires_ms = expires_ms

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Block":
        """The same messages as columns."""
        _, seqs, topics, times_ms, types, payloads, sources, expires, _ = map(list, zip(*messages, strict=True))
        times_us = [ms * 1000 if us is None else us for ms, us in zip(times_ms, sources, strict=True)]
        return cls(seqs, topics, types, payloads, times_us, expires if any(at is not None for at in expires) else None)

    @classmethod
    def of_chunk(cls, chunk: Chunk, places: Sequence[int]) -> "Block":
        """The messages of a chunk at `places` (ascending, one at least)."""
        topics, types, times_us, expires = chunk.columns()
        whole = cls(list(range(chunk.first_seq, chunk.first_seq + chunk.count)), topics, types, chunk.payloads, times_us, expires)
        if len(places) == len(whole):
            return whole
        return whole.part(places[0], places[-1] + 1) if places[-1] - places[0] + 1 == len(places) else whole.only(places)

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def size_bytes(self) -> int:
        """About what it takes in a request, names and framing included."""
        return sum(map(len, self.payloads)) + sum(map(len, self.topics)) + BLOCK_ROW_BYTES * len(self.seqs)

    def part(self, start: int, stop: int) -> "Block":
        """The messages at these places."""
        return Block(
            self.seqs[start:stop],
            self.topics[start:stop],
            self.content_types[start:stop],
            self.payloads[start:stop],
            self.times_us[start:stop],
            None if self.expires_ms is None else self.expires_ms[start:stop],
        )

    def only(self, keep: Sequence[int]) -> "Block":
        """The messages at these places, ascending."""
        return Block(
            [self.seqs[i] for i in keep],
            [self.topics[i] for i in keep],
            [self.content_types[i] for i in keep],
            [self.payloads[i] for i in keep],
            [self.times_us[i] for i in keep],
            None if self.expires_ms is None else [self.expires_ms[i] for i in keep],
        )

    def extend(self, other: "Block") -> None:
        """Append what comes after."""
        if self.expires_ms is not None or other.expires_ms is not None:
            self.expires_ms = [
                *(self.expires_ms if self.expires_ms is not None else [None] * len(self)),
                *(other.expires_ms if other.expires_ms is not None else [None] * len(other)),
            ]
        self.seqs += other.seqs
        self.topics += other.topics
        self.content_types += other.content_types
        self.payloads += other.payloads
        self.times_us += other.times_us

    def expired(self, now_ms: int) -> list[int]:
        """Places of the messages that are past their TTL."""
        if self.expires_ms is None:
            return []
        return [i for i, at in enumerate(self.expires_ms) if at is not None and at <= now_ms]

    def pieces(self, most: int, most_bytes: int) -> list["Block"]:
        """The same in blocks of at most so many messages and bytes; a larger message is alone in its block."""
        found: list[Block] = []
        start = 0
        while start < len(self):
            stop = min(len(self), start + most)
            piece = self if stop - start == len(self) else self.part(start, stop)
            while len(piece) > 1 and piece.size_bytes > most_bytes:
                # In proportion: payloads of one stream are mostly of a size.
                piece = piece.part(0, max(1, min(len(piece) - 1, len(piece) * most_bytes // piece.size_bytes)))
            found.append(piece)
            start += len(piece)
        return found

"""The bus as dicts and sets: no disk, no chunks, no windows, no threads.

What the plain model cannot know (which chunks leave a stream, when a message past its TTL is noticed) it is told, and it judges
whether that was right. Everything else it predicts.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from edgegw.config import StreamConfig
from edgegw.core.cursor import Terms

KEY_AGE_MS = 86_400_000


def is_match(topic_filter: str, topic: str) -> bool:
    """MQTT 4.7, level by level; no topic here begins with `$`."""
    if topic_filter == "#":
        return True
    level, _, rest = topic.partition("/")
    wanted, more, further = topic_filter.partition("/")
    if wanted not in ("+", level):
        return False
    if not more or "/" not in topic:
        return (not more or further == "#") and "/" not in topic
    return is_match(further, rest)


class Sent(NamedTuple):
    """A message as it was published; equal to another when a client could not tell them apart."""

    topic: str
    payload: bytes
    time_ms: int
    source_us: int | None = None
    expires_ms: int | None = None

    def is_expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms


@dataclass
class Stream:
    config: StreamConfig
    head: int = 0
    stored: dict[int, Sent] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)
    keys: dict[str, tuple[int, Sent]] = field(default_factory=dict)


@dataclass
class Out:
    """A delivered message: how often, and when it is due again."""

    deliveries: int
    due_s: float


@dataclass
class Consumer:
    terms: Terms
    matched: int = 0
    acked: int = 0
    dead: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    wanted: dict[int, Sent] = field(default_factory=dict)  # matched, and not settled in any way
    out: dict[int, Out] = field(default_factory=dict)
    earlier: dict[int, int] = field(default_factory=dict)  # deliveries before the restart, as far as they are known

    @property
    def room(self) -> int:
        return max(0, self.terms.max_inflight - len(self.out))

    def due(self, now_s: float) -> list[int]:
        return sorted(seq for seq, out in self.out.items() if out.due_s <= now_s and out.deliveries < self.terms.max_deliver)

    def spent(self, now_s: float) -> list[int]:
        return sorted(seq for seq, out in self.out.items() if out.due_s <= now_s and out.deliveries >= self.terms.max_deliver)

    def fresh(self) -> list[int]:
        """What was never delivered: everything after the last that was. A restart makes all of it fresh."""
        return sorted(self.wanted.keys() - self.out.keys())

    def deliver(self, seq: int, now_s: float) -> int:
        before = self.out.pop(seq).deliveries if seq in self.out else self.earlier.pop(seq, 0)
        self.out[seq] = Out(before + 1, now_s + self.terms.ack_wait_s)
        return before + 1

    def settle(self, seq: int) -> None:
        del self.wanted[seq]
        self.out.pop(seq, None)


class KeyReusedError(Exception):
    """The same key came with something else."""


class ReferenceBus:
    """Streams and consumers by name; retained values by topic."""

    def __init__(self, configs: list[StreamConfig]) -> None:
        self.streams = {config.name: Stream(config) for config in configs}
        self.consumers: dict[str, Consumer] = {}
        self.retained: dict[str, tuple[str, int, Sent]] = {}

    def route(self, topic: str) -> str:
        for stream in self.streams.values():
            if any(is_match(topic_filter, topic) for topic_filter in stream.config.topics):
                return stream.config.name
        return "default"

    def publish(self, entries: list[tuple[Sent, str | None, bool]]) -> list[tuple[str, int, bool]]:
        """(message, key, retain) each; a receipt each: stream, number, whether it is a repeat. All or nothing."""
        heads = {name: stream.head for name, stream in self.streams.items()}
        fresh: dict[tuple[str, str], tuple[int, Sent]] = {}
        receipts: list[tuple[str, int, bool]] = []
        for sent, key, _ in entries:
            name = self.route(sent.topic)
            known = None if key is None else fresh.get((name, key)) or self._known(name, key, sent.time_ms)
            if known is not None:
                if (known[1].topic, known[1].payload) != (sent.topic, sent.payload):
                    raise KeyReusedError
                receipts.append((name, known[0], True))
                continue
            heads[name] += 1
            receipts.append((name, heads[name], False))
            if key is not None:
                fresh[name, key] = (heads[name], sent)
        for (name, key), value in fresh.items():
            self.streams[name].keys[key] = value
        for (name, seq, is_repeat), (sent, _, retain) in zip(receipts, entries, strict=True):
            if not is_repeat:
                self.store(name, seq, sent)
                if retain and sent.payload:
                    self.retained[sent.topic] = (name, seq, sent)
                elif retain:
                    self.retained.pop(sent.topic, None)
        return receipts

    def store(self, name: str, seq: int, sent: Sent) -> None:
        stream = self.streams[name]
        assert seq == stream.head + 1
        stream.head = seq
        stream.stored[seq] = sent
        for consumer in self.consumers.values():
            if consumer.terms.stream == name and is_match(consumer.terms.filter, sent.topic):
                consumer.matched += 1
                consumer.wanted[seq] = sent

    def make_consumer(self, terms: Terms, floor: int) -> None:
        stream = self.streams[terms.stream]
        wanted = {seq: m for seq, m in stream.stored.items() if seq > floor and is_match(terms.filter, m.topic)}
        self.consumers[terms.name] = Consumer(terms, matched=len(wanted), wanted=wanted)

    def held(self, name: str, now_ms: int) -> set[int]:
        """What a consumer of the stream wants and is not past its TTL."""
        return {
            seq
            for consumer in self.consumers.values()
            if consumer.terms.stream == name
            for seq, sent in consumer.wanted.items()
            if not sent.is_expired(now_ms)
        }

    def _known(self, name: str, key: str, now_ms: int) -> tuple[int, Sent] | None:
        found = self.streams[name].keys.get(key)
        return found if found is not None and now_ms - found[1].time_ms < KEY_AGE_MS else None

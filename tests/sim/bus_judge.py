"""Says whether what was seen of the real bus is what the model expects, or may be: an AssertionError is a verdict."""

from collections import Counter

from edgegw.bus import Bus
from edgegw.consumer import Consumer as RealConsumer
from edgegw.core.record import Gap, Message
from tests.bus_setup import HandClock
from tests.sim.reference_bus import Consumer, ReferenceBus, Sent, is_match

# An encoded chunk may be this much larger than what was estimated for it: its own columns and marks.
ENVELOPE_BYTES = 250
# Rows that one commit of these tests brings at most.
COMMIT_ROWS_MAX = 12

Items = list[Message | Gap]


class Judge:
    """Keeps the model in step with what only the real bus decides. `seen` counts what has happened at all."""

    def __init__(self, model: ReferenceBus, clock: HandClock, seen: Counter[str]) -> None:
        self.model = model
        self.clock = clock
        self.seen = seen
        self.acking: dict[str, set[int]] = {}  # acknowledged in the same commit as a publish: or lost, as the case may be

    def same(self, message: Message, sent: Sent) -> None:
        assert Sent(message.topic, message.payload, message.time_ms, message.source_us, message.expires_ms) == sent

    # --- publish ----------------------------------------------------------------------------------

    def refusal(self, bus: Bus, sents: list[Sent], chunks: dict[str, dict[int, int]]) -> None:
        """Refused: then one of the streams is full of what is held."""
        for name in {self.model.route(sent.topic) for sent in sents}:
            stats = bus.streams[name]
            need = sum(len(sent.payload) + len(sent.topic) + 60 for sent in sents if self.model.route(sent.topic) == name)
            held = self.model.held(name, self.clock.wall_ms())
            if stats.size_bytes + need + ENVELOPE_BYTES > stats.bytes_max and all(
                held.intersection(range(first, last + 1)) for first, last in chunks[name].items()
            ):
                self.seen["refused"] += 1
                return
        raise AssertionError("refused though there was room, or something to evict")

    # --- reading ----------------------------------------------------------------------------------

    def reading(self, name: str, topic_filter: str, after: int, items: Items) -> None:
        """Everything that matches and is stored is there, in order; what is not stored is covered by a gap."""
        now_ms, stream = self.clock.wall_ms(), self.model.streams[name]
        there = {seq: m for seq, m in stream.stored.items() if seq > after and is_match(topic_filter, m.topic)}
        found = [item for item in items if isinstance(item, Message)]
        assert [item.seq for item in found] == sorted(seq for seq, sent in there.items() if not sent.is_expired(now_ms))
        for item in found:
            self.same(item, there[item.seq])
        missing = {seq for seq in range(after + 1, stream.head + 1) if seq not in stream.stored}
        missing |= {seq for seq, sent in there.items() if sent.is_expired(now_ms)}
        gaps = [item for item in items if isinstance(item, Gap)]
        assert missing <= {seq for gap in gaps for seq in range(gap.first, gap.last + 1)}
        assert sum(gap.messages for gap in gaps) == len(missing)

    def listening(self, name: str, topic_filter: str, after: int, items: Items) -> None:
        """What is still stored was heard, in order and once; the rest may have been, or is told as a gap."""
        seqs = [item.seq if isinstance(item, Message) else item.last for item in items]
        assert seqs == sorted(set(seqs))
        found = {item.seq for item in items if isinstance(item, Message)}
        assert all(seq > after for seq in found)
        covered = {seq for gap in items if isinstance(gap, Gap) for seq in range(gap.first, gap.last + 1)}
        for seq, sent in self.model.streams[name].stored.items():
            if seq > after and is_match(topic_filter, sent.topic):
                assert seq in found or (sent.is_expired(self.clock.wall_ms()) and seq in covered)

    def retained(self, topic_filter: str, found: list[Message]) -> None:
        now_ms = self.clock.wall_ms()
        values = self.model.retained.items()
        wanted = {topic: v for topic, v in values if is_match(topic_filter, topic) and not v[2].is_expired(now_ms)}
        assert [(item.topic, item.stream, item.seq) for item in found] == [(t, *wanted[t][:2]) for t in sorted(wanted)]
        for item in found:
            self.same(item, wanted[item.topic][2])

    # --- streams ----------------------------------------------------------------------------------

    def stream(self, bus: Bus, name: str, chunks: dict[int, int], held: set[int]) -> None:
        """`chunks`: first and last number of each that is stored. `held`: what no eviction may take, before this step."""
        model, stats = self.model.streams[name], bus.streams[name]
        stored = {seq for first, last in chunks.items() for seq in range(first, last + 1)}
        assert stored <= model.stored.keys()
        assert stats.head == model.head
        assert stats.rows == len(stored)
        assert stats.first == (min(stored) if stored else model.head + 1)
        if gone := model.stored.keys() - stored:
            self.eviction(bus, name, gone, chunks, held)
        assert Counter(stats.removed) == model.removed
        assert stats.size_bytes <= stats.bytes_max + ENVELOPE_BYTES
        if stats.rows_max and stats.policy != "hold":
            assert stats.rows <= max(stats.rows_max, COMMIT_ROWS_MAX)

    def eviction(self, bus: Bus, name: str, gone: set[int], chunks: dict[int, int], held: set[int]) -> None:
        """Whole chunks, the oldest first, for a reason, and nothing that is held."""
        model, stats, now_ms = self.model.streams[name], bus.streams[name], self.clock.wall_ms()
        removed = Counter(stats.removed) - model.removed
        assert removed.total() == len(gone)
        assert removed["ttl"] == sum(model.stored[seq].is_expired(now_ms) for seq in gone)
        if stats.policy == "hold":
            assert not gone & held - set().union(*self.acking.values())
        for first, last in chunks.items():
            if last < max(gone):
                assert stats.policy == "hold"
                assert held.intersection(range(first, last + 1))
                self.seen["evicted around what is held"] += 1
        if removed["age"]:
            assert min(model.stored[seq].time_ms for seq in gone) + stats.age_max_s * 1000 < now_ms
        assert stats.rows_max or not removed["rows"]
        assert stats.age_max_s or not removed["age"]
        self.seen.update(f"removed: {reason}" for reason in removed)
        model.removed += removed
        for seq in gone:
            del model.stored[seq]

    def letter(self, real: RealConsumer, letter: Message) -> None:
        """A dead letter: what its consumer had delivered as often as it may, and no longer wants."""
        assert letter.origin is not None
        consumer = self.model.consumers[letter.origin.consumer]
        # Not simply the first that is spent and gone: another may have expired at the same time.
        seq, sent = next(
            (seq, sent)
            for seq in consumer.spent(self.clock.mono_s())
            if not real.ledger.wants(seq)
            and (letter.topic, letter.payload, letter.source_us)
            == ((sent := consumer.wanted[seq]).topic, sent.payload, sent.source_us)
        )
        assert letter.origin.deliveries == consumer.out[seq].deliveries
        consumer.settle(seq)
        consumer.dead += 1
        self.seen["dead letter"] += 1
        self.model.store("dead-letter", letter.seq, Sent(letter.topic, letter.payload, letter.time_ms, letter.source_us))

    # --- consumers --------------------------------------------------------------------------------

    def consumer(self, real: RealConsumer, name: str, gaps_max: int) -> None:
        """Whatever it no longer wants was lost for a reason, or is being acknowledged right now; the books balance."""
        consumer, ledger, now_ms = self.model.consumers[name], real.ledger, self.clock.wall_ms()
        stream = self.model.streams[consumer.terms.stream]
        settled = [seq for seq in sorted(consumer.wanted) if not ledger.wants(seq)]
        acking = self.acking.get(name, set())
        lost = Counter(ledger.lost) - consumer.lost
        for seq in settled:
            assert seq in acking or seq not in stream.stored or consumer.wanted[seq].is_expired(now_ms)
        assert acking <= set(settled)
        assert len(settled) - len(acking) <= lost.total() <= len(settled)
        self.gaps(consumer, [seq for seq in settled if seq not in acking], ledger.gaps, gaps_max)
        consumer.acked += len(settled) - lost.total()
        consumer.lost += lost
        self.seen.update(f"lost: {reason}" for reason in lost)
        for seq in settled:
            consumer.settle(seq)
        assert (ledger.matched, ledger.acked, ledger.dead_lettered) == (consumer.matched, consumer.acked, consumer.dead)
        assert ledger.pending == len(consumer.wanted)
        assert all(ledger.wants(seq) and seq in stream.stored for seq in consumer.wanted)
        assert ledger.lost.keys() <= {"ttl", *stream.removed}
        real._delivery.check()
        ledger.check()

    def gaps(self, consumer: Consumer, lost: list[int], gaps: tuple[Gap, ...], gaps_max: int) -> None:
        """What was just lost is told; gaps are few and in order."""
        for seq in lost:
            assert any(gap.first <= seq <= gap.last for gap in gaps)
        assert len(gaps) <= gaps_max
        assert sum(gap.messages for gap in gaps) <= sum(consumer.lost.values()) + len(lost) + len(consumer.out)
        assert [gap.last for gap in gaps] == sorted({gap.last for gap in gaps})

"""What commits tell: metrics of the journal, both ledgers, and the conditions of the store and its streams."""

from collections.abc import Iterable, Mapping

from edgegw.bus import Bus
from edgegw.conditions import Conditions
from edgegw.limits import BYTES_BUCKETS, LATENCY_BUCKETS_US
from edgegw.observe.metrics import Metrics
from edgegw.store.jobs import Outcome, StreamStats

Samples = Iterable[tuple[tuple[str, ...], float]]


class StoreWatch:
    """Hears of every commit, in the loop."""

    def __init__(self, metrics: Metrics, conditions: Conditions) -> None:
        self._metrics = metrics
        self._conditions = conditions
        self._streams: Mapping[str, StreamStats] = {}
        self._full: dict[str, int] = {}  # streams that refused a publish, with their head then
        self._gone: set[str] = set()  # streams that left the configuration
        self._commits = metrics.counter("edgegw_store_commits_total", "Group commits.")
        self._failed = metrics.counter(
            "edgegw_store_commits_failed_total", "Group commits that failed; nothing of them was acknowledged."
        )
        self._written = metrics.counter("edgegw_store_chunk_bytes_total", "Bytes of chunks given to the database.")
        self._took = metrics.histogram(
            "edgegw_store_commit_seconds", "Duration of a group commit, with its fsync.", LATENCY_BUCKETS_US
        )
        self._size = metrics.histogram("edgegw_store_commit_bytes", "Bytes of chunks in a group commit.", BYTES_BUCKETS)
        self._wal = metrics.gauge(
            "edgegw_store_wal_bytes", "Bytes in the write-ahead log that are not in the database yet; an estimate."
        )

    def opened(self, bus: Bus) -> None:
        """The store is open: its ledgers can be read, and what left the configuration is told."""
        metrics = self._metrics
        streams, consumers = bus.streams, bus.consumers
        metrics.gauge_from("edgegw_store_queue_bytes", "Bytes waiting for the next commit.", lambda: bus.queued_bytes)
        metrics.gauge_from("edgegw_bus_subscriptions", "Live subscriptions.", lambda: bus.subscriptions)
        stream, consumer = ("stream",), ("consumer",)
        metrics.counters_from(
            "edgegw_stream_received_total", "Messages stored ever.", stream, lambda: [((n,), s.head) for n, s in streams.items()]
        )
        metrics.gauges_from(
            "edgegw_stream_rows", "Messages stored now.", stream, lambda: [((n,), s.rows) for n, s in streams.items()]
        )
        metrics.gauges_from(
            "edgegw_stream_bytes", "Bytes stored now.", stream, lambda: [((n,), s.size_bytes) for n, s in streams.items()]
        )
        metrics.counters_from(
            "edgegw_stream_removed_total",
            "Messages removed, by reason.",
            ("stream", "reason"),
            lambda: [((n, reason), rows) for n, s in streams.items() for reason, rows in s.removed.items()],
        )
        metrics.counters_from(
            "edgegw_consumer_matched_total",
            "Messages for a consumer.",
            consumer,
            lambda: [((n,), c.ledger.matched) for n, c in consumers.items()],
        )
        metrics.counters_from(
            "edgegw_consumer_acked_total",
            "Messages acknowledged.",
            consumer,
            lambda: [((n,), c.ledger.acked) for n, c in consumers.items()],
        )
        metrics.gauges_from(
            "edgegw_consumer_pending",
            "Messages a consumer still wants.",
            consumer,
            lambda: [((n,), c.ledger.pending) for n, c in consumers.items()],
        )
        metrics.counters_from(
            "edgegw_consumer_dead_lettered_total",
            "Messages that became dead letters.",
            consumer,
            lambda: [((n,), c.ledger.dead_lettered) for n, c in consumers.items()],
        )
        metrics.counters_from(
            "edgegw_consumer_lost_total",
            "Messages removed while a consumer wanted them, by reason.",
            ("consumer", "reason"),
            lambda: [((n, reason), rows) for n, c in consumers.items() for reason, rows in c.ledger.lost.items()],
        )
        self._streams = streams
        self._tell_streams()

    def _tell_streams(self) -> None:
        """Who left the configuration, and who is back."""
        for name, stats in self._streams.items():
            condition = f"stream_{name}"
            self._conditions.declare(condition, required=False, text=f"the stream {name} takes messages")
            if not stats.is_configured:
                self._gone.add(name)
                self._conditions.raise_(
                    condition,
                    f"the stream {name} left the configuration; its {stats.rows} messages are kept, read-only",
                    "put it back",
                )
            elif name in self._gone:
                self._gone.remove(name)
                self._conditions.clear(condition)

    def committed(self, outcome: Outcome, jobs: int) -> None:
        """One group commit came back."""
        self._wal.set(outcome.wal_bytes)
        if outcome.error is not None:
            self._failed.inc()
            self._conditions.raise_("store", outcome.error.what, outcome.error.hint)
            return
        if outcome.is_configured:
            self._tell_streams()
        if outcome.written_bytes or outcome.ledgers:  # a turn that wrote nothing says nothing about the disk
            self._conditions.clear("store")
        if outcome.written_bytes:
            self._commits.inc()
            self._written.inc(outcome.written_bytes)
            self._took.observe(outcome.commit_us)
            self._size.observe(outcome.written_bytes)
        for name, error in outcome.full.items():
            self._full[name] = outcome.streams[name].head
            self._conditions.raise_(f"stream_{name}", error.what, error.hint)
        for name in outcome.streams.keys() & self._full.keys() - outcome.full.keys():
            if outcome.streams[name].head > self._full[name]:  # a publish fits again; an ack alone is no sign of it
                del self._full[name]
                self._conditions.clear(f"stream_{name}")

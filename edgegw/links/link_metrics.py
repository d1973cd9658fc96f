"""What links count, by the name of the link."""

from collections.abc import Callable, Iterable

from edgegw.limits import LATENCY_BUCKETS_US
from edgegw.observe.metrics import Metrics


class LinkMetrics:
    """Made once for all links; `states` gives name, pending messages, window and whether the upstream answers."""

    def __init__(self, metrics: Metrics, states: Callable[[], Iterable[tuple[str, int, int, bool]]]) -> None:
        self.messages = metrics.counters(
            "edgegw_link_messages_total", "Messages by what became of them: taken, dead_letter, expired.", ("link", "result")
        )
        self.requests = metrics.counters("edgegw_link_requests_total", "Requests to the upstream.", ("link", "verdict"))
        self.sent_bytes = metrics.counters("edgegw_link_sent_bytes_total", "Bodies of requests.", ("link",))
        self.skips = metrics.counters("edgegw_link_skips_total", "Times live data went ahead of a backlog.", ("link",))
        self.took = metrics.histograms("edgegw_link_request_seconds", "From request to answer.", ("link",), LATENCY_BUCKETS_US)
        metrics.gauges_from(
            "edgegw_link_pending", "Messages the upstream has not taken.", ("link",), lambda: [((s[0],), s[1]) for s in states()]
        )
        metrics.gauges_from(
            "edgegw_link_window", "Requests that may be under way.", ("link",), lambda: [((s[0],), s[2]) for s in states()]
        )
        metrics.gauges_from(
            "edgegw_link_up", "1 while the upstream takes messages.", ("link",), lambda: [((s[0],), int(s[3])) for s in states()]
        )

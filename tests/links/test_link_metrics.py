"""What links count is there, by name."""

from edgegw.links.link_metrics import LinkMetrics
from edgegw.observe.metrics import Metrics


def test_states_become_gauges() -> None:
    metrics = Metrics()
    counts = LinkMetrics(metrics, lambda: [("a", 5, 2, True), ("b", 0, 1, False)])
    counts.messages.labels("a", "taken").inc(3)
    text = metrics.render()
    for line in (
        'edgegw_link_pending{link="a"} 5', 'edgegw_link_window{link="a"} 2', 'edgegw_link_up{link="a"} 1',
        'edgegw_link_up{link="b"} 0', 'edgegw_link_messages_total{link="a",result="taken"} 3',
    ):  # fmt: skip
        assert line in text.splitlines()

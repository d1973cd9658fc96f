"""[[link]]: a service for each; what they need is loaded with the first of them."""

import random
from collections.abc import Mapping
from socket import gethostname
from typing import TYPE_CHECKING

from edgegw.bus import Bus
from edgegw.clock import Clock
from edgegw.conditions import Conditions
from edgegw.config import Config, LinkConfig
from edgegw.observe.metrics import Metrics
from edgegw.services import Run

if TYPE_CHECKING:
    from edgegw.links.http_link import HttpLink
    from edgegw.links.link_metrics import LinkMetrics


class Links:
    """All links of the gateway, by their name."""

    def __init__(self, bus: Bus, clock: Clock, conditions: Conditions, metrics: Metrics) -> None:
        self._bus = bus
        self._clock = clock
        self._conditions = conditions
        self._metrics = metrics
        self._counts: LinkMetrics | None = None
        self._links: dict[str, HttpLink] = {}

    def wanted(self, config: Config) -> Mapping[str, tuple[LinkConfig, str]]:
        """What each link's service is made of."""
        names = {link.name for link in config.links}
        self._links = {name: link for name, link in self._links.items() if name in names}
        return {f"link_{link.name}": (link, config.gateway.name or gethostname()) for link in config.links}

    def make(self, wanted: tuple[LinkConfig, str]) -> Run:
        """The service of a link."""
        from edgegw.links.http_link import HttpLink
        from edgegw.links.link_metrics import LinkMetrics

        config, gateway = wanted
        if self._counts is None:
            self._counts = LinkMetrics(self._metrics, lambda: [link.state() for link in self._links.values()])
        link = self._links[config.name] = HttpLink(
            config,
            self._bus,
            self._clock,
            gateway=gateway,
            conditions=self._conditions,
            metrics=self._counts,
            random01=random.random,
        )
        return link.run

    def status(self) -> dict[str, object]:
        """For /v1/status."""
        return {name: link.status() for name, link in sorted(self._links.items())}

"""/v1/config: what configuration holds, and the order to read it again."""

import json
from collections.abc import Awaitable, Callable, Mapping

from edgegw.api.queries import Query
from edgegw.api.routing import Answer, Call, Route
from edgegw.core.access import ADMIN

_JSON_HEADERS = {"Content-Type": "application/json"}


class ConfigRoutes:
    """`view` gives what holds, `reload` reads it again; its mapping says what that did. Raises ConfigError with all faults."""

    def __init__(self, view: Callable[[], Mapping[str, object]], reload: Callable[[], Awaitable[Mapping[str, object]]]) -> None:
        self._view = view
        self._reload = reload

    def table(self) -> list[Route]:
        """Every route."""
        return [
            Route("GET", "/v1/config", self.show, ADMIN),
            Route("POST", "/v1/config/reload", self.reload, ADMIN),
        ]

    async def show(self, call: Call) -> Answer:
        """Every value with its origin, and the latest reload."""
        Query(call)
        return _json(self._view())

    async def reload(self, call: Call) -> Answer:
        """Answered when it is at work."""
        Query(call)
        call.take()
        return _json(await self._reload())


def _json(value: Mapping[str, object]) -> Answer:
    return Answer(200, json.dumps(value, separators=(",", ":")).encode() + b"\n", _JSON_HEADERS)

"""/v1/tokens: who may ask, made and revoked by an admin. A secret is told once, in the answer that makes it."""

import json
from collections.abc import Mapping
from typing import Any

from edgegw.api.bodies import parse_object
from edgegw.api.queries import Query
from edgegw.api.routing import Answer, Call, Route
from edgegw.callers import Callers, token_json
from edgegw.core.access import ADMIN
from edgegw.errors import RequestError

_FIELDS = frozenset({"name", "scopes", "topics", "expires_s"})
_HEADERS: Mapping[str, str] = {"Content-Type": "application/json", "Cache-Control": "no-store"}


class TokenRoutes:
    """The routes over all tokens of the gateway."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    def table(self) -> list[Route]:
        """Every route."""
        return [
            Route("GET", "/v1/tokens", self.tokens, ADMIN),
            Route("POST", "/v1/tokens", self.create, ADMIN),
            Route("DELETE", "/v1/tokens/{name}", self.revoke, ADMIN),
        ]

    async def tokens(self, call: Call) -> Answer:
        """All of them, by name, without their secrets."""
        Query(call)
        return _json(200, [token_json(held) for held in self._callers.held()])

    async def create(self, call: Call) -> Answer:
        """A new one, with its secret."""
        Query(call)
        fields = parse_object(await call.body(), _FIELDS)
        name, expires_s = fields.get("name"), fields.get("expires_s")
        if not isinstance(name, str):
            raise _bad("name", "a token has no name", "a string")
        if isinstance(expires_s, bool) or not isinstance(expires_s, int | float | None):
            raise _bad("expires_s", "expires_s is no number of seconds", "a number, or leave it out")
        held, secret = await self._callers.create(name, _texts(fields, "scopes"), _texts(fields, "topics"), expires_s)
        return _json(201, token_json(held) | {"token": secret})

    async def revoke(self, call: Call) -> Answer:
        """It is good for nothing from now on."""
        Query(call)
        call.take()
        await self._callers.revoke(call.name)
        return Answer(204, b"", {})


def _texts(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _bad(name, f"{name} is no list of strings", 'as ["publish"]')
    return tuple(value)


def _bad(where: str, what: str, hint: str) -> RequestError:
    return RequestError("bad_field", what, hint, where=where)


def _json(status: int, value: object) -> Answer:
    return Answer(status, json.dumps(value, separators=(",", ":")).encode() + b"\n", _HEADERS)

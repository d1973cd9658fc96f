"""Who shows a token: all tokens in memory, found by the digest of their secret; on disk when a change is answered.

Asking costs a hash and a look into a dict, whatever their number. When each was last used is known in memory only: it would
cost a write per request, and after a restart "not since the start" is true.
"""

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol

from edgegw.clock import Clock
from edgegw.core.access import (
    KNOWN,
    LOCAL,
    NOBODY,
    Caller,
    Token,
    check_expiry_s,
    check_scopes,
    check_token_name,
    digest_of,
    secret_of,
)
from edgegw.core.times import time_text_ms
from edgegw.core.topic import check_filter
from edgegw.errors import Conflict, NotFound, TooLarge, Unauthorized
from edgegw.limits import TOKEN_RANDOM_BYTES, TOKEN_TOPICS_BYTES_MAX, TOKEN_TOPICS_MAX, TOKENS_MAX
from edgegw.observe.log import Log

_log = Log(__name__)
_HINT = "Authorization: Bearer egw_…; `edgegw token create` makes one"


class TokenFile(Protocol):
    """Where tokens are kept: `store.state.StateFile`."""

    async def tokens(self) -> list[Token]:
        """All."""

    async def put_token(self, token: Token) -> None:
        """Keep one."""

    async def remove_token(self, name: str) -> None:
        """Forget one."""


class Held:
    """A token in memory, and who shows it."""

    __slots__ = ("caller", "token", "used_ms")

    def __init__(self, token: Token) -> None:
        self.token = token
        self.caller: Caller = token.caller()
        self.used_ms: int | None = None


class Callers:
    """Every token of the gateway. `random_bytes` makes secrets; without a file they last as long as the object."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes], file: TokenFile | None = None) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._file = file
        self._by_digest: dict[bytes, Held] = {}
        self._by_name: dict[str, Held] = {}
        self._changing = asyncio.Lock()
        self.is_loaded = False

    def __len__(self) -> int:
        return len(self._by_name)

    async def load(self) -> None:
        """Read them from the file. Raises StoreError."""
        for token in await self._file.tokens() if self._file is not None else ():
            self._hold(token)
        self.is_loaded = True

    def held(self) -> list[Held]:
        """All, by name."""
        return [held for _, held in sorted(self._by_name.items())]

    # --- asking -----------------------------------------------------------------------------------

    def bearer(self, authorization: str) -> Caller:
        """Who shows this Authorization header. Raises Unauthorized(bad_token, expired_token)."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("bad_token", "this kind of authorization is not known here", _HINT, where="Authorization")
        held = self._by_digest.get(digest_of(secret.strip()))
        if held is None:
            raise _unknown()
        self.check_lasting(held.caller)
        held.used_ms = self._clock.wall_ms()
        return held.caller

    def check_lasting(self, caller: Caller) -> None:
        """Whether what it was let in with still holds, after a wait. Raises Unauthorized(bad_token, expired_token)."""
        if caller.is_over:
            raise _unknown()
        if self.has_ended(caller):
            raise Unauthorized(
                "expired_token", f"{caller.name} has expired", "make a new one with `edgegw token create`", where="Authorization"
            )

    def refuse(self, caller: Caller, scope: str) -> NoReturn:
        """This caller lacks the scope. Raises Unauthorized(no_token) for who showed none, else Unauthorized(not_allowed)."""
        if caller is NOBODY or caller is LOCAL:
            what = "this needs a token" if scope == KNOWN else f"this needs a token with the scope {scope}"
            raise Unauthorized("no_token", what, _HINT, where="Authorization")
        caller.check_scope(scope)
        raise AssertionError(f"{caller.name} has the scope {scope}")

    def has_ended(self, caller: Caller) -> bool:
        """Whether the token that it was let in with is gone meanwhile."""
        return caller.is_over or (caller.expires_ms is not None and caller.has_ended(self._clock.wall_ms()))

    # --- changing ---------------------------------------------------------------------------------

    async def create(
        self, name: str, scopes: tuple[str, ...], topics: tuple[str, ...] = (), expires_s: float | None = None
    ) -> tuple[Held, str]:
        """A new token and its secret, which is told this once. Raises RequestError, Conflict(token_exists), StoreError."""
        check_token_name(name)
        scopes, topics = check_scopes(scopes), check_topics(topics)
        now_ms = self._clock.wall_ms()
        expires_ms = None if expires_s is None else now_ms + int(check_expiry_s(expires_s) * 1000)
        async with self._changing:
            if name in self._by_name:
                what = f"there is a token {name!r} already"
                raise Conflict("token_exists", what, "revoke it, or use another name", where="name")
            if len(self._by_name) >= TOKENS_MAX:
                raise Conflict("too_many_tokens", f"there are {TOKENS_MAX} tokens already", "revoke some")
            secret = secret_of(self._random_bytes(TOKEN_RANDOM_BYTES))
            token = Token(name, digest_of(secret), scopes, topics, now_ms, expires_ms)
            if self._file is not None:
                await self._file.put_token(token)
            held = self._hold(token)
        _log.info("token.created", name=name, scopes=" ".join(scopes), topics=len(topics))
        return held, secret

    async def revoke(self, name: str) -> None:
        """It is good for nothing from now on. Raises NotFound(unknown_token), StoreError.

        It stands in the list until it is gone from the disk as well, so that a revocation that failed there can be repeated.
        """
        async with self._changing:
            held = self._by_name.get(name)
            if held is None:
                raise NotFound("unknown_token", f"there is no token {name[:60]!r}", "`edgegw token list` shows all", where="name")
            held.caller.is_over = True
            if self._file is not None:
                await self._file.remove_token(name)
            del self._by_name[name], self._by_digest[held.token.digest]
        _log.info("token.revoked", name=name)

    def _hold(self, token: Token) -> Held:
        held = self._by_name[token.name] = self._by_digest[token.digest] = Held(token)
        return held


def _unknown() -> Unauthorized:
    return Unauthorized("bad_token", "this token is not known here, or was revoked", _HINT, where="Authorization")


def token_json(held: Held) -> dict[str, object]:
    """A token as people read it; `topics` empty is all."""
    token = held.token
    return {
        "name": token.name,
        "scopes": list(token.scopes),
        "topics": list(token.topics),
        "created": time_text_ms(token.created_ms),
        "expires": None if token.expires_ms is None else time_text_ms(token.expires_ms),
        "last_used": None if held.used_ms is None else time_text_ms(held.used_ms),
    }


def check_topics(topics: tuple[str, ...]) -> tuple[str, ...]:
    """The topic filters of a token, each once. Raises RequestError(bad_filter), TooLarge(too_many_filters)."""
    found = tuple(dict.fromkeys(check_filter(each, where="topics") for each in topics))
    if len(found) > TOKEN_TOPICS_MAX or sum(len(each.encode()) for each in found) > TOKEN_TOPICS_BYTES_MAX:
        raise TooLarge(
            "too_many_filters",
            f"a token has at most {TOKEN_TOPICS_MAX} topic filters with {TOKEN_TOPICS_BYTES_MAX} bytes in all",
            "use a wildcard, or several tokens",
            where="topics",
        )
    return found

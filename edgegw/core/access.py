"""Who may do what: callers, their scopes and topic filters, and what a token is made of. Decisions only; nothing is read here.

A route has a scope and a caller has scopes. Whoever may publish or subscribe may do so on all topics (`topics` is None), or on
those that a filter of theirs matches. To read with a filter, one filter of the caller must cover it: match all that it matches.

A token is `egw_` and 256 random bits. Only their SHA-256 is kept: 256 bits cannot be guessed, so no slow hash and no salt is
needed, and the digest is a key to look up, which tells nothing by the time that it takes.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from typing import Final, NamedTuple

from edgegw.core.topic import FilterIndex, covers
from edgegw.errors import RequestError, Unauthorized
from edgegw.limits import (
    CALLER_MATCHES_CACHED_MAX,
    NAME_BYTES_MAX,
    TOKEN_EXPIRY_S_MAX,
    TOKEN_EXPIRY_S_MIN,
    TOKEN_RANDOM_BYTES,
)  # fmt: skip

# What a route may ask for. Everybody has OPEN, also who is not known; KNOWN has whoever is.
OPEN: Final = "open"
KNOWN: Final = "known"
PUBLISH: Final = "publish"
SUBSCRIBE: Final = "subscribe"
ADMIN: Final = "admin"
# What a token may be given.
SCOPES: Final = (PUBLISH, SUBSCRIBE, ADMIN)

TOKEN_PREFIX: Final = "egw_"  # noqa: S105  how to recognise one
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class Caller:
    """Somebody who asks. `topics` None: all, also those that begin with `$`. `is_over`: the token is gone; long answers end."""

    __slots__ = ("_index", "expires_ms", "is_over", "name", "scopes", "topics")

    def __init__(self, name: str, *scopes: str, topics: tuple[str, ...] | None = None, expires_ms: int | None = None) -> None:
        self.name = name
        self.scopes = frozenset({OPEN, KNOWN, *scopes}) if scopes else frozenset({OPEN})
        self.topics = topics
        self.expires_ms = expires_ms
        self.is_over = False
        self._index: FilterIndex[None] | None = None  # made when first asked: most tokens sleep

    @property
    def is_admin(self) -> bool:
        """Whether it may change tokens, configuration and release."""
        return ADMIN in self.scopes

    def has_ended(self, now_ms: int) -> bool:
        """Whether what it was let in with is revoked or expired; for answers that go on."""
        return self.is_over or (self.expires_ms is not None and now_ms >= self.expires_ms)

    def check_scope(self, scope: str) -> None:
        """Whether it has the scope of a route. Raises Unauthorized(not_allowed)."""
        if scope not in self.scopes:
            raise Unauthorized(
                "not_allowed", f"{self.name} may not do this: the scope {scope} is missing", _SCOPE_HINTS.get(scope, _TOKEN_HINT)
            )

    def check_publish(self, topic: str, *, where: str = "topic") -> None:
        """Whether it may publish to a checked topic. Raises Unauthorized(not_allowed)."""
        if self.topics is not None and not self._matches(topic):
            self._refuse(f"publish to {_shown(topic)}", where)

    def check_publish_all(self, topics: list[str]) -> None:
        """Whether it may publish to each topic of a batch. Raises Unauthorized(not_allowed) that names the first it may not."""
        if self.topics is None:
            return
        allowed: set[str] = set()
        for i, topic in enumerate(topics):
            if topic not in allowed:
                if not self._matches(topic):
                    self._refuse(f"publish to {_shown(topic)}, the topic of message {i}", f"[{i}].topic")
                allowed.add(topic)

    def check_subscribe(self, topic_filter: str, *, where: str = "topic") -> None:
        """Whether it may read all that a checked filter matches. Raises Unauthorized(not_allowed)."""
        if not self.may_subscribe(topic_filter):
            self._refuse(f"read {_shown(topic_filter)}", where)

    def may_subscribe(self, topic_filter: str) -> bool:
        """The same, as an answer; for lists that leave out the rest."""
        return self.topics is None or any(covers(granted, topic_filter) for granted in self.topics)

    def _matches(self, topic: str) -> bool:
        if self._index is None:
            self._index = FilterIndex(CALLER_MATCHES_CACHED_MAX)
            for topic_filter in self.topics or ():
                self._index.add(topic_filter, None)
        return bool(self._index.match(topic))

    def _refuse(self, what: str, where: str) -> None:
        granted = ", ".join(map(_shown, (self.topics or ())[:3]))
        raise Unauthorized(
            "not_allowed", f"{self.name} may not {what}", f"its topics: {granted}" if granted else "it has no topics", where=where
        )


# Who is not known may only ask what is open.
NOBODY: Final = Caller("who is not known")
# A program of this machine that came over TCP, or a page in its browser, which Host and Origin hold off.
LOCAL: Final = Caller("who shows no token", PUBLISH, SUBSCRIBE)
# Root, the gateway's own user and members of its group, by the kernel's word.
OWNER: Final = Caller("the owner", *SCOPES)
# Any other user of this machine who got hold of the Unix socket.
STRANGER: Final = Caller("this user of the Unix socket")

_TOKEN_HINT = "use a token that has it: Authorization: Bearer egw_…"  # noqa: S105  a form, not a secret
_SCOPE_HINTS = {ADMIN: "use the gateway's Unix socket, or a token with the scope admin"}


def certificate_caller(subject_name: str) -> Caller:
    """Who showed a client certificate of the CA."""
    return Caller(f"the certificate {_shown(subject_name)}", PUBLISH, SUBSCRIBE)


class Token(NamedTuple):
    """A token as it is kept: never its secret. `topics` empty: all. Times in ms since 1970."""

    name: str
    digest: bytes
    scopes: tuple[str, ...]
    topics: tuple[str, ...]
    created_ms: int
    expires_ms: int | None

    def caller(self) -> Caller:
        """Who shows it."""
        return Caller(f"the token {_shown(self.name)}", *self.scopes, topics=self.topics or None, expires_ms=self.expires_ms)


def secret_of(random: bytes) -> str:
    """The secret that is made of random bytes."""
    assert len(random) == TOKEN_RANDOM_BYTES
    return TOKEN_PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def digest_of(secret: str) -> bytes:
    """What a secret is found by."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def check_token_name(name: str) -> str:
    """Return `name` when it can name a token. Raises RequestError(bad_token_name)."""
    if len(name) > NAME_BYTES_MAX or not _NAME.fullmatch(name):
        raise RequestError(
            "bad_token_name", f"{_shown(name)} cannot name a token", f"1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ .", where="name"
        )
    return name


def check_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """The scopes in their order, each once. Raises RequestError(bad_scope)."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        what = f"{_shown(unknown[0])} is no scope" if unknown else "a token without a scope may do nothing"
        raise RequestError("bad_scope", what, f"one or more of {', '.join(SCOPES)}", where="scopes")
    return tuple(scope for scope in SCOPES if scope in scopes)


def check_expiry_s(seconds: float) -> float:
    """How long a token is to live. Raises RequestError(bad_expiry)."""
    if not TOKEN_EXPIRY_S_MIN <= seconds <= TOKEN_EXPIRY_S_MAX:
        raise RequestError(
            "bad_expiry",
            f"a token cannot expire in {seconds:g} s",
            f"{TOKEN_EXPIRY_S_MIN} to {TOKEN_EXPIRY_S_MAX} s, or no expiry at all",
            where="expires_s",
        )
    return seconds


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")

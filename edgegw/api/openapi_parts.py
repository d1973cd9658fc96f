"""What the description of an operation is made of: codes of refusals, answers, parameters."""

from typing import Any, Final, NamedTuple

from edgegw.api.openapi_schemas import NAME_PATTERN, Schema, text
from edgegw.core.access import OPEN

# A code, its status, and when it is answered.
CODES: Final[dict[str, tuple[int, str]]] = {
    # any request
    "bad_http": (400, "this is not HTTP as RFC 9112 has it"),
    "tls_on_plain_port": (400, "TLS, on a port that speaks HTTP without it"),
    "plain_on_tls_port": (400, "HTTP without TLS, on a port that speaks TLS"),
    "bad_path": (400, "the path is not UTF-8"),
    "unknown_parameter": (400, "a query parameter that is not described here"),
    "bad_parameter": (400, "a query parameter twice, or out of its bounds"),
    "foreign_host": (403, "`Host` is not an address of this gateway"),
    "foreign_site": (403, "a page of another site asks (`Sec-Fetch-Site`)"),
    "foreign_origin": (403, "a page of another site asks (`Origin`)"),
    "unknown_path": (404, "there is nothing at this path"),
    "method_not_allowed": (405, "`Allow` says which methods are"),
    "slow_head": (408, "the head did not come in time"),
    "internal": (500, "a fault of the gateway; its log says more under the request id"),
    "connections_full": (503, "too many connections"),
    "stopping": (503, "the gateway is stopping"),
    # access
    "no_token": (401, "this needs a token"),
    "bad_token": (401, "the token is not known, or was revoked"),
    "expired_token": (401, "the token has expired"),
    "not_allowed": (403, "who asks lacks the scope, or the topic"),
    # bodies
    "bad_body": (400, "the body is cut off, or not what Content-Encoding says"),
    "slow_body": (408, "the body did not come in time"),
    "body_too_large": (413, "more than one request may have, also after inflation"),
    "unsupported_encoding": (415, "Content-Encoding is gzip, deflate or none"),
    "bad_json": (400, "not RFC 8259, or not of the form that is wanted"),
    "unknown_field": (400, "a field that is not described here"),
    "bad_field": (400, "a field of the wrong type or out of its bounds"),
    # publishing
    "bad_topic": (400, "not a topic, or one with wildcards, or reserved"),
    "bad_key": (400, "the key is empty, too long or has control characters"),
    "bad_ttl": (400, "not a number of seconds within its bounds"),
    "bad_flag": (400, "neither true nor false"),
    "bad_time": (400, "not RFC 3339"),
    "bad_class": (400, "no durability class"),
    "bad_content_type": (400, "no media type"),
    "bad_payload": (400, "no payload, two of them, or one that is not what it claims"),
    "bad_batch": (400, "not an array, or an empty one"),
    "bad_entry": (400, "a message of the batch is not an object"),
    "bad_msgpack": (400, "not msgpack"),
    "batch_too_large": (413, "more messages than one batch may have"),
    "unsupported_type": (415, "a batch is JSON, msgpack or NDJSON"),
    "key_reused": (422, "the key stands for another message"),
    "too_many_ranges": (409, "an origin whose ranges have too many gaps between them"),
    "link_loop": (508, "a link of this gateway posts to the gateway itself; nothing was stored"),
    "busy": (429, "the disk is behind; nothing was stored"),
    "store_full": (503, "the stream or the disk is full; nothing was stored"),
    "retained_full": (503, "too many topics have a last value; nothing was stored"),
    # the store
    "deadline": (503, "the store did not answer in time; what was sent may or may not be stored"),
    "store_failed": (503, "a commit or a read failed; nothing of it was acknowledged"),
    "store_unusable": (503, "the database cannot be written: its rights, or a disk that became read-only"),
    "store_damaged": (503, "the database is damaged"),
    "store_closed": (503, "the gateway is stopping"),
    "chunk_corrupt": (503, "stored data is damaged"),
    # reading
    "bad_filter": (400, "not a topic filter"),
    "unknown_stream": (404, "no stream of this name"),
    "beyond_end": (409, "the stream ends before this place: was it replaced?"),
    "bad_event_id": (400, "not `stream:seq`"),
    "other_stream": (409, "the event is not of the stream that is asked for"),
    "too_many_subscriptions": (429, "too many streams are open"),
    # consumers
    "bad_name": (400, "cannot name a consumer"),
    "bad_start": (400, "not a place where a consumer can start"),
    "bad_ack": (400, "either `seqs` or `upto`"),
    "unknown_consumer": (404, "no consumer of this name"),
    "consumer_differs": (409, "it stands on another stream or with another filter"),
    "too_many_consumers": (409, "no more consumers may be made"),
    "consumer_owned": (409, "a link of this gateway drains it"),
    "not_delivered": (409, "a message that was not delivered, or is settled already"),
    # tokens and configuration
    "bad_token_name": (400, "cannot name a token"),
    "bad_scope": (400, "no scope, or none at all"),
    "bad_expiry": (400, "not a time that a token can live"),
    "too_many_filters": (413, "more topic filters than a token may have"),
    "unknown_token": (404, "no token of this name"),
    "token_exists": (409, "there is one of this name"),
    "too_many_tokens": (409, "no more tokens may be made"),
    "state_failed": (503, "the file of the tokens cannot be used"),
    # A reload that is refused: what was at work stays.
    "config_invalid": (400, "the files are wrong; `faults` says where"),
    "bad_certificate": (400, "the certificate, its key or the client CA cannot be used"),
    "bad_socket_path": (400, "the Unix socket cannot stand there"),
    "plaintext_not_allowed": (400, "an address beyond this machine needs TLS, or `allow_plaintext`"),
    "token_needed": (400, "an address beyond this machine needs a token or a client CA"),
    "cannot_listen": (409, "the address cannot be listened on"),
    "too_many_streams": (503, "the store has no room for another stream"),
    "socket_in_use": (409, "another process listens on the Unix socket"),
}

# What any request may meet …
_ANY: Final = (
    "bad_http",
    "tls_on_plain_port",
    "plain_on_tls_port",
    "unknown_parameter",
    "bad_parameter",
    "foreign_host",
    "slow_head",
    "internal",
    "connections_full",
    "stopping",
)
# … unless it is open to all …
_ACCESS: Final = ("no_token", "bad_token", "expired_token", "not_allowed")
# … and when it changes something, or has a body.
_CHANGES: Final = ("foreign_site", "foreign_origin")
_BODY: Final = ("bad_body", "slow_body", "body_too_large", "unsupported_encoding")


class Reply(NamedTuple):
    """An answer that is no refusal: its bodies by media type (none: empty), the names of its headers, and what can follow it."""

    about: str
    content: dict[str, Schema]
    headers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()


class Operation(NamedTuple):
    """One method of one path. `body` is (required, description, media types)."""

    method: str
    path: str
    name: str
    tag: str
    scope: str
    summary: str
    about: str
    replies: dict[int, Reply]
    codes: tuple[str, ...] = ()
    parameters: tuple[Schema, ...] = ()
    body: tuple[bool, str, dict[str, Schema]] | None = None

    @property
    def all_codes(self) -> tuple[str, ...]:
        """Every code that it may refuse with."""
        access = _ACCESS if self.scope != OPEN else ()
        changes = _CHANGES if self.method != "GET" else ()
        body = _BODY if self.body is not None else ()
        path = ("bad_path",) if "{" in self.path else ()
        return tuple(dict.fromkeys((*_ANY, *access, *changes, *path, *body, *self.codes)))


def query(name: str, schema: Schema, about: str, **more: Any) -> Schema:
    """A query parameter."""
    return {"name": name, "in": "query", "description": about, "schema": schema, **more}


def header(name: str, schema: Schema, about: str, **more: Any) -> Schema:
    """A header of a request."""
    return {"name": name, "in": "header", "description": about, "schema": schema, **more}


def flag() -> Schema:
    """A flag in a query."""
    return {"type": "string", "enum": ["0", "1", "false", "true"], "default": "0"}


def named(about: str, example: str, pattern: str = NAME_PATTERN) -> Schema:
    """The name in a path."""
    schema = text(pattern=pattern)
    return {"name": "name", "in": "path", "required": True, "description": about, "schema": schema, "example": example}

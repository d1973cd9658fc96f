"""The one table from errors to HTTP statuses, and the body an error gets (RFC 9457, application/problem+json)."""

import json
from http import HTTPStatus
from typing import Final

from edgegw.errors import (
    Busy,
    ConfigError,
    Conflict,
    GatewayError,
    NotFound,
    PeerError,
    RequestError,
    StoreError,
    StoreFull,
    TooLarge,
    Unauthorized,
)  # fmt: skip
from edgegw.limits import RETRY_BUSY_S, RETRY_STORE_S

# The first class that fits counts.
STATUS: Final[tuple[tuple[type[GatewayError], int], ...]] = (
    (NotFound, 404),
    (Conflict, 409),
    (Unauthorized, 403),
    (TooLarge, 413),
    (RequestError, 400),
    (Busy, 429),
    (StoreFull, 503),
    (StoreError, 503),
    (PeerError, 502),
    (ConfigError, 400),  # a reload was asked for, and what it would bring does not hold
    (GatewayError, 500),
)

# Codes whose status is not their class's.
CODE_STATUS: Final = {
    "key_reused": 422,
    "link_loop": 508,
    # A place that the stream does not have now may be right for another: the request is well formed, the state is not the one.
    "beyond_end": 409,
    # The same, where the machine is what does not fit.
    "cannot_listen": 409,
    "socket_in_use": 409,
    "method_not_allowed": 405,
    "unsupported_type": 415,
    "unsupported_encoding": 415,
    "no_token": 401,
    "bad_token": 401,
    "expired_token": 401,
    "slow_head": 408,
    "slow_body": 408,
    "connections_full": 503,
    "deadline": 503,
}

RETRY_AFTER_S: Final = {429: RETRY_BUSY_S, 503: RETRY_STORE_S}
CONTENT_TYPE: Final = "application/problem+json"


def status_of(exc: GatewayError) -> int:
    """The HTTP status of an error."""
    return CODE_STATUS.get(exc.code) or next(status for kind, status in STATUS if isinstance(exc, kind))


def problem_body(exc: GatewayError, status: int, request_id: str) -> bytes:
    """The error as problem+json."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": exc.code,
        "detail": exc.what,
        "request_id": request_id,
    }
    if exc.hint:
        body["hint"] = exc.hint
    if isinstance(exc, RequestError) and exc.where:
        body["where"] = exc.where
    if isinstance(exc, ConfigError) and exc.faults:
        body["faults"] = [str(fault) for fault in exc.faults]
    # Escaped to ASCII: what a client sent may come back in `detail`, whatever it was.
    return json.dumps(body).encode() + b"\n"

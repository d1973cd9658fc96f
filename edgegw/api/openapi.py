"""/openapi.json: the whole HTTP API as OpenAPI 3.1, built from `openapi_operations.py` and `openapi_schemas.py`.

Nobody asks for it while a gateway does its work: this module is imported, and the document made, for the one who does.
"""

import json
from typing import Any

from edgegw.api.openapi_operations import operations
from edgegw.api.openapi_parts import CODES, Operation, Reply
from edgegw.api.openapi_schemas import Schema, ref, schemas, text
from edgegw.api.problems import CONTENT_TYPE, RETRY_AFTER_S
from edgegw.core.access import ADMIN, KNOWN, OPEN
from edgegw.limits import REQUEST_ID_CHARS_MAX

_ABOUT = """\
A gateway that never loses what it acknowledged.

- Every answer has `X-Request-Id`; a valid one of the request is taken over.
- Errors are `application/problem+json` (RFC 9457); `code` is stable.
- HEAD is served wherever GET is. A method that a path does not have gets 405 with `Allow`.
- 429 and 503 carry `Retry-After`.
- Bodies may be compressed (`Content-Encoding: gzip` or `deflate`).
- Over loopback and the Unix socket no token is needed to publish and to read. Elsewhere, and over TCP for what has the scope
  `admin`, send `Authorization: Bearer egw_…`.
- A request whose `Host` is not the gateway's, and a request that changes state with a foreign `Origin` or `Sec-Fetch-Site`,
  is refused with 403.
"""
_TAGS = {
    "publish": "messages in",
    "read": "messages out, without a cursor",
    "consumers": "messages out, with a cursor that the gateway keeps",
    "state": "is it well",
    "tokens": "who may ask from elsewhere",
    "configuration": "what the operator wrote",
    "documents": "what is served for people and their tools",
}


def document(version: str) -> bytes:
    """The document as JSON."""
    paths: dict[str, Any] = {}
    shared = {"MethodNotAllowed": _refusal(405, ["method_not_allowed"])}
    for operation in operations():
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, shared)
    whole = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgegw",
            "version": version,
            "summary": "The HTTP API of the edge gateway",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "headers": _headers(),
            "parameters": {"RequestId": _request_id()},
            "responses": shared,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "egw_…",
                    "description": "made by `edgegw token create`",
                }
            },
        },
    }
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _operation(operation: Operation, shared: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        **({"description": operation.about} if operation.about else {}),
        "parameters": [*operation.parameters, {"$ref": "#/components/parameters/RequestId"}],
        "security": _security(operation.scope),
    }
    if operation.body is not None:
        required, about, content = operation.body
        made["requestBody"] = {
            "description": about,
            "required": required,
            "content": {kind: {"schema": schema} for kind, schema in content.items()},
        }
    made["responses"] = _responses(operation, shared)
    return made


def _security(scope: str) -> list[dict[str, list[str]]]:
    """Which tokens; `{}` = none is needed, at least from this machine."""
    if scope == OPEN:
        return []
    token = {"token": [] if scope == KNOWN else [scope]}
    return [token] if scope == ADMIN else [{}, token]


def _responses(operation: Operation, shared: dict[str, Any]) -> dict[str, Any]:
    """By status. A refusal with the same codes stands once, in `shared`: most operations have most of them in common."""
    refusals: dict[int, list[str]] = {}
    for code in operation.all_codes:
        refusals.setdefault(CODES[code][0], []).append(code)
    made: dict[str, Any] = {str(status): _reply(reply) for status, reply in operation.replies.items()}
    for status in sorted(refusals):
        refusal = _refusal(status, refusals[status])
        known = made.get(str(status))
        if known is None:
            made[str(status)] = {"$ref": f"#/components/responses/{_shared(status, refusal, shared)}"}
        else:  # the answer itself has this status as well
            known["description"] += f"; or {refusal['description']}"
            known["headers"] |= {
                name: _headers()[name] | {"required": False} for name in refusal["headers"] if name not in known["headers"]
            }
            known.setdefault("content", {}).update(refusal["content"])
    return made


def _shared(status: int, refusal: dict[str, Any], shared: dict[str, Any]) -> str:
    for name, known in shared.items():
        if known == refusal:
            return name
    name = f"Refusal{status}_{1 + sum(known.startswith(f'Refusal{status}_') for known in shared)}"
    shared[name] = refusal
    return name


def _reply(reply: Reply) -> dict[str, Any]:
    names = ("X-Request-Id", *reply.headers)
    made: dict[str, Any] = {"description": reply.about, "headers": {name: _header_ref(name) for name in names}}
    if reply.content:
        made["content"] = {kind: {"schema": schema} for kind, schema in reply.content.items()}
    if reply.links:
        made["links"] = {name: _link(name) for name in reply.links}
    return made


def _link(name: str) -> dict[str, Any]:
    """How an operation follows another on the same thing; what is acknowledged is what was fetched."""
    link: dict[str, Any] = {"operationId": name, "parameters": {"name": "$request.path.name"}}
    if name == "revokeToken":
        return {"operationId": name, "parameters": {"name": "$response.body#/name"}}
    return link | {"requestBody": {"seqs": ["$response.body#/0/seq"]}} if name in ("ack", "nack") else link


def _refusal(status: int, codes: list[str]) -> dict[str, Any]:
    names = ["X-Request-Id"]
    if status in RETRY_AFTER_S:
        names.append("Retry-After")
    if status == 405:
        names.append("Allow")
    if status == 401:
        names.append("WWW-Authenticate")
    fields = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
    return {
        "description": "; ".join(f"`{code}`: {CODES[code][1]}" for code in codes),
        "headers": {name: _header_ref(name) for name in names},
        "content": {CONTENT_TYPE: {"schema": {"allOf": [ref("Problem"), fields]}}},
    }


def _header_ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/headers/{name}"}


def _headers() -> dict[str, Schema]:
    """Headers of answers."""
    required = {
        "X-Request-Id": (
            "names this request in the gateway's log",
            text(pattern=f"^[A-Za-z0-9._:-]{{1,{REQUEST_ID_CHARS_MAX}}}$"),
        ),
        "Retry-After": ("seconds after which it is worth another try", {"type": "integer", "minimum": 1}),
        "WWW-Authenticate": ("RFC 6750", text(pattern="^Bearer")),
        "X-Accel-Buffering": ("tells nginx to pass events on at once", text()),
        "Content-Security-Policy": ("scripts, styles and requests of this gateway only", text()),
        "X-Content-Type-Options": ("a media type is what it says", {"const": "nosniff", "type": "string"}),
        "Referrer-Policy": ("links tell nobody where they were", text()),
        "Allow": ("methods that this path has", text()),
        "ETag": ("changes when the content does", text()),
        "Cache-Control": ("`no-store` or `no-cache`", text()),
    }
    optional = {"Link": ('`<…>; rel="next"`: where the rest is (RFC 8288)', text())}
    return {name: {"description": about, "required": True, "schema": schema} for name, (about, schema) in required.items()} | {
        name: {"description": about, "schema": schema} for name, (about, schema) in optional.items()
    }


def _request_id() -> Schema:
    return {
        "name": "X-Request-Id",
        "in": "header",
        "description": f"taken over when it is 1 to {REQUEST_ID_CHARS_MAX} of A-Z a-z 0-9 . _ : -, else replaced",
        "schema": text(),
    }

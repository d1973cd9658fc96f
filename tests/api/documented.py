"""Whether an answer is one that /openapi.json tells of: its status, its headers, and its body to the last field."""

import json
from functools import cache
from typing import Any

from edgegw.api.openapi import document
from tests.api.in_process import Reply

# Of HTTP itself, not of an operation.
_HTTP_HEADERS = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding"}

Described = dict[str, Any]


@cache
def described() -> Described:
    """The document."""
    found: Described = json.loads(document("test"))
    return found


def operations() -> dict[tuple[str, str], Described]:
    """Every operation by its method and path."""
    paths = described()["paths"]
    return {(method.upper(), path): operation for path, methods in paths.items() for method, operation in methods.items()}


def path_of(target: str) -> str:
    """The path of the document that serves a target; empty when there is none."""
    asked = target.partition("?")[0].split("/")
    for path in described()["paths"]:
        parts = path.split("/")
        # What stands last takes all the rest: a topic, a part of the page.
        given = asked if path not in ("/v1/topics/{topic}", "/ui/{name}") else asked[: len(parts)]
        if len(given) == len(parts) and all(part[:1] == "{" or part == at for part, at in zip(parts, given, strict=True)):
            return str(path)
    return ""


def faults(method: str, target: str, reply: Reply) -> list[str]:
    """What the document does not say of this answer."""
    methods = described()["paths"].get(path_of(target), {})
    operation = methods.get("get" if method == "HEAD" else method.lower())
    if operation is None:
        # A route of a test's own, or none at all.
        is_told = not methods or reply.status in (400, 403) or not reply.body or reply.code == "method_not_allowed"
        return [] if is_told else [f"{reply.status} to a method that is not described; {reply}"]
    answer = operation["responses"].get(str(reply.status))
    if answer is None:
        return [f"status {reply.status} is not described; {reply}"]
    answer = _resolved(answer)
    return _header_faults(answer, reply) + _body_faults(
        answer, reply, may_be_empty=method == "HEAD" or path_of(target) == "/healthz"
    )


def _header_faults(answer: Described, reply: Reply) -> list[str]:
    known = {name.lower(): _resolved(header) for name, header in answer["headers"].items()}
    found = [f"header {name} is not described" for name in reply.headers.keys() - known.keys() - _HTTP_HEADERS]
    for name, header in known.items():
        value = reply.headers.get(name)
        if value is None:
            found += [f"header {name} is missing"] if header.get("required") else []
        elif header["schema"]["type"] == "integer":
            found += _schema_faults(header["schema"], int(value))
        else:
            found += _schema_faults(header["schema"], value)
    return found


def _body_faults(answer: Described, reply: Reply, *, may_be_empty: bool) -> list[str]:
    content = answer.get("content", {})
    if not reply.body:
        may_be_empty = may_be_empty or reply.headers.get("content-type", "").startswith("text/event-stream")  # has no end
        return [] if may_be_empty or not content else ["the body is missing"]
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if kind not in content:
        return [f"media type {kind} is not described"]
    value = json.loads(reply.body) if kind.endswith("json") else reply.body.decode()
    return _schema_faults(content[kind]["schema"], value)


def _schema_faults(schema: Described, value: object) -> list[str]:
    validator = _validator(json.dumps(schema))
    return [f"{error.instance_path}: {error.message[:300]}" for error in validator.iter_errors(value)]


@cache
def _validator(schema: str) -> Any:
    import jsonschema_rs

    # The references of the schema are those of the document.
    whole = {"components": described()["components"], "allOf": [json.loads(schema)]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def _resolved(value: Described) -> Described:
    if "$ref" not in value:
        return value
    found: Any = described()
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return dict(found)

"""edgegw/api/openapi.py: the document is whole, and it is true."""

import ast
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import pytest_asyncio

import edgegw
from edgegw import errors
from edgegw.api.openapi import document
from edgegw.api.openapi_operations import operations as own_operations
from edgegw.api.openapi_parts import CODES
from edgegw.api.problems import CODE_STATUS, STATUS
from edgegw.api.routing import Route, Router
from edgegw.config import Inputs
from edgegw.core.block import Block
from edgegw.core.columns import CONTENT_TYPE as COLUMNS
from edgegw.core.columns import encode
from edgegw.gateway import Gateway
from tests.api.documented import described, faults, operations
from tests.api.in_process import Reply
from tests.gateway_in_process import Inside, alive, in_folder

pytest.importorskip("jsonschema_rs", reason="no jsonschema-rs: it has no wheel here")

PACKAGE = Path(edgegw.__file__).parent
# Where what an answer may say is raised.
RAISERS = ("api", "core", "store", "bus.py", "callers.py", "consumer.py", "subscription.py", "reload.py")
# Codes that no answer has, and why.
NOT_ANSWERED = {
    "bad_migration": "only at the start",
    "bad_supervisor": "only at the start",
    "data_folder": "only at the start",
    "data_folder_in_use": "only at the start",
    "schema_newer": "only at the start",
    "count_again": "the bus tries again",
    "consumer_exists": "the bus looks first",
}
# Statuses that the answers below do not show, and who does.
NOT_HERE = {
    "408": "a slow client: test_bad_input.py, test_connection.py",
    "413": "large bodies: test_bad_input.py; here for one operation",
    "415": "encodings: test_bad_input.py; here for one operation",
    "429": "a full queue: test_routes.py",
    "500": "a fault of ours: test_server.py",
    "503": "a store that fails or ends: test_routes.py, test_server.py; here where it is the answer itself",
}
# Single answers that it takes much to bring about, and who does.
ELSEWHERE = {
    ("POST", "/v1/messages", "409"): "an origin with many ranges: test_columns_requests.py",
    ("POST", "/v1/messages", "508"): "a link to its own gateway: test_columns_requests.py",
    ("POST", "/v1/config/reload", "409"): "an address that is taken: test_reload.py",
    ("DELETE", "/v1/consumers/{name}", "409"): "the consumer of a link: test_consumer_routes.py",
    ("POST", "/v1/consumers/{name}/fetch", "409"): "the same",
    ("GET", "/v1/stream", "200"): "events without an end: test_stream.py, test_openapi_fuzz.py",
}


# --- the document ---------------------------------------------------------------------------------


def test_it_is_openapi() -> None:
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    assert [str(error) for error in OPENAPI_31_VALIDATOR.iter_errors(described())] == []


def test_it_is_made_when_it_is_asked_for() -> None:
    source = "import sys, edgegw.gateway; print([name for name in sys.modules if 'openapi' in name])"
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    text = document("1").decode()
    asked = {part.split('"')[0] for part in text.split('"$ref":"#/')[1:]}
    there = {f"components/{kind}/{name}" for kind, parts in described()["components"].items() for name in parts}
    there = {name for name in there if "/securitySchemes/" not in name}
    assert asked <= there
    # A method that a path does not have has no operation that could name its answer.
    assert there - asked == {"components/responses/MethodNotAllowed"}


def test_examples_are_what_they_are_examples_of() -> None:
    import jsonschema_rs

    found = list(_examples(described()))
    assert len(found) >= 10
    for schema, example in found:
        whole = {"components": described()["components"], "allOf": [schema]}
        assert jsonschema_rs.Draft202012Validator(whole).is_valid(example), (schema, example)


def _examples(node: object) -> Iterator[tuple[Any, object]]:
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list):
            yield from ((node, example) for example in node["examples"])
        if "example" in node and "schema" in node:
            yield node["schema"], node["example"]
        for value in node.values():
            yield from _examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from _examples(value)


def test_operations_are_told_apart() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in described()["tags"]}
    assert {tag for operation in operations().values() for tag in operation["tags"]} == tags
    assert all(operation["summary"] for operation in operations().values())


# --- against the source ---------------------------------------------------------------------------


@pytest_asyncio.fixture
async def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Route]]:
    """Every route of a whole gateway."""
    found: list[Route] = []
    make = Gateway._router

    def watched(*args: Any) -> Router:
        router = make(*args)
        found.extend(router.routes)
        return router

    monkeypatch.setattr(Gateway, "_router", watched)
    async with alive(in_folder(tmp_path)):
        yield found


async def test_every_route_is_described_with_its_scope_and_no_other(routes: list[Route]) -> None:
    served = {(route.method, route.path.replace("*}", "}")): route.scope for route in routes}
    assert served == {(operation.method, operation.path): operation.scope for operation in own_operations()}
    security: dict[str, list[Any]] = {
        "open": [],
        "known": [{}, {"token": []}],
        "publish": [{}, {"token": ["publish"]}],
        "subscribe": [{}, {"token": ["subscribe"]}],
        "admin": [{"token": ["admin"]}],
    }
    assert {place: operations()[place]["security"] for place in served} == {
        place: security[scope] for place, scope in served.items()
    }


def test_every_code_is_described_with_its_status_and_no_other() -> None:
    raised = {code: status for code, status in _raised() if code not in NOT_ANSWERED}
    assert raised == {code: status for code, (status, _) in CODES.items()}
    assert set(NOT_ANSWERED) <= {code for code, _ in _raised()}


def test_every_code_belongs_to_an_operation() -> None:
    assert {code for operation in own_operations() for code in operation.all_codes} == CODES.keys() - {"method_not_allowed"}


def _raised() -> Iterator[tuple[str, int]]:
    for place in RAISERS:
        for path in [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    kind, code = getattr(errors, node.func.id, None), node.args[0]
                    if isinstance(kind, type) and issubclass(kind, errors.GatewayError) and isinstance(code, ast.Constant):
                        status = next(status for known, status in STATUS if issubclass(kind, known))
                        yield str(code.value), CODE_STATUS.get(str(code.value), status)


# --- against real answers -------------------------------------------------------------------------


class Witness:
    """Asks a gateway, and holds each answer against the document."""

    def __init__(self, inside: Inside, file: Path) -> None:
        self.inside = inside
        self.file = file  # of its configuration
        self.seen: set[tuple[str, str, str]] = set()
        self.admin = ""

    async def ask(self, method: str, path: str, *, at: str = "", body: object = None, status: int = 200, **headers: str) -> Reply:
        """Ask for `at`, which `path` of the document serves; this status and nothing undescribed must come."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if self.admin:
            headers.setdefault("Authorization", f"Bearer {self.admin}")
        reply = await self.inside.request(method, at or path, content, **headers)
        assert reply.status == status, reply
        assert faults(method, at or path, reply) == [], reply
        self.seen.add((method, path, str(status)))
        return reply


@pytest_asyncio.fixture
async def witness(tmp_path: Path) -> AsyncIterator[Witness]:
    """A whole gateway, and a token that may do everything."""
    file = tmp_path / "edgegw.toml"
    file.write_text(f'[gateway]\ndata = "{tmp_path}"\n[http]\nlisten = "127.0.0.1:0"\n[host]\ninterval_s = 0\n')
    inputs = Inputs(file, {}, {}, must_exist=True)
    async with alive(inputs.read().config, inputs=inputs) as inside:
        token = {"name": "admin", "scopes": ["publish", "subscribe", "admin"]}
        reader, writer = await _unix(tmp_path / "edgegw.sock")
        content = json.dumps(token).encode()
        writer.write(b"POST /v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.lower().startswith("content-length"))
        made = json.loads(await reader.readexactly(length))
        writer.close()
        await writer.wait_closed()
        witness = Witness(inside, file)
        witness.admin = made["token"]
        yield witness


async def _unix(path: Path) -> Any:
    import asyncio

    return await asyncio.open_unix_connection(path)


async def test_answers_are_as_described(witness: Witness) -> None:
    await _publishing(witness)
    await _consuming(witness)
    await _reading(witness)
    await _tokens(witness)
    await _documents(witness)
    await _refusals(witness)
    told = {(*place, status) for place, operation in operations().items() for status in operation["responses"]}
    assert {place for place in told - witness.seen if place[2] not in NOT_HERE} - ELSEWHERE.keys() == set()
    assert ELSEWHERE.keys() <= told
    assert {status for *_, status in told} >= NOT_HERE.keys()


async def _publishing(witness: Witness) -> None:
    ask = witness.ask
    topic, batch = "/v1/topics/{topic}", "/v1/messages"
    at = "/v1/topics/a/b"
    options = {"Idempotency_Key": "k", "Edgegw_TTL": "60", "Edgegw_Retain": "true", "Edgegw_Time": "2026-01-02T03:04:05Z"}
    for status in (201, 200):
        await ask("POST", topic, at=at, body=b"1", status=status, Edgegw_Class="crash", **options)
    await ask("POST", topic, at=at, body=b"2", status=422, Idempotency_Key="k")
    await ask("POST", topic, at=at, body=b"", status=201)
    await ask("POST", topic, at="/v1/topics/a%2Fb", body=b"\xff\x00", status=201, Content_Type="image/png")
    await ask("POST", topic, at="/v1/topics/a/+", body=b"1", status=400)
    await ask("POST", topic, at=at, body=b"1" * 2**20 + b"1", status=413)
    await ask("POST", topic, at=at, body=b"1", status=415, Content_Encoding="zstd")
    entries = [
        {"topic": "a", "payload": {"x": [1.50, None]}},
        {"topic": "b", "payload_b64": "/w==", "time": "2026-01-02T03:04:05Z"},
    ]
    for kind, body in (
        ("application/json", json.dumps(entries).encode()),
        ("application/msgpack", msgpack.packb(entries)),
        ("application/x-ndjson", b"\n".join(json.dumps(entry).encode() for entry in entries)),
    ):
        await ask("POST", batch, body=body, status=201, Content_Type=kind)
    keyed = [{"topic": "a", "payload": 1, "key": "j"}]
    for body, status in ((keyed, 201), (keyed, 200), ([*keyed, {"topic": "a", "payload": 2}], 201)):
        await ask("POST", batch, body=body, status=status, Content_Type="application/json")
    await ask("POST", batch, body=[{"topic": "a", "payload": 3, "key": "j"}], status=422, Content_Type="application/json")
    block = Block([7], ["c"], ["text/plain"], [b"1"], [0])
    for status in (201, 200):
        await ask("POST", batch, body=encode("there/e/s/c", 1, 9, block, 0), status=status, Content_Type=COLUMNS)
    await ask("POST", batch, body=b"?", status=400, Content_Type=COLUMNS)
    await ask("POST", batch, body=[], status=400, Content_Type="application/json")


async def _consuming(witness: Witness) -> None:
    ask = witness.ask
    one, fetch, ack, nack = (f"/v1/consumers/{{name}}{verb}" for verb in ("", "/fetch", "/ack", "/nack"))
    terms = {"start": "all", "max_deliver": 1, "ack_wait_s": 0.1}
    await ask("PUT", one, at="/v1/consumers/c", body=terms, status=201)
    await ask("PUT", one, at="/v1/consumers/c", body=terms, status=200)
    await ask("PUT", one, at="/v1/consumers/c", body={"filter": "x"}, status=409)
    await ask("PUT", one, at="/v1/consumers/d", body={"start": {"seq": 99}}, status=409)
    await ask("PUT", one, at="/v1/consumers/d", body={"stream": "x"}, status=404)
    await ask("PUT", one, at="/v1/consumers/d", body={"max_inflight": 0}, status=400)
    await ask("PUT", one, at="/v1/consumers/d", body={"start": {"time": "2026-01-02T03:04:05Z"}, "max_deliver": 1}, status=201)
    rows = (await ask("POST", fetch, at="/v1/consumers/c/fetch?max=5")).json
    await ask("POST", ack, at="/v1/consumers/c/ack", body={"upto": rows[1]["seq"]}, status=204)
    await ask("POST", ack, at="/v1/consumers/c/ack", body={"seqs": [10**6]}, status=409)
    await ask("POST", ack, at="/v1/consumers/c/ack", body={}, status=400)
    await ask("POST", nack, at="/v1/consumers/c/nack", body={"seqs": [rows[2]["seq"]]}, status=204)
    await ask("POST", nack, at="/v1/consumers/c/nack", body={"seqs": [10**6]}, status=409)
    await ask("POST", nack, at="/v1/consumers/c/nack", body={"seqs": [0]}, status=400)
    await ask("POST", fetch, at="/v1/consumers/c/fetch?wait=0.2&raw=1")  # buries what was delivered once
    await ask("POST", fetch, at="/v1/consumers/c/fetch?wait=x", status=400)
    letters = (await ask("GET", "/v1/messages", at="/v1/messages?stream=dead-letter")).json
    assert letters and {"consumer", "deliveries", "reason"} <= letters[0].keys()
    await ask("GET", one, at="/v1/consumers/c")
    await ask("GET", "/v1/consumers", at="/v1/consumers")
    for method, path, verb in (
        ("GET", one, ""),
        ("DELETE", one, ""),
        ("POST", fetch, "/fetch"),
        ("POST", ack, "/ack"),
        ("POST", nack, "/nack"),
    ):
        await ask(method, path, at=f"/v1/consumers/none{verb}", body=None if method != "POST" else {}, status=404)
    await ask("DELETE", one, at="/v1/consumers/c", status=204)


async def _reading(witness: Witness) -> None:
    ask = witness.ask
    for at in ("?after=0", "?raw=1&limit=1", "?topic=a/%23"):
        await ask("GET", "/v1/messages", at=f"/v1/messages{at}")
    assert "link" in (await ask("GET", "/v1/messages", at="/v1/messages?limit=1")).headers
    await ask("HEAD", "/v1/messages", at="/v1/messages?limit=1")
    await ask("GET", "/v1/retained")
    for path in ("/v1/messages", "/v1/stream"):
        await ask("GET", path, at=f"{path}?stream=x", status=404)
        await ask("GET", path, at=f"{path}?after=99", status=409)
        await ask("GET", path, at=f"{path}?topic=a/%23/b", status=400)
    await ask("GET", "/v1/stream", at="/v1/stream?stream=default", status=409, Last_Event_ID="other:1")
    await ask("GET", "/v1/stream", status=400, Last_Event_ID="x")
    await ask("HEAD", "/v1/stream")
    await ask("GET", "/v1/retained", at="/v1/retained?limit=0", status=400)
    for path in ("/healthz", "/readyz", "/metrics", "/v1/status", "/v1/consumers"):
        await ask("GET", path)
        await ask("GET", path, at=f"{path}?x=1", status=400)


async def _tokens(witness: Witness) -> None:
    ask = witness.ask
    made = await ask(
        "POST", "/v1/tokens", body={"name": "t", "scopes": ["publish"], "topics": ["a"], "expires_s": 60}, status=201
    )
    assert made.json["token"].startswith("egw_")
    await ask("POST", "/v1/tokens", body={"name": "t", "scopes": ["publish"]}, status=409)
    await ask("POST", "/v1/tokens", body={"name": "u", "scopes": []}, status=400)
    await ask(
        "POST", "/v1/tokens", body={"name": "u", "scopes": ["publish"], "topics": [f"a/{i}" for i in range(99)]}, status=413
    )
    await ask("GET", "/v1/tokens")
    await ask(
        "POST", "/v1/topics/{topic}", at="/v1/topics/b", status=403, body=b"1", Authorization=f"Bearer {made.json['token']}"
    )
    await ask("DELETE", "/v1/tokens/{name}", at="/v1/tokens/t", status=204)
    await ask("DELETE", "/v1/tokens/{name}", at="/v1/tokens/t", status=404)


async def _documents(witness: Witness) -> None:
    ask = witness.ask
    await ask("GET", "/v1/config")
    text = witness.file.read_text()
    for more, status in (("", 200), ("[log]\nlevel = 'x'\n", 400), ("[[stream]]\nname = 's'\ntopics = ['s/#']\n", 200)):
        witness.file.write_text(text + more)
        await ask("POST", "/v1/config/reload", status=status)
        await ask("GET", "/v1/config")
    for path, at in (("/openapi.json", "/openapi.json"), ("/", "/"), ("/ui/{name}", "/ui/style.css")):
        etag = (await ask("GET", path, at=at)).headers["etag"]
        await ask("GET", path, at=at, status=304, If_None_Match=etag)
    await ask("GET", "/ui/{name}", at="/ui/none", status=404)


async def _refusals(witness: Witness) -> None:
    """What any operation may answer."""
    for method, path in operations():
        at = path.replace("{topic}", "a").replace("{name}", "style.css" if path.startswith("/ui/") else "x")
        await witness.ask(method, path, at=at, status=403, Host="example.org")
        await witness.ask(method, path, at=f"{at}%ff" if "{" in path else at, status=400, Content_Length="x")
        if operations()[method, path]["security"]:
            await witness.ask(method, path, at=at, status=401, Authorization="Bearer egw_unknown")
        await witness.ask("TRACE", path, at=at, status=405)
    await witness.ask("GET", "/nothing", status=404)

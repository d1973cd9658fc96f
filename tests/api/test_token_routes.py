"""What callers may do, over HTTP: tokens with scopes and topics, made and revoked; who comes from elsewhere, and who is local."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from edgegw.api import doors
from edgegw.core.access import ADMIN, KNOWN, OPEN, PUBLISH, SUBSCRIBE
from tests.api.in_process import Api, Reply, running, until

JSON = {"Content_Type": "application/json"}


@pytest_asyncio.fixture
async def exposed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """An API that takes every address for one beyond loopback."""
    monkeypatch.setattr(doors, "is_loopback", lambda host: False)
    async with running() as api:
        yield api


async def token(api: Api, *scopes: str, topics: tuple[str, ...] = (), expires_s: float | None = None) -> dict[str, str]:
    """The header of a new token."""
    _, secret = await api.callers.create(f"t{len(api.callers)}", scopes, topics, expires_s)
    return {"Authorization": f"Bearer {secret}"}


def is_refused(reply: Reply, status: int, code: str) -> bool:
    """Whether it is this refusal; a 401 says how one gets in."""
    assert (reply.status == 401) == ("www-authenticate" in reply.headers)
    return reply.status == status and reply.code == code


# --- scopes -------------------------------------------------------------------------------------


async def test_every_route_asks_for_its_scope(exposed: Api) -> None:
    by_scope = {scope: await token(exposed, scope) for scope in (PUBLISH, SUBSCRIBE, ADMIN)}
    assert {route.scope for route in exposed.router.routes} == {OPEN, KNOWN, PUBLISH, SUBSCRIBE, ADMIN}
    for route in exposed.router.routes:
        path = route.path.replace("{name}", "nobody").replace("{topic*}", "a/b").replace("{name*}", "nothing")
        if path == "/v1/stream":
            continue  # it does not end
        anonymous = await exposed.request(route.method, path)
        assert is_refused(anonymous, 401, "no_token") == (route.scope != OPEN), route
        for scope, headers in by_scope.items():
            reply = await exposed.request(route.method, path, **headers)
            is_allowed = route.scope in (OPEN, KNOWN, scope)
            assert (reply.status in (401, 403)) != is_allowed, (route, scope, reply)
            if not is_allowed:
                assert is_refused(reply, 403, "not_allowed")
                assert f"the scope {route.scope} is missing" in reply.json["detail"]


async def test_which_route_has_which_scope(api: Api) -> None:
    scopes = {(route.method, route.path): route.scope for route in api.router.routes}
    assert {key for key, scope in scopes.items() if scope == PUBLISH} == {
        ("POST", "/v1/topics/{topic*}"),
        ("POST", "/v1/messages"),
    }
    open_paths = {path for (_, path), scope in scopes.items() if scope == OPEN}
    assert {"/healthz", "/readyz"} <= open_paths <= {"/healthz", "/readyz", "/", "/ui/{name*}"}
    assert {path for (_, path), scope in scopes.items() if scope == KNOWN} <= {"/metrics", "/v1/status", "/openapi.json"}
    assert all(
        scope == ADMIN for (_, path), scope in scopes.items() if path.startswith(("/v1/tokens", "/v1/config", "/v1/update"))
    )


async def test_over_loopback_no_token_is_needed_but_for_admin(api: Api) -> None:
    assert (await api.request("POST", "/v1/topics/a", b"1")).status == 201
    assert (await api.request("GET", "/v1/messages")).status == 200
    assert is_refused(await api.request("GET", "/v1/tokens"), 401, "no_token")
    assert (await api.request("GET", "/v1/tokens", **await token(api, ADMIN))).json[0]["name"] == "t0"


async def test_a_token_counts_as_it_stands_over_loopback_too(api: Api) -> None:
    narrow = await token(api, PUBLISH, topics=("a",))
    assert (await api.request("POST", "/v1/topics/a", b"1", **narrow)).status == 201
    assert is_refused(await api.request("POST", "/v1/topics/b", b"1", **narrow), 403, "not_allowed")
    assert is_refused(await api.request("GET", "/v1/messages", **narrow), 403, "not_allowed")
    assert is_refused(await api.request("POST", "/v1/topics/a", b"1", Authorization="Bearer egw_x"), 401, "bad_token")
    assert (await api.request("GET", "/healthz", Authorization="Bearer egw_x")).status == 200
    assert len(await api.payloads()) == 1


async def test_an_expired_token(exposed: Api) -> None:
    headers = await token(exposed, PUBLISH, expires_s=1000)
    for held in exposed.callers.held():
        held.caller.expires_ms = 1
    reply = await exposed.request("POST", "/v1/topics/a", b"1", **headers)
    assert is_refused(reply, 401, "expired_token")
    assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert await exposed.payloads() == []


@pytest.mark.parametrize("value", ["", "Bearer", "Basic YTpi", "Bearer egw_", "egw_x", "Bearer é", "Bearer " + "x" * 10_000])
async def test_a_wrong_token(exposed: Api, value: str) -> None:
    await token(exposed, PUBLISH)
    assert is_refused(await exposed.request("POST", "/v1/topics/a", b"1", Authorization=value), 401, "bad_token")
    assert await exposed.payloads() == []


# --- topics -------------------------------------------------------------------------------------


async def test_topics_of_a_publisher(exposed: Api) -> None:
    narrow = await token(exposed, PUBLISH, topics=("site/7/#",))
    assert (await exposed.request("POST", "/v1/topics/site/7/t", b"1", **narrow)).status == 201
    reply = await exposed.request("POST", "/v1/topics/site/8/t", b"1", **narrow)
    assert is_refused(reply, 403, "not_allowed")
    assert "'site/8/t'" in reply.json["detail"]
    batch = [{"topic": "site/7/t", "payload": 1}, {"topic": "site/8/t", "payload": 2}]
    reply = await exposed.send_json("POST", "/v1/messages", batch, **narrow)
    assert is_refused(reply, 403, "not_allowed")
    assert reply.json["where"] == "[1].topic"
    assert (await exposed.send_json("POST", "/v1/messages", batch[:1], **narrow)).status == 201
    assert len(await exposed.payloads()) == 2


async def test_filters_of_a_reader(exposed: Api) -> None:
    narrow, every = await token(exposed, SUBSCRIBE, topics=("a/#",)), await token(exposed, PUBLISH, SUBSCRIBE)
    for topic in ("a/1", "b/1"):
        await exposed.request("POST", f"/v1/topics/{topic}", b"1", Edgegw_Retain="true", **every)
    for path in ("/v1/messages", "/v1/retained", "/v1/stream"):
        assert is_refused(await exposed.request("GET", path, **narrow), 403, "not_allowed"), path
        assert is_refused(await exposed.request("GET", f"{path}?topic=b/1", **narrow), 403, "not_allowed"), path
    for path in ("/v1/messages", "/v1/retained"):
        assert [row["topic"] for row in (await exposed.request("GET", f"{path}?topic=a/%2B", **narrow)).json] == ["a/1"]


async def test_consumers_of_a_reader(exposed: Api) -> None:
    narrow, every = await token(exposed, SUBSCRIBE, topics=("a/#",)), await token(exposed, SUBSCRIBE)
    put: Callable[..., Any] = exposed.send_json
    assert is_refused(await put("PUT", "/v1/consumers/mine", {"filter": "#"}, **narrow), 403, "not_allowed")
    assert (await put("PUT", "/v1/consumers/mine", {"filter": "a/+"}, **narrow)).status == 201
    assert (await put("PUT", "/v1/consumers/theirs", {"filter": "b/#"}, **every)).status == 201
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/fetch"), ("POST", "/ack"), ("POST", "/nack"),
    ):  # fmt: skip
        body = None if method != "POST" or path == "/fetch" else b'{"seqs": [1]}'
        reply = await exposed.request(method, f"/v1/consumers/theirs{path}", body, **narrow)
        assert is_refused(reply, 403, "not_allowed"), path
    assert (await exposed.request("POST", "/v1/consumers/mine/fetch", **narrow)).status == 200
    assert [row["name"] for row in (await exposed.request("GET", "/v1/consumers", **narrow)).json] == ["mine"]
    assert [row["name"] for row in (await exposed.request("GET", "/v1/consumers", **every)).json] == ["mine", "theirs"]
    assert list((await exposed.request("GET", "/v1/status", **narrow)).json["consumers"]) == ["mine"]
    assert list((await exposed.request("GET", "/v1/status", **every)).json["consumers"]) == ["mine", "theirs"]


# --- making and revoking ------------------------------------------------------------------------


async def test_the_life_of_a_token(exposed: Api) -> None:
    admin = await token(exposed, ADMIN)
    fields = {"name": "pump", "scopes": ["publish"], "topics": ["a/#"], "expires_s": 3600}
    reply = await exposed.send_json("POST", "/v1/tokens", fields, **admin)
    assert reply.status == 201
    assert reply.headers["cache-control"] == "no-store"
    made = reply.json
    assert {name: made[name] for name in ("name", "scopes", "topics")} == {
        "name": "pump",
        "scopes": ["publish"],
        "topics": ["a/#"],
    }
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert (await exposed.request("POST", "/v1/topics/a", b"1", **headers)).status == 201
    listed = (await exposed.request("GET", "/v1/tokens", **admin)).json
    assert [row["name"] for row in listed] == ["pump", "t0"]
    assert "token" not in listed[0]
    assert listed[0]["last_used"] is not None
    assert (await exposed.send_json("POST", "/v1/tokens", fields, **admin)).code == "token_exists"
    assert (await exposed.request("DELETE", "/v1/tokens/pump", **admin)).status == 204
    assert is_refused(await exposed.request("POST", "/v1/topics/a", b"1", **headers), 401, "bad_token")
    assert (await exposed.request("DELETE", "/v1/tokens/pump", **admin)).status == 404


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_field"),
        ({"name": 1, "scopes": ["publish"]}, "bad_field"),
        ({"name": "a"}, "bad_scope"),
        ({"name": "a", "scopes": "publish"}, "bad_field"),
        ({"name": "a", "scopes": [1]}, "bad_field"),
        ({"name": "a", "scopes": ["root"]}, "bad_scope"),
        ({"name": "a/b", "scopes": ["publish"]}, "bad_token_name"),
        ({"name": "a", "scopes": ["publish"], "topics": "a"}, "bad_field"),
        ({"name": "a", "scopes": ["publish"], "topics": ["#/a"]}, "bad_filter"),
        ({"name": "a", "scopes": ["publish"], "expires_s": True}, "bad_field"),
        ({"name": "a", "scopes": ["publish"], "expires_s": -1}, "bad_expiry"),
        ({"name": "a", "scopes": ["publish"], "colour": 1}, "unknown_field"),
    ],
)
async def test_what_makes_no_token(api: Api, fields: dict[str, object], code: str) -> None:
    reply = await api.send_json("POST", "/v1/tokens", fields, **await token(api, ADMIN))
    assert (reply.status, reply.code) == (400, code)
    assert len(api.callers) == 1


async def test_a_stream_ends_with_its_token(exposed: Api) -> None:
    reader, writer = await token(exposed, SUBSCRIBE), await token(exposed, PUBLISH)
    wire = await exposed.wire()
    await wire.ask("GET", "/v1/stream", **reader)
    async with asyncio.timeout(20):
        await wire._reader.readuntil(b"\r\n\r\n")
        await exposed.request("POST", "/v1/topics/a", b"1", **writer)
        await wire._reader.readuntil(b'"seq":1,')
        await exposed.callers.revoke("t0")
        await exposed.request("POST", "/v1/topics/a", b"2", **writer)
        rest = await wire._reader.read()
    assert b'"seq":2,' not in rest


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_who_waits_for_messages_gets_none_after_the_end_of_its_token(exposed: Api, end: str) -> None:
    reader, writer, other = [await token(exposed, PUBLISH, SUBSCRIBE) for _ in range(3)]
    await exposed.send_json("PUT", "/v1/consumers/c", {"max_deliver": 5, "ack_wait_s": 0.1}, **reader)
    wire = await exposed.wire()
    await wire.ask("POST", "/v1/consumers/c/fetch?wait=30", **reader)
    await until(lambda: "work" in exposed.phases(), "it waits")
    if end == "revoked":
        await exposed.callers.revoke("t0")
    else:
        exposed.callers.held()[0].caller.expires_ms = 1
    await exposed.request("POST", "/v1/topics/a", b"1", **writer)
    assert is_refused(await wire.reply(), 401, "bad_token" if end == "revoked" else "expired_token")
    rows = (await exposed.request("POST", "/v1/consumers/c/fetch?wait=30", **other)).json
    assert [row["deliveries"] for row in rows] == [2], "it comes again"


async def test_who_is_not_known_is_not_told_why(exposed: Api) -> None:
    exposed.conditions.declare("upstream", required=True, text="the upstream answers")
    exposed.conditions.raise_("upstream", "/etc/edgegw/secret.token cannot be read", "look there")
    reply = await exposed.request("GET", "/readyz")
    assert (reply.status, "secret" in reply.body.decode()) == (503, False)
    (told,) = (each for each in reply.json["conditions"] if each["name"] == "upstream")
    assert (told["status"], told["what"], told["hint"]) == ("raised", "", "/v1/status says why, with a token")
    (known,) = (
        each
        for each in (await exposed.request("GET", "/v1/status", **await token(exposed, PUBLISH))).json["conditions"]
        if each["name"] == "upstream"
    )
    assert known["what"] == "/etc/edgegw/secret.token cannot be read"


# --- pages --------------------------------------------------------------------------------------


async def test_beyond_loopback_any_host_may_be_asked_for_and_is_its_own_origin(exposed: Api) -> None:
    headers = await token(exposed, PUBLISH)
    wire = await exposed.wire()
    wire.host = "gateway.example:8080"
    for origin in ("http://gateway.example:8080", "https://GATEWAY.example:8080"):
        assert (await wire.request("POST", "/v1/topics/a", b"1", Origin=origin, **headers)).status == 201
    for origin in (
        "http://evil.example",
        "null",
        "http://gateway.example",
        f"http://{exposed.host}",
        "ftp://gateway.example:8080",
    ):
        reply = await wire.request("POST", "/v1/topics/a", b"1", Origin=origin, **headers)
        assert is_refused(reply, 403, "foreign_origin"), origin
    assert len(await exposed.payloads()) == 2


async def test_refusals_are_counted(exposed: Api) -> None:
    for _ in range(50):
        assert (await exposed.request("POST", "/v1/topics/a", b"1")).status == 401
    assert exposed.metric('edgegw_http_requests_total{route="/v1/topics/{topic*}",status="401"}') == 50

"""From a request line to a route."""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from edgegw.api.routing import Answer, Call, Route, Router
from edgegw.core.access import OPEN, SCOPES
from edgegw.errors import NotFound, RequestError
from tests.api.in_process import Api


def answers(name: str) -> Callable[[Call], Awaitable[Answer]]:
    async def handler(call: Call) -> Answer:
        return Answer(200, name.encode(), {})

    return handler


ROUTER = Router(
    [
        Route("GET", "/things", answers("all"), OPEN),
        Route("POST", "/things", answers("make"), OPEN),
        Route("GET", "/things/{name}", answers("one"), OPEN),
        Route("DELETE", "/things/{name}", answers("drop"), OPEN),
        Route("POST", "/things/{name}/poke", answers("poke"), OPEN),
        Route("POST", "/deep/{path*}", answers("deep"), OPEN),
    ],
    10,
)


def find(method: str, path: str) -> tuple[str, str]:
    """The path of the route, and what the request's path names."""
    url = SimpleNamespace(raw_path=URL(path, encoded=True).raw_path if "://" in path else path)
    request: Any = SimpleNamespace(method=method, raw_path=path, rel_url=url)
    connection: Any = None
    call, route = ROUTER.find(request, connection)
    return route.path, call.name


@pytest.mark.parametrize(
    ("method", "path", "route", "name"),
    [
        ("GET", "/things", "/things", ""),
        ("HEAD", "/things", "/things", ""),
        ("POST", "/things", "/things", ""),
        ("GET", "/things?a=b", "/things", ""),
        ("GET", "/things/a", "/things/{name}", "a"),
        ("HEAD", "/things/a", "/things/{name}", "a"),
        ("GET", "/things/", "/things/{name}", ""),
        ("POST", "/things/a/poke?x", "/things/{name}/poke", "a"),
        ("GET", "/things/poke", "/things/{name}", "poke"),
        ("GET", "/things/a%2Fb", "/things/{name}", "a/b"),
        ("POST", "/deep/", "/deep/{path*}", ""),
        ("POST", "/deep/a/b//c/", "/deep/{path*}", "a/b//c/"),
        ("POST", "/deep/%C3%BC/%2B%23%00?q", "/deep/{path*}", "ü/+#\0"),
        ("POST", "/deep/%2e%2e/..", "/deep/{path*}", "../.."),
        ("POST", "/deep/ü", "/deep/{path*}", "ü"),
        ("POST", "/deep/50%", "/deep/{path*}", "50%"),
        ("GET", "http://x/things", "/things", ""),
        ("POST", "http://x:1/deep/a%2Fb?q", "/deep/{path*}", "a/b"),
    ],
)
def test_routes(method: str, path: str, route: str, name: str) -> None:
    assert find(method, path) == (route, name)


@pytest.mark.parametrize(
    "path", ["", "/", "/thing", "/things2", "/things/a/b", "/things/a/poke/", "/deep", "//things", "*", "x:1"]
)
def test_unknown_paths(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        find("GET", path)
    assert caught.value.code == "unknown_path"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/things", "GET, HEAD, POST"),
        ("POST", "/things/a", "DELETE, GET, HEAD"),
        ("GET", "/things/a/poke", "POST"),
        ("HEAD", "/deep/a", "POST"),
    ],
)
def test_methods_that_are_not_allowed(method: str, path: str, allowed: str) -> None:
    with pytest.raises(RequestError) as caught:
        find(method, path)
    assert (caught.value.code, caught.value.where) == ("method_not_allowed", allowed)


@pytest.mark.parametrize("path", ["/deep/%ff", "/deep/%C3", "/deep/%ED%A0%80", "/deep/\udcff", "/deep/\udcc3\udcbc%20\udcff"])
def test_paths_that_are_not_utf8(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        find("POST", path)
    assert caught.value.code == "bad_path"


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_any_path_is_found_or_refused(path: str) -> None:
    try:
        find("POST", f"/deep/{path}")
    except RequestError as error:
        assert error.code in ("bad_path", "unknown_path")


# --- over a socket ------------------------------------------------------------------------------


async def test_unknown_paths_and_methods_over_http(api: Api) -> None:
    reply = await api.request("GET", "/v1/nothing")
    assert (reply.status, reply.code) == (404, "unknown_path")
    reply = await api.request("DELETE", "/v1/messages", b"")
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")
    reply = await api.request("HEAD", "/v1/topics/a")
    assert (reply.status, reply.headers["allow"], reply.body) == (405, "POST", b"")


async def test_the_absolute_form(api: Api) -> None:
    reply = await api.request("POST", f"http://{api.host}/v1/topics/a%2Fb", b"1")
    assert reply.status == 201
    reply = await api.request("GET", f"http://{api.host}/v1/messages?after=0&limit=1")
    assert [row["topic"] for row in reply.json] == ["a/b"]


async def test_percent_encoded_topics(api: Api) -> None:
    for path, topic in (("a/b", "a/b"), ("%C3%BC%2F%20%25", "ü/ %"), ("a%2fb", "a/b"), ("a//b/", "a//b/"), ("a/../b", "a/../b")):
        reply = await api.request("POST", f"/v1/topics/{path}", b"1")
        assert (await api.rows(f"after={reply.json['seq'] - 1}"))[0]["topic"] == topic


async def test_every_route_of_the_table_is_served(api: Api) -> None:
    statuses = {"DELETE": {404}, "PUT": {400, 415}, "GET": {200, 404}, "POST": {201, 400, 404, 415}}
    _, secret = await api.callers.create("all", SCOPES)
    for route in api.router.routes:
        path = route.path.replace("{name*}", "style.css").replace("{name}", "nobody").replace("{topic*}", "a/b")
        reply = await api.request(route.method, path, Authorization=f"Bearer {secret}")
        assert reply.status in statuses[route.method], (route.path, reply)
        assert reply.status != 404 or reply.code != "unknown_path"

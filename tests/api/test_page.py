"""The page's files as HTTP serves them: what stands in the headers, what is found, and what is not."""

import re

import pytest

from edgegw.api.page import ASSETS, read_asset
from edgegw.limits import KIB
from tests.api.in_process import Api

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}


async def test_the_page_is_at_the_root(api: Api) -> None:
    reply = await api.request("GET", "/")
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.body == read_asset("index.html")
    # A link to it may carry anything.
    assert (await api.request("GET", "/?from=mail")).status == 200


@pytest.mark.parametrize("name", sorted(ASSETS))
async def test_every_part_is_served_and_can_do_nothing_but_its_work(api: Api, name: str) -> None:
    reply = await api.request("GET", f"/ui/{name}")
    assert (reply.status, reply.body) == (200, read_asset(name))
    assert reply.headers["content-type"] == ASSETS[name]
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    policy = set(reply.headers["content-security-policy"].split("; "))
    assert policy >= POLICY
    assert not any("unsafe" in rule for rule in policy)


async def test_what_a_browser_has_is_not_sent_again(api: Api) -> None:
    etag = (await api.request("GET", "/ui/app.js")).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        reply = await api.request("GET", "/ui/app.js", If_None_Match=known)
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
        assert "content-security-policy" in reply.headers
    for other in ('"other"', etag.strip('"'), ""):
        assert (await api.request("GET", "/ui/app.js", If_None_Match=other)).status == 200
    assert (await api.request("GET", "/ui/style.css")).headers["etag"] != etag


async def test_head_tells_without_sending(api: Api) -> None:
    for path in ("/", "/ui/app.js"):
        full = await api.request("GET", path)
        reply = await api.request("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        for name in ("content-type", "content-length", "etag"):
            assert reply.headers[name] == full.headers[name]


@pytest.mark.parametrize(
    "path",
    [
        "/ui",
        "/ui/",
        "/ui/none.js",
        "/ui/page.py",
        "/ui/../page.py",
        "/ui/..%2fpage.py",
        "/ui/%2e%2e/page.py",
        "/ui/../../limits.py",
        "/ui//etc/passwd",
        "/ui/%2fetc%2fpasswd",
        "/ui/app.js/",
        "/ui/APP.JS",
        "/ui/app.js%00.css",
        "/ui/..\\page.py",
        "/index.html",
    ],
)
async def test_nothing_else_is_there(api: Api, path: str) -> None:
    reply = await api.request("GET", path)
    assert (reply.status, reply.code) == (404, "unknown_path")


async def test_it_is_for_reading_only(api: Api) -> None:
    for path in ("/", "/ui/app.js"):
        reply = await api.request("POST", path, b"x")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_the_table_names_what_there_is() -> None:
    from importlib.resources import files

    there = {entry.name for entry in (files("edgegw.api") / "ui").iterdir()}
    assert there == set(ASSETS)


def test_it_is_small_and_asks_nobody_else() -> None:
    contents = {name: read_asset(name).decode() for name in ASSETS}
    assert sum(len(content.encode()) for content in contents.values()) <= 100 * KIB
    for name, content in contents.items():
        # The name of the SVG format is no address that is asked.
        urls = re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+[^\s\"')]*", content.replace("http://www.w3.org/2000/svg", ""))
        assert urls == [], name


def test_text_never_becomes_markup() -> None:
    for name in ASSETS:
        if name.endswith(".js"):
            found = re.findall(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", read_asset(name).decode()
            )
            assert found == [], name


def test_every_part_that_is_named_is_there() -> None:
    for name in ASSETS:
        text = read_asset(name).decode()
        for part in re.findall(r"from '\./([\w.]+)'", text) + re.findall(r'(?:src|href)="ui/([\w.]+)"', text):
            assert part in ASSETS, f"{name} names {part}"
    page = read_asset("index.html").decode()
    there = set(re.findall(r'\bid="([\w-]+)"', page))
    for name in ASSETS:
        if name.endswith(".js"):
            assert set(re.findall(r"byId\('([\w-]+)'\)", read_asset(name).decode())) <= there, name

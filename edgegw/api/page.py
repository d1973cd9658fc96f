"""The page at `/`: static files that lie beside this module and hold no data; what they show comes from the API.

A file is read when it is asked for and forgotten again: a page is opened now and then, memory is held all the time. Its ETag
is the hash of what was read, so a browser asks each time and is told that nothing changed, and after an update never runs
the old script against the new API.
"""

from typing import Final

from edgegw.api.etags import answer_unless_known
from edgegw.api.routing import Answer, Call, Route
from edgegw.core.access import OPEN
from edgegw.errors import NotFound

# A name that is not in this table is not there, however it is spelled: no path is ever built from what a client sent.
ASSETS: Final = {
    **dict.fromkeys(
        (
            "api.js", "app.js", "chart.js", "dom.js", "follow.js", "format.js", "frames.js", "health.js", "ledgers.js",
            "messages.js", "payload.js", "publish.js", "series.js", "sse.js", "token.js", "values.js",
        ),
        "text/javascript; charset=utf-8",
    ),
    "icon.svg": "image/svg+xml",
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
}  # fmt: skip

# What the page may do, for the day when a message finds a way into it: no script, no request and no frame but our own, and
# (trusted types) no text that becomes markup.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def page_routes() -> list[Route]:
    """The page and its parts; they are open to all."""
    return [Route("GET", "/", _index, OPEN), Route("GET", "/ui/{name*}", _asset, OPEN)]


async def _index(call: Call) -> Answer:
    return _answer(call, "index.html")


async def _asset(call: Call) -> Answer:
    if call.name not in ASSETS:
        raise NotFound("unknown_path", f"the page has no part {call.name[:60]!r}", "the page itself is at /", where="path")
    return _answer(call, call.name)


def _answer(call: Call, name: str) -> Answer:
    return answer_unless_known(call, read_asset(name), {"Content-Type": ASSETS[name], **_HEADERS})


def read_asset(name: str) -> bytes:
    """A file of the package, by whatever loaded this module: a folder, or the archive of the one-file program."""
    import pkgutil

    content = pkgutil.get_data(__name__, f"ui/{name}")
    assert content is not None
    return content

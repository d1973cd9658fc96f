"""What an answer means, and what an upstream that is set up wrongly says before the first request."""

from email.utils import formatdate
from pathlib import Path

import pytest

from edgegw.config import LinkConfig
from edgegw.errors import ConfigError
from edgegw.limits import LINK_RETRY_AFTER_S_MAX
from edgegw.links.upstream import Upstream, Verdict, judge
from tests.links.upstream_server import Answer, UpstreamServer, hangs, never_ends, resets, says, upstream_server

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (Verdict.TAKEN, [200, 201, 202, 204, 299]),
        (Verdict.AGAIN, [408, 425, 429, 500, 502, 503, 504, 507, 599]),
        (Verdict.SPLIT, [413]),
        (Verdict.REFUSED, [400, 402, 406, 409, 410, 418, 422, 451]),
        (Verdict.ASTRAY, [301, 302, 307, 308, 304, 401, 403, 404, 405, 407, 415, 508, 511]),
    ],
)
def test_statuses(verdict: Verdict, statuses: list[int]) -> None:
    for status in statuses:
        assert judge(status, "application/json", "", 0).verdict is verdict, status


def test_a_login_page_is_no_receipt() -> None:
    reply = judge(200, "text/html", "", 0)
    assert reply.verdict is Verdict.AGAIN
    assert "login page" in reply.words


async def asked(*answers: Answer, **config: object) -> list[tuple[Verdict, str, float]]:
    """What the upstream's answers mean."""
    async with upstream_server() as server:
        server.answers = list(answers)
        upstream = Upstream(LinkConfig(name="up", url=server.url, **config), "store", lambda: NOW_S)  # type: ignore[arg-type]
        await upstream.open()
        try:
            return [await _sent(upstream, server) for _ in answers]
        finally:
            await upstream.close()


async def _sent(upstream: Upstream, _: UpstreamServer) -> tuple[Verdict, str, float]:
    reply = await upstream.send(b"[]", "application/json", "key")
    return reply.verdict, reply.words, reply.wait_s


async def test_a_wait_is_taken_over_as_seconds_or_as_a_date_within_bounds() -> None:
    found = await asked(
        says(503, Retry_After="7"),
        says(429, Retry_After=formatdate(NOW_S + 90, usegmt=True)),
        says(503, Retry_After=formatdate(NOW_S - 90, usegmt=True)),
        says(503, Retry_After="999999999"),
        says(503, Retry_After="soon"),
        says(503, Retry_After="-1"),
    )
    assert [wait_s for _, _, wait_s in found] == [7, 90, 0, LINK_RETRY_AFTER_S_MAX, 0, 0]


async def test_the_words_of_a_refusal_are_kept_short_and_printable() -> None:
    ((verdict, words, _),) = await asked(says(400, "no\x1b[31m\n" + "x" * 10_000))
    assert verdict is Verdict.REFUSED
    assert words.startswith("400 no [31m x") and len(words) < 300
    assert words.isprintable()


async def test_ways_not_to_answer() -> None:
    (hung,) = await asked(hangs, timeout_s=1.0)
    assert hung[:2] == (Verdict.GONE, "no answer within 1 s")
    (cut,) = await asked(resets)
    assert cut[0] is Verdict.GONE
    (endless,) = await asked(never_ends)
    assert endless[0] is Verdict.TAKEN


async def test_nobody_there() -> None:
    async with upstream_server() as server:
        url = server.url
    upstream = Upstream(LinkConfig(name="up", url=url), "store", lambda: NOW_S)
    await upstream.open()
    reply = await upstream.send(b"", "text/plain", "key")
    await upstream.close()
    assert reply.verdict is Verdict.GONE and reply.words


async def test_a_token_goes_along(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("egw_secret\n")
    async with upstream_server() as server:
        upstream = Upstream(LinkConfig(name="up", url=server.url, token_file=tmp_path / "token"), "store", lambda: NOW_S)
        await upstream.open()
        await upstream.send(b"[]", "application/json", "the-key")
        await upstream.close()
    assert server.requests[0]["Authorization"] == "Bearer egw_secret"
    assert server.requests[0]["Idempotency-Key"] == "the-key"


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "cannot be read"), ("", "holds no token"), ("two words", "holds no token"), ("ü", "cannot be read")],
)
async def test_a_token_file_that_holds_none_is_told(content: str | None, what: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match=what):
        await Upstream(LinkConfig(name="up", url="http://x/", token_file=tmp_path / "token"), "store", lambda: NOW_S).open()


async def test_a_certificate_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nonsense")
    with pytest.raises(ConfigError, match="certificate cannot be used"):
        await Upstream(LinkConfig(name="up", url="https://x/", ca_file=tmp_path / "ca"), "store", lambda: NOW_S).open()

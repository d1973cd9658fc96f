"""One upstream over HTTP: sends a body, and says what its answer means for the parcel.

answer                                  verdict
2xx                                     TAKEN       the status is the promise; whether its body ends is not waited for
2xx with an HTML page                   AGAIN       that is a captive portal, not the upstream
408, 425, 429, 5xx                      AGAIN       after Retry-After, if it names one
no connection, no TLS, no answer        GONE
413                                     SPLIT       the same messages in smaller requests
400, 409, 422 and other 4xx             REFUSED     these messages will never be taken
1xx, 3xx, 401, 403, 404, 405, 407, 415  ASTRAY      the link is set up wrongly: no message is to blame
426, 508 (it posts to itself), 511
"""

import asyncio
import ssl
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import aiohttp

from edgegw.config import LinkConfig
from edgegw.core.columns import SENDER
from edgegw.errors import ConfigError
from edgegw.limits import (
    LINK_ANSWER_BYTES_MAX,
    LINK_ANSWER_S,
    LINK_CONNECT_S,
    LINK_KEEP_ALIVE_S,
    LINK_RETRY_AFTER_S_MAX,
    LINK_WORDS_MAX,
)

# 511, RFC 6585 section 6: sign in to the network first. 508, RFC 5842 section 7.2: the link posts to its own gateway.
_ASTRAY = frozenset({401, 403, 404, 405, 407, 415, 426, 508, 511})
_AGAIN = frozenset({408, 425, 429})


class Verdict(StrEnum):
    """What an answer means."""

    TAKEN = "taken"
    AGAIN = "again"
    GONE = "gone"
    SPLIT = "split"
    REFUSED = "refused"
    ASTRAY = "astray"


class Reply(NamedTuple):
    """What came back; `words` for people, `wait_s` what the upstream asked for."""

    verdict: Verdict
    words: str
    status: int = 0
    wait_s: float = 0.0


class Upstream:
    """The HTTP client of one link. Opened and closed in the event loop that uses it."""

    def __init__(self, config: LinkConfig, sender: str, wall_s: Callable[[], float]) -> None:
        """`sender`: the store that is sent from."""
        self._config = config
        self._sender = sender
        self._wall_s = wall_s
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Read tokens and certificates. Raises ConfigError(bad_link)."""
        config = self._config
        headers = {"Accept": "application/json", "User-Agent": "edgegw", SENDER: self._sender}
        if config.token_file is not None:
            headers["Authorization"] = f"Bearer {_read_token(config.token_file)}"
        tls = _tls(config) if config.url.startswith("https:") else None
        connector = aiohttp.TCPConnector(
            limit=config.concurrency_max, keepalive_timeout=LINK_KEEP_ALIVE_S, ssl=tls if tls is not None else True
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=config.timeout_s, connect=min(LINK_CONNECT_S, config.timeout_s)),
            auto_decompress=False,
            trust_env=True,  # boards behind a proxy have it in their environment
        )

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, body: bytes, content_type: str, key: str) -> Reply:
        """Post a body; never raises for what the other side or the way there does."""
        assert self._session is not None
        headers = {"Content-Type": content_type, "Idempotency-Key": key}
        try:
            async with self._session.post(self._config.url, data=body, headers=headers, allow_redirects=False) as response:
                words = await _words(response)
                kind = response.content_type
                wait_s = _retry_after_s(response.headers.get("Retry-After"), self._wall_s())
                return judge(response.status, kind, words, wait_s)
        except TimeoutError:
            return Reply(Verdict.GONE, f"no answer within {self._config.timeout_s:g} s")
        except aiohttp.ClientConnectorCertificateError as exc:
            return Reply(Verdict.GONE, _plain(f"its certificate is not accepted: {exc.certificate_error}"))
        except aiohttp.ClientResponseError as exc:  # as text it has the whole URL, and with it what is secret there
            return Reply(Verdict.GONE, _plain(f"no HTTP: {exc.message}"))
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Reply(Verdict.GONE, _plain(str(exc) or type(exc).__name__))


def judge(status: int, kind: str, words: str, wait_s: float) -> Reply:
    """What an answer with this status and media type means."""
    said = f"{status} {words}".strip()
    if 200 <= status < 300:
        if kind in ("text/html", "application/xhtml+xml"):
            return Reply(Verdict.AGAIN, f"{status} with an HTML page: is that the upstream, or a login page?", status)
        return Reply(Verdict.TAKEN, said, status)
    if status == 413:
        return Reply(Verdict.SPLIT, said, status)
    if status in _ASTRAY or status < 400:
        return Reply(Verdict.ASTRAY, said, status, wait_s)
    if status in _AGAIN or status >= 500:
        return Reply(Verdict.AGAIN, said, status, wait_s)
    return Reply(Verdict.REFUSED, said, status)


async def _words(response: aiohttp.ClientResponse) -> str:
    """The beginning of the answer. One that does not end is left: its status has said what counts."""
    data = b""
    try:
        async with asyncio.timeout(LINK_ANSWER_S):
            async for part in response.content.iter_any():
                data += part[: LINK_ANSWER_BYTES_MAX - len(data)]
                if len(data) >= LINK_ANSWER_BYTES_MAX:
                    response.close()
                    break
    except (TimeoutError, aiohttp.ClientError, OSError):
        response.close()
    if response.status < 300:
        return ""
    return _plain(data[:LINK_WORDS_MAX].decode(errors="replace"))


def _plain(text: str) -> str:
    """One short line of it."""
    return "".join(char if char.isprintable() else " " for char in text[:LINK_WORDS_MAX]).strip()


def _retry_after_s(value: str | None, wall_s: float) -> float:
    """RFC 9110 section 10.2.3: seconds, or a date; bounded, for a wrong clock must not stop a link for years."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit() and len(value) < 10:
        return min(float(value), LINK_RETRY_AFTER_S_MAX)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - wall_s), LINK_RETRY_AFTER_S_MAX)
    except (ValueError, OverflowError):
        return 0.0


def _read_token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeError) as exc:
        raise ConfigError("bad_link", f"the token file {path} cannot be read: {exc}", "see token_file of the link") from exc
    if not token or not token.isprintable() or " " in token:
        raise ConfigError("bad_link", f"the token file {path} holds no token", "it holds the token and nothing else")
    return token


def _tls(config: LinkConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if config.ca_file is None else str(config.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.ca_file is not None:  # Python 3.13 wants more of a CA than those have that people make for their own machines
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if config.certificate is not None:
            context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as exc:
        names = ", ".join(str(path) for path in (config.ca_file, config.certificate, config.key) if path is not None)
        raise ConfigError("bad_link", f"a certificate cannot be used ({names}): {exc}", "see ca_file, certificate, key") from exc
    return context

"""The command line's HTTP client: one keep-alive connection to a gateway, over TCP or its Unix socket.

`request` returns any answer the gateway gave and raises PeerError where there was none; `call` also turns a refusal into the
error it stands for. http.client, because it costs a fifth of the start time of an asynchronous client and a command has one
thing to do at a time.
"""

import argparse
import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import urlsplit

from edgegw.errors import Conflict, GatewayError, NotFound, PeerError, RequestError, TooLarge, Unauthorized
from edgegw.limits import CLIENT_ANSWER_BYTES_MAX, CLIENT_TIMEOUT_S, CLIENT_WORDS_MAX

DEFAULT_URL = "http://127.0.0.1:8080"
_REFUSALS: Mapping[int, type[RequestError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the gateway is: a Unix socket if there is one, else host and port; `prefix` goes before every path."""

    host: str
    port: int
    prefix: str = ""
    socket_path: str = ""
    token: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket_path or f"http://{host}:{self.port}{self.prefix}"


class Answer:
    """What the gateway answered."""

    __slots__ = ("body", "retry_after_s", "status")

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        self.status = status
        self.body = body
        # The other form, a date, needs clocks that agree; the caller has a wait of its own.
        seconds = retry_after is not None and retry_after.isascii() and retry_after.isdigit()
        self.retry_after_s = float(retry_after) if retry_after is not None and seconds else None

    def json(self) -> object:
        """The body as JSON. Raises PeerError(bad_answer)."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise PeerError("bad_answer", "the answer is not JSON", "is this the address of a gateway?") from None

    def problem(self) -> dict[str, object]:
        """The problem+json of a refusal; empty when there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def error(self) -> GatewayError:
        """The error that a status outside 2xx stands for, in the gateway's words."""
        problem = self.problem()
        what = str(problem.get("detail") or problem.get("title") or self.body.decode(errors="replace")).strip()
        code = _printable(str(problem.get("code") or f"http_{self.status}"))
        what, hint = _printable(what) or f"the gateway answered {self.status}", _printable(str(problem.get("hint") or ""))
        if 400 <= self.status < 500 and self.status not in (408, 429):
            return _REFUSALS.get(self.status, RequestError)(code, what, hint, where=_printable(str(problem.get("where") or "")))
        return PeerError(code, what, hint)


class GatewayClient:
    """Asks one gateway, one request at a time. `timeout_s` bounds each wait for the network, not the whole request."""

    def __init__(self, target: Target, *, timeout_s: float = CLIENT_TIMEOUT_S) -> None:
        self._target = target
        self._connection = _UnixConnection(target, timeout_s) if target.socket_path else _connection(target, timeout_s)

    def __enter__(self) -> "GatewayClient":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        *,
        repeatable: bool = False,
    ) -> Answer:
        """Send one request, return the answer whatever its status. Raises PeerError when there is no whole answer.

        A kept connection may have been closed by the other side meanwhile: what is `repeatable` is then sent once more.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        kept = self._connection.sock is not None
        try:
            return self._exchange(method, path, body, headers)
        except (ConnectionError, http.client.RemoteDisconnected) as error:
            if not (kept and repeatable):
                raise self._unreachable(error) from None
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._unreachable(error) from None
        try:
            return self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise self._unreachable(error) from None

    def call(self, method: str, path: str, body: bytes | None = None, *, repeatable: bool = False) -> Answer:
        """Like `request`, and raises the error that a status outside 2xx stands for."""
        answer = self.request(method, path, body, repeatable=repeatable)
        if not 200 <= answer.status < 300:
            raise answer.error()
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        whole = False
        try:
            self._connection.request(method, self._target.prefix + path, body=body, headers=headers)
            response = self._connection.getresponse()
            content = response.read(CLIENT_ANSWER_BYTES_MAX + 1)
            if len(content) > CLIENT_ANSWER_BYTES_MAX:
                raise PeerError("bad_answer", f"the answer is longer than {CLIENT_ANSWER_BYTES_MAX} bytes")
            if response.length:  # a read with a size does not say that the rest is missing
                raise http.client.IncompleteRead(content, response.length)
            whole = True
            return Answer(response.status, content, response.getheader("Retry-After"))
        finally:
            if not whole:  # Ctrl-C too: half an answer must not be taken for the next one
                self._connection.close()

    def _unreachable(self, error: Exception) -> PeerError:
        if isinstance(error, TimeoutError):
            return PeerError("gateway_timeout", f"{self._target} did not answer in time")
        words = error.strerror if isinstance(error, OSError) and error.strerror else _printable(str(error))
        hint = "is it running? `edgegw run` starts one; --url or --socket names another"
        return PeerError("gateway_unreachable", f"{self._target} does not answer: {words or type(error).__name__}", hint)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, target: Target, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._socket_path = target.socket_path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        """Connect to the socket file."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self._timeout_s)
            connected.connect(self._socket_path)
        except BaseException:
            connected.close()
            raise
        self.sock = connected


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add `--url` and `--socket`."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help=f"the gateway's address (default: EDGEGW_URL, else {DEFAULT_URL})")
    where.add_argument("--socket", metavar="PATH", help="the gateway's Unix socket instead (default: EDGEGW_SOCKET)")


def target_of(url: str | None, socket_path: str | None, environ: Mapping[str, str]) -> Target:
    """Where to go: options before environment, socket before URL; EDGEGW_TOKEN goes along. Raises RequestError."""
    token = environ.get("EDGEGW_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise RequestError("bad_token", "EDGEGW_TOKEN has characters that no token has", "was it copied whole, and only it?")
    if socket_path is None and url is None:
        socket_path = environ.get("EDGEGW_SOCKET")
    if socket_path:
        return Target("localhost", 80, socket_path=socket_path, token=token)
    return _parsed_url(url or environ.get("EDGEGW_URL") or DEFAULT_URL, token)


def _parsed_url(url: str, token: str) -> Target:
    hint = f"write it as {DEFAULT_URL}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RequestError("bad_url", f"{url!r} is not a URL: {error}", hint) from None
    prefix = parts.path.rstrip("/")
    clean = not (parts.query or parts.fragment or parts.username or parts.password) and prefix.isascii() and " " not in url
    if parts.scheme != "http" or not host or not clean or not url.isprintable():
        raise RequestError("bad_url", f"{url!r} is not the URL of a gateway", hint)
    return Target(host, port or 80, prefix=prefix, token=token)


def _connection(target: Target, timeout_s: float) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)


def _printable(text: str) -> str:
    """Words of the other side, fit for one line of a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: CLIENT_WORDS_MAX + 1])
    return line if len(line) <= CLIENT_WORDS_MAX else line[:CLIENT_WORDS_MAX] + "…"

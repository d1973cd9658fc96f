"""The command line's HTTP client: one keep-alive connection to a gateway, over TCP or its Unix socket.

`request` returns any answer the gateway gave and raises PeerError where there was none; `call` also turns a refusal into the
error it stands for. http.client, because it costs a fifth of the start time of an asynchronous client and a command has one
thing to do at a time.
"""

import argparse
import http.client
import json
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from urllib.parse import urlsplit

from edgegw.errors import Conflict, GatewayError, NotFound, PeerError, RequestError, TooLarge, Unauthorized
from edgegw.limits import CLIENT_ANSWER_BYTES_MAX, CLIENT_TIMEOUT_S, CLIENT_WORDS_MAX

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# The form in which a gateway says where the rest is.
_NEXT = re.compile(r'<(/[^<>]*)>; rel="next"')
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
    """Where the gateway is: a Unix socket if there is one, else host and port; `prefix` goes before every path.

    With `is_tls` its certificate is judged by the CAs of `ca`, a file, or by those that this machine trusts.
    """

    host: str
    port: int
    prefix: str = ""
    socket_path: str = ""
    token: str = ""
    is_tls: bool = False
    ca: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.socket_path or f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{self.prefix}"


class Answer:
    """What the gateway answered."""

    __slots__ = ("body", "next_path", "retry_after_s", "status")

    def __init__(self, status: int, body: bytes, retry_after: str | None = None, link: str | None = None) -> None:
        self.status = status
        self.body = body
        self.next_path = _next_path(link or "")
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
        more: Mapping[str, str] = NO_HEADERS,
    ) -> Answer:
        """Send one request, return the answer whatever its status. Raises PeerError when there is no whole answer.

        A kept connection may have been closed by the other side meanwhile: what is `repeatable` is then sent once more.
        `more` are headers beside the usual ones.
        """
        headers = self._headers("application/json", more)
        if body is not None:
            headers["Content-Type"] = content_type
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

    @contextmanager
    def listen(self, path: str, *, more: Mapping[str, str] = NO_HEADERS) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that goes on, without their ends; the connection is closed behind it.

        Raises PeerError when there is none or it breaks off, and the error that a status outside 2xx stands for.
        """
        try:
            try:
                self._connection.request("GET", self._target.prefix + path, headers=self._headers("text/event-stream", more))
                response = self._connection.getresponse()
                refusal = b"" if 200 <= response.status < 300 else response.read(CLIENT_ANSWER_BYTES_MAX)
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                raise self._unreachable(error) from None
            if not 200 <= response.status < 300:
                raise Answer(response.status, refusal, response.getheader("Retry-After")).error()
            yield self._lines(response)
        finally:
            self._connection.close()

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while True:
            try:
                line = response.readline(CLIENT_ANSWER_BYTES_MAX + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
            if len(line) > CLIENT_ANSWER_BYTES_MAX:
                raise PeerError("bad_answer", f"a line of the answer is longer than {CLIENT_ANSWER_BYTES_MAX} bytes")
            if not line.endswith(b"\n"):
                return  # it ended; half a line is nothing
            yield line.rstrip(b"\r\n")

    def _headers(self, accept: str, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Accept": accept, **more}
        if self._target.token:
            headers["Authorization"] = f"Bearer {self._target.token}"
        return headers

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
            return Answer(response.status, content, response.getheader("Retry-After"), response.getheader("Link"))
        finally:
            if not whole:  # Ctrl-C too: half an answer must not be taken for the next one
                self._connection.close()

    def _unreachable(self, error: Exception) -> PeerError:
        if isinstance(error, TimeoutError):
            return PeerError("gateway_timeout", f"{self._target} did not answer in time")
        words = error.strerror if isinstance(error, OSError) and error.strerror else _printable(str(error))
        hint = "is it running? `edgegw run` starts one; --url or --socket names another"
        if "CERTIFICATE_VERIFY_FAILED" in words:
            hint = "--ca or EDGEGW_CA names the file with the CA, or the certificate itself"
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
    parser.add_argument(
        "--ca", metavar="FILE", help="CAs that an https gateway is judged by (default: EDGEGW_CA, else those of this machine)"
    )


def target_of(url: str | None, socket_path: str | None, environ: Mapping[str, str], ca: str | None = None) -> Target:
    """Where to go: options before environment, socket before URL; EDGEGW_TOKEN goes along. Raises RequestError."""
    token = environ.get("EDGEGW_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise RequestError("bad_token", "EDGEGW_TOKEN has characters that no token has", "was it copied whole, and only it?")
    if socket_path is None and url is None:
        socket_path = environ.get("EDGEGW_SOCKET")
    if socket_path:
        return Target("localhost", 80, socket_path=socket_path, token=token)
    return _parsed_url(url or environ.get("EDGEGW_URL") or DEFAULT_URL, token, ca or environ.get("EDGEGW_CA", ""))


def _parsed_url(url: str, token: str, ca: str) -> Target:
    hint = f"write it as {DEFAULT_URL}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RequestError("bad_url", f"{url!r} is not a URL: {error}", hint) from None
    prefix = parts.path.rstrip("/")
    clean = not (parts.query or parts.fragment or parts.username or parts.password) and prefix.isascii() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not clean or not url.isprintable():
        raise RequestError("bad_url", f"{url!r} is not the URL of a gateway", hint)
    is_tls = parts.scheme == "https"
    return Target(host, port or (443 if is_tls else 80), prefix=prefix, token=token, is_tls=is_tls, ca=ca)


def _connection(target: Target, timeout_s: float) -> http.client.HTTPConnection:
    if not target.is_tls:
        return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    import ssl

    try:
        context = ssl.create_default_context(cafile=target.ca or None)
    except OSError as error:
        raise RequestError(
            "bad_ca", f"{target.ca} cannot be used: {error.strerror or error}", "a file with CA certificates as PEM"
        ) from None
    if target.ca:  # Python 3.13 wants more of a CA than those have that people make for their own machines
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return http.client.HTTPSConnection(target.host, target.port, timeout=timeout_s, context=context)


def _next_path(link: str) -> str:
    """Where the rest is (RFC 8288), as path and query; empty when this was all."""
    found = _NEXT.match(link)
    return found[1] if found else ""


def _printable(text: str) -> str:
    """Words of the other side, fit for one line of a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: CLIENT_WORDS_MAX + 1])
    return line if len(line) <= CLIENT_WORDS_MAX else line[:CLIENT_WORDS_MAX] + "…"

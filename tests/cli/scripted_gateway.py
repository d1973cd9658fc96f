"""A small real HTTP server for tests of the command line: it stores batches as the gateway does, and fails on cue."""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """A request; `connection` counts connections."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Reply(NamedTuple):
    """An answer. `cut` closes the connection after that many bytes of the body, `closes` after all of it without saying so."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {}
    cut: int | None = None
    closes: bool = False


# Close the connection instead of an answer.
NO_ANSWER = Reply(0)
# Handle the request as the gateway would, then close the connection: what a kill behind the commit looks like.
STORE_AND_DIE = Reply(-1)


def problem(status: int, code: str, detail: str, **more: object) -> Reply:
    """A refusal as the gateway words it; `headers` go out as such."""
    headers: Any = more.pop("headers", {})
    return Reply(status, json.dumps({"status": status, "code": code, "detail": detail, **more}).encode(), headers)


class ScriptedGateway:
    """Answers the first requests by `script` (None = as usual), all others as usual; `stored` is what a reader would get."""

    def __init__(self, script: Iterable[Reply | Callable[[Seen], Reply] | None] = (), *, socket_path: str = "") -> None:
        self.stored: list[dict[str, Any]] = []
        self.seen: list[Seen] = []
        self._script = iter(script)
        self._came = threading.Condition()
        self._places: dict[str, int] = {}
        self._connections: list[socket.socket] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Two writes an answer, and a client that delays its ACK.
            disable_nagle_algorithm = not socket_path

            def setup(self) -> None:
                gateway._connections.append(self.request)
                self.number = len(gateway._connections)
                super().setup()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                reply = gateway._reply(Seen(self.command, self.path, dict(self.headers), body, self.number))
                if reply.status <= 0:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body[: reply.cut])
                self.close_connection = self.close_connection or reply.closes or reply.cut is not None

            do_GET = do_PUT = do_DELETE = do_POST = _answer

            def address_string(self) -> str:
                return "test"  # a Unix socket has no address

            def log_message(self, format: str, *args: object) -> None:
                pass

        if socket_path:
            self._server: ThreadingHTTPServer = _UnixServer(socket_path, Handler)  # type: ignore[arg-type]  # typed for TCP
        else:
            self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "ScriptedGateway":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in self._connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def wait_for_requests(self, count: int) -> None:
        """Until so many came."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.seen) >= count, 30), self.seen

    def _reply(self, seen: Seen) -> Reply:
        with self._came:
            self.seen.append(seen)
            self._came.notify_all()
        step = next(self._script, None)
        if step is not None and step is not STORE_AND_DIE:
            return step(seen) if callable(step) else step
        reply = self._store(seen.body) if (seen.method, seen.path) == ("POST", "/v1/messages") else Reply()
        return NO_ANSWER if step is STORE_AND_DIE else reply

    def _store(self, body: bytes) -> Reply:
        receipts, is_new = [], False
        for message in json.loads(body):
            repeat = message["key"] in self._places
            if not repeat:
                self.stored.append(message)
                self._places[message["key"]] = len(self.stored)
                is_new = True
            receipts.append({"stream": "default", "seq": self._places[message["key"]], "class": "power", "repeat": repeat})
        return Reply(201 if is_new else 200, json.dumps({"receipts": receipts}).encode())


class _UnixServer(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 80

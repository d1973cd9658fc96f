"""edgegw/cli/client.py"""

import argparse
import socket
import threading
from pathlib import Path

import pytest

from edgegw.cli.client import Answer, GatewayClient, Target, add_target_options, target_of
from edgegw.errors import Conflict, NotFound, PeerError, RequestError, TooLarge, Unauthorized
from edgegw.limits import CLIENT_ANSWER_BYTES_MAX, CLIENT_WORDS_MAX
from tests.cli.scripted_gateway import NO_ANSWER, Reply, ScriptedGateway, problem


def client_of(gateway: ScriptedGateway, **environ: str) -> GatewayClient:
    return GatewayClient(target_of(gateway.url, None, environ), timeout_s=10)


# --- where the gateway is ------------------------------------------------------------------------


def test_default_target() -> None:
    assert target_of(None, None, {}) == Target("127.0.0.1", 8080)


def test_options_go_before_environment_and_socket_before_url() -> None:
    environ = {"EDGEGW_URL": "http://a:1", "EDGEGW_SOCKET": "b.sock", "EDGEGW_TOKEN": " secret\n"}
    assert target_of("http://c:2/x/", None, environ) == Target("c", 2, prefix="/x", token="secret")
    assert target_of(None, "d.sock", environ) == Target("localhost", 80, socket_path="d.sock", token="secret")
    assert target_of(None, None, environ).socket_path == "b.sock"
    del environ["EDGEGW_SOCKET"]
    assert target_of(None, None, environ) == Target("a", 1, token="secret")


def test_https() -> None:
    environ = {"EDGEGW_URL": "https://a", "EDGEGW_CA": "ca.pem"}
    assert target_of(None, None, environ) == Target("a", 443, is_tls=True, ca="ca.pem")
    assert target_of("https://b:8443/x", None, environ, "other.pem") == Target(
        "b", 8443, prefix="/x", is_tls=True, ca="other.pem"
    )
    assert str(target_of(None, None, environ)) == "https://a:443"


@pytest.mark.parametrize("content", [None, "", "fish"])
def test_a_ca_that_is_none(content: str | None, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_text(content)
    with pytest.raises(RequestError, match=r"ca\.pem cannot be used") as caught:
        GatewayClient(Target("a", 443, is_tls=True, ca=str(ca)))
    assert caught.value.code == "bad_ca"


def test_target_says_where_and_never_the_token() -> None:
    assert str(Target("::1", 80, prefix="/x", token="secret")) == "http://[::1]:80/x"
    assert str(Target("localhost", 80, socket_path="g.sock", token="secret")) == "g.sock"


@pytest.mark.parametrize(
    "url",
    [
        "8080",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a:99999",
        "http://a?b",
        "http://u:p@a",
        "http://a/b c",
        "http://a/\n",
        "http://[::1",
    ],
)
def test_bad_url(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        target_of(url, None, {})
    assert caught.value.code == "bad_url"
    assert caught.value.line().isprintable()


@pytest.mark.parametrize("token", ["two\nlines", "schlüssel"])
def test_bad_token_is_told_and_not_shown(token: str) -> None:
    with pytest.raises(RequestError, match="EDGEGW_TOKEN") as caught:
        target_of(None, None, {"EDGEGW_TOKEN": token})
    assert token not in caught.value.line()


def test_options() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_target_options(parser)
    assert vars(parser.parse_args([])) == {"url": None, "socket": None, "ca": None}
    with pytest.raises(argparse.ArgumentError, match="not allowed with"):
        parser.parse_args(["--url", "a", "--socket", "b"])


# --- asking --------------------------------------------------------------------------------------


def test_one_connection_for_all_requests() -> None:
    with ScriptedGateway() as gateway, client_of(gateway, EDGEGW_TOKEN="secret") as client:
        for _ in range(3):
            assert client.request("GET", "/v1/status").json() == {}
        client.request("POST", "/v1/topics/a", b"body", "text/plain")
    assert {seen.connection for seen in gateway.seen} == {1}
    assert gateway.seen[0].headers["Authorization"] == "Bearer secret"
    assert "Content-Type" not in gateway.seen[0].headers
    assert gateway.seen[3].body == b"body"
    assert gateway.seen[3].headers["Content-Type"] == "text/plain"


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "g.sock")
    with ScriptedGateway(socket_path=path) as gateway, GatewayClient(target_of(None, path, {})) as client:
        assert client.call("GET", "/v1/status").status == 200
        assert client.call("GET", "/v1/status").status == 200
    assert [seen.connection for seen in gateway.seen] == [1, 1]
    assert gateway.seen[0].headers["Host"] == "localhost"


def test_path_prefix() -> None:
    with ScriptedGateway() as gateway, GatewayClient(target_of(gateway.url + "/edge/", None, {})) as client:
        client.request("GET", "/healthz")
    assert gateway.seen[0].path == "/edge/healthz"


def test_kept_connection_that_was_closed_meanwhile() -> None:
    with ScriptedGateway([Reply(closes=True)]) as gateway, client_of(gateway) as client:
        client.request("GET", "/a")
        assert client.request("POST", "/b", b"", repeatable=True).status == 200
    assert [(seen.path, seen.connection) for seen in gateway.seen] == [("/a", 1), ("/b", 2)]


def test_a_request_that_must_not_be_repeated_is_not() -> None:
    with ScriptedGateway([None, NO_ANSWER]) as gateway, client_of(gateway) as client:
        client.request("GET", "/a")
        with pytest.raises(PeerError):
            client.request("POST", "/b", b"")
        assert client.request("GET", "/c").status == 200
    assert [seen.path for seen in gateway.seen] == ["/a", "/b", "/c"]


def test_a_fresh_connection_without_answer_is_not_tried_again() -> None:
    with ScriptedGateway([NO_ANSWER]) as gateway, client_of(gateway) as client, pytest.raises(PeerError) as caught:
        client.request("GET", "/a", repeatable=True)
    assert caught.value.code == "gateway_unreachable"
    assert len(gateway.seen) == 1


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked", "Content-Length": ""}])
def test_half_an_answer_is_none(headers: dict[str, str]) -> None:
    body = b"a\r\n0123456789\r\n0\r\n\r\n"
    with ScriptedGateway([Reply(200, body, headers, cut=8)]) as gateway, client_of(gateway) as client:
        with pytest.raises(PeerError) as caught:
            client.request("GET", "/a")
        assert caught.value.code == "gateway_unreachable"
        assert client.request("GET", "/b").status == 200


def test_answer_without_end() -> None:
    endless = Reply(200, b" " * (CLIENT_ANSWER_BYTES_MAX + 1))
    with ScriptedGateway([endless]) as gateway, client_of(gateway) as client:
        with pytest.raises(PeerError, match="longer than") as caught:
            client.request("GET", "/a")
        assert caught.value.code == "bad_answer"
        assert client.request("GET", "/b").status == 200


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with GatewayClient(Target("127.0.0.1", port)) as client, pytest.raises(PeerError) as caught:
        client.request("GET", "/a")
    assert caught.value.line() == (
        f"gateway_unreachable: http://127.0.0.1:{port} does not answer: Connection refused"
        " (is it running? `edgegw run` starts one; --url or --socket names another)"
    )


def test_no_socket_file(tmp_path: Path) -> None:
    target = Target("localhost", 80, socket_path=str(tmp_path / "none.sock"))
    with GatewayClient(target) as client, pytest.raises(PeerError, match=r"none\.sock does not answer: No such file"):
        client.request("GET", "/a")


def test_socket_path_that_is_too_long(tmp_path: Path) -> None:
    target = Target("localhost", 80, socket_path=str(tmp_path / ("x" * 200)))
    with GatewayClient(target) as client, pytest.raises(PeerError, match="too long"):
        client.request("GET", "/a")


def test_a_name_that_is_no_name() -> None:
    with GatewayClient(target_of("http://a..b", None, {})) as client, pytest.raises(PeerError):
        client.request("GET", "/a")


def test_a_gateway_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Target("127.0.0.1", silent.getsockname()[1])
        with GatewayClient(target, timeout_s=0.05) as client, pytest.raises(PeerError, match="did not answer in time") as caught:
            client.request("GET", "/a", repeatable=True)
    assert caught.value.code == "gateway_timeout"


def test_not_http() -> None:
    def greet(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"SSH-2.0-\x1b[31mred\r\n")
            accepted.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as other:
        greeter = threading.Thread(target=greet, args=(other,))
        greeter.start()
        with GatewayClient(Target("127.0.0.1", other.getsockname()[1])) as client, pytest.raises(PeerError) as caught:
            client.request("GET", "/a")
        greeter.join()
    assert "SSH-2.0" in caught.value.line()
    assert caught.value.line().isprintable()


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestError),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (408, PeerError),
        (409, Conflict),
        (413, TooLarge),
        (422, RequestError),
        (429, PeerError),
        (500, PeerError),
        (503, PeerError),
        (302, PeerError),
    ],
)
def test_refusals_become_errors(status: int, kind: type[Exception]) -> None:
    reply = problem(status, "its_code", "what went wrong", hint="what to do", where="[3].topic")
    with ScriptedGateway([reply]) as gateway, client_of(gateway) as client, pytest.raises(kind) as caught:
        client.call("GET", "/a")
    assert type(caught.value) is kind
    assert isinstance(caught.value, RequestError | PeerError)
    assert caught.value.line() == "its_code: what went wrong (what to do)"
    if isinstance(caught.value, RequestError):
        assert caught.value.where == "[3].topic"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", "http_404: the gateway answered 404"),
        (b"no such page", "http_404: no such page"),
        (b"[1]", "http_404: [1]"),
        (b"\x1b[2J\n\xff", "http_404:  [2J  �"),
        (b"{" * 100_000, "http_404: " + "{" * CLIENT_WORDS_MAX + "…"),
    ],
)
def test_refusals_without_words(body: bytes, line: str) -> None:
    error = Answer(404, body).error()
    assert error.line().replace("  ", " ") == line.replace("  ", " ")
    assert error.line().isprintable()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.0), (None, None), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None), ("²", None)],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert Answer(503, b"", header).retry_after_s == seconds


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_answers_that_are_not_json(body: bytes) -> None:
    with pytest.raises(PeerError, match="not JSON"):
        Answer(200, body).json()


# --- what follows, and what goes on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ('</v1/messages?after=7>; rel="next"', "/v1/messages?after=7"),
        ('<http://other/x>; rel="next"', ""),
        ('</x>; rel="prev"', ""),
        ("", ""),
    ],
)
def test_where_the_rest_is(link: str, path: str) -> None:
    with ScriptedGateway([Reply(headers={"Link": link})]) as gateway, client_of(gateway) as client:
        assert client.call("GET", "/x").next_path == path


def test_more_headers_go_along() -> None:
    with ScriptedGateway() as gateway, client_of(gateway, EDGEGW_TOKEN="t") as client:
        client.request("POST", "/x", b"1", more={"Edgegw-Class": "crash"})
    wanted = {"Edgegw-Class": "crash", "Authorization": "Bearer t", "Content-Type": "application/json"}
    assert wanted.items() <= gateway.seen[0].headers.items()


@pytest.mark.parametrize("chunked", [False, True])
def test_lines_of_an_answer_that_goes_on(chunked: bool) -> None:
    body = b"a\r\n\nb\nhalf"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:2], body[2:])) + b"0\r\n\r\n"
    reply = Reply(200, chunks, {"Transfer-Encoding": "chunked"}) if chunked else Reply(200, body)
    with (
        ScriptedGateway([reply]) as gateway,
        client_of(gateway) as client,
        client.listen("/x", more={"Last-Event-ID": "s:1"}) as lines,
    ):
        assert list(lines) == [b"a", b"", b"b"]
    assert {"Accept": "text/event-stream", "Last-Event-ID": "s:1"}.items() <= gateway.seen[0].headers.items()


def test_an_answer_that_breaks_off() -> None:
    half = Reply(200, b"5\r\na\nb", {"Transfer-Encoding": "chunked"}, closes=True)
    with ScriptedGateway([half]) as gateway, client_of(gateway) as client, pytest.raises(PeerError), client.listen("/x") as lines:
        list(lines)


def test_a_refusal_instead_of_lines() -> None:
    with ScriptedGateway([problem(404, "unknown_stream", "no"), NO_ANSWER]) as gateway, client_of(gateway) as client:
        with pytest.raises(NotFound, match="no"), client.listen("/x"):
            pass
        with pytest.raises(PeerError), client.listen("/x"):
            pass


def test_what_goes_wrong_while_lines_are_used_is_not_the_gateways() -> None:
    with ScriptedGateway([Reply(200, b"a\n")]) as gateway, client_of(gateway) as client, pytest.raises(BrokenPipeError):  # noqa: SIM117
        with client.listen("/x"):
            raise BrokenPipeError

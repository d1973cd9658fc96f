"""Bodies: what a batch may be, and reading one within its bounds."""

import gzip
import json
import math
import tracemalloc
import zlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.api.bodies import (
    MSGPACK,
    NDJSON,
    check_content_type,
    check_flag,
    check_key,
    check_ttl_s,
    flag_in,
    number_in,
    parse_batch,
    parse_json,
    parse_object,
)
from edgegw.core.record import JSON, OCTETS, Batch
from edgegw.errors import RequestError
from edgegw.limits import BATCH_MESSAGES_MAX, BODY_BYTES_MAX, TTL_S_MAX
from tests.api.in_process import Api, pause

NOW_MS = 1_000_000
TARGET = "/v1/topics/a"


def batch(value: object, kind: str = JSON) -> Batch:
    body = msgpack.packb(value) if kind == MSGPACK else json.dumps(value).encode()
    return parse_batch(kind, body, NOW_MS)


# --- batches ------------------------------------------------------------------------------------


def test_a_payload_is_stored_as_its_json_text() -> None:
    values: list[Any] = [21.5, None, True, "ü", [1, {"a": []}], {"b": 1, "a": 2}, 2**70, -0.0, ""]
    found = batch([{"topic": "a", "payload": value} for value in values])
    assert [json.loads(payload) for payload in found.payloads] == values
    assert found.payloads[3] == '"ü"'.encode()
    assert found.payloads[6] == b"1180591620717411303424"
    assert found.content_types == JSON


def test_bytes_are_stored_as_they_are() -> None:
    found = batch([{"topic": "a", "payload_b64": "AP8="}])
    assert (found.payloads, found.content_types) == ([b"\x00\xff"], OCTETS)
    found = batch([{"topic": "a", "payload": b"\x00\xff"}, {"topic": "b", "payload": 1}], MSGPACK)
    assert (found.payloads, found.content_types) == ([b"\x00\xff", b"1"], [OCTETS, JSON])


def test_the_plain_case_is_what_the_general_one_makes_of_it() -> None:
    plain = batch([{"topic": f"a/{i}", "payload": bytes([i])} for i in range(3)], MSGPACK)
    general = batch([{"topic": f"a/{i}", "payload": bytes([i]), "retain": False} for i in range(3)], MSGPACK)
    for name in Batch.__slots__:
        assert getattr(plain, name) == getattr(general, name), name


def test_every_field() -> None:
    entry = {
        "topic": "a",
        "payload": 1,
        "content_type": "text/plain",
        "key": "k",
        "ttl": 1.5,
        "retain": True,
        "time": "1970-01-01T00:00:01Z",
    }
    found = batch([{"topic": "b", "payload": 2}, entry])
    assert found.content_types == [JSON, "text/plain"]
    assert (found.keys, found.retain) == ([None, "k"], [1])
    assert (found.source_us, found.expires_ms) == ([None, 1_000_000], [None, NOW_MS + 1500])


def test_null_is_as_if_a_field_were_not_there() -> None:
    optional = dict.fromkeys(["content_type", "key", "ttl", "retain", "time", "payload_b64"])
    found = batch([{"topic": "a", "payload": None, **optional}])
    assert (found.payloads, found.keys, found.retain, found.source_us, found.expires_ms) == ([b"null"], None, None, None, None)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n \n"])
def test_ndjson(end: bytes) -> None:
    body = b'{"topic":"a","payload":1}\r\n\n{"topic":"b","payload":2}' + end
    assert parse_batch("Application/X-NDJSON; charset=utf-8", body, NOW_MS).topics == ["a", "b"]


def test_ndjson_counts_messages_not_lines() -> None:
    for bad in (b"{", b'{"topic":"b"}'):
        with pytest.raises(RequestError) as caught:
            parse_batch(NDJSON, b'\n{"topic":"a","payload":1}\n\n\n' + bad, NOW_MS)
        assert caught.value.where == "[1]"


def test_the_largest_batch() -> None:
    entry = {"topic": "a", "payload": 0}
    assert len(batch([entry] * BATCH_MESSAGES_MAX)) == BATCH_MESSAGES_MAX
    with pytest.raises(RequestError) as caught:
        batch([entry] * (BATCH_MESSAGES_MAX + 1))
    assert caught.value.code == "batch_too_large"


@given(st.binary(max_size=80), st.sampled_from([JSON, MSGPACK, NDJSON]))
def test_any_bytes_are_a_batch_or_refused(body: bytes, kind: str) -> None:
    try:
        parse_batch(kind, body, NOW_MS)
    except RequestError as error:
        assert error.where


_fields = st.sampled_from(["topic", "payload", "payload_b64", "key", "ttl", "retain", "time", "content_type", "x"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.binary(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(_fields, _values, max_size=5) | _values, max_size=3) | _values)
def test_any_msgpack_value_is_a_batch_or_refused(value: object) -> None:
    try:
        body = msgpack.packb(value)
    except (OverflowError, UnicodeEncodeError):
        return
    try:
        found = parse_batch(MSGPACK, body, NOW_MS)
    except RequestError as error:
        assert error.where
    else:
        assert all(isinstance(payload, bytes) for payload in found.payloads)
        assert found.size_bytes > 0


# --- JSON and fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nul", b"NaN", b"-Infinity", b'{"a":NaN}', b"\xff", b"[" * 200_000, b"1" * 5000, b"{} {}", b"'a'", b"[1,]"],
)
def test_no_json(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        parse_json(body, "[7]")
    assert (caught.value.code, caught.value.where) == ("bad_json", "[7]")


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"[]", "bad_json"), (b"1", "bad_json"), (b'{"a":1,"x":2}', "unknown_field"), (b'{"\\ud800":1}', "unknown_field")],
)
def test_no_object(body: bytes, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_object(body, frozenset({"a"}))
    assert caught.value.code == code


@pytest.mark.parametrize("key", ["a", "ü" * 127, "gateway/1/default/17", " x ", "a\u200b\u2028", "\U000e0001"])
def test_keys(key: str) -> None:
    assert check_key(key, "key") == key


@pytest.mark.parametrize("key", ["", "ü" * 128, "a\n", "a\x00", "\x7f", "\x85", "\ud800", "\udcff", 1, None, b"a"])
def test_no_keys(key: object) -> None:
    with pytest.raises(RequestError) as caught:
        check_key(key, "key")
    assert (caught.value.code, caught.value.where) == ("bad_key", "key")


@pytest.mark.parametrize(("ttl", "seconds"), [(1, 1), (0.5, 0.5), (TTL_S_MAX, TTL_S_MAX)])
def test_ttls(ttl: object, seconds: float) -> None:
    assert check_ttl_s(ttl, "ttl") == seconds


@pytest.mark.parametrize("ttl", [0, -1, True, "", "60", None, float("nan"), float("inf"), 2**70, TTL_S_MAX + 1, []])
def test_no_ttls(ttl: object) -> None:
    with pytest.raises(RequestError) as caught:
        check_ttl_s(ttl, "ttl")
    assert caught.value.code == "bad_ttl"


def test_flags() -> None:
    assert [check_flag(flag, "f") for flag in (True, False)] == [True, False]
    for flag in ("", "true", 1, None):
        with pytest.raises(RequestError):
            check_flag(flag, "f")


@pytest.mark.parametrize(("text", "number"), [("60", 60), ("1e3", 1000), ("0.5", 0.5), ("-1", -1), ("1e400", math.inf)])
def test_numbers_as_text(text: str, number: float) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", " 1", "1_0", "١", "0x1", "1.", ".5", "+1"])
def test_no_numbers(text: str) -> None:
    assert number_in(text) is None


def test_flags_as_text() -> None:
    assert [flag_in(text) for text in ("true", "TRUE", "False", "", "1", "yes")] == [True, True, False, None, None, None]


@pytest.mark.parametrize("kind", ["", "ü", "a\nb", "a" * 256, 1])
def test_no_content_types(kind: object) -> None:
    with pytest.raises(RequestError) as caught:
        check_content_type(kind, "Content-Type")
    assert caught.value.code == "bad_content_type"


# --- reading ------------------------------------------------------------------------------------


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("size", [0, 1, 65_536, BODY_BYTES_MAX])
async def test_bodies_up_to_the_limit(api: Api, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert (await api.request("POST", TARGET, body)).status == 201
    assert (await api.request("POST", TARGET, chunked(body, 10_000), Transfer_Encoding="chunked")).status == 201
    assert (await api.request("POST", TARGET, gzip.compress(body, 1), Content_Encoding="gzip")).status == 201
    assert await api.payloads() == [body] * 3


async def test_a_body_in_two_parts(api: Api) -> None:
    wire = await api.wire()
    await wire.send(f"POST {TARGET} HTTP/1.1\r\nHost: {api.host}\r\nContent-Length: 6\r\n\r\nabc")
    await pause()
    await wire.send("def")
    assert (await wire.reply()).status == 201
    assert await api.payloads() == [b"abcdef"]
    assert (await wire.request("POST", TARGET, b"")).status == 201


async def test_a_length_over_the_limit_is_refused_before_the_body(api: Api) -> None:
    wire = await api.wire()
    await wire.send(f"POST {TARGET} HTTP/1.1\r\nHost: {api.host}\r\nContent-Length: {BODY_BYTES_MAX + 1}\r\n\r\n")
    reply = await wire.reply()
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert reply.headers["connection"] == "close"
    await api.is_well()


async def test_the_answer_reaches_who_sends_far_more_than_the_limit(api: Api) -> None:
    reply = await api.request("POST", TARGET, bytes(20 * BODY_BYTES_MAX))
    assert (reply.status, reply.code) == (413, "body_too_large")
    reply = await api.request("POST", TARGET, chunked(bytes(20 * BODY_BYTES_MAX), 100_000), Transfer_Encoding="chunked")
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert await api.payloads() == []


async def test_a_truncated_body(api: Api) -> None:
    for rest in ("Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"):
        wire = await api.wire()
        await wire.send(f"POST {TARGET} HTTP/1.1\r\nHost: {api.host}\r\n{rest}")
        wire.finish()
        reply = await wire.reply()
        assert (reply.status, reply.code, reply.json["where"]) == (400, "bad_body", "body")
        assert await wire.is_closed()
    assert await api.payloads() == []
    await api.is_well()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"abc")),
        ("x-gzip", gzip.compress(b"abc")),
        ("GZIP", gzip.compress(b"abc")),
        ("deflate", zlib.compress(b"abc")),
        ("identity", b"abc"),
    ],
)
async def test_encodings(api: Api, encoding: str, body: bytes) -> None:
    assert (await api.request("POST", TARGET, body, Content_Encoding=encoding)).status == 201
    assert await api.payloads() == [b"abc"]


BOMB = gzip.compress(bytes(100 * BODY_BYTES_MAX), 9)
PACKED = gzip.compress(b"abc")


@pytest.mark.parametrize(
    ("encoding", "body", "status", "code"),
    [
        pytest.param("gzip", BOMB, 413, "body_too_large", id="gzip bomb"),
        pytest.param("deflate", zlib.compress(bytes(100 * BODY_BYTES_MAX), 9), 413, "body_too_large", id="deflate bomb"),
        pytest.param("gzip", gzip.compress(bytes(BODY_BYTES_MAX + 1)), 413, "body_too_large", id="one byte too many"),
        pytest.param("gzip", PACKED[:-1], 400, "bad_body", id="truncated"),
        pytest.param("gzip", b"", 400, "bad_body", id="nothing"),
        pytest.param("gzip", PACKED + b"x", 400, "bad_body", id="something behind"),
        pytest.param("gzip", b"abc", 400, "bad_body", id="not gzip"),
        pytest.param("gzip", PACKED[:-8] + b"\0" * 8, 400, "bad_body", id="wrong checksum"),
        pytest.param("deflate", PACKED, 400, "bad_body", id="gzip as deflate"),
        pytest.param("br", b"abc", 415, "unsupported_encoding", id="br"),
        pytest.param("gzip, gzip", gzip.compress(PACKED), 415, "unsupported_encoding", id="twice"),
        pytest.param("", b"abc", 415, "unsupported_encoding", id="empty"),
    ],
)
async def test_encodings_that_are_refused(api: Api, encoding: str, body: bytes, status: int, code: str) -> None:
    reply = await api.request("POST", TARGET, body, Content_Encoding=encoding)
    assert (reply.status, reply.code) == (status, code)
    assert await api.payloads() == []
    await api.is_well()


async def test_a_bomb_is_not_inflated(api: Api) -> None:
    tracemalloc.start()
    try:
        assert (await api.request("POST", TARGET, BOMB, Content_Encoding="gzip")).status == 413
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * BODY_BYTES_MAX


async def test_a_transfer_coding_that_nobody_decodes(api: Api) -> None:
    reply = await api.request("POST", TARGET, chunked(PACKED, 100), Transfer_Encoding="gzip, chunked")
    assert (reply.status, reply.code, reply.json["where"]) == (415, "unsupported_encoding", "Transfer-Encoding")
    assert await api.payloads() == []


async def test_what_was_not_read_is_not_acknowledged(api: Api) -> None:
    # aiohttp 3.11 takes what follows a request to upgrade for the other protocol, not for its body.
    wire = await api.wire()
    await wire.ask("POST", TARGET, b"abc", Connection="Upgrade", Upgrade="websocket")
    wire.finish()
    try:
        reply = await wire.reply()
    except EOFError:
        assert await api.payloads() == []
    else:
        assert (reply.status, await api.payloads()) in ((201, [b"abc"]), (400, []))
    await api.is_well()
    api.noise.clear()  # and trips over it


async def test_100_continue(api: Api) -> None:
    wire = await api.wire()
    await wire.send(f"POST {TARGET} HTTP/1.1\r\nHost: {api.host}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await wire.reply(interim=True)).status == 100
    await wire.send("abc")
    assert (await wire.reply()).status == 201
    assert await api.payloads() == [b"abc"]
    assert (await wire.request("GET", "/healthz")).status == 200


async def test_no_100_continue_for_what_is_refused(api: Api) -> None:
    for length, topic, status in ((BODY_BYTES_MAX + 1, "a", 413), (3, "a/+", 400)):
        wire = await api.wire()
        await wire.send(
            f"POST /v1/topics/{topic} HTTP/1.1\r\nHost: {api.host}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await wire.reply()).status == status

"""Bad input, case by case: each gets one clear error that says what and where, nothing is stored, the rest keeps working."""

import json
from typing import Any

import msgpack
import pytest

from edgegw.api.bodies import MSGPACK, NDJSON
from edgegw.core.record import JSON
from edgegw.limits import BATCH_MESSAGES_MAX, BODY_BYTES_MAX, TOPIC_BYTES_MAX
from tests.api.in_process import Api, Reply

GOOD = {"topic": "a", "payload": 1}
DEEP = b"[" * 100_000 + b"]" * 100_000


def problem(reply: Reply, status: int, code: str, where: str | None = None) -> None:
    found = (reply.status, reply.code, reply.json.get("where"))
    assert found == (status, code, where or found[2]), reply


async def nothing_stored(api: Api) -> None:
    assert await api.payloads() == []
    ledger = await api.stream()
    assert (ledger["received"], ledger["stored"]) == (0, 0)
    await api.is_well()


# --- topics -------------------------------------------------------------------------------------

TOPICS = [
    pytest.param("a/%2B/b", "bad_topic", id="wildcard +"),
    pytest.param("a/+", "bad_topic", id="wildcard + as it is"),
    pytest.param("a/%23", "bad_topic", id="wildcard #"),
    pytest.param("a%00b", "bad_topic", id="NUL"),
    pytest.param("%FF", "bad_path", id="bad UTF-8"),
    pytest.param("%ED%A0%80", "bad_path", id="a surrogate"),
    pytest.param("/".join(["x"] * 300), "bad_topic", id="300 levels"),
    pytest.param("", "bad_topic", id="empty"),
    pytest.param("$SYS/a", "bad_topic", id="reserved"),
]


@pytest.mark.parametrize(("topic", "code"), TOPICS)
async def test_topic(api: Api, topic: str, code: str) -> None:
    problem(await api.request("POST", f"/v1/topics/{topic}", b"1"), 400, code)
    await nothing_stored(api)


async def test_topics_at_the_limits(api: Api) -> None:
    for topic in ("/".join(["x"] * 128), "/", " ", "\x01", "😀", "a" * TOPIC_BYTES_MAX):
        assert (await api.send_json("POST", "/v1/messages", [{"topic": topic, "payload": 1}])).status == 201
        assert (await api.rows("limit=1000"))[-1]["topic"] == topic


@pytest.mark.parametrize(
    "topic",
    ["", "a/+", "#", "a\0", "$SYS/a", "/".join(["x"] * 129), "ü" * (TOPIC_BYTES_MAX // 2 + 1), "\ud800", 5, None, ["a"]],
    ids=["empty", "+", "#", "NUL", "reserved", "129 levels", "too long", "surrogate", "number", "null", "array"],
)
async def test_topic_in_a_batch(api: Api, topic: object) -> None:
    problem(await api.send_json("POST", "/v1/messages", [GOOD, {"topic": topic, "payload": 1}]), 400, "bad_topic", "[1].topic")
    await nothing_stored(api)


@pytest.mark.parametrize("path", ["messages", "retained"])
@pytest.mark.parametrize("topic", ["", "a/#/b", "a/b%23", "a%2Bb", "%00", "/".join(["x"] * 300)])
async def test_filter(api: Api, path: str, topic: str) -> None:
    problem(await api.request("GET", f"/v1/{path}?topic={topic}"), 400, "bad_filter", "topic")
    problem(await api.request("GET", f"/v1/{path}?topic=%FF"), 400, "bad_parameter")


# --- headers of a publish -----------------------------------------------------------------------

HEADERS = [
    pytest.param("Idempotency_Key", "", "bad_key", id="key empty"),
    pytest.param("Idempotency_Key", "x" * 256, "bad_key", id="key too long"),
    pytest.param("Idempotency_Key", "a\tb", "bad_key", id="key not printable"),
    pytest.param("Edgegw_Class", "gold", "bad_class", id="class"),
    pytest.param("Edgegw_Class", "", "bad_class", id="class empty"),
    pytest.param("Edgegw_Retain", "1", "bad_flag", id="retain"),
    pytest.param("Edgegw_TTL", "0", "bad_ttl", id="ttl 0"),
    pytest.param("Edgegw_TTL", "-1", "bad_ttl", id="ttl negative"),
    pytest.param("Edgegw_TTL", "NaN", "bad_ttl", id="ttl NaN"),
    pytest.param("Edgegw_TTL", "1e400", "bad_ttl", id="ttl 1e400"),
    pytest.param("Edgegw_TTL", str(2**70), "bad_ttl", id="ttl 2^70"),
    pytest.param("Edgegw_TTL", "soon", "bad_ttl", id="ttl no number"),
    pytest.param("Edgegw_Time", "yesterday", "bad_time", id="time"),
    pytest.param("Edgegw_Time", "2026-01-31T23:59:59", "bad_time", id="time without zone"),
    pytest.param("Content_Type", "", "bad_content_type", id="content type empty"),
    pytest.param("Content_Type", "x/" + "y" * 300, "bad_content_type", id="content type too long"),
    pytest.param("Content_Type", "x/ü", "bad_content_type", id="content type not ASCII"),
]


@pytest.mark.parametrize(("name", "value", "code"), HEADERS)
async def test_header(api: Api, name: str, value: str, code: str) -> None:
    reply = await api.request("POST", "/v1/topics/a", b"1", **{name: value})
    problem(reply, 400, code, name.replace("_", "-"))
    await nothing_stored(api)


@pytest.mark.parametrize("target", ["/v1/topics/a?x=1", "/healthz?x=1", "/v1/messages?limt=1", "/v1/status?x"])
async def test_unknown_parameter(api: Api, target: str) -> None:
    reply = await api.request("POST" if "topics" in target else "GET", target)
    problem(reply, 400, "unknown_parameter")
    await nothing_stored(api)


# --- batches ------------------------------------------------------------------------------------


def entry(**fields: Any) -> bytes:
    """A batch whose message 1 has these fields."""
    return json.dumps([GOOD, {**GOOD, **fields}]).encode()


def packed(*entries: Any) -> bytes:
    return bytes(msgpack.packb(list(entries)))


BATCHES = [
    pytest.param(JSON, b"", 400, "bad_json", "body", id="nothing"),
    pytest.param(JSON, b'[{"topic":"a","payload":1}', 400, "bad_json", "body", id="cut off"),
    pytest.param(JSON, packed(GOOD), 400, "bad_json", "body", id="msgpack that claims to be JSON"),
    pytest.param(MSGPACK, entry(), 400, "bad_msgpack", "body", id="JSON that claims to be msgpack"),
    pytest.param(MSGPACK, packed(GOOD)[:-1], 400, "bad_msgpack", "body", id="msgpack cut off"),
    pytest.param(MSGPACK, packed(GOOD) + b"\x00", 400, "bad_msgpack", "body", id="msgpack with a rest"),
    pytest.param(MSGPACK, b"\xdd\xff\xff\xff\xff", 400, "bad_msgpack", "body", id="msgpack that promises 4 billion"),
    pytest.param(MSGPACK, b"\x91" * 100_000 + b"\xc0", 400, "bad_msgpack", "body", id="deep msgpack"),
    pytest.param(MSGPACK, packed({1: 2}), 400, "bad_msgpack", "body", id="msgpack with a number for a name"),
    pytest.param(MSGPACK, b"\x91\x82\xa5topic\xa2\xff\xfe\xa7payload\x01", 400, "bad_msgpack", "body", id="msgpack not UTF-8"),
    pytest.param(NDJSON, b'{"topic":"a","payload":1}\n{"topic"', 400, "bad_json", "[1]", id="NDJSON cut off"),
    pytest.param(NDJSON, b"[]", 400, "bad_entry", "[0]", id="NDJSON of arrays"),
    pytest.param("text/csv", b"a,1", 415, "unsupported_type", "Content-Type", id="CSV"),
    pytest.param("", b"[]", 415, "unsupported_type", "Content-Type", id="no type"),
    pytest.param(JSON, b"{}", 400, "bad_batch", "body", id="an object"),
    pytest.param(JSON, b"null", 400, "bad_batch", "body", id="null"),
    pytest.param(JSON, b"[]", 400, "bad_batch", "body", id="empty"),
    pytest.param(JSON, b"\xff", 400, "bad_json", "body", id="not UTF-8"),
    pytest.param(JSON, DEEP, 400, "bad_json", "body", id="deep JSON"),
    pytest.param(JSON, b'[{"topic":"a","payload":' + DEEP + b"}]", 400, "bad_json", "body", id="deep JSON as a payload"),
    pytest.param(NDJSON, b'{"topic":"a","payload":' + DEEP + b"}", 400, "bad_json", "[0]", id="deep JSON as a line"),
    pytest.param(JSON, b'[{"topic":"a","payload":NaN}]', 400, "bad_json", "body", id="NaN"),
    pytest.param(JSON, b'[{"topic":"a","payload":-Infinity}]', 400, "bad_json", "body", id="Infinity"),
    pytest.param(JSON, b'[{"topic":"a","payload":1e400}]', 400, "bad_payload", "[0].payload", id="1e400"),
    pytest.param(JSON, b'[{"topic":"a","payload":[{"x":-1e400}]}]', 400, "bad_payload", "[0].payload", id="1e400 inside"),
    pytest.param(JSON, b'[{"topic":"a","payload":"\\ud800"}]', 400, "bad_payload", "[0].payload", id="lone surrogate"),
    pytest.param(JSON, b'[{"topic":"a","payload":{"\\udfff":1}}]', 400, "bad_payload", "[0].payload", id="surrogate as a name"),
    pytest.param(MSGPACK, packed(GOOD, {**GOOD, "payload": float("nan")}), 400, "bad_payload", "[1].payload", id="msgpack NaN"),
    pytest.param(
        MSGPACK, packed(GOOD, {**GOOD, "payload": msgpack.ExtType(5, b"x")}), 400, "bad_payload", "[1].payload", id="msgpack ext"
    ),
    pytest.param(
        MSGPACK, packed({**GOOD, "payload": msgpack.Timestamp(2**60, 0)}), 400, "bad_payload", "[0].payload", id="msgpack time"
    ),
    pytest.param(MSGPACK, packed(GOOD, {**GOOD, "payload": [b"x"]}), 400, "bad_payload", "[1].payload", id="bytes inside"),
    pytest.param(JSON, json.dumps([GOOD, 5]).encode(), 400, "bad_entry", "[1]", id="entry that is a number"),
    pytest.param(JSON, json.dumps([GOOD, [GOOD]]).encode(), 400, "bad_entry", "[1]", id="entry that is an array"),
    pytest.param(JSON, json.dumps([GOOD, {"payload": 1}]).encode(), 400, "bad_topic", "[1].topic", id="no topic"),
    pytest.param(JSON, json.dumps([GOOD, {"topic": "a"}]).encode(), 400, "bad_payload", "[1]", id="no payload"),
    pytest.param(JSON, entry(payload_b64="AA=="), 400, "bad_payload", "[1]", id="two payloads"),
    pytest.param(JSON, entry(topik="a"), 400, "unknown_field", "[1]", id="unknown field"),
    pytest.param(JSON, entry(key=""), 400, "bad_key", "[1].key", id="key empty"),
    pytest.param(JSON, entry(key=5), 400, "bad_key", "[1].key", id="key that is a number"),
    pytest.param(JSON, entry(key="\ud800"), 400, "bad_key", "[1].key", id="key with a surrogate"),
    pytest.param(JSON, entry(ttl=0), 400, "bad_ttl", "[1].ttl", id="ttl 0"),
    pytest.param(JSON, entry(ttl=True), 400, "bad_ttl", "[1].ttl", id="ttl true"),
    pytest.param(JSON, entry(ttl=2**70), 400, "bad_ttl", "[1].ttl", id="ttl 2^70"),
    pytest.param(JSON, b'[{"topic":"a","payload":1,"ttl":1e400}]', 400, "bad_ttl", "[0].ttl", id="ttl 1e400"),
    pytest.param(JSON, entry(retain=1), 400, "bad_flag", "[1].retain", id="retain 1"),
    pytest.param(JSON, entry(time=1_780_000_000), 400, "bad_time", "[1].time", id="time that is a number"),
    pytest.param(JSON, entry(content_type="ü"), 400, "bad_content_type", "[1].content_type", id="content type"),
]


@pytest.mark.parametrize(("kind", "body", "status", "code", "where"), BATCHES)
async def test_batch(api: Api, kind: str, body: bytes, status: int, code: str, where: str) -> None:
    headers = {"Content_Type": kind} if kind else {}
    problem(await api.request("POST", "/v1/messages", body, **headers), status, code, where)
    await nothing_stored(api)


@pytest.mark.parametrize("encoded", ["A", "====", "AA", "A A=", "ü", 5, [1]])
async def test_base64(api: Api, encoded: object) -> None:
    reply = await api.send_json("POST", "/v1/messages", [GOOD, {"topic": "a", "payload_b64": encoded}])
    problem(reply, 400, "bad_payload", "[1].payload_b64")
    await nothing_stored(api)


async def test_batch_over_the_limits(api: Api) -> None:
    problem(await api.send_json("POST", "/v1/messages", [[]] * (BATCH_MESSAGES_MAX + 1)), 413, "batch_too_large")
    problem(await api.send_json("POST", "/v1/messages", [GOOD] * (BODY_BYTES_MAX // 20)), 413, "body_too_large")
    await nothing_stored(api)


async def test_2_to_the_70_as_a_payload_is_kept_exactly(api: Api) -> None:
    assert (await api.send_json("POST", "/v1/messages", [{"topic": "a", "payload": 2**70}])).status == 201
    assert await api.payloads() == [b"1180591620717411303424"]
    assert (await api.rows())[0]["payload"] == 2**70


async def test_deep_json_as_one_message_is_bytes_like_others(api: Api) -> None:
    assert (await api.request("POST", "/v1/topics/a", DEEP, Content_Type=JSON)).status == 201
    assert (await api.rows())[0]["payload"] == DEEP.decode()


# --- keys ---------------------------------------------------------------------------------------


async def test_reused_key_with_another_body(api: Api) -> None:
    assert (await api.request("POST", "/v1/topics/a", b"1", Idempotency_Key="k")).status == 201
    for topic, body, kind in (("a", b"2", {}), ("b", b"1", {}), ("a", b"1", {"Content_Type": "text/plain"})):
        reply = await api.request("POST", f"/v1/topics/{topic}", body, Idempotency_Key="k", **kind)
        problem(reply, 422, "key_reused")
    reply = await api.send_json("POST", "/v1/messages", [GOOD, {**GOOD, "key": "k"}, {**GOOD, "key": "j"}])
    problem(reply, 422, "key_reused")
    assert await api.payloads() == [b"1"]
    assert (await api.request("POST", "/v1/topics/a", b"1", Idempotency_Key="j")).status == 201


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status", "code", "where"),
    [
        ("stream=nothing", 404, "unknown_stream", "stream"),
        ("stream=", 404, "unknown_stream", "stream"),
        ("after=1", 409, "beyond_end", "after"),
        (f"after={2**48}", 409, "beyond_end", "after"),
        (f"after={2**70}", 400, "bad_parameter", "after"),
        ("after=-1", 400, "bad_parameter", "after"),
        ("after=x", 400, "bad_parameter", "after"),
        ("limit=0", 400, "bad_parameter", "limit"),
        ("limit=1001", 400, "bad_parameter", "limit"),
        ("limit=1&limit=2", 400, "bad_parameter", "limit"),
        ("raw=maybe", 400, "bad_parameter", "raw"),
    ],
)
async def test_query(api: Api, query: str, status: int, code: str, where: str) -> None:
    problem(await api.request("GET", f"/v1/messages?{query}"), status, code, where)
    await api.is_well()


async def test_after_beyond_the_end(api: Api) -> None:
    for _ in range(3):
        await api.request("POST", "/v1/topics/a", b"1")
    assert await api.rows("after=3") == []
    problem(await api.request("GET", "/v1/messages?after=4"), 409, "beyond_end", "after")
    await api.is_well()


# --- consumers ----------------------------------------------------------------------------------


async def test_unknown_consumer(api: Api) -> None:
    for method, path, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/fetch", b""),
        ("POST", "/ack", b'{"upto":1}'),
        ("POST", "/nack", b'{"seqs":[1]}'),
    ):
        problem(await api.request(method, f"/v1/consumers/nobody{path}", body), 404, "unknown_consumer", "name")
    await api.is_well()


@pytest.mark.parametrize("name", ["%20", "a%2Fb", "%C3%BC", "x" * 65, "a:b", "%00"])
async def test_consumer_name(api: Api, name: str) -> None:
    problem(await api.send_json("PUT", f"/v1/consumers/{name}", {}), 400, "bad_name", "name")


@pytest.mark.parametrize(
    ("terms", "status", "code", "where"),
    [
        ([], 400, "bad_json", "body"),
        ({"filtr": "#"}, 400, "unknown_field", "filtr"),
        ({"filter": "a/#/b"}, 400, "bad_filter", "filter"),
        ({"filter": ""}, 400, "bad_filter", "filter"),
        ({"filter": 5}, 400, "bad_field", "filter"),
        ({"filter": "\ud800"}, 400, "bad_filter", "filter"),
        ({"stream": "nothing"}, 404, "unknown_stream", "stream"),
        ({"stream": None}, 400, "bad_field", "stream"),
        ({"start": "old"}, 400, "bad_start", "start"),
        ({"start": {"seq": 0}}, 400, "bad_field", "seq"),
        ({"start": {"seq": 2}}, 409, "beyond_end", "start.seq"),
        ({"start": {"seq": 2**70}}, 400, "bad_field", "seq"),
        ({"start": {"seq": True}}, 400, "bad_field", "seq"),
        ({"start": {"seq": 1, "time": "x"}}, 400, "bad_start", "start"),
        ({"start": {"time": "now"}}, 400, "bad_time", "start.time"),
        ({"start": {}}, 400, "bad_start", "start"),
        ({"start": None}, 400, "bad_start", "start"),
        ({"max_inflight": 0}, 400, "bad_field", "max_inflight"),
        ({"max_inflight": 2**70}, 400, "bad_field", "max_inflight"),
        ({"max_inflight": 1.5}, 400, "bad_field", "max_inflight"),
        ({"max_inflight": "10"}, 400, "bad_field", "max_inflight"),
        ({"ack_wait_s": 0}, 400, "bad_field", "ack_wait_s"),
        ({"ack_wait_s": 1e9}, 400, "bad_field", "ack_wait_s"),
        ({"max_deliver": 0}, 400, "bad_field", "max_deliver"),
        ({"max_deliver": True}, 400, "bad_field", "max_deliver"),
    ],
)
async def test_consumer_terms(api: Api, terms: object, status: int, code: str, where: str) -> None:
    problem(await api.send_json("PUT", "/v1/consumers/reader", terms), status, code, where)
    assert (await api.request("GET", "/v1/consumers")).json == []
    await api.is_well()


@pytest.mark.parametrize("body", [b'{"ack_wait_s":1e400}', b'{"ack_wait_s":NaN}', b"{", b"", DEEP])
async def test_consumer_terms_that_are_no_json_number(api: Api, body: bytes) -> None:
    assert (await api.request("PUT", "/v1/consumers/reader", body)).status == 400
    assert (await api.request("GET", "/v1/consumers")).json == []


async def test_ack_of_what_was_never_sent(api: Api) -> None:
    await api.send_json("PUT", "/v1/consumers/reader", {})
    for _ in range(3):
        await api.request("POST", "/v1/topics/a", b"1")
    assert len((await api.request("POST", "/v1/consumers/reader/fetch?max=2")).json) == 2
    for body in ({"seqs": [3]}, {"seqs": [1, 3]}, {"seqs": [99]}, {"seqs": [2**70]}, {"upto": 3}, {"upto": 2**48}):
        problem(await api.send_json("POST", "/v1/consumers/reader/ack", body), 409, "not_delivered")
    problem(await api.send_json("POST", "/v1/consumers/reader/nack", {"seqs": [1, 3]}), 409, "not_delivered")
    ledger = (await api.request("GET", "/v1/consumers/reader")).json
    assert (ledger["acked"], ledger["pending"], ledger["inflight"]) == (0, 3, 2)
    assert (await api.send_json("POST", "/v1/consumers/reader/ack", {"seqs": [1, 2]})).status == 204


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"seqs":[]}',
        b'{"seqs":5}',
        b'{"seqs":[true]}',
        b'{"seqs":["1"]}',
        b'{"seqs":[1.5]}',
        b'{"seqs":[0]}',
        b'{"seqs":[-1]}',
        b'{"seqs":[1],"upto":1}',
        b'{"upto":-1}',
        b'{"upto":"1"}',
        b'{"upto":1.5}',
        b'{"upto":NaN}',
        b'{"upto":1e400}',
        b'{"seq":[1]}',
    ],
)
async def test_ack_body(api: Api, body: bytes) -> None:
    await api.send_json("PUT", "/v1/consumers/reader", {})
    assert (await api.request("POST", "/v1/consumers/reader/ack", body)).status == 400
    nack = await api.request("POST", "/v1/consumers/reader/nack", body.replace(b"upto", b"delay_s"))
    assert nack.status in (400, 409), nack
    await api.is_well()


@pytest.mark.parametrize("query", ["max=0", "max=1001", "max=x", "wait=-1", "wait=31", "wait=nan", "raw=x", "limit=1"])
async def test_fetch_query(api: Api, query: str) -> None:
    await api.send_json("PUT", "/v1/consumers/reader", {})
    await api.request("POST", "/v1/topics/a", b"1")
    reply = await api.request("POST", f"/v1/consumers/reader/fetch?{query}")
    assert (reply.status, reply.code) in ((400, "bad_parameter"), (400, "unknown_parameter"))
    assert (await api.request("GET", "/v1/consumers/reader")).json["inflight"] == 0

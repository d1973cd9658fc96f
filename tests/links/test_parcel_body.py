"""The three forms say the same."""

import json

import msgpack

from edgegw.core import columns
from edgegw.core.block import Block
from edgegw.core.lanes import Lane, Parcel
from edgegw.core.record import JSON, OCTETS, Message
from edgegw.links.parcel_body import ParcelBodies

NOW_MS = 1_700_000_000_000
MESSAGES = [
    Message("s", 3, "a/b", NOW_MS, JSON, b'{"x": 1.50}'),
    Message("s", 5, "a/c", NOW_MS, OCTETS, b"\xff", 1_600_000_000_000_001),
    Message("s", 6, "a/c", NOW_MS, JSON, b"NaN", None, NOW_MS + 1500),
]
PARCEL = Parcel(Lane.LIVE, 2, 9, Block.of(MESSAGES))


def bodies(form: str) -> ParcelBodies:
    return ParcelBodies("gw/e/s", 7, "plant/", form)


def test_msgpack_has_a_key_for_each_message() -> None:
    entries = msgpack.unpackb(bodies("msgpack").body(PARCEL, (2, 9), NOW_MS))
    assert entries == [
        {
            "topic": "plant/a/b", "payload": b'{"x": 1.50}', "key": "gw/e/s/c773c1c9/3", "time": "2023-11-14T22:13:20.000Z",
            "content_type": JSON,
        },
        {"topic": "plant/a/c", "payload": b"\xff", "key": "gw/e/s/c773c1c9/5", "time": "2020-09-13T12:26:40.000001Z"},
        {
            "topic": "plant/a/c", "payload": b"NaN", "key": "gw/e/s/c773c1c9/6", "time": "2023-11-14T22:13:20.000Z",
            "content_type": JSON, "ttl": 1.5,
        },
    ]  # fmt: skip


def test_json_keeps_what_is_json_byte_for_byte_and_the_rest_as_base64() -> None:
    body = bodies("json").body(PARCEL, (2, 9), NOW_MS)
    assert b'"payload":{"x": 1.50}' in body
    entries = json.loads(body)
    assert "payload" not in entries[1] and entries[1]["payload_b64"] == "/w=="
    assert entries[2]["payload_b64"] == "TmFO", "NaN is no JSON"
    assert [entry["key"] for entry in entries] == ["gw/e/s/c773c1c9/3", "gw/e/s/c773c1c9/5", "gw/e/s/c773c1c9/6"]


def test_columns_stand_for_the_whole_range() -> None:
    got = columns.decode(bodies("columns").body(PARCEL, (2, 9), NOW_MS), 10)
    assert (got.origin, got.first, got.last, got.seqs) == ("gw/e/s/7", 2, 9, [3, 5, 6])
    assert got.topics == ["plant/a/b", "plant/a/c", "plant/a/c"]
    assert got.ttls_ms == [None, None, 1500]


def test_the_key_of_a_request_is_that_of_its_messages() -> None:
    assert bodies("json").key(PARCEL) == "gw/e/s/c773c1c9/3-6.3"
    assert bodies("msgpack").content_type == "application/msgpack"
    assert PARCEL.block is not None and PARCEL.block.topics == ["a/b", "a/c", "a/c"], "the prefix is not kept"


def test_without_a_prefix_a_key_is_only_where_the_message_comes_from() -> None:
    body = ParcelBodies("gw/e/s", 7, "", "json").body(PARCEL, (2, 9), NOW_MS)
    assert [entry["key"] for entry in json.loads(body)] == ["gw/e/s/3", "gw/e/s/5", "gw/e/s/6"]

"""Event streams: what arrives and in which order, resuming, gaps, slow readers, ends, and a thousand of them."""

import asyncio
import json

import pytest

from edgegw.api import stream as module
from edgegw.config import StreamConfig
from edgegw.limits import STREAM_BYTES_MIN, WINDOW_MESSAGES_MAX
from tests.api.event_reader import EventReader
from tests.api.in_process import Api, Deadlines, running, until


async def publish(api: Api, *topics: str, payload: bytes = b"1") -> None:
    for topic in topics:
        await api.bus.publish(topic, payload, "application/json")


async def test_a_message_comes_as_the_row_that_reading_gives() -> None:
    async with running() as api:
        stream = await EventReader.open(api, "topic=a/%23&stream=default")
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-request-id"]
        await publish(api, "a/b", "other", "a/c", payload=b'{"x":\n 1.50,\r "y": "\\n"}')
        first, second = await stream.events(2)
        rows = await api.rows("topic=a/%23")
        assert [first.data, second.data] == rows
        assert [first.id, second.id] == ["default:1", "default:3"]
        assert first.kind == "message"


async def test_across_streams_there_are_no_ids() -> None:
    async with running(StreamConfig(name="alarms", topics=("alarm/#",))) as api:
        stream = await EventReader.open(api, "topic=%23")
        await publish(api, "alarm/1", "calm")
        found = await stream.events(2)
        assert [event.id for event in found] == ["", ""]
        assert {event.data["stream"] for event in found} == {"alarms", "default"}


async def test_only_the_stream_that_was_named() -> None:
    async with running(StreamConfig(name="alarms", topics=("alarm/#",))) as api:
        stream = await EventReader.open(api, "stream=alarms")
        await publish(api, "calm", "alarm/1")
        (event,) = await stream.events(1)
        assert (event.id, event.data["topic"]) == ("alarms:1", "alarm/1")


async def test_resuming_misses_nothing_and_repeats_nothing() -> None:
    async with running() as api:
        stream = await EventReader.open(api, "stream=default")
        await publish(api, "1", "2")
        seen = (await stream.events(2))[-1].id
        stream.abort()
        await publish(api, "3", "4")
        stream = await EventReader.open(api, "stream=default", Last_Event_ID=seen)
        await publish(api, "5")
        assert [event.data["topic"] for event in await stream.events(3)] == ["3", "4", "5"]


async def test_after_reads_what_is_stored_and_the_id_goes_before_it() -> None:
    async with running() as api:
        await publish(api, "1", "2", "3")
        stream = await EventReader.open(api, "stream=default&after=0")
        assert [event.data["seq"] for event in await stream.events(3)] == [1, 2, 3]
        stream = await EventReader.open(api, "stream=default&after=0", Last_Event_ID="default:2")
        assert [event.data["seq"] for event in await stream.events(1)] == [3]
        stream = await EventReader.open(api, "after=2")
        assert [event.id for event in await stream.events(1)] == ["default:3"], "the stream that is read when none is named"


async def test_an_id_of_another_store_starts_over() -> None:
    async with running() as api:
        await publish(api, "1")
        stream = await EventReader.open(api, "stream=default", Last_Event_ID="default:500")
        assert (await stream.events(1))[0].data["seq"] == 1


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("topic=a/%23/b", {}, 400, "bad_filter"),
        ("stream=nope", {}, 404, "unknown_stream"),
        ("stream=default&after=x", {}, 400, "bad_parameter"),
        ("stream=default&after=7", {}, 409, "beyond_end"),
        ("stream=default", {"Last_Event_ID": "default"}, 400, "bad_event_id"),
        ("stream=default", {"Last_Event_ID": "default:-1"}, 400, "bad_event_id"),
        ("stream=default", {"Last_Event_ID": "host:1"}, 409, "other_stream"),
        ("limit=5", {}, 400, "unknown_parameter"),
    ],
)
async def test_what_cannot_be_is_told_before_the_stream_begins(
    query: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with running() as api:
        reply = await api.request("GET", f"/v1/stream?{query}", **headers)
        assert (reply.status, reply.code) == (status, code)
        assert api.bus.subscriptions == 0


async def test_head_tells_the_type_and_ends() -> None:
    async with running() as api:
        reply = await api.request("HEAD", "/v1/stream")
        assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert api.bus.subscriptions == 0


async def test_what_was_evicted_before_it_was_read_is_a_gap_with_an_id() -> None:
    async with running(StreamConfig(name="default", rows_max=10, policy="drop-oldest")) as api:
        for n in range(30):
            await publish(api, f"t/{n}")
        stream = await EventReader.open(api, "stream=default&after=0")
        gap, first = await stream.events(2)
        assert gap.kind == "gap"
        assert set(gap.data["gap"]) == {"first", "last", "count", "reason"}
        last = gap.data["gap"]["last"]
        assert (gap.id, gap.data["gap"]["first"], gap.data["gap"]["count"]) == (f"default:{last}", 1, last)
        assert first.id == f"default:{last + 1}"


async def test_a_slow_reader_costs_a_window_and_gets_everything_in_order() -> None:
    count, size_bytes = 3 * WINDOW_MESSAGES_MAX, 4000
    async with running() as api:
        stream = await EventReader.open(api, "stream=default", limit=1 << 10)
        payload = b'"' + b"x" * size_bytes + b'"'
        for _ in range(0, count, 100):
            await asyncio.gather(*(api.bus.publish("t", payload, "application/json") for _ in range(100)))
        (subscription,) = api.bus._live.match("t")
        await until(lambda: subscription.lag > 0, "it falls behind")
        messages, window_bytes = subscription.queued
        assert messages <= WINDOW_MESSAGES_MAX and window_bytes <= api.bus.window_bytes
        found = await stream.events(count)
        assert [event.data["seq"] for event in found] == list(range(1, count + 1))


async def test_too_slow_for_the_retention_is_a_gap_in_the_right_place() -> None:
    config = StreamConfig(name="default", bytes_max=STREAM_BYTES_MIN * 40, policy="drop-oldest")
    async with running(config) as api:
        stream = await EventReader.open(api, "stream=default", limit=1 << 10)
        payload = b'"' + b"x" * 8000 + b'"'
        for _ in range(40):
            await asyncio.gather(*(api.bus.publish("t", payload, "application/json") for _ in range(50)))
        expected, lost = 1, 0
        while expected <= 2000:
            (event,) = await stream.events(1)
            if event.kind == "gap":
                gap = event.data["gap"]
                assert (gap["first"], gap["count"]) == (expected, gap["last"] - gap["first"] + 1)
                lost += gap["count"]
                expected = gap["last"] + 1
            else:
                assert event.data["seq"] == expected
                expected += 1
        assert lost > 0


async def test_a_client_that_takes_nothing_is_cut_off_in_the_end() -> None:
    async with running(deadlines=Deadlines(take_s=0.3, sweep_s=0.02)) as api:
        stream = await EventReader.open(api, "topic=%23", limit=1 << 10)
        stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
        payload = b'"' + b"x" * 100_000 + b'"'
        for _ in range(10):
            await asyncio.gather(*(api.bus.publish("t", payload, "application/json") for _ in range(10)))
        await until(lambda: api.bus.subscriptions == 0, "the stream is ended")
        stream.abort()
        await api.is_well()


async def test_a_half_closed_stream_ends() -> None:
    async with running() as api:
        stream = await EventReader.open(api, "topic=%23")
        stream.writer.write_eof()
        await stream.ends()
        await until(lambda: api.bus.subscriptions == 0, "nothing is left")
        await api.is_well()


async def test_a_client_that_goes_leaves_nothing_behind() -> None:
    async with running() as api:
        streams = [await EventReader.open(api, "topic=%23") for _ in range(5)]
        assert api.metric("edgegw_event_streams") == 5
        for stream in streams:
            stream.abort()
        await until(lambda: api.bus.subscriptions == 0, "all are gone")
        await publish(api, "t")
        assert api.metric("edgegw_event_streams") == 0


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAM_COMMENT_S", 0.05)
    async with running() as api:
        stream = await EventReader.open(api, "topic=%23")
        await stream.comment()
        await stream.comment()
        await publish(api, "t")
        assert (await stream.events(1))[0].data["topic"] == "t"


async def test_the_gateway_stops_and_the_stream_ends_properly() -> None:
    async with running() as api:
        stream = await EventReader.open(api, "topic=%23")
        api.server.stop_accepting()
        assert await stream.ends()


async def test_one_message_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    real = module.row
    monkeypatch.setattr(module, "row", lambda message: encoded.append(message.seq) or real(message))  # type: ignore[func-returns-value]
    async with running() as api:
        streams = [await EventReader.open(api, "topic=%23") for _ in range(3)]
        await publish(api, "a", "b")
        rows = [await stream.events(2) for stream in streams]
        assert rows[0] == rows[1] == rows[2]
        assert sorted(encoded) == [1, 2]


async def test_a_thousand_streams() -> None:
    count = 1000
    async with running(connections_max=count + 10) as api:
        streams = [await EventReader.open(api, f"topic=t/{n % 10}/%23") for n in range(count)]
        assert api.metric("edgegw_event_streams") == count
        await publish(api, *(f"t/{n}/x" for n in range(10)))
        for n, stream in enumerate(streams):
            (event,) = await stream.events(1)
            assert event.data["topic"] == f"t/{n % 10}/x"
        await api.is_well()
        for stream in streams:
            stream.abort()
        await until(lambda: api.bus.subscriptions == 0, "all are gone")


async def test_binary_and_text_payloads() -> None:
    async with running() as api:
        stream = await EventReader.open(api, "topic=%23")
        await api.bus.publish("a", b"\xff\x00")
        await api.bus.publish("b", "zwei\nZeilen \u2028".encode(), "text/plain")
        first, second = await stream.events(2)
        assert first.data["payload_b64"] == "/wA="
        assert second.data["payload"] == "zwei\nZeilen \u2028"
        json.dumps([first, second])

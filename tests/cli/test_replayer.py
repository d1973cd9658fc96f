"""edgegw/cli/replayer.py"""

import io
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgegw.cli.client import Answer
from edgegw.cli.progress import Progress
from edgegw.cli.replay import BadRow, Reading, Row
from edgegw.cli.replayer import Manner, Pace, Replayer, Tally
from edgegw.errors import Conflict, PeerError, RequestError
from edgegw.limits import BODY_BYTES_MAX, REPLAY_NAP_S, REPLAY_RETRY_CAP_S, REPLAY_RETRY_FIRST_S

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
AWAY = PeerError("gateway_unreachable", "g does not answer")


def rows(count: int, *, columns: str = "a", start: int = 2) -> list[Row]:
    return [
        Row(start + i, NOON + timedelta(hours=i), [Reading(column, f"s/{column}", str(i)) for column in columns])
        for i in range(count)
    ]


def problem(status: int, code: str, *, retry_after: str | None = None, **more: str) -> Answer:
    return Answer(status, json.dumps({"code": code, "detail": f"it is {code}", **more}).encode(), retry_after)


class Gateway:
    """Answers by `script`, then stores."""

    def __init__(self, script: Iterable[Answer | PeerError | type[BaseException] | None] = ()) -> None:
        self._script = iter(script)
        self.batches: list[list[dict[str, Any]]] = []
        self.stored: list[dict[str, Any]] = []

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        *,
        repeatable: bool = False,
    ) -> Answer:
        assert (method, path, content_type, repeatable) == ("POST", "/v1/messages", "application/json", True)
        assert body is not None
        assert len(body) <= BODY_BYTES_MAX
        self.batches.append(json.loads(body))
        step = next(self._script, None)
        if isinstance(step, Answer):
            return step
        if step is not None:
            raise step
        first = len(self.stored) + 1
        self.stored += self.batches[-1]
        receipt = {
            "stream": "default",
            "first": first,
            "last": len(self.stored),
            "count": len(self.batches[-1]),
            "class": "power",
        }
        return Answer(201, json.dumps(receipt).encode())


class Bench:
    """A replayer whose time passes only in its pauses."""

    def __init__(self, gateway: Gateway, *, on_pause: Callable[[], None] = lambda: None, **manner: Any) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []
        self.stderr = io.StringIO()
        self._on_pause = on_pause
        progress = Progress(self.stderr, clock=self.clock, done_bytes=lambda: 0, total_bytes=None, terminal=False)
        self.replayer = Replayer(
            gateway,
            Manner("r.csv", "run", **manner),
            progress,
            clock=self.clock,
            pause=self.pause,
            chance=lambda: 0.0,
        )

    def clock(self) -> float:
        return self.now_s

    def pause(self, span_s: float) -> None:
        self.pauses.append(span_s)
        self.now_s += span_s
        self._on_pause()


# --- batches -------------------------------------------------------------------------------------


def test_batches_of_the_asked_size_in_order() -> None:
    gateway = Gateway()
    bench = Bench(gateway, batch_max=4)
    bench.replayer.run(rows(5, columns="ab"))
    assert [len(batch) for batch in gateway.batches] == [4, 4, 2]
    assert [message["key"] for message in gateway.stored] == [f"run/{line}/{column}" for line in range(2, 7) for column in "ab"]
    assert gateway.stored[3] == {"topic": "s/b", "payload": 1, "key": "run/3/b", "time": "2026-01-02T13:00:00Z"}
    tally = bench.replayer.tally
    assert (tally.readings, tally.rows, tally.repeats, tally.retries) == (10, 5, 0, 0)
    assert (tally.first_time, tally.last_time) == (NOON, NOON + timedelta(hours=4))
    span = tally.streams["default"]
    assert (span.first, span.last, span.count) == (1, 10, 10)


def test_what_is_there_goes_out_when_more_may_take_a_while() -> None:
    gateway = Gateway()
    Bench(gateway).replayer.run([*rows(2), None, None, *rows(1, start=4), None])
    assert [len(batch) for batch in gateway.batches] == [2, 1]


def test_each_reading_is_sent_as_it_is_encoded() -> None:
    gateway = Gateway()
    bench = Bench(gateway)
    bench.replayer._encode = lambda run_id, row, reading: json.dumps([run_id, row.line, reading.payload]).encode()
    bench.replayer.run(rows(1))
    assert gateway.batches == [[["run", 2, "0"]]]


def test_a_batch_ends_before_its_request_is_too_large() -> None:
    # A third each, so that the third does not fit with what stands around it.
    third = '"' + "x" * (BODY_BYTES_MAX // 3) + '"'
    gateway = Gateway()
    Bench(gateway).replayer.run([Row(line, NOON, [Reading("a", "s/a", third)]) for line in (2, 3, 4)])
    assert [len(batch) for batch in gateway.batches] == [2, 1]


def test_a_batch_may_fill_its_request_to_the_last_byte() -> None:
    around = len('[{"topic":"s/a","payload":"","key":"run/2/a","time":"2026-01-02T12:00:00Z"}]')
    fitting = '"' + "x" * (BODY_BYTES_MAX - around) + '"'
    gateway = Gateway()
    bench = Bench(gateway)
    bench.replayer.run([Row(2, NOON, [Reading("a", "s/a", fitting)])])
    assert len(gateway.stored) == 1
    with pytest.raises(RequestError, match=r"r.csv:3: a has 1048575 bytes, more than a message may have"):
        bench.replayer.run([Row(3, NOON, [Reading("a", "s/a", fitting + " ")])])


def test_nothing_to_send_asks_nothing() -> None:
    gateway = Gateway()
    bench = Bench(gateway)
    bench.replayer.run([Row(2, NOON, [])])
    assert gateway.batches == []
    assert not bench.replayer.has_asked


def test_bad_row_stops_behind_what_was_good() -> None:
    gateway = Gateway()
    bench = Bench(gateway)
    with pytest.raises(RequestError) as caught:
        bench.replayer.run([*rows(2), BadRow(4, "no time")])
    assert caught.value.line() == "bad_row: r.csv:4: no time (--skip-bad leaves such rows out)"
    assert len(gateway.stored) == 2
    assert bench.replayer.resume_line == 4


def test_bad_rows_may_be_left_out() -> None:
    gateway = Gateway()
    bench = Bench(gateway, skip_bad=True)
    huge = Reading("a", "s/a", "1" * BODY_BYTES_MAX)
    bench.replayer.run([BadRow(2, "no time"), Row(3, NOON, [huge, Reading("b", "s/b", "1")])])
    assert [message["key"] for message in gateway.stored] == ["run/3/b"]
    assert bench.replayer.tally.bad_rows == 2


# --- until it is acknowledged --------------------------------------------------------------------


def test_the_same_batch_is_sent_again_until_it_is_acknowledged() -> None:
    busy, full = problem(429, "busy"), problem(503, "store_full")
    gateway = Gateway([None, AWAY, busy, full, problem(408, "slow_body"), problem(502, "bad"), problem(504, "late")])
    bench = Bench(gateway, batch_max=2)
    bench.replayer.run(rows(6))
    assert len(gateway.stored) == 6
    assert gateway.batches[1] == gateway.batches[2] == gateway.batches[7]
    assert bench.pauses == [REPLAY_RETRY_FIRST_S * 2**i for i in range(5)] + [REPLAY_RETRY_CAP_S]
    assert bench.replayer.tally.retries == 6
    assert bench.stderr.getvalue() == (
        "g does not answer; trying again for 60 s\nthe gateway answers again, after 6 more requests\n"
    )


def test_retry_after_is_honoured() -> None:
    gateway = Gateway([problem(503, "store_full", retry_after="7"), problem(429, "busy", retry_after="0")])
    bench = Bench(gateway)
    bench.replayer.run(rows(1))
    assert bench.pauses == [7.0, REPLAY_RETRY_FIRST_S * 2]


def test_gives_up_when_the_time_is_over() -> None:
    gateway = Gateway([AWAY] * 1000)
    bench = Bench(gateway, retry_for_s=10)
    with pytest.raises(PeerError) as caught:
        bench.replayer.run(rows(3))
    assert caught.value.line() == "gateway_unreachable: g does not answer; gave up after 10 s"
    assert sum(bench.pauses) == pytest.approx(10)
    assert (bench.replayer.has_asked, bench.replayer.resume_line) == (True, 2)


def test_gives_up_at_once_when_it_may_not_ask_in_time() -> None:
    bench = Bench(Gateway([problem(503, "store_full", retry_after="3600")]))
    with pytest.raises(PeerError, match="it is store_full; gave up") as caught:
        bench.replayer.run(rows(1))
    assert (caught.value.code, bench.pauses) == ("store_full", [])


def test_does_not_try_again_when_told_not_to() -> None:
    gateway = Gateway([AWAY])
    with pytest.raises(PeerError):
        Bench(gateway, retry_for_s=0).replayer.run(rows(1))
    assert len(gateway.batches) == 1


def test_each_batch_has_its_own_time() -> None:
    gateway = Gateway([AWAY, AWAY, AWAY, None] * 20)
    bench = Bench(gateway, retry_for_s=1, batch_max=1)
    bench.replayer.run(rows(20))
    assert len(gateway.stored) == 20
    assert sum(bench.pauses) > 10


@pytest.mark.parametrize(
    ("where", "line"), [("[1].topic", "4"), ("[2]", "5"), ("[99]", "3-5"), ("body", "3-5"), ("Header 1", "3-5"), ("", "3-5")]
)
def test_a_refusal_names_the_line(where: str, line: str) -> None:
    gateway = Gateway([None, problem(409, "no_way", where=where)])
    bench = Bench(gateway, batch_max=3)
    with pytest.raises(Conflict) as caught:
        bench.replayer.run([*rows(3, start=0), *rows(3, start=3)])
    assert caught.value.line() == f"no_way: r.csv:{line}: it is no_way"
    assert (bench.replayer.tally.readings, bench.replayer.resume_line) == (3, 3)
    assert len(gateway.batches) == 2


def test_a_fault_of_the_gateway_is_not_asked_for_twice() -> None:
    gateway = Gateway([problem(500, "bug")])
    with pytest.raises(PeerError, match=r"r.csv:2: it is bug"):
        Bench(gateway).replayer.run(rows(1))


@pytest.mark.parametrize(
    "body", [b"<html>", b"1", b"{}", b"[{}]", b'{"receipts":1}', b'{"receipts":[1]}', b'{"stream":"a","first":"x"}']
)
def test_what_is_no_receipt_is_not_taken_for_one(body: bytes) -> None:
    gateway = Gateway([Answer(201, body)])
    bench = Bench(gateway)
    with pytest.raises(PeerError) as caught:
        bench.replayer.run(rows(1))
    assert caught.value.code == "bad_answer"
    assert (bench.replayer.tally.readings, bench.replayer.resume_line) == (0, 2)


def test_an_answer_that_is_no_http_is_not_asked_for_again() -> None:
    gateway = Gateway([PeerError("bad_answer", "too long")])
    with pytest.raises(PeerError, match="too long"):
        Bench(gateway).replayer.run(rows(1))
    assert len(gateway.batches) == 1


def test_interrupted_it_can_be_resumed_without_loss() -> None:
    gateway = Gateway([None, None, KeyboardInterrupt])
    bench = Bench(gateway, batch_max=3)
    with pytest.raises(KeyboardInterrupt):
        bench.replayer.run(rows(10, columns="ab"))
    # Six of twenty are in: rows 2, 3 and 4. The batch on its way begins with row 5.
    assert (bench.replayer.tally.readings, bench.replayer.resume_line) == (6, 5)


def test_interrupted_between_batches() -> None:
    def source() -> Iterable[Row]:
        yield from rows(3, columns="ab")
        raise KeyboardInterrupt

    bench = Bench(Gateway(), batch_max=5)
    with pytest.raises(KeyboardInterrupt):
        bench.replayer.run(source())
    assert (bench.replayer.tally.readings, bench.replayer.resume_line) == (5, 4)


# --- receipts ------------------------------------------------------------------------------------


def receipt(stream: str, seq: int, **more: object) -> dict[str, object]:
    return {"stream": stream, "seq": seq, "class": "power", **more}


@pytest.mark.parametrize(
    ("status", "body", "repeats", "streams"),
    [
        (201, {"stream": "a", "first": 1, "last": 3, "count": 3}, 0, {"a": (1, 3, 3)}),
        (
            201,
            [{"stream": "a", "first": 1, "last": 3, "count": 3}, {"stream": "b", "first": 9, "last": 9, "count": 1}],
            0,
            {"a": (1, 3, 3), "b": (9, 9, 1)},
        ),
        (200, {"receipts": [receipt("a", 5), receipt("b", 2), receipt("a", 4)]}, 3, {"a": (4, 5, 2), "b": (2, 2, 1)}),
        (201, {"receipts": [receipt("a", 5, repeat=True), receipt("a", 6, repeat=False)]}, 1, {"a": (5, 6, 2)}),
    ],
)
def test_receipts(status: int, body: object, repeats: int, streams: dict[str, tuple[int, int, int]]) -> None:
    tally = Tally()
    tally.add_receipts(Answer(status, json.dumps(body).encode()))
    assert tally.repeats == repeats
    assert {name: (span.first, span.last, span.count) for name, span in tally.streams.items()} == streams


# --- pace ----------------------------------------------------------------------------------------


def test_pace() -> None:
    pace = Pace(60.0)
    assert pace.wait_s(NOON, 50.0) == 0
    assert pace.wait_s(NOON + timedelta(hours=1), 50.0) == 60
    assert pace.wait_s(NOON + timedelta(hours=1), 80.0) == 30
    assert pace.wait_s(NOON + timedelta(hours=1), 120.0) == 0
    assert pace.wait_s(NOON - timedelta(hours=1), 120.0) == 0
    assert Pace(None).wait_s(NOON + timedelta(days=1), 0.0) == 0


def test_replay_keeps_the_recorded_pace() -> None:
    gateway = Gateway()
    sent_at: list[tuple[float, int]] = []
    bench = Bench(gateway, speed=3600.0, on_pause=lambda: sent_at.append((bench.now_s, len(gateway.stored))))
    bench.replayer.run(rows(4, columns="ab"))
    # An hour of the recording is a second here; each row goes out when it is due, whole.
    assert sent_at == [(1001.0, 2), (1002.0, 4), (1003.0, 6)]
    assert len(gateway.batches) == 4


def test_long_waits_show_that_it_lives() -> None:
    bench = Bench(Gateway(), speed=100.0)
    bench.replayer.run(rows(2))
    assert max(bench.pauses) == REPLAY_NAP_S
    assert sum(bench.pauses) == pytest.approx(36)
    assert bench.stderr.getvalue().count("readings") == 3

"""Sending a recording: rows into batches, batches to the gateway, each until it is acknowledged.

One batch is on its way at a time, so readings stay in order. A batch without an answer may or may not be stored; it is sent
again as it was, and the key of each reading makes the gateway store it once. `resume_line` is always a line from which
another attempt with the same run id would miss nothing.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from edgegw.cli.client import Answer
from edgegw.cli.progress import Progress
from edgegw.cli.replay import BadRow, Reading, Row, entry
from edgegw.core.retry import Backoff
from edgegw.errors import GatewayError, PeerError, RequestError
from edgegw.limits import BODY_BYTES_MAX, REPLAY_BATCH, REPLAY_NAP_S, REPLAY_RETRY_CAP_S, REPLAY_RETRY_FIRST_S, REPLAY_RETRY_S

# Not now, but perhaps in a moment: too slow, too much at once, a gateway that is starting or full, and what proxies say then.
TRY_AGAIN = (408, 429, 502, 503, 504)
_PLACE = re.compile(r"\[(\d+)\]")


class Asks(Protocol):
    """The part of GatewayClient that sending needs."""

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        *,
        repeatable: bool = False,
    ) -> Answer:
        """Send one request. Raises PeerError."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to send; `speed` is in recorded seconds per second, None = as fast as the gateway takes it."""

    name: str
    run_id: str
    speed: float | None = None
    batch_max: int = REPLAY_BATCH
    retry_for_s: float = REPLAY_RETRY_S
    skip_bad: bool = False


@dataclass(slots=True)
class Span:
    """What one stream took: its first and last sequence number, and how many."""

    first: int
    last: int
    count: int = 0


@dataclass(slots=True)
class Tally:
    """What is acknowledged so far; `retries` counts requests that had to be sent again."""

    readings: int = 0
    repeats: int = 0
    rows: int = 0
    bad_rows: int = 0
    retries: int = 0
    first_time: datetime | None = None
    last_time: datetime | None = None
    streams: dict[str, Span] = field(default_factory=dict)

    def add_receipts(self, answer: Answer) -> None:
        """Count what the gateway says it stored. Raises PeerError(bad_answer)."""
        receipts: Any = answer.json()
        try:
            if isinstance(receipts, dict) and "receipts" in receipts:
                entries = receipts["receipts"]
                # 200 = nothing was new; else each receipt tells.
                self.repeats += len(entries) if answer.status == 200 else sum(each.get("repeat") is True for each in entries)
                for each in entries:
                    self._add_span(each["stream"], each["seq"], each["seq"], 1)
            else:
                for each in receipts if isinstance(receipts, list) else [receipts]:
                    self._add_span(each["stream"], each["first"], each["last"], each["count"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise PeerError("bad_answer", "the receipt is not that of a gateway", "is --url right?") from None

    def _add_span(self, stream: str, first: int, last: int, count: int) -> None:
        span = self.streams.setdefault(str(stream), Span(int(first), int(last)))
        span.first, span.last = min(span.first, int(first)), max(span.last, int(last))
        span.count += int(count)


class Pace:
    """When a row is due: `speed` times as fast as recorded, from the first row on."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._origin: tuple[datetime, float] | None = None

    def wait_s(self, time: datetime, now_s: float) -> float:
        """Seconds until the row of `time` is due; never negative."""
        if self._speed is None:
            return 0.0
        if self._origin is None:
            self._origin = (time, now_s)
        first_time, started_s = self._origin
        return max(0.0, started_s + (time - first_time).total_seconds() / self._speed - now_s)


class Replayer:
    """Sends rows, each reading as `encode` writes it. `pause` waits so many seconds; `chance` is in [0, 1)."""

    def __init__(
        self,
        gateway: Asks,
        manner: Manner,
        progress: Progress,
        *,
        clock: Callable[[], float],
        pause: Callable[[float], object],
        chance: Callable[[], float],
        encode: Callable[[str, Row, Reading], bytes] = entry,
    ) -> None:
        self._encode = encode
        self.tally = Tally()
        self.resume_line = 1
        self.has_asked = False
        self._gateway = gateway
        self._manner = manner
        self._progress = progress
        self._clock = clock
        self._pause = pause
        self._chance = chance
        self._backoff = Backoff(REPLAY_RETRY_FIRST_S, REPLAY_RETRY_CAP_S)
        self._rows: list[Row] = []  # of each entry, its row
        self._entries: list[bytes] = []
        self._size_bytes = 0

    def run(self, rows: Iterable[Row | BadRow | None]) -> None:
        """Send all rows; None among them: more may take a while, so what is there goes out.

        Raises RequestError for what cannot be sent, PeerError when the gateway stays away too long.
        """
        pace = Pace(self._manner.speed)
        for row in rows:
            if row is None:
                self._flush()
                continue
            if isinstance(row, BadRow):
                self._bad(row)
                continue
            if pace.wait_s(row.time, self._clock()) > 0:
                self._flush()
                self._wait_until_due(row, pace)
            self.tally.rows += 1
            for reading in row.readings:
                self._add(row, reading)
            self._progress.update(self.tally.readings)
        self._flush()

    def _wait_until_due(self, row: Row, pace: Pace) -> None:
        while (wait_s := pace.wait_s(row.time, self._clock())) > 0:
            self._progress.update(self.tally.readings)
            self._pause(min(wait_s, REPLAY_NAP_S))

    def _bad(self, row: BadRow) -> None:
        if not self._manner.skip_bad:
            self._flush()  # what came before it is good, and the line to resume from is then the bad one
            self.resume_line = row.line
            raise RequestError("bad_row", f"{self._manner.name}:{row.line}: {row.why}", "--skip-bad leaves such rows out")
        self.tally.bad_rows += 1

    def _add(self, row: Row, reading: Reading) -> None:
        encoded = self._encode(self._manner.run_id, row, reading)
        # Two brackets around the entries, and a comma behind each.
        if len(encoded) + 2 > BODY_BYTES_MAX:
            self._bad(BadRow(row.line, f"{reading.column or 'the row'} has {len(encoded)} bytes, more than a message may have"))
            return
        if len(self._entries) >= self._manner.batch_max or self._size_bytes + len(encoded) + 2 > BODY_BYTES_MAX:
            self._flush()
        if not self._entries:
            self.resume_line = row.line
        self._entries.append(encoded)
        self._rows.append(row)
        self._size_bytes += len(encoded) + 1

    def _flush(self) -> None:
        if not self._entries:
            return
        answer = self._send(b"[" + b",".join(self._entries) + b"]")
        tally = self.tally
        tally.add_receipts(answer)
        tally.readings += len(self._entries)
        tally.first_time = tally.first_time or self._rows[0].time
        tally.last_time = self._rows[-1].time
        self.resume_line = self._rows[-1].line
        self._entries.clear()
        self._rows.clear()
        self._size_bytes = 0
        self._progress.update(tally.readings)

    def _send(self, body: bytes) -> Answer:
        deadline_s: float | None = None
        attempt = 0
        while True:
            answer, error = self._ask(body)
            if error is None:
                if attempt:
                    self._progress.note(f"the gateway answers again, after {attempt} more requests")
                return answer
            now_s = self._clock()
            if deadline_s is None:
                deadline_s = now_s + self._manner.retry_for_s
                self._progress.note(f"{error.what}; trying again for {self._manner.retry_for_s:g} s")
            left_s = deadline_s - now_s
            asked_s = answer.retry_after_s
            if left_s <= 0 or (asked_s is not None and asked_s > left_s):
                what = f"{error.what}; gave up after {self._manner.retry_for_s:g} s"
                raise PeerError(error.code, what, error.hint) from None
            self._pause(asked_s or min(left_s, self._backoff.next_delay(attempt, self._chance())))
            attempt += 1
            self.tally.retries += 1

    def _ask(self, body: bytes) -> tuple[Answer, GatewayError | None]:
        """The answer, and why it is no receipt. Raises what no second attempt would change."""
        self.has_asked = True
        try:
            answer = self._gateway.request("POST", "/v1/messages", body, repeatable=True)
        except PeerError as error:
            if error.code == "bad_answer":
                raise
            return Answer(0, b""), error
        if answer.status in (200, 201):
            return answer, None
        refusal = answer.error()
        if answer.status in TRY_AGAIN:
            return answer, refusal
        raise self._located(refusal)

    def _located(self, error: GatewayError) -> GatewayError:
        """The same error, which also names the line of the file."""
        first, last = self._rows[0].line, self._rows[-1].line
        lines = f"{first}" if first == last else f"{first}-{last}"
        where = error.where if isinstance(error, RequestError) else ""
        if (place := _PLACE.match(where)) is not None and int(place[1]) < len(self._rows):
            lines = str(self._rows[int(place[1])].line)  # the gateway names the entry
        what = f"{self._manner.name}:{lines}: {error.what}"
        if isinstance(error, RequestError):
            return type(error)(error.code, what, error.hint, where=where)
        return PeerError(error.code, what, error.hint)

"""Clients of a gateway that is killed again and again; they keep what they were told, and compare it with what is there.

Four publishers and a consumer, each a thread with its own connection. What a publisher sends says who it is and how many it has
sent (`singles-17`). One that sends keys sends again until it is answered; one that does not goes on with the next.
"""

import http.client
import json
import random
import threading
from collections import Counter
from contextlib import closing, suppress
from itertools import pairwise
from typing import Any, NamedTuple

from tests.gateway_process import GatewayProcess

Row = dict[str, Any]
Receipt = tuple[str, int]  # what was sent, and its sequence number


class Report(NamedTuple):
    """What the kills did; all but the first three must be 0."""

    kills: int
    receipts: int
    unanswered: int
    lost: int
    out_of_order: int
    duplicated: int
    torn: int


class Clients:
    """All of them; `inflight` requests wait for an answer."""

    def __init__(self, gateway: GatewayProcess, seed: int) -> None:
        self.gateway = gateway
        self.receipts: dict[str, list[Receipt]] = {}
        self.unanswered: list[list[str]] = []  # sent without keys, never answered; a batch stands together
        self.inflight = 0
        self.failed = 0
        self.delivered: dict[int, str] = {}
        self.acked_upto = 0
        self.faults: list[str] = []
        self.changed = threading.Condition()
        self._ending = threading.Event()
        chance = random.Random(seed)
        workers = (
            (self._publish, ("singles", 1, False)),
            (self._publish, ("keyed", 1, True)),
            (self._publish, ("batches", 20, False)),
            (self._publish, ("keyed-batches", 30, True)),
            (self._consume, (random.Random(chance.random()),)),
        )
        self._threads = [threading.Thread(target=self._guarded, args=(work, *args), daemon=True) for work, args in workers]

    def start(self) -> None:
        """Begin; the gateway must serve and have the consumer."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Finish what is under way; the gateway must serve."""
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"
        assert not self.faults, self.faults[0]

    @property
    def count(self) -> int:
        """Receipts so far."""
        return sum(map(len, self.receipts.values()))

    def _guarded(self, work: Any, *args: Any) -> None:
        try:
            work(*args)
        except Exception as exc:
            self.faults.append(f"{args}: {exc!r}\n{self.gateway.log[-2000:]}")
            with self.changed:
                self.changed.notify_all()

    # --- publishers -------------------------------------------------------------------------------

    def _publish(self, name: str, size: int, has_keys: bool) -> None:
        receipts = self.receipts.setdefault(name, [])
        with closing(Connection(self)) as connection:
            self._publish_over(connection, receipts, name, size, has_keys)

    def _publish_over(self, connection: "Connection", receipts: list[Receipt], name: str, size: int, has_keys: bool) -> None:
        sent = 0
        while not self._ending.is_set():
            ids = [f"{name}-{n}" for n in range(sent, sent + size)]
            sent += size
            answer = connection.send(*_publication(ids, has_keys))
            while answer is None and has_keys:
                self._ending.wait(0.01)
                answer = connection.send(*_publication(ids, has_keys))
            if answer is None:
                self.unanswered.append(ids)
                self._ending.wait(0.01)
                continue
            status, body = answer
            assert status in (200, 201), (status, body)
            with self.changed:
                receipts.extend(zip(ids, _seqs(body, size), strict=True))
                self.changed.notify_all()

    # --- the consumer -----------------------------------------------------------------------------

    def _consume(self, chance: random.Random) -> None:
        with closing(Connection(self)) as connection:
            self._consume_over(connection, chance)

    def _consume_over(self, connection: "Connection", chance: random.Random) -> None:
        while True:
            last_round = self._ending.is_set()
            most = chance.choice((10, 100, 500))
            answer = connection.send("POST", f"/v1/consumers/outside/fetch?max={most}&wait=0.2", None)
            if answer is None or answer[0] != 200:
                assert answer is None or answer[0] >= 500, answer
                self._ending.wait(0.01)
                continue
            rows: list[Row] = answer[1]
            for row in rows:
                assert "gap" not in row, row
                assert row["seq"] > self.acked_upto, f"{row} came again after {self.acked_upto} was acknowledged"
                assert self.delivered.setdefault(row["seq"], row["payload"]) == row["payload"], row
            assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)
            if rows and chance.random() < 0.9:
                answer = connection.send("POST", "/v1/consumers/outside/ack", {"upto": rows[-1]["seq"]})
                assert answer is None or answer[0] in (204, 409), answer
                if answer is not None and answer[0] == 204:
                    self.acked_upto = rows[-1]["seq"]
            if last_round and not rows:
                return

    # --- the comparison ---------------------------------------------------------------------------

    def report(self, kills: int) -> Report:
        """Compare every receipt with what is stored; the gateway must serve."""
        stored = stored_messages(self.gateway)
        at = {payload: seq for seq, payload in stored.items()}
        times = Counter(stored.values())
        torn = [ids for ids in self.unanswered if len({one in times for one in ids}) > 1]
        torn += [ids for ids in self.unanswered if ids[0] in at and [at.get(one) for one in ids] != _run(at[ids[0]], len(ids))]
        order = [[seq for _, seq in receipts] for receipts in self.receipts.values()]
        return Report(
            kills=kills,
            receipts=self.count,
            unanswered=self.failed,
            lost=sum(stored.get(seq) != one for receipts in self.receipts.values() for one, seq in receipts),
            out_of_order=sum(b <= a for seqs in order for a, b in pairwise(seqs)) + (list(stored) != _run(1, len(stored))),
            duplicated=sum(n - 1 for n in times.values()),
            torn=len(torn),
        )


class Connection:
    """One client's keep-alive connection."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._http = http.client.HTTPConnection("127.0.0.1", clients.gateway.port, timeout=30)

    def send(self, method: str, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, Any] | None:
        """Status and JSON; None when no whole answer came."""
        clients = self._clients
        with clients.changed:
            clients.inflight += 1
            clients.changed.notify_all()
        answer: tuple[int, Any] | None = None
        try:
            self._http.request(
                method, path, None if body is None else json.dumps(body), headers or {"Content-Type": "application/json"}
            )
            response = self._http.getresponse()
            content = response.read()
            answer = response.status, json.loads(content) if content else None
        except (OSError, http.client.HTTPException):
            self._http.close()
        with clients.changed:
            clients.inflight -= 1
            clients.failed += answer is None
        return answer

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def stored_messages(gateway: GatewayProcess) -> dict[int, str]:
    """Everything in the stream, by sequence number, in the order of the answers."""
    found: dict[int, str] = {}
    after = 0
    while True:
        status, rows = gateway.request("GET", f"/v1/messages?after={after}&limit=1000")
        assert status == 200, rows
        if not rows:
            return found
        for row in rows:
            assert "gap" not in row, row
            found[row["seq"]] = row["payload"]
        after = rows[-1]["seq"]


def assert_balanced(gateway: GatewayProcess) -> None:
    """Both ledgers."""
    _, status = gateway.request("GET", "/v1/status")
    for name, stream in status["streams"].items():
        assert stream["received"] == stream["stored"] + sum(stream["removed"].values()), (name, stream)
    for name, consumer in status["consumers"].items():
        parts = consumer["acked"] + consumer["pending"] + consumer["dead_lettered"] + sum(consumer["lost"].values())
        assert consumer["matched"] == parts, (name, consumer)


def kill_while_busy(clients: Clients, receipts_before: int, least: int) -> bool:
    """SIGKILL with a request in flight and `least` receipts since the last; whether a request went unanswered."""
    with clients.changed:
        ready = clients.changed.wait_for(
            lambda: clients.faults or (clients.inflight > 0 and clients.count - receipts_before >= least), timeout=60
        )
        assert not clients.faults, clients.faults[0]
        assert ready, f"no {least} receipts within a minute\n{clients.gateway.log[-2000:]}"
        failed_before = clients.failed
        clients.gateway.kill()
    with clients.changed:
        return bool(clients.changed.wait_for(lambda: clients.failed > failed_before, timeout=5)) or bool(clients.faults)


def _publication(ids: list[str], has_keys: bool) -> tuple[str, str, object, dict[str, str]]:
    headers = {"Content-Type": "application/json"}
    if len(ids) == 1:
        if has_keys:
            headers["Idempotency-Key"] = ids[0]
        return "POST", "/v1/topics/kills/single", ids[0], headers
    entries = [{"topic": "kills/batch", "payload": one} | ({"key": one} if has_keys else {}) for one in ids]
    return "POST", "/v1/messages", entries, headers


def _seqs(body: Row, size: int) -> list[int]:
    if "receipts" in body:
        return [receipt["seq"] for receipt in body["receipts"]]
    with suppress(KeyError):
        return [body["seq"]]
    assert body["count"] == size, body
    return list(range(body["first"], body["last"] + 1))


def _run(first: int, count: int) -> list[int]:
    return list(range(first, first + count))

"""What a link sends next: what comes now goes before what has waited, and each message goes once.

    sent and settled ───┐         ┌── hole: backlog ──┐          ┌── hole ──┐
    ════════════════════╪═════════╪═══════════════════╪══════════╪══════════╪═══════════▶ sequence numbers
                      floor                        skipped live data      live.position

Two lanes over one stream. The live lane takes messages as they are committed. The backlog lane reads from disk what lies in
`holes`: ranges that the live lane skipped, lowest first. When the live lane falls behind (`skip_to`), what it has not sent
becomes a hole and it goes on with the newest: that is how live data stays live while a backlog drains. Without holes there
is only the live lane, and order is that of the stream.

A parcel covers every number from `first` to `last`: its messages, and what did not match between them. Once it is taken by
the upstream, the whole range is settled, so what a consumer's record must remember grows with the number of holes, not of
messages. A parcel that is not taken is kept and sent again as it is: the same messages under the same keys.

Which lane is next is decided by bytes: of each 100, `live_share` are live while both lanes have something.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum

from edgegw.core.block import BLOCK_ROW_BYTES, Block
from edgegw.core.record import Message
from edgegw.core.runs import Runs


class Lane(StrEnum):
    """Where a parcel comes from."""

    LIVE = "live"
    BACKLOG = "backlog"


class Parcel:
    """Messages that go in one request, and the range of numbers they stand for; no block: nothing in it is to be sent."""

    __slots__ = ("block", "first", "lane", "last", "tries")

    def __init__(self, lane: Lane, first: int, last: int, block: Block | None) -> None:
        self.lane = lane
        self.first = first
        self.last = last
        self.block = block
        self.tries = 0

    def __len__(self) -> int:
        return 0 if self.block is None else len(self.block)

    @property
    def size_bytes(self) -> int:
        """About what it takes in a request."""
        return 0 if self.block is None else self.block.size_bytes

    def halves(self) -> tuple["Parcel", "Parcel"]:
        """Two parcels that stand for the same range; it has two messages at least."""
        assert self.block is not None
        middle = len(self.block) // 2
        border = self.block.seqs[middle]
        left, right = self.block.part(0, middle), self.block.part(middle, len(self.block))
        halves = Parcel(self.lane, self.first, border - 1, left), Parcel(self.lane, border, self.last, right)
        for half in halves:
            half.tries = self.tries
        return halves


class _Live:
    """Messages as they were committed; everything up to `position` was looked at."""

    __slots__ = ("first", "messages", "position", "size_bytes")

    def __init__(self, position: int) -> None:
        self.messages: deque[Message] = deque()
        self.size_bytes = 0
        self.position = position
        self.first = position + 1  # of the next parcel's range

    def add(self, messages: Iterable[Message], position: int) -> None:
        for message in messages:
            self.messages.append(message)
            self.size_bytes += _cost_bytes(message)
        self.position = max(self.position, position)

    def take(self, most: int, most_bytes: int) -> Parcel:
        taken: list[Message] = []
        room_bytes = most_bytes
        while self.messages and len(taken) < most and (not taken or room_bytes >= _cost_bytes(self.messages[0])):
            message = self.messages.popleft()
            room_bytes -= _cost_bytes(message)
            taken.append(message)
        self.size_bytes -= most_bytes - room_bytes
        last = taken[-1].seq if self.messages else self.position
        parcel = Parcel(Lane.LIVE, self.first, last, Block.of(taken) if taken else None)
        self.first = last + 1
        return parcel


class _Backlog:
    """Blocks as they were read; everything up to `position` was looked at."""

    __slots__ = ("blocks", "first", "position", "size_bytes")

    def __init__(self, position: int) -> None:
        self.blocks: deque[Block] = deque()
        self.size_bytes = 0
        self.position = position
        self.first = position + 1  # of the next parcel's range

    def add(self, blocks: Iterable[Block], position: int) -> None:
        for block in blocks:
            self.blocks.append(block)
            self.size_bytes += block.size_bytes
        self.position = max(self.position, position)

    def take(self) -> Parcel:
        block = self.blocks.popleft() if self.blocks else None
        if block is not None:
            self.size_bytes -= block.size_bytes
        last = block.seqs[-1] if block is not None and self.blocks else self.position
        parcel = Parcel(Lane.BACKLOG, self.first, last, block)
        self.first = last + 1
        return parcel


class Lanes:
    """The two lanes of one link. Positions are sequence numbers of its stream."""

    def __init__(self, floor: int, settled: Runs, live_from: int, live_share: float) -> None:
        """Everything up to `floor`, and the runs `settled`, went out before; the live lane begins after `live_from`."""
        self._live = _Live(live_from)
        self._backlog = _Backlog(floor)
        self._holes: deque[tuple[int, int]] = deque(_holes(floor, settled, live_from))
        self._share = live_share
        self._live_bytes = self._backlog_bytes = 0.0
        self._open_hole()

    @property
    def live_position(self) -> int:
        """Up to where the live lane has looked."""
        return self._live.position

    @property
    def live_first(self) -> int:
        """The first number that the live lane has not handed out."""
        return self._live.first

    @property
    def live_oldest_ms(self) -> int | None:
        """When the first message that waits in the live lane arrived."""
        return self._live.messages[0].time_ms if self._live.messages else None

    @property
    def live_queued(self) -> int:
        """Messages that wait in the live lane."""
        return len(self._live.messages)

    @property
    def backlog_queued(self) -> int:
        """Blocks that wait in the backlog lane."""
        return len(self._backlog.blocks)

    def has_live_room(self, most: int, most_bytes: int) -> bool:
        """Whether the live lane holds less than this."""
        return len(self._live.messages) < most and self._live.size_bytes < most_bytes

    def has_backlog_room(self, most: int, most_bytes: int) -> bool:
        """Whether the backlog lane holds fewer blocks and bytes than this."""
        return len(self._backlog.blocks) < most and self._backlog.size_bytes < most_bytes

    @property
    def holes(self) -> int:
        """Ranges that the backlog lane has not read to their end."""
        return len(self._holes)

    @property
    def next_read(self) -> tuple[int, int] | None:
        """What the backlog lane reads next: after the first, up to the second; None when there is no backlog."""
        return (self._backlog.position, self._holes[0][1]) if self._holes else None

    def add_live(self, messages: Iterable[Message], position: int) -> None:
        """The live lane has looked at everything up to `position`; `messages` matched."""
        self._live.add(messages, position)

    def add_backlog(self, blocks: Iterable[Block], position: int) -> None:
        """The backlog lane has looked at everything up to `position`, within the hole that `next_read` named."""
        assert self._holes and position <= self._holes[0][1], "read beyond the hole"
        self._backlog.add(blocks, position)

    def skip_to(self, head: int) -> None:
        """The live lane goes on after `head`; what it has not sent becomes backlog."""
        first = self._live.first
        if first <= head:
            self._holes.append((first - 1, head))
            if len(self._holes) == 1:
                self._open_hole()
        self._live = _Live(max(head, self._live.position))
        self._live.first = max(first, head + 1)

    def take(self, most: int, most_bytes: int, *, live: bool = True, backlog: bool = True) -> Parcel | None:
        """The next parcel of the lanes allowed, None when they have none; blocks of the backlog were cut when they were read."""
        lane = self._next_lane(live, backlog)
        if lane is None:
            return None
        if lane is Lane.LIVE:
            parcel = self._live.take(most, most_bytes)
            self._live_bytes += 0 if parcel.block is None else parcel.block.size_bytes
        else:
            parcel = self._backlog.take()
            self._backlog_bytes += 0 if parcel.block is None else parcel.block.size_bytes
            self._end_hole()
        return parcel

    def rest(self) -> Iterator[Parcel]:
        """Ranges in which nothing matched, once nothing waits before their end: to be settled without a request."""
        if not self._backlog.blocks and self._holes and self._backlog.first <= self._backlog.position:
            yield self._backlog.take()
            self._end_hole()
        if not self._live.messages and self._live.first <= self._live.position:
            yield self._live.take(0, 0)

    def _next_lane(self, live: bool, backlog: bool) -> Lane | None:
        has_live, has_backlog = bool(self._live.messages), bool(self._backlog.blocks)
        if not (has_live and has_backlog):
            self._live_bytes = self._backlog_bytes = 0.0  # nobody saves up while the other has nothing
        if live and has_live and backlog and has_backlog:
            is_live = self._live_bytes * (1 - self._share) <= self._backlog_bytes * self._share
            return Lane.LIVE if is_live else Lane.BACKLOG
        if live and has_live:
            return Lane.LIVE
        return Lane.BACKLOG if backlog and has_backlog else None

    def _open_hole(self) -> None:
        if self._holes:
            after = self._holes[0][0]
            self._backlog = _Backlog(after)

    def _end_hole(self) -> None:
        """The hole was read and sent to its end: on to the next."""
        if self._holes and self._backlog.first > self._holes[0][1]:
            self._holes.popleft()
            self._open_hole()


def _cost_bytes(message: Message) -> int:
    return len(message.payload) + len(message.topic) + BLOCK_ROW_BYTES


def _holes(floor: int, settled: Runs, live_from: int) -> Iterator[tuple[int, int]]:
    position = floor
    for first, last in settled:
        if position < min(first - 1, live_from):
            yield position, min(first - 1, live_from)
        position = max(position, last)
    if position < live_from:
        yield position, live_from

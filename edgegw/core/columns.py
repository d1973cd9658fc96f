"""The batch between gateways: messages as columns, and the range of the sender's numbers they stand for.

    application/vnd.edgegw.columns, a msgpack array:

    0  version       1
    1  origin        who counts: `gateway/epoch/stream/consumer`; no two streams or links of one gateway share one
    2  first         of the range of the origin's numbers that this batch stands for: everything there was to send
    3  last          … both inclusive
    4  seqs          the messages' numbers as runs: [first, count, first, count, …], ascending, within the range
    5  topic names   each once
    6  topic index   0 = all the first name; bytes or list = one number a message
    7  content types each once
    8  type index    likewise
    9  payloads      list of bytes
    10 times         µs since 1970 as runs: [count, µs, count, µs, …]
    11 TTLs          null, or a list of ms that are left or null

Why not an array of messages: a thousand of them cost a few microseconds as columns and a few milliseconds as maps. Why a range:
whoever gets it remembers which ranges of an origin came, a few numbers in all, and knows a message that comes twice however the
batches are cut, after days and after millions of messages. A key for each message would be forgotten after a hundred thousand.
"""

from collections.abc import Sequence
from itertools import chain, groupby, repeat
from typing import Any, NamedTuple

import msgpack

from edgegw.core.block import Block

CONTENT_TYPE = "application/vnd.edgegw.columns"
# The header, in any form of batch, by which a gateway knows what it sent itself: the epoch of the sender's store.
SENDER = "Edgegw-Sender"
VERSION = 1
_ORIGIN_BYTES_MAX = 255
_SEQ_MAX = 2**48
# The array itself and its columns, with a few to spare: a body of empty arrays would take sixty times its size.
_ARRAYS_MAX = 16


class Received(NamedTuple):
    """A batch as it came; every column has one entry a message."""

    origin: str
    first: int
    last: int
    seqs: list[int]
    topics: list[str]
    content_types: list[str]
    payloads: list[bytes]
    times_us: list[int]
    ttls_ms: list[int | None] | None


def encode(origin: str, first: int, last: int, block: Block, now_ms: int, *, prefix: str = "") -> bytes:
    """The body for a block that stands for everything from `first` to `last`; `prefix` stands before each topic."""
    topics, topic_index = _indexed(block.topics)
    if prefix:
        topics = [prefix + topic for topic in topics]
    types, type_index = _indexed(block.content_types)
    ttls = None
    if block.expires_ms is not None:
        ttls = [None if at is None else max(1, at - now_ms) for at in block.expires_ms]
    columns = (
        VERSION, origin, first, last, _seq_runs(block.seqs), topics, topic_index, types, type_index,
        block.payloads, _time_runs(block.times_us), ttls,
    )  # fmt: skip
    body: bytes = msgpack.packb(columns)
    return body


def decode(body: bytes, most: int) -> Received:
    """What `encode` made; ValueError says what is wrong with it. At most `most` messages."""
    try:
        columns = _unpacked(body, most)
    except (ValueError, RecursionError, OverflowError) as exc:
        raise ValueError(f"it is not msgpack: {str(exc) or type(exc).__name__}") from exc
    if not isinstance(columns, list) or len(columns) != 12 or columns[0] != VERSION:
        raise ValueError(f"it is no array of 12 columns of version {VERSION}")
    _, origin, first, last, seq_runs, topics, topic_index, types, type_index, payloads, time_runs, ttls = columns
    if (
        not isinstance(origin, str)
        or not 0 < len(origin.encode(errors="replace")) <= _ORIGIN_BYTES_MAX
        or not origin.isprintable()
    ):
        raise ValueError(f"the origin is no text of 1 to {_ORIGIN_BYTES_MAX} bytes")
    if not (_is_number(first) and _is_number(last) and 1 <= first <= last <= _SEQ_MAX):
        raise ValueError(f"the range is not from 1 to {_SEQ_MAX}")
    if not isinstance(payloads, list) or set(map(type, payloads)) != {bytes}:
        raise ValueError("payloads is no list of bytes, or an empty one")
    n = len(payloads)
    if n > most:
        raise ValueError(f"it has {n} messages, more than {most}")
    seqs = _unrolled_seqs(seq_runs, n)
    if seqs[0] < first or seqs[-1] > last:
        raise ValueError("a number lies outside of the range")
    times_us = _unrolled_times(time_runs, n)
    if ttls is not None and (
        not isinstance(ttls, list) or len(ttls) != n or not all(ttl is None or (_is_number(ttl) and ttl > 0) for ttl in ttls)
    ):
        raise ValueError("TTLs is neither null nor a list of ms or null, one for each message")
    return Received(
        origin,
        first,
        last,
        seqs,
        _named(topics, topic_index, n, "topic"),
        _named(types, type_index, n, "type"),
        payloads,
        times_us,
        ttls,
    )


# --- columns ------------------------------------------------------------------------------------


def _unpacked(body: bytes, most: int) -> Any:
    arrays = 0

    def count(array: list[Any]) -> list[Any]:
        nonlocal arrays
        arrays += 1
        if arrays > _ARRAYS_MAX:
            raise ValueError(f"it has more than {_ARRAYS_MAX} arrays")
        return array

    return msgpack.unpackb(body, list_hook=count, object_hook=_refuse_map, max_array_len=max(12, 2 * most), max_ext_len=0)


def _refuse_map(_: object) -> None:
    raise ValueError("it has a map")


def _indexed(names: list[str]) -> tuple[list[str], int | bytes | list[int]]:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(numbers) == 1:
        return list(numbers), 0
    index = list(map(numbers.__getitem__, names))
    return list(numbers), bytes(index) if len(numbers) <= 256 else index


def _named(names: Any, index: Any, n: int, what: str) -> list[str]:
    if not isinstance(names, list) or set(map(type, names)) != {str}:
        raise ValueError(f"{what} names is no list of strings, or an empty one")
    if type(index) is int and index == 0 and len(names) == 1:
        return names * n
    if not isinstance(index, bytes | list) or len(index) != n or not all(map(_is_number, index)) or max(index) >= len(names):
        raise ValueError(f"{what} index does not name one of {len(names)} for each of {n} messages")
    return [names[i] for i in index]


def _seq_runs(seqs: list[int]) -> list[int]:
    if seqs[-1] - seqs[0] + 1 == len(seqs):
        return [seqs[0], len(seqs)]
    runs: list[int] = []
    for _, group in groupby(enumerate(seqs), key=lambda pair: pair[1] - pair[0]):
        members = list(group)
        runs += (members[0][1], len(members))
    return runs


def _unrolled_seqs(runs: Any, n: int) -> list[int]:
    seqs: list[int] = []
    for first, count in _pairs(runs, n, "seqs"):
        if first < 1 or (seqs and first <= seqs[-1]):
            raise ValueError("seqs do not ascend from 1")
        seqs += range(first, first + count)
    if len(seqs) != n:
        raise ValueError(f"seqs has {len(seqs)} numbers for {n} messages")
    return seqs


def _time_runs(times_us: list[int]) -> list[int]:
    if times_us[0] == times_us[-1] and times_us.count(times_us[0]) == len(times_us):
        return [len(times_us), times_us[0]]
    return list(chain.from_iterable((len(list(group)), time_us) for time_us, group in groupby(times_us)))


def _unrolled_times(runs: Any, n: int) -> list[int]:
    times: list[int] = []
    for count, time_us in ((pair[0], pair[1]) for pair in _pairs(runs, n, "times", is_count_first=True)):
        times += repeat(time_us, count)
    if len(times) != n:
        raise ValueError(f"times has {len(times)} entries for {n} messages")
    return times


def _pairs(runs: Any, n: int, what: str, *, is_count_first: bool = False) -> Sequence[tuple[int, int]]:
    """Pairs whose counts make up at most `n`, so that a short text cannot ask for much memory."""
    if not isinstance(runs, list) or len(runs) % 2 or set(map(type, runs)) != {int}:
        raise ValueError(f"{what} is no list of pairs of numbers")
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    counts = runs[::2] if is_count_first else runs[1::2]
    if min(counts) < 1 or sum(counts) > n or max(map(abs, runs)) > 2**62:
        raise ValueError(f"{what} has a run that cannot be")
    return pairs


def _is_number(value: object) -> bool:
    return type(value) is int and value >= 0

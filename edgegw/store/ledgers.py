"""Consumers on disk: one msgpack array a row; settled numbers as runs, so that a long tail of them stays short."""

import msgpack

from edgegw.core.cursor import Ledger, Terms
from edgegw.core.record import Gap


def pack_ledger(ledger: Ledger) -> bytes:
    """The row's `record`."""
    terms = ledger.terms
    packed: bytes = msgpack.packb(
        (
            terms.stream,
            terms.filter,
            terms.max_inflight,
            terms.ack_wait_s,
            terms.max_deliver,
            ledger.floor,
            ledger.matched,
            [number for first, last in ledger.settled for number in (first, last - first + 1)],
            ledger.acked,
            ledger.dead_lettered,
            ledger.lost,
            ledger.gaps,
            ledger.deliveries,
        )
    )
    return packed


def unpack_ledger(number: int, name: str, packed: bytes) -> Ledger:
    """The consumer of a row."""
    (
        stream, topic_filter, max_inflight, ack_wait_s, max_deliver,
        floor, matched, runs, acked, dead_lettered, lost, gaps, deliveries,
    ) = msgpack.unpackb(packed, strict_map_key=False)  # fmt: skip
    return Ledger(
        number=number,
        terms=Terms(name, stream, topic_filter, max_inflight, ack_wait_s, max_deliver),
        floor=floor,
        matched=matched,
        settled=tuple((first, first + n - 1) for first, n in zip(runs[::2], runs[1::2], strict=True)),
        acked=acked,
        dead_lettered=dead_lettered,
        lost=lost,
        gaps=tuple(Gap(*gap) for gap in gaps),
        deliveries=deliveries,
    )

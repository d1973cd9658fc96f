"""What a message costs among 10,000 subscriptions, against 10: those that do not match must cost nothing.

The same ten match in both. The other 9,990 have the same forms (exact, `+`, `#`) and share levels with the topics, but match
none of them.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgegw.bus import Bus
from edgegw.core.record import OCTETS, Batch
from edgegw.core.topic import FilterIndex
from edgegw.subscription import Subscription
from tests.bench.limit_server import loop_factory
from tests.bench.measure import BenchError, Goal, Options, Pair, Pairs, Result, interleaved, judged, medians, rounded
from tests.bench.publishers import new_bus

GOAL = Goal("ratio", at_most=True, must=2.0, aim=1.2)
SUBSCRIPTIONS = 10_000
PAIRS = 15
_ROUNDS = 20
_WARM_ROUNDS = 3

TOPICS = [f"plant/{p}/line/{n}/sensor/{s}" for p, n, s in itertools.product(range(10), repeat=3)]
MATCHING = [
    *(f"plant/{i}/line/{i}/sensor/{i}" for i in range(4)),
    *(f"plant/{i}/line/+/sensor/{i}" for i in range(4, 7)),
    *(f"plant/{i}/#" for i in range(7, 10)),
]


def others(count: int) -> list[str]:
    """Filters in the proportions of MATCHING that match none of TOPICS."""
    forms = [
        *("plant/{p}/line/{n}/sensor/{x}",) * 4,
        *("plant/{p}/line/+/sensor/{x}", "plant/+/line/{n}/sensor/{x}", "plant/{p}/+/{x}/sensor/+"),
        *("plant/{x}/#", "plant/{p}/line/{n}/sensor/{x}/#", "plant/{p}/line/+/actor/{x}/#"),
    ]
    made = (form.format(p=i % 10, n=i // 10 % 10, x=10 + i) for i in itertools.count() for form in (forms[i % len(forms)],))
    return list(itertools.islice(made, count))


def run(options: Options) -> Result:
    """The index with its memory of topics, without it, and the bus; the worst ratio counts."""
    count = options.pairs or PAIRS
    paths = {
        "index_warm": _index(count, FilterIndex(), FilterIndex()),
        "index_cold": _index(count, FilterIndex(cache_max=1), FilterIndex(cache_max=1)),
    }
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        paths["bus"] = runner.run(_buses(count, options.folder))
    worst = max(paths, key=lambda path: paths[path].ratio)
    return judged(
        "matching",
        paths[worst].ours,
        "ns per message",
        paths[worst].limit,
        GOAL,
        ratio=paths[worst].ratio,
        worst=worst,
        paths={
            path: {"ratio": rounded(pairs.ratio), "many_ns": rounded(pairs.ours), "few_ns": rounded(pairs.limit)}
            for path, pairs in paths.items()
        },
    )


def _index(count: int, few: FilterIndex[str], many: FilterIndex[str]) -> Pairs:
    for topic_filter in MATCHING:
        few.add(topic_filter, topic_filter)
        many.add(topic_filter, topic_filter)
    for topic_filter in others(SUBSCRIPTIONS - len(MATCHING)):
        many.add(topic_filter, topic_filter)
    if [sorted(few.match(topic)) for topic in TOPICS] != [sorted(many.match(topic)) for topic in TOPICS]:
        raise BenchError("the two indexes do not match the same")
    return interleaved(lambda: _match_ns(few.match), lambda: _match_ns(many.match), count)


def _match_ns(match: Callable[[str], Sequence[str]]) -> float:
    started = time.thread_time_ns()
    for _ in range(_ROUNDS):
        for topic in TOPICS:
            match(topic)
    return (time.thread_time_ns() - started) / (_ROUNDS * len(TOPICS))


async def _buses(count: int, folder: Path) -> Pairs:
    with tempfile.TemporaryDirectory(dir=folder) as here, tempfile.TemporaryDirectory(dir=folder) as there:
        few, many = new_bus(Path(here)), new_bus(Path(there))
        await few.start()
        await many.start()
        readers = [[bus.subscribe(topic_filter) for topic_filter in MATCHING] for bus in (few, many)]
        for topic_filter in others(SUBSCRIPTIONS - len(MATCHING)):
            many.subscribe(topic_filter)
        for _ in range(_WARM_ROUNDS):
            await _publish_ns(few, readers[0])
            await _publish_ns(many, readers[1])
        pairs = [Pair(await _publish_ns(few, readers[0]), await _publish_ns(many, readers[1])) for _ in range(count)]
        await few.stop()
        await many.stop()
    return medians(pairs)


async def _publish_ns(bus: Bus, readers: list[Subscription]) -> float:
    """The loop's own time for a message: published, committed, handed to its subscriptions and taken there."""
    batch = Batch(TOPICS, [b"x" * 100] * len(TOPICS), OCTETS)
    started = time.thread_time_ns()
    taken = 0
    for _ in range(_ROUNDS):
        await bus.publish_batch(batch)
        for reader in readers:
            taken += len(await reader.next())
    took_ns = time.thread_time_ns() - started
    if taken != _ROUNDS * (4 + 3 * 10 + 3 * 100):
        raise BenchError(f"{taken} messages were delivered, not what the filters match")
    return took_ns / (_ROUNDS * len(TOPICS))

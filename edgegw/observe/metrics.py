"""Metrics: counters, gauges and histograms of integers, told in the Prometheus text format 0.0.4.

    metrics = Metrics()
    answered = metrics.counters("edgegw_http_requests_total", "Requests answered.", ("route", "status"))
    created = answered.labels("messages", "201")         # kept by the caller: the hot path looks nothing up
    created.inc()

Each kind comes without labels (`counter`), with labels (`counters`), and as a function that is asked when somebody reads
(`counter_from`, `counters_from`), so that figures kept elsewhere, such as a stream's rows, cost nothing per message.

Histograms take integers, microseconds or bytes, and count them in integer buckets: one bisection and two additions. A
histogram whose name ends in `_seconds` is observed in microseconds and told in seconds.

A child has one writer, the event loop or one thread: additions are not locked. It may be read at any time.
A metric has at most METRIC_LABEL_SETS_MAX label sets; what comes after them counts under the label `other`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Final, Generic, TypeVar

from edgegw.limits import METRIC_LABEL_CHARS_MAX, METRIC_LABEL_SETS_MAX

Labels = tuple[str, ...]

# Endings that belong to one kind, or that a histogram's own lines have.
_TAKEN_ENDINGS: Final = ("_total", "_bucket", "_count", "_sum")


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, count: int = 1) -> None:
        """Add `count`, which is not negative."""
        self.value += count


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """It is now `value`."""
        self.value = value

    def inc(self, count: int = 1) -> None:
        """Add `count`, or take it away when it is negative."""
        self.value += count


class Histogram:
    """How often which size was seen: `counts[i]` of at most `bounds[i]`, the last one of more than all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value, in microseconds or bytes, as the metric's name says."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Child = TypeVar("Child", Counter, Gauge, Histogram)


class Family(Generic[Child]):
    """A metric with labels: one child for each set of them."""

    __slots__ = ("_children", "_make", "_width")

    def __init__(self, width: int, make: Callable[[], Child]) -> None:
        self._width = width
        self._make: Callable[[], Child] = make
        self._children: dict[Labels, Child] = {}

    def labels(self, *values: str) -> Child:
        """The child with these label values, in the order of the metric's label names; to be kept."""
        child = self._children.get(values)
        if child is None:
            values = _place(values, self._width, self._children)
            child = self._children.setdefault(values, self._make())
        return child

    def children(self) -> dict[Labels, Child]:
        """Every child by its label values."""
        return self._children.copy()


class Metrics:
    """Every metric of one gateway, in the order of their making. ValueError for names that do not fit."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, str, Callable[[], Iterable[str]]]] = {}  # name: help, kind, lines

    def render(self) -> str:
        """All of it as text."""
        lines: list[str] = []
        for name, (text, kind, read) in self._metrics.items():
            lines += (f"# HELP {name} {_escaped(text)}", f"# TYPE {name} {kind}", *read())
        return "\n".join(lines) + "\n"

    def counter(self, name: str, text: str) -> Counter:
        """One counter; its name ends in `_total`."""
        return self.counters(name, text, ()).labels()

    def counters(self, name: str, text: str, labels: Labels) -> Family[Counter]:
        """Counters by label values."""
        family = Family(len(labels), Counter)
        self._add(name, text, "counter", labels, partial(_family_lines, name, labels, family))
        return family

    def counter_from(self, name: str, text: str, read: Callable[[], float]) -> None:
        """One counter that is kept elsewhere."""
        self.counters_from(name, text, (), lambda: [((), read())])

    def counters_from(self, name: str, text: str, labels: Labels, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        """Counters that are kept elsewhere; `read` returns pairs of label values and number."""
        self._add(name, text, "counter", labels, lambda: _sample_lines(name, labels, _placed(labels, read())))

    def gauge(self, name: str, text: str) -> Gauge:
        """One gauge."""
        return self.gauges(name, text, ()).labels()

    def gauges(self, name: str, text: str, labels: Labels) -> Family[Gauge]:
        """Gauges by label values."""
        family = Family(len(labels), Gauge)
        self._add(name, text, "gauge", labels, partial(_family_lines, name, labels, family))
        return family

    def gauge_from(self, name: str, text: str, read: Callable[[], float]) -> None:
        """One gauge that is kept elsewhere."""
        self.gauges_from(name, text, (), lambda: [((), read())])

    def gauges_from(self, name: str, text: str, labels: Labels, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        """Gauges that are kept elsewhere; `read` returns pairs of label values and number."""
        self._add(name, text, "gauge", labels, lambda: _sample_lines(name, labels, _placed(labels, read())))

    def histogram(self, name: str, text: str, bounds: tuple[int, ...]) -> Histogram:
        """One histogram; `bounds` in microseconds when its name ends in `_seconds`."""
        return self.histograms(name, text, (), bounds).labels()

    def histograms(self, name: str, text: str, labels: Labels, bounds: tuple[int, ...]) -> Family[Histogram]:
        """Histograms by label values."""
        if not bounds or list(bounds) != sorted(set(bounds)) or not all(isinstance(bound, int) for bound in bounds):
            raise ValueError(f"bounds of {name}: {bounds} are not integers that grow")
        family = Family(len(labels), partial(Histogram, bounds))
        self._add(name, text, "histogram", labels, partial(_histogram_lines, name, labels, family))
        return family

    def _add(self, name: str, text: str, kind: str, labels: Labels, lines: Callable[[], Iterable[str]]) -> None:
        if name in self._metrics:
            raise ValueError(f"metric {name} exists")
        is_counter = kind == "counter" and name.endswith("_total")
        if (
            not _is_name(name)
            or not name.startswith(("edgegw_", "process_"))
            or is_counter != (kind == "counter" or name.endswith(_TAKEN_ENDINGS))
        ):
            raise ValueError(f"{name} is no name for a {kind}: small letters, `edgegw_` first, `_total` last for counters alone")
        for label in labels:
            if not _is_name(label) or label in {"le", "quantile"} or labels.count(label) > 1:
                raise ValueError(f"label {label} of {name}: small letters, each once, neither le nor quantile")
        self._metrics[name] = (text, kind, lines)


def _is_name(text: str) -> bool:
    """Words of small letters and digits, joined by single underscores, the first a letter."""
    return text.isascii() and text == text.lower() and text[:1].isalpha() and all(map(str.isalnum, text.split("_")))


def _place(values: Labels, width: int, known: Mapping[Labels, object]) -> Labels:
    """Where these label values are counted: under themselves, or under `other` when there are too many."""
    assert len(values) == width, f"{width} labels, not {values}"
    # Cut, and half characters (surrogates), which are not UTF-8, written out: before the look-up, for no two may end up alike.
    values = tuple([value[:METRIC_LABEL_CHARS_MAX].encode("utf-8", "backslashreplace").decode() for value in values])
    if values in known or len(known) < METRIC_LABEL_SETS_MAX:
        return values
    return ("other",) * width


def _placed(labels: Labels, samples: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    placed: dict[Labels, float] = {}
    for values, value in samples:
        place = _place(values, len(labels), placed)
        # The same label set twice would make the reader refuse all of it.
        placed[place] = placed.get(place, 0) + value
    return placed


def _family_lines(name: str, labels: Labels, family: Family[Counter] | Family[Gauge]) -> Iterator[str]:
    return _sample_lines(name, labels, {values: child.value for values, child in family.children().items()})


def _sample_lines(name: str, labels: Labels, samples: Mapping[Labels, float]) -> Iterator[str]:
    for values, value in samples.items():
        yield f"{name}{_braced(_label_text(labels, values))} {_number(value)}"


def _histogram_lines(name: str, labels: Labels, family: Family[Histogram]) -> Iterator[str]:
    unit: Callable[[int], str] = _seconds if name.endswith("_seconds") else str
    for values, child in family.children().items():
        text = _label_text(labels, values)
        counts = list(accumulate(child.counts))
        for bound, count in zip((*map(unit, child.bounds), "+Inf"), counts, strict=True):
            yield f"{name}_bucket{_braced([*text, _label('le', bound)])} {count}"
        yield f"{name}_sum{_braced(text)} {unit(child.total)}"
        yield f"{name}_count{_braced(text)} {counts[-1]}"


def _label_text(labels: Labels, values: Labels) -> list[str]:
    return list(map(_label, labels, values))


def _label(name: str, value: str) -> str:
    text = _escaped(value).replace('"', '\\"')
    return f'{name}="{text}"'


def _braced(labels: list[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _seconds(micros: int) -> str:
    """Exactly, without a float in between."""
    return f"{micros // 1_000_000}.{micros % 1_000_000:06d}".rstrip("0").rstrip(".")


def _number(value: float) -> str:
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text := str(value), text)

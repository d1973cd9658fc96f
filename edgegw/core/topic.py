"""Topics and topic filters by the rules of MQTT 5.0, section 4.7, and the index that matches them.

A topic is levels between `/`. A filter may hold `+` (one level) and a last `#` (this level and all below).
Wildcards at the first level do not match topics that begin with `$` (4.7.2): those belong to the gateway.

`FilterIndex` is a trie with one node per level of each filter. A topic of L levels visits only nodes whose path matches its
own beginning, so filters that do not match cost nothing; results are remembered per topic until a filter comes or goes.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

from edgegw.errors import RequestError
from edgegw.limits import MATCH_CACHE_MAX, MATCHES_CACHED_MAX, TOPIC_BYTES_MAX, TOPIC_LEVELS_MAX

T = TypeVar("T")


def check_topic(text: str, *, where: str = "topic", reserved: bool = False) -> str:
    """Return `text` when it is a topic one may publish to; `reserved` admits `$…`. Raises RequestError(bad_topic)."""
    fault = _fault(text)
    if fault is None:
        if "+" in text or "#" in text:
            fault = "has a wildcard; wildcards belong in filters"
        elif text[0] == "$" and not reserved:
            fault = "begins with '$', which is reserved for the gateway"
    if fault is not None:
        raise RequestError("bad_topic", f"the topic {_shown(text)} {fault}", "see MQTT 5.0 section 4.7", where=where)
    return text


def check_filter(text: str, *, where: str = "topic") -> str:
    """Return `text` when it is a topic filter. Raises RequestError(bad_filter)."""
    fault = _fault(text)
    if fault is None:
        levels = text.split("/")
        for level in levels[:-1]:
            if "#" in level or ("+" in level and level != "+"):
                fault = "has a wildcard inside a level, or '#' before the last"
        last = levels[-1]
        if last not in ("#", "+") and ("#" in last or "+" in last):
            fault = "has a wildcard inside a level"
    if fault is not None:
        raise RequestError("bad_filter", f"the topic filter {_shown(text)} {fault}", "see MQTT 5.0 section 4.7", where=where)
    return text


def matches(topic_filter: str, topic: str) -> bool:
    """Whether `topic` is matched by one filter; both already checked."""
    if topic_filter in ("#", topic):
        return topic_filter != "#" or topic[0] != "$"
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic[0] == "$" and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i == len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)


def covers(granted: str, asked: str) -> bool:
    """Whether the filter `granted` matches every topic that the filter `asked` matches; both already checked."""
    have, want = granted.split("/"), asked.split("/")
    if want == ["#"]:
        return have in (["#"], ["+", "#"])  # the same: a topic has a first level
    if want[0][:1] == "$" and have[0] != want[0]:
        return False
    for i, level in enumerate(have):
        if level == "#":
            return True
        if i == len(want) or want[i] == "#" or level not in ("+", want[i]):
            return False
    return len(have) == len(want)


class _Node(Generic[T]):
    __slots__ = ("below", "deep", "here")

    def __init__(self) -> None:
        self.below: dict[str, _Node[T]] = {}
        self.here: list[T] = []
        self.deep: list[T] = []  # filters that end in `#` at this place

    def is_empty(self) -> bool:
        return not (self.below or self.here or self.deep)


class FilterIndex(Generic[T]):
    """Which values have a filter that matches a topic. One value may stand under many filters; it is found once for each."""

    def __init__(self, cache_max: int = MATCH_CACHE_MAX) -> None:
        self._root: _Node[T] = _Node()
        self._cache: dict[str, tuple[T, ...]] = {}
        self._cache_max = cache_max
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, topic_filter: str, value: T) -> None:
        """Put `value` under a checked filter."""
        node = self._root
        levels = topic_filter.split("/")
        deep = levels[-1] == "#"
        for level in levels[:-1] if deep else levels:
            node = node.below.setdefault(level, _Node())
        (node.deep if deep else node.here).append(value)
        self._size += 1
        self._cache.clear()

    def remove(self, topic_filter: str, value: T) -> None:
        """Take `value` from under the filter; raises KeyError when it does not stand there."""
        levels = topic_filter.split("/")
        deep = levels[-1] == "#"
        if deep:
            levels.pop()
        path = [self._root]
        for level in levels:
            path.append(path[-1].below[level])
        values = path[-1].deep if deep else path[-1].here
        if value not in values:
            raise KeyError(topic_filter)
        values.remove(value)
        for level in reversed(levels):
            node = path.pop()
            if not node.is_empty():
                break
            del path[-1].below[level]
        self._size -= 1
        self._cache.clear()

    def match(self, topic: str) -> tuple[T, ...]:
        """The values whose filter matches the checked `topic`."""
        found = self._cache.get(topic)
        if found is None:
            found = tuple(self._walk(topic))
            if len(found) <= MATCHES_CACHED_MAX:
                if len(self._cache) >= self._cache_max:
                    del self._cache[next(iter(self._cache))]
                self._cache[topic] = found
        return found

    def _walk(self, topic: str) -> Iterator[T]:
        levels = topic.split("/")
        nodes = [self._root]
        wildcards = topic[0] != "$"
        for level in levels:
            following: list[_Node[T]] = []
            for node in nodes:
                if wildcards:
                    yield from node.deep
                    if (plus := node.below.get("+")) is not None:
                        following.append(plus)
                if (exact := node.below.get(level)) is not None:
                    following.append(exact)
            if not following:
                return
            nodes, wildcards = following, True
        for node in nodes:
            yield from node.here
            yield from node.deep  # `a/#` matches `a` itself, 4.7.1.2


def _fault(text: str) -> str | None:
    if not text:
        return "is empty"
    if "\0" in text:
        return "has a NUL character"
    if len(text) * 4 > TOPIC_BYTES_MAX or not text.isascii():
        try:
            size_bytes = len(text.encode())
        except UnicodeEncodeError:
            return "is not valid UTF-8"
        if size_bytes > TOPIC_BYTES_MAX:
            return f"has {size_bytes} bytes, more than {TOPIC_BYTES_MAX}"
    if text.count("/") >= TOPIC_LEVELS_MAX:
        return f"has {text.count('/') + 1} levels, more than {TOPIC_LEVELS_MAX}"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")

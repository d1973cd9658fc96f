"""Query parameters, strictly: each known, once, of its type."""

from urllib.parse import unquote_plus

from edgegw.api.bodies import number_in
from edgegw.api.routing import Call
from edgegw.errors import RequestError
from edgegw.limits import STREAM_ROWS_MAX
from edgegw.store.jobs import StreamStats


class Query:
    """The parameters of a call; anything but `known` is refused. Raises RequestError(unknown_parameter, bad_parameter)."""

    def __init__(self, call: Call, *known: str) -> None:
        self._values: dict[str, str] = {}
        _, mark, text = call.request.raw_path.partition("?")
        if not mark:
            return
        for part in filter(None, text.split("&")):
            name, _, value = part.partition("=")
            try:
                name, value = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
            except UnicodeDecodeError:
                raise RequestError(
                    "bad_parameter", "a query parameter is not UTF-8", "percent-encode it as UTF-8", where="query"
                ) from None
            if name not in known:
                hint = f"parameters: {', '.join(known)}" if known else "there are none here"
                raise RequestError("unknown_parameter", f"there is no parameter {name[:60]!r}", hint, where=name[:60])
            if name in self._values:
                raise RequestError("bad_parameter", f"{name} stands twice", "send it once", where=name)
            self._values[name] = value

    def has(self, name: str) -> bool:
        """Whether it was sent, empty or not."""
        return name in self._values

    def text(self, name: str, default: str) -> str:
        """As it is."""
        return self._values.get(name, default)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in its bounds."""
        text = self._values.get(name)
        if text is None:
            return default
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not low <= value <= high:
            raise RequestError("bad_parameter", f"{name} is {text[:60]!r}", f"a whole number from {low} to {high}", where=name)
        return value

    def position(self, name: str, stats: StreamStats, default: int) -> int:
        """A place in the stream: the messages behind it are wanted. Raises also RequestError(beyond_end)."""
        return check_position(self.integer(name, default, 0, STREAM_ROWS_MAX + 1), stats, where=name)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in its bounds."""
        text = self._values.get(name)
        if text is None:
            return default
        value = number_in(text)
        if value is None or not low <= value <= high:
            raise RequestError("bad_parameter", f"{name} is {text[:60]!r}", f"a number from {low:g} to {high:g}", where=name)
        return value

    def flag(self, name: str) -> bool:
        """1 or true, 0 or false."""
        text = self._values.get(name, "0").lower()
        if text not in ("0", "1", "true", "false"):
            raise RequestError("bad_parameter", f"{name} is {text[:60]!r}", "1 or 0", where=name)
        return text in ("1", "true")


def check_position(after: int, stats: StreamStats, *, where: str) -> int:
    """Return `after` when the stream has come that far. Raises RequestError(beyond_end)."""
    if after > stats.head:
        raise RequestError(
            "beyond_end",
            f"the stream {stats.name!r} ends at message {stats.head}, before {after}",
            "was the store replaced? then begin anew",
            where=where,
        )
    return after

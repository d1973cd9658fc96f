"""Query parameters, strictly: each known, once, of its type."""

import math
from urllib.parse import unquote_plus

from edgegw.api.routing import Call
from edgegw.errors import RequestError


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

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in its bounds."""
        text = self._values.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise RequestError("bad_parameter", f"{name} is {text[:60]!r}", f"a number from {low:g} to {high:g}", where=name)
        return value

    def flag(self, name: str) -> bool:
        """1 or true, 0 or false."""
        text = self._values.get(name, "0").lower()
        if text not in ("0", "1", "true", "false"):
            raise RequestError("bad_parameter", f"{name} is {text[:60]!r}", "1 or 0", where=name)
        return text in ("1", "true")

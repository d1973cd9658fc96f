"""The kinds of values a setting may have: what each takes, how it is checked, and how it is read from plain text.

`decode` gets what TOML gives and returns what the gateway works with; `parse` turns the text of an environment variable or
an option into what TOML would have given. Both raise ValueError, whose arguments are the things wrong, each a half sentence.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from edgegw.core.topic import check_filter, check_topic
from edgegw.errors import RequestError, printable
from edgegw.limits import CONFIG_SHOWN_CHARACTERS_MAX, NAME_BYTES_MAX, PORT_MAX, STREAM_FILTERS_MAX


class Kind(NamedTuple):
    """One kind of value; `takes` says for people what it accepts."""

    takes: str
    decode: Callable[[object], object]
    parse: Callable[[str], object] = str


class Setting(NamedTuple):
    """What stands behind a field of a section: its kind, and its meaning for people."""

    kind: Kind
    meaning: str


def setting(kind: Kind, meaning: str) -> dict[str, Any]:
    """The metadata of a dataclass field that is a setting."""
    return {"setting": Setting(kind, meaning)}


def integer(low: int, high: int) -> Kind:
    """Whole numbers from `low` to `high`."""

    def decode(raw: object) -> int:
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise ValueError(f"must be an integer, is {shown(raw)}")
        _check_range(raw, low, high)
        return raw

    def parse(text: str) -> object:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else text

    return Kind(f"integer, {low} to {high}", decode, parse)


def number(low: float, high: float) -> Kind:
    """Numbers from `low` to `high`; a whole one is taken for its fraction."""

    def decode(raw: object) -> float:
        if not isinstance(raw, int | float) or isinstance(raw, bool):
            raise ValueError(f"must be a number, is {shown(raw)}")
        _check_range(raw, low, high)
        return float(raw)

    def parse(text: str) -> object:
        return float(text) if re.fullmatch(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?", text) else text

    return Kind(f"number, {low:g} to {high:.12g}", decode, parse)


def choice(*names: str) -> Kind:
    """One of a few words."""

    def decode(raw: object) -> str:
        if raw not in names:
            raise ValueError(f"must be {' or '.join(map(shown, names))}, is {shown(raw)}")
        return str(raw)

    return Kind(" or ".join(f'"{name}"' for name in names), decode)


def path() -> Kind:
    """A path of the file system; a relative one starts at the working directory."""

    def decode(raw: object) -> Path:
        text = _string(raw)
        if not text or "\0" in text:
            raise ValueError(f"must be a path, is {shown(text)}")
        return Path(text)

    return Kind("path", decode)


def name() -> Kind:
    """A name that may stand in URLs, metric labels and file names."""

    def decode(raw: object) -> str:
        text = _string(raw)
        if not re.fullmatch(r"[a-z0-9._-]+", text):
            raise ValueError(f"must be lowercase letters, digits, '-', '_' and '.', is {shown(text)}")
        if len(text) > NAME_BYTES_MAX:
            raise ValueError(f"has {len(text)} characters, more than {NAME_BYTES_MAX}")
        return text

    return Kind(f"string of a-z, 0-9, -, _, ., at most {NAME_BYTES_MAX}", decode)


def name_or_none() -> Kind:
    """A name, or nothing."""
    named = name()
    return Kind(f"{named.takes}; or empty", lambda raw: named.decode(raw) if raw != "" else "")


def filters() -> Kind:
    """A list of MQTT topic filters, none of them twice."""

    def decode(raw: object) -> tuple[str, ...]:
        if not isinstance(raw, list):
            raise ValueError(f"must be a list of topic filters, is {shown(raw)}")
        if len(raw) > STREAM_FILTERS_MAX:
            raise ValueError(f"has {len(raw)} filters, more than {STREAM_FILTERS_MAX}")
        wrong: list[str] = []
        found: dict[str, None] = {}
        for item in raw:
            try:
                topic_filter = check_filter(_string(item))
            except ValueError as error:
                wrong.append(f"a topic filter {error}")
            except RequestError as error:
                wrong.append(error.what)
            else:
                if topic_filter in found:
                    wrong.append(f"has the topic filter {shown(topic_filter)} twice")
                found[topic_filter] = None
        if wrong:
            raise ValueError(*wrong)
        return tuple(found)

    return Kind(f"list of topic filters, at most {STREAM_FILTERS_MAX}", decode)


def flag() -> Kind:
    """Yes or no."""

    def decode(raw: object) -> bool:
        if not isinstance(raw, bool):
            raise ValueError(f"must be true or false, is {shown(raw)}")
        return raw

    def parse(text: str) -> object:
        return {"true": True, "false": False}.get(text.lower(), text)

    return Kind("true or false", decode, parse)


def tcp_address() -> Kind:
    """`HOST:PORT` to listen on; `localhost` becomes 127.0.0.1, so that no name server has a say."""

    def decode(raw: object) -> str:
        host, port = split_address(_string(raw))
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    return Kind("HOST:PORT; port 0 takes any free one", decode)


def one_filter() -> Kind:
    """One MQTT topic filter."""

    def decode(raw: object) -> str:
        try:
            return check_filter(_string(raw))
        except RequestError as error:
            raise ValueError(error.what) from None

    return Kind("topic filter", decode)


def prefix() -> Kind:
    """What may stand before a topic: a topic itself, or nothing."""

    def decode(raw: object) -> str:
        text = _string(raw)
        try:
            return check_topic(text) if text else text
        except RequestError as error:
            raise ValueError(error.what) from None

    return Kind("beginning of a topic", decode)


def url() -> Kind:
    """An http or https URL without credentials or fragment."""

    def decode(raw: object) -> str:
        text = _string(raw)
        try:
            parts = urlsplit(text)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            parts, is_good = None, False
        if parts is None or not is_good or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError(f'must be a URL, as "https://example.org:8443/v1/messages", is {shown(text)}')
        if parts.username is not None or parts.password is not None:
            raise ValueError("has credentials in it; put a token into a file and name it as token_file")
        if parts.fragment:
            raise ValueError("has a fragment, which no server gets to see")
        return text

    return Kind("http:// or https:// URL", decode)


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[HOST]:PORT`, where the host is an address. Raises ValueError for any other text."""
    import ipaddress  # only who runs a gateway needs it

    form = f'must be HOST:PORT, as "127.0.0.1:8080" or "[::1]:8080", is {shown(text)}'
    match = re.fullmatch(r"(?:\[([^\[\]%]*)\]|([^:\[\]]*)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > PORT_MAX:
        raise ValueError(form)
    host = match[1] or match[2] or ""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError(form) from None
    if isinstance(address, ipaddress.IPv6Address) != (match[1] is not None):
        raise ValueError(form)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"must not be an IPv4 address in the clothes of IPv6, is {shown(text)} (write {address.ipv4_mapped})")
    return address.compressed, int(match[3])


def is_loopback(host: str) -> bool:
    """Whether an address, as split_address or a socket gives it, is one that only this machine reaches."""
    return host.removeprefix("::ffff:").startswith("127.") or host == "::1"


def shown(raw: object) -> str:
    """A value as an error repeats it: on one line, of bounded length, in TOML's words."""
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, int):
        # Python refuses to print an integer of thousands of digits.
        return str(raw) if abs(raw) < 10**CONFIG_SHOWN_CHARACTERS_MAX else "an enormous integer"
    if isinstance(raw, float):
        return str(raw)
    if isinstance(raw, str):
        text = raw[:CONFIG_SHOWN_CHARACTERS_MAX]
        return f'"{printable(text)}{"…" if len(raw) > len(text) else ""}"'
    if isinstance(raw, list):
        return "a list"
    return "a table" if isinstance(raw, dict) else "a date or time"


def _string(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"must be a string, is {shown(raw)}")
    if any("\ud800" <= c <= "\udfff" for c in raw):
        raise ValueError(f"is not valid UTF-8: {shown(raw)}")
    return raw


def _check_range(raw: float, low: float, high: float) -> None:
    # Written so that NaN, which compares as false with everything, fails.
    if not low <= raw <= high:
        raise ValueError(f"must be {low} to {high}, is {shown(raw)}")

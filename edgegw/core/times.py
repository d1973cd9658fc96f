"""RFC 3339 times, in and out."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from edgegw.errors import RequestError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Times that can be written: the years 1 to 9999.
SOURCE_US_MIN = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
SOURCE_US_MAX = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time_us(text: object, *, where: str) -> int:
    """µs since 1970 of an RFC 3339 time with its zone. Raises RequestError(bad_time)."""
    if isinstance(text, str) and _RFC3339.fullmatch(text):
        try:
            # In UTC first: a zone can push a time out of the years 1 to 9999, and no client could read it back.
            return (datetime.fromisoformat(text.upper()).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            pass
    raise RequestError(
        "bad_time",
        f"{str(text)[:60]!r} is not a time as RFC 3339 has it",
        "write it as 2026-01-31T23:59:59.5Z or with +01:00",
        where=where,
    )


def time_text(time_us: int) -> str:
    """UTC with milliseconds, or with microseconds where there are any."""
    seconds, us = divmod(time_us, 1_000_000)
    return f"{_second(seconds)}.{us // 1000:03d}Z" if us % 1000 == 0 else f"{_second(seconds)}.{us:06d}Z"


def time_text_ms(time_ms: int) -> str:
    """UTC with milliseconds."""
    seconds, ms = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(timespec="seconds")

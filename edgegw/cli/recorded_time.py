"""The times of a recording: which form they have, and what they mean in UTC.

A recording has one form of time throughout. A form is `iso` (RFC 3339 and its relatives), `epoch` (seconds since 1970),
`epoch-ms`, `epoch-us`, `epoch-ns`, or a pattern of strptime. `find_form` finds it from the first rows: a form that fits more of
them than every other one wins, and where two fit equally well (10/03 may be March or October) it refuses to guess.
"""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from itertools import product
from zoneinfo import ZoneInfo

from edgegw.limits import SNIFF_FIRST_ROWS

_ISO = re.compile(r"\d{4}-?\d\d-?\d\d([T ]|$)")
_NUMBER = re.compile(r"-?\d{9,19}(\.\d+)?")
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d")
_HOURS = (" %H:%M:%S", " %H.%M.%S", " %H:%M", " %H.%M", " %H:%M:%S.%f", " %H:%M:%S,%f", " %I:%M:%S %p", " %I:%M %p", "")
_EPOCH_UNITS = {"epoch": 1, "epoch-ms": 10**3, "epoch-us": 10**6, "epoch-ns": 10**9}
# Digits before the point, up to which a number since 1970 is in this unit: the next unit begins a thousandfold higher.
_EPOCH_DIGITS = {"epoch": 11, "epoch-ms": 14, "epoch-us": 17, "epoch-ns": 19}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordedTime:
    """Reads times of one form; those that carry no zone are in `zone`."""

    def __init__(self, form: str, zone: tzinfo) -> None:
        self.form = form
        self._zone = zone
        self._units_per_s = _EPOCH_UNITS.get(form)

    def read(self, text: str) -> datetime:
        """The instant, in UTC. Raises ValueError."""
        if self._units_per_s is not None:
            return _from_epoch(text, self._units_per_s)
        time = datetime.fromisoformat(text) if self.form == "iso" else datetime.strptime(text, self.form)
        try:
            return (time if time.tzinfo is not None else time.replace(tzinfo=self._zone)).astimezone(UTC)
        except OverflowError:
            raise ValueError("outside the years 1 to 9999") from None


def zone_named(name: str) -> tzinfo:
    """The zone `Z`, `UTC`, `+02:00` or `Europe/Rome`. Raises ValueError."""
    if name in ("Z", "UTC"):
        return UTC
    if (offset := _OFFSET.fullmatch(name)) is not None:
        span = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        if span >= timedelta(days=1):
            raise ValueError(f"{name} is more than a day from UTC")
        return timezone(span if offset[1] == "+" else -span)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # an unknown name, a folder of names, a name that is no file name
        raise ValueError(f"this machine knows no time zone {name!r}; write Europe/Rome, +02:00 or Z") from None


def check_form(form: str) -> None:
    """Raises ValueError when no time could be read with `form`."""
    if form == "iso" or form in _EPOCH_UNITS:
        return
    try:
        datetime.strptime(_EPOCH.strftime(form), form)
    except (ValueError, re.error) as error:  # re.error: the same directive twice
        raise ValueError(f"{form!r} is no form of time: {error}") from None
    if "%" not in form:
        raise ValueError(f"{form!r} is no form of time: it has no directive, such as %Y")


def rfc3339(time: datetime) -> str:
    """`time` (in UTC) as the gateway takes it."""
    return time.replace(tzinfo=None).isoformat() + "Z"


def obvious_form(sample: str) -> str | None:
    """The form of one time alone, where nothing else can be meant."""
    if _NUMBER.fullmatch(sample) is not None:
        digits = len(sample.partition(".")[0].lstrip("-"))
        return next(form for form, digits_max in _EPOCH_DIGITS.items() if digits <= digits_max)
    return "iso" if _ISO.match(sample) is not None and _fits("iso", sample) else None


def find_form(samples: Sequence[str]) -> str:
    """The form of most of the samples. Raises ValueError that says what was seen and why it does not do."""
    obvious = Counter(map(obvious_form, samples)).most_common(1)
    if obvious and obvious[0][0] is not None:
        return obvious[0][0]
    # A few samples leave a few forms, and only those need all of the samples: a form that does not fit costs an exception.
    forms = _best([day + hour for day, hour in product(_DAYS, _HOURS)], samples[:SNIFF_FIRST_ROWS])
    forms = _best(forms, samples)
    if not forms:
        raise ValueError(f"the form of the time {samples[0]!r} is not known" if samples else "no row has a time")
    if len(forms) > 1:
        raise ValueError(f"the time {samples[0]!r} can be read as {' or '.join(map(repr, forms))}")
    return forms[0]


def _best(forms: Sequence[str], samples: Sequence[str]) -> list[str]:
    fits = {form: sum(_fits(form, sample) for sample in samples) for form in forms}
    most = max(fits.values(), default=0)
    return [form for form, count in fits.items() if count == most > 0]


def _fits(form: str, sample: str) -> bool:
    try:
        RecordedTime(form, UTC).read(sample)
    except ValueError:
        return False
    return True


def _from_epoch(text: str, units_per_s: int) -> datetime:
    try:
        # Decimal, not float: a float of nanoseconds since 1970 is wrong by a hundred of them.
        return _EPOCH + timedelta(microseconds=int(Decimal(text) * 1_000_000 / units_per_s))
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError("no number of seconds since 1970, or out of range") from None

"""When a certificate holds: the one thing of X.509 that the standard library verifies and does not tell.

Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version?, serial, signature, issuer, validity, … }, … }
Validity    ::= SEQUENCE { notBefore Time, notAfter Time }            RFC 5280 section 4.1, in DER
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class Validity(NamedTuple):
    """From when until when, in seconds since 1970."""

    begins_s: int
    ends_s: int


def validity(der: bytes) -> Validity:
    """When this certificate holds. Raises ValueError when it is none."""
    ((_, certificate),) = _parts(der, 1)
    ((kind, signed),) = _parts(certificate, 1)
    if kind != _SEQUENCE:
        raise ValueError("this is no certificate")
    fields = [part for part in _parts(signed, 6) if part[0] != _VERSION]
    (begins_kind, begins), (ends_kind, ends) = _parts(fields[3][1], 2)
    return Validity(_time_s(begins_kind, begins), _time_s(ends_kind, ends))


def _parts(content: bytes, most: int) -> list[tuple[int, bytes]]:
    """The first `most` elements of a DER content, or fewer: each its tag and its own content."""
    return [part for part, _ in zip(_each(content), range(most), strict=False)]


def _each(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:  # X.690 section 8.1.3.5: so many bytes of length follow
            size = length & 0x7F
            length = int.from_bytes(content[at : at + size], "big")
            at += size
        if at + length > len(content):
            raise ValueError("this is no certificate: it is cut off")
        yield tag, content[at : at + length]
        at += length


def _time_s(kind: int, content: bytes) -> int:
    text = content.decode("ascii", "replace")
    if kind == _UTC_TIME:  # RFC 5280 section 4.1.2.5.1: from 50 on it is 19..
        text = ("19" if text[:1] >= "5" else "20") + text
    elif kind != _GENERALIZED_TIME:
        raise ValueError("this is no certificate: it has no dates")
    return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())

"""When a certificate holds, read from certificates that OpenSSL made; and from what is none."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.certificate import validity
from tests.certificates import Authority

DAY_S = 86_400


def der(path: Path) -> bytes:
    text = path.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERT") :])


@pytest.mark.parametrize("days", [1, 400, 365 * 60])  # from 2050 on the time has another form
def test_its_dates(tmp_path: Path, days: int) -> None:
    certificate, _ = Authority(tmp_path).issue("gw", days=days, since_days=2)
    found = validity(der(certificate))
    now = datetime.now(UTC)
    assert abs(found.begins_s - (now - timedelta(days=2)).timestamp()) < 60
    assert abs(found.ends_s - (now + timedelta(days=days)).timestamp()) < 60


def test_a_certificate_of_the_last_century() -> None:
    times = b"\x17\x0d991231235959Z" + b"\x18\x0f20500101000000Z"
    signed = b"\x02\x01\x01" + b"\x30\x00" + b"\x30\x00" + b"\x30" + bytes([len(times)]) + times
    found = validity(_sequence(_sequence(signed)))
    assert found.begins_s == datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert found.ends_s == datetime(2050, 1, 1, tzinfo=UTC).timestamp()


def _sequence(content: bytes) -> bytes:
    return b"\x30" + bytes([len(content)]) + content


@given(st.binary(max_size=200))
def test_what_is_none(content: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        validity(content)


def test_one_that_is_cut_off(tmp_path: Path) -> None:
    whole = der(Authority(tmp_path).certificate)
    for size in range(0, len(whole), 7):
        with pytest.raises((ValueError, IndexError)):
            validity(whole[:size])

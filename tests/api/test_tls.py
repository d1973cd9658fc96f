"""Certificate, key and CA from files: what they may be, their dates, and taking over new ones."""

import os
import subprocess
from pathlib import Path

import pytest

from edgegw.api.tls import TlsFiles, certificate_validity
from edgegw.errors import ConfigError
from edgegw.limits import CERTIFICATE_BYTES_MAX
from tests.certificates import Authority

DAY_S = 86_400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("gw", days=100)


def fault(certificate: Path, key: Path, ca: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        TlsFiles(certificate, key, ca)
    assert caught.value.code == "bad_certificate"
    return caught.value.what


def test_a_pair(pair: tuple[Path, Path], authority: Authority) -> None:
    TlsFiles(*pair, None)
    TlsFiles(*pair, authority.certificate)


def test_files_that_are_not_there(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pair
    missing = tmp_path / "x.pem"
    assert fault(missing, key) == f"{missing} cannot be read: No such file or directory"
    assert fault(certificate, missing) == f"{missing} cannot be read: No such file or directory"
    assert fault(certificate, key, missing) == f"{missing} cannot be read: No such file or directory"
    assert fault(tmp_path, key) == f"{tmp_path} cannot be read: Is a directory"


def test_files_that_are_something_else(pair: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pair
    other = tmp_path / "other"
    for content in (
        b"",
        b"fish",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        certificate.read_bytes()[:200],
    ):
        other.write_bytes(content)
        assert fault(other, key) == f"{other} holds no certificate as PEM"
        assert fault(certificate, other) == f"{certificate} and {other} are no certificate and private key as PEM"
        assert fault(certificate, key, other) == f"{other} holds no CA certificate as PEM"
    other.write_bytes(b"x" * (CERTIFICATE_BYTES_MAX + 1))
    assert fault(other, key).endswith("is it a certificate?")
    os.mkfifo(tmp_path / "pipe")
    for files in ((tmp_path / "pipe", key), (certificate, tmp_path / "pipe"), (certificate, key, tmp_path / "pipe")):
        assert fault(*files).endswith("/pipe is a pipe, and no file")


def test_a_key_of_another_certificate(pair: tuple[Path, Path], authority: Authority) -> None:
    _, other_key = authority.issue("other")
    assert fault(pair[0], other_key) == f"{other_key} is not the key of {pair[0]}"


def test_a_key_with_a_passphrase(pair: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes256", "-passout", "pass:x", "-in", pair[1], "-out", locked], check=True, capture_output=True
    )
    assert fault(pair[0], locked) == f"{locked} has a passphrase, which nobody could type at a start"


def test_dates(pair: tuple[Path, Path]) -> None:
    tls = TlsFiles(*pair, None)
    begins_s, ends_s = certificate_validity(pair[0])
    assert tls.fault(begins_s) is None
    assert tls.fault(ends_s - 31 * DAY_S) is None
    for now_s, words in ((begins_s - 1, "holds from"), (ends_s - 29 * DAY_S, "expires on"), (ends_s, "expired on")):
        found = tls.fault(now_s)
        assert found is not None
        assert words in found[0]


def test_what_is_expired_is_used_and_told_of(authority: Authority) -> None:
    tls = TlsFiles(*authority.issue("old", days=-1, since_days=10), None)
    assert tls.fault(certificate_validity(authority.folder / "old.pem").ends_s + 1) is not None


def test_taking_over(pair: tuple[Path, Path], authority: Authority) -> None:
    tls, other = TlsFiles(*pair, None), TlsFiles(*authority.issue("next", days=3), None)
    begins_s, _ = certificate_validity(pair[0])
    tls.take_over(other)
    assert tls.context is other.context
    assert tls.fault(begins_s + DAY_S) is not None  # the next one holds for three days only

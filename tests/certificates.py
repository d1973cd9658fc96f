"""Certificates for tests, made by the `openssl` command in a second: nothing that expires lies in the tree."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest


class Authority:
    """A CA in a folder, and what it signs."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.certificate, "-days", "3650", "-subj", f"/CN={name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, name: str, *, days: float = 365, since_days: float = 1) -> tuple[Path, Path]:
        """Certificate and key of `name`, for loopback addresses; it holds since so many days, and for so many more."""
        certificate, key, request = (self.folder / f"{name}{end}" for end in (".pem", ".key", ".csr"))
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / "extensions"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost\nbasicConstraints=CA:FALSE\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"  # Python 3.13 wants them
        )
        now = datetime.now(UTC)
        ends = now + timedelta(days=days)
        # `x509 -req` of OpenSSL 3.0 knows whole days only, `ca` takes any time.
        database = self.folder / "index.txt"
        database.write_text("")
        (self.folder / "serial").write_text(f"{abs(hash((name, days, now))):032x}")
        config = self.folder / "ca.cnf"
        config.write_text(
            f"[ca]\ndefault_ca=this\n[this]\ndatabase={database}\nserial={self.folder / 'serial'}\nnew_certs_dir={self.folder}\n"
            "default_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n"
        )
        _openssl(
            "ca", "-batch", "-notext", "-config", config, "-cert", self.certificate, "-keyfile", self._key, "-in", request,
            "-out", certificate, "-extfile", extensions, "-startdate", _time(now - timedelta(days=since_days)),
            "-enddate", _time(ends),
        )  # fmt: skip
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _time(time: datetime) -> str:
    return time.strftime("%Y%m%d%H%M%SZ")


def _openssl(*arguments: str | Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command is not installed, and nothing else here makes certificates")
    made = subprocess.run(["openssl", *arguments], check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr

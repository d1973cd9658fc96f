"""Certificate, key and client CA: read from their files, checked, and read again when they changed.

Dates refuse nothing: a board whose clock is wrong, or whose certificate ran out over a long weekend, goes on, and the condition
`certificate` says so. A client judges the certificate for itself.
"""

import re
import ssl
from pathlib import Path
from time import gmtime, strftime

from edgegw.core.certificate import Validity, validity
from edgegw.errors import ConfigError
from edgegw.limits import CERTIFICATE_BYTES_MAX, CERTIFICATE_WARNING_S

_HINT = "see http.tls_certificate, http.tls_key and http.tls_client_ca"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class TlsFiles:
    """TLS as these files have it. Raises ConfigError(bad_certificate)."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self.client_ca = client_ca
        self.context, self._validity = self._load()

    def take_over(self, other: "TlsFiles") -> None:
        """What `other` read holds for connections to come; those that are open stay as they are."""
        self._certificate, self._key, self.client_ca = other._certificate, other._key, other.client_ca
        self.context, self._validity = other.context, other._validity

    def fault(self, now_s: float) -> tuple[str, str] | None:
        """What an operator should know about the dates, and what to do; None when all is well."""
        begins_s, ends_s = self._validity
        if now_s < begins_s:
            return f"{self._certificate} holds from {_date(begins_s)} on only", "is the clock of this machine right?"
        if now_s >= ends_s:
            return f"{self._certificate} expired on {_date(ends_s)}", "put a new one in its place; is the clock right?"
        if now_s >= ends_s - CERTIFICATE_WARNING_S:
            return f"{self._certificate} expires on {_date(ends_s)}", "put a new one in its place"
        return None

    def _load(self) -> tuple[ssl.SSLContext, Validity]:
        found = certificate_validity(self._certificate)
        _read(self._key)  # load_cert_chain does not say which file it could not read
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        asked: list[bool] = []

        def passphrase() -> str:  # without it OpenSSL would ask on the terminal
            asked.append(True)
            return ""

        try:
            context.load_cert_chain(self._certificate, self._key, passphrase)
        except (ssl.SSLError, ValueError, OSError) as exc:
            raise _bad(self._why(exc, is_encrypted=bool(asked))) from exc
        if self.client_ca is not None:
            _read(self.client_ca)
            try:
                context.load_verify_locations(self.client_ca)
            except (ssl.SSLError, OSError) as exc:
                raise _bad(f"{self.client_ca} holds no CA certificate as PEM") from exc
            context.verify_mode = ssl.CERT_REQUIRED
        return context, found

    def _why(self, exc: Exception, *, is_encrypted: bool) -> str:
        if is_encrypted:
            return f"{self._key} has a passphrase, which nobody could type at a start"
        reason = exc.reason if isinstance(exc, ssl.SSLError) else ""
        if reason == "KEY_VALUES_MISMATCH":
            return f"{self._key} is not the key of {self._certificate}"
        if reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            return f"{self._certificate} is too weak for OpenSSL on this machine: {reason}"
        return f"{self._certificate} and {self._key} are no certificate and private key as PEM"


def certificate_validity(path: Path) -> Validity:
    """When the first certificate of a PEM file holds. Raises ConfigError(bad_certificate)."""
    block = _BLOCK.search(_read(path))
    try:
        if block is None:
            raise ValueError("no certificate")
        return validity(ssl.PEM_cert_to_DER_cert(block[0].decode("ascii")))
    except (ValueError, IndexError) as exc:
        raise _bad(f"{path} holds no certificate as PEM") from exc


def _read(path: Path) -> bytes:
    try:
        if path.is_fifo():  # reading would wait for a writer, and everybody for us
            raise _bad(f"{path} is a pipe, and no file")
        with path.open("rb") as file:
            content = file.read(CERTIFICATE_BYTES_MAX + 1)
    except OSError as exc:
        raise _bad(f"{path} cannot be read: {exc.strerror}") from exc
    if len(content) > CERTIFICATE_BYTES_MAX:
        raise _bad(f"{path} has more than {CERTIFICATE_BYTES_MAX} bytes; is it a certificate?")
    return content


def _bad(what: str) -> ConfigError:
    return ConfigError("bad_certificate", what, _HINT)


def _date(time_s: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(time_s))

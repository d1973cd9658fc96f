"""The errors of the gateway, sorted by who must act.

GatewayError            everything below; `code` is a literal, greppable and stable
  ConfigError           the operator edits a file (exit 78)
  StoreError            the disk or the database; the caller tries again later
    StoreFull           a bound or the disk is reached; nothing was stored
  Busy                  the writer is behind; the caller tries again in a moment
  PeerError             another process does not answer (exit 69)
  RequestError          the caller changes the request
    NotFound            the thing named does not exist
    Conflict            the thing named is in another state
    Unauthorized        this caller may not
    TooLarge            over a bound of `limits`
"""

from typing import NamedTuple


def printable(text: str) -> str:
    """`text` with every character escaped that would break its line, or do something to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class GatewayError(Exception):
    """What went wrong (`what`), a stable `code`, and what to do about it (`hint`)."""

    def __init__(self, code: str, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint

    def line(self) -> str:
        """One line for a terminal: `code: what (hint)`."""
        return printable(f"{self.code}: {self.what} ({self.hint})" if self.hint else f"{self.code}: {self.what}")


class Fault(NamedTuple):
    """One thing wrong in the configuration; `line` is None where it has none or was not found, `key` may be empty."""

    file: str
    line: int | None
    key: str
    what: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return printable(f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}")


class ConfigError(GatewayError):
    """The configuration or the environment of the process is wrong; `faults` lists each where it is in the configuration."""

    def __init__(self, code: str, what: str, hint: str = "", *, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(code, what, hint)
        self.faults = faults


class StoreError(GatewayError):
    """The store could not do it; nothing was acknowledged."""


class StoreFull(StoreError):
    """A bound of the stream or of the disk is reached."""


class Busy(GatewayError):
    """More is waiting for the disk than may wait in memory."""


class PeerError(GatewayError):
    """Another process did not answer, or not as agreed."""


class RequestError(GatewayError):
    """The request is wrong as it stands; `where` names the place in it."""

    def __init__(self, code: str, what: str, hint: str = "", *, where: str = "") -> None:
        super().__init__(code, what, hint)
        self.where = where


class NotFound(RequestError):
    """No such thing."""


class Conflict(RequestError):
    """The thing is there, in a state that does not allow this."""


class Unauthorized(RequestError):
    """Not from here, or not by this caller."""


class TooLarge(RequestError):
    """Over a bound."""

"""One TLS connection: a protocol to the TCP transport below, a transport to the HTTP connection above.

The event loop has TLS of its own, and this is not it, for three reasons: a connection counts, and its deadline runs, from
accept on and not from the end of the handshake; who speaks plain HTTP here is told so instead of cut off without a word; and a
connection costs what OpenSSL takes and not the loop's 256 KiB read buffer besides. `ssl.SSLObject` over two memory BIOs does
the work: bytes that came go into one, `do_handshake` and `read` take them out, and what they and `write` leave in the other
goes down at once. So nothing is held here: flow control of the TCP transport is that of the connection.

No renegotiation (it does not exist in TLS 1.3 and is off for 1.2), so `write` never waits for the other side.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from edgegw.errors import RequestError
from edgegw.limits import TLS_RECORD_BYTES, TLS_UNASKED_BYTES_MAX
from edgegw.observe.log import Log

if TYPE_CHECKING:
    from edgegw.api.connection import Connection

_log = Log(__name__)
# RFC 8446 section 5.1: the content type of a record that begins a handshake.
_HANDSHAKE = 0x16


class TlsWire(asyncio.Transport, asyncio.Protocol):
    """TLS under one Connection, which hears of it at accept and again when the handshake is over."""

    def __init__(self, context: ssl.SSLContext, above: "Connection") -> None:
        super().__init__()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above = above
        self._below: asyncio.Transport | None = None
        self._has_begun = False  # the first byte came, and it was TLS
        self._is_open = False  # the handshake is over
        self._is_paused = False
        self._is_closing = False
        self._has_ended = False  # the other side sends no more
        self._unasked_bytes = 0  # sent since the handshake, and no part of any answer

    # --- protocol: what the TCP transport tells ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._below = cast(asyncio.Transport, transport)
        self._above.shake_hands(self)

    def data_received(self, data: bytes) -> None:
        """Records, or what is none."""
        if self._is_closing:
            return
        if not self._has_begun:
            if data[0] != _HANDSHAKE:
                self._refuse_plain(data)
                return
            self._has_begun = True
        self._incoming.write(data)
        if self._is_open or self._shake_hands():
            self._deliver()

    def eof_received(self) -> bool:
        """The other side closed its half, perhaps without saying so in TLS; an answer under way still goes out."""
        if self._is_open and not self._is_closing:
            self._end()
            return not self._is_closing
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone."""
        self._is_closing = True
        self._below = None
        if self._is_open:
            self._above.connection_lost(exc)
        else:
            self._above.hands_lost()

    def pause_writing(self) -> None:
        """More stands in the TCP transport than the kernel takes."""
        if self._is_open:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """It went out."""
        if self._is_open:
            self._above.resume_writing()

    # --- transport: what the connection asks ------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. Before the handshake is over nothing can be said: the connection is cut off instead."""
        if not self._is_open:
            self.abort()
        if self._is_closing:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._ssl.write(view) :]
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        self._flush()

    def close(self) -> None:
        """Say that nothing more comes, send what is left, and close; the other side's word is not waited for."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._is_open:
            with suppress(ssl.SSLError):  # it wants to read the other side's, or there is unread data
                self._ssl.unwrap()
        self._flush()
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        if self._below is not None:
            self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._is_closing or self._below is None or self._below.is_closing()

    def pause_reading(self) -> None:
        """Let what comes wait in the kernel."""
        self._is_paused = True
        if self._below is not None:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what was decrypted already first."""
        self._is_paused = False
        if self._below is not None and not self._is_closing:
            self._below.resume_reading()
            asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        """Whether what comes is read."""
        return not self._is_paused

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connection that other implementations agree on."""
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, `sslcontext`, and all that the TCP transport knows."""
        if name == "ssl_object":
            return self._ssl
        if name == "sslcontext":
            return self._ssl.context
        return default if self._below is None else self._below.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Those of the TCP transport."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that wait for the kernel."""
        return 0 if self._below is None else self._below.get_write_buffer_size()

    # --- TLS --------------------------------------------------------------------------------------

    def _shake_hands(self) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as exc:
            self._fail(exc)
            return False
        self._flush()
        self._is_open = True
        self._above.connection_made(self)
        return True

    def _deliver(self) -> None:
        """Hand on what can be decrypted."""
        while self._is_open and not self._is_paused and not self._is_closing and not self._has_ended:
            try:
                data = self._ssl.read(TLS_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as exc:
                self._fail(exc)
                return
            if not self._answer():
                return
            if data:
                self._above.data_received(data)
            else:
                self._end()
        self._answer()

    def _answer(self) -> bool:
        """Send what OpenSSL says of its own accord, a key update for each that is asked for; whether the connection lives on.

        Asked for without end, and not taken, that would fill our memory: nobody has reason to ask for as many as this bears.
        """
        self._unasked_bytes += self._outgoing.pending
        self._flush()
        if self._unasked_bytes <= TLS_UNASKED_BYTES_MAX:
            return True
        _log.info("tls.refused", reason="TOO_MANY_KEY_UPDATES")
        self.abort()
        return False

    def _end(self) -> None:
        """The other side sends no more."""
        if not self._has_ended:
            self._has_ended = True
            if not self._above.eof_received():
                self.close()

    def _fail(self, exc: ssl.SSLError) -> None:
        """What came is not TLS as agreed; the other side gets the alert that OpenSSL has for it."""
        _log.info("tls.refused", reason=exc.reason or type(exc).__name__)
        self._is_closing = True
        self._flush()
        if self._below is not None:
            self._below.close()

    def _refuse_plain(self, data: bytes) -> None:
        """Who speaks HTTP is told in HTTP; anything else is nobody we know."""
        self._is_closing = True
        assert self._below is not None
        if not data[:1].isalpha():
            _log.info("tls.refused", reason="NOT_TLS")
            self._below.abort()
            return
        problem = RequestError("plain_on_tls_port", "this port speaks TLS, and this is HTTP without it", "use https://")
        self._below.write(self._above.refusal_bytes(problem))
        self._below.close()

    def _flush(self) -> None:
        if self._below is not None and (data := self._outgoing.read()):
            self._below.write(data)

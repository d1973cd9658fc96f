"""A line between two gateways that a test can cut: a TCP relay in a thread of its own."""

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType


class CutLine:
    """Relays its `port` to another one, until it is cut; `cuts` counts connections that were ended in the middle."""

    def __init__(self, target: int) -> None:
        self.cuts = 0
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._is_cut = self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "CutLine":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over = True
        self._thread.join()
        self._listener.close()

    def cut(self) -> None:
        """End every connection, and let none come through."""
        self._is_cut = True

    def mend(self) -> None:
        """Relay again."""
        self._is_cut = False

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._is_over:
                if self._is_cut:
                    for sock in list(self._pairs):
                        self._end(sock, selector)
                for key, _ in selector.select(0.02):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._listener:
                        self._accept(selector)
                    elif sock in self._pairs:
                        self._relay(sock, selector)
            for sock in list(self._pairs):
                self._end(sock, selector)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._listener.accept()
        try:
            assert not self._is_cut
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except (OSError, AssertionError):
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            self._pairs[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _relay(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        data = b""
        with suppress(OSError):
            data = sock.recv(1 << 16)
        if data:
            # A gateway on loopback answers to its own address only: the Host header is made to name it.
            data = data.replace(b"Host: 127.0.0.1:%d\r\n" % self.port, b"Host: 127.0.0.1:%d\r\n" % self._target)
            with suppress(OSError):
                self._pairs[sock].sendall(data)
                return
        self._end(sock, selector)

    def _end(self, sock: socket.socket, selector: selectors.BaseSelector) -> None:
        other = self._pairs.pop(sock, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        self.cuts += self._is_cut
        for one in (sock, other):
            selector.unregister(one)
            one.close()

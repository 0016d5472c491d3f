"""Clients without a credential that take room at the webhook's port and ask for nothing."""

import contextlib
import selectors
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Self

LARGE = 1_500_000
"""Bytes of a body that is never ended: forty-eight are more than all the room."""


def bodies(*, large: bool) -> bytes:
    """The beginning of a request whose body does not end."""
    start = b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1-2-3","object":{"x":"'
    rest = b"x" * (LARGE if large else 100)
    return b"POST /mutate?timeout=10s HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + start + rest


HEAD = b"POST /mutate HTTP/1.1\r\nHost: x\r\nX-Slow: "
ENDLESS = HEAD + b"x" * 1_000_000


class Crowd:
    """So many connections, each of which sends its beginning and then nothing, and comes again when it is closed.

    Args:
        port: of the webhook.
        size: how many.
        begin: what each sends.
        tls: False: not even a handshake.
        source: the address they come from.
    """

    def __init__(self, port: int, size: int, begin: bytes, *, tls: bool = True, source: str = "127.0.0.1") -> None:
        self._port, self._begin, self._tls, self._source = port, begin, tls, source
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE
        self._selector = selectors.DefaultSelector()
        self._size = size
        self.closed = 0

    def __enter__(self) -> Self:
        for _ in range(self._size):
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def go_on(self, seconds: float = 0.0) -> None:
        """Looks who was closed, and has them come again."""
        for key, _ in self._selector.select(seconds):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            with contextlib.suppress(OSError):
                if sock.recv(65536):  # words, or a session ticket: the end comes later
                    continue
            self._selector.unregister(sock)
            sock.close()
            self.closed += 1
            self._connect()

    def _connect(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10, source_address=(self._source, 0))
        with contextlib.suppress(OSError):  # closed while it still sends
            if self._tls:
                sock = self._context.wrap_socket(sock)
            sock.sendall(self._begin)
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ)


def while_they_wait(crowd: Crowd, ask: Callable[[int], str], times: int) -> Iterator[str]:
    """Asks so often, the crowd coming again each time."""
    for number in range(times):
        crowd.go_on()
        yield ask(number)

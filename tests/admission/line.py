"""A line to the API server that can go dead without being closed, as a network does that loses everything."""

import contextlib
import selectors
import socket
import threading
from typing import Self


class Line:
    """Passes bytes on in both directions, until it is dead.

    Args:
        port: of the API server on this machine.

    Attributes:
        port: to connect to instead.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._alive, self._end = threading.Event(), threading.Event()
        self._alive.set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._alive.set()
        self._thread.join()

    def die(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._alive.clear()

    def revive(self) -> None:
        """It passes again."""
        self._alive.set()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
            selector.register(opened.enter_context(self._listening), selectors.EVENT_READ, None)
            while not self._end.is_set():
                self._alive.wait()
                for key, _ in selector.select(0.1):
                    if key.data is None:
                        near = opened.enter_context(self._listening.accept()[0])
                        far = opened.enter_context(socket.create_connection(("127.0.0.1", self._target)))
                        selector.register(near, selectors.EVENT_READ, far)
                        selector.register(far, selectors.EVENT_READ, near)
                    elif key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                        self._pass(selector, key.fileobj, key.data)

    def _pass(self, selector: selectors.BaseSelector, one: object, other: socket.socket) -> None:
        assert isinstance(one, socket.socket)
        with contextlib.suppress(OSError):
            if data := one.recv(65536):
                other.sendall(data)
                return
        for each in (one, other):
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(each)
            each.close()

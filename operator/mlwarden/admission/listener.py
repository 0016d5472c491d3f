"""Who may have a connection: handshakes, heads of requests and silence are bounded, too, and each source address pays for its own.

A connection costs a file descriptor and some fifty kilobytes before anything was asked. So a handshake has five seconds, the head of a
request two and 64 KiB, and there is a number of connections beyond which one is closed for each that comes: of those that never asked
anything the oldest, then of the address that has most the one that has been idle for longest. The API server keeps its idle connections
(for 90 s, and it does not repeat a POST): ours outlast them, and an address that has few loses none.

Connections are accepted here and not by the event loop's own server, which counts none of them until the handshake is over.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Iterator

import httptools
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LOG = logging.getLogger(__name__)
CONNECTIONS = 1000
"""With this many, memory and descriptors are still within the chart's limits."""
HEAD = 2.0
"""Seconds from the first byte of a request to the end of its headers."""
_HANDSHAKE = 5.0
_SHAKING = 64
"""Handshakes of one address at a time; one more ends the oldest, unless that began a moment ago."""
_MOMENT = 0.5
_LARGEST_HEAD = 64 * 1024
_LOOK = 0.5
_NEVER = 0.0


class Protocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        address: of the client.
        since: when the head began that is not complete yet, or 0.
        asked: whether a whole head ever came.
        quiet: when it was last heard of.
    """

    among: "Connections"
    address = ""
    since = quiet = _NEVER
    asked = False
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TLS is established."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.quiet = self.loop.time()
        self.among.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.among.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads on; an endless head is not read to its end."""
        self.quiet = self.loop.time()
        if self.since:
            self._head += len(data)
            if self._head > _LARGEST_HEAD:
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.since, self._head = self.quiet, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self.since, self.asked = _NEVER, True
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):  # uvicorn expects a path that is ASCII
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """More of the body; what comes after the answer ends the connection."""
        if self.cycle.response_complete:
            self.transport.close()
        else:
            super().on_body(body)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a request is under way."""
        return not self.since and (self.cycle is None or self.cycle.response_complete)


class Connections:
    """Those that are open.

    Args:
        most: how many.
    """

    def __init__(self, most: int = CONNECTIONS) -> None:
        self._most = most
        self._open: dict[Protocol, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Protocol) -> None:
        """One more is established; another one goes where there are too many."""
        self._open[connection] = None
        if len(self._open) > self._most:
            self._close(self._worst(connection))

    def remove(self, connection: Protocol) -> None:
        """One is closed."""
        self._open.pop(connection, None)

    async def watch(self) -> None:
        """Closes those whose requests do not begin in time, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOK
            await asyncio.sleep(_LOOK)
            if loop.time() - due < _LOOK:  # else this process was busy, and nobody was read
                for connection in list(self._late(loop.time())):
                    self._close(connection)

    def _late(self, now: float) -> Iterator[Protocol]:
        for connection in self._open:
            kept = float(connection.timeout_keep_alive)
            if (connection.since and now - connection.since > HEAD) or (not connection.asked and now - connection.quiet > kept):
                yield connection

    def _worst(self, newest: Protocol) -> Protocol:
        never = next((each for each in self._open if not each.asked and each is not newest), None)
        if never is not None:
            return never
        crowds = Counter(each.address for each in self._open)
        return min(self._open, key=lambda each: (not each.is_idle, each is newest, -crowds[each.address], each.quiet))

    def _close(self, connection: Protocol) -> None:
        self.remove(connection)
        connection.transport.abort()


class Listener(Server):
    """uvicorn, with the connections accepted here.

    Args:
        config: of uvicorn.
        tls: what is served with.
        most: how many connections.
    """

    def __init__(self, config: Config, tls: ssl.SSLContext, *, most: int = CONNECTIONS) -> None:
        super().__init__(config)
        self._tls = tls
        self._open = Connections(most)
        self._work: list[asyncio.Task[None]] = []
        self._shaking: dict[str, dict[asyncio.Task[None], float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept."""
        await self.lifespan.startup()
        self.servers = []
        loop = asyncio.get_running_loop()
        self._work = [loop.create_task(self._accept(each)) for each in sockets or ()] + [loop.create_task(self._open.watch())]
        self.started = True

    def close(self) -> None:
        """Accepts nobody any more."""
        for task in self._work:
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        listening.listen(self.config.backlog)
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._begin(*await loop.sock_accept(listening))
                for _ in range(_SHAKING):  # whoever else waits, without a turn of the loop for each
                    self._begin(*listening.accept())
            except BlockingIOError:
                continue
            except OSError as error:  # no descriptors left, or the client has gone again
                LOG.warning("a connection could not be accepted: %s", error)
                await asyncio.sleep(0.05)
            except Exception:  # whatever one connection makes us stumble over, the next one is accepted
                LOG.exception("a connection could not be accepted")
                await asyncio.sleep(0.05)

    def _begin(self, connection: socket.socket, address: tuple[str, int]) -> None:
        connection.setblocking(False)
        loop, where = asyncio.get_running_loop(), address[0]
        same = self._shaking.setdefault(where, {})
        if len(same) >= _SHAKING:
            oldest, began = next(iter(same.items()))
            if loop.time() - began > _MOMENT:
                oldest.cancel()
        task = loop.create_task(self._shake(connection))
        same[task] = loop.time()
        task.add_done_callback(lambda done: self._shaken(where, done))

    async def _shake(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol, connection, ssl=self._tls, ssl_handshake_timeout=_HANDSHAKE
            )
        except (OSError, ssl.SSLError) as error:  # TimeoutError is one
            LOG.debug("no handshake: %s", error)
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    def _shaken(self, where: str, task: "asyncio.Task[None]") -> None:
        same = self._shaking.get(where, {})
        same.pop(task, None)
        if not same:
            self._shaking.pop(where, None)

    def _protocol(self) -> Protocol:
        made = Protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        made.among = self._open
        return made

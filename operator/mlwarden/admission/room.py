"""How much of unfinished requests is held, for how long, and whose has to go.

Anybody who reaches the port may begin a body and not end it. So a body has two seconds, it must come at 16 KiB/s, and of one source
address at most eight are waited for: each one more leaves a quarter of a second to the oldest. Where the room is full, the body that has
been coming for longest is given up for the one that comes now: an honest one is there within milliseconds, and who only wants to hold room
is the oldest soon. The time in which this process itself did not get to read counts for nobody.

Rejected: to refuse who comes last (that is the API server, while the room is full of bodies that never end), and a queue for each address
(behind one address there can be both: everybody on a node, or everybody behind a tunnel).
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlwarden.admission import review

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
WITHIN = 2.0
"""Seconds from a request's headers to the end of its body."""
RATE = 16 * 1024
"""Bytes a second, on average, once the first second is over."""
UNFINISHED = 8
"""Bodies of one source address that are waited for."""
_AT_ONCE = 0.25
"""Seconds in which an honest body arrives, and for which nobody's is given up."""
_GRACE = 1.0
_LOOK = 0.05
"""Seconds of a last look: what arrived while this process was busy has not been read yet."""


class Room:
    """The room of one sort of senders.

    Args:
        free: bytes of unanswered reviews.
        unfinished: bodies of one address that are waited for, 0 for any number.
    """

    def __init__(self, free: int, *, unfinished: int = 0) -> None:
        self.free = free
        self._unfinished = unfinished
        self._oldest: dict[Body, None] = {}
        self._by_address: dict[str, dict[Body, None]] = {}

    def enter(self, body: "Body") -> None:
        """A body begins."""
        self._oldest[body] = None
        if self._unfinished:
            same = self._by_address.setdefault(body.address, {})
            same[body] = None
            if len(same) > self._unfinished:
                first = next(iter(same))
                del same[first]
                first.hurry()

    def leave(self, body: "Body") -> None:
        """It ended, one way or another."""
        self._oldest.pop(body, None)
        same = self._by_address.get(body.address)
        if same is not None:
            same.pop(body, None)
            if not same:
                del self._by_address[body.address]

    def make(self, size: int, body: "Body") -> bool:
        """Whether there is room for so many bytes more of a body; gives up older ones for it."""
        while size > self.free:
            first = next(iter(self._oldest), None)
            if first is None or first is body or not first.is_old:
                return False
            del self._oldest[first]
            first.give_up()
        return True


class Body:
    """The body of one request.

    What is too large or finds no room is read to its end, for the connection's sake, but only its beginning is held, for the uid in it.

    Args:
        room: whose.
        address: of the sender.

    Attributes:
        size: bytes that came.
        held: bytes of them that are here.
        crowded_out: whether others needed its place: it may be sent again.
    """

    def __init__(self, room: Room, address: str = "") -> None:
        self.address = address
        self._room = room
        self._chunks: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._began, self._until = self._loop.time(), 0.0
        self._timeout: asyncio.Timeout | None = None
        self.size = self.held = 0
        self.crowded_out = False

    async def read(self, receive: Receive, seconds: float) -> None:
        """Reads until the end, or until the client is gone.

        Raises:
            TimeoutError: it did not come within `seconds`, or too slowly, or was given up.
        """
        self._until = self._began + min(seconds, WITHIN)
        self._room.enter(self)
        looked = False
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self._deadline()) as self._timeout:
                        await self._read(receive)
                        return
                except TimeoutError:
                    late = self._loop.time() - (self._timeout.when() or 0.0) if self._timeout is not None else 0.0
                    if self._until == 0.0 or (looked and late < _LOOK):
                        raise
                    looked = True
                    self._began += max(late, _LOOK)
                    self._until = max(self._until + late, self._loop.time() + _LOOK)
        finally:
            self._timeout = None
            self._room.leave(self)

    async def _read(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            self.size += len(chunk)
            if not self._chunks or (
                self.size <= review.LARGEST and self.held + len(chunk) == self.size and self._room.make(len(chunk), self)
            ):
                self._chunks.append(chunk)
                self.held += len(chunk)
                self._room.free -= len(chunk)
            if not message.get("more_body", False):
                return
            self._end(self._deadline())

    @property
    def is_old(self) -> bool:
        """Whether it has been coming for longer than an honest one takes."""
        return self._loop.time() - self._began > _AT_ONCE

    @property
    def content(self) -> bytes:
        """What is held."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def hurry(self) -> None:
        """Too many of its address are unfinished: it has as long as an honest one takes."""
        self.crowded_out = True
        self._until = min(self._until, max(self._began + _AT_ONCE, self._loop.time()))
        self._end(self._deadline())

    def give_up(self) -> None:
        """Somebody else needs its room, now."""
        self.crowded_out = True
        self._until = 0.0
        self.forget()
        self._end(self._loop.time())

    def forget(self) -> None:
        """Gives the room back."""
        self._room.free += self.held
        self._chunks.clear()
        self.held = 0

    def _deadline(self) -> float:
        return min(self._until, self._began + _GRACE + self.size / RATE)

    def _end(self, at: float) -> None:
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(at)

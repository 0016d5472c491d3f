"""The ASGI application: paths, sizes, deadlines. Everything that decides is in `handle`.

Raw ASGI, no framework: three paths and one method, where a router would cost as much as the judgement.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import Counter

from mlwarden.admission import metrics, response, review
from mlwarden.admission.debug import Told
from mlwarden.admission.handle import PATHS, Answer, handle
from mlwarden.cluster import Snapshot
from mlwarden.evidence.store import Requester

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_LONGEST = 30.0
_SHARE = 0.8  # of what the API server waits: an answer that comes too late is no answer
_ROOM = 8 * review.LARGEST
"""Bytes of unanswered reviews in memory. Two hundred pods of 3 MiB at once must not end the process that others wait for."""


class App:
    """The application.

    Args:
        snapshot: returns what is known now, None before anything is.
        want: is told of image references without evidence, and who asks; must not block.
        tell: is told of Events to write; must not block.
        leaving: whether the process is about to end: every answer then ends its connection, so that the API server asks another replica.
        room: bytes of unanswered reviews in memory.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot | None],
        want: Callable[[tuple[str, ...], Requester], None],
        tell: Callable[[Told], None] = lambda _: None,
        leaving: Callable[[], bool] = lambda: False,
        room: int = _ROOM,
    ) -> None:
        self._snapshot, self._want, self._tell, self._leaving, self._room = snapshot, want, tell, leaving, _Room(room)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path not in PATHS:
            await self._send(send, 404, f"there is {', '.join(sorted(PATHS))}".encode())
        elif scope["method"] != "POST":
            await self._send(send, 405, b"reviews are posted")
        else:
            answer = await self._reviewed(scope, receive, path)
            _counter(path, answer.decision).inc()
            if answer.wanted:
                self._want(answer.wanted, answer.requester)
            if answer.told:
                self._tell(answer.told)
            await self._send(send, answer.status, answer.body)

    async def _reviewed(self, scope: Scope, receive: Receive, path: str) -> Answer:
        body = _Body(self._room)
        try:
            async with asyncio.timeout(_deadline(scope.get("query_string", b""))):
                await body.read(receive)
            started = time.perf_counter()
            answer = self._answer(body, path)
            metrics.SECONDS.observe(time.perf_counter() - started)
        except TimeoutError:
            return Answer(status=408, body=b"the review did not arrive in time", decision="error")
        else:
            return answer
        finally:
            body.forget()

    def _answer(self, body: "_Body", path: str) -> Answer:
        if body.size > review.LARGEST:
            return _refused(body, f"mlwarden refuses objects whose review is larger than {review.LARGEST // 1024 // 1024} MiB", code=413)
        if body.size > body.held:
            return _refused(body, "mlwarden has more to read at this moment than it can hold: try again", code=503)
        snapshot = self._snapshot()
        if snapshot is None:
            return Answer(status=503, body=b"mlwarden has not read the policies yet", decision="error")
        return handle(body.content, path, snapshot, datetime.now(UTC))

    async def _send(self, send: Send, status: int, body: bytes) -> None:
        kind = b"application/json" if status == 200 else b"text/plain; charset=utf-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if self._leaving():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Room:
    """Bytes that may still be held."""

    def __init__(self, free: int) -> None:
        self.free = free


class _Body:
    """The body of one request.

    What is too large or finds no room is read to its end, for the connection's sake, but only its beginning is held, for the uid in it.

    Attributes:
        size: bytes that came.
        held: bytes of them that are here.
    """

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._chunks: list[bytes] = []
        self.size = self.held = 0

    async def read(self, receive: Receive) -> None:
        """Reads until the end, or until the client is gone."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            self.size += len(chunk)
            if not self._chunks or (self.size <= review.LARGEST and self.held + len(chunk) == self.size and len(chunk) <= self._room.free):
                self._chunks.append(chunk)
                self.held += len(chunk)
                self._room.free -= len(chunk)
            if not message.get("more_body", False):
                return

    @property
    def content(self) -> bytes:
        """What is held."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def forget(self) -> None:
        """Gives the room back."""
        self._room.free += self.held
        self._chunks.clear()
        self.held = 0


def _refused(body: _Body, message: str, *, code: int) -> Answer:
    uid = review.uid_of(body.content)
    if not uid:
        return Answer(status=code, body=message.encode(), decision="error")
    return Answer(body=response.deny(uid, message, code=code), decision="error")


@functools.lru_cache(maxsize=64)
def _counter(path: str, decision: str) -> Counter:
    return metrics.REQUESTS.labels(path, decision)


@functools.lru_cache(maxsize=64)  # the API server sends the same one each time
def _deadline(query: bytes) -> float:
    """The share of `?timeout=10s`, which the API server sends, that we allow ourselves."""
    asked = parse_qs(query.decode("latin-1")).get("timeout", [""])[0]
    try:
        seconds = float(asked.removesuffix("s"))
    except ValueError:
        seconds = _LONGEST
    return max(0.1, min(seconds, _LONGEST) * _SHARE)

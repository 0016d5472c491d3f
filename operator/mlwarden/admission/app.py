"""The ASGI application: paths, sizes, deadlines. Everything that decides is in `handle`.

Raw ASGI, no framework: three paths and one method, where a router would cost as much as the judgement.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from mlwarden.admission import metrics, response, review
from mlwarden.admission.handle import PATHS, Answer, handle
from mlwarden.cluster import Snapshot

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_LONGEST = 30.0
_SHARE = 0.8  # of what the API server waits: an answer that comes too late is no answer


class App:
    """The application.

    Args:
        snapshot: returns what is known now, None before anything is.
        want: is told of image references without evidence; must not block.
    """

    def __init__(self, *, snapshot: Callable[[], Snapshot | None], want: Callable[[tuple[str, ...]], None]) -> None:
        self._snapshot, self._want = snapshot, want

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path not in PATHS:
            await _send(send, 404, f"there is {', '.join(sorted(PATHS))}".encode())
            return
        if scope["method"] != "POST":
            await _send(send, 405, b"reviews are posted")
            return
        try:
            async with asyncio.timeout(_deadline(scope)):
                body, whole = await _read(receive)
        except TimeoutError:
            await self._done(send, path, Answer(status=408, body=b"the review did not arrive in time", decision="error"))
            return
        started = time.perf_counter()
        await self._done(send, path, self._answer(body, path, whole=whole))
        metrics.SECONDS.observe(time.perf_counter() - started)

    def _answer(self, body: bytes, path: str, *, whole: bool) -> Answer:
        if not whole:
            uid = review.uid_of(body)
            if not uid:
                return Answer(status=413, body=b"a review of more than 8 MiB", decision="error")
            message = f"mlwarden refuses objects whose review is larger than {review.LARGEST // 1024 // 1024} MiB"
            return Answer(body=response.deny(uid, message, code=413), decision="error")
        snapshot = self._snapshot()
        if snapshot is None:
            return Answer(status=503, body=b"mlwarden has not read the policies yet", decision="error")
        return handle(body, path, snapshot, datetime.now(UTC))

    async def _done(self, send: Send, path: str, answer: Answer) -> None:
        metrics.REQUESTS.labels(path, answer.decision).inc()
        if answer.wanted:
            self._want(answer.wanted)
        await _send(send, answer.status, answer.body)


def _deadline(scope: Scope) -> float:
    """The share of `?timeout=10s`, which the API server sends, that we allow ourselves."""
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("timeout", [""])[0]
    try:
        seconds = float(asked.removesuffix("s"))
    except ValueError:
        seconds = _LONGEST
    return max(0.1, min(seconds, _LONGEST) * _SHARE)


async def _read(receive: Receive) -> tuple[bytes, bool]:
    """Returns the body, and whether that is all of it: reading stops (but draining does not) beyond the largest size."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"", True
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= review.LARGEST or not chunks:
            chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks), size <= review.LARGEST


async def _send(send: Send, status: int, body: bytes) -> None:
    kind = b"application/json" if status == 200 else b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

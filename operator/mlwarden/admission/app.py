"""The ASGI application: paths, sizes, deadlines. Everything that decides is in `handle`.

Raw ASGI, no framework: three paths and one method, where a router would cost as much as the judgement.
"""

import functools
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import Counter

from mlwarden.admission import metrics, response, review
from mlwarden.admission.debug import Told
from mlwarden.admission.handle import GATE_PATH, NEED_NOTHING, PATHS, VALIDATE, Answer, handle, outage
from mlwarden.admission.room import UNFINISHED, Body, Receive, Room
from mlwarden.admission.sender import ANYBODY, Scarce, Sender
from mlwarden.cluster import Snapshot, clock
from mlwarden.evidence.store import Requester

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
STALE = 10.0
"""Seconds without a sign of life of a watch after which nobody is judged by what is known."""
_LONGEST = 30.0
_SHARE = 0.8  # of what the API server waits: an answer that comes too late is no answer
_ROOM = 8 * review.LARGEST
"""Bytes of unanswered reviews in memory. Two hundred pods of 3 MiB at once must not end the process that others wait for."""
_CANNOT_WAIT = frozenset({VALIDATE, GATE_PATH})
"""Paths whose rules mostly fail closed: the API server is asked to repeat what found no room, which it does while it has time.

Elsewhere a failure passes at once: the gate inside the API server holds the pod, and the release judges it.
"""
_FULL = Answer(status=503, body=b"mlwarden has more to read at this moment than it can hold: try again", decision="error")


class App:
    """The application.

    Args:
        snapshot: returns what is known now, None before anything is.
        want: is told of image references without evidence, and who asks; must not block.
        tell: is told of Events to write; must not block.
        leaving: whether the process is about to end: every answer then ends its connection, so that the API server asks another replica.
        room: bytes of unanswered reviews in memory, of senders who prove who they are and again of all others.
        silence: returns the seconds since the quietest watch gave a sign of life.
        bearer: returns who shows this token, calling this path.
        sender: whoever comes this far; the API server where a client certificate was demanded.
    """

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot | None],
        want: Callable[[tuple[str, ...], Requester], None],
        tell: Callable[[Told], None] = lambda _: None,
        leaving: Callable[[], bool] = lambda: False,
        room: int = _ROOM,
        silence: Callable[[], float] = lambda: 0.0,
        bearer: Callable[[str, str], Sender] = lambda _token, _path: ANYBODY,
        sender: Sender = ANYBODY,
    ) -> None:
        self._snapshot, self._want, self._tell, self._leaving = snapshot, want, tell, leaving
        self._silence, self._bearer, self._sender, self._scarce = silence, bearer, sender, Scarce()
        self._known, self._anybody = Room(room), Room(room, unfinished=UNFINISHED)

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
            wanted = answer.wanted
            if answer.is_scarce:
                wanted = self._scarce.let(answer.requester.namespace, wanted, time.monotonic())
            if wanted:
                self._want(wanted, answer.requester)
            if answer.told:
                self._tell(answer.told)
            await self._send(send, answer.status, answer.body, again=answer.status == 503 and path in _CANNOT_WAIT)

    async def _reviewed(self, scope: Scope, receive: Receive, path: str) -> Answer:
        sender = self._who(scope, path)
        body = Body(self._known if sender.groups else self._anybody, (scope.get("client") or ("",))[0])
        try:
            await body.read(receive, _deadline(scope.get("query_string", b"")))
            started = time.perf_counter()
            answer = self._answer(body, path, sender)
            metrics.SECONDS.observe(time.perf_counter() - started)
        except TimeoutError:
            return _FULL if body.crowded_out else Answer(status=408, body=b"the review did not arrive in time", decision="error")
        else:
            return answer
        finally:
            body.forget()

    def _who(self, scope: Scope, path: str) -> Sender:
        if self._sender.groups:
            return self._sender
        shown = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), b"")
        return self._bearer(shown[7:].decode("latin-1"), path) if shown[:7].lower() == b"bearer " else self._sender

    def _answer(self, body: Body, path: str, sender: Sender) -> Answer:
        if body.size > review.LARGEST:
            return _too_large(body)
        if body.size > body.held:
            return _FULL
        snapshot = self._snapshot()
        if snapshot is None:
            return Answer(status=503, body=b"mlwarden has not read the policies yet", decision="error")
        silence = self._silence()
        if silence > STALE and path not in NEED_NOTHING:
            return outage(body.content, path, snapshot, silence)
        return handle(body.content, path, snapshot, clock.now(), sender)

    async def _send(self, send: Send, status: int, body: bytes, *, again: bool = False) -> None:
        kind = b"application/json" if status == 200 else b"text/plain; charset=utf-8"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status in {408, 503} or self._leaving():
            headers.append((b"connection", b"close"))
        if again:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _too_large(body: Body) -> Answer:
    message = f"mlwarden refuses objects whose review is larger than {review.LARGEST // 1024 // 1024} MiB"
    uid = review.uid_of(body.content)
    if not uid:
        return Answer(status=413, body=message.encode(), decision="error")
    return Answer(body=response.deny(uid, message, code=413), decision="error")


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

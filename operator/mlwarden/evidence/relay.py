"""One repository of one registry, on loopback, for one run of a program that pulls by itself.

trivy and cosign follow redirects to wherever they lead, loopback included: Go never uses a proxy for that, so no proxy keeps them from it.
They ask this instead, which asks the registry by the rules of `transport`, follows its redirects itself and passes the bytes on. So the
programs need no credential, no authority and no network but this, and what a registry may lead to is decided in one place.

A manifest that names another place for one of its layers (`urls`) is not passed on: a client that does not get the layer goes there.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError

Take = Callable[[aiohttp.ClientResponse], Awaitable[None]]
"""Called with an answer of status 200."""
LARGEST = 4 << 20
"""Bytes of a manifest or a list of referrers."""
_AHEAD = 4 << 20
"""Bytes that are read ahead of a program."""
_KEPT = ("Content-Type", "Docker-Content-Digest", "OCI-Filters-Applied")
_ABSENT = frozenset({400, 404, 405, 406})
_CODES = {404: "MANIFEST_UNKNOWN", 401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a program wants of the repository. `kind`: manifests, blobs or referrers; `what`: a tag or a digest; `query`: its parts."""

    method: str
    kind: str
    what: str
    accept: str
    query: tuple[tuple[str, str], ...] = ()


PassOn = Callable[[Asked, Take], Awaitable[None]]
"""Asks the registry. Raises GatherError, with the registry's status where it answered with one."""


class _GoneError(Exception):
    """Whoever asked has gone away."""


class Relay:
    """What a program talks to.

    Attributes:
        host: `127.0.0.1:port`.
        secret: name of the repository there: others on this machine do not know it.
        trouble: why an answer could not be had, where that is not that there is none.
    """

    def __init__(self, pass_on: PassOn) -> None:
        self._pass_on = pass_on
        self.host, self.secret = "", secrets.token_hex(16)
        self.trouble: GatherError | None = None

    @property
    def repository(self) -> str:
        """As it stands in an image reference."""
        return f"{self.host}/{self.secret}"

    def named(self, text: str, repository: str) -> str:
        """Returns what a program said, about the repository instead of this."""
        return text.replace(f"http://{self.host}/v2/{self.secret}", repository).replace(self.repository, repository)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        asked = Asked(
            method=request.method,
            kind=request.match_info["kind"],
            what=request.match_info["what"],
            accept=request.headers.get("Accept", "*/*"),
            query=tuple(request.rel_url.query.items()),
        )
        answer: web.StreamResponse | None = None

        async def take(response: aiohttp.ClientResponse) -> None:
            nonlocal answer
            headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
            if asked.kind != "blobs" and asked.method == "GET":
                answer = web.Response(body=await _document(response), headers=headers)
                return
            length = {"Content-Length": response.headers["Content-Length"]} if "Content-Length" in response.headers else {}
            answer = web.StreamResponse(headers={**headers, **length})
            await _to(answer.prepare(request))
            if asked.method == "GET":
                await _pour(response, answer, request.transport)

        try:
            await self._pass_on(asked, take)
        except _GoneError:
            pass
        except GatherError as error:
            if error.status not in _ABSENT:
                self.trouble = self.trouble or error
            if answer is None or not answer.prepared:
                return _refusal(error, asked)
            if request.transport is not None:  # a body that ends early must not look whole
                request.transport.abort()
        return answer if answer is not None else web.Response(status=502)


@contextlib.asynccontextmanager
async def relayed(pass_on: PassOn) -> AsyncIterator[Relay]:
    """A relay, while the body runs."""
    relay = Relay(pass_on)
    app = web.Application()
    app.router.add_get("/v2/", _ping)
    app.router.add_get(f"/v2/{relay.secret}/{{kind:manifests|blobs|referrers}}/{{what:[A-Za-z0-9_.:+-]+}}", relay.answer)
    app.router.add_route("*", "/{path:.*}", _unknown)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        relay.host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield relay
    finally:
        await runner.cleanup()


async def _ping(_request: web.Request) -> web.Response:
    return web.json_response({})


async def _unknown(_request: web.Request) -> web.Response:
    """Not 404, which would say that the registry does not have it."""
    return web.Response(status=501)


async def _pour(response: aiohttp.ClientResponse, answer: web.StreamResponse, transport: asyncio.Transport | None) -> None:
    if transport is not None:
        transport.set_write_buffer_limits(_AHEAD)
    async for piece in response.content.iter_any():
        await _to(answer.write(piece))
    await _to(answer.write_eof())


async def _to(write: Awaitable[Any]) -> None:
    try:
        await write
    except (ConnectionError, aiohttp.ClientConnectionError) as error:
        raise _GoneError from error


async def _document(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST:
            raise DefinitiveError(f"the registry's document has more than {LARGEST >> 20} MiB")
    try:
        elsewhere = _elsewhere(json.loads(body.decode()))
    except (ValueError, RecursionError):
        raise DefinitiveError("the registry's document is no JSON") from None
    if elsewhere:
        raise DefinitiveError("a layer is said to be somewhere else than in the registry")
    return bytes(body)


def _elsewhere(document: Any) -> bool:
    """Whether anything in it has `urls`, in whatever case: Go does not mind."""
    waiting = [document]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if any(key.casefold() == "urls" and value for key, value in found.items()):
                return True
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
    return False


def _refusal(error: GatherError, asked: Asked) -> web.Response:
    status = error.status or (503 if isinstance(error, TransientError) else 403)
    code = _CODES.get(status, "UNKNOWN")
    if code == "MANIFEST_UNKNOWN" and asked.kind == "blobs":
        code = "BLOB_UNKNOWN"
    headers = {"Retry-After": f"{error.retry_after:.0f}"} if error.retry_after else {}
    return web.json_response({"errors": [{"code": code, "message": error.message}]}, status=status, headers=headers)

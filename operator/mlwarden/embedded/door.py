"""What stands before a registry elsewhere: a password, a token service, TLS of an authority that nobody knows.

The registry behind it is a real one (`crane registry serve`, which has none of these); only the door is made here, and it notes who came
with what. It lives in a thread of its own, so that programs under test may run in any loop or none.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import TYPE_CHECKING, Self

from aiohttp import ClientSession, web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

_KEPT = ("Content-Type", "Docker-Content-Digest", "Location")
USER = "ana"


class Door:
    """A context manager.

    Args:
        registry: `host:port` of the registry behind it, plain HTTP.
        password: of the user `ana`; without one everybody is let in.
        tokens: the password is for a token service (`/token` on the same host), and the registry wants its tokens.
        tls: of the server; plain HTTP without it.

    Attributes:
        host: `host:port`.
        seen: every request: method, path with query, and the `Authorization` it carried.
        down: answers nothing but 503.
        twist: of who is let in, what to answer instead, or the path to answer instead of the one asked for; None for neither.
    """

    def __init__(self, registry: str, *, password: str = "", tokens: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._registry, self._tls, self._tokens = registry, tls, tokens
        self._basic = "Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode() if password else ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mlwarden-door", daemon=True)
        self.seen: list[tuple[str, str, str]] = []
        self.down = False
        self.twist: Callable[[web.Request], web.Response | str | None] = lambda _request: None
        self.host = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=20)
        self._loop.close()

    def asked(self, what: str, method: str = "") -> list[str]:
        """Paths of the requests with `what` in them."""
        return [path for asked, path, _ in self.seen if what in path and method in {"", asked}]

    async def _open(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._session = ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path_qs, shown))
        if self.down:
            return web.Response(status=503)
        stopped = self._stop(request, shown)
        if stopped is not None:
            return stopped
        instead = self.twist(request)
        return instead if isinstance(instead, web.Response) else await self._pass(request, instead or request.path_qs)

    def _stop(self, request: web.Request, shown: str) -> web.Response | None:
        """What whoever may not come in is told, and the token of who may."""
        if not self._tokens:
            if self._basic in {"", shown}:
                return None
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="door"'})
        if request.path == "/token":
            if shown != self._basic:
                return web.Response(status=401)
            return web.json_response({"token": f"for-{request.query.get('scope', '').replace(':', '-').replace('/', '-')}"})
        if shown.startswith("Bearer for-repository-"):
            return None
        realm = f"{'https' if self._tls else 'http'}://{self.host}/token"
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="door"'})

    async def _pass(self, request: web.Request, path: str) -> web.Response:
        url, body = f"http://{self._registry}{path}", await request.read()
        headers = {"Content-Type": request.headers["Content-Type"]} if "Content-Type" in request.headers else {}
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

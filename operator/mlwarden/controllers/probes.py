"""`/healthz`, `/readyz` and `/metrics` on a port of their own, in plain HTTP, for the kubelet and for Prometheus."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mlwarden.cluster.listening import listen

Check = Callable[[], str]
"""Returns why not, `""` where all is well."""


@asynccontextmanager
async def serve(*, host: str, port: int, ready: Check, healthy: Check) -> AsyncIterator[int]:
    """Answers probes while the context is open, and yields the port (a free one where `port` is 0)."""

    def answer(check: Check) -> Callable[[web.Request], "web.Response"]:
        def handle(_request: web.Request) -> web.Response:
            why_not = check()
            return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

        return handle

    async def respond(request: web.Request) -> web.Response:
        return table[request.path](request)

    def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    table = {"/readyz": answer(ready), "/healthz": answer(healthy), "/metrics": metrics}
    app = web.Application()
    app.add_routes([web.get(path, respond) for path in table])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.SockSite(runner, listen(host, port))
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()

"""`/healthz`, `/readyz` and `/metrics` of every process, on a port of their own, in plain HTTP.

A port of its own because the webhook's may demand a client certificate, and because a kubelet must not compete with the API server for it.
The server is the standard library's: three paths, no body, one answer per connection.
"""

import asyncio
import contextlib
from collections.abc import Callable

from prometheus_client import REGISTRY, generate_latest

from mlwarden.cluster.listening import listen

Answer = Callable[[], str]
"""Returns why not, in words; an empty string where all is well."""
SILENT = 120.0
"""Seconds without a sign of life of a watch after which a replica of the controller or the releaser is not ready."""
DEAD = 600.0
"""Seconds after which it should be started again."""
_LONGEST_REQUEST = 8192


def unheard(age: float, longest: float) -> str:
    """Returns what a probe says of `age` seconds without a sign of life of a watch; `""` where they are not more than `longest`."""
    return f"nothing heard from the API server for {age:.0f} s" if age > longest else ""


class Probes:
    """The probes of one process.

    Args:
        ready: why the process cannot do its work now.
        healthy: why it should be restarted.
    """

    def __init__(self, *, ready: Answer, healthy: Answer = lambda: "") -> None:
        self._ready, self._healthy = ready, healthy

    async def run(self, *, host: str, port: int) -> None:
        """Serves until cancelled."""
        server = await asyncio.start_server(self._serve, sock=listen(host, port), limit=_LONGEST_REQUEST)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                status, body = self._answer(head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1"))
                fields = f"Content-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\nConnection: close"
                writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    def _answer(self, path: str) -> tuple[str, bytes]:
        match path:
            case "/metrics":
                return "200 OK", generate_latest(REGISTRY)
            case "/healthz" | "/readyz":
                why = self._healthy() if path == "/healthz" else self._ready()
                return ("503 Service Unavailable", why.encode() + b"\n") if why else ("200 OK", b"ok\n")
            case _:
                return "404 Not Found", b"there is /healthz, /readyz and /metrics\n"

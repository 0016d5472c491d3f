"""Registries that misbehave. The good ones are real: `crane registry serve`."""

import asyncio
import base64
import contextlib
import http.client
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from mlwarden.embedded import pki, trivydb
from mlwarden.embedded.build import binary
from mlwarden.embedded.processes import Keeper, Process, free_port, wait_until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server that answers everything with one handler, and returns its `host:port`."""
    servers: list[TestServer] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        server = TestServer(app, host="127.0.0.1", shutdown_timeout=0)
        await server.start_server()
        servers.append(server)
        return f"127.0.0.1:{server.port}"

    yield start
    for server in servers:
        with contextlib.suppress(asyncio.TimeoutError):
            await server.close()


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """A real registry, `host:port`, plain HTTP, no authentication."""
    keeper = Keeper()
    host = f"127.0.0.1:{free_port()}"
    process = Process("registry", [binary("crane"), "registry", "serve", "--address", host], log=keeper.directory / "log", keeper=keeper)

    def answers() -> bool:
        connection = http.client.HTTPConnection(host, timeout=1)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    try:
        assert wait_until(answers, seconds=20)
        yield host
    finally:
        process.kill()
        keeper.close()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trivy with a vulnerability database made for tests."""
    return trivydb.make_database(tmp_path_factory.mktemp("trivy"))


class Door:
    """Stands before the real registry, and asks for what real ones ask for: it is the only part of them that is made for tests.

    Attributes:
        seen: every request: method, path with query, and the `Authorization` it carried.
        down: answers nothing but 503.
    """

    def __init__(self, registry: str, *, password: str = "", tokens: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._registry, self._tls, self._tokens = registry, tls, tokens
        self._basic = "Basic " + base64.b64encode(f"ana:{password}".encode()).decode() if password else ""
        self.seen: list[tuple[str, str, str]] = []
        self.down = False
        self.host = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._server = TestServer(app, host="127.0.0.1", shutdown_timeout=0)
        await self._server.start_server(ssl=self._tls)
        self.host = f"127.0.0.1:{self._server.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "")
        self.seen.append((request.method, request.path_qs, shown))
        if self.down:
            return web.Response(status=503)
        if self._tokens and request.path == "/token":
            if shown != self._basic:
                return web.Response(status=401)
            return web.json_response({"token": "for-" + request.query["scope"].replace(":", "-").replace("/", "-")})
        if self._tokens and not shown.startswith("Bearer for-repository-"):
            challenge = f'Bearer realm="{"https" if self._tls else "http"}://{self.host}/token",service="door"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if self._basic and not self._tokens and shown != self._basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="door"'})
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(request.method, f"http://{self._registry}{request.path_qs}") as answer,
        ):
            kept = {name: answer.headers[name] for name in ("Content-Type", "Docker-Content-Digest") if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)


@pytest.fixture
async def door(registry: str) -> AsyncIterator[Callable[..., Awaitable[Door]]]:
    """`await door(password=…, tokens=…, tls=…)`: opens a door before the real registry."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**options: object) -> Door:
            return await stack.enter_async_context(Door(registry, **options))

        yield make


@pytest.fixture(scope="session")
def private_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS on 127.0.0.1, and the PEM of the authority that no system knows."""
    made = pki.make(tmp_path_factory.mktemp("pki"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server_certificate, made.server_key)
    return context, made.ca.read_text()

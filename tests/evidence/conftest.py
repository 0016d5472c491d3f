"""Registries that misbehave. The good ones are real: `crane registry serve`."""

import asyncio
import contextlib
import http.client
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

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


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
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

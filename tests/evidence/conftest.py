"""Registries that misbehave. The good ones are real: `crane registry serve`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlwarden.embedded import trivydb
from mlwarden.embedded.door import Door

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
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trivy with a vulnerability database made for tests."""
    return trivydb.make_database(tmp_path_factory.mktemp("trivy"))


@pytest.fixture
def door(registry: str) -> Iterator[Callable[..., Door]]:
    """`door(password=…, tokens=…, tls=…)`: opens a door before the real registry."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Door(registry, **options))

"""A scripted API server for what the real one cannot be made to do, and mlwarden's kinds on the real one."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mlwarden import evidence, policy
from mlwarden.cluster import Client
from mlwarden.cluster.client import Token

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Scripted:
    """Answers lists and watches one after the other, as it was told to; the last answer of each sort is repeated.

    A list is a status and a body. A watch is a status and lines; `hang` at the end keeps it open, `cut` breaks the connection.
    """

    def __init__(self) -> None:
        self.lists: list[tuple[int, Any]] = []
        self.watches: list[tuple[int, list[Any]]] = []
        self.asked: list[dict[str, str]] = []
        self.url = ""

    @property
    def watched(self) -> list[str]:
        """The resource versions that watches began at."""
        return [query["resourceVersion"] for query in self.asked if query.get("watch")]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if not request.query.get("watch"):
            status, body = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            return web.Response(status=status, body=body if isinstance(body, bytes) else json.dumps(body), content_type="application/json")
        status, lines = self.watches.pop(0) if len(self.watches) > 1 else self.watches[0]
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for line in lines:
            if line == "hang":
                await asyncio.sleep(3600)
            elif line == "cut":
                assert request.transport is not None
                request.transport.abort()
            else:
                await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
                await asyncio.sleep(0)
        return response


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    script = Scripted()
    application = web.Application()
    application.router.add_get("/{path:.*}", script.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    script.url = "http://127.0.0.1:" + str(runner.addresses[0][1])
    yield script
    await runner.cleanup()


@pytest.fixture
async def scripted_client(scripted: Scripted) -> AsyncIterator[Client]:
    async with Client(server=scripted.url, context=ssl.create_default_context(), token=Token(text="t"), timeout=5) as client:
        yield client


@pytest.fixture(scope="module")
def crds(cluster: "EmbeddedCluster") -> Iterator[None]:
    """mlwarden's kinds on the real API server; afterwards as before."""
    from mlwarden.embedded.api import ApiError
    from mlwarden.embedded.processes import wait_until

    api = cluster.api()
    known = {each["metadata"]["name"] for each in api.get(DEFINITIONS)["items"]}
    made = [crd for crd in (policy.crd(), policy.revocation_crd(), evidence.crd()) if crd["metadata"]["name"] not in known]

    def answers(path: str) -> bool:
        try:
            api.get(path)
        except ApiError:
            return False
        return True

    for crd in made:
        path = f"/apis/mlwarden.io/v1alpha1/{crd['spec']['names']['plural']}"
        api.apply(f"{DEFINITIONS}/{crd['metadata']['name']}", crd)
        assert wait_until(lambda path=path: answers(path), seconds=30)
    yield
    for crd in made:
        path = f"{DEFINITIONS}/{crd['metadata']['name']}"
        api.delete(path)
        assert wait_until(lambda path=path: not answers(path), seconds=30)

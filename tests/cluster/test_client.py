import asyncio
import contextlib
from collections.abc import Callable

import pytest

from mlwarden.cluster import NAMESPACE, POD, Client, ConflictError, Informer, InvalidError, Kind, NotFoundError, UnreachableError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.errors import InputError

pytestmark = pytest.mark.cluster
CONFIG = Kind(group="", version="v1", plural="configmaps")


def config(name: str, value: str = "1") -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_it_creates_reads_patches_applies_lists_and_deletes(client: Client, namespace: str) -> None:
    await client.create(CONFIG, config("one"), namespace=namespace)
    await client.patch(CONFIG, "one", {"data": {"value": "2"}}, namespace=namespace)
    assert (await client.get(CONFIG, "one", namespace=namespace))["data"] == {"value": "2"}
    two = {**config("two"), "metadata": {"name": "two", "namespace": namespace}}
    await client.apply(CONFIG, two)
    names = [each["metadata"]["name"] for each in await client.list(CONFIG, namespace=namespace)]
    assert {"one", "two"} <= set(names)
    await client.delete(CONFIG, "one", namespace=namespace)
    with pytest.raises(NotFoundError):
        await client.get(CONFIG, "one", namespace=namespace)


async def test_what_the_api_server_refuses_can_be_told_apart(client: Client, namespace: str) -> None:
    made = await client.create(CONFIG, config("one"), namespace=namespace)
    with pytest.raises(ConflictError):
        await client.create(CONFIG, config("one"), namespace=namespace)
    await client.update(CONFIG, {**made, "data": {"value": "2"}})
    with pytest.raises(ConflictError):
        await client.update(CONFIG, {**made, "data": {"value": "3"}})
    with pytest.raises(InvalidError):
        await client.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}, namespace=namespace)


async def test_a_server_that_is_gone_is_an_error_with_words(cluster: EmbeddedCluster, client: Client) -> None:
    client._server = "https://127.0.0.1:1"
    with pytest.raises(UnreachableError, match="no answer from the API server"):
        await client.get(NAMESPACE, "default")


async def test_a_kubeconfig_that_is_not_there_is_said_so() -> None:
    with pytest.raises(InputError, match="kubeconfig"):
        await Client.from_kubeconfig("/nowhere/at/all")


async def test_an_informer_follows_what_happens_and_survives_the_api_server(
    cluster: EmbeddedCluster, client: Client, namespace: str
) -> None:
    seen: list[tuple[str, bool]] = []
    informer = Informer(client, CONFIG, namespace=namespace, on_change=lambda key, obj: seen.append((key[1], obj is not None)))
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 15)
        await client.create(CONFIG, config("one"), namespace=namespace)
        await until(lambda: informer.get("one", namespace=namespace))
        await asyncio.to_thread(cluster.restart_apiserver, kill=True)
        await client.create(CONFIG, config("two"), namespace=namespace)
        await client.delete(CONFIG, "one", namespace=namespace)
        await until(lambda: informer.get("two", namespace=namespace) and not informer.get("one", namespace=namespace), 40)
        assert ("one", False) in seen
        assert not informer.unreadable
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from mlwarden.cluster import LEASE, Client, Lease
from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster


@contextlib.asynccontextmanager
async def candidate(client: Client, namespace: str, identity: str) -> AsyncIterator[Lease]:
    lease = Lease(client, name="test", namespace=namespace, identity=identity, duration=3.0, renew=2.0, retry=0.2)
    task = asyncio.create_task(lease.run())
    try:
        yield lease
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_one_leads_and_the_next_takes_over_at_once_when_it_leaves(client: Client, namespace: str) -> None:
    async with candidate(client, namespace, "b") as second:
        await until(lambda: second.is_leader)
        async with candidate(client, namespace, "a") as first:
            await until(lambda: first.holder == "b")
            assert not first.is_leader
    lease = await client.get(LEASE, "test", namespace=namespace)
    assert lease["spec"]["holderIdentity"] == ""
    async with candidate(client, namespace, "c") as third:
        await until(lambda: third.is_leader)


async def test_a_leader_steps_down_before_its_lease_runs_out_when_the_api_server_is_gone(
    cluster: EmbeddedCluster, client: Client, namespace: str
) -> None:
    async with candidate(client, namespace, "a") as lease:
        await until(lambda: lease.is_leader)
        await asyncio.to_thread(cluster.stop_apiserver, kill=True)
        try:
            await until(lambda: not lease.is_leader and lease.following.is_set())
        finally:
            await asyncio.to_thread(cluster.start_apiserver)
        await until(lambda: lease.is_leader)


async def test_who_was_cut_off_does_not_lead_beside_the_new_leader(client: Client, namespace: str) -> None:
    async with candidate(client, namespace, "a") as first:
        await until(lambda: first.is_leader)
        await client.patch(LEASE, "test", {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}}, namespace=namespace)
        await until(lambda: not first.is_leader)
        assert first.holder == "thief"

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from mlwarden.cluster import LEASE, Client, Lease
from mlwarden.embedded.cluster import EmbeddedCluster

from .conftest import until  # type: ignore[import-not-found]

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


async def test_two_never_lead_at_once_whatever_happens_to_the_api_server(cluster: EmbeddedCluster, client: Client, namespace: str) -> None:
    leaders: list[set[str]] = []
    async with candidate(client, namespace, "a") as first, candidate(client, namespace, "b") as second:

        async def look() -> None:
            while True:
                leaders.append({name for name, lease in (("a", first), ("b", second)) if lease.is_leader})
                await asyncio.sleep(0.005)

        looking = asyncio.create_task(look())
        try:
            for _ in range(2):
                await until(lambda: leaders and leaders[-1])
                await asyncio.to_thread(cluster.stop_apiserver, kill=True)
                try:
                    await until(lambda: not leaders[-1])
                finally:
                    await asyncio.to_thread(cluster.start_apiserver)
            await until(lambda: leaders[-1])
        finally:
            looking.cancel()
    assert max(map(len, leaders)) == 1


async def test_a_lease_that_was_deleted_is_made_again(client: Client, namespace: str) -> None:
    async with candidate(client, namespace, "a") as lease:
        await until(lambda: lease.is_leader)
        await client.delete(LEASE, "test", namespace=namespace)
        async with asyncio.timeout(20):
            while not await client.list(LEASE, namespace=namespace):
                await asyncio.sleep(0.02)
        assert lease.is_leader


def test_a_leader_that_could_outlive_its_lease_is_not_constructible(client: Client) -> None:
    with pytest.raises(ValueError, match="retry < renew < duration"):
        Lease(client, name="x", namespace="y", identity="z", duration=10, renew=10, retry=2)


async def test_a_leader_that_was_too_busy_to_renew_has_stepped_down_even_where_nobody_took_over(client: Client, namespace: str) -> None:
    async with candidate(client, namespace, "a") as lease:
        await until(lambda: lease.is_leader)
        stepped_down = asyncio.create_task(lease.following.wait())
        await asyncio.sleep(0)
        busy = time.monotonic() + 2.5
        while time.monotonic() < busy:
            pass
        assert not lease.is_leader  # whatever was decided until now was decided as one who does not lead
        await until(lambda: lease.is_leader)
        assert stepped_down.done()

"""Nothing is released by what was true before the pod was created, however late the watches are."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from mlwarden import evidence
from mlwarden.cluster import Client
from mlwarden.cluster import freshness as module
from mlwarden.cluster.errors import UnreachableError
from mlwarden.cluster.freshness import Freshness
from mlwarden.cluster.kinds import Kind
from mlwarden.cluster.snapshot import SnapshotSource
from mlwarden.controllers.releaser_main import Process
from mlwarden.embedded.api import ApiError
from mlwarden.evidence.store import digest_name
from mlwarden.workloads import is_gated

if TYPE_CHECKING:
    from .conftest import Running  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
DIGEST = "sha256:" + "7" * 64


class Lagging(Client):
    """The real client, whose watches of one kind are late for as long as the test says."""

    late = ""

    async def watch(self, kind: Kind, **changes: Any) -> AsyncGenerator[bytes, None]:
        async for line in super().watch(kind, **changes):
            while line and kind.plural == self.late:
                await asyncio.sleep(0.01)
            yield line


async def eventually(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(60):
        while not (found := await asyncio.to_thread(condition)):
            await asyncio.sleep(0.05)
    return found


def unwanted(name: str) -> dict[str, Any]:
    spec = {"profiles": {"production": "Deny"}, "message": "{name} is not for production", "why": "w", "fix": {"text": "f"}}
    kind = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}}
    return {**kind, "spec": {**spec, "requirement": {"expression": {"expression": "!('unwanted' in object.metadata.?labels.orValue({}))"}}}}


@pytest.fixture
async def client(running: "Running") -> AsyncIterator[Lagging]:
    """As the releaser's account; the releaser that runs as a process is ended: here it runs in this one."""
    address = urlsplit(running.cluster.server)
    folder = str(running.directory / running.settings.releaser)
    if (process := running.processes.pop("releaser-a", None)) is not None:
        process.kill()
        process.wait()
    async with Lagging.in_cluster(service_account_dir=folder, host=str(address.hostname), port=str(address.port)) as connected:
        yield connected


@pytest.fixture
async def source(client: Lagging, running: "Running") -> AsyncIterator[SnapshotSource]:
    made = SnapshotSource(client, running.settings, convert=evidence.to_facts)
    work = asyncio.create_task(made.run())
    await asyncio.wait_for(made.ready.wait(), 60)
    yield made
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize("late", ["namespaces", "wardenpolicies", "revokedartifacts", "imageevidences"])
async def test_what_was_stored_before_is_in_the_snapshot_or_there_is_none(
    running: "Running", client: Lagging, source: SnapshotSource, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    namespace = await asyncio.to_thread(running.held.namespace)
    fresh = Freshness(client, source)
    name = digest_name(DIGEST)  # type: ignore[arg-type]
    await fresh.snapshot(namespace, [name])
    monkeypatch.setattr(module, "_PATIENCE", 0.6)
    client.late = late
    api = running.admin

    def change() -> str:
        """Something of that kind; returns the path of what was made."""
        match late:
            case "namespaces":
                api.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"mlwarden.io/profile": "production"}}})
                return ""
            case "wardenpolicies":
                api.create(POLICIES, unwanted("late"))
                return f"{POLICIES}/late"
            case "revokedartifacts":
                path = "/apis/mlwarden.io/v1alpha1/revokedartifacts"
                kind = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "RevokedArtifact", "metadata": {"name": "late"}}
                api.create(path, {**kind, "spec": {"digest": DIGEST, "reason": "r"}})
                return f"{path}/late"
            case _:
                path = "/apis/mlwarden.io/v1alpha1/imageevidences"
                scanner = running.held.account(running.settings.scanner)
                scanner.create(path, evidence.pending(f"registry.example/app@{DIGEST}"))
                return f"{path}/{name}"

    made = await asyncio.to_thread(change)
    try:
        with pytest.raises(UnreachableError, match=f"{late}: the watch is more than"):
            await fresh.snapshot(namespace, [name])
        client.late = ""
        monkeypatch.setattr(module, "_PATIENCE", 30.0)
        snapshot = await fresh.snapshot(namespace, [name])
        assert {
            "namespaces": snapshot.profile(namespace) == "production",
            "wardenpolicies": any(each.name == "late" for each in snapshot.policies),
            "revokedartifacts": DIGEST in snapshot.revoked.digests,
            "imageevidences": DIGEST in snapshot.images,
        }[late]
    finally:
        client.late = ""
        if made:
            await asyncio.to_thread(api.delete, made)
    if made:  # what is gone is not waited for, and is not in the snapshot
        snapshot = await fresh.snapshot(namespace, [name])
        assert DIGEST not in {**snapshot.revoked.digests, **snapshot.images}
        assert not any(each.name == "late" for each in snapshot.policies)


async def test_a_thousand_who_ask_at_once_share_one_read(client: Lagging, source: SnapshotSource, monkeypatch: pytest.MonkeyPatch) -> None:
    lists: list[str] = []
    versions = client.versions

    async def counted(kind: Kind) -> Any:
        lists.append(kind.plural)
        return await versions(kind)

    monkeypatch.setattr(client, "versions", counted)
    fresh = Freshness(client, source)
    await asyncio.gather(*(fresh.snapshot("default") for _ in range(1000)))
    assert sorted(lists) == ["revokedartifacts", "wardenpolicies"]


async def test_a_namespace_that_becomes_production_judges_the_next_pod_by_that(
    running: "Running", client: Lagging, good_pod: Any, attack: Callable[[str, str, str], None]
) -> None:
    namespace = await asyncio.to_thread(running.held.namespace)
    image = f"registry.example/moved@{DIGEST}"
    path = f"/api/v1/namespaces/{namespace}"
    await asyncio.to_thread(running.admin.create, POLICIES, unwanted("not-for-production"))
    process = Process(client=client, settings=running.settings, identity="in-process")
    work = asyncio.create_task(process.run())
    try:
        await asyncio.wait_for(process.source.ready.wait(), 60)
        await eventually(lambda: namespace in process.source.current.namespaces)
        await eventually(lambda: any(each.name == "not-for-production" for each in process.source.current.policies))
        client.late = "namespaces"
        label = {"metadata": {"labels": {"mlwarden.io/profile": "production"}}}
        await asyncio.to_thread(running.admin.patch, path, label)
        body = good_pod("p", image)
        body["metadata"]["labels"] = {"unwanted": "yes"}

        def create() -> bool:  # the policy is compiled, too: here it is looked for what the releaser does, not the API server
            try:
                running.held.create(namespace, body)
            except ApiError:
                return False
            return True

        await asyncio.to_thread(_decompile, running, "not-for-production")
        await eventually(create)
        await asyncio.to_thread(lambda: running.answer(image, scan={"counts": {}}))
        await eventually(lambda: process.source.current.images.get(DIGEST))  # type: ignore[call-overload]
        assert process.source.current.profile(namespace) == "experiment"
        client.late = ""

        def told() -> list[str]:
            found = running.admin.get(f"{path}/events", fieldSelector="reason=NotReleased")["items"]
            return [each["message"] for each in found if each["involvedObject"]["kind"] == "Pod"]

        said = await eventually(told)
        assert "not-for-production" in said[0]
        assert is_gated(await asyncio.to_thread(running.admin.get, f"{path}/pods/p"))
    finally:
        client.late = ""
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await asyncio.to_thread(running.admin.delete, f"{POLICIES}/not-for-production")
    attack("a pod that is created right after its namespace became production", "released by the profile of before", "judged by production")


def _decompile(running: "Running", name: str) -> None:
    """Ends the controller, and takes away the compiled policy: what the API server itself refuses never gets to the releaser."""
    if (process := running.processes.pop("controller-a", None)) is not None:
        process.kill()
        process.wait()
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    for each in running.admin.get(base)["items"]:
        if each["metadata"]["name"].startswith(f"mlwarden-policy-{name}"):
            running.admin.delete(f"{base}/{each['metadata']['name']}")

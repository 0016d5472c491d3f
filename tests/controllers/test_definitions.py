"""A custom resource definition that is being deleted, and hangs: an upgrade and every probe say so, and what to look for."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from mlwarden.cluster.client import Client
from mlwarden.cluster.definitions import Definitions, why_not
from mlwarden.controllers.install import apply_crds
from mlwarden.errors import ClusterError
from mlwarden.evidence import pending

from .conftest import exists, until  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster

pytestmark = pytest.mark.cluster
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
EVIDENCE = "imageevidences.mlwarden.io"


@pytest.fixture
async def client(cluster: "EmbeddedCluster") -> AsyncIterator[Client]:
    found = await Client.from_kubeconfig(cluster.environment("admin")["KUBECONFIG"])
    async with found:
        yield found


@pytest.fixture
def cleared(cluster: "EmbeddedCluster") -> Iterator[None]:
    """The definitions go at the end."""
    yield
    for name in ("wardenpolicies.mlwarden.io", "revokedartifacts.mlwarden.io", EVIDENCE):
        if exists(cluster.api(), f"{CRDS}/{name}"):
            cluster.api().delete(f"{CRDS}/{name}")
            until(lambda name=name: not exists(cluster.api(), f"{CRDS}/{name}"))


async def test_one_that_hangs_is_no_success_and_no_process_is_ready(
    cluster: "EmbeddedCluster", client: Client, cleared: None, attack: Callable[[str, str, str], None]
) -> None:
    said: list[str] = []
    definitions = Definitions(client)
    assert "is missing" in await definitions.look()
    await apply_crds(client, say=said.append)
    assert len(said) == 3
    assert await definitions.look() == ""

    body = pending("registry.example/app:1")
    path = f"/apis/mlwarden.io/v1alpha1/imageevidences/{body['metadata']['name']}"
    body["metadata"]["finalizers"] = ["thief.example/for-ever"]
    cluster.api().create(path.rpartition("/")[0], body)
    cluster.api().delete(f"{CRDS}/{EVIDENCE}")
    until(lambda: "deletionTimestamp" in cluster.api().get(f"{CRDS}/{EVIDENCE}")["metadata"])
    problem = await definitions.look()
    assert problem.startswith(f"custom resource definition {EVIDENCE} is being deleted")
    assert "finalizers" in problem
    with pytest.raises(ClusterError, match=r"imageevidences\.mlwarden\.io is being deleted.*finalizers"):
        await apply_crds(client, say=said.append, patience=0.5)

    cluster.api().patch(path, {"metadata": {"finalizers": None}})
    until(lambda: not exists(cluster.api(), f"{CRDS}/{EVIDENCE}"))
    await apply_crds(client, say=said.append)
    assert await definitions.look() == ""
    attack(
        "a finalizer on evidence keeps a deleted definition in the API server for ever",
        "helm upgrade succeeded and every pod was Ready",
        "mlwarden's accounts cannot set one; the upgrade fails, and no controller, releaser or scanner is ready, with what to look for",
    )


def test_one_that_is_not_established_says_so() -> None:
    assert why_not({"metadata": {}, "status": {}}) == "is not established"
    assert why_not({"metadata": {}, "status": {"conditions": [{"type": "Established", "status": "True"}]}}) == ""

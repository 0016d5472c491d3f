"""An image whose newest attestation failed, and whoever would like that to be forgotten: real cosign, registry and API server."""

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import checks, policy, workloads
from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.embedded.signer import KeyPair, Signer
from mlwarden.evidence import store
from mlwarden.evidence.requests import Requests
from mlwarden.evidence.store import Requester
from mlwarden.model.evidence import SIGNATURES, Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.signing import PREDICATES

if TYPE_CHECKING:
    from mlwarden.cluster import Client
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

Scanner = Callable[..., "Process"]
Until = Callable[..., dict[str, Any]]
Demand = Callable[..., policy.CompiledPolicy]
Attack = Callable[[str, str, str], None]
COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
NOW = datetime.now(UTC).replace(microsecond=0)
CONDITION = "predicate.scanner.result.critical == 0"


def scanned(days: int, critical: int) -> dict[str, Any]:
    at = (NOW - timedelta(days=days)).isoformat()
    return {"scanner": {"result": {"critical": critical}}, "metadata": {"scanStartedOn": at, "scanFinishedOn": at}}


def attested_by(key: KeyPair) -> dict[str, Any]:
    authorities = [{"name": "scans", "key": key.pem}]
    return {"imageAttestation": {"authorities": authorities, "predicateType": "vuln", "condition": CONDITION}}


class Attackers:
    """Who copy an image, with what spoke for it long ago, and name the copies."""

    def __init__(self, cluster: "EmbeddedCluster", client: "Client", signer: Signer, key: KeyPair) -> None:
        self.cluster, self.client, self.signer, self.key = cluster, client, signer, key

    def copies(self, image: str, count: int) -> list[str]:
        repository, digest = image.split("@")
        found = []
        for number in range(count):
            copy = f"{self.cluster.registry}/evil/{repository.rpartition('/')[2]}-{number}"
            command = [str(binary("crane")), "copy", "--insecure", image, f"{copy}:1"]
            subprocess.run(command, check=True, capture_output=True)
            found.append(f"{copy}@{digest}")
        for each in found:  # as if copied with the image: the same statement by the same key
            self.signer.attest(each, self.key, type=PREDICATES["vuln"], predicate=scanned(30, 0))
        return found

    async def name(self, references: Sequence[str], namespace: str) -> None:
        """As the releaser does for pods that name them: again where the scanner wrote at the same moments."""
        missing = list(references)
        while missing:
            await Requests(self.client).ensure([SIGNATURES + each for each in missing], datetime.now(UTC), Requester(namespace=namespace))
            stored = self.cluster.api().get(f"{COLLECTION}/signatures-{references[0].rpartition('@sha256:')[2]}")["spec"]["references"]
            missing = [each for each in references if each not in stored]

    async def judged(self, rule: policy.CompiledPolicy, image: str) -> Outcome:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}}
        known = store.collect(self.cluster.api().get(COLLECTION)["items"])
        facts = Facts(now=datetime.now(UTC), namespace={}, profile="production", proofs=known.proofs)
        (answer,) = checks.judge(rule, workloads.extract(pod), facts)
        return answer.outcome


@pytest.fixture
def attackers(cluster: "EmbeddedCluster", client: "Client", tmp_path: Path, evidence_crd: None) -> Attackers:
    signer = Signer(tmp_path)
    return Attackers(cluster, client, signer, signer.key_pair("scans"))


def has_answered(*references: str) -> Callable[[dict[str, Any]], bool]:
    def holds(status: dict[str, Any]) -> bool:
        places = {place["reference"] for place in status.get("places", ()) if place.get("answered")}
        return places.issuperset(references)

    return holds


@pytest.mark.parametrize("first", ["home", "copies"])
@pytest.mark.usefixtures("ask")
async def test_sixteen_copies_with_an_older_attestation_do_not_make_a_failed_one_forgotten(
    first: str,
    attackers: Attackers,
    scanner: Scanner,
    until: Until,
    *,
    cluster: "EmbeddedCluster",
    demand: Demand,
    attack: Attack,
) -> None:
    digest = images.push_image(cluster.registry, f"known/{first}:1", alpine={"musl": "1.2.5-r10"}, python={f"only-{first}": "1"})
    home, name = f"{cluster.registry}/known/{first}@{digest}", digest.replace("sha256:", "signatures-")
    attackers.signer.attest(home, attackers.key, type=PREDICATES["vuln"], predicate=scanned(30, 0))
    attackers.signer.attest(home, attackers.key, type=PREDICATES["vuln"], predicate=scanned(1, 3))
    copies = await asyncio.to_thread(attackers.copies, home, 16)
    rule = demand(f"known-{first}", attested_by(attackers.key))
    scanner()

    async def named(references: Sequence[str], namespace: str) -> None:
        await attackers.name(references, namespace)
        await asyncio.to_thread(until, name, has_answered(*references), 120)

    if first == "home":
        await named([home], "team")
        assert await attackers.judged(rule, home) is Outcome.FAIL
        await named(copies[:8], "evil")
        await named(copies[8:], "evil")
    else:
        await named(copies[:1], "evil")
        assert await attackers.judged(rule, copies[0]) is Outcome.PASS, "of the copies nothing else is known"
        assert await attackers.judged(rule, home) is Outcome.UNKNOWN, "and of the repository itself nothing"
        await named([home], "team")
        await named(copies[1:], "evil")
    outcomes = {image: await attackers.judged(rule, image) for image in (home, *copies[-2:])}
    assert set(outcomes.values()) == {Outcome.FAIL}
    spec = cluster.api().get(f"{COLLECTION}/{name}")["spec"]
    assert home in spec["references"]
    assert len(spec["references"]) == 16
    attack(
        f"16 copies with an older, good attestation, {first} first",
        "a pod by a copy was released, then one by the image's own name",
        "refused by every name; the failed attestation is what is known",
    )

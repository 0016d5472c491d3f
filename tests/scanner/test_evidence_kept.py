"""What is known of an image outlives its vulnerability database, and signatures and excuses come with it: real trivy, cosign, registry."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from mlwarden import policy
from mlwarden.embedded import images, trivydb
from mlwarden.embedded.signer import Signer, openvex
from mlwarden.embedded.trivydb import ADVISORIES, Advisory
from mlwarden.model.signing import PREDICATES

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

Ask = Callable[[str], str]
Scanner = Callable[..., "Process"]
Until = Callable[..., dict[str, Any]]
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
NEW = Advisory(id="CVE-2999-0002", ecosystem="pip", package="requests", fixed="3.0.0", severity="HIGH", title="made up: known since today")


def ready(status: dict[str, Any]) -> bool:
    return status.get("phase") == "Ready"


def fingerprint(pem: str) -> str:
    der = load_pem_public_key(pem.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_a_new_database_is_asked_about_known_digests_without_pulling_them(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path
) -> None:
    source = trivydb.make_database(tmp_path / "first", updated=datetime.now(UTC) - timedelta(hours=2))
    names = []
    for number in range(3):
        of = images.push_image(cluster.registry, f"kept/{number}:1", alpine={"musl": "1.2.5-r10"}, python={"requests": "2.32.4"})
        names.append(ask(f"{cluster.registry}/kept/{number}@{of}"))
    scanner(f"--database-file={source / 'db'}", "--database-every=1")
    before = [until(name, ready) for name in names]
    assert [status["scan"]["counts"].get("HIGH", 0) for status in before] == [0, 0, 0]

    trivydb.make_database(source, [*ADVISORIES, NEW])
    after = [until(name, lambda status: status.get("scan", {}).get("counts", {}).get("HIGH") == 1, seconds=90) for name in names]
    for was, now in zip(before, after, strict=True):
        assert (
            now["scan"]["readAt"] == was["scan"]["readAt"] if "readAt" in was["scan"] else now["scan"]["readAt"] < now["scan"]["scannedAt"]
        )
        assert now["scan"]["databaseAt"] > was["scan"]["databaseAt"]


def test_signatures_are_looked_at_for_every_known_digest_once_a_policy_asks(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path, *, demand: Callable[..., policy.CompiledPolicy]
) -> None:
    signer = Signer(tmp_path)
    ours, theirs = signer.key_pair("ours"), signer.key_pair("theirs")
    of = images.clean(cluster.registry, "kept/signed:1")
    image = f"{cluster.registry}/kept/signed@{of}"
    ask(image)
    scanner()
    compiled = demand(
        "kept-signed",
        {"imageSignature": {"authorities": [{"name": "ours", "key": ours.pem}, {"name": "theirs", "key": theirs.pem}], "required": 2}},
    )
    name = of.replace("sha256:", "signatures-")
    status = until(name, ready)
    assert {each["authority"]: each["outcome"] for each in status["proofs"]} == {"ours": "Missing", "theirs": "Missing"}

    signer.sign(image, ours)
    cluster.api().patch(f"/apis/mlwarden.io/v1alpha1/imageevidences/{name}", {"spec": {"requestedAt": "2026-11-24T00:00:00Z"}})
    status = until(name, lambda status: any(each["outcome"] == "Verified" for each in status.get("proofs", ())))
    outcomes = {each["demand"]: each["outcome"] for each in status["proofs"]}
    assert outcomes == dict(zip(compiled.demands, ("Verified", "Invalid"), strict=True))


def test_a_signed_document_of_the_named_authority_excuses_and_another_ones_does_not(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path, *, demand: Callable[..., policy.CompiledPolicy]
) -> None:
    signer = Signer(tmp_path)
    security, stranger = signer.key_pair("security"), signer.key_pair("stranger")
    of = images.vulnerable(cluster.registry, "kept/excused:1")
    image = f"{cluster.registry}/kept/excused@{of}"
    for key, vulnerability in ((security, "CVE-2025-32434"), (stranger, "CVE-2025-26519")):
        signer.attest(image, key, type="openvex", predicate=openvex(of, vulnerability, "not_affected"))
    compiled = demand("kept-excused", {"imageScan": {"vex": [{"name": "security", "key": security.pem}]}})
    name = ask(image)
    scanner()
    status = until(name, ready)
    (only,) = status["scan"]["suppressed"]
    assert (only["id"], only["status"]) == ("CVE-2025-32434", "not_affected")
    assert only["signer"] == {"key": fingerprint(security.pem)}
    assert compiled.vex[only["source"]].predicate_type == PREDICATES["openvex"]
    assert status["scan"]["counts"]["CRITICAL"] == 1  # what is there is not denied; whose word counts is each policy's business


def test_an_excuse_that_is_taken_back_ends_with_the_next_database(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, tmp_path: Path, *, demand: Callable[..., policy.CompiledPolicy]
) -> None:
    source = trivydb.make_database(tmp_path / "first", updated=datetime.now(UTC) - timedelta(hours=2))
    signer = Signer(tmp_path)
    security = signer.key_pair("security")
    of = images.vulnerable(cluster.registry, "kept/unexcused:1")
    image = f"{cluster.registry}/kept/unexcused@{of}"
    signer.attest(image, security, type="openvex", predicate=openvex(of, "CVE-2025-32434", "not_affected"))
    demand("kept-unexcused", {"imageScan": {"vex": [{"name": "security", "key": security.pem}]}})
    name = ask(image)
    scanner(f"--database-file={source / 'db'}", "--database-every=1")
    until(name, lambda status: bool(status.get("scan", {}).get("suppressed")))

    signer.attest(image, security, type="openvex", predicate=openvex(of, "CVE-2025-32434", "affected", at="2026-11-02T00:00:00Z"))
    trivydb.make_database(source, [*ADVISORIES, NEW])
    status = until(name, lambda status: ready(status) and not status["scan"].get("suppressed"), seconds=120)
    assert status["scan"]["counts"]["CRITICAL"] == 1

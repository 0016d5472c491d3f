"""What the engine takes for a pod of 8 containers, warm: no cluster and no network, evidence at hand, and where the time goes."""

from __future__ import annotations

import cProfile
import io
import pstats
import statistics
import time
from datetime import UTC, datetime
from typing import Any

from mlwarden import engine, policy, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Proofs, Scan
from mlwarden.model.finding import Decision
from mlwarden.model.policy import Settings
from mlwarden.model.signing import Proof, Proven
from mlwarden.policy import CompiledPolicy

CONTAINERS, AUTHORITIES, ROUNDS = 8, 5, 2000


def compiled(number: int, *, required: int) -> CompiledPolicy:
    """A policy with so many authorities."""
    key = "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n"
    requirement = {"authorities": [{"name": f"team-{each}", "key": key.format(each)} for each in range(number)], "required": required}
    return policy.compile_policy(
        policy.parse(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": "signed"},
                "spec": {
                    "profiles": {"production": "Deny"},
                    "requirement": {"imageSignature": requirement},
                    "message": "image {image} is not signed",
                    "why": "anybody may have pushed it",
                    "fix": {"text": "sign it with cosign"},
                },
            }
        )
    )


def shipped() -> list[CompiledPolicy]:
    """The policies of the chart."""
    return [policy.compile_policy(each) for each in policy.shipped()]


def pod(images: list[str]) -> dict[str, Any]:
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    limits = {"cpu": "10m", "memory": "16Mi"}
    containers = [
        {"name": f"c{n}", "image": image, "resources": {"requests": limits, "limits": limits}, "securityContext": secure}
        for n, image in enumerate(images)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train", "namespace": "team"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": containers,
        },
    }


def facts(digests: list[str], rule: CompiledPolicy) -> Facts:
    """Everything is known and good."""
    now = datetime.now(UTC)
    scan = Scan(scanner="trivy", scanned_at=now, database_at=now, os="alpine 3.22.1", packages=20)
    proofs = {name: Proof(demand=name, outcome=Proven.VERIFIED, at=now) for name in rule.demands}
    known = [digest(each) for each in digests]
    return Facts(
        now=now,
        namespace={"metadata": {"name": "team"}},
        profile="production",
        images={each: ImageFacts(digest=each, phase=Phase.READY, scan=scan) for each in known},
        proofs={each: Proofs(digest=each, phase=Phase.READY, proofs=proofs) for each in known},
    )


def main() -> None:
    """Prints the medians, and the profile of the last."""
    rule, ours = compiled(AUTHORITIES, required=AUTHORITIES), shipped()
    scans = [each for each in ours if each.policy.name == "image-scanned"]
    print(f"engine.evaluate, {CONTAINERS} containers, {AUTHORITIES} authorities all of which must have signed, {ROUNDS} rounds, ms\n")
    print("| policies | images | p50 | p99 |\n| --- | --- | --- | --- |")
    for name, policies in (
        ("imageSignature", [rule]),
        ("imageSignature, imageScan", [rule, *scans]),
        (f"those and the other {len(ours) - 1} of the chart", [rule, *ours]),
    ):
        for distinct in (1, CONTAINERS):
            digests = [f"sha256:{number % distinct:064x}" for number in range(CONTAINERS)]
            body = pod([f"127.0.0.1:5000/team/train@{each}" for each in digests])
            known = facts(digests, rule)

            def once(body: dict[str, Any] = body, policies: list[CompiledPolicy] = policies, known: Facts = known) -> Decision:
                return engine.evaluate(workloads.extract(body), policies, known, Settings()).decision

            if once() is not Decision.ADMIT:
                raise SystemExit(f"{name}: {engine.evaluate(workloads.extract(body), policies, known, Settings())}")
            times = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                once()
                times.append((time.perf_counter() - start) * 1000)
            times.sort()
            print(f"| {name} | {distinct} | {statistics.median(times):.3f} | {times[int(len(times) * 0.99)]:.3f} |")
            if policies == [rule]:
                profile = cProfile.Profile()
                profile.runcall(lambda: [once() for _ in range(ROUNDS)])
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(14)
    print("\nwhere the time of imageSignature with distinct images goes:\n" + "\n".join(text.getvalue().splitlines()[4:]))


if __name__ == "__main__":
    main()

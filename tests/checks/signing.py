"""Policies about signatures, and what is known about an image, for the tests of both checks."""

from datetime import UTC, datetime, timedelta
from typing import Any

from mlwarden import checks, policy, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, Phase, Proofs
from mlwarden.model.signing import Proof, Proven, Signer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
PINNED = f"registry.example/team/train@{DIGEST}"
SIGNER = Signer(issuer="https://issuer.example", subject="release@example.com")


def key(letter: str) -> dict[str, Any]:
    return {"name": f"team-{letter}", "key": f"-----BEGIN PUBLIC KEY-----\n{letter}\n-----END PUBLIC KEY-----\n"}


def compiled(kind: str, **requirement: Any) -> policy.CompiledPolicy:
    return policy.compile_policy(
        policy.parse(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": "signed"},
                "spec": {
                    "profiles": {"production": "Deny"},
                    "requirement": {kind: {"authorities": [key("a")], **requirement}},
                    "message": "image {image} is not signed",
                    "why": "anybody may have pushed it",
                    "fix": {"text": "sign it with cosign"},
                },
            }
        )
    )


def proof(rule: policy.CompiledPolicy, number: int = 0, outcome: Proven = Proven.VERIFIED, **changes: Any) -> Proof:
    name = list(rule.demands)[number]
    signer = SIGNER if number == 0 else Signer(key=f"sha256:{number:064x}")
    return Proof(**({"demand": name, "outcome": outcome, "at": NOW - timedelta(seconds=30), "signer": signer} | changes))


def ready(*proofs: Proof, named: tuple[str, ...] = (PINNED,)) -> dict[Any, Proofs]:
    """What is known; all of it was found out in the repositories that are `named`, too."""
    answered = {place: {each.demand: each.at for each in proofs if each.outcome is not Proven.UNKNOWN} for place in named}
    return {DIGEST: Proofs(digest=DIGEST, phase=Phase.READY, proofs={each.demand: each for each in proofs}, answered=answered)}


def answers(rule: policy.CompiledPolicy, *images: str, **facts: Any) -> list[checks.Answer]:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images or (PINNED,))]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}, "spec": {"containers": containers}}
    return list(checks.judge(rule, workloads.extract(pod), Facts(**({"now": NOW, "namespace": {}, "profile": "production"} | facts))))


def answer(rule: policy.CompiledPolicy, **facts: Any) -> checks.Answer:
    (only,) = answers(rule, **facts)
    assert only.path == "spec.containers[0].image"
    return only

"""A policy about scans, and scans for it, that the tests of several checks need."""

from datetime import UTC, datetime, timedelta
from typing import Any

from mlwarden import policy
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import ImageFacts, Phase, Scan

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
PINNED = f"registry.example/team/train@{DIGEST}"


def compiled(**requirement: Any) -> policy.CompiledPolicy:
    return policy.compile_policy(
        policy.parse(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": "image-vulnerabilities"},
                "spec": {
                    "profiles": {"production": "Deny"},
                    "requirement": {"imageScan": requirement or {"severity": "HIGH"}},
                    "message": "image {image} is vulnerable",
                    "why": "known holes are the first that are tried",
                    "fix": {"text": "rebuild it"},
                },
            }
        )
    )


def scan(**changes: Any) -> Scan:
    at = NOW - timedelta(hours=1)
    usual = {"scanner": "trivy 0.72.0", "scanned_at": at, "database_at": at, "os": "debian 13", "packages": 80, "scanners": ("vuln",)}
    return Scan(**(usual | changes))


def ready(found: Scan | None, *, named: tuple[str, ...] = (PINNED,)) -> dict[Digest, ImageFacts]:
    """What is known; VEX documents of whoever speaks in it were looked for in the repositories that are `named`."""
    spoken = {each.source: NOW for each in (*found.suppressed, *found.unheard)} if found is not None else {}
    return {DIGEST: ImageFacts(digest=DIGEST, phase=Phase.READY, scan=found, answered=dict.fromkeys(named, spoken))}

"""Where a verdict keeps a pod."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import engine, policy, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Scan
from mlwarden.model.nodes import Nodes
from mlwarden.model.policy import Settings

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
IMAGE = f"registry.example/app@{DIGEST}"
KEPT = Nodes(architectures=("amd64",))


def verdict(on_fail: str = "Deny", on_unknown: str = "Hold", *, old: Any = None, kind: str = "Pod", **spec: Any) -> Any:
    rule = policy.compile_policy(
        policy.parse(
            {
                "apiVersion": "mlwarden.io/v1alpha1",
                "kind": "WardenPolicy",
                "metadata": {"name": "scanned"},
                "spec": {
                    "profiles": {"production": on_fail},
                    "onUnknown": on_unknown,
                    "requirement": {"imageScan": {"severity": "HIGH"}},
                    "message": "image {image} is vulnerable",
                    "why": "known holes are the first that are tried",
                    "fix": {"text": "rebuild it"},
                },
            }
        )
    )
    inner = {"containers": [{"name": "main", "image": IMAGE}], **spec}
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": inner}
    if kind == "Job":
        obj = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": inner}}}
    found = Scan(
        scanner="trivy 0.72.0",
        scanned_at=NOW,
        database_at=NOW,
        os="alpine 3.22.1",
        packages=3,
        manifests=(digest("sha256:" + "1" * 64),),
        platforms=("linux/amd64",),
        unjudged=("windows/amd64",),
    )
    images = {DIGEST: ImageFacts(digest=DIGEST, phase=Phase.READY, scan=found)}
    facts = Facts(now=NOW, namespace={}, profile="production", images=images, nodes={"n": "linux/amd64"}, old=old)
    return engine.evaluate(workloads.extract(obj), (rule,), facts, Settings())


def test_a_pod_is_kept_where_its_image_was_judged() -> None:
    assert verdict().nodes == KEPT
    assert verdict(on_unknown="Deny").nodes == KEPT


@pytest.mark.parametrize(
    "changes",
    [
        {"on_fail": "Warn"},
        {"on_unknown": "Warn"},
        {"kind": "Job"},
        {"nodeName": "n"},
        {"nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        {"old": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}}},
    ],
    ids=["a policy that warns", "what is not known only warns", "a template", "a node of its own", "kept already", "an update"],
)
def test_and_not_where_that_is_nothing_new_or_not_asked_for(changes: dict[str, Any]) -> None:
    assert verdict(**changes).nodes is None

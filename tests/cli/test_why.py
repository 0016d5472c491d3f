"""By which settings `mlwarden why` judges again."""

from typing import Any

import pytest

from mlwarden import evidence
from mlwarden.cli import why
from mlwarden.cluster import CONFIG_MAP, NAMESPACE, ForbiddenError
from mlwarden.cluster.kinds import Kind
from mlwarden.evidence.store import Requester

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "train", "namespace": "research", "uid": "u"},
    "spec": {"containers": [{"name": "main", "image": "r.example/team/train:1"}], "schedulingGates": [{"name": "mlwarden.io/verified"}]},
}
POLICY = {
    "apiVersion": "mlwarden.io/v1alpha1",
    "kind": "WardenPolicy",
    "metadata": {"name": "scanned"},
    "spec": {
        "profiles": {"production": "Deny"},
        "requirement": {"imageScan": {"severity": "HIGH"}},
        "message": "image {image} has known holes",
        "why": "holes are ways in",
        "fix": {"text": "rebuild it"},
    },
}


class Cluster:
    """A namespace without a profile of its own; the settings, where they may be read."""

    def __init__(self, settings: str, labels: dict[str, str] | None = None) -> None:
        self._settings, self._labels = settings, labels or {}

    async def get(self, kind: Kind, _name: str, *, namespace: str = "") -> dict[str, Any]:
        if kind is NAMESPACE:
            return {"metadata": {"name": "research", "labels": self._labels}}
        assert kind is CONFIG_MAP
        if not self._settings:
            raise ForbiddenError("no", code=403)
        assert namespace == "mlwarden-system"
        return {"data": {"settings.yaml": self._settings}}

    async def list(self, kind: Kind) -> list[dict[str, Any]]:
        return [POLICY] if kind.plural == "wardenpolicies" else []


@pytest.mark.parametrize(
    ("settings", "labels", "says"),
    [
        ("defaultProfile: production", {}, "has not been resolved"),
        ("defaultProfile: baseline", {}, "it is good"),
        ("", {"mlwarden.io/profile": "production"}, "has not been resolved"),
    ],
)
async def test_the_profile_is_that_of_the_installation(settings: str, labels: dict[str, str], says: str) -> None:
    said, *assumed = await why._judged(Cluster(settings, labels), POD, "research", [POLICY])  # type: ignore[arg-type]
    assert says in said
    assert bool(assumed) == (not settings)
    assert all("assumes the chart's own: rollout enforce, profiles that hold: experiment, production" in line for line in assumed)


async def test_who_may_not_read_the_default_profile_is_told_what_the_controller_said_and_no_guess() -> None:
    assert await why._judged(Cluster(""), POD, "research", [POLICY]) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(("most", "told"), [(1, True), (2, False)])
async def test_a_namespace_with_as_many_requests_as_it_may_is_told(most: int, told: bool) -> None:  # noqa: FBT001 -- a parameter
    class Full(Cluster):
        async def list(self, kind: Kind) -> list[dict[str, Any]]:
            requests = [evidence.pending("r.example/team/other:1", Requester(namespace="research"))]
            return requests if kind.plural == "imageevidences" else await super().list(kind)

    settings = f"defaultProfile: production\nevidencePerNamespace: {most}"
    lines = await why._judged(Full(settings), POD, "research", [POLICY])  # type: ignore[arg-type]
    assert any("scanner.perNamespace" in line for line in lines) is told


@pytest.mark.parametrize(
    ("owner", "says"), [("ReplicaSet", "its controller makes another"), ("Job", "backoffLimit"), ("", "no controller owns it")]
)
async def test_a_pod_that_can_never_be_released_is_said_to_be_so(owner: str, says: str) -> None:
    group = "batch/v1" if owner == "Job" else "apps/v1"
    owners = [{"apiVersion": group, "kind": owner, "name": "o", "uid": "o", "controller": True}] if owner else []
    spec = {**POD["spec"], "volumes": [{"name": "m", "image": {"reference": "r.example/model:1"}}]}  # type: ignore[dict-item]
    pod = {**POD, "metadata": {**POD["metadata"], "ownerReferences": owners}, "spec": spec}  # type: ignore[dict-item]
    said = await why._judged(Cluster("defaultProfile: production"), pod, "research", [POLICY])  # type: ignore[arg-type]
    assert says in said[-1]
    assert ("activeDeadlineSeconds, where it has one, runs meanwhile" in said[0]) is (owner == "Job")
    assert "volume m names its image by a tag" in said[-1]

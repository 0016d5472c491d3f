"""What mlwarden asks the API server for at work, by the audit log: what is refused to it is a right that somebody forgot to grant."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.installed import NAMESPACE

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
_OWN = f"system:serviceaccount:{NAMESPACE}:mlwarden-"


@pytest.fixture(scope="module")
def worked(cluster: Any, kubelet: Any, install_on: "type[Installed]") -> Iterator[tuple["Installed", datetime]]:
    """An installation that has done a day's work, and when it began."""
    began = datetime.now(UTC)
    found = install_on(cluster, kubelet)
    found.push()
    try:
        found.release.install()
        _work(found)
        yield found, began
    finally:
        found.clean()


def _work(installed: "Installed") -> None:
    """Pods that run, pods that are refused, one of a Deployment, a policy of one's own, a revocation, an upgrade."""
    space = installed.namespace("rights-serving")
    installed.create(space, installed.pod("good"))
    installed.runs(space, "good")
    images.vulnerable(installed.cluster.registry, "rights:1.0")
    installed.create(space, installed.pod("bad", "rights:1.0"))
    installed.said(space, "bad", "CVE-2025-32434")
    images.vulnerable(installed.cluster.registry, "rights-of-a-deployment:1.0")
    labels, template = {"app": "w"}, installed.pod("x", "rights-of-a-deployment:1.0")["spec"]
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": template}}
    installed.cluster.api("alice").create(f"/apis/apps/v1/namespaces/{space}/deployments", {"metadata": {"name": "w"}, "spec": spec})
    installed.said(space, "w", "CVE-2025-32434")
    own = {
        "profiles": {"production": "Deny"},
        "requirement": {"expression": {"forEach": "pod", "expression": "object.metadata.name != 'unwanted'"}},
        "message": "unwanted",
        "why": "because",
        "fix": {"text": "another name"},
    }
    policies = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
    ours = {"apiVersion": "mlwarden.io/v1alpha1"}
    installed.admin.create(policies, {**ours, "kind": "WardenPolicy", "metadata": {"name": "no-unwanted"}, "spec": own})
    compiled = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def places() -> list[Any]:
        return [
            each for each in installed.admin.get(compiled)["items"] if each["metadata"].get("annotations", {}).get("mlwarden.io/policy")
        ]

    installed.until(places)
    installed.admin.delete(f"{policies}/no-unwanted")
    installed.until(lambda: not places())
    digest = installed.get(space, "good")["spec"]["containers"][0]["image"].rpartition("@")[2]
    revoked = {**ours, "kind": "RevokedArtifact", "metadata": {"name": "rights"}, "spec": {"digest": digest, "reason": "tried"}}
    installed.admin.create("/apis/mlwarden.io/v1alpha1/revokedartifacts", revoked)
    installed.said(space, "good", "is revoked")
    installed.admin.delete("/apis/mlwarden.io/v1alpha1/revokedartifacts/rights")
    installed.release.upgrade(requireProfile=True)


def forbidden(installed: "Installed", since: datetime) -> list[str]:
    """What was asked for and nobody had granted: account, group/resource, verb."""
    found = set()
    for event in installed.cluster.audit_events():
        user, about = event["user"]["username"], event.get("objectRef")
        if not user.startswith(_OWN) or not about or datetime.fromisoformat(event["requestReceivedTimestamp"]) < since:
            continue
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid":
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            found.add(f"{user.removeprefix(_OWN)}: {event['verb']} {about.get('apiGroup', '')}/{resource}")
    return sorted(found)


def test_nothing_is_asked_for_that_nobody_granted(worked: tuple["Installed", datetime]) -> None:
    assert forbidden(*worked) == []

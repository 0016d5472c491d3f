"""What each of mlwarden's accounts may, beside what it was seen to do: the API server's audit log, after an installation and a day's work.

A right that nobody uses is one that only a thief would miss; a request that is refused is one that somebody forgot to grant.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mlwarden.embedded import images
from mlwarden.embedded.installed import NAMESPACE, chart, values

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
Right = tuple[str, str, str]
"""Account, group/resource, verb."""
_OWN = f"system:serviceaccount:{NAMESPACE}:mlwarden-"
_PROCESSES = ("webhook", "controller", "releaser", "scanner")

_AGAIN = "an Event that is there already counts one more"
_ASKED_BEFORE = "what is there already is asked about again"
RARE: dict[Right, str] = {
    ("controller", "/events", "get"): _AGAIN,
    ("controller", "/events", "patch"): _AGAIN,
    ("controller", "/secrets", "update"): "certificates that end, and a newer version's policies that are accepted",
    ("controller", "admissionregistration.k8s.io/mutatingadmissionpolicies", "delete"): "the roll-out becomes an audit",
    ("controller", "admissionregistration.k8s.io/mutatingadmissionpolicybindings", "delete"): "the roll-out becomes an audit",
    ("controller", "mlwarden.io/imageevidences", "delete"): "what nobody asked for in a long time is forgotten",
    ("controller", "mlwarden.io/imageevidences", "get"): _ASKED_BEFORE,
    ("controller", "mlwarden.io/imageevidences", "patch"): _ASKED_BEFORE,
    ("controller", "mlwarden.io/revokedartifacts/status", "patch"): "how many pods run it is counted once a minute",
    ("controller", "mlwarden.io/wardenpolicies", "delete"): "a policy that is not shipped any more, once that is accepted",
    ("releaser", "/pods", "get"): "a pod that belongs to another one",
    ("releaser", "/pods", "delete"): "a pod that can never be released, and whose controller makes another",
    ("releaser", "mlwarden.io/imageevidences", "patch"): _ASKED_BEFORE,
    ("releaser", "mlwarden.io/imageevidences", "delete"): "where a namespace has too many requests, the oldest makes room",
    ("scanner", "mlwarden.io/imageevidences", "patch"): "children of an index that are there already, and a new database",
    **{
        (account, "serving.kserve.io/clusterstoragecontainers", "watch"): "KServe is installed"
        for account in ("controller", "releaser", "webhook")
    },
    ("webhook", "/events", "create"): "a debug container",
    ("webhook", "mlwarden.io/imageevidences", "create"): "a debug container",
    ("webhook", "mlwarden.io/imageevidences", "get"): "a debug container",
    ("webhook", "mlwarden.io/imageevidences", "patch"): _ASKED_BEFORE,
}
"""Rights that a day's work does not use → what uses them."""


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


def granted(installed: "Installed") -> set[Right]:
    """What the chart's roles allow, with the values that this machine needs."""
    file = installed.cluster.directory / "values-rights.yaml"
    file.write_text(yaml.safe_dump(values(installed.cluster, installed.kubelet)))
    rendered = installed.cluster.helm("template", "mlwarden", str(chart()), "--namespace", NAMESPACE, "--values", str(file))
    found = set()
    for obj in yaml.safe_load_all(rendered):
        if not obj or obj["kind"] not in {"ClusterRole", "Role"} or "helm.sh/hook" in obj["metadata"].get("annotations", {}):
            continue
        account = obj["metadata"]["name"].removeprefix("mlwarden-")
        if account in _PROCESSES:
            found |= {
                (account, f"{group}/{resource}", verb)
                for rule in obj["rules"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def seen(installed: "Installed", since: datetime) -> tuple[set[Right], list[str]]:
    """What was asked for, and what of it nobody had granted."""
    asked: set[Right] = set()
    forbidden = []
    for event in installed.cluster.audit_events():
        user, about = event["user"]["username"], event.get("objectRef")
        if not user.startswith(_OWN) or not about or datetime.fromisoformat(event["requestReceivedTimestamp"]) < since:
            continue
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        right = (user.removeprefix(_OWN), f"{about.get('apiGroup', '')}/{resource}", event["verb"])
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid":
            forbidden.append(json.dumps(right))
        else:
            asked.add(right)
    return asked, sorted(set(forbidden))


def test_nothing_is_asked_for_that_nobody_granted(worked: tuple["Installed", datetime]) -> None:
    assert seen(*worked)[1] == []


def test_every_right_is_used_or_said_what_uses_it(worked: tuple["Installed", datetime]) -> None:
    installed, began = worked
    asked, _ = seen(installed, began)
    rights = granted(installed)
    # To apply is a PATCH, which needs the right to create as well where there is nothing yet.
    asked |= {(account, resource, "create") for account, resource, verb in asked if verb == "patch"}
    of_the_table = {right for right in rights if right[0] in {"controller", "releaser"} and right[1] in _kinds()}
    unused = rights - asked - RARE.keys() - of_the_table
    assert sorted(unused) == []
    assert sorted(RARE.keys() - rights) == []
    processes = {right for right in asked if right[0] in _PROCESSES and right[2] != "create"}
    assert sorted(processes - rights) == []


def _kinds() -> set[str]:
    """The kinds of the table: most are not installed here, and which of them is looked at depends on who made a pod."""
    owners = yaml.safe_load((chart() / "owners.yaml").read_text())
    return {f"{group}/{resource}" for group, resources in owners.items() for resource in resources}

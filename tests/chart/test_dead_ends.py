"""Nothing waits for a person where none is needed: image volumes by tag start by themselves, and a manifest may be applied again."""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Installed  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def prod(installed: "Installed") -> str:
    return str(installed.namespace("dead-ends"))


def pods(installed: "Installed", namespace: str, app: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = installed.admin.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"app={app}")["items"]
    return found


def run_pinned(installed: "Installed", namespace: str, app: str, number: int) -> bool:
    found = pods(installed, namespace, app)
    pinned = all("@sha256:" in pod["spec"]["volumes"][0]["image"]["reference"] for pod in found)
    return len(found) == number and pinned and all(pod["status"].get("phase") == "Running" for pod in found)


def test_a_deployment_with_weights_by_a_tag_starts_by_itself_and_so_does_the_replica_of_an_hour_later(
    installed: "Installed", prod: str, attack: "Callable[[str, str, str], None]"
) -> None:
    volumes = [{"name": "weights", "image": {"reference": f"{installed.cluster.registry}/clean:1.0", "pullPolicy": "IfNotPresent"}}]
    labels = {"app": "ranker"}
    template = {"metadata": {"labels": labels}, "spec": installed.pod("x", volumes=volumes)["spec"]}
    path = f"/apis/apps/v1/namespaces/{prod}/deployments"
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    installed.cluster.api("alice").create(path, {"metadata": {"name": "ranker"}, "spec": spec})
    installed.until(lambda: run_pinned(installed, prod, "ranker", 3), seconds=150)

    def is_long_ago() -> bool:
        """Nobody has asked about the tag for so long that a pod which comes now is not pinned."""
        probe = installed.create(prod, installed.pod("probe", volumes=volumes), dryRun="All")
        return "@" not in probe["spec"]["volumes"][0]["image"]["reference"]

    installed.until(is_long_ago, seconds=150)
    installed.cluster.api("alice").patch(f"{path}/ranker", {"spec": {"replicas": 4}})
    installed.until(lambda: run_pinned(installed, prod, "ranker", 4), seconds=150)
    attack("a replica with an image volume by tag, made at night", "held until somebody deleted it", "made anew by itself, pinned, runs")


@pytest.mark.parametrize("how", [(), ("--server-side",)])
def test_a_manifest_is_applied_again_while_its_pod_waits_and_while_it_runs(installed: "Installed", prod: str, how: tuple[str, ...]) -> None:
    name = "server" if how else "client"
    manifest = json.dumps(installed.pod(name))

    def apply() -> None:
        installed.cluster.kubectl("apply", *how, "-n", prod, "-f", "-", user="alice", input=manifest)

    apply()
    apply()
    installed.runs(prod, name)
    pinned = installed.get(prod, name)["spec"]["containers"][0]["image"]
    assert "@sha256:" in pinned
    apply()
    apply()
    assert installed.get(prod, name)["spec"]["containers"][0]["image"] == pinned
    assert installed.state(prod, name) == "Running"

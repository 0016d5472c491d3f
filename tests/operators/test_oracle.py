"""The oracle can fail: a pod that differs from what was predicted is found, whichever way it differs."""

from typing import Any

import pytest

from . import added  # type: ignore[import-not-found]
from .bodies import container, pod_spec  # type: ignore[import-not-found]
from .oracle import as_predicted  # type: ignore[import-not-found]

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {"template": {"spec": pod_spec(container("r.example/a:1"), initContainers=[container("r.example/b:1", "fetch")])}},
}


def made(**changes: Any) -> dict[str, Any]:
    """As the API server would have it: pinned, on a node, with the token's volume of the default account."""
    pinned = container("r.example/a:1@sha256:" + "0" * 64, volumeMounts=[{"name": "kube-api-access-x", "mountPath": "/var/run"}])
    spec = pod_spec(pinned, initContainers=[container("r.example/b:1", "fetch")], serviceAccountName="default", nodeName="node-0")
    volumes = [{"name": "kube-api-access-x", "projected": {}}]
    return {"metadata": {"name": "web-0"}, "spec": {**spec, "volumes": volumes, **changes}}


def test_a_pod_as_it_was_predicted_passes() -> None:
    as_predicted(DEPLOYMENT, [made()], "jobset")


@pytest.mark.parametrize(
    "changes",
    [
        {"serviceAccountName": "other"},
        {"hostNetwork": True},
        {"automountServiceAccountToken": True},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"securityContext": {}},
        {"containers": [container("r.example/other:1")]},
        {"containers": [container("r.example/a:1", securityContext={"privileged": True})]},
        {"containers": [container("r.example/a:1"), container("r.example/a:1", "sidecar")]},
        {"initContainers": []},
        {"initContainers": [container("r.example/b:1", "fetch"), container("r.example/b:1", "more")]},
    ],
)
def test_a_pod_that_differs_does_not(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=r"has what nobody predicted|lacks what was predicted"):
        as_predicted(DEPLOYMENT, [made(**changes)], "jobset")


def test_a_copy_of_the_first_container_is_kuberays_own() -> None:
    copy = {**container("r.example/a:1", "wait-gcs-ready"), "resources": {}}
    as_predicted(DEPLOYMENT, [made(initContainers=[container("r.example/b:1", "fetch"), copy])], "kuberay")
    for other in (
        container("r.example/evil:1", "wait-gcs-ready"),
        container("r.example/a:1", "wait-gcs-ready", securityContext={"privileged": True}),
    ):
        with pytest.raises(AssertionError, match="nobody predicted"):
            as_predicted(DEPLOYMENT, [made(initContainers=[container("r.example/b:1", "fetch"), other])], "kuberay")
    with pytest.raises(AssertionError, match="nobody predicted"):
        as_predicted(DEPLOYMENT, [made(initContainers=[container("r.example/b:1", "fetch"), copy])], "jobset")


def test_an_account_of_its_own_is_kuberays_only_where_it_scales_by_itself() -> None:
    head = pod_spec(container("r.example/a:1", "head"))
    obj = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "r"},
        "spec": {"headGroupSpec": {"template": {"spec": head}}},
    }
    scaled = {**obj, "spec": {**obj["spec"], "enableInTreeAutoscaling": True, "autoscalerOptions": {}}}
    autoscaler = {"name": "autoscaler", "image": "r.example/a:1"}
    pod = {"metadata": {"name": "r-head"}, "spec": {**head, "serviceAccountName": "r"}}
    both = {**pod, "spec": {**pod["spec"], "containers": [*head["containers"], autoscaler]}}
    joined = {"spec.autoscalerOptions": "spec.headGroupSpec.template"}
    as_predicted(scaled, [both], "kuberay", joined=joined)
    with pytest.raises(AssertionError, match="nobody predicted"):
        as_predicted(scaled, [{**both, "spec": {**both["spec"], "serviceAccountName": "admin"}}], "kuberay", joined=joined)
    with pytest.raises(AssertionError, match="nobody predicted"):
        as_predicted(obj, [pod], "kuberay")


def test_what_is_listed_and_not_seen_is_said() -> None:
    shared = ("volume", "shared-mem", "emptyDir")
    assert shared not in added.unseen([shared], "kuberay")
    assert ("initContainers", "wait-gcs-ready", "image", "*") in added.unseen([shared], "kuberay")


def test_a_predicted_pod_that_is_not_made_is_missed() -> None:
    two = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "two"}, "spec": {}}
    head, worker = ({"template": {"spec": pod_spec(container(f"r.example/{name}:1"))}} for name in ("a", "b"))
    two["spec"] = {"headGroupSpec": head, "workerGroupSpecs": [worker]}
    with pytest.raises(AssertionError, match="never made"):
        as_predicted(two, [{"metadata": {"name": "h"}, "spec": head["template"]["spec"]}], "jobset")

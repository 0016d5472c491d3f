"""A TrainJob's pods: the Trainer makes a JobSet of its runtime, and JobSet's controller the pods."""

from collections.abc import Callable
from typing import Any

import pytest

from mlwarden.workloads import extract

from . import added, facts  # type: ignore[import-not-found]
from .bodies import container, pod_spec  # type: ignore[import-not-found]

GROUP = "/apis/trainer.kubeflow.org/v1alpha1"
JOBSETS = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets"


def runtime(name: str, spec: dict[str, Any], *, kind: str = "TrainingRuntime") -> dict[str, Any]:
    job = {
        "name": "node",
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {"template": {"spec": spec}},
        },
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"mlPolicy": {"numNodes": 2, "torch": {"numProcPerNode": 1}}, "template": {"spec": {"replicatedJobs": [job]}}},
    }


def trainjob(name: str, runtime_name: str, *, of: str = "TrainingRuntime", **spec: Any) -> dict[str, Any]:
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": of, "name": runtime_name}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name},
        "spec": {"runtimeRef": reference, **spec},
    }


@pytest.fixture(name="platform")
def platform_fixture(beside: Callable[..., Any]) -> Any:
    return beside("jobset", "trainer")


def is_predicted(job: dict[str, Any], base: dict[str, Any], pods: list[dict[str, Any]]) -> None:
    """A pod is its runtime's, with what the TrainJob sets laid over it, and what the two operators are known to add."""
    (lower,) = [facts.predicted(pod) for pod in extract(base).pods]
    upper = frozenset(fact for pod in extract(job).pods for fact in facts.predicted(pod))
    images = {image.reference for image in extract(job).images}
    for pod in pods:
        found = facts.of_pod(pod["spec"])
        assert (
            added.unexplained(found, lower | upper | {("containers", "node", "image", image) for image in images}, "trainer", "jobset")
            == []
        )
        lacking = {fact for fact in lower if fact not in found and not (images and fact[2:3] == ("image",))}
        assert lacking == set()
        assert images <= {each["image"].partition("@")[0] for each in pod["spec"]["containers"]}


def test_its_pods_are_the_runtimes_with_what_it_sets_and_they_run(platform: Any) -> None:
    team = platform.team()
    base = runtime("torch", pod_spec(container(platform.image(), "node")))
    job = trainjob("tune", "torch", trainer={"image": platform.image("ranking:2.3"), "numNodes": 3})
    platform.apply(base, team, user="admin")
    platform.apply(job, team)
    made = platform.ran(team, 3)
    assert len(made) == 3
    is_predicted(job, base, made)


def test_a_jobset_that_the_platforms_runtime_makes_privileged_is_refused(platform: Any) -> None:
    team = platform.team()
    privileged = container(platform.image(), "node", securityContext={"privileged": True})
    platform.apply(runtime("rooted", pod_spec(privileged), kind="ClusterTrainingRuntime"), "default", user="admin")
    platform.apply(trainjob("rides", "rooted", of="ClusterTrainingRuntime"), team)
    told = platform.said(team, "rides", "denied the request")  # Trainer's own Event, where the TrainJob's author looks
    assert f"JobSet {team}/rides is refused by privileged-containers" in told
    assert platform.admin.get(JOBSETS.format(team))["items"] == []
    assert platform.pods(team) == []


def test_one_that_mounts_the_host_is_refused(platform: Any) -> None:
    team = platform.team()
    platform.apply(runtime("torch", pod_spec(container(platform.image(), "node"))), team, user="admin")
    override = {"targetJobs": [{"name": "node"}], "volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
    platform.refused(trainjob("escape", "torch", podSpecOverrides=[override]), team, "podSpecOverrides[0]", "host-path-volumes")
    assert platform.admin.get(f"{GROUP}/namespaces/{team}/trainjobs")["items"] == []


def test_suspended_it_has_no_pods_and_resumed_they_run(platform: Any) -> None:
    team = platform.team()
    base, job = runtime("torch", pod_spec(container(platform.image(), "node"))), trainjob("later", "torch", suspend=True)
    platform.apply(base, team, user="admin")
    platform.apply(job, team)
    platform.until(lambda: platform.admin.get(JOBSETS.format(team))["items"])
    assert platform.pods(team) == []
    platform.cluster.api("alice").patch(f"{GROUP}/namespaces/{team}/trainjobs/later", {"spec": {"suspend": False}})
    is_predicted(job, base, platform.ran(team, 2))


def test_at_an_outage_its_pods_are_held_and_run_afterwards_and_deleted_they_go(platform: Any) -> None:
    team = platform.team()
    base, job = runtime("torch", pod_spec(container(platform.image(), "node"))), trainjob("patient", "torch")
    platform.apply(base, team, user="admin")
    platform.kubelet.kill_all()
    try:
        platform.apply(job, team)
        platform.until(lambda: len(platform.pods(team)) == 2)
        assert {platform.state(team, pod["metadata"]["name"]) for pod in platform.pods(team)} == {"Held"}
    finally:
        platform.kubelet.resume()
    is_predicted(job, base, platform.ran(team, 2))
    platform.cluster.api("alice").delete(f"{GROUP}/namespaces/{team}/trainjobs/patient", {"propagationPolicy": "Foreground"})
    platform.until(lambda: not platform.pods(team))

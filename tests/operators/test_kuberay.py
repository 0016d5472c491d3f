"""The pods of a RayCluster, and those of a RayJob, as KubeRay makes them."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from . import added, facts  # type: ignore[import-not-found]
from .bodies import container, pod_spec  # type: ignore[import-not-found]
from .oracle import as_predicted  # type: ignore[import-not-found]

PLURAL = "/apis/ray.io/v1/namespaces/{}/rayclusters"


def raycluster(name: str, head: dict[str, Any], *workers: dict[str, Any], replicas: int = 1, **spec: Any) -> dict[str, Any]:
    groups = [
        {
            "groupName": f"group-{number}",
            "replicas": replicas,
            "minReplicas": 0,
            "maxReplicas": 5,
            "rayStartParams": {},
            "template": {"spec": worker},
        }
        for number, worker in enumerate(workers)
    ]
    body = {"rayVersion": "2.46.0", "headGroupSpec": {"rayStartParams": {}, "template": {"spec": head}}, "workerGroupSpecs": groups, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": name}, "spec": body}


def rayjob(name: str, head: dict[str, Any], worker: dict[str, Any], **spec: Any) -> dict[str, Any]:
    cluster = raycluster(name, head, worker)["spec"]
    body = {"entrypoint": "python train.py", "rayClusterSpec": cluster, **spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": body}


@pytest.fixture(name="platform")
def platform_fixture(beside: Callable[..., Any]) -> Any:
    return beside("kuberay")


@pytest.fixture(name="good")
def good_fixture(platform: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    head = pod_spec(container(platform.image("ranking:2.3"), "ray-head"))
    return head, pod_spec(container(platform.image(), "ray-worker"), volumes=[{"name": "scratch", "emptyDir": {}}])


def test_its_pods_are_those_that_were_predicted_and_it_is_ready(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    body = raycluster("train", *good, replicas=2)
    platform.apply(body, team)
    made = platform.ran(team, 3)
    assert len(made) == 3
    assert {each["name"] for pod in made for each in pod["spec"].get("initContainers") or ()} == {"wait-gcs-ready"}
    as_predicted(body, made, "kuberay")
    platform.until(lambda: platform.admin.get(f"{PLURAL.format(team)}/train").get("status", {}).get("state") == "ready")


def test_one_that_scales_by_itself_has_an_autoscaler_in_its_head(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    context = good[0]["containers"][0]["securityContext"]
    body = raycluster("scales", *good, enableInTreeAutoscaling=True, autoscalerOptions={"securityContext": context})
    platform.apply(body, team)
    made = platform.ran(team, 2)
    as_predicted(body, made, "kuberay", joined={"spec.autoscalerOptions": "spec.headGroupSpec.template"})
    assert added.unseen((fact for pod in made for fact in facts.of_pod(pod["spec"])), "kuberay") == []
    # KubeRay gives its autoscaler no security context: without one here the head's pod could never be admitted.
    refused = raycluster("unsaid", *good, enableInTreeAutoscaling=True)
    platform.refused(refused, team, "spec.autoscalerOptions.securityContext")


def test_the_pods_of_a_rayjob_are_those_that_were_predicted_its_submitter_too(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    submitter = {"spec": pod_spec(container(platform.image("ranking:2.3"), "submit"), restartPolicy="Never")}
    body = rayjob("submits", *good, submitterPodTemplate=submitter)
    platform.apply(body, team)
    as_predicted(body, platform.ran(team, 3), "kuberay")


def test_a_submitter_that_the_rayjob_does_not_describe_is_predicted_and_the_fix_that_is_shown_runs(
    platform: Any, good: tuple[dict[str, Any], ...]
) -> None:
    """KubeRay gives it no security context, so the object is refused, with the template to write."""
    team = platform.team()
    body = rayjob("plain", *good)
    message = platform.refused(body, team, "spec.submitterPodTemplate", "container ray-job-submitter")
    shown = yaml.safe_load("{" + re.search(r"fix: +set (.+) in spec$", message, re.MULTILINE)[1] + "}")
    mended = {**body, "spec": {**body["spec"], **shown}}
    platform.apply(mended, team)
    as_predicted(mended, platform.ran(team, 3), "kuberay")


def test_one_with_a_privileged_worker_never_gets_that_far(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    worker = pod_spec(container(platform.image(), "ray-worker", securityContext={"privileged": True}))
    platform.refused(raycluster("bad", good[0], worker), team, "workerGroupSpecs[0]", "privileged")
    assert platform.admin.get(PLURAL.format(team))["items"] == []
    assert platform.pods(team) == []


def test_suspended_it_has_no_pods_and_scaled_more_are_made_and_run(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    alice, where = platform.cluster.api("alice"), f"{PLURAL.format(team)}/grows"
    body = raycluster("grows", *good, suspend=True)
    platform.apply(body, team)
    platform.until(lambda: platform.admin.get(where).get("status", {}).get("state") == "suspended")
    assert platform.pods(team) == []
    alice.patch(where, {"spec": {"suspend": False}})
    platform.ran(team, 2)
    groups = alice.get(where)["spec"]["workerGroupSpecs"]
    alice.patch(where, {"spec": {"workerGroupSpecs": [{**groups[0], "replicas": 3}]}})
    as_predicted(body, platform.ran(team, 4), "kuberay")
    alice.delete(where, {"propagationPolicy": "Foreground"})
    platform.until(lambda: not platform.pods(team))


def test_at_an_outage_its_pods_are_held_and_run_afterwards(platform: Any, good: tuple[dict[str, Any], ...]) -> None:
    team = platform.team()
    body = raycluster("patient", *good)
    platform.kubelet.kill_all()
    try:
        platform.apply(body, team)
        platform.until(lambda: len(platform.pods(team)) == 2)
        assert {platform.state(team, pod["metadata"]["name"]) for pod in platform.pods(team)} == {"Held"}
        # No webhook refuses the object; what is made of it the API server refuses by itself.
        privileged = pod_spec(container(platform.image(), "ray-head", securityContext={"privileged": True}))
        platform.apply(raycluster("bad", privileged), team)
        platform.said(team, "bad", "ValidatingAdmissionPolicy 'mlwarden-policy-")
    finally:
        platform.kubelet.resume()
    as_predicted(body, platform.ran(team, 2), "kuberay")

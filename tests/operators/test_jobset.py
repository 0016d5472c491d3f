"""A JobSet's pods, as JobSet's own controller makes them."""

from collections.abc import Callable
from typing import Any

import pytest

from mlwarden.embedded import images

from .bodies import container, pod_spec  # type: ignore[import-not-found]
from .oracle import as_predicted  # type: ignore[import-not-found]

PLURAL = "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{}/jobsets"


def jobset(name: str, *specs: dict[str, Any], suspend: bool = False, parallelism: int = 2) -> dict[str, Any]:
    jobs = [
        {
            "name": f"part-{number}",
            "replicas": 1,
            "template": {
                "spec": {
                    "parallelism": parallelism,
                    "completions": parallelism,
                    "backoffLimit": 0,
                    "template": {"spec": {"restartPolicy": "Never", **spec}},
                }
            },
        }
        for number, spec in enumerate(specs)
    ]
    spec = {"suspend": suspend, "replicatedJobs": jobs}
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(name="platform")
def platform_fixture(beside: Callable[..., Any]) -> Any:
    return beside("jobset")


def test_its_pods_are_those_that_were_predicted_and_they_run(platform: Any) -> None:
    team = platform.team()
    lead = pod_spec(container(platform.image("ranking:2.3"), "lead"))
    worker = pod_spec(
        container(platform.image(), volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}]),
        initContainers=[container(platform.image("ranking:2.3"), "fetch")],
        volumes=[{"name": "scratch", "emptyDir": {}}],
        serviceAccountName="trainer",
    )
    platform.admin.create(f"/api/v1/namespaces/{team}/serviceaccounts", {"metadata": {"name": "trainer"}})
    body = jobset("train", lead, worker)
    platform.apply(body, team)
    made = platform.ran(team, 4)
    as_predicted(body, made, "jobset")
    assert all("@sha256:" in each["image"] for pod in made for each in pod["spec"]["containers"])


def test_one_with_a_privileged_part_never_gets_that_far(platform: Any) -> None:
    team = platform.team()
    privileged = container(platform.image(), securityContext={"privileged": True})
    platform.refused(jobset("bad", pod_spec(container(platform.image())), pod_spec(privileged)), team, "replicatedJobs[1]", "privileged")
    assert platform.admin.get(PLURAL.format(team))["items"] == []
    assert platform.pods(team) == []


def test_of_a_vulnerable_image_the_pods_are_made_and_never_run(platform: Any) -> None:
    team = platform.team("production")
    images.vulnerable(platform.cluster.registry, "never-seen:1.0")  # whose scan nobody knows when the object is judged
    platform.apply(jobset("old", pod_spec(container(platform.image("never-seen:1.0"))), parallelism=1), team)
    pod = platform.until(lambda: platform.pods(team))[0]
    platform.said(team, pod["metadata"]["name"], "CVE-2025-32434")
    assert platform.state(team, pod["metadata"]["name"]) == "Held"
    assert platform.admin.get(f"{PLURAL.format(team)}/old").get("status", {}).get("terminalState", "") == ""


def test_suspended_it_has_no_pods_and_resumed_they_run(platform: Any) -> None:
    team = platform.team()
    body = jobset("later", pod_spec(container(platform.image())), suspend=True)
    platform.apply(body, team)
    platform.until(lambda: platform.admin.get(f"/apis/batch/v1/namespaces/{team}/jobs")["items"])
    assert platform.pods(team) == []
    platform.cluster.api("alice").patch(f"{PLURAL.format(team)}/later", {"spec": {"suspend": False}})
    made = platform.ran(team, 2)
    assert len(made) == 2
    as_predicted(body, made, "jobset")


def test_deleted_its_pods_go_held_ones_too(platform: Any) -> None:
    team = platform.team()
    platform.kubelet.kill_all()
    try:
        platform.apply(jobset("gone", pod_spec(container(platform.image()))), team)
        platform.until(lambda: len(platform.pods(team)) == 2)
        assert {platform.state(team, pod["metadata"]["name"]) for pod in platform.pods(team)} == {"Held"}
        platform.cluster.api("alice").delete(f"{PLURAL.format(team)}/gone", {"propagationPolicy": "Foreground"})
        platform.until(lambda: not platform.pods(team))
    finally:
        platform.kubelet.resume()


def test_at_an_outage_its_pods_are_held_and_run_afterwards(platform: Any) -> None:
    team = platform.team()
    body = jobset("patient", pod_spec(container(platform.image())))
    platform.kubelet.kill_all()
    try:
        platform.apply(body, team)
        platform.until(lambda: len(platform.pods(team)) == 2)
        assert {platform.state(team, pod["metadata"]["name"]) for pod in platform.pods(team)} == {"Held"}
        # No webhook refuses the object; what is made of it the API server refuses by itself.
        platform.apply(jobset("bad", pod_spec(container(platform.image(), securityContext={"privileged": True}))), team)
        refusal = r"\"bad-part-0-0\" is forbidden: ValidatingAdmissionPolicy 'mlwarden-policy-"
        platform.until(lambda: refusal in platform.operators["jobset"].log(400))
    finally:
        platform.kubelet.resume()
    made = platform.ran(team, 2)
    assert len(made) == 2
    as_predicted(body, made, "jobset")

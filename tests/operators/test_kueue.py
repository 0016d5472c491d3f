"""Pods that two wait for: Kueue for its quota, mlwarden for what is known of their images. Each takes away only its own gates."""

from collections.abc import Callable
from typing import Any

import pytest

from .bodies import container, pod_spec  # type: ignore[import-not-found]
from .oracle import as_predicted  # type: ignore[import-not-found]

GROUP = "/apis/kueue.x-k8s.io/v1beta2"
LABELS = {"kueue.x-k8s.io/queue-name": "main"}
QUOTA, EVIDENCE = {"kueue.x-k8s.io/admission", "kueue.x-k8s.io/topology"}, {"mlwarden.io/evidence"}


class Queue:
    """A team's queue, which holds everything until it is opened."""

    def __init__(self, platform: Any) -> None:
        self.platform, self.team = platform, platform.team()
        self.name = f"queue-of-{self.team}"
        quotas = [{"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": "1Gi"}]
        group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "default", "resources": quotas}]}
        version = {"apiVersion": "kueue.x-k8s.io/v1beta2"}
        flavor = {**version, "kind": "ResourceFlavor", "metadata": {"name": "default"}}
        spec = {"namespaceSelector": {}, "resourceGroups": [group], "stopPolicy": "Hold"}
        cluster_queue = {**version, "kind": "ClusterQueue", "metadata": {"name": self.name}, "spec": spec}
        local_queue = {**version, "kind": "LocalQueue", "metadata": {"name": "main"}, "spec": {"clusterQueue": self.name}}
        for obj in (flavor, cluster_queue, local_queue):
            platform.apply(obj, self.team, user="admin")

    def open(self) -> None:
        self.platform.admin.patch(f"{GROUP}/clusterqueues/{self.name}", {"spec": {"stopPolicy": "None"}})

    def workloads(self) -> list[dict[str, Any]]:
        return list(self.platform.admin.get(f"{GROUP}/namespaces/{self.team}/workloads")["items"])

    def pod(self, name: str) -> None:
        body = self.platform.pod(name)
        self.platform.create(self.team, {**body, "metadata": {"name": name, "labels": LABELS}})

    def gates(self, name: str) -> set[str]:
        return {gate["name"] for gate in self.platform.get(self.team, name)["spec"].get("schedulingGates") or ()}


@pytest.fixture(name="platform")
def platform_fixture(beside: Callable[..., Any]) -> Any:
    return beside("kueue")


@pytest.fixture(name="queue")
def queue_fixture(platform: Any) -> Queue:
    return Queue(platform)


def job(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    body = {"parallelism": 2, "completions": 2, "template": {"spec": {"restartPolicy": "Never", **spec}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": LABELS}, "spec": body}


def test_a_job_has_no_pods_until_it_is_its_turn_and_then_those_that_were_predicted(platform: Any, queue: Queue) -> None:
    body = job("train", pod_spec(container(platform.image())))
    platform.apply(body, queue.team)
    platform.until(queue.workloads)
    assert platform.admin.get(f"/apis/batch/v1/namespaces/{queue.team}/jobs/train")["spec"]["suspend"] is True
    assert platform.pods(queue.team) == []
    queue.open()
    made = platform.ran(queue.team, 2)
    as_predicted(body, made, "kueue")


def test_a_job_with_a_privileged_container_never_comes_into_the_queue(platform: Any, queue: Queue) -> None:
    privileged = container(platform.image(), securityContext={"privileged": True})
    platform.refused(job("bad", pod_spec(privileged)), queue.team, "privileged")
    assert queue.workloads() == []


def test_a_pod_of_which_everything_is_known_waits_for_its_quota(platform: Any, queue: Queue) -> None:
    queue.pod("serve")
    platform.until(lambda: queue.gates("serve") == QUOTA)
    queue.open()
    platform.runs(queue.team, "serve")


def test_at_an_outage_the_pods_of_a_job_whose_turn_it_is_are_held_and_run_afterwards(platform: Any, queue: Queue) -> None:
    body = job("patient", pod_spec(container(platform.image())))
    platform.kubelet.kill_all()
    try:
        platform.apply(body, queue.team)
        queue.open()
        platform.until(lambda: len(platform.pods(queue.team)) == 2)
        assert {platform.state(queue.team, pod["metadata"]["name"]) for pod in platform.pods(queue.team)} == {"Held"}
    finally:
        platform.kubelet.resume()
    as_predicted(body, platform.ran(queue.team, 2), "kueue")


def test_a_pod_that_is_pinned_after_it_has_its_quota_is_deleted_by_kueue(platform: Any, queue: Queue) -> None:
    """Kueue takes it for another pod than the one that it admitted. What helps: docs/operators.md."""
    platform.kubelet.kill_all()
    try:
        queue.pod("serve")
        assert queue.gates("serve") == QUOTA | EVIDENCE
        queue.open()
        platform.until(lambda: queue.gates("serve") == EVIDENCE)
    finally:
        platform.kubelet.resume()
    platform.said(queue.team, "serve", "No matching Workload")

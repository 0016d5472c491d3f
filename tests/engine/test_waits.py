"""What a hold does to a workload is said before: deadlines that run meanwhile, image volumes that nobody can pin later."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlwarden import engine, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, Resolution
from mlwarden.model.finding import Decision
from mlwarden.model.policy import Settings

NOW = datetime(2026, 11, 30, tzinfo=UTC)
D = digest("sha256:" + "a" * 64)
MODEL = "registry.example/model:7"
POD = {"containers": [{"name": "main", "image": f"registry.example/app:1@{D}"}]}
VOLUME = {**POD, "volumes": [{"name": "m", "image": {"reference": MODEL}}]}


def said(obj: dict[str, Any], *, profile: str = "production", rollout: str = "enforce", **facts: Any) -> list[tuple[str, str]]:
    verdict = engine.evaluate(workloads.extract(obj), (), Facts(now=NOW, namespace={}, profile=profile, **facts), Settings(rollout=rollout))
    assert verdict.decision is Decision.ADMIT
    return [(finding.policy, finding.path) for finding in verdict.findings]


def of(api_version: str, kind: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec}


def job(spec: dict[str, Any] = POD, **more: Any) -> dict[str, Any]:
    return of("batch/v1", "Job", template={"spec": spec}, **more)


@pytest.mark.parametrize(
    ("obj", "path"),
    [
        (job(activeDeadlineSeconds=60), "spec.activeDeadlineSeconds"),
        (
            of("batch/v1", "CronJob", jobTemplate={"spec": job(activeDeadlineSeconds=60)["spec"]}),
            "spec.jobTemplate.spec.activeDeadlineSeconds",
        ),
        (
            of("jobset.x-k8s.io/v1alpha2", "JobSet", replicatedJobs=[{"template": {"spec": job(activeDeadlineSeconds=9)["spec"]}}]),
            "spec.replicatedJobs[0].template.spec.activeDeadlineSeconds",
        ),
        (
            of(
                "kubeflow.org/v1",
                "PyTorchJob",
                runPolicy={"activeDeadlineSeconds": 60},
                pytorchReplicaSpecs={"Worker": {"template": {"spec": POD}}},
            ),
            "spec.runPolicy.activeDeadlineSeconds",
        ),
        (of("argoproj.io/v1alpha1", "Workflow", activeDeadlineSeconds=60, templates=[POD]), "spec.activeDeadlineSeconds"),
    ],
)
def test_a_deadline_of_the_whole_runs_while_its_pods_are_held(obj: dict[str, Any], path: str) -> None:
    assert said(obj) == [("mlwarden-hold", path)]
    assert said(obj, profile="baseline") == []  # nothing is held there
    assert said(obj, rollout="audit") == []


def test_the_deadline_of_a_pod_counts_from_its_start() -> None:
    assert said(job({**POD, "activeDeadlineSeconds": 60})) == []
    assert said({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {**POD, "activeDeadlineSeconds": 60}}) == []


def pod(**metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **metadata}, "spec": VOLUME}


def test_an_image_volume_by_tag_of_a_bare_pod_is_said_to_be_a_dead_end() -> None:
    assert said(pod()) == [("mlwarden-hold", "spec.volumes[0].image.reference")]


def test_unless_this_very_request_pins_it() -> None:
    assert said(pod(), resolutions={MODEL: Resolution(digest=D, at=NOW)}) == []
    assert said(pod(), resolutions={MODEL: Resolution(digest=D, at=NOW - timedelta(hours=1))}) != []


def test_or_somebody_makes_another() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}
    assert said(pod(ownerReferences=[owner])) == []
    assert said(of("apps/v1", "Deployment", template={"spec": VOLUME})) == []
    assert said(of("kubeflow.org/v1", "Notebook", template={"spec": VOLUME})) == []


def test_a_job_makes_none() -> None:
    assert said(job(VOLUME)) == [("mlwarden-hold", "spec.template.spec.volumes[0].image.reference")]
    pinned = {**POD, "volumes": [{"name": "m", "image": {"reference": f"{MODEL}@{D}"}}]}
    assert said(job(pinned)) == []

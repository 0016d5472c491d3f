"""What did not change is not judged again; what changed is, whatever else the update does."""

import copy
from typing import Any

import pytest

from mlwarden import workloads
from mlwarden.engine import relevant_change

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "n", "finalizers": ["x/y"]},
    "spec": {"containers": [{"name": "main", "image": "a:1"}], "schedulingGates": [{"name": "mlwarden.io/evidence"}]},
}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d", "namespace": "n"},
    "spec": {"replicas": 3, "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "main", "image": "a:1"}]}}},
}
INFERENCE_SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "i"},
    "spec": {"predictor": {"minReplicas": 2, "containers": [{"name": "main", "image": "a:1"}]}},
}
RAY_CLUSTER = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "metadata": {"name": "r"},
    "spec": {"workerGroupSpecs": [{"replicas": 2, "template": {"spec": {"containers": [{"name": "main", "image": "a:1"}]}}}]},
}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}


JOB_SET = {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {"name": "j"},
    "spec": {
        "suspend": True,
        "replicatedJobs": [{"replicas": 2, "template": {"spec": {"parallelism": 2, "template": DEPLOYMENT["spec"]["template"]}}}],
    },
}
TRAINING = {
    "apiVersion": "kubeflow.org/v1",
    "kind": "PyTorchJob",
    "metadata": {"name": "t"},
    "spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, "template": DEPLOYMENT["spec"]["template"]}}},
}
CRON_JOB = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "c"},
    "spec": {"suspend": True, "jobTemplate": {"spec": {"parallelism": 1, "template": DEPLOYMENT["spec"]["template"]}}},
}
OWN = {"apiVersion": "example.com/v1", "kind": "Pipeline", "metadata": {"name": "o"}, "spec": {"replicas": 2, "stages": [{"image": "a"}]}}


def changed(obj: dict[str, Any], path: str, value: Any) -> bool:
    new = copy.deepcopy(obj)
    at: Any = new
    *steps, last = [int(step) if step.isdecimal() else step for step in path.split("/")]
    for step in steps:
        at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
    at[last] = value
    return relevant_change(workloads.extract(obj), workloads.extract(new))


@pytest.mark.parametrize(
    ("obj", "path", "value"),
    [
        (DEPLOYMENT, "spec/replicas", 0),
        (DEPLOYMENT, "spec/paused", True),
        (DEPLOYMENT, "metadata/labels", {"team": "x"}),
        (DEPLOYMENT, "metadata/annotations", {"deployment.kubernetes.io/revision": "2"}),
        (INFERENCE_SERVICE, "spec/predictor/minReplicas", 0),
        (RAY_CLUSTER, "spec/workerGroupSpecs/0/replicas", 0),
        (DEPLOYMENT, "status", {"replicas": 3}),
        (POD, "metadata/finalizers", []),
        (POD, "metadata/labels", {"a": "b"}),
        (POD, "metadata/annotations", {"cni.example/status": "up"}),
        (POD, "spec/schedulingGates", []),
        (POD, "spec/tolerations", [{"operator": "Exists"}]),
        (SERVICE, "metadata/labels", {"a": "b"}),
        (JOB_SET, "spec/suspend", False),
        (JOB_SET, "spec/replicatedJobs/0/replicas", 1),
        (JOB_SET, "spec/replicatedJobs/0/template/spec/parallelism", 1),
        (TRAINING, "spec/pytorchReplicaSpecs/Worker/replicas", 0),
        (CRON_JOB, "spec/suspend", False),
        (CRON_JOB, "spec/jobTemplate/spec/parallelism", 3),
        (OWN, "spec/replicas", 0),
        (OWN, "spec/paused", True),
    ],
)
def test_bookkeeping_is_not_judged_again(obj: dict[str, Any], path: str, value: Any) -> None:
    assert not changed(obj, path, value)


@pytest.mark.parametrize(
    ("obj", "path", "value"),
    [
        (DEPLOYMENT, "spec/template/spec/containers/0/image", "b:1"),
        (DEPLOYMENT, "spec/template/spec/hostNetwork", True),
        (DEPLOYMENT, "spec/template/spec/initContainers", [{"name": "i", "image": "b"}]),
        (DEPLOYMENT, "spec/template/metadata/annotations", {"x": "y"}),
        (DEPLOYMENT, "metadata/annotations", {"exception.mlwarden.io/run-as-root": "until=2027-01-01"}),
        (DEPLOYMENT, "spec/template/metadata/labels", {"app": "e"}),
        (INFERENCE_SERVICE, "spec/predictor/hostIPC", True),
        (RAY_CLUSTER, "spec/workerGroupSpecs/0/template/spec/containers/0/image", "b:1"),
        (POD, "spec/containers/0/image", "b:1"),
        (POD, "spec/ephemeralContainers", [{"name": "debug", "image": "b"}]),
        (POD, "metadata/annotations", {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}),
        (SERVICE, "spec/type", "LoadBalancer"),
    ],
)
def test_what_runs_is_judged_again(obj: dict[str, Any], path: str, value: Any) -> None:
    assert changed(obj, path, value)


@pytest.mark.parametrize(
    ("obj", "path", "value"),
    [
        (OWN, "spec/replicas", [{"containers": [{"name": "x", "image": "evil"}]}]),
        (OWN, "spec/suspend", {"template": {"containers": [{"name": "x", "image": "evil"}]}}),
        (OWN, "spec/paused", "docker.io/evil/x"),
        (OWN, "spec/stages/0/replicas", 3),
        (OWN, "spec/replicatedJobs", {"suspend": 1}),
        (DEPLOYMENT, "spec/template/spec/replicas", 3),
        (RAY_CLUSTER, "spec/workerGroupSpecs/0/template/spec/suspend", True),
        (RAY_CLUSTER, "spec/workerGroupSpecs/0/replicas", {"containers": [{"name": "x", "image": "evil"}]}),
        (RAY_CLUSTER, "spec/headGroupSpec", {"replicas": 1}),
        (INFERENCE_SERVICE, "spec/predictor/replicas", 1),
    ],
)
def test_a_field_that_is_called_like_one_of_scale_is_judged(obj: dict[str, Any], path: str, value: Any) -> None:
    assert changed(obj, path, value)


def test_a_change_of_what_runs_cannot_hide_behind_scaling_down() -> None:
    new = copy.deepcopy(DEPLOYMENT)
    new["spec"]["replicas"] = 0
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    assert relevant_change(workloads.extract(DEPLOYMENT), workloads.extract(new))


def test_what_is_too_deep_to_compare_is_judged_again() -> None:
    def deep() -> dict[str, Any]:
        value: Any = {}
        for _ in range(50_000):
            value = {"a": value}
        return {"apiVersion": "v1", "kind": "Thing", "spec": value}

    assert relevant_change(workloads.extract(deep()), workloads.extract(deep()))

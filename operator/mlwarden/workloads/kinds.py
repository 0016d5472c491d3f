"""The table of kinds: where, in each, pods are described. Pure data; a new kind is one row.

A path names fields from the root; `[]` after a name goes through a list, `*` through all values of a map. `Shape` says what stands there.
Fields of scale say how many and when, never what: an update of them alone is not judged again.
"""

from enum import StrEnum

import msgspec


class Shape(StrEnum):
    """What a path leads to: a pod template (metadata and spec), a bare pod spec, or a single container."""

    TEMPLATE = "template"
    SPEC = "spec"
    CONTAINER = "container"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a kind, its plural resource name, where its pods are, and where it says how many and when."""

    group: str
    kind: str
    resource: str
    places: tuple[tuple[str, Shape], ...]
    scale: tuple[str, ...] = ()


SCALE = ("spec.replicas", "spec.paused", "spec.suspend")
"""Fields of scale of a kind that is not in the table (Kubernetes API conventions, scale subresource; Kueue)."""


def _templates(*paths: str) -> tuple[tuple[str, Shape], ...]:
    return tuple((path, Shape.TEMPLATE) for path in paths)


def _specs(*paths: str) -> tuple[tuple[str, Shape], ...]:
    return tuple((path, Shape.SPEC) for path in paths)


def _row(group: str, kind: str, resource: str, *places: tuple[str, Shape], scale: tuple[str, ...] = ()) -> Kind:
    return Kind(group=group, kind=kind, resource=resource, places=places, scale=scale)


def _below(base: str, *fields: str) -> tuple[str, ...]:
    return tuple(f"{base}.{field}" for field in fields)


def _containers(*paths: str) -> tuple[tuple[str, Shape], ...]:
    return tuple((path, Shape.CONTAINER) for path in paths)


def _replicas(name: str) -> tuple[tuple[str, Shape], ...]:
    return _templates(f"spec.{name}.*.template")


def _argo(base: str) -> tuple[tuple[str, Shape], ...]:
    steps = f"{base}templates[]", f"{base}templateDefaults"
    return tuple(
        place
        for step in steps
        for place in (
            *_specs(f"{step}", f"{step}.containerSet"),
            *_containers(f"{step}.container", f"{step}.script", f"{step}.sidecars[]"),
        )
    )


_JOB = ("suspend", "parallelism", "completions")


def _training(name: str) -> tuple[str, ...]:
    return "spec.runPolicy.suspend", f"spec.{name}.*.replicas"


def _ray(base: str) -> tuple[str, ...]:
    return f"{base}.suspend", *_below(f"{base}.workerGroupSpecs[]", "replicas", "minReplicas", "maxReplicas", "suspend")


_RAY = ("headGroupSpec.template", "workerGroupSpecs[].template")
_PREDICTOR_PARTS = ("predictor", "transformer", "explainer")
_SERVERS = (
    "model",
    "sklearn",
    "xgboost",
    "tensorflow",
    "pytorch",
    "triton",
    "onnx",
    "huggingface",
    "lightgbm",
    "paddle",
    "pmml",
    "alibi",
    "art",
)

KINDS: tuple[Kind, ...] = (
    _row("", "Pod", "pods", ("", Shape.TEMPLATE)),
    _row("", "PodTemplate", "podtemplates", *_templates("template")),
    _row("", "ReplicationController", "replicationcontrollers", *_templates("spec.template"), scale=("spec.replicas",)),
    _row("apps", "ReplicaSet", "replicasets", *_templates("spec.template"), scale=("spec.replicas",)),
    _row("apps", "Deployment", "deployments", *_templates("spec.template"), scale=("spec.replicas", "spec.paused")),
    _row("apps", "StatefulSet", "statefulsets", *_templates("spec.template"), scale=("spec.replicas",)),
    _row("apps", "DaemonSet", "daemonsets", *_templates("spec.template")),
    _row("batch", "Job", "jobs", *_templates("spec.template"), scale=_below("spec", *_JOB)),
    _row(
        "batch",
        "CronJob",
        "cronjobs",
        *_templates("spec.jobTemplate.spec.template"),
        scale=("spec.suspend", *_below("spec.jobTemplate.spec", *_JOB)),
    ),
    _row(
        "serving.kserve.io",
        "InferenceService",
        "inferenceservices",
        *_specs(*(f"spec.{part}" for part in _PREDICTOR_PARTS), "spec.predictor.workerSpec"),
        *_containers(*(f"spec.{part}.{server}" for part in _PREDICTOR_PARTS for server in _SERVERS)),
        scale=tuple(path for part in _PREDICTOR_PARTS for path in _below(f"spec.{part}", "minReplicas", "maxReplicas", "scaleTarget")),
    ),
    _row("serving.kserve.io", "ServingRuntime", "servingruntimes", *_specs("spec", "spec.workerSpec")),
    _row("serving.kserve.io", "ClusterServingRuntime", "clusterservingruntimes", *_specs("spec", "spec.workerSpec")),
    _row("kubeflow.org", "Notebook", "notebooks", *_templates("spec.template")),
    _row("kubeflow.org", "PyTorchJob", "pytorchjobs", *_replicas("pytorchReplicaSpecs"), scale=_training("pytorchReplicaSpecs")),
    _row("kubeflow.org", "TFJob", "tfjobs", *_replicas("tfReplicaSpecs"), scale=_training("tfReplicaSpecs")),
    _row("kubeflow.org", "MPIJob", "mpijobs", *_replicas("mpiReplicaSpecs"), scale=_training("mpiReplicaSpecs")),
    _row("kubeflow.org", "XGBoostJob", "xgboostjobs", *_replicas("xgbReplicaSpecs"), scale=_training("xgbReplicaSpecs")),
    _row("kubeflow.org", "PaddleJob", "paddlejobs", *_replicas("paddleReplicaSpecs"), scale=_training("paddleReplicaSpecs")),
    _row("kubeflow.org", "JAXJob", "jaxjobs", *_replicas("jaxReplicaSpecs"), scale=_training("jaxReplicaSpecs")),
    _row(
        "trainer.kubeflow.org",
        "TrainJob",
        "trainjobs",
        *_containers("spec.trainer"),
        *_specs("spec.podSpecOverrides[].spec"),
        scale=("spec.suspend", "spec.trainer.numNodes"),
    ),
    _row("ray.io", "RayCluster", "rayclusters", *_templates(*(f"spec.{path}" for path in _RAY)), scale=_ray("spec")),
    _row(
        "ray.io",
        "RayJob",
        "rayjobs",
        *_templates(*(f"spec.rayClusterSpec.{path}" for path in _RAY), "spec.submitterPodTemplate"),
        scale=("spec.suspend", *_ray("spec.rayClusterSpec")),
    ),
    _row(
        "ray.io",
        "RayService",
        "rayservices",
        *_templates(*(f"spec.{field}.{path}" for field in ("rayClusterConfig", "rayClusterSpec") for path in _RAY)),
        scale=("spec.suspend", *_ray("spec.rayClusterConfig"), *_ray("spec.rayClusterSpec")),
    ),
    _row(
        "jobset.x-k8s.io",
        "JobSet",
        "jobsets",
        *_templates("spec.replicatedJobs[].template.spec.template"),
        scale=("spec.suspend", "spec.replicatedJobs[].replicas", *_below("spec.replicatedJobs[].template.spec", *_JOB)),
    ),
    _row(
        "leaderworkerset.x-k8s.io",
        "LeaderWorkerSet",
        "leaderworkersets",
        *_templates("spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate"),
        scale=("spec.replicas",),
    ),
    _row("argoproj.io", "Workflow", "workflows", *_argo("spec."), scale=("spec.suspend", "spec.parallelism")),
    _row("argoproj.io", "WorkflowTemplate", "workflowtemplates", *_argo("spec.")),
    _row("argoproj.io", "ClusterWorkflowTemplate", "clusterworkflowtemplates", *_argo("spec.")),
    _row("argoproj.io", "CronWorkflow", "cronworkflows", *_argo("spec.workflowSpec."), scale=("spec.suspend",)),
    _row("serving.knative.dev", "Service", "services", *_templates("spec.template")),
    _row("serving.knative.dev", "Configuration", "configurations", *_templates("spec.template")),
    _row("serving.knative.dev", "Revision", "revisions", *_specs("spec")),
)

"""Kinds of Kubernetes itself."""

from mlwarden.workloads.kinds.place import JOB, Kind, below, row, templates

KINDS: tuple[Kind, ...] = (
    row("", "Pod", "pods", *templates("")),
    row("", "PodTemplate", "podtemplates", *templates("template")),
    row("", "ReplicationController", "replicationcontrollers", *templates("spec.template"), scale=("spec.replicas",)),
    row("apps", "ReplicaSet", "replicasets", *templates("spec.template"), scale=("spec.replicas",)),
    row("apps", "Deployment", "deployments", *templates("spec.template"), scale=("spec.replicas", "spec.paused")),
    row("apps", "StatefulSet", "statefulsets", *templates("spec.template"), scale=("spec.replicas",)),
    row("apps", "DaemonSet", "daemonsets", *templates("spec.template")),
    row("batch", "Job", "jobs", *templates("spec.template"), scale=below("spec", *JOB)),
    row(
        "batch",
        "CronJob",
        "cronjobs",
        *templates("spec.jobTemplate.spec.template"),
        scale=("spec.suspend", *below("spec.jobTemplate.spec", *JOB)),
    ),
)

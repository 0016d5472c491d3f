"""Kinds in which people and agents work: notebooks, workspaces, sandboxes."""

from mlwarden.model.workload import Partial
from mlwarden.workloads.kinds.place import Kind, Place, Shape, containers, row, templates

_SHUTDOWN = "spec.shutdownTime", "spec.shutdownPolicy"


_WORKSPACE_KIND = (
    Place(
        path="spec.podTemplate",
        shape=Shape.CONTAINER,
        partial=Partial.POD,
        main="main",
        fields={"securityContext": "securityContext", "volumes": "extraVolumes"},
        body={"securityContext": "containerSecurityContext", "env": "extraEnv", "volumeMounts": "extraVolumeMounts"},
        metadata="podMetadata",
    ),
    *containers(
        "spec.podTemplate.options.imageConfig.values[].spec", "spec.podTemplate.options.podConfig.values[].spec", partial=Partial.POD
    ),
)
"""Source: kubeflow/notebooks, notebooks-v2, workspaces/controller/api/v1beta1/workspacekind_types.go."""


KINDS: tuple[Kind, ...] = (
    row("kubeflow.org", "Notebook", "notebooks", *templates("spec.template")),
    row("kubeflow.org", "WorkspaceKind", "workspacekinds", *_WORKSPACE_KIND, namespaced=False),
    row(
        "agents.x-k8s.io",
        "Sandbox",
        "sandboxes",
        *templates("spec.podTemplate"),
        scale=("spec.replicas", "spec.operatingMode", *_SHUTDOWN),
    ),
    row(
        "extensions.agents.x-k8s.io",
        "SandboxTemplate",
        "sandboxtemplates",
        Place(path="spec.podTemplate", shape=Shape.TEMPLATE, sets={"automountServiceAccountToken": False}),
    ),
    row(
        "extensions.agents.x-k8s.io",
        "SandboxClaim",
        "sandboxclaims",
        # its variables and labels become those of a pod that a template says
        Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="sandbox", metadata="additionalPodMetadata"),
        scale=("spec.lifecycle",),
    ),
)

"""Kinds of pipelines and of what starts something: Argo, Tekton, Numaflow, Kubeflow Pipelines, KEDA."""

from collections.abc import Mapping

from msgspec.structs import replace

from mlwarden.model.workload import Json, Partial
from mlwarden.workloads.kinds.place import Kind, Place, Shape, below, containers, objects, row, specs, templates

_ARGO_AGENT: Mapping[str, Json] = {"runAsNonRoot": True, "runAsUser": 8737, "seccompProfile": {"type": "RuntimeDefault"}}
"""The security context of the pod in which Argo runs executor plugins (agent.go, MinimalPodSC)."""


def _argo(spec: str) -> tuple[Place, ...]:
    """Source: argo-workflows, workflow/controller, workflowpod.go (createWorkflowPod, setupServiceAccount, addVolumeReferences)."""
    template = Place(
        path="",
        shape=Shape.SPEC,
        lone=("container", "script"),
        main="main",
        lists=((("containerSet", "containers"), "containers"), (("sidecars",), "containers")),
        inherits=(spec,),
        defaults=f"{spec}.templateDefaults",
        exclusive=("container", "script", "containerSet"),
        unsaid=(("automountServiceAccountToken", True),),  # Argo writes down a no, and nothing else
        patch="podSpecPatch",
        operators=("main", "wait", "init"),
        metadata="metadata",
        labels=(f"{spec}.podMetadata",),
    )
    one = f"{spec}.templates[]"
    inline = f"{one}.dag.tasks[].inline", f"{one}.steps[][].inline"
    plugin = Place(
        path=f"{spec}.executorPlugins[].spec.sidecar.container",
        shape=Shape.CONTAINER,
        inherits=(spec,),
        sets={"automountServiceAccountToken": False, "securityContext": _ARGO_AGENT},
    )
    return (
        Place(path=spec, shape=Shape.SPEC, partial=Partial.POD, patch="podSpecPatch", operators=template.operators),
        replace(template, path=f"{spec}.templateDefaults", partial=Partial.POD, inherits=(), defaults=""),
        *(replace(template, path=path) for path in (one, *inline)),
        plugin,
    )


_ANALYSIS = "spec.metrics[].provider.job.spec.template"


def _argo_events() -> Place:
    """Source: argo-events, pkg/apis/events/v1alpha1/template.go and pkg/reconciler/sensor/resource.go: the controller says the image."""
    return Place(path="spec.template", shape=Shape.SPEC, partial=Partial.POD, lone=("container",), main="main", metadata="metadata")


def _argo_triggers() -> tuple[Place, ...]:
    triggers = "spec.triggers[]", "spec.triggers[].dlqTrigger"
    return objects(*(f"{trigger}.template.{how}.source.resource" for trigger in triggers for how in ("k8s", "argoWorkflow")))


_NUMA_CONTAINERS = "containerTemplate", "initContainerTemplate", "sideInputsContainerTemplate"
"""What is said of Numaflow's own containers."""


_VERTEX = Place(
    path="",
    shape=Shape.SPEC,
    lone=(
        *("udf.container", "source.udsource.container", "source.transformer.container"),
        *("sink.udsink.container", "sink.fallback.udsink.container", "sink.onSuccess.udsink.container"),
    ),
    lists=((("sidecars",), "containers"),),
    metadata="metadata",
)
"""Source: numaproj/numaflow, pkg/apis/numaflow/v1alpha1 (AbstractVertex, AbstractPodTemplate, Vertex.GetPodSpec)."""


def _numaflow(spec: str) -> tuple[Place, ...]:
    vertex, manager = f"{spec}.templates.vertex", f"{spec}.templates.sideInputsManager"
    inputs = Place(
        path=f"{spec}.sideInputs[]",
        shape=Shape.SPEC,
        lone=("container",),
        main="udsi",
        inherits=(manager,),
        holders=(manager,),
        labels=(f"{manager}.metadata",),
    )
    return (
        replace(_VERTEX, path=f"{spec}.vertices[]", inherits=(vertex,), labels=(f"{vertex}.metadata",)),
        inputs,
        *containers(*below(f"{spec}.vertices[]", *_NUMA_CONTAINERS), partial=Partial.POD),
        *specs(f"{spec}.templates.*", partial=Partial.POD),
        *containers(*below(f"{spec}.templates.*", *_NUMA_CONTAINERS[:2]), partial=Partial.POD),
    )


_TEKTON_POD = (
    *(
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostNetwork",
        "hostUsers",
    ),
    *("imagePullSecrets", "nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "securityContext", "tolerations"),
    *("topologySpreadConstraints", "volumes"),
)


def _tekton(*tasks: str, pod: tuple[str, ...] = (), accounts: tuple[str, ...] = (), named: tuple[str, ...] = ()) -> tuple[Place, ...]:
    """Source: tektoncd/pipeline, pkg/apis/pipeline/v1 (merge.go), pkg/apis/pipeline/pod (Template) and pkg/pod (Builder.Build).

    Args:
        tasks: where the steps of a task are.
        pod: where its pod template may be, in the versions of the API; nowhere in a task that others run.
        accounts: what has a `serviceAccountName` for all.
        named: what says the rest of tasks or steps by their names.
    """
    task = Place(
        path="",
        shape=Shape.SPEC,
        lists=((("steps",), "containers"), (("sidecars",), "containers")),
        under={"steps": "stepTemplate"},
        refers=("ref",),
        body={"resources": "computeResources"},
        lacks=() if pod else ("automountServiceAccountToken", "securityContext"),
        inherits=(*pod, *accounts),
        holders=pod,
        completed=named,
        labels=("metadata",) if pod else (),
    )
    said = (*pod, *(f"{path}.{name}" for path in named for name in ("podTemplate", "taskPodTemplate") if path.endswith("taskRunSpecs[]")))
    template = Place(
        path="",
        shape=Shape.CONTAINER,
        partial=Partial.POD,
        fields={name: name for name in _TEKTON_POD},  # its variables are every step's
    )
    return *(replace(task, path=path) for path in tasks), *(replace(template, path=path) for path in said)


KINDS: tuple[Kind, ...] = (
    row(
        "kubeflow.org",
        "ScheduledWorkflow",
        "scheduledworkflows",
        *_argo("spec.workflow.spec"),
        scale=("spec.enabled", "spec.maxConcurrency"),
    ),
    row("tekton.dev", "Task", "tasks", *_tekton("spec")),
    row("tekton.dev", "StepAction", "stepactions", *containers("spec", partial=Partial.POD)),
    row(
        "tekton.dev",
        "TaskRun",
        "taskruns",
        *_tekton(
            "spec.taskSpec",
            pod=("spec.podTemplate",),
            accounts=("spec",),
            named=below("spec", "computeResources", "stepSpecs", "sidecarSpecs", "stepOverrides", "sidecarOverrides"),
        ),
    ),
    row("triggers.tekton.dev", "TriggerTemplate", "triggertemplates", *objects("spec.resourcetemplates[]")),
    row(
        "triggers.tekton.dev",
        "EventListener",
        "eventlisteners",
        *templates("spec.resources.kubernetesResource.spec.template", partial=Partial.POD),  # the controller says the image
        scale=("spec.resources.kubernetesResource.replicas",),
    ),
    row(
        "keda.sh",
        "ScaledJob",
        "scaledjobs",
        *templates("spec.jobTargetRef.template"),
        scale=("spec.minReplicaCount", "spec.maxReplicaCount"),
    ),
    row("tekton.dev", "Pipeline", "pipelines", *_tekton("spec.tasks[].taskSpec", "spec.finally[].taskSpec")),
    row(
        "tekton.dev",
        "PipelineRun",
        "pipelineruns",
        *_tekton(
            "spec.pipelineSpec.tasks[].taskSpec",
            "spec.pipelineSpec.finally[].taskSpec",
            pod=("spec.taskRunTemplate.podTemplate", "spec.podTemplate"),
            accounts=("spec.taskRunTemplate", "spec"),
            named=("spec.taskRunSpecs[]",),
        ),
    ),
    row("argoproj.io", "Workflow", "workflows", *_argo("spec"), scale=("spec.suspend", "spec.parallelism")),
    row("argoproj.io", "WorkflowTemplate", "workflowtemplates", *_argo("spec")),
    row("argoproj.io", "ClusterWorkflowTemplate", "clusterworkflowtemplates", *_argo("spec"), namespaced=False),
    row("argoproj.io", "CronWorkflow", "cronworkflows", *_argo("spec.workflowSpec"), scale=("spec.suspend",)),
    row("argoproj.io", "Rollout", "rollouts", *templates("spec.template"), scale=("spec.replicas", "spec.paused", "spec.restartAt")),
    row("argoproj.io", "Experiment", "experiments", *templates("spec.templates[].template"), scale=("spec.templates[].replicas",)),
    row("argoproj.io", "AnalysisTemplate", "analysistemplates", *templates(_ANALYSIS)),
    row("argoproj.io", "ClusterAnalysisTemplate", "clusteranalysistemplates", *templates(_ANALYSIS), namespaced=False),
    row("argoproj.io", "AnalysisRun", "analysisruns", *templates(_ANALYSIS)),
    row("argoproj.io", "Sensor", "sensors", _argo_events(), *_argo_triggers(), scale=("spec.replicas",)),
    row("argoproj.io", "EventSource", "eventsources", _argo_events(), scale=("spec.replicas",)),
    row("numaflow.numaproj.io", "Pipeline", "pipelines", *_numaflow("spec"), scale=("spec.vertices[].scale", "spec.lifecycle")),
    row(
        "numaflow.numaproj.io",
        "ServingPipeline",
        "servingpipelines",
        replace(_VERTEX, path="spec.serving", lone=("store.container",)),
        *containers("spec.serving.containerTemplate", partial=Partial.POD),
        *_numaflow("spec.pipeline"),
        scale=("spec.serving.replicas", "spec.pipeline.vertices[].scale", "spec.pipeline.lifecycle"),
    ),
    *(
        row(
            "numaflow.numaproj.io",
            kind,
            plural,
            replace(_VERTEX, path="spec"),
            *containers(*below("spec", *_NUMA_CONTAINERS), partial=Partial.POD),
            *specs("spec.daemonTemplate", partial=Partial.POD),
            *containers(*below("spec.daemonTemplate", *_NUMA_CONTAINERS[:2]), partial=Partial.POD),
            scale=("spec.replicas", "spec.scale", "spec.lifecycle"),
        )
        for kind, plural in (("MonoVertex", "monovertices"), ("Vertex", "vertices"))
    ),
    row(
        "numaflow.numaproj.io",
        "InterStepBufferService",
        "interstepbufferservices",
        *specs("spec.jetstream", partial=Partial.POD),
        *containers(
            *below("spec.jetstream", "containerTemplate", "reloaderContainerTemplate", "metricsContainerTemplate"), partial=Partial.POD
        ),
        scale=("spec.jetstream.replicas",),
    ),
)

"""The table of kinds: where, in each, pods are described, and how its operator composes them. Pure data; a new kind is one row.

A path names fields from the root; `[]` after a name goes through a list (`[][]` through one of lists), `*` through all values of a map.
`Shape` says what stands there, and the other fields of a `Place` how the operator makes a pod of it.
Fields of scale say how many and when, never what: an update of them alone is not judged again.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from mlwarden.model.workload import Json, Partial


class Shape(StrEnum):
    """What a path leads to: a pod template (metadata and spec), a bare pod spec, a single container, or an object to be made."""

    TEMPLATE = "template"
    SPEC = "spec"
    CONTAINER = "container"
    OBJECT = "object"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a kind where a pod is described, and how its operator makes the pod of it. Most need no more than the first two.

    Attributes:
        path: from the root of the object.
        shape: what stands there.
        partial: what of the pod others may still say (a runtime, a preset): of that only what is set here can fail.
        flag: path of what says that the operator makes this pod, whether or not anything is written here; without it nobody knows.
        lone: paths below the place of what is one container each, beside its lists (`container` and `script` of an Argo template).
        main: what the operator calls a lone container that has no name; where this is `""`, the name of the field, or of the one above it.
        lone_partial: a lone container is laid over one of a runtime.
        lists: lists of containers under names of the kind's own: the steps to one below the place → the list of a pod spec it becomes.
        under: name of such a list → field beside it that lies under each of its containers (Tekton's `stepTemplate`).
        refers: fields of a container of such a list that name what says the rest of it.
        fields: field of a pod spec → what it is called here, where that differs; of a single container, all that is said beside it.
        body: field of a lone container, or of one of a list of the kind's own → what it is called here, where that differs.
        shared: fields of a lone container that stand elsewhere in the object: field, path from the root.
        adds: what the operator puts into a lone container that does not say it.
        sets: what the operator puts into the pod spec, unless it is said.
        lacks: fields of a pod spec that the kind has no field for: nobody is asked for them here.
        images: maps whose keys with this ending name images: path from the root, ending (`container.image` in `sparkConf`).
        unsaid: fields of a pod spec that the operator leaves out when they have this value.
        completed: paths of what says the rest of some of these pods by their names: where one is there, the pod is partial.
        inherits: paths of what pod fields come from that are not said here, nearest first; of their volumes those that are mounted.
        holders: paths of what would say the pod's fields where nothing does: the first that is there, or the first.
        defaults: path of what is laid under the whole place.
        exclusive: fields of the defaults that count only where the place has them, too.
        patch: field with a patch of the pod spec as text, here and where the place inherits from.
        operators: names of the operator's own containers, which a patch may name.
        metadata: field with the pod's metadata; `.` where labels and annotations stand beside the pod's own fields.
        labels: paths of what else the pod's labels and annotations come from, nearest first.
        models: paths below the place of URIs that may name an image (`oci://…`); so may the variable `STORAGE_URI` of its containers then.
    """

    path: str
    shape: Shape
    partial: Partial = Partial.NOTHING
    flag: str = ""
    lone: tuple[str, ...] = ()
    main: str = ""
    lone_partial: bool = False
    lists: tuple[tuple[tuple[str, ...], str], ...] = ()
    under: Mapping[str, str] = {}
    refers: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}
    body: Mapping[str, str] = {}
    shared: tuple[tuple[str, str], ...] = ()
    adds: Mapping[str, Json] = {}
    sets: Mapping[str, Json] = {}
    lacks: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    unsaid: tuple[tuple[str, Json], ...] = ()
    completed: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    defaults: str = ""
    exclusive: tuple[str, ...] = ()
    patch: str = ""
    operators: tuple[str, ...] = ()
    metadata: str = ""
    labels: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def composed(self) -> bool:
        """Whether the pod is more than what is written at this place."""
        said = self.lone, self.lists, self.fields, self.body, self.shared, self.adds, self.sets, self.images, self.lacks
        elsewhere = self.inherits, self.holders, self.completed, self.defaults, self.patch, self.models, self.metadata, self.labels
        return any(said) or any(elsewhere)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a kind, its plural resource name, where its pods are, where it says how many and when, and whether it has a namespace."""

    group: str
    kind: str
    resource: str
    places: tuple[Place, ...]
    scale: tuple[str, ...] = ()
    namespaced: bool = True


SCALE = ("spec.replicas", "spec.paused", "spec.suspend")
"""Fields of scale of a kind that is not in the table (Kubernetes API conventions, scale subresource; Kueue)."""


def _templates(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    return tuple(Place(path=path, shape=Shape.TEMPLATE, partial=partial) for path in paths)


def _specs(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    return tuple(Place(path=path, shape=Shape.SPEC, partial=partial) for path in paths)


def _containers(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    return tuple(Place(path=path, shape=Shape.CONTAINER, partial=partial) for path in paths)


def _objects(*paths: str) -> tuple[Place, ...]:
    return tuple(Place(path=path, shape=Shape.OBJECT) for path in paths)


def _row(group: str, kind: str, resource: str, *places: Place, scale: tuple[str, ...] = (), namespaced: bool = True) -> Kind:
    return Kind(group=group, kind=kind, resource=resource, places=places, scale=scale, namespaced=namespaced)


def _below(base: str, *fields: str) -> tuple[str, ...]:
    return tuple(f"{base}.{field}" for field in fields)


def _replicas(name: str) -> tuple[Place, ...]:
    return _templates(f"spec.{name}.*.template")


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
    return _objects(*(f"{trigger}.template.{how}.source.resource" for trigger in triggers for how in ("k8s", "argoWorkflow")))


_JOB = ("suspend", "parallelism", "completions")


def _training(name: str) -> tuple[str, ...]:
    return "spec.runPolicy.suspend", f"spec.{name}.*.replicas"


def _volcano(base: str) -> tuple[str, ...]:
    return f"{base}.minAvailable", *_below(f"{base}.tasks[]", "replicas", "minAvailable")


def _ray(base: str) -> tuple[str, ...]:
    return f"{base}.suspend", *_below(f"{base}.workerGroupSpecs[]", "replicas", "minReplicas", "maxReplicas", "suspend")


_RAY = ("headGroupSpec.template", "workerGroupSpecs[].template")
_SHUTDOWN = "spec.shutdownTime", "spec.shutdownPolicy"
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


def _ray_autoscaler(base: str) -> Place:
    """Source: kuberay, ray-operator/controllers/ray/common/pod.go (BuildAutoscalerContainer)."""
    return Place(
        path=f"{base}.autoscalerOptions",
        shape=Shape.CONTAINER,
        flag=f"{base}.enableInTreeAutoscaling",
        main="autoscaler",
        shared=(("image", f"{base}.headGroupSpec.template.spec.containers[].image"),),
        adds={"resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}},
        inherits=(f"{base}.headGroupSpec.template.spec",),
    )


def _ray_cluster(base: str) -> tuple[Place, ...]:
    return *_templates(*(f"{base}.{path}" for path in _RAY)), _ray_autoscaler(base)


def _kserve(part: str) -> Place:
    """Source: kserve, pkg/controller/v1beta1/inferenceservice: a model's container is laid over that of its runtime, by name."""
    return Place(
        path=f"spec.{part}",
        shape=Shape.SPEC,
        lone=_SERVERS,
        main="kserve-container",
        lone_partial=True,
        metadata=".",
        labels=("metadata",),
        models=("storageUris[].uri", *(f"{server}.{uri}" for server in _SERVERS for uri in ("storageUri", "storageUris[].uri"))),
    )


_SPARK_FIELDS = (
    *("affinity", "dnsConfig", "hostAliases", "hostNetwork", "nodeSelector", "priorityClassName", "schedulerName", "shareProcessNamespace"),
    *("terminationGracePeriodSeconds", "tolerations"),
)


def _spark(spec: str) -> tuple[Place, ...]:
    """Source: kubeflow/spark-operator, api/v1beta2 (SparkPodSpec) and internal/webhook; Spark works resources out of cores and memory."""

    def half(role: str) -> tuple[Place, ...]:
        whole = Place(
            path=f"{spec}.{role}",
            shape=Shape.CONTAINER,
            main=f"spark-kubernetes-{role}",
            fields={
                "securityContext": "podSecurityContext",
                "serviceAccountName": "serviceAccount",
                **{each: each for each in _SPARK_FIELDS},
            },
            lists=((("sidecars",), "containers"),),
            shared=(("image", f"{spec}.image"),),
            images=((f"{spec}.sparkConf", ".container.image"),),
            adds={"resources": {"requests": {"cpu": "1", "memory": "1408Mi"}, "limits": {"memory": "1408Mi"}}},
            inherits=(spec,),
            lacks=("automountServiceAccountToken",),
            metadata=".",
        )
        return whole, *_templates(f"{spec}.{role}.template", partial=Partial.POD)

    return *_specs(spec, partial=Partial.POD), *half("driver"), *half("executor")


def _spark_images(spec: str) -> Place:
    """Source: apache/spark-kubernetes-operator, SparkClusterResourceSpec.java and SparkAppResourceSpecFactory.java."""
    return Place(path=spec, shape=Shape.SPEC, partial=Partial.POD, main="spark", images=((f"{spec}.sparkConf", ".container.image"),))


def _llm(spec: str) -> tuple[Place, ...]:
    """Source: kserve, pkg/apis/serving/v1alpha2/llm_inference_service_types.go: presets and baseRefs lie beneath, by container name."""
    scheduler = "router.scheduler.template", "router.scheduler.tokenizer.template"
    parts = "template", "worker", "prefill.template", "prefill.worker", *scheduler
    model = Place(path=spec, shape=Shape.SPEC, partial=Partial.POD, models=("model.uri", "model.lora.adapters[].uri"))
    return model, *_specs(*_below(spec, *parts), partial=Partial.POD)


def _collector(path: str) -> Place:
    """Source: kubeflow/katib, pkg/webhook/v1beta1/pod (getMetricsCollectorContainer): a container of the trial's pods."""
    return Place(path=path, shape=Shape.CONTAINER, lacks=("automountServiceAccountToken", "securityContext"))


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
        *_containers(*_below(f"{spec}.vertices[]", *_NUMA_CONTAINERS), partial=Partial.POD),
        *_specs(f"{spec}.templates.*", partial=Partial.POD),
        *_containers(*_below(f"{spec}.templates.*", *_NUMA_CONTAINERS[:2]), partial=Partial.POD),
    )


def _dynamo(path: str) -> tuple[Place, ...]:
    """Source: ai-dynamo/dynamo, deploy/operator/api/v1alpha1 (DynamoComponentDeploymentSharedSpec, ExtraPodSpec)."""
    return (
        Place(path=path, shape=Shape.CONTAINER, partial=Partial.POD, main="main", body={"env": "envs"}, metadata="."),
        Place(path=f"{path}.extraPodSpec", shape=Shape.SPEC, partial=Partial.POD, lone=("mainContainer",), main="main"),
    )


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
    *_containers(
        "spec.podTemplate.options.imageConfig.values[].spec", "spec.podTemplate.options.podConfig.values[].spec", partial=Partial.POD
    ),
)
"""Source: kubeflow/notebooks, notebooks-v2, workspaces/controller/api/v1beta1/workspacekind_types.go."""


_VLLM = "production-stack.vllm.ai"


def _vllm() -> Place:
    """Source: vllm-project/production-stack, operator/api/v1alpha1: there are no security contexts to set."""
    return Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="main", fields={"serviceAccountName": "serviceAccountName"})


_OME = Place(path="", shape=Shape.SPEC, partial=Partial.POD, lone=("runner",), main="ome-container", metadata=".")
"""Source: sgl-project/ome, pkg/apis/ome/v1beta1/inference_service.go: a runtime lies beneath, by container name."""


def _ome(spec: str, *parts: str) -> tuple[Place, ...]:
    below = "leader", "worker"
    paths = (f"{spec}.{part}{inner}" for part in parts for inner in ("", *(f".{each}" for each in below)))
    return tuple(replace(_OME, path=path) for path in paths)


_OME_RUNTIME = *_specs("spec", "spec.workers", partial=Partial.POD), *_ome("spec", "engineConfig", "decoderConfig", "routerConfig")
_AIBRIX = "orchestration.aibrix.ai"
_KV_CACHE = "spec.cache", "spec.watcher", "spec.metadata.redis.runtime", "spec.metadata.etcd.runtime"
_NIM_SOURCES = "ngc", "dataStore", "hf"


def _nim(path: str) -> Place:
    """Source: NVIDIA/k8s-nim-operator, api/apps/v1alpha1 and manifests/deployment.yaml: there are no security contexts to set."""
    pod = "affinity", "nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "tolerations"
    return Place(
        path=path,
        shape=Shape.CONTAINER,
        partial=Partial.POD,
        main="nim",
        lists=((("sidecarContainers",), "containers"),),
        fields={name: name for name in pod},
        metadata=".",
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


_TRAINER_RUNTIME = "spec.template.spec.replicatedJobs[].template.spec.template"
_TRAINER_PATCH = f"spec.runtimePatches[].trainingRuntimeSpec.{_TRAINER_RUNTIME.removeprefix('spec.')}"

KINDS: tuple[Kind, ...] = (
    _row("", "Pod", "pods", *_templates("")),
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
        *(_kserve(part) for part in _PREDICTOR_PARTS),
        *_specs("spec.predictor.workerSpec", partial=Partial.CONTAINERS),
        scale=tuple(path for part in _PREDICTOR_PARTS for path in _below(f"spec.{part}", "minReplicas", "maxReplicas", "scaleTarget")),
    ),
    _row("serving.kserve.io", "ServingRuntime", "servingruntimes", *_specs("spec", "spec.workerSpec", partial=Partial.POD)),
    _row(
        "serving.kserve.io",
        "ClusterServingRuntime",
        "clusterservingruntimes",
        *_specs("spec", "spec.workerSpec", partial=Partial.POD),
        namespaced=False,
    ),
    _row(
        "serving.kserve.io",
        "ClusterStorageContainer",
        "clusterstoragecontainers",
        *_containers("spec.container", partial=Partial.POD),
        namespaced=False,
    ),
    _row(
        "serving.kserve.io", "LLMInferenceService", "llminferenceservices", *_llm("spec"), scale=("spec.replicas", "spec.prefill.replicas")
    ),
    _row("serving.kserve.io", "LLMInferenceServiceConfig", "llminferenceserviceconfigs", *_llm("spec")),
    _row(
        "machinelearning.seldon.io",
        "SeldonDeployment",
        "seldondeployments",
        *_templates("spec.predictors[].componentSpecs[]", partial=Partial.CONTAINERS),  # laid over a packaged server's container, by name
        *_containers("spec.predictors[].explainer.containerSpec", partial=Partial.POD),
        scale=("spec.replicas", "spec.predictors[].replicas"),
    ),
    _row("mlops.seldon.io", "Server", "servers", *_specs("spec.podSpec", partial=Partial.POD), scale=("spec.replicas",)),
    _row("mlops.seldon.io", "ServerConfig", "serverconfigs", *_specs("spec.podSpec", partial=Partial.POD)),
    _row("mlops.seldon.io", "SeldonConfig", "seldonconfigs", *_specs("spec.components[].podSpec", partial=Partial.POD)),
    _row(
        "mlops.seldon.io",
        "SeldonRuntime",
        "seldonruntimes",
        *_specs("spec.overrides[].podSpec", partial=Partial.POD),
        scale=("spec.overrides[].replicas", "spec.overrides[].disable"),
    ),
    _row("kubeflow.org", "Notebook", "notebooks", *_templates("spec.template")),
    _row("kubeflow.org", "PyTorchJob", "pytorchjobs", *_replicas("pytorchReplicaSpecs"), scale=_training("pytorchReplicaSpecs")),
    _row("kubeflow.org", "TFJob", "tfjobs", *_replicas("tfReplicaSpecs"), scale=_training("tfReplicaSpecs")),
    _row("kubeflow.org", "MPIJob", "mpijobs", *_replicas("mpiReplicaSpecs"), scale=_training("mpiReplicaSpecs")),
    _row("kubeflow.org", "XGBoostJob", "xgboostjobs", *_replicas("xgbReplicaSpecs"), scale=_training("xgbReplicaSpecs")),
    _row("kubeflow.org", "PaddleJob", "paddlejobs", *_replicas("paddleReplicaSpecs"), scale=_training("paddleReplicaSpecs")),
    _row("kubeflow.org", "JAXJob", "jaxjobs", *_replicas("jaxReplicaSpecs"), scale=_training("jaxReplicaSpecs")),
    _row(
        "kubeflow.org",
        "Experiment",
        "experiments",
        *_objects("spec.trialTemplate.trialSpec"),
        _collector("spec.metricsCollectorSpec.collector.customCollector"),
        scale=_below("spec", "parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"),
    ),
    _row("kubeflow.org", "Trial", "trials", *_objects("spec.runSpec"), _collector("spec.metricsCollector.collector.customCollector")),
    _row("kubeflow.org", "WorkspaceKind", "workspacekinds", *_WORKSPACE_KIND, namespaced=False),
    _row(
        "kubeflow.org",
        "ScheduledWorkflow",
        "scheduledworkflows",
        *_argo("spec.workflow.spec"),
        scale=("spec.enabled", "spec.maxConcurrency"),
    ),
    _row("trainer.kubeflow.org", "TrainingRuntime", "trainingruntimes", *_templates(_TRAINER_RUNTIME, partial=Partial.POD)),
    _row(
        "trainer.kubeflow.org",
        "ClusterTrainingRuntime",
        "clustertrainingruntimes",
        *_templates(_TRAINER_RUNTIME, partial=Partial.POD),
        namespaced=False,
    ),
    _row(
        "trainer.kubeflow.org",
        "TrainJob",
        "trainjobs",
        Place(path="spec.trainer", shape=Shape.CONTAINER, partial=Partial.POD, body={"resources": "resourcesPerNode"}),
        *_specs("spec.podSpecOverrides[]", "spec.podSpecOverrides[].spec", partial=Partial.POD),
        *_templates("spec.podTemplateOverrides[]", _TRAINER_PATCH, partial=Partial.POD),
        scale=("spec.suspend", "spec.trainer.numNodes"),
    ),
    _row("batch.volcano.sh", "Job", "jobs", *_templates("spec.tasks[].template"), scale=_volcano("spec")),
    _row(
        "batch.volcano.sh",
        "CronJob",
        "cronjobs",
        *_templates("spec.jobTemplate.spec.tasks[].template"),
        scale=("spec.suspend", *_volcano("spec.jobTemplate.spec")),
    ),
    _row("flow.volcano.sh", "JobTemplate", "jobtemplates", *_templates("spec.tasks[].template"), scale=_volcano("spec")),
    _row(
        "sparkoperator.k8s.io", "SparkApplication", "sparkapplications", *_spark("spec"), scale=("spec.suspend", "spec.executor.instances")
    ),
    _row(
        "sparkoperator.k8s.io",
        "ScheduledSparkApplication",
        "scheduledsparkapplications",
        *_spark("spec.template"),
        scale=("spec.suspend", "spec.template.executor.instances"),
    ),
    _row(
        "spark.apache.org",
        "SparkApplication",
        "sparkapplications",
        *_templates("spec.driverSpec.podTemplateSpec", "spec.executorSpec.podTemplateSpec", partial=Partial.POD),
        _spark_images("spec"),
    ),
    _row(
        "spark.apache.org",
        "SparkCluster",
        "sparkclusters",
        *_templates(*(f"spec.{role}Spec.statefulSetSpec.template" for role in ("master", "worker")), partial=Partial.CONTAINERS),
        _spark_images("spec"),
        scale=_below("spec.clusterTolerations.instanceConfig", "initWorkers", "minWorkers", "maxWorkers"),
    ),
    _row("ray.io", "RayCluster", "rayclusters", *_ray_cluster("spec"), scale=_ray("spec")),
    _row(
        "ray.io",
        "RayJob",
        "rayjobs",
        *_ray_cluster("spec.rayClusterSpec"),
        *_templates("spec.submitterPodTemplate"),
        scale=("spec.suspend", *_ray("spec.rayClusterSpec")),
    ),
    _row(
        "ray.io",
        "RayCronJob",
        "raycronjobs",
        *_ray_cluster("spec.jobTemplate.rayClusterSpec"),
        *_templates("spec.jobTemplate.submitterPodTemplate"),
        scale=("spec.suspend", "spec.jobTemplate.suspend", *_ray("spec.jobTemplate.rayClusterSpec")),
    ),
    _row(
        "ray.io",
        "RayService",
        "rayservices",
        *_ray_cluster("spec.rayClusterConfig"),
        *_ray_cluster("spec.rayClusterSpec"),
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
    _row("tekton.dev", "Task", "tasks", *_tekton("spec")),
    _row("tekton.dev", "StepAction", "stepactions", *_containers("spec", partial=Partial.POD)),
    _row(
        "tekton.dev",
        "TaskRun",
        "taskruns",
        *_tekton(
            "spec.taskSpec",
            pod=("spec.podTemplate",),
            accounts=("spec",),
            named=_below("spec", "computeResources", "stepSpecs", "sidecarSpecs", "stepOverrides", "sidecarOverrides"),
        ),
    ),
    _row("triggers.tekton.dev", "TriggerTemplate", "triggertemplates", *_objects("spec.resourcetemplates[]")),
    _row(
        "triggers.tekton.dev",
        "EventListener",
        "eventlisteners",
        *_templates("spec.resources.kubernetesResource.spec.template", partial=Partial.POD),  # the controller says the image
        scale=("spec.resources.kubernetesResource.replicas",),
    ),
    _row("workload.codeflare.dev", "AppWrapper", "appwrappers", *_objects("spec.components[].template"), scale=("spec.suspend",)),
    _row(
        "keda.sh",
        "ScaledJob",
        "scaledjobs",
        *_templates("spec.jobTargetRef.template"),
        scale=("spec.minReplicaCount", "spec.maxReplicaCount"),
    ),
    _row("tekton.dev", "Pipeline", "pipelines", *_tekton("spec.tasks[].taskSpec", "spec.finally[].taskSpec")),
    _row(
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
    _row("argoproj.io", "Workflow", "workflows", *_argo("spec"), scale=("spec.suspend", "spec.parallelism")),
    _row("argoproj.io", "WorkflowTemplate", "workflowtemplates", *_argo("spec")),
    _row("argoproj.io", "ClusterWorkflowTemplate", "clusterworkflowtemplates", *_argo("spec"), namespaced=False),
    _row("argoproj.io", "CronWorkflow", "cronworkflows", *_argo("spec.workflowSpec"), scale=("spec.suspend",)),
    _row(
        "disaggregatedset.x-k8s.io",
        "DisaggregatedSet",
        "disaggregatedsets",
        *_templates(*_below("spec.roles[].spec.leaderWorkerTemplate", "leaderTemplate", "workerTemplate")),
        scale=("spec.slices", "spec.roles[].scaling", "spec.roles[].spec.replicas"),
    ),
    _row("argoproj.io", "Rollout", "rollouts", *_templates("spec.template"), scale=("spec.replicas", "spec.paused", "spec.restartAt")),
    _row("argoproj.io", "Experiment", "experiments", *_templates("spec.templates[].template"), scale=("spec.templates[].replicas",)),
    _row("argoproj.io", "AnalysisTemplate", "analysistemplates", *_templates(_ANALYSIS)),
    _row("argoproj.io", "ClusterAnalysisTemplate", "clusteranalysistemplates", *_templates(_ANALYSIS), namespaced=False),
    _row("argoproj.io", "AnalysisRun", "analysisruns", *_templates(_ANALYSIS)),
    _row("argoproj.io", "Sensor", "sensors", _argo_events(), *_argo_triggers(), scale=("spec.replicas",)),
    _row("argoproj.io", "EventSource", "eventsources", _argo_events(), scale=("spec.replicas",)),
    *(
        _row(
            _AIBRIX,
            f"RayCluster{kind}",
            f"raycluster{kind.lower()}s",
            *_ray_cluster("spec.template.spec"),
            scale=("spec.replicas", "spec.paused"),
        )
        for kind in ("Fleet", "ReplicaSet")
    ),
    _row(
        _AIBRIX,
        "StormService",
        "stormservices",
        *_templates("spec.template.spec.roles[].template"),
        scale=("spec.replicas", "spec.paused", "spec.template.spec.roles[].replicas"),
    ),
    _row(_AIBRIX, "RoleSet", "rolesets", *_templates("spec.roles[].template"), scale=("spec.roles[].replicas",)),
    _row(_AIBRIX, "PodSet", "podsets", *_templates("spec.template"), scale=("spec.podGroupSize",)),
    _row(
        _AIBRIX,
        "KVCache",
        "kvcaches",
        *_containers(*_KV_CACHE, partial=Partial.POD),
        *_templates(*(f"{part}.template" for part in _KV_CACHE), partial=Partial.POD),
        scale=tuple(f"{part}.replicas" for part in _KV_CACHE),
    ),
    _row(
        "ome.io",
        "InferenceService",
        "inferenceservices",
        *_ome("spec", "engine", "decoder", "router"),
        replace(_OME, path="spec.predictor", lone=("model",)),
        *_specs("spec.predictor.workerSpec", partial=Partial.POD),
        scale=tuple(
            f"spec.{part}.{name}" for part in ("engine", "decoder", "router", "predictor") for name in ("minReplicas", "maxReplicas")
        ),
    ),
    _row("ome.io", "ServingRuntime", "servingruntimes", *_OME_RUNTIME),
    _row("ome.io", "ClusterServingRuntime", "clusterservingruntimes", *_OME_RUNTIME, namespaced=False),
    _row(
        "ome.io",
        "BenchmarkJob",
        "benchmarkjobs",
        Place(
            path="spec.podOverride",
            shape=Shape.CONTAINER,
            partial=Partial.POD,
            fields={name: name for name in ("affinity", "nodeSelector", "tolerations", "volumes")},
        ),
    ),
    _row(
        "nvidia.com",
        "DynamoGraphDeployment",
        "dynamographdeployments",
        Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="all", body={"env": "envs"}, metadata="."),
        *_dynamo("spec.services.*"),
        *_templates("spec.components[].podTemplate", partial=Partial.POD),
        scale=("spec.services.*.replicas", "spec.components[].replicas"),
    ),
    _row(
        "nvidia.com",
        "DynamoComponentDeployment",
        "dynamocomponentdeployments",
        *_dynamo("spec"),
        *_templates("spec.podTemplate", partial=Partial.POD),
        scale=("spec.replicas",),
    ),
    _row("numaflow.numaproj.io", "Pipeline", "pipelines", *_numaflow("spec"), scale=("spec.vertices[].scale", "spec.lifecycle")),
    _row(
        "numaflow.numaproj.io",
        "ServingPipeline",
        "servingpipelines",
        replace(_VERTEX, path="spec.serving", lone=("store.container",)),
        *_containers("spec.serving.containerTemplate", partial=Partial.POD),
        *_numaflow("spec.pipeline"),
        scale=("spec.serving.replicas", "spec.pipeline.vertices[].scale", "spec.pipeline.lifecycle"),
    ),
    *(
        _row(
            "numaflow.numaproj.io",
            kind,
            plural,
            replace(_VERTEX, path="spec"),
            *_containers(*_below("spec", *_NUMA_CONTAINERS), partial=Partial.POD),
            *_specs("spec.daemonTemplate", partial=Partial.POD),
            *_containers(*_below("spec.daemonTemplate", *_NUMA_CONTAINERS[:2]), partial=Partial.POD),
            scale=("spec.replicas", "spec.scale", "spec.lifecycle"),
        )
        for kind, plural in (("MonoVertex", "monovertices"), ("Vertex", "vertices"))
    ),
    _row(
        "numaflow.numaproj.io",
        "InterStepBufferService",
        "interstepbufferservices",
        *_specs("spec.jetstream", partial=Partial.POD),
        *_containers(
            *_below("spec.jetstream", "containerTemplate", "reloaderContainerTemplate", "metricsContainerTemplate"), partial=Partial.POD
        ),
        scale=("spec.jetstream.replicas",),
    ),
    _row(
        _VLLM,
        "VLLMRuntime",
        "vllmruntimes",
        *_containers("spec.deploymentConfig", "spec.deploymentConfig.sidecarConfig", "spec.vllmConfig", partial=Partial.POD),
        scale=("spec.deploymentConfig.replicas", "spec.autoscalingConfig"),
    ),
    _row(_VLLM, "VLLMRouter", "vllmrouters", _vllm(), scale=("spec.replicas",)),
    _row(_VLLM, "CacheServer", "cacheservers", _vllm(), scale=("spec.replicas",)),
    *(
        _row("apps.nvidia.com", f"Nemo{kind}", f"nemo{kind.lower()}s", _nim("spec"), scale=("spec.replicas", "spec.scale"))
        for kind in ("Customizer", "Datastore", "Entitystore", "Evaluator", "Guardrail")
    ),
    _row("apps.nvidia.com", "NIMService", "nimservices", _nim("spec"), scale=("spec.replicas", "spec.scale")),
    _row("apps.nvidia.com", "NIMPipeline", "nimpipelines", _nim("spec.services[].spec"), scale=("spec.services[].spec.replicas",)),
    _row(
        "apps.nvidia.com",
        "NIMCache",
        "nimcaches",
        replace(_nim("spec"), metadata=""),
        *(replace(_nim(f"spec.source.{source}"), fields={}, body={"image": "modelPuller"}, metadata="") for source in _NIM_SOURCES),
    ),
    _row("apps.nvidia.com", "NIMBuild", "nimbuilds", _nim("spec")),
    _row(
        "agents.x-k8s.io",
        "Sandbox",
        "sandboxes",
        *_templates("spec.podTemplate"),
        scale=("spec.replicas", "spec.operatingMode", *_SHUTDOWN),
    ),
    _row(
        "extensions.agents.x-k8s.io",
        "SandboxTemplate",
        "sandboxtemplates",
        Place(path="spec.podTemplate", shape=Shape.TEMPLATE, sets={"automountServiceAccountToken": False}),
    ),
    _row(
        "extensions.agents.x-k8s.io",
        "SandboxClaim",
        "sandboxclaims",
        # its variables and labels become those of a pod that a template says
        Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="sandbox", metadata="additionalPodMetadata"),
        scale=("spec.lifecycle",),
    ),
    _row("serving.knative.dev", "Service", "services", *_templates("spec.template")),
    _row("serving.knative.dev", "Configuration", "configurations", *_templates("spec.template")),
    _row("serving.knative.dev", "Revision", "revisions", *_specs("spec")),
)

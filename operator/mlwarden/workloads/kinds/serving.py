"""Kinds that serve models: KServe, Seldon, Knative, NIM, Dynamo, OME, AIBrix, vLLM, LeaderWorkerSet."""

from msgspec.structs import replace

from mlwarden.model.workload import Partial
from mlwarden.workloads.kinds.place import Kind, Place, Shape, below, containers, row, specs, templates

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


def _llm(spec: str) -> tuple[Place, ...]:
    """Source: kserve, pkg/apis/serving/v1alpha2/llm_inference_service_types.go: presets and baseRefs lie beneath, by container name."""
    scheduler = "router.scheduler.template", "router.scheduler.tokenizer.template"
    parts = "template", "worker", "prefill.template", "prefill.worker", *scheduler
    model = Place(path=spec, shape=Shape.SPEC, partial=Partial.POD, models=("model.uri", "model.lora.adapters[].uri"))
    return model, *specs(*below(spec, *parts), partial=Partial.POD)


def _dynamo(path: str) -> tuple[Place, ...]:
    """Source: ai-dynamo/dynamo, deploy/operator/api/v1alpha1 (DynamoComponentDeploymentSharedSpec, ExtraPodSpec)."""
    return (
        Place(path=path, shape=Shape.CONTAINER, partial=Partial.POD, main="main", body={"env": "envs"}, metadata="."),
        Place(path=f"{path}.extraPodSpec", shape=Shape.SPEC, partial=Partial.POD, lone=("mainContainer",), main="main"),
    )


_VLLM = "production-stack.vllm.ai"


def _vllm() -> Place:
    """Source: vllm-project/production-stack, operator/api/v1alpha1: there are no security contexts to set."""
    return Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="main", fields={"serviceAccountName": "serviceAccountName"})


_OME = Place(path="", shape=Shape.SPEC, partial=Partial.POD, lone=("runner",), main="ome-container", metadata=".")
"""Source: sgl-project/ome, pkg/apis/ome/v1beta1/inference_service.go: a runtime lies beneath, by container name."""


def _ome(spec: str, *parts: str) -> tuple[Place, ...]:
    nodes = "leader", "worker"
    paths = (f"{spec}.{part}{inner}" for part in parts for inner in ("", *(f".{each}" for each in nodes)))
    return tuple(replace(_OME, path=path) for path in paths)


_OME_RUNTIME = *specs("spec", "spec.workers", partial=Partial.POD), *_ome("spec", "engineConfig", "decoderConfig", "routerConfig")


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


KINDS: tuple[Kind, ...] = (
    row(
        "serving.kserve.io",
        "InferenceService",
        "inferenceservices",
        *(_kserve(part) for part in _PREDICTOR_PARTS),
        *specs("spec.predictor.workerSpec", partial=Partial.CONTAINERS),
        scale=tuple(path for part in _PREDICTOR_PARTS for path in below(f"spec.{part}", "minReplicas", "maxReplicas", "scaleTarget")),
    ),
    row("serving.kserve.io", "ServingRuntime", "servingruntimes", *specs("spec", "spec.workerSpec", partial=Partial.POD)),
    row(
        "serving.kserve.io",
        "ClusterServingRuntime",
        "clusterservingruntimes",
        *specs("spec", "spec.workerSpec", partial=Partial.POD),
        namespaced=False,
    ),
    row(
        "serving.kserve.io",
        "ClusterStorageContainer",
        "clusterstoragecontainers",
        *containers("spec.container", partial=Partial.POD),
        namespaced=False,
    ),
    row(
        "serving.kserve.io", "LLMInferenceService", "llminferenceservices", *_llm("spec"), scale=("spec.replicas", "spec.prefill.replicas")
    ),
    row("serving.kserve.io", "LLMInferenceServiceConfig", "llminferenceserviceconfigs", *_llm("spec")),
    row(
        "machinelearning.seldon.io",
        "SeldonDeployment",
        "seldondeployments",
        *templates("spec.predictors[].componentSpecs[]", partial=Partial.CONTAINERS),  # laid over a packaged server's container, by name
        *containers("spec.predictors[].explainer.containerSpec", partial=Partial.POD),
        scale=("spec.replicas", "spec.predictors[].replicas"),
    ),
    row("mlops.seldon.io", "Server", "servers", *specs("spec.podSpec", partial=Partial.POD), scale=("spec.replicas",)),
    row("mlops.seldon.io", "ServerConfig", "serverconfigs", *specs("spec.podSpec", partial=Partial.POD)),
    row("mlops.seldon.io", "SeldonConfig", "seldonconfigs", *specs("spec.components[].podSpec", partial=Partial.POD)),
    row(
        "mlops.seldon.io",
        "SeldonRuntime",
        "seldonruntimes",
        *specs("spec.overrides[].podSpec", partial=Partial.POD),
        scale=("spec.overrides[].replicas", "spec.overrides[].disable"),
    ),
    row(
        "leaderworkerset.x-k8s.io",
        "LeaderWorkerSet",
        "leaderworkersets",
        *templates("spec.leaderWorkerTemplate.leaderTemplate", "spec.leaderWorkerTemplate.workerTemplate"),
        scale=("spec.replicas",),
    ),
    row(
        "disaggregatedset.x-k8s.io",
        "DisaggregatedSet",
        "disaggregatedsets",
        *templates(*below("spec.roles[].spec.leaderWorkerTemplate", "leaderTemplate", "workerTemplate")),
        scale=("spec.slices", "spec.roles[].scaling", "spec.roles[].spec.replicas"),
    ),
    row(
        _AIBRIX,
        "StormService",
        "stormservices",
        *templates("spec.template.spec.roles[].template"),
        scale=("spec.replicas", "spec.paused", "spec.template.spec.roles[].replicas"),
    ),
    row(_AIBRIX, "RoleSet", "rolesets", *templates("spec.roles[].template"), scale=("spec.roles[].replicas",)),
    row(_AIBRIX, "PodSet", "podsets", *templates("spec.template"), scale=("spec.podGroupSize",)),
    row(
        _AIBRIX,
        "KVCache",
        "kvcaches",
        *containers(*_KV_CACHE, partial=Partial.POD),
        *templates(*(f"{part}.template" for part in _KV_CACHE), partial=Partial.POD),
        scale=tuple(f"{part}.replicas" for part in _KV_CACHE),
    ),
    row(
        "ome.io",
        "InferenceService",
        "inferenceservices",
        *_ome("spec", "engine", "decoder", "router"),
        replace(_OME, path="spec.predictor", lone=("model",)),
        *specs("spec.predictor.workerSpec", partial=Partial.POD),
        scale=tuple(
            f"spec.{part}.{name}" for part in ("engine", "decoder", "router", "predictor") for name in ("minReplicas", "maxReplicas")
        ),
    ),
    row("ome.io", "ServingRuntime", "servingruntimes", *_OME_RUNTIME),
    row("ome.io", "ClusterServingRuntime", "clusterservingruntimes", *_OME_RUNTIME, namespaced=False),
    row(
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
    row(
        "nvidia.com",
        "DynamoGraphDeployment",
        "dynamographdeployments",
        Place(path="spec", shape=Shape.CONTAINER, partial=Partial.POD, main="all", body={"env": "envs"}, metadata="."),
        *_dynamo("spec.services.*"),
        *templates("spec.components[].podTemplate", partial=Partial.POD),
        scale=("spec.services.*.replicas", "spec.components[].replicas"),
    ),
    row(
        "nvidia.com",
        "DynamoComponentDeployment",
        "dynamocomponentdeployments",
        *_dynamo("spec"),
        *templates("spec.podTemplate", partial=Partial.POD),
        scale=("spec.replicas",),
    ),
    row(
        _VLLM,
        "VLLMRuntime",
        "vllmruntimes",
        *containers("spec.deploymentConfig", "spec.deploymentConfig.sidecarConfig", "spec.vllmConfig", partial=Partial.POD),
        scale=("spec.deploymentConfig.replicas", "spec.autoscalingConfig"),
    ),
    row(_VLLM, "VLLMRouter", "vllmrouters", _vllm(), scale=("spec.replicas",)),
    row(_VLLM, "CacheServer", "cacheservers", _vllm(), scale=("spec.replicas",)),
    *(
        row("apps.nvidia.com", f"Nemo{kind}", f"nemo{kind.lower()}s", _nim("spec"), scale=("spec.replicas", "spec.scale"))
        for kind in ("Customizer", "Datastore", "Entitystore", "Evaluator", "Guardrail")
    ),
    row("apps.nvidia.com", "NIMService", "nimservices", _nim("spec"), scale=("spec.replicas", "spec.scale")),
    row("apps.nvidia.com", "NIMPipeline", "nimpipelines", _nim("spec.services[].spec"), scale=("spec.services[].spec.replicas",)),
    row(
        "apps.nvidia.com",
        "NIMCache",
        "nimcaches",
        replace(_nim("spec"), metadata=""),
        *(replace(_nim(f"spec.source.{source}"), fields={}, body={"image": "modelPuller"}, metadata="") for source in _NIM_SOURCES),
    ),
    row("apps.nvidia.com", "NIMBuild", "nimbuilds", _nim("spec")),
    row("serving.knative.dev", "Service", "services", *templates("spec.template")),
    row("serving.knative.dev", "Configuration", "configurations", *templates("spec.template")),
    row("serving.knative.dev", "Revision", "revisions", *specs("spec")),
)

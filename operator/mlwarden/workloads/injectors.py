"""The table of injectors: what the platform puts into pods, and what its configuration in the cluster says of it.

What an injector fills in for each pod (the model's address, credentials) stands in its row as what may be there.

What the row leaves free must not be a way to run something else. Arguments are data, names of variables are listed one by one
(`AWS_CONFIG_FILE` names a file that says which program to run, `PYTHONPATH` and `LD_PRELOAD` speak for themselves), and volumes are mounted
where data is expected.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec

from mlwarden.model.platform import Injected
from mlwarden.model.workload import Json, Role
from mlwarden.workloads.values import as_list, as_map

_CLOUD = (
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
)
"""Variables that webhooks of cloud providers add to every container."""


class Source(StrEnum):
    """Where in the cluster an injector's configuration is."""

    STORAGE_CONTAINERS = "ClusterStorageContainer"
    KSERVE = "inferenceservice-config"
    KNATIVE = "config-deployment"
    ISTIO = "istio-sidecar-injector"
    ARGO = "workflow-controller"


class Injector(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what one webhook or controller adds to pods.

    Attributes:
        name: of the row.
        who: adds it, for a person.
        container: the name of the container that it adds.
        roles: where in a pod it is added.
        sources: which configuration describes it; of several that do, any.
        described: the containers that one object of the configuration describes, each with what says so.
        arguments: whether these may be its arguments; None: only the described ones.
        fields: other fields that it fills in, each with what may stand there.
        variables: names of variables that it adds, beside the described ones.
        mounts: regular expressions of where it mounts volumes, beside the described ones.
        field: where its administrator writes fields of the container, after the source's name; `""`: it has no such field.
        instead: what the administrator can do where there is no such field.
        is_whole: the described container says all that policies ask for; the others get their security from the injector's code.
    """

    name: str
    who: str
    container: str
    roles: tuple[Role, ...]
    sources: tuple[Source, ...]
    described: Callable[[Source, Mapping[str, Json]], Iterator[tuple[str, Mapping[str, Json]]]]
    arguments: Callable[[Sequence[Json]], bool] | None = None
    fields: Mapping[str, Callable[[Json], bool]] = {}
    variables: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    field: str = ""
    instead: str = ""
    is_whole: bool = False


def _storage(source: Source, obj: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """KServe merges the ClusterStorageContainer that supports the address over what the ConfigMap says (`mergeContainerSpecs`)."""
    if source is Source.STORAGE_CONTAINERS:
        spec = as_map(obj.get("spec"))
        if obj.get("disabled") is not True and spec.get("workloadType", "initContainer") == "initContainer":
            yield f"{source} {as_map(obj.get('metadata')).get('name')}", as_map(spec.get("container"))
    else:
        image = _of_key(obj, "storageInitializer").get("image")
        if image:
            yield f"key storageInitializer of ConfigMap {source}", {"image": image}


def _model_and_path(arguments: Sequence[Json]) -> bool:
    """Addresses of models and where to put them, by turns."""
    return (
        0 < len(arguments) <= 200
        and len(arguments) % 2 == 0
        and all(isinstance(each, str) for each in arguments)
        and all("://" in address and not address.startswith("-") for address in arguments[::2])
        and all(re.fullmatch(r"/mnt/[A-Za-z0-9._/-]+", path) and ".." not in path for path in arguments[1::2])
    )


def _agent(source: Source, obj: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    yield f"key agent of ConfigMap {source}", {"image": _of_key(obj, "agent").get("image")}


def _queue(source: Source, obj: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    data = as_map(obj.get("data"))
    yield f"ConfigMap {source}", {"image": data.get("queue-sidecar-image") or data.get("queueSidecarImage")}


def _iptables(source: Source, obj: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """As its template writes it (injection-template.yaml): what it may is what it is for."""
    values = as_map(_of_key(obj, "values").get("global"))
    image = as_map(values.get("proxy_init")).get("image") or "proxyv2"
    if "/" not in str(image):
        image = f"{values.get('hub')}/{image}:{values.get('tag')}"
    security = {
        "allowPrivilegeEscalation": as_map(values.get("proxy")).get("privileged") is True,
        "privileged": False,
        "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
        "readOnlyRootFilesystem": False,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "runAsUser": 0,
    }
    if values.get("hub") and values.get("tag"):
        yield f"ConfigMap {source}", {"image": image, "securityContext": security}


def _executor(source: Source, obj: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """The image is an argument of Argo's controller."""
    for container in as_list(as_map(as_map(as_map(obj.get("spec")).get("template")).get("spec")), "containers"):
        arguments = [each for each in as_list(as_map(container), "args") if isinstance(each, str)]
        for each, following in pairwise([*arguments, ""]):
            image = following if each == "--executor-image" else each.partition("--executor-image=")[2]
            if image:
                yield f"Deployment {source}", {"image": image}


def _texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _starting(*words: str) -> Callable[[Json], bool]:
    """A list of these words and then flags with plain values."""

    def fits(value: Json) -> bool:
        if not _texts(value) or tuple(value[: len(words)]) != words:
            return False
        return all(re.fullmatch(r"(--?[A-Za-z_-]+(=[a-z0-9:,.*-]*)?|[A-Za-z0-9:,.*/_-]*)", each) for each in value[len(words) :])

    return fits


def _argoexec(word: str) -> Callable[[Json], bool]:
    """Argo's own program, told how much to log and nothing else."""

    def fits(value: Json) -> bool:
        if not _texts(value) or value[:2] != ["argoexec", word]:
            return False
        rest = value[2:]
        return len(rest) % 2 == 0 and all(
            flag in {"--loglevel", "--log-format", "--gloglevel"} and re.fullmatch("[a-z0-9]+", level)
            for flag, level in zip(rest[::2], rest[1::2], strict=True)
        )

    return fits


def _probe(value: Json) -> bool:
    """One that runs nothing in the container."""
    return isinstance(value, dict) and not value.get("exec")


def _ports(value: Json) -> bool:
    return isinstance(value, list)


_NETWORKED: Mapping[str, Callable[[Json], bool]] = {"ports": _ports, "readinessProbe": _probe, "startupProbe": _probe}
_QUEUE_VARIABLES = (
    "CONTAINER_CONCURRENCY",
    "ENABLE_HTTP2_AUTO_DETECTION",
    "ENABLE_HTTP_FULL_DUPLEX",
    "ENABLE_MULTI_CONTAINER_PROBES",
    "ENABLE_PROFILING",
    "HOST_IP",
    "METRICS_COLLECTOR_ADDRESS",
    "METRICS_DOMAIN",
    "OBSERVABILITY_CONFIG",
    "QUEUE_SERVING_PORT",
    "QUEUE_SERVING_TLS_PORT",
    "REVISION_IDLE_TIMEOUT_SECONDS",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
    "REVISION_TIMEOUT_SECONDS",
    "ROOT_CA",
    "SERVING_CONFIGURATION",
    "SERVING_ENABLE_PROBE_REQUEST_LOG",
    "SERVING_ENABLE_REQUEST_LOG",
    "SERVING_LOGGING_CONFIG",
    "SERVING_LOGGING_LEVEL",
    "SERVING_NAMESPACE",
    "SERVING_POD",
    "SERVING_POD_IP",
    "SERVING_READINESS_PROBE",
    "SERVING_REQUEST_LOG_TEMPLATE",
    "SERVING_REQUEST_METRICS_BACKEND",
    "SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS",
    "SERVING_REVISION",
    "SERVING_SERVICE",
    "SYSTEM_NAMESPACE",
    "TRACING_CONFIG_BACKEND",
    "TRACING_CONFIG_DEBUG",
    "TRACING_CONFIG_SAMPLE_RATE",
    "TRACING_CONFIG_ZIPKIN_ENDPOINT",
    "USER_PORT",
)
_EXECUTOR_VARIABLES = (
    "ARGO_CONTAINER_NAME",
    "ARGO_DEADLINE",
    "ARGO_INCLUDE_SCRIPT_OUTPUT",
    "ARGO_INSTANCE_ID",
    "ARGO_NODE_ID",
    "ARGO_POD_NAME",
    "ARGO_POD_UID",
    "ARGO_PROGRESS_FILE",
    "ARGO_PROGRESS_FILE_TICK_DURATION",
    "ARGO_PROGRESS_PATCH_TICK_DURATION",
    "ARGO_TEMPLATE",
    "ARGO_WORKFLOW_NAME",
    "ARGO_WORKFLOW_UID",
    "GODEBUG",
)


def _argo(container: str, role: Role) -> Injector:
    return Injector(
        name=f"argo-{container}",
        who="Argo Workflows",
        container=container,
        roles=(role,),
        sources=(Source.ARGO,),
        described=_executor,
        fields={"command": _argoexec(container)},
        variables=_EXECUTOR_VARIABLES,
        mounts=(r"/tmp", r"/var/run/argo(/[A-Za-z0-9._-]+)*", r"/argo(/[A-Za-z0-9._-]+)+", r"/mainctrfs(/[A-Za-z0-9._-]+)*"),  # noqa: S108
        instead="key executor of ConfigMap workflow-controller-configmap",
    )


INJECTORS: tuple[Injector, ...] = (
    Injector(
        name="kserve-storage-initializer",
        who="KServe",
        container="storage-initializer",
        roles=(Role.INIT,),
        sources=(Source.STORAGE_CONTAINERS, Source.KSERVE),
        described=_storage,
        arguments=_model_and_path,
        variables=(
            *_CLOUD,
            "AWS_ACCESS_KEY_ID",
            "AWS_CA_BUNDLE",
            "AWS_CA_BUNDLE_CONFIGMAP",
            "AWS_ENDPOINT_URL",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_CLIENT_SECRET",
            "AZURE_STORAGE_ACCESS_KEY",
            "AZURE_SUBSCRIPTION_ID",
            "AZ_CLIENT_ID",
            "AZ_CLIENT_SECRET",
            "AZ_SUBSCRIPTION_ID",
            "AZ_TENANT_ID",
            "CA_BUNDLE_CONFIGMAP_NAME",
            "CA_BUNDLE_VOLUME_MOUNT_POINT",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "HDFS_SECRET_DIR",
            "HF_HUB_ENABLE_HF_TRANSFER",
            "HF_TOKEN",
            "HF_XET_HIGH_PERFORMANCE",
            "HF_XET_NUM_CONCURRENT_RANGE_GETS",
            "S3_ENDPOINT",
            "S3_USER_VIRTUAL_BUCKET",
            "S3_USE_ACCELERATE",
            "S3_USE_HTTPS",
            "S3_VERIFY_SSL",
            "STORAGE_CONFIG",
            "STORAGE_OVERRIDE_CONFIG",
            "awsAnonymousCredential",
        ),
        mounts=(r"/mnt(/[A-Za-z0-9._-]+)+", r"/var/secrets/?", r"/var/secrets/kserve-hdfscreds", r"/etc/ssl/custom-certs"),
        field="spec.container",
        instead="a ClusterStorageContainer, whose spec.container may say so",
        is_whole=True,
    ),
    Injector(
        name="kserve-agent",
        who="KServe",
        container="agent",
        roles=(Role.CONTAINER,),
        sources=(Source.KSERVE,),
        described=_agent,
        arguments=_texts,
        fields=_NETWORKED,
        variables=(*_CLOUD, *_QUEUE_VARIABLES),
        mounts=(r"/mnt/(models|configs)", r"/etc/tls/logger"),
        instead="the predictor, whose first container's securityContext it gets, and key agent of ConfigMap inferenceservice-config",
    ),
    Injector(
        name="knative-queue-proxy",
        who="Knative",
        container="queue-proxy",
        roles=(Role.CONTAINER,),
        sources=(Source.KNATIVE,),
        described=_queue,
        fields=_NETWORKED,
        variables=_QUEUE_VARIABLES,
        mounts=(r"/var/lib/knative/certs", r"/etc/podinfo"),
        instead="ConfigMap config-deployment (queue-sidecar-cpu-request, queue-sidecar-memory-limit and their like)",
    ),
    Injector(
        name="istio-init",
        who="Istio",
        container="istio-init",
        roles=(Role.INIT,),
        sources=(Source.ISTIO,),
        described=_iptables,
        fields={"args": _starting("istio-iptables")},
        instead="the mesh: with Istio's CNI plugin (or ambient mode) no pod needs such a container",
        is_whole=True,
    ),
    _argo("init", Role.INIT),
    _argo("wait", Role.CONTAINER),
)
NAMES = tuple(sorted({row.container for row in INJECTORS}))
"""What containers of injectors are called. A name says nothing; it says where to look."""
_ROWS = {row.name: row for row in INJECTORS}


def _models(obj: Mapping[str, Json]) -> tuple[str, ...]:
    """Of a ClusterStorageContainer, which models it is for."""
    formats = as_map(obj.get("spec")).get("supportedUriFormats")
    listed = [(as_map(each).get("prefix"), as_map(each).get("regex")) for each in formats] if isinstance(formats, list) else []
    prefixes = [re.escape(prefix) for prefix, _ in listed if isinstance(prefix, str) and prefix]
    return (*prefixes, *(regex for _, regex in listed if isinstance(regex, str) and regex))


def row_of(injected: Injected) -> Injector:
    """Returns the row of a container that was described."""
    return _ROWS[injected.injector]


def named(injected: Injected) -> str:
    """Returns what a container is, for a person: `KServe's storage-initializer (ClusterStorageContainer default)`."""
    row = row_of(injected)
    return f"{row.who}'s {row.container} ({injected.source})"


def mended_in(injected: Injected) -> str:
    """Returns where the platform's administrator changes it."""
    row = row_of(injected)
    return f"{row.field} of {injected.source}" if row.field and injected.source.startswith(row.sources[0].value) else row.instead


def alone(injected: Injected) -> dict[str, Json]:
    """Returns a pod with the container and nothing else."""
    row = row_of(injected)
    field = "initContainers" if Role.INIT in row.roles else "containers"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {field: [{**injected.body, "name": row.container}]}}


def described(source: Source, obj: Mapping[str, Json]) -> tuple[Injected, ...]:
    """Returns the containers that an object of the platform's configuration describes. Never raises, whatever it is given."""
    return tuple(
        Injected(injector=row.name, source=says, body=body, models=_models(obj))
        for row in INJECTORS
        if source in row.sources
        for says, body in row.described(source, obj)
        if isinstance(body.get("image"), str) and body["image"]
    )


def _of_key(config: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    """What JSON a key of a ConfigMap holds, if it is an object."""
    try:
        return as_map(json.loads(as_map(config.get("data")).get(key) or "{}"))
    except (ValueError, TypeError, RecursionError):
        return {}

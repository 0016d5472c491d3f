import copy
from typing import Any

import pytest

from mlwarden import workloads
from mlwarden.model.platform import Injected, Platform
from mlwarden.workloads import injectors, recognition
from mlwarden.workloads.injectors import Source

IMAGE = "kserve/storage-initializer:v0.17.0"
D = "sha256:" + "a" * 64


def storage_container(**container: Any) -> dict[str, Any]:
    """KServe's own, as its release ships it."""
    resources = {"requests": {"memory": "100Mi", "cpu": "100m"}, "limits": {"memory": "1Gi", "cpu": "1"}}
    shipped = {"name": "storage-initializer", "image": IMAGE, "resources": resources}
    return {"metadata": {"name": "default"}, "spec": {"container": shipped | container, "supportedUriFormats": [{"prefix": "s3://"}]}}


def initializer(**changes: Any) -> dict[str, Any]:
    """What KServe v0.17 makes of it for one pod with credentials, as the API server stores it."""
    return {
        "name": "storage-initializer",
        "image": IMAGE,
        "args": ["s3://models/llama", "/mnt/models"],
        "env": [
            {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}},
            {"name": "HF_HUB_ENABLE_HF_TRANSFER", "value": "1"},
        ],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "imagePullPolicy": "IfNotPresent",
        "volumeMounts": [
            {"name": "kserve-provision-location", "mountPath": "/mnt/models"},
            {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
        ],
    } | changes


def platform(**container: Any) -> Platform:
    return Platform(injected=injectors.described(Source.STORAGE_CONTAINERS, storage_container(**container)))


def whose(container: dict[str, Any], known: Platform, *, where: str = "initContainers", **spec: Any) -> Injected | None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {where: [container], **spec}}
    found = workloads.extract(pod).pods[0]
    return recognition.recognised(found.containers[0], found, known)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image": f"{IMAGE}@{D}"},
        {"args": ["hf://org/base", "/mnt/models/base", "hf://org/adapter", "/mnt/models/adapter"]},
        {"env": None},
        {"securityContext": {}},
        {"securityContext": {"runAsUser": 1337}},
        {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}},
        {"resources": {}},
    ],
)
def test_what_kserve_adds_is_the_platforms(changes: dict[str, Any]) -> None:
    found = whose(initializer(**changes), platform())
    assert found is not None
    assert (found.injector, found.source) == ("kserve-storage-initializer", "ClusterStorageContainer default")


@pytest.mark.parametrize(
    "changes",
    [
        {"image": "evil/storage-initializer:v0.17.0"},
        {"image": IMAGE + "-evil"},
        {"image": f"{IMAGE}@{D}x"},
        {"image": f"evil/x:1@{D}"},
        {"image": None},
        {"name": "storage-initializer2"},
        {"command": ["sh", "-c", "id"]},
        {"args": ["-c", "id"]},
        {"args": ["s3://x", "/usr/lib"]},
        {"args": ["s3://x", "/mnt/models/../../usr/lib"]},
        {"args": ["s3://x"]},
        {"args": []},
        {"args": None},
        {"args": "s3://x"},
        {"args": [{"s3://": 1}, "/mnt/models"]},
        {"env": [{"name": "LD_PRELOAD", "value": "/mnt/models/x.so"}]},
        {"env": [{"name": "PYTHONPATH", "value": "/mnt/models"}]},
        {"env": [{"name": "AWS_CONFIG_FILE", "value": "/mnt/models/config"}]},
        {"env": [{"name": "HTTPS_PROXY", "value": "http://evil"}]},
        {"env": {"name": "HF_TOKEN"}},
        {"env": ["HF_TOKEN"]},
        {"envFrom": [{"configMapRef": {"name": "x"}}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/usr/lib/python3"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/mnt/../usr/lib"}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/mnt/models", "mountPropagation": "Bidirectional"}]},
        {"volumeDevices": [{"name": "v", "devicePath": "/dev/xvda"}]},
        {"workingDir": "/mnt/models"},
        {"lifecycle": {"postStart": {"exec": {"command": ["id"]}}}},
        {"livenessProbe": {"exec": {"command": ["id"]}}},
        {"restartPolicy": "Always"},
        {"stdin": True},
        {"ports": [{"containerPort": 80, "hostPort": 80}]},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"runAsUser": 0}},
        {"securityContext": {"allowPrivilegeEscalation": True}},
        {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
        {"securityContext": "x"},
        {"something-new": {"that": "nobody knows"}},
    ],
)
def test_an_impostor_is_the_authors(changes: dict[str, Any]) -> None:
    assert whose(initializer(**changes), platform()) is None


def test_a_name_says_nothing_where_nothing_is_configured() -> None:
    assert whose(initializer(), Platform()) is None
    assert whose(initializer(), Platform(injected=injectors.described(Source.STORAGE_CONTAINERS, {"spec": "x"}))) is None


@pytest.mark.parametrize("where", ["containers", "ephemeralContainers"])
def test_a_container_in_another_place_is_the_authors(where: str) -> None:
    assert whose(initializer(), platform(), where=where) is None


def test_a_container_that_another_can_reach_into_is_the_authors() -> None:
    assert whose(initializer(), platform(), shareProcessNamespace=True) is None
    assert whose(initializer(), platform(), shareProcessNamespace=False) is not None


def test_what_the_configuration_says_is_what_it_must_be() -> None:
    described = {"securityContext": {"allowPrivilegeEscalation": False}, "env": [{"name": "NO_PROXY", "value": "*"}], "command": ["/in"]}
    assert whose(initializer(**described), platform(**described)) is not None
    for field in ("securityContext", "command"):
        assert whose({**initializer(**described), field: None}, platform(**described)) is None
    other = {**described, "env": [{"name": "NO_PROXY", "value": "other"}]}
    assert whose(initializer(**other), platform(**described)) is None


def test_a_storage_container_that_kserve_does_not_use_describes_nothing() -> None:
    other = {**storage_container()["spec"], "workloadType": "localModelDownloadJob"}
    for changes in ({"disabled": True}, {"spec": other}):
        assert injectors.described(Source.STORAGE_CONTAINERS, {**storage_container(), **changes}) == ()


def test_the_config_map_describes_it_where_no_storage_container_does() -> None:
    config = {"metadata": {"name": "inferenceservice-config"}, "data": {"storageInitializer": f'{{"image": "{IMAGE}", "cpuLimit": "1"}}'}}
    known = Platform(injected=injectors.described(Source.KSERVE, config))
    assert whose(initializer(), known) is not None
    assert whose(initializer(image="other:1"), known) is None


@pytest.mark.parametrize("data", [None, "x", {}, {"storageInitializer": "{"}, {"storageInitializer": "[]"}, {"storageInitializer": 3}])
def test_a_config_map_that_cannot_be_read_describes_nothing(data: Any) -> None:
    assert injectors.described(Source.KSERVE, {"data": data}) == ()


def test_described_containers_are_left_as_they_are() -> None:
    before = storage_container()
    known = Platform(injected=injectors.described(Source.STORAGE_CONTAINERS, before))
    whose(initializer(), known)
    assert before == copy.deepcopy(storage_container())


AGENT = Platform(injected=injectors.described(Source.KSERVE, {"data": {"agent": '{"image": "kserve/agent:v0.17.0"}'}}))
QUEUE = Platform(injected=injectors.described(Source.KNATIVE, {"data": {"queue-sidecar-image": "gcr.io/knative/queue@" + D}}))
ISTIO = Platform(
    injected=injectors.described(
        Source.ISTIO, {"data": {"values": '{"global": {"hub": "docker.io/istio", "tag": "1.27.0", "proxy_init": {"image": "proxyv2"}}}'}}
    )
)
ARGO = Platform(
    injected=injectors.described(
        Source.ARGO,
        {"spec": {"template": {"spec": {"containers": [{"args": ["--configmap", "c", "--executor-image", "quay.io/argo/exec:v3.7"]}]}}}},
    )
)
CONTROL = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
    "readOnlyRootFilesystem": False,
    "runAsGroup": 0,
    "runAsNonRoot": False,
    "runAsUser": 0,
}
LOGGED = ["--loglevel", "info", "--log-format", "text", "--gloglevel", "0"]
OTHERS: dict[str, tuple[Platform, str, dict[str, Any]]] = {
    "kserve-agent": (
        AGENT,
        "containers",
        {
            "name": "agent",
            "image": "kserve/agent:v0.17.0",
            "args": ["--enable-batcher", "--max-batchsize", "32", "--component-port", "8080"],
            "ports": [{"name": "agent-port", "containerPort": 9081, "protocol": "TCP"}],
            "env": [{"name": "SERVING_READINESS_PROBE", "value": "{}"}],
            "readinessProbe": {"httpGet": {"path": "/", "port": 9081}},
            "securityContext": {"allowPrivilegeEscalation": False},
        },
    ),
    "knative-queue-proxy": (
        QUEUE,
        "containers",
        {
            "name": "queue-proxy",
            "image": "gcr.io/knative/queue@" + D,
            "ports": [{"containerPort": 8012, "name": "queue-port"}],
            "env": [{"name": "SERVING_NAMESPACE", "value": "n"}, {"name": "USER_PORT", "value": "8080"}],
            "readinessProbe": {"httpGet": {"port": 8012, "path": "/"}},
            "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
        },
    ),
    "istio-init": (
        ISTIO,
        "initContainers",
        {
            "name": "istio-init",
            "image": "docker.io/istio/proxyv2:1.27.0",
            "args": ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"],
            "securityContext": CONTROL,
        },
    ),
    "argo-init": (ARGO, "initContainers", {"name": "init", "image": "quay.io/argo/exec:v3.7", "command": ["argoexec", "init", *LOGGED]}),
    "argo-wait": (
        ARGO,
        "containers",
        {
            "name": "wait",
            "image": "quay.io/argo/exec:v3.7",
            "command": ["argoexec", "wait", *LOGGED],
            "env": [{"name": "ARGO_TEMPLATE", "value": "{}"}],
            "volumeMounts": [{"name": "var-run-argo", "mountPath": "/var/run/argo"}, {"name": "t", "mountPath": "/mainctrfs/data"}],
            "securityContext": {"allowPrivilegeEscalation": False},
        },
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_each_injector_adds_is_the_platforms(name: str) -> None:
    known, where, container = OTHERS[name]
    found = whose(container, known, where=where)
    assert found is not None
    assert found.injector == name
    assert injectors.mended_in(found)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"image": "evil:1"},
        {"command": ["sh", "-c", "id"]},
        {"command": ["argoexec", "wait", "--kubeconfig", "/tmp/x"]},
        {"command": "argoexec wait"},
        {"args": ["sh", {}]},
        {"env": [{"name": "LD_PRELOAD", "value": "x"}]},
        {"envFrom": [{"secretRef": {"name": "x"}}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/usr/lib"}]},
        {"readinessProbe": {"exec": {"command": ["id"]}}},
        {"lifecycle": {"preStop": {"exec": {"command": ["id"]}}}},
        {"securityContext": {"privileged": True}},
        {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}},
        {"restartPolicy": "Always"},
    ],
)
def test_an_impostor_of_any_injector_is_the_authors(name: str, changes: dict[str, Any]) -> None:
    known, where, container = OTHERS[name]
    assert whose({**container, **changes}, known, where=where) is None


def test_every_row_is_tried_here() -> None:
    assert {row.name for row in injectors.INJECTORS} == {"kserve-storage-initializer", *OTHERS}


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("odd", [None, {}, {"data": {"values": "{"}}, {"spec": []}, {"spec": {"template": {"spec": {"containers": "x"}}}}])
def test_a_configuration_that_is_none_describes_nothing(source: Source, odd: Any) -> None:
    assert injectors.described(source, odd or {}) == ()

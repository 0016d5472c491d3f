"""What the platform puts into pods, with the API server's own policies in force and the releaser at work; no webhook runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.model.policy import GATE
from mlwarden.workloads import is_gated

from .conftest import _is_established, ready  # type: ignore[import-not-found]
from .test_controller import CLEAN, events, unique  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from conftest import Running

pytestmark = pytest.mark.cluster
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
STORAGE = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers"


@pytest.fixture(scope="module")
def kserve(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Running"]:
    """A controller where KServe is installed only after it began."""
    name = cluster.create_namespace("kserve-of-a-test")
    with ready(cluster, tmp_path_factory.mktemp("injected"), platform={"kserve": name, "argo": name}) as running:
        admin = cluster.api()
        names = {"kind": "ClusterStorageContainer", "plural": "clusterstoragecontainers", "singular": "clusterstoragecontainer"}
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1alpha1", "served": True, "storage": True, "schema": schema}
        crd = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "clusterstoragecontainers.serving.kserve.io"},
            "spec": {"group": "serving.kserve.io", "scope": "Cluster", "names": names, "versions": [version]},
        }
        admin.create(CRDS, crd)
        try:
            running.held.until(lambda: _is_established(admin.get(f"{CRDS}/clusterstoragecontainers.serving.kserve.io")))
            yield running
        finally:
            admin.delete(f"{CRDS}/clusterstoragecontainers.serving.kserve.io")


def describe(running: "Running", name: str, image: str, **container: Any) -> None:
    described = {"name": "storage-initializer", "image": image, **container}
    body = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer", "metadata": {"name": name}}
    running.admin.create(STORAGE, {**body, "spec": {"container": described, "supportedUriFormats": [{"prefix": "s3://"}]}})


def with_initializer(pod: dict[str, Any], image: str, **changes: Any) -> dict[str, Any]:
    """The pod as KServe's webhook makes it: no securityContext."""
    mount = {"name": "kserve-provision-location", "mountPath": "/mnt/models"}
    container = {
        "name": "storage-initializer",
        "image": image,
        "args": ["s3://models/x", "/mnt/models"],
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [mount],
    }
    spec = {**pod["spec"], "initContainers": [container | changes], "volumes": [{"name": mount["name"], "emptyDir": {}}]}
    return {**pod, "spec": spec}


def gated(running: "Running", space: str, name: str) -> bool:
    return is_gated(running.admin.get(f"/api/v1/namespaces/{space}/pods/{name}"))


def test_a_pod_with_kserves_container_is_released_and_one_with_an_impostor_is_not(kserve: "Running", good_pod: Any, attack: Any) -> None:
    (image, digest), (app, app_digest) = unique(), unique()
    pinned, main = f"{image}@{digest}", f"{app}@{app_digest}"
    describe(kserve, "default", image)
    space = kserve.held.namespace()
    for name, changes in (("real", {}), ("impostor", {"command": ["sh", "-c", "sudo id"]})):
        kserve.held.create(space, with_initializer(good_pod(name, main), pinned, **changes))
    kserve.answer(pinned, scan=CLEAN)
    kserve.answer(main, scan=CLEAN)
    kserve.held.until(lambda: not gated(kserve, space, "real"))
    said = {each["involvedObject"]["name"]: each["message"] for each in events(kserve, space, "NotReleased")}
    assert "privilege-escalation" in said["impostor"]
    assert gated(kserve, space, "impostor")
    attack(
        "a container that only calls itself storage-initializer",
        "refused, and KServe's own with it: no InferenceService with a storageUri ever ran",
        "held and never released; KServe's own is warned of and runs",
    )


def test_argos_own_containers_are_known_by_the_argument_of_its_controller(kserve: "Running", good_pod: Any) -> None:
    (image, digest), (app, app_digest) = unique(), unique()
    pinned, main = f"{image}@{digest}", f"{app}@{app_digest}"
    labels = {"app": "workflow-controller"}
    arguments = ["--configmap", "workflow-controller-configmap", "--executor-image", image]
    containers = {"containers": [{"name": "workflow-controller", "image": "controller:1", "args": arguments}]}
    template = {"metadata": {"labels": labels}, "spec": containers}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/apps/v1/namespaces/{kserve.settings.platform['argo']}/deployments"
    kserve.admin.create(path, {"metadata": {"name": "workflow-controller"}, "spec": spec})
    space = kserve.held.namespace()
    for name, word in (("step", "wait"), ("impostor", "agent")):
        pod = good_pod(name, main)
        pod["spec"]["containers"].append({"name": "wait", "image": pinned, "command": ["argoexec", word, "--loglevel", "info"]})
        kserve.held.create(space, pod)
    kserve.answer(pinned, scan=CLEAN)
    kserve.answer(main, scan=CLEAN)
    kserve.held.until(lambda: not gated(kserve, space, "step"))
    assert gated(kserve, space, "impostor")


def test_it_is_said_once_per_cluster_as_a_condition_of_each_policy(kserve: "Running") -> None:
    def condition(name: str) -> dict[str, Any]:
        status = kserve.admin.get(f"/apis/mlwarden.io/v1alpha1/wardenpolicies/{name}").get("status", {})
        found = [each for each in status.get("conditions", ()) if each["type"] == "InjectedContainers"]
        return found[0] if found else {"status": "", "message": ""}

    described = {"securityContext": {"privileged": True}}
    describe(kserve, "told", "registry.example/told:1", **described)
    kserve.held.until(lambda: "ClusterStorageContainer told" in condition("privileged-containers")["message"])
    assert condition("privileged-containers")["status"] == condition("privilege-escalation")["status"] == "False"
    assert "spec.container of ClusterStorageContainer told" in condition("privilege-escalation")["message"]
    assert condition("host-ports")["status"] == "True"
    assert condition("resource-limits")["status"] == condition("host-namespaces")["status"] == ""  # not asked of what stands alone
    kserve.admin.delete(f"{STORAGE}/told")
    kserve.held.until(lambda: "told" not in condition("privileged-containers")["message"])


def test_a_pod_without_the_gate_is_asked_by_the_api_server(kserve: "Running", good_pod: Any) -> None:
    space, image = kserve.held.namespace(), f"registry.example/x@sha256:{'a' * 64}"
    pod = with_initializer(good_pod("named", image), image, command=["sh"])
    pod["spec"]["nodeName"] = "node-0"
    with pytest.raises(ApiError, match=r"privilege-escalation|capabilities-dropped"):
        kserve.held.create(space, pod)


def test_another_name_is_asked_by_the_api_server(kserve: "Running", good_pod: Any) -> None:
    space, image = kserve.held.namespace(), f"registry.example/x@sha256:{'a' * 64}"
    with pytest.raises(ApiError, match=r"privilege-escalation|capabilities-dropped"):
        kserve.held.create(space, with_initializer(good_pod("p", image), image, name="storage-initialiser"))
    made = kserve.held.create(space, with_initializer(good_pod("p", image), image))
    assert {"name": GATE} in made["spec"]["schedulingGates"]


def test_what_is_dangerous_is_refused_by_the_api_server_whoever_adds_it(kserve: "Running", good_pod: Any) -> None:
    space, image = kserve.held.namespace(), f"registry.example/privileged@sha256:{'b' * 64}"
    describe(kserve, "privileged", image, securityContext={"privileged": True})
    with pytest.raises(ApiError, match="privileged-containers"):
        kserve.held.create(space, with_initializer(good_pod("p", image), image, securityContext={"privileged": True}))

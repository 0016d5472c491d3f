"""An index that is clean for Linux and vulnerable for Windows, on an installation by Helm: nothing starts where nobody looked."""

import http.client
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.api import APPLY_PATCH, ApiError

if TYPE_CHECKING:
    from conftest import Installed

pytestmark = pytest.mark.cluster
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SPACE, WINDOWS = "indexes", "windows-0"
OS, ARCH = "kubernetes.io/os", "kubernetes.io/arch"


def push(registry: str, name: str) -> str:
    """An index of a clean image for linux/amd64 and a vulnerable one for windows/amd64; returns `repository@sha256:…`."""
    rows = []
    for digest, os in ((images.clean(registry, f"{name}:clean"), "linux"), (images.vulnerable(registry, f"{name}:bad"), "windows")):
        connection = http.client.HTTPConnection(registry)
        connection.request("GET", f"/v2/{name}/manifests/{digest}")
        size = len(connection.getresponse().read())
        connection.close()
        rows.append({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": os, "architecture": "amd64"}})
    connection = http.client.HTTPConnection(registry)
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})
    connection.request("PUT", f"/v2/{name}/manifests/1", body, {"Content-Type": INDEX})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 201
    return f"{registry}/{name}@{answer.headers['Docker-Content-Digest']}"


@pytest.fixture(scope="module")
def image(installed: "Installed") -> Iterator[str]:
    """The index; beside it a Windows node, and who may debug."""
    installed.namespace(SPACE)
    labels = {OS: "windows", ARCH: "amd64", "kubernetes.io/hostname": WINDOWS}
    installed.admin.create("/api/v1/nodes", {"metadata": {"name": WINDOWS, "labels": labels}})
    status = {"nodeInfo": {"operatingSystem": "windows", "architecture": "amd64"}}
    installed.admin.patch(f"/api/v1/nodes/{WINDOWS}/status", {"status": status})
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SPACE}"
    rules = [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["get", "patch", "update"]}]
    installed.admin.create(f"{base}/roles", {"metadata": {"name": "debug"}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debug"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}
    installed.admin.create(f"{base}/rolebindings", {"metadata": {"name": "debug"}, "subjects": [subject], "roleRef": role})
    yield push(installed.cluster.registry, "debug/index").removeprefix(f"{installed.cluster.registry}/")
    installed.admin.delete(f"/api/v1/nodes/{WINDOWS}")


def test_a_pod_runs_where_its_index_was_judged_and_only_there(installed: "Installed", image: str, attack: Any) -> None:
    installed.create(SPACE, installed.pod("anywhere", image.replace(image[image.index("@") :], ":1")))
    installed.create(SPACE, installed.pod("windows", image, nodeSelector={OS: "windows"}))
    installed.runs(SPACE, "anywhere")
    required = installed.get(SPACE, "anywhere")["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert {each["key"]: each["values"] for term in required["nodeSelectorTerms"] for each in term["matchExpressions"]} == {
        OS: ["linux"],
        ARCH: ["amd64"],
    }
    assert "was scanned for linux/amd64 only" in installed.said(SPACE, "windows", "only, and its pod asks for other nodes")
    assert installed.state(SPACE, "windows") == "Held"
    told = installed.mlwarden("evidence", f"{installed.cluster.registry}/{image}", user="admin").stdout
    assert "scanned for linux/amd64 and kept there; not for windows/amd64" in " ".join(told.split())
    attack(
        "an index clean for linux/amd64, vulnerable for windows, a pod that selects such a node (the chart's defaults)",
        "released, and ran the vulnerable one",
        "held with the reason; without a selector it is kept to linux/amd64",
    )


def test_a_manifest_with_alternatives_of_its_own_is_applied_again(installed: "Installed", image: str) -> None:
    own = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": own}}
    path = f"/api/v1/namespaces/{SPACE}/pods/again"
    body = installed.pod("again", image.replace(image[image.index("@") :], ":1"), affinity=affinity)
    alice = installed.cluster.api("alice")
    stored = []
    for _ in range(2):
        alice.request("PATCH", path, body, query={"fieldManager": "gitops"}, content_type=APPLY_PATCH)
        installed.runs(SPACE, "again")
        stored.append(installed.get(SPACE, "again")["spec"]["affinity"])
    (term,) = stored[0]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [each["key"] for each in term["matchExpressions"]] == ["kubernetes.io/hostname", OS, ARCH]
    assert stored[1] == stored[0]


def test_a_pod_that_names_its_node_is_judged_by_that_node(installed: "Installed", image: str) -> None:
    def named(name: str, node: str) -> str:
        try:
            installed.create(SPACE, installed.pod(name, image, nodeName=node, tolerations=[{"operator": "Exists"}]))
        except ApiError as error:
            return str(error.message)
        return ""

    installed.until(lambda: "has not been scanned" not in named("probe", WINDOWS))
    assert "the node windows-0 is windows/amd64" in named("on-windows", WINDOWS)
    assert "the platform of the node nowhere is not known" in named("on-nothing", "nowhere")
    assert named("on-linux", installed.node) == ""


def test_a_debug_container_is_judged_by_the_node_of_its_pod(installed: "Installed", image: str) -> None:
    """The pod on the Windows node runs an image for one platform, which is judged whole."""
    clean = images.clean(installed.cluster.registry, "debug/single:1")
    body = installed.pod("debugged", f"debug/single@{clean}", tolerations=[{"operator": "Exists"}])
    installed.create(SPACE, body)
    installed.runs(SPACE, "debugged")
    on_windows = installed.pod("debugged-windows", f"debug/single@{clean}", nodeName=WINDOWS, tolerations=[{"operator": "Exists"}])
    installed.create(SPACE, on_windows)

    def debug(pod: str) -> str:
        full = f"{installed.cluster.registry}/{image}"
        command = ["debug", pod, "-n", SPACE, f"--image={full}", "--profile=restricted", "--attach=false"]
        return str(installed.cluster.kubectl(*command, user="alice", check=False))

    assert "the node windows-0 is windows/amd64" in debug("debugged-windows")
    debug("debugged")
    assert installed.get(SPACE, "debugged")["spec"]["ephemeralContainers"][0]["image"].endswith(image.partition("@")[2])
    assert "ephemeralContainers" not in installed.get(SPACE, "debugged-windows")["spec"]

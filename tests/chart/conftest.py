"""mlwarden as its users get it: by Helm, from the chart, upgraded from the chart of the commit before.

Everything is taken away again at the end of each module, and the end is waited for: other folders share the cluster.
"""

import contextlib
import io
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.embedded.installed import NAMESPACE, Installation, install_ml_kinds, push_demo_images
from mlwarden.embedded.node import NODE

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.incluster import PodsOnNode
    from mlwarden.embedded.kubelet import HostKubelet

ROOT = Path(__file__).parents[2]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMISSION = (
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
)


def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    """Polls until `condition` returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


class Installed:
    """A release of the chart on the embedded cluster, and what people do there."""

    def __init__(self, cluster: "EmbeddedCluster", kubelet: "HostKubelet | PodsOnNode") -> None:
        self.cluster, self.kubelet = cluster, kubelet
        self.real = cluster.node is not None
        self.node = NODE if self.real else "node-0"
        self.release = Installation(cluster, kubelet)
        self.admin = cluster.api()

    until = staticmethod(until)

    def push(self) -> None:
        push_demo_images(self.cluster)

    def namespace(self, name: str, profile: str = "production") -> str:
        self.cluster.create_namespace(name, labels={"mlwarden.io/profile": profile} if profile else {})
        self.cluster.grant("alice", "edit", name)
        review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": name}}}
        self.until(
            lambda: self.cluster.api("alice").create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)["status"]["allowed"]
        )
        return name

    def pod(self, name: str, image: str = "clean:1.0", **changes: Any) -> dict[str, Any]:
        """A pod with which no policy but the one about scans finds fault."""
        container = {
            "name": "main",
            "image": f"{self.cluster.registry}/{image}",
            "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        spec = {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**spec, **changes}}

    def create(self, namespace: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        created: dict[str, Any] = self.cluster.api("alice").create(f"/api/v1/namespaces/{namespace}/pods", body, **query)
        return created

    def get(self, namespace: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.admin.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return found

    def state(self, namespace: str, name: str) -> str:
        """Held, or the phase."""
        pod = self.get(namespace, name)
        return "Held" if pod["spec"].get("schedulingGates") else str(pod["status"].get("phase"))

    def runs(self, namespace: str, name: str) -> None:
        self.until(lambda: self.state(namespace, name) == "Running")

    def said(self, namespace: str, name: str, text: str) -> str:
        """The Event about `name` that holds `text`."""
        path = f"/api/v1/namespaces/{namespace}/events"

        def find() -> str:
            listed = self.admin.get(path, fieldSelector=f"involvedObject.name={name}")["items"]
            return next((event["message"] for event in listed if text in event["message"]), "")

        return str(self.until(find))

    def mlwarden(self, *arguments: str, user: str = "alice") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlwarden.cli.main", *arguments]
        return subprocess.run(command, env=self.cluster.environment(user), capture_output=True, text=True, check=False, timeout=60)

    def generated(self) -> list[str]:
        """Everything the controller generates that is there now."""
        return [
            f"{plural}/{obj['metadata']['name']}"
            for plural in ADMISSION
            for obj in self.admin.get(
                f"/apis/admissionregistration.k8s.io/v1/{plural}", labelSelector="app.kubernetes.io/managed-by=mlwarden"
            )["items"]
        ]

    def clean(self) -> None:
        """Nothing of mlwarden is left, custom resource definitions included."""
        if "mlwarden" in self.cluster.helm("list", "--namespace", NAMESPACE, "--short"):
            self.release.uninstall()
        for name in ("clusterroles/upgrade-namespaces", "clusterrolebindings/lead-upgrade-namespaces"):
            with contextlib.suppress(ApiError):
                self.admin.delete(f"/apis/rbac.authorization.k8s.io/v1/{name}")
        for crd in self.admin.get(CRDS)["items"]:
            if crd["spec"]["group"] in {"mlwarden.io", "kubeflow.org", "serving.kserve.io", "ray.io", "argoproj.io"}:
                self.admin.delete(f"{CRDS}/{crd['metadata']['name']}")
        self.until(lambda: not self.generated(), seconds=90)
        self.until(lambda: not [crd for crd in self.admin.get(CRDS)["items"] if crd["spec"]["group"] == "mlwarden.io"])
        self.admin.delete(f"/api/v1/namespaces/{NAMESPACE}")
        self.until(lambda: not exists(self.admin, f"/api/v1/namespaces/{NAMESPACE}"))


def exists(api: Any, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True


@pytest.fixture(scope="session")
def install_on() -> type[Installed]:
    """`install_on(cluster, kubelet)`: a release on another cluster than the session's."""
    return Installed


@pytest.fixture(scope="module")
def installed(cluster: "EmbeddedCluster", kubelet: "HostKubelet") -> Iterator[Installed]:
    """mlwarden, installed by its chart."""
    found = Installed(cluster, kubelet)
    install_ml_kinds(cluster)
    found.push()
    try:
        found.release.install()
        yield found
    finally:
        found.clean()


@pytest.fixture(scope="module")
def previous_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of the commit before this one."""
    command = ["git", "-C", str(ROOT), "archive", "HEAD~1", "charts"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"there is no commit before this one here (a shallow clone?): {archive.stderr.decode().strip()}")
    directory = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory / "charts" / "mlwarden"

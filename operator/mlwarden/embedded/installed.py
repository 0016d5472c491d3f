"""mlwarden installed by its own chart, with Helm, on the embedded cluster: what the demo, the tests and the benchmarks stand on.

Only what the machine forces is said here: the registry speaks plain HTTP, and the vulnerability database is a small one made here. Without
a real node also: the pods are for the host kubelet's node, and the API server calls the webhook by URL (it is not in the pod network, there
is none). With one the chart gets the image that its Dockerfile makes, and the API server calls the webhook by its Service. Everything else
is the chart's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlwarden.embedded import build, images, ownimage, trivydb
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import HOST_NODE, EmbeddedCluster
from mlwarden.embedded.incluster import PodsOnNode
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.node import NODE
from mlwarden.errors import ClusterError

NAMESPACE = "mlwarden-system"
_DATABASE = "trivy-db:2"
_ML_KINDS = (
    ("kubeflow.org", "v1", "Notebook", "notebooks"),
    ("serving.kserve.io", "v1beta1", "InferenceService", "inferenceservices"),
    ("ray.io", "v1", "RayCluster", "rayclusters"),
    ("ray.io", "v1", "RayJob", "rayjobs"),
    ("argoproj.io", "v1alpha1", "Workflow", "workflows"),
)


def chart() -> Path:
    """Returns the chart of this source tree."""
    return build.source_tree() / "charts" / "mlwarden"


def values(cluster: EmbeddedCluster, pods: HostKubelet | PodsOnNode, **changes: Any) -> dict[str, Any]:
    """Returns the chart's values for this machine; `changes` are top-level values laid over them."""
    database = cluster.directory / "trivy"
    if not database.exists():
        trivydb.make_database(database)
    own: dict[str, Any] = {
        "webhook": {"clientCA": cluster.webhook_client_ca.read_text(encoding="utf-8")},
        "scanner": {"plainHTTP": [cluster.registry]},
    }
    if isinstance(pods, PodsOnNode):
        return _merged(_merged(own, _on_node(cluster, database)), changes)
    host = {
        "image": {"repository": f"{cluster.registry}/mlwarden", "digest": ""},
        "webhook": {"url": f"https://127.0.0.1:{pods.webhook_port}"},
        "scanner": {"extraArgs": [f"--trivy={build.binary('trivy')}", f"--trivy-cache={database}", f"--cosign={build.binary('cosign')}"]},
        "nodeSelector": {"kubernetes.io/hostname": HOST_NODE},
        "tolerations": [{"key": "mlwarden.io/host", "operator": "Exists", "effect": "NoSchedule"}],
    }
    return _merged(_merged(own, host), changes)


def _on_node(cluster: EmbeddedCluster, database: Path) -> dict[str, Any]:
    """The chart's own image, and a vulnerability database that the scanner pulls as it would a mirror's."""
    repository, _, digest = ownimage.push(ownimage.image(), cluster.registry).rpartition("@")
    trivydb.publish(cluster.registry, _DATABASE, database)
    _, _, port = cluster.server.rpartition(":")
    _, _, registry_port = cluster.registry.rpartition(":")
    return {
        "image": {"repository": repository, "digest": digest},
        "scanner": {"database": {"repositories": [f"{cluster.registry}/{_DATABASE}"]}},
        "nodeSelector": {"kubernetes.io/hostname": NODE},
        "networkPolicy": {"apiServerPorts": [443, int(port)], "registryPorts": [int(registry_port)]},
    }


def install_ml_kinds(cluster: EmbeddedCluster) -> None:
    """Installs custom resource definitions of ML kinds that take anything: the real ones' controllers need container images."""
    api = cluster.api()
    for group, version, kind, plural in _ML_KINDS:
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
            },
        }
        api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}", body)
        # Who may edit workloads may edit these: their operators ship such a role.
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"{plural}-edit", "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}},
            "rules": [{"apiGroups": [group], "resources": [plural], "verbs": ["*"]}],
        }
        api.apply(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{plural}-edit", role)


def push_demo_images(cluster: EmbeddedCluster) -> None:
    """Pushes the images that the demo's workloads name; they really run where a node can run them."""
    for name, make in (
        ("clean:1.0", images.clean),
        ("ranking:2.3", images.clean),
        ("vulnerable:1.0", images.vulnerable),
        ("weights:1.0", images.vulnerable),
        ("debug-tools:1.0", images.clean),
        ("opaque:1.0", images.opaque),
    ):
        make(cluster.registry, name, runs=cluster.node is not None)


class Installation:
    """A release of the chart.

    Args:
        cluster: where.
        pods: who runs its pods.
        changes: values laid over those of `values`.
    """

    def __init__(self, cluster: EmbeddedCluster, pods: HostKubelet | PodsOnNode, **changes: Any) -> None:
        self.cluster = cluster
        self.pods = pods
        self._changes = changes

    def install(self, *, source: Path | None = None) -> None:
        """`helm install --wait`: returns when every pod is ready, and the leader is ready only when all that it generates is in force.

        Raises:
            ClusterError: it did not become ready; the message ends with what its processes said.
        """
        self._helm("install", source or chart())

    def upgrade(self, *, source: Path | None = None, **changes: Any) -> None:
        """`helm upgrade` to another chart, other values, or both."""
        self._changes = _merged(self._changes, changes)
        self._helm("upgrade", source or chart())

    def uninstall(self) -> None:
        """`helm uninstall`, its hook included."""
        self.cluster.helm("uninstall", "mlwarden", "--namespace", NAMESPACE, "--wait", "--timeout", "120s")

    def _helm(self, verb: str, source: Path) -> None:
        file = self.cluster.directory / f"values-{verb}.yaml"
        file.write_text(yaml.safe_dump(values(self.cluster, self.pods, **self._changes)), encoding="utf-8")
        options = ["--namespace", NAMESPACE, "--values", str(file), "--wait", "--timeout", "120s"]
        try:
            self.cluster.helm(verb, "mlwarden", str(source), *options, *(["--create-namespace"] if verb == "install" else []))
        except ClusterError as error:
            logs = "\n".join(f"--- {name}\n{text}" for name, text in self.logs().items())
            raise ClusterError(f"{error}\n{logs}") from error

    def logs(self) -> dict[str, str]:
        """Returns the last lines of every pod of the release."""
        try:
            pods = self.cluster.api().get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
        except ApiError:
            return {}
        return {pod["metadata"]["name"]: self.pods.logs(pod["metadata"]["name"])[-3000:] for pod in pods}


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged

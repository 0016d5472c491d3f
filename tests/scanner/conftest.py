"""Scanners as processes, on the real API server, as their own service account."""

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml

from mlwarden import evidence, policy

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

RULES = [
    {"apiGroups": ["mlwarden.io"], "resources": ["imageevidences"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": ["mlwarden.io"], "resources": ["imageevidences/status"], "verbs": ["get", "patch", "update"]},
    {"apiGroups": ["mlwarden.io"], "resources": ["wardenpolicies"], "verbs": ["get", "list", "watch"]},
]
"""What the chart grants the scanner."""
COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


@pytest.fixture(scope="module")
def evidence_crd(cluster: "EmbeddedCluster") -> None:
    """The custom resources, served: for each module, since an installation on the same cluster takes them away with it."""
    from mlwarden.embedded.api import ApiError
    from mlwarden.embedded.processes import wait_until

    api = cluster.api()
    for crd in (evidence.crd(), policy.crd()):
        api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd)

    def served() -> bool:
        try:
            for collection in (COLLECTION, "/apis/mlwarden.io/v1alpha1/wardenpolicies"):
                api.get(collection)
        except ApiError:
            return False
        return True

    assert wait_until(served, seconds=30)


@pytest.fixture
def scanner_kubeconfig(cluster: "EmbeddedCluster", namespace: str, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig with a token of a service account that may do what the chart says, and no more."""
    api = cluster.api()
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "scanner"}})
    api.create(f"{rbac}/clusterroles", {"metadata": {"name": namespace}, "rules": RULES})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
    subjects = [{"kind": "ServiceAccount", "name": "scanner", "namespace": namespace}]
    api.create(f"{rbac}/clusterrolebindings", {"metadata": {"name": namespace}, "roleRef": reference, "subjects": subjects})
    token = cluster.kubectl("create", "token", "scanner", "-n", namespace).strip()
    config = yaml.safe_load(cluster.kubeconfig().read_text())
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "scanner.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield path
    api.delete(f"{rbac}/clusterrolebindings/{namespace}")
    api.delete(f"{rbac}/clusterroles/{namespace}")


@pytest.fixture
def scanner(cluster: "EmbeddedCluster", scanner_kubeconfig: Path, tmp_path: Path) -> "Iterator[Callable[..., Process]]":
    """Starts scanners: `scanner(*arguments, mode="")`. They end with the test."""
    from mlwarden.embedded import trivydb
    from mlwarden.embedded.build import binary
    from mlwarden.embedded.processes import Process, free_port

    started: list[Process] = []
    database = trivydb.make_database(tmp_path / "trivy-cache")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def start(*arguments: str, mode: str = "", trivy: Path | None = None, name: str = "scanner", probes: int = 0) -> Process:
        asks = mode not in {"worker", "verifier"}
        chance = ["--second-looks=0"] if asks else []  # unless a test is about it: what happens at random is nothing to assert on
        command: list[str | Path] = [sys.executable, "-m", "mlwarden.cli.main", "scanner", *([mode] if mode else []), *chance, *arguments]
        if asks:
            command += [
                f"--kubeconfig={scanner_kubeconfig}",
                "--host=127.0.0.1",
                f"--probe-port={probes or free_port()}",
                f"--identity={name}",
            ]
        if mode != "agent":
            command += [f"--trivy={trivy or binary('trivy')}", f"--trivy-cache={database}", f"--scratch={scratch}"]
            command += [f"--plain-http={cluster.registry}", f"--cosign={binary('cosign')}"]
            command += [] if any(each.startswith("--database-file") for each in arguments) else ["--no-database-update"]
        process = Process(name, command, log=tmp_path / f"{name}.log", keeper=cluster.keeper, environment=dict(os.environ))
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()
        print(f"--- {process.name}\n{process.tail(60)}")  # noqa: T201 -- shown with a failure


@pytest.fixture
def ask(cluster: "EmbeddedCluster", evidence_crd: None) -> "Iterator[Callable[[str], str]]":
    """Asks for evidence about a reference, as the webhook does; returns the object's name. Everything is removed afterwards."""
    api = cluster.api()

    def create(reference: str) -> str:
        return str(api.create(COLLECTION, evidence.pending(reference))["metadata"]["name"])

    yield create
    for obj in api.get(COLLECTION)["items"]:
        api.delete(f"{COLLECTION}/{obj['metadata']['name']}")


@pytest.fixture
def until(cluster: "EmbeddedCluster") -> Callable[..., dict[str, Any]]:
    """`until(name, condition)`: waits until an object's status is so, and returns the status."""
    from mlwarden.embedded.api import ApiError
    from mlwarden.embedded.processes import wait_until

    api = cluster.api()

    def wait(name: str, condition: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
        last: dict[str, Any] = {}

        def holds() -> bool:
            nonlocal last
            try:
                last = api.get(f"{COLLECTION}/{name}").get("status") or {}
            except ApiError:
                return False
            return condition(last)

        assert wait_until(holds, seconds=seconds), msgspec.json.encode(last).decode()
        return last

    return wait


def _config(auths: dict[str, str]) -> dict[str, Any]:
    return {key: {"auth": base64.b64encode(f"{user}:s3cret".encode()).decode()} for key, user in auths.items()}


@pytest.fixture
def pull_secret(cluster: "EmbeddedCluster", namespace: str) -> Any:
    """Makes a Secret."""

    def make(name: str, auths: dict[str, str], kind: str = "kubernetes.io/dockerconfigjson") -> None:
        entry = ".dockercfg" if kind.endswith("/dockercfg") else ".dockerconfigjson"
        content = _config(auths) if entry == ".dockercfg" else {"auths": _config(auths)}
        data = {entry: base64.b64encode(json.dumps(content).encode()).decode()}
        cluster.api().create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "type": kind, "data": data})

    return make


@pytest.fixture
def may_read(cluster: "EmbeddedCluster", namespace: str) -> Iterator[None]:
    """The scanner's service account may read what the chart lets it read with `scanner.podPullSecrets`, here in one namespace."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["secrets", "serviceaccounts"], "verbs": ["get"]}]
    cluster.api().create(f"{rbac}/roles", {"metadata": {"name": "pull"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pull"}
    subjects = [{"kind": "ServiceAccount", "name": "scanner", "namespace": namespace}]
    cluster.api().create(f"{rbac}/rolebindings", {"metadata": {"name": "pull"}, "roleRef": reference, "subjects": subjects})
    yield
    cluster.api().delete(f"{rbac}/rolebindings/pull")


@pytest.fixture
def demand(cluster: "EmbeddedCluster", evidence_crd: None) -> Iterator[Callable[..., policy.CompiledPolicy]]:
    """Applies a policy with one requirement, and returns it compiled."""
    made: list[str] = []

    def apply(name: str, requirement: dict[str, Any]) -> policy.CompiledPolicy:
        spec = {"profiles": {"production": "Deny"}, "requirement": requirement, "message": "m", "why": "w", "fix": {"text": "f"}}
        body = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}
        cluster.api().apply(f"{POLICIES}/{name}", body)
        if name not in made:
            made.append(name)
        return policy.compile_policy(policy.parse(body))

    yield apply
    for name in made:
        cluster.api().delete(f"{POLICIES}/{name}")

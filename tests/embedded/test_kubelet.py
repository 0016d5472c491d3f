"""The host node runs mlwarden's pods as a kubelet would: tokens, volumes, probes, restarts, ends."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlwarden.embedded.api import Api, ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    """A cluster of its own: on the shared one, the node may belong to mlwarden itself."""
    with EmbeddedCluster(nodes=0) as own:
        yield own


@pytest.fixture(scope="module")
def node(cluster: EmbeddedCluster) -> Iterator[HostKubelet]:
    with HostKubelet(cluster, program=(sys.executable, str(Path(__file__).with_name("stand_in.py")))) as kubelet:
        yield kubelet


def pod(name: str, *, container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    own = {"name": "main", "image": "registry.example/mlwarden:1", "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8081}}}
    return {
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "containers": [{**own, **(container or {})}],
            "nodeSelector": {"kubernetes.io/hostname": "mlwarden-host"},
            "tolerations": [{"key": "mlwarden.io/host", "operator": "Exists"}],
            "terminationGracePeriodSeconds": 5,
            **spec,
        },
    }


class Pods:
    def __init__(self, cluster: EmbeddedCluster, namespace: str, node: HostKubelet) -> None:
        self.api = cluster.api()
        self.path = f"/api/v1/namespaces/{namespace}/pods"
        self.node = node
        self.namespace = namespace

    def create(self, body: dict[str, Any]) -> None:
        self.api.create(self.path, body)

    def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = self.api.get(f"{self.path}/{name}")["status"]
        return status

    def is_ready(self, name: str) -> bool:
        return any(each["type"] == "Ready" and each["status"] == "True" for each in self.status(name).get("conditions", []))

    def said(self, name: str) -> dict[str, Any]:
        assert wait_until(lambda: "\n" in self.node.logs(name, self.namespace), seconds=30), self.status(name)
        said: dict[str, Any] = json.loads(self.node.logs(name, self.namespace).splitlines()[0])
        return said

    def reaches(self, name: str, phase: str) -> bool:
        return bool(wait_until(lambda: self.status(name)["phase"] == phase, seconds=30))


@pytest.fixture
def pods(cluster: EmbeddedCluster, namespace: str, node: HostKubelet) -> Pods:
    return Pods(cluster, namespace, node)


def test_a_pod_runs_becomes_ready_and_ends_on_sigterm(pods: Pods) -> None:
    pods.create(pod("web", container={"args": ["webhook", "--flag"]}))
    assert wait_until(lambda: pods.is_ready("web"), seconds=30), pods.status("web")
    said = pods.said("web")
    assert said["arguments"] == ["webhook", "--flag"]
    assert said["environment"]["MLWARDEN_PORT"] == str(pods.node.webhook_port)
    pods.api.delete(f"{pods.path}/web")

    def is_gone() -> bool:
        try:
            pods.status("web")
        except ApiError as error:
            return error.code == 404
        return False

    assert wait_until(is_gone, seconds=30)
    assert pods.node.logs("web", pods.namespace).endswith("terminated\n")


def test_the_token_is_the_pods_own_and_may_do_what_its_service_account_may(cluster: EmbeddedCluster, pods: Pods) -> None:
    pods.create(pod("web"))
    account = pods.said("web")["account"]
    assert account["namespace"] == pods.namespace
    assert "BEGIN CERTIFICATE" in account["ca.crt"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": account["token"]}}
    user = cluster.api().create("/apis/authentication.k8s.io/v1/tokenreviews", review)["status"]["user"]
    assert user["username"] == f"system:serviceaccount:{pods.namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    assert user["extra"]["authentication.kubernetes.io/node-name"] == ["mlwarden-host"]
    itself = Api(server=cluster.server, ca=str(cluster.pki.ca), token=account["token"])
    with pytest.raises(ApiError, match="forbidden"):
        itself.get(pods.path)
    itself.close()


def test_without_automounted_token_there_is_none(pods: Pods) -> None:
    pods.create(pod("web", automountServiceAccountToken=False))
    assert pods.said("web")["account"] == {}


def test_volumes_are_files_and_paths_in_arguments_and_environment_lead_to_them(pods: Pods) -> None:
    core = pods.path.removesuffix("/pods")
    pods.api.create(f"{core}/configmaps", {"metadata": {"name": "settings"}, "data": {"settings.yaml": "rollout: audit"}})
    pods.api.create(f"{core}/secrets", {"metadata": {"name": "tls"}, "stringData": {"tls.key": "secret"}})
    mounts = {"settings": "/etc/mlwarden", "tls": "/etc/mlwarden/tls", "run": "/run"}
    container = {
        "args": [
            "--read=/etc/mlwarden/settings.yaml",
            "--read=/etc/mlwarden/tls/tls.key",
            "--other=/etc/mlwardenx",
            "--socket=/run/s",
            "$(WHO)",
        ],
        "env": [
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "SETTINGS", "value": "/etc/mlwarden/settings.yaml"},
        ],
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    volumes = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "tls", "secret": {"secretName": "tls"}},
        {"name": "run", "emptyDir": {}},
    ]
    pods.create(pod("web", container=container, volumes=volumes))
    said = pods.said("web")
    assert list(said["files"].values()) == ["rollout: audit", "secret"]
    assert said["arguments"][2] == "--other=/etc/mlwardenx"
    assert Path(said["arguments"][3].partition("=")[2]).parent.is_dir()
    assert said["arguments"][4] == "web"
    assert Path(said["environment"]["SETTINGS"]).read_text(encoding="utf-8") == "rollout: audit"


def test_a_pod_waits_for_a_config_map_that_comes_later(pods: Pods) -> None:
    container = {"args": ["--read=/c/key"], "volumeMounts": [{"name": "c", "mountPath": "/c"}]}
    pods.create(pod("web", container=container, volumes=[{"name": "c", "configMap": {"name": "late"}}]))
    waiting = lambda: pods.status("web").get("containerStatuses", [{}])[0].get("state", {}).get("waiting", {}).get("message", "")  # noqa: E731
    assert wait_until(lambda: "late" in waiting(), seconds=30)
    pods.api.create(pods.path.removesuffix("/pods") + "/configmaps", {"metadata": {"name": "late"}, "data": {"key": "value"}})
    assert list(pods.said("web")["files"].values()) == ["value"]


@pytest.mark.parametrize(("code", "phase"), [("0", "Succeeded"), ("3", "Failed")])
def test_a_pod_that_never_restarts_ends_by_its_exit_code(pods: Pods, code: str, phase: str) -> None:
    pods.create(pod("job", container={"args": ["--exit", code]}, restartPolicy="Never"))
    assert pods.reaches("job", phase)
    assert pods.status("job")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == int(code)


def test_a_container_that_ends_is_started_again(pods: Pods) -> None:
    pods.create(pod("crash", container={"args": ["--exit", "1"]}))
    assert wait_until(lambda: pods.status("crash").get("containerStatuses", [{}])[0].get("restartCount", 0) >= 2, seconds=30)
    assert not pods.is_ready("crash")


def test_init_containers_run_first(pods: Pods) -> None:
    init = [{"name": "first", "image": "mlwarden", "args": ["--exit", "0"]}]
    pods.create(pod("web", initContainers=init))
    assert wait_until(lambda: pods.is_ready("web"), seconds=30)
    logs = pods.node.logs("web", pods.namespace)
    assert logs.index("=== first") < logs.index("=== main")


@pytest.mark.parametrize("container", [{"image": "nginx"}, {"command": ["sh", "-c", "true"]}])
def test_what_is_not_mlwarden_is_refused_with_a_reason(pods: Pods, container: dict[str, Any]) -> None:
    pods.create(pod("other", container=container, restartPolicy="Never"))
    assert pods.reaches("other", "Failed")
    assert "runs mlwarden only" in pods.status("other")["message"]


def test_killed_processes_stay_dead_until_resumed(pods: Pods) -> None:
    pods.create(pod("web"))
    assert wait_until(lambda: pods.is_ready("web"), seconds=30)
    before = pods.node.pids("web")
    pods.node.kill_all()
    assert wait_until(lambda: not pods.is_ready("web"), seconds=30)
    assert pods.node.pids() == {}
    pods.create(pod("late"))
    assert wait_until(lambda: pods.status("late").get("containerStatuses"), seconds=30)
    assert pods.node.pids() == {}
    pods.node.resume()
    assert wait_until(lambda: pods.is_ready("web") and pods.is_ready("late"), seconds=30)
    assert pods.node.pids("web").keys() == before.keys()
    assert pods.node.pids("web") != before


def test_pods_go_on_while_the_api_server_restarts(cluster: EmbeddedCluster, pods: Pods) -> None:
    pods.create(pod("web"))
    assert wait_until(lambda: pods.is_ready("web"), seconds=30)
    before = pods.node.pids("web")
    cluster.restart_apiserver(kill=True)
    pods.create(pod("after"))
    assert wait_until(lambda: pods.is_ready("after"), seconds=30)
    assert pods.node.pids("web") == before

"""The embedded cluster keeps the promises the other tests stand on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster, ToolError
from mlwarden.embedded.processes import wait_until

pytestmark = pytest.mark.cluster

Kubectl = Callable[..., str]


def phase(cluster: EmbeddedCluster, namespace: str, name: str) -> str:
    return str(cluster.api().get(f"/api/v1/namespaces/{namespace}/pods/{name}")["status"]["phase"])


def test_a_pod_is_scheduled_and_becomes_running(cluster: EmbeddedCluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl("run", "one", "--image=registry.example/notebook:1", "-n", namespace)
    assert wait_until(lambda: phase(cluster, namespace, "one") == "Running", seconds=30)


def test_a_job_completes(cluster: EmbeddedCluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "job", "train", "--image=registry.example/train:1", "-n", namespace)
    kubectl("wait", "--for=condition=complete", "job/train", "--timeout=30s", "-n", namespace)


def test_a_pod_with_a_gate_is_not_scheduled_until_it_is_removed(cluster: EmbeddedCluster, namespace: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "a", "image": "a"}], "schedulingGates": [{"name": "example.com/held"}]}
    cluster.api().create(pods, {"metadata": {"name": "held"}, "spec": spec})
    conditions = cluster.api().get(f"{pods}/held")["status"]["conditions"]
    assert [condition["reason"] for condition in conditions if condition["type"] == "PodScheduled"] == ["SchedulingGated"]
    cluster.api().patch(f"{pods}/held", {"spec": {"schedulingGates": None}})
    assert wait_until(lambda: phase(cluster, namespace, "held") == "Running", seconds=30)


def test_users_may_do_what_they_were_granted_and_no_more(cluster: EmbeddedCluster, namespace: str, kubectl: Kubectl) -> None:
    with pytest.raises(ToolError, match="Forbidden"):
        kubectl("run", "one", "--image=a", "-n", namespace, user="alice")
    cluster.grant("alice", "edit", namespace)
    assert wait_until(
        lambda: kubectl("auth", "can-i", "create", "pods", "-n", namespace, user="alice", check=False).strip() == "yes", seconds=10
    )
    kubectl("run", "one", "--image=a", "-n", namespace, user="alice")
    with pytest.raises(ToolError, match="Forbidden"):
        kubectl("get", "nodes", user="alice")


def test_service_account_admission_and_tokens_are_real(cluster: EmbeddedCluster, namespace: str) -> None:
    cluster.api().create(
        f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    )
    spec = cluster.api().get(f"/api/v1/namespaces/{namespace}/pods/p")["spec"]
    assert spec["serviceAccountName"] == "default"
    assert any("projected" in volume for volume in spec["volumes"])
    body = {"metadata": {"name": "q"}, "spec": {"serviceAccountName": "nobody", "containers": [{"name": "a", "image": "a"}]}}
    with pytest.raises(ApiError, match="not found"):
        cluster.api().create(f"/api/v1/namespaces/{namespace}/pods", body)


def test_writes_are_in_the_audit_log(cluster: EmbeddedCluster, namespace: str) -> None:
    def created() -> bool:
        events = cluster.audit_events()
        return any(event["verb"] == "create" and event.get("objectRef", {}).get("name") == namespace for event in events)

    assert wait_until(created, seconds=10)


def test_an_api_server_killed_and_started_again_has_lost_nothing(cluster: EmbeddedCluster, namespace: str) -> None:
    cluster.api().create(f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "kept"}})
    cluster.stop_apiserver(kill=True)
    with pytest.raises(ApiError) as caught:
        cluster.api().get("/readyz")
    assert caught.value.code == 0
    cluster.start_apiserver()
    assert cluster.api().get(f"/api/v1/namespaces/{namespace}/configmaps/kept")["metadata"]["name"] == "kept"


PARENT = """
import json, sys
from mlwarden.embedded.cluster import EmbeddedCluster
cluster = EmbeddedCluster(nodes=1)
cluster.start()
print(json.dumps({"directory": str(cluster.directory), "pids": [process.pid for process in cluster._processes.values()]}), flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not (whoever adopted it may take its time to collect it)."""
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8") if sys.platform == "linux" else True
    except OSError:
        return False


def test_nothing_is_left_when_the_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = json.loads(parent.stdout.readline())
        assert len(started["pids"]) == 6
        assert all(alive(pid) for pid in started["pids"])
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not any(alive(pid) for pid in started["pids"]), seconds=20)
    assert wait_until(lambda: not Path(started["directory"]).exists(), seconds=20)

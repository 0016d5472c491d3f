"""The embedded cluster keeps the promises the other tests stand on."""

import base64
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster, StartError, ToolError
from mlwarden.embedded.processes import free_port, wait_until

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


def test_the_api_server_shows_webhooks_its_client_certificate(cluster: EmbeddedCluster, namespace: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cluster.pki.server_certificate, cluster.pki.server_key)
    context.load_verify_locations(cluster.webhook_client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    subjects: list[str] = []

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            subjects.append(str(self.connection.getpeercert()["subject"]))  # type: ignore[attr-defined]
            body = json.dumps({**review, "response": {"uid": review["request"]["uid"], "allowed": True}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class's name
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    url = f"https://127.0.0.1:{server.server_address[1]}/"
    webhook = {
        "name": "client.certificate.test",
        "clientConfig": {"url": url, "caBundle": base64.b64encode(cluster.pki.ca.read_bytes()).decode()},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    try:
        cluster.api().create(path, {"metadata": {"name": namespace}, "webhooks": [webhook]})
        dry = {"metadata": {"generateName": "asked-"}}
        asked = lambda: cluster.api().create(f"/api/v1/namespaces/{namespace}/configmaps", dry, dryRun="All") and subjects  # noqa: E731
        assert wait_until(asked, seconds=20)
        assert "kube-apiserver" in subjects[0]
    finally:
        cluster.api().delete(f"{path}/{namespace}")
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_port_taken_meanwhile_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr("mlwarden.embedded.cluster.free_port", lambda: ports.pop() if ports else free_port())
        with EmbeddedCluster(nodes=1) as other:
            assert other.api().get("/readyz") == "ok"


def test_the_api_server_takes_more_arguments() -> None:
    off = "admissionregistration.k8s.io/v1/mutatingadmissionpolicies=false"
    off += ",admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings=false"
    arguments = ["--disable-admission-plugins=MutatingAdmissionPolicy", f"--runtime-config={off}"]
    with EmbeddedCluster(nodes=0, apiserver_arguments=arguments) as other:
        served = {resource["name"] for resource in other.api().get("/apis/admissionregistration.k8s.io/v1")["resources"]}
        assert "validatingadmissionpolicies" in served
        assert "mutatingadmissionpolicies" not in served


def test_a_part_that_does_not_start_says_why_and_nothing_is_left() -> None:
    broken = EmbeddedCluster(nodes=0, apiserver_arguments=["--no-such-flag"])
    with pytest.raises(StartError, match="kube-apiserver exited with 1") as caught:
        broken.start()
    assert "no-such-flag" in caught.value.message
    assert not broken.directory.exists()

"""A node whose pods are mlwarden's own, run as processes of this machine: what makes `helm install` work without a container engine.

What is real: the node and its Lease; scheduling; TokenRequests with the node's identity, so that each process has its own service account's
token, bound to its pod, and RBAC is exercised as in production; volumes' contents; probes; restarts; SIGTERM and the grace period; status.

What is faked, plainly: there is no image and no isolation. Whatever image a container names, what runs is the `mlwarden` of the interpreter
that runs this; anything else is refused. No pod network (a pod's address is 127.0.0.1 and stays out of its status, so that Services get no
endpoints), no security context, no resource limits, no liveness probes or lifecycle hooks, and back-offs are shorter than a kubelet's.
Ports and directories that the image would fix come as environment variables (`MLWARDEN_PORT`, `MLWARDEN_SERVICE_ACCOUNT_DIR` …).

Rejected: the real kubelet with containerd (works, but as root only, and on a machine that has both; see the notes on a real node), and
running mlwarden's processes beside the cluster with tokens fetched by hand (then the chart is never tested).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from mlwarden.embedded.api import STRATEGIC_PATCH, Api, ApiError
from mlwarden.embedded.cluster import HOST_NODE, EmbeddedCluster, StartError
from mlwarden.embedded.podworker import PodWorker
from mlwarden.embedded.processes import wait_until
from mlwarden.embedded.stages import NODE_CONDITIONS

TAINT = "mlwarden.io/host"
_LEASE_SECONDS = 40
_HEARTBEAT_SECONDS = 10.0
_PODS = {"fieldSelector": f"spec.nodeName={HOST_NODE}"}


class HostKubelet:
    """The node `mlwarden-host`. Use as a context manager, or call `start` and `close`.

    A pod is scheduled here when it tolerates the taint `mlwarden.io/host` and selects `kubernetes.io/hostname: mlwarden-host`.

    Args:
        cluster: a started cluster.
        program: what runs where a container's command is `mlwarden`.

    Attributes:
        webhook_port: the port on 127.0.0.1 that every pod gets as `MLWARDEN_PORT`; several may listen on it (`SO_REUSEPORT`).
    """

    def __init__(self, cluster: EmbeddedCluster, *, program: Sequence[str] = (sys.executable, "-m", "mlwarden.cli.main")) -> None:
        address = urlsplit(cluster.server)
        self.api: Api = cluster.api("kubelet")
        self.keeper = cluster.keeper
        self.directory: Path = cluster.directory / "pods"
        self.logs_directory: Path = cluster.directory / "logs" / "pods"
        self.server_host = address.hostname or ""
        self.server_port = address.port or 443
        self.program = tuple(program)
        self.starting = threading.Lock()
        self.running = threading.Event()
        self.stopped = threading.Event()
        self._workers: dict[str, PodWorker] = {}
        self._ended: list[PodWorker] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Bound and never listened on: it keeps the port ours while no webhook runs.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.webhook_port: int = self._reserved.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Registers the node and returns when pods can be scheduled on it.

        Raises:
            StartError: the node did not become ready.
        """
        self.directory.mkdir(exist_ok=True)
        self.logs_directory.mkdir(parents=True, exist_ok=True)
        self.running.set()
        self._register()
        for name, loop in (("kubelet-lease", self._keep_lease), ("kubelet-pods", self._follow_pods)):
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        if not wait_until(self._is_schedulable, seconds=30):
            raise StartError(f"node {HOST_NODE} did not become ready", hint="what does `kubectl describe node` say?")

    def close(self) -> None:
        """Kills every pod's processes. The node object stays and becomes NotReady, as after a power cut."""
        self.stopped.set()
        for thread in self._threads:
            thread.join()
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.gone.set()
        for worker in workers:
            worker.join()
        self._reserved.close()

    # For tests and the demo.

    def kill_all(self) -> None:
        """SIGKILL to all of mlwarden, at once; nothing is started again before `resume`."""
        with self.starting:
            self.running.clear()
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.kill()

    def resume(self) -> None:
        """Starts again what should be running."""
        self.running.set()

    def logs(self, pod: str, namespace: str = "") -> str:
        """Returns what a pod's processes wrote so far, also after its end; empty when there was no such pod."""
        with self._lock:
            workers = [*self._ended, *self._workers.values()]
        found = [worker for worker in workers if worker.name == pod and namespace in {"", worker.namespace}]
        return found[-1].logs() if found else ""

    def pids(self, prefix: str = "") -> dict[str, int]:
        """Returns the process ids of running containers as `pod/container`, of pods whose name starts with the prefix."""
        with self._lock:
            workers = [worker for worker in self._workers.values() if worker.name.startswith(prefix)]
        return {f"{worker.name}/{container}": pid for worker in workers for container, pid in worker.pids().items()}

    # The node.

    def _register(self) -> None:
        labels = {"kubernetes.io/hostname": HOST_NODE, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        spec = {"taints": [{"key": TAINT, "value": "true", "effect": "NoSchedule"}]}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": HOST_NODE, "labels": labels}, "spec": spec}
        with contextlib.suppress(ApiError):
            self.api.create("/api/v1/nodes", node)
        now = _now(micro=False)
        conditions = [{**each, "lastHeartbeatTime": now, "lastTransitionTime": now} for each in NODE_CONDITIONS]
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": conditions,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": HOST_NODE}],
        }
        self.api.patch(f"/api/v1/nodes/{HOST_NODE}/status", {"status": status}, content_type=STRATEGIC_PATCH)

    def _is_schedulable(self) -> bool:
        try:
            node = self.api.get(f"/api/v1/nodes/{HOST_NODE}")
        except ApiError:
            return False
        return all(taint["key"] == TAINT for taint in node["spec"].get("taints", []))

    def _keep_lease(self) -> None:
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while not self.stopped.is_set():
            spec = {"holderIdentity": HOST_NODE, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": _now(micro=True)}
            pause = _HEARTBEAT_SECONDS
            try:
                self.api.patch(f"{leases}/{HOST_NODE}", {"spec": spec})
            except ApiError as error:
                pause = 1.0
                if error.code == 404:
                    with contextlib.suppress(ApiError):
                        self.api.create(leases, {"metadata": {"name": HOST_NODE}, "spec": spec})
            self.stopped.wait(pause)

    # Its pods.

    def _follow_pods(self) -> None:
        """List and watch; whatever goes wrong, list again."""
        while not self.stopped.is_set():
            try:
                pods = self.api.get("/api/v1/pods", **_PODS)
                present = {pod["metadata"]["uid"] for pod in pods["items"]}
                for uid in [uid for uid in self._workers if uid not in present]:
                    self._end(uid)
                for pod in pods["items"]:
                    self._see(pod)
                self._watch(pods["metadata"]["resourceVersion"])
            except ApiError:
                self.stopped.wait(0.5)

    def _watch(self, version: str) -> None:
        """Short watches, one after the other, so that `close` need not wait for long."""
        while not self.stopped.is_set():
            for event in self.api.watch("/api/v1/pods", seconds=3, resourceVersion=version, allowWatchBookmarks="true", **_PODS):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "DELETED":
                    self._end(event["object"]["metadata"]["uid"])
                elif event["type"] != "BOOKMARK":
                    self._see(event["object"])

    def _see(self, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        with self._lock:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.pod = pod
                return
            if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"} and not pod["metadata"].get("deletionTimestamp"):
                return
            worker = self._workers[uid] = PodWorker(host=self, pod=pod)
        worker.start()

    def _end(self, uid: str) -> None:
        with self._lock:
            worker = self._workers.pop(uid, None)
            if worker is not None:
                self._ended.append(worker)
        if worker is not None:
            worker.gone.set()


def _now(*, micro: bool) -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")

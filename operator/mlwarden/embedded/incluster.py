"""mlwarden's own pods on a real node: what `kubelet.HostKubelet` is where there is none."""

from __future__ import annotations

import contextlib
import os
import signal

from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import wait_until
from mlwarden.errors import ClusterError

_SECONDS = 60.0
_NAMESPACE = "mlwarden-system"
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments"
_PODS = f"/api/v1/namespaces/{_NAMESPACE}/pods"


class PodsOnNode:
    """The pods of an installation on a real node, for accidents and for reading what they said.

    Args:
        cluster: a started cluster with a real node.
    """

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster = cluster
        self._api = cluster.api()
        self._replicas: dict[str, int] = {}

    def kill_all(self) -> None:
        """SIGKILL to all of mlwarden; nothing is started again before `resume`.

        Deployments of no replicas first: what is merely killed the kubelet would start again.
        """
        for deployment in self._api.get(_DEPLOYMENTS)["items"]:
            name = deployment["metadata"]["name"]
            self._replicas[name] = deployment["spec"]["replicas"]
            self._scale(name, 0)
        if not wait_until(self._killed, seconds=_SECONDS):
            raise ClusterError("mlwarden's pods do not end", hint="what does the kubelet's log say?")

    def resume(self) -> None:
        """Starts again what was running, and returns when the node runs it; ready it is later."""
        for name, replicas in self._replicas.items():
            self._scale(name, replicas)
        self._replicas.clear()

    def logs(self, pod: str, namespace: str = _NAMESPACE) -> str:
        """Returns what a pod's containers wrote so far; what kubectl says of it where there is no such pod."""
        return self._cluster.kubectl("logs", "--namespace", namespace, pod, "--all-containers", "--tail=-1", check=False)

    def _scale(self, name: str, replicas: int) -> None:
        self._api.patch(f"{_DEPLOYMENTS}/{name}/scale", {"spec": {"replicas": replicas}})

    def _killed(self) -> bool:
        """Kills what is there, and returns whether nothing is left: no process, no pod that could be started again."""
        node = self._cluster.node
        found = [number for number, line in node.ground.processes().items() if "/bin/mlwarden " in line] if node else []
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return not found and not self._api.get(_PODS)["items"]

    def await_ready(self) -> None:
        """Waits until every Deployment has the replicas that it should have.

        Raises:
            ClusterError: one has not, after a minute.
        """

        def ready() -> bool:
            found = self._api.get(_DEPLOYMENTS)["items"]
            return all(each["status"].get("readyReplicas", 0) == each["spec"]["replicas"] for each in found)

        if not wait_until(ready, seconds=_SECONDS):
            raise ClusterError("mlwarden does not become ready", hint=f"what does `kubectl -n {_NAMESPACE} get pods` say?")

"""A real node: kubelet, containerd, runc and kube-proxy, in namespaces of their own on this machine. Pods really run.

Images are pulled from the embedded cluster's registry, Services are reachable (also from the API server, so that webhooks are called as in
production), image volumes mount, ephemeral containers start. What a node of a cloud has and this one has not: a network plugin that
enforces NetworkPolicies (`bridge` does not), DNS for Services, and a machine of its own: CPU and memory are those of this one.

Rejected: kind (it needs a container engine, and its node image a registry), and Debian's containerd and runc (too old for image volumes).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlwarden.embedded import build, images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.processes import Process, wait_until
from mlwarden.errors import ClusterError

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.ground import Ground

NODE = "mlwarden-node"
TOOLS = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "runc", "bridge", "loopback", "host-local", "resident")
_PLUGINS = ("bridge", "loopback", "host-local")
_PAUSE = "pause:1"
_SECONDS = 60.0


class NodeError(ClusterError):
    """A part of the node did not start; the message ends with the tail of its log."""


class Node:
    """The node `mlwarden-node` of an embedded cluster that has a ground. Started and closed by the cluster.

    Args:
        cluster: its API server answers.
        ground: started.

    Attributes:
        ground: what it stands on.
        directory: what is the node's on disk.
    """

    def __init__(self, cluster: EmbeddedCluster, ground: Ground) -> None:
        self._cluster = cluster
        self.ground = ground
        self._processes: dict[str, Process] = {}
        self.directory: Path = ground.state

    def start(self) -> None:
        """Starts its parts and returns when the node is Ready.

        Raises:
            NodeError: a part did not start.
        """
        self._configure()
        images.push_image(self._cluster.registry, _PAUSE, runs=True)
        self._start_all()

    def close(self) -> None:
        """Kills its parts; pods go on until the ground goes."""
        for process in reversed(self._processes.values()):
            process.kill()
        self._processes.clear()

    # Accidents.

    def restart(self) -> None:
        """The machine goes down without a word and comes up again: every container is dead, what is on disk is there."""
        self.close()
        self.ground.stop()
        self.ground.start()
        self._start_all()

    def stop_kubelet(self) -> None:
        """Only the kubelet goes; pods go on, and the node becomes NotReady when its lease is over."""
        self._processes.pop("kubelet").kill()

    def start_kubelet(self) -> None:
        """Brings it back and returns when the node is Ready again."""
        self._start_kubelet()
        self._await_ready()

    # Starting.

    def _start_all(self) -> None:
        folders = sorted({str(build.binary(tool).parent) for tool in TOOLS})
        path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
        self._spawn("containerd", f"--config={self.directory}/containerd.toml", PATH=path)
        self._wait_for("containerd", self._containerd_listens)
        self._start_kubelet()
        self._spawn("kube-proxy", f"--config={self.directory}/kube-proxy.yaml")
        self._await_ready()

    def _start_kubelet(self) -> None:
        arguments = (f"--kubeconfig={self._cluster.kubeconfig('node')}", f"--root-dir={self.directory}/kubelet")
        where = (f"--hostname-override={NODE}", f"--node-ip={self.ground.addresses.node}")
        self._spawn("kubelet", f"--config={self.directory}/kubelet.yaml", *arguments, *where)

    def _spawn(self, tool: str, *arguments: str, **environment: str) -> None:
        log = self._cluster.directory / "logs" / f"{tool}.log"
        self._processes[tool] = Process(
            tool,
            self.ground.enter(build.binary(tool), *arguments),
            log=log,
            keeper=self._cluster.keeper,
            environment=self._cluster.environment_of_parts() | environment,
        )

    def _await_ready(self) -> None:
        self._wait_for(f"node {NODE}", self._is_ready)

    def _is_ready(self) -> bool:
        try:
            node = self._cluster.api().get(f"/api/v1/nodes/{NODE}")
        except ApiError:
            return False
        ready = [each for each in node["status"].get("conditions", []) if each["type"] == "Ready" and each["status"] == "True"]
        return bool(ready) and not node["spec"].get("taints")

    def _containerd_listens(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self._socket))
            return True
        return False

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits, but not for the dead."""

        def over() -> bool:
            return condition() or not all(process.alive for process in self._processes.values())

        if not wait_until(over, seconds=_SECONDS) or not condition():
            dead = [process for process in self._processes.values() if not process.alive]
            tails = "\n".join(f"--- {process.name}\n{process.tail(8)}" for process in dead or self._processes.values())
            raise NodeError(f"the embedded node waited in vain for {what}:\n{tails}", hint="the last lines of its logs say why")

    # Configuration.

    @property
    def _socket(self) -> Path:
        return self.directory / "containerd.sock"

    def _configure(self) -> None:
        for folder in ("cni", "plugins", "volume-plugins", f"registries/{self._cluster.registry}"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        for plugin in _PLUGINS:
            (self.directory / "plugins" / plugin).symlink_to(build.binary(plugin))
        self._write("containerd.toml", self._containerd())
        registry = f'server = "http://{self._cluster.registry}"\n'
        self._write(f"registries/{self._cluster.registry}/hosts.toml", registry)
        self._write("cni/10-bridge.conflist", json.dumps(self._network()))
        self._write("kubelet.yaml", yaml.safe_dump(self._kubelet()))
        self._write("kube-proxy.yaml", yaml.safe_dump(self._kube_proxy()))

    def _write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text, encoding="utf-8")

    def _containerd(self) -> str:
        runtime = '[plugins."io.containerd.cri.v1.runtime"'
        return f"""version = 3
root = "{self.directory}/containerd"
state = "/run/containerd"

[grpc]
address = "{self._socket}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{self._cluster.registry}/{_PAUSE}"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "{self.directory}/registries"

{runtime}]
# Without CAP_SYS_RESOURCE runc may not lower it.
restrict_oom_score_adj = true

{runtime}.cni]
bin_dirs = ["{self.directory}/plugins"]
conf_dir = "{self.directory}/cni"

{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

{runtime}.containerd.runtimes.runc.options]
BinaryName = "{build.binary("runc")}"
"""

    def _network(self) -> dict[str, Any]:
        ranges = [[{"subnet": self.ground.addresses.pods}]]
        addresses = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/run/cni"}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
        return {"cniVersion": "1.0.0", "name": "mlwarden", "plugins": [bridge]}

    def _kubelet(self) -> dict[str, Any]:
        pki = self._cluster.pki
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "tlsCertFile": str(pki.kubelet_certificate),
            "tlsPrivateKeyFile": str(pki.kubelet_key),
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(pki.ca)}},
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "podLogsDir": str(self.directory / "pod-logs"),
            "volumePluginDir": str(self.directory / "volume-plugins"),
            "resolvConf": "",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "maxPods": 200,
            "nodeStatusUpdateFrequency": "5s",
            "registryPullQPS": 0,
            "serializeImagePulls": False,
            "syncFrequency": "10s",
        }

    def _kube_proxy(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._cluster.kubeconfig("kube-proxy"))},
            "mode": "iptables",
            "clusterCIDR": self.ground.addresses.pods,
            "hostnameOverride": NODE,
            "conntrack": {"maxPerCore": 0, "min": 0},  # these belong to the machine
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }

"""The fake nodes, and what they do with pods: kwok's stages, shortened.

kwok 0.8 knows no stages unless it is told some. These make a node Ready, a bound pod Running and Ready at once, a Job's pod Succeeded, and
a deleted pod gone. A pod held by a scheduling gate is never bound, and kwok leaves unbound pods alone.
"""

from __future__ import annotations

from typing import Any

import yaml

NODE_CONDITIONS = (
    {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"},
    {"type": "MemoryPressure", "status": "False", "reason": "KubeletHasSufficientMemory", "message": ""},
    {"type": "DiskPressure", "status": "False", "reason": "KubeletHasNoDiskPressure", "message": ""},
    {"type": "PIDPressure", "status": "False", "reason": "KubeletHasSufficientPID", "message": ""},
)
"""The conditions of a healthy node, without times."""

_NODE_READY = """
phase: Running
conditions:
{{ range NodeConditions }}
- {type: {{ .type | Quote }}, status: {{ .status | Quote }}, reason: {{ .reason | Quote }}, message: {{ .message | Quote }},
   lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}
{{ end }}
addresses:
- {type: InternalIP, address: {{ NodeIP | Quote }}}
- {type: Hostname, address: {{ NodeName | Quote }}}
nodeInfo: {architecture: amd64, operatingSystem: linux, kubeletVersion: {{ printf "kwok-%s" Version }}, kubeProxyVersion: "", osImage: "",
  containerRuntimeVersion: kwok, kernelVersion: kwok, bootID: "", machineID: "", systemUUID: ""}
"""

_POD_READY = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ index (NodeIPsWith .spec.nodeName) 0 | Quote }}
{{ $ips := PodIPsWith .spec.nodeName (or .spec.hostNetwork false) .metadata.uid .metadata.name .metadata.namespace }}
podIP: {{ index $ips 0 | Quote }}
podIPs: [{ip: {{ index $ips 0 | Quote }}}]
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ range .spec.readinessGates }}
- {type: {{ .conditionType | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  restartCount: 0
{{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ else }}
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
{{ end }}
"""

_POD_COMPLETE = """
{{ $now := Now }}
phase: Succeeded
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: false
  started: false
  restartCount: 0
  state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
{{ end }}
"""

_READY = '.status.conditions.[] | select( .type == "Ready" ) | .status'


def configuration() -> str:
    """Returns kwok's configuration file."""
    alive = _expression(".metadata.deletionTimestamp", "DoesNotExist")
    stages = [
        _stage("node-ready", "Node", [_expression(_READY, "NotIn", "True")], {"statusTemplate": _NODE_READY}),
        _stage("pod-ready", "Pod", [alive, _expression(".status.phase", "In", "Pending")], {"statusTemplate": _POD_READY}),
        _stage(
            "pod-complete",
            "Pod",
            [alive, _expression(".status.phase", "In", "Running"), _expression(".metadata.ownerReferences.[].kind", "In", "Job")],
            {"statusTemplate": _POD_COMPLETE},
        ),
        _stage("pod-delete", "Pod", [_expression(".metadata.deletionTimestamp", "Exists")], {"delete": True}),
    ]
    return yaml.safe_dump_all(stages, sort_keys=False)


def fake_node(name: str) -> dict[str, Any]:
    """Returns a node that kwok manages, with room for thousands of pods and 8 GPUs."""
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "2000", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "type": "kwok"},
        },
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def _expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def _stage(name: str, kind: str, expressions: list[dict[str, Any]], following: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {"resourceRef": {"apiGroup": "v1", "kind": kind}, "selector": {"matchExpressions": expressions}, "next": following},
    }

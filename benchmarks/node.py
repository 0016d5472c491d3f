"""`make bench BENCH=node`: from `kubectl apply` to `Running` on a real node, and what mlwarden's pods take. As root.

Rounds without mlwarden stand before and after those with it, on the same cluster and node, with the same image, which the node has already.
The evidence is there already, too; both kinds of reference are measured, because a tag costs a write more. A kubelet looks once a second
what has started, so single figures are coarse: medians of many.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measure import Load
from mlwarden.embedded import ground, images, ownimage
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.incluster import PodsOnNode
from mlwarden.embedded.installed import NAMESPACE, Installation

_ROUND = 30
_IMAGES = 40


def main() -> None:
    """Prints two tables."""
    if reason := ground.obstacle() or ownimage.obstacle():
        print(reason)
        return
    ownimage.image(say=print)
    before = time.monotonic()
    with EmbeddedCluster(nodes=0, real_node=True, say=print) as cluster:
        print(f"\ncluster and node ready after {time.monotonic() - before:.1f} s\n")
        digest = images.clean(cluster.registry, "team/server:1", runs=True)
        tag = f"{cluster.registry}/team/server:1"
        cluster.create_namespace("before")
        rows = {"the API server and the node alone": _round(cluster, "before", tag)}
        pods = PodsOnNode(cluster)
        installation = Installation(cluster, pods)
        started = time.monotonic()
        installation.install()
        print(f"helm install, all ready after {time.monotonic() - started:.1f} s\n")
        cluster.create_namespace("held", labels={"mlwarden.io/profile": "production"})
        _start(cluster, "held", "warm", tag)
        rows["held and released, by tag"] = _round(cluster, "held", tag)
        rows["held and released, by digest"] = _round(cluster, "held", f"{tag}@{digest}")
        memory = _memory_under_load(cluster)
        installation.uninstall()
        cluster.create_namespace("after")
        rows["the API server and the node alone, again"] = _round(cluster, "after", tag)
    alone = statistics.median([*rows["the API server and the node alone"], *rows["the API server and the node alone, again"]])
    print(f"| from `kubectl apply` to `Running`, {_ROUND} pods, s | p50 | p90 | added at the median |\n| --- | --- | --- | --- |")
    for name, taken in rows.items():
        p90 = statistics.quantiles(taken, n=10)[-1]
        print(f"| {name} | {statistics.median(taken):.2f} | {p90:.2f} | {statistics.median(taken) - alone:+.2f} |")
    print("\n| pod | resident, idle | highest under load |\n| --- | --- | --- |")
    for name, (idle, most) in memory.items():
        print(f"| {name} | {idle:.0f} MB | {most:.0f} MB |")


def _round(cluster: EmbeddedCluster, namespace: str, image: str) -> list[float]:
    return [_start(cluster, namespace, f"p{number}-{time.time_ns() % 1_000_000}", image) for number in range(_ROUND)]


def _start(cluster: EmbeddedCluster, namespace: str, name: str, image: str) -> float:
    """Seconds from the start of kubectl until the pod's phase is Running, as a watcher of the API server sees it."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    version = cluster.api().get(path)["metadata"]["resourceVersion"]
    started = time.monotonic()
    thread = threading.Thread(target=cluster.kubectl, args=("apply", "-f", "-"), kwargs={"input": json.dumps(_pod(namespace, name, image))})
    thread.start()
    taken = next(_running(cluster, path, name, version, started))
    thread.join()
    cluster.api().delete(f"{path}/{name}", gracePeriodSeconds="0")
    return taken


def _running(cluster: EmbeddedCluster, path: str, name: str, version: str, started: float) -> Iterator[float]:
    while True:
        for event in cluster.api().watch(path, seconds=30, resourceVersion=version, fieldSelector=f"metadata.name={name}"):
            if event["object"].get("status", {}).get("phase") == "Running":
                yield time.monotonic() - started
                return


def _pod(namespace: str, name: str, image: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def _memory_under_load(cluster: EmbeddedCluster) -> dict[str, tuple[float, float]]:
    """MB resident by container, before and the highest during: 10,000 reviews by 20 clients, and forty images to scan."""
    idle = _resident(cluster)
    most = dict(idle)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.1):
            for name, size in _resident(cluster).items():
                most[name] = max(most.get(name, 0.0), size)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        _load(cluster)
    finally:
        over.set()
        sampler.join()
    return {name: (size, most[name]) for name, size in sorted(idle.items())}


def _load(cluster: EmbeddedCluster) -> None:
    names = [f"team/load-{number}:1" for number in range(_IMAGES)]
    for name in names:
        images.clean(cluster.registry, name)
    containers = [
        {**_pod("held", "x", f"{cluster.registry}/{name}")["spec"]["containers"][0], "name": f"c{number}"}
        for number, name in enumerate(names)
    ]
    spec = {**_pod("held", "x", "")["spec"], "containers": containers}
    deployment = {
        "metadata": {"name": "load"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}},
    }
    cluster.api().create("/apis/apps/v1/namespaces/held/deployments", deployment)
    with tempfile.TemporaryDirectory() as directory:
        body = _pod("held", "x", f"{cluster.registry}/team/server:1")
        body["metadata"] = {"generateName": "load-"}
        Load(cluster, "held", body, Path(directory)).run(clients=20, count=10_000)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and _unfinished(cluster):
        time.sleep(0.5)


def _unfinished(cluster: EmbeddedCluster) -> bool:
    found = cluster.api().get("/apis/mlwarden.io/v1alpha1/imageevidences")["items"]
    return any((each.get("status") or {}).get("phase") != "Ready" for each in found)


def _resident(cluster: EmbeddedCluster) -> dict[str, float]:
    """MB of each of mlwarden's containers: its processes, those of trivy and cosign included."""
    names = {
        status["containerID"].rpartition("/")[2]: f"{pod['metadata']['name'].split('-')[1]}: {status['name']}"
        for pod in _pods(cluster)
        for status in pod["status"].get("containerStatuses") or ()
        if status.get("containerID")
    }
    found: dict[str, float] = {}
    assert cluster.node is not None
    taken: dict[str, float] = {}
    for number in cluster.node.ground.processes():
        try:
            group = Path(f"/proc/{number}/cgroup").read_text(encoding="utf-8")
            resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{number}/status").read_text(encoding="utf-8"))
        except OSError:
            continue
        for identity in names:
            if identity in group and resident:
                taken[identity] = taken.get(identity, 0.0) + int(resident[1]) / 1024
    for identity, size in taken.items():  # of replicas the larger one
        found[names[identity]] = max(found.get(names[identity], 0.0), size)
    return found


def _pods(cluster: EmbeddedCluster) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = cluster.api().get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
    return listed

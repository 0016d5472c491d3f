"""`make bench`: what mlwarden costs, as ratios against the same API server in the same run.

Nothing here is asserted: machines are noisy. Figures go to standard output as a table in Markdown, to be pasted into `README.md` beside
the command.

The steps build on each other on one control plane, in this order, because what is in force can only be added:
1. the API server alone; 2. the gate and the guards; 3. with them a webhook that answers `allowed` and looks at nothing (same server, same
TLS); 4. mlwarden, installed by its chart. Step 4 comes with the shipped policies also compiled into the API server; what the webhook adds
is what (c) - (b) is about, so the compiled ones are measured apart.

`make bench BENCH=PART` measures something else: `images` (beside Kyverno), `through` (what gets past either), `deployments`, `engine`,
`refresh` (a new vulnerability database), `node` (a real one, as root).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deployments
import engine
import images
import node
import noop
import refresh
import signed
import through
from measure import Load, latencies, processes, rss, without_compiled
from mlwarden.controllers.gate import gate_objects
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import NAMESPACE, Installation, push_demo_images
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.model.policy import GATE, PROFILE_LABEL, Settings

PARTS: Mapping[str, Callable[[], None]] = {
    "images": images.main,
    "through": through.main,
    "deployments": deployments.main,
    "engine": engine.main,
    "refresh": refresh.main,
    "node": node.main,
}
"""What else can be measured, by name."""
BEYOND_POD_SECURITY = (
    *("env-credentials", "gpu-limits", "resource-limits", "image-scanned", "service-account-token"),
    *("pinned-images", "trusted-registries"),
)
"""The shipped policies that are not controls of the Pod Security Standards."""


def pod(image: str) -> dict[str, Any]:
    """A pod that passes the production pack, of the size that real ones have (about 6 KB with its environment)."""
    padding = [{"name": f"SETTING_{number}", "value": "x" * 60} for number in range(50)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bench-", "labels": {"app": "bench"}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "env": padding,
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def release_times(cluster: EmbeddedCluster, namespace: str, body: dict[str, Any], *, total: int, rate: float) -> list[float]:
    """Creates pods at a fixed rate and returns, in ms, how long each stayed held as a watcher saw it."""
    created: dict[str, float] = {}
    released: dict[str, float] = {}
    path = f"/api/v1/namespaces/{namespace}/pods"
    version = cluster.api().get(path)["metadata"]["resourceVersion"]
    deadline = time.monotonic() + total / rate + 60

    def watch() -> None:
        with contextlib.suppress(ApiError):
            for event in cluster.api().watch(path, seconds=int(total / rate + 60), resourceVersion=version):
                name, gates = event["object"]["metadata"]["name"], event["object"]["spec"].get("schedulingGates")
                now = time.monotonic()
                created.setdefault(name, now)
                if not any(gate["name"] == GATE for gate in gates or ()):
                    released.setdefault(name, now)
                if len(released) >= total or now > deadline:
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    time.sleep(0.5)
    start = time.monotonic()
    for number in range(total):
        delay = start + number / rate - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        cluster.api().create(path, body)
    watcher.join(timeout=90)
    return sorted((released[name] - created[name]) * 1000 for name in released)


def outage(cluster: EmbeddedCluster, kubelet: HostKubelet, load: Load, namespace: str, total: int) -> tuple[float, int]:
    """Kills mlwarden, creates `total` pods, brings it back; returns seconds until all are released, and how many were."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.api().delete(path)
    while cluster.api().get(path)["items"]:
        time.sleep(0.5)
    kubelet.kill_all()
    load.run(clients=8, count=total, dry=False, warm=0)
    kubelet.resume()
    start = time.monotonic()
    while time.monotonic() - start < 180:
        items = cluster.api().get(path)["items"]
        free = sum(not item["spec"].get("schedulingGates") for item in items)
        if free >= total:
            break
        time.sleep(0.5)
    return time.monotonic() - start, free


def main() -> int:
    """Runs all of it and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("pods", *PARTS), default="pods", help="what to measure; by default what pods cost")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-latency", action="store_true")
    options = parser.parse_args()
    if options.part in PARTS:
        PARTS[options.part]()
        return 0
    rows: list[tuple[str, dict[int, dict[str, float]]]] = []
    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster() as cluster, HostKubelet(cluster) as kubelet:
        directory = Path(folder)
        push_demo_images(cluster)
        image = f"{cluster.registry}/clean:1.0"
        cluster.create_namespace("bench", labels={PROFILE_LABEL: "production"})
        load = Load(cluster, "bench", pod(image), directory)
        if not options.skip_latency:
            load.run(clients=8, count=1000)
            rows.append(("API server alone", latencies(load, options.count, options.rounds)))
            for each in gate_objects(Settings(), enforced=True):
                cluster.kubectl("apply", "--server-side", "--filename", "-", input=json.dumps(each))
            time.sleep(2)
            rows.append(("(a) gate and guards", latencies(load, options.count, options.rounds)))
            with noop.serve(cluster, directory):
                time.sleep(1)
                rows.append(("(b) + a no-op webhook", latencies(load, options.count, options.rounds)))
        Installation(cluster, kubelet).install()
        ready = pod(image)
        cluster.api().create("/api/v1/namespaces/bench/pods", ready)
        while not any(not item["spec"].get("schedulingGates") for item in cluster.api().get("/api/v1/namespaces/bench/pods")["items"]):
            time.sleep(0.2)
        if not options.skip_latency:
            rows.append(("mlwarden, everything", latencies(load, options.count, options.rounds)))
            without_compiled(cluster)
            rows.append(("all 25 policies in the webhook only", latencies(load, options.count, options.rounds)))
            for name in BEYOND_POD_SECURITY:
                signed.put_aside(cluster, name)
            time.sleep(2)
            rows.append(("(c) Pod Security restricted in the webhook only", latencies(load, options.count, options.rounds)))
            cluster.kubectl("scale", "deployment/mlwarden-controller", "--namespace", NAMESPACE, "--replicas=2")
            cluster.kubectl("rollout", "status", "deployment/mlwarden-controller", "--namespace", NAMESPACE)
        held = release_times(cluster, "bench", ready, total=1000, rate=50)
        seconds, freed = outage(cluster, kubelet, load, "bench", 1000)
        load.run(clients=20, count=20000)
        containers = ("webhook", "controller", "releaser", "agent", "worker", "verifier")
        memory = {name: [round(rss(pid)) for pid in processes(name)] for name in containers}
    _print(rows, held, seconds, freed, memory)
    return 0


def _print(
    rows: list[tuple[str, dict[int, dict[str, float]]]], held: list[float], seconds: float, freed: int, memory: dict[str, list[int]]
) -> None:
    print(f"\n{os.cpu_count()} cores, pod CREATE with dryRun=All, ms as one Go client process saw them\n")
    print("| | 1 client: avg · p50 · p99 | ratio | 20 clients: avg · p50 · p99 · per s | ratio |\n| --- | --- | --- | --- | --- |")
    for name, found in rows:
        one, many, base = found[1], found[20], rows[0][1]
        ratio, crowded = one["average"] / base[1]["average"], many["average"] / base[20]["average"]
        print(
            f"| {name} | {one['average']:.2f} · {one['p50']:.2f} · {one['p99']:.1f} | {ratio:.2f} "
            f"| {many['average']:.1f} · {many['p50']:.1f} · {many['p99']:.1f} · {many['perSecond']:.0f} | {crowded:.2f} |"
        )
    if held:
        middle, late = held[len(held) // 2], held[int(len(held) * 0.99)]
        print(f"\nfrom created to released at 50 pods per second, {len(held)} pods, in ms:")
        print(f"p50 {middle:.0f}, p99 {late:.0f}, max {held[-1]:.0f}")
    print(f"1,000 pods created during an outage: {freed} released {seconds:.1f} s after the processes were started again")
    print(f"resident memory in MB after 20,000 requests in {NAMESPACE}: {memory}")


if __name__ == "__main__":
    sys.exit(main())

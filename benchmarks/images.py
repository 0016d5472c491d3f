"""What it costs to demand signatures: mlwarden and Kyverno on one API server, one registry, one image and one signature.

In this order: the API server alone; Kyverno with one ImageValidatingPolicy as in its documentation; the API server alone again (the
difference of the two is the noise); mlwarden as its chart installs it, with a policy about signatures beside its own 25; mlwarden with
the policies about scans and signatures alone; and with the one about signatures alone, which is what Kyverno was asked. Everything is
warm: the same image again and again, by digest. Before each, an image that is not signed is refused, by Kyverno and by mlwarden's webhook.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import peer
import signed
from measure import WARM, Load, latencies, processes, processor, rss, without_compiled
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import Installation
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until
from mlwarden.errors import ClusterError
from mlwarden.model.policy import PROFILE_LABEL

CLIENTS = (1, 20, 50)
SHAPES = (1, 8)
SPACE = "bench"
PODS = f"/api/v1/namespaces/{SPACE}/pods"
COUNT, ROUNDS = 200, 3
PROGRAMS = ("kube-apiserver", "etcd", "kyverno", "webhook")
"""Whose processor time is counted: it says more than a clock where others use the machine, too."""
Rows = dict[str, dict[int, dict[int, dict[str, float]]]]
"""What was measured → number of containers → clients → figures."""


def container(image: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def spec(*images: str) -> dict[str, Any]:
    """A pod's spec that passes the production pack, one container per image."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container(image, f"c{number}") for number, image in enumerate(images)],
    }


def pod(*images: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "bench-"}, "spec": spec(*images)}


def warm(cluster: EmbeddedCluster, image: str) -> None:
    """Has mlwarden find out about an image, and returns when a pod of it is released."""
    cluster.api().create(PODS, pod(image))
    signed.await_evidence(cluster, [image])

    def released() -> bool:
        return all(not item["spec"].get("schedulingGates") for item in cluster.api().get(PODS)["items"])

    if not wait_until(released, seconds=60, interval=0.2):
        raise ClusterError("a good pod is not released")


def main() -> None:
    """Runs all of it and prints the tables."""
    rows: Rows = {}
    spent: dict[tuple[str, int], float] = {}
    memory: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster() as cluster, HostKubelet(cluster) as kubelet:
        pushed = signed.push(cluster, Path(folder))
        image = pushed.images["signed"]
        cluster.create_namespace(SPACE, labels={PROFILE_LABEL: "production"})
        loads = {size: Load(cluster, SPACE, pod(*[image] * size), Path(folder)) for size in SHAPES}

        def measured(name: str) -> None:
            rows[name] = {}
            for size, load in loads.items():
                before = processor(*PROGRAMS)
                rows[name][size] = latencies(load, COUNT, ROUNDS, CLIENTS)
                pods = len(CLIENTS) * ROUNDS * (COUNT + WARM)
                spent[name, size] = (processor(*PROGRAMS) - before) * 1000 / pods
            print(f"{name}: {rows[name][1][1]['average']:.1f} ms with 1 client", flush=True)

        loads[1].run(clients=8, count=2000)
        measured("API server alone")
        with peer.Kyverno(cluster) as kyverno:
            kyverno.apply(peer.policy(pushed.ours.pem, cluster.registry), refused=(PODS, pod(pushed.images["unsigned"])))
            loads[1].run(clients=8, count=200)
            measured("Kyverno 1.19.1, one ImageValidatingPolicy")
            if not kyverno.alive:
                raise ClusterError(f"kyverno ended under the load:\n{kyverno.tail()}")
            memory["kyverno"] = [round(rss(kyverno.pid))]
        time.sleep(2)
        measured("API server alone, again")
        Installation(cluster, kubelet).install()
        signed.enforce(cluster, signed.policy([pushed.ours.pem]))
        warm(cluster, image)
        unsigned = pod(pushed.images["unsigned"])
        signed.await_refusal(cluster, PODS, unsigned)
        loads[1].run(clients=8, count=500)
        measured("mlwarden as installed, its 25 policies and imageSignature")
        memory["webhook"] = [round(rss(pid)) for pid in processes("webhook")]
        without_compiled(cluster)
        signed.leave_only(cluster, "image-scanned", signed.POLICY)
        time.sleep(2)
        signed.await_refusal(cluster, PODS, unsigned)
        measured("mlwarden, imageScan and imageSignature alone")
        signed.leave_only(cluster, signed.POLICY)
        time.sleep(2)
        signed.await_refusal(cluster, PODS, unsigned)
        measured("mlwarden, imageSignature alone")
    _print(rows, spent, memory)


def _print(rows: Rows, spent: dict[tuple[str, int], float], memory: dict[str, list[int]]) -> None:
    names = list(rows)
    print(f"\n{os.cpu_count()} cores, pod CREATE with dryRun=All, {ROUNDS} rounds of {COUNT}, medians, ms as one Go process saw them")
    for size in SHAPES:
        print(f"\n**{size} container{'s' if size > 1 else ''}**: average · p50 · p99 ms · per s\n")
        print("| | " + " | ".join(f"{clients} client{'s' if clients > 1 else ''}" for clients in CLIENTS) + " |")
        print("| --- |" + " --- |" * len(CLIENTS))
        for name in names:
            cells = [rows[name][size][clients] for clients in CLIENTS]
            shown = [f"{c['average']:.1f} · {c['p50']:.1f} · {c['p99']:.1f} · {c['perSecond']:.0f}" for c in cells]
            print(f"| {name} | " + " | ".join(shown) + " |")
        base = {clients: (rows[names[0]][size][clients]["average"] + rows[names[2]][size][clients]["average"]) / 2 for clients in CLIENTS}
        kyverno = {clients: rows[names[1]][size][clients]["average"] - base[clients] for clients in CLIENTS}
        for name in (names[1], *names[3:]):
            added = {clients: rows[name][size][clients]["average"] - base[clients] for clients in CLIENTS}
            shown = [f"+{added[clients]:.1f} ms, {added[clients] / kyverno[clients]:.2f} of Kyverno's" for clients in CLIENTS]
            print(f"| added: {name} | " + " | ".join(shown) + " |")
    print(
        "\n**processor time per pod**, ms, of "
        + ", ".join(PROGRAMS)
        + "; in brackets: what is added, and by how much of what Kyverno adds\n"
    )
    print("| | " + " | ".join(f"{size} container{'s' if size > 1 else ''}" for size in SHAPES) + " |\n| --- |" + " --- |" * len(SHAPES))
    for name in names:
        cells = []
        for size in SHAPES:
            base = (spent[names[0], size] + spent[names[2], size]) / 2
            added, kyvernos = spent[name, size] - base, spent[names[1], size] - base
            cells.append(f"{spent[name, size]:.2f} (+{added:.2f}, {added / kyvernos:.2f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nresident memory in MB: {memory}")


if __name__ == "__main__":
    main()

"""One round of `compare.py`: prints figure → ms per pod as JSON, with the code that PYTHONPATH names, on a control plane of its own."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import images
import run
import signed
from measure import WARM, Load, processor, without_compiled
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import Installation, chart, push_demo_images
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.model.policy import PROFILE_LABEL

PROGRAMS = ("kube-apiserver", "etcd", "webhook")
CLIENTS = (1, 20)


def main() -> None:
    """Measures."""
    count = int(sys.argv[1])
    found: dict[str, float] = {}

    def taken(name: str, load: Load) -> None:
        for clients in CLIENTS:
            before = processor(*PROGRAMS)
            found[f"{name}, {clients} client{'s' if clients > 1 else ''}"] = load.run(clients=clients, count=count)["average"]
            found[f"{name}, {clients}, processor"] = (processor(*PROGRAMS) - before) * 1000 / (count + WARM)

    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster() as cluster, HostKubelet(cluster) as kubelet:
        directory = Path(folder)
        push_demo_images(cluster)
        pushed = signed.push(cluster, directory)
        cluster.create_namespace(images.SPACE, labels={PROFILE_LABEL: "production"})
        has_list = "trustedRegistries" in (chart() / "values.yaml").read_text(encoding="utf-8")
        Installation(cluster, kubelet, **({"trustedRegistries": [cluster.registry]} if has_list else {})).install()
        demand = signed.policy([pushed.ours.pem])
        signed.enforce(cluster, demand)  # until the signature was looked at, which nobody does without
        images.warm(cluster, pushed.images["signed"])
        cluster.api().delete(f"/apis/mlwarden.io/v1alpha1/wardenpolicies/{signed.POLICY}")
        body = run.pod(f"{cluster.registry}/clean:1.0")
        cluster.api().create(images.PODS, body)
        large = Load(cluster, images.SPACE, body, directory)
        large.run(clients=8, count=500)
        taken("pods, as installed", large)
        without_compiled(cluster)
        taken("pods, webhook only", large)
        signed.enforce(cluster, demand)
        signed.leave_only(cluster, "image-scanned", signed.POLICY)
        small = Load(cluster, images.SPACE, images.pod(pushed.images["signed"]), directory)
        signed.await_refusal(cluster, images.PODS, images.pod(pushed.images["unsigned"]))
        taken("images, scan and signature", small)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

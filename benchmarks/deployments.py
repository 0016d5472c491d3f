"""Deployments whose images nobody knows yet: how much is asked of registry and cosign, and do 200 of 200 run.

First one pod of 8 containers with one image by its tag, of which 5 authorities must have signed: how many runs of cosign, how many fetches
of the manifest. cosign is counted by a wrapper around it, fetches by the registry's own log. Then 200 Deployments of one pod each, applied
side by side by 20 and by 50, the images unknown (cold) and known (warm).
"""

from __future__ import annotations

import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import signed
from images import SPACE, spec
from mlwarden.embedded import build, images, installed
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until
from mlwarden.embedded.signer import Signer
from mlwarden.errors import ClusterError
from mlwarden.model.policy import PROFILE_LABEL

CONTAINERS, AUTHORITIES = 8, 5
DEPLOYMENTS, DISTINCT = 200, 40
APPLIERS = (20, 50)
_SECONDS = 110.0
_PODS = f"/api/v1/namespaces/{SPACE}/pods"
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{SPACE}/deployments"
_HEAD = "| run | appliers | applied | seconds | running | seconds | runs of cosign |\n| --- | --- | --- | --- | --- | --- | --- |"
_MANIFEST = re.compile(r"(GET|HEAD) /v2/(\S+)/manifests/(\S+)")


def counted_cosign(directory: Path) -> tuple[Path, Path]:
    """Returns a program that is cosign and writes down its first and last argument, and the file that it writes to."""
    program, log = directory / "cosign", directory / "cosign.log"
    log.touch()
    last = 'for last in "$@"; do :; done'
    program.write_text(f'#!/bin/sh\n{last}\necho "$1 $last" >> {log}\nexec {build.binary("cosign")} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return program, log


def verified(log: Path) -> list[str]:
    """Returns the image of every run of `cosign verify`."""
    lines = (line.split() for line in log.read_text(encoding="utf-8").splitlines())
    return [line[-1] for line in lines if line and line[0] == "verify"]


def _with_cosign(cluster: EmbeddedCluster, kubelet: HostKubelet, program: Path) -> dict[str, Any]:
    scanner: dict[str, Any] = installed.values(cluster, kubelet)["scanner"]
    kept = [each for each in scanner["extraArgs"] if not each.startswith("--cosign=")]
    return {**scanner, "extraArgs": [*kept, f"--cosign={program}"]}


def cold_pod(cluster: EmbeddedCluster, signer: Signer, log: Path) -> None:
    """Counts what one pod of many containers costs."""
    keys = [signer.key_pair(f"authority-{number}") for number in range(AUTHORITIES)]
    name = "many/authorities"
    image = f"{cluster.registry}/{name}@{images.clean(cluster.registry, f'{name}:1')}"
    for key in keys:
        signer.sign(image, key)
    rule = signed.policy([key.pem for key in keys], name="signed-by-all")
    rule["spec"]["requirement"]["imageSignature"] |= {"required": AUTHORITIES, "images": [f"{cluster.registry}/many/*"]}
    signed.enforce(cluster, rule)
    time.sleep(2)
    registry = cluster.directory / "logs" / "registry.log"
    before, runs = len(registry.read_text(encoding="utf-8")), len(verified(log))
    start = time.monotonic()
    body = spec(*[f"{cluster.registry}/{name}:1"] * CONTAINERS)
    cluster.api().create(_PODS, {"metadata": {"name": "cold"}, "spec": body})
    if not wait_until(lambda: "nodeName" in cluster.api().get(f"{_PODS}/cold")["spec"], seconds=60):
        raise ClusterError(f"the pod is held: {cluster.api().get('/apis/mlwarden.io/v1alpha1/imageevidences')['items']}")
    seconds = time.monotonic() - start
    fetched = [found.groups() for found in _MANIFEST.finditer(registry.read_text(encoding="utf-8")[before:]) if found[2] == name]
    digest = image.rpartition("@")[2]
    print(f"one pod, {CONTAINERS} containers of one image, {AUTHORITIES} authorities, cold: released after {seconds:.1f} s")
    print(f"- runs of cosign verify: {len(verified(log)) - runs}")
    print(f"- asked by its tag: {sum(what == '1' for _, _, what in fetched)}")
    print(f"- asked by its digest: {sum(what == digest for _, _, what in fetched)}")
    print(f"- other manifests (signatures): {sum(what not in {'1', digest} for _, _, what in fetched)}")
    cluster.api().delete(f"{_PODS}/cold")


def many(cluster: EmbeddedCluster, names: list[str], appliers: int, run: str, log: Path) -> None:
    """Applies so many Deployments side by side, and prints when all their pods run."""

    def apply(number: int) -> str:
        labels = {"app": f"{run}-{number}"}
        template = {"metadata": {"labels": labels}, "spec": spec(names[number % len(names)])}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": labels["app"]}}
        body["spec"] = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        try:
            cluster.api().apply(f"{_DEPLOYMENTS}/{labels['app']}", body)
        except ApiError as error:
            return str(error)
        return ""

    def running() -> int:
        items = cluster.api().get(_PODS)["items"]
        return sum(item["status"].get("phase") == "Running" and item["metadata"]["name"].startswith(f"{run}-") for item in items)

    before = len(verified(log))
    start = time.monotonic()
    with ThreadPoolExecutor(max_workers=appliers) as pool:
        refused = [answer for answer in pool.map(apply, range(DEPLOYMENTS)) if answer]
    applied = time.monotonic() - start
    wait_until(lambda: running() >= DEPLOYMENTS, seconds=_SECONDS, interval=0.5)
    print(
        f"| {run} | {appliers} | {DEPLOYMENTS - len(refused)} of {DEPLOYMENTS} | {applied:.1f} "
        f"| {running()} of {DEPLOYMENTS} | {time.monotonic() - start:.1f} "
        f"| {len(verified(log)) - before} |",
        flush=True,
    )
    for answer in refused[:1]:
        print(f"\nrefused: {answer[:400]}\n")
    cluster.api().delete(_DEPLOYMENTS)
    wait_until(lambda: not cluster.api().get(_PODS)["items"], seconds=60, interval=0.5)


def main() -> None:
    """Prints the counts and the table."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster(nodes=6) as cluster, HostKubelet(cluster) as kubelet:
        directory = Path(folder)
        directory.chmod(0o755)
        program, log = counted_cosign(directory)
        cluster.create_namespace(SPACE, labels={PROFILE_LABEL: "production"})
        plain = [f"{cluster.registry}/plain@{images.clean(cluster.registry, 'plain:1')}"]
        print(f"{DEPLOYMENTS} Deployments of one pod each, the API server alone\n\n{_HEAD}")
        for appliers in APPLIERS:
            many(cluster, plain, appliers, f"alone-{appliers}", log)
        print()
        installed.Installation(cluster, kubelet, scanner=_with_cosign(cluster, kubelet, program)).install()
        signer = Signer(directory)
        cold_pod(cluster, signer, log)
        ours = signer.key_pair("ours")
        rule = signed.policy([ours.pem])
        rule["spec"]["requirement"]["imageSignature"]["images"] = [f"{cluster.registry}/team/*"]
        signed.enforce(cluster, rule)
        print(f"\n{DEPLOYMENTS} Deployments of one pod each, {DISTINCT} images by digest, each signed\n")
        print(_HEAD)
        for appliers in APPLIERS:
            names = []
            for number in range(DISTINCT):
                name = f"team/{appliers}-{number}"
                names.append(f"{cluster.registry}/{name}@{images.clean(cluster.registry, f'{name}:1')}")
                signer.sign(names[-1], ours)
            many(cluster, names, appliers, f"cold-{appliers}", log)
            many(cluster, names, appliers, f"warm-{appliers}", log)


if __name__ == "__main__":
    main()

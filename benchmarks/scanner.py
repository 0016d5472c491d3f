"""`make bench-scanner`: how much of trivy's own speed is left with a queue, claims and evidence around it, and whose turn it is.

1. The same images, by digest, with trivy itself in a loop, so many at the same time; then as evidence that is asked for, all pending
   before the scanner starts, by a scanner that has seen none of them. The ratio says what everything around trivy costs: images of a few
   hundred bytes are the worst case for it. Processor time is of the whole machine: API server, etcd and registry included.
2. A namespace with many images, and another that asks for a few when a quarter of them is done; a registry that never answers; and what a
   template asked for. Printed is when each was answered.

Nothing is asserted: machines are noisy.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mlwarden import evidence
from mlwarden.controllers.install import crds
from mlwarden.embedded import images, trivydb
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.build import binary
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import Process, free_port
from mlwarden.evidence.process import GOGC
from mlwarden.evidence.store import Purpose, Requester

COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
BARE = (
    *("image", "--format", "json", "--no-progress", "--scanners", "vuln", "--image-src", "remote", "--quiet", "--insecure"),
    *("--skip-db-update", "--skip-java-db-update", "--skip-vex-repo-update", "--skip-version-check", "--disable-telemetry"),
    *("--offline-scan", "--cache-backend", "memory", "--parallel", "2", "--list-all-pkgs"),
)


def bare(references: list[str], database: Path, scratch: Path, parallel: int, **environment: str) -> float:
    """Seconds that trivy takes for all of them."""

    def one(reference: str) -> None:
        command = [binary("trivy"), *BARE, "--cache-dir", database, reference]
        done = subprocess.run(command, capture_output=True, check=True, env={"HOME": str(scratch), "TMPDIR": str(scratch), **environment})
        json.loads(done.stdout)

    start = time.monotonic()
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(one, references))
    return time.monotonic() - start


class Answers:
    """When each object had its answer, as a watcher saw it."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster, self._at = cluster, dict[str, float]()
        self.claimed: float | None = None
        version = cluster.api().get(COLLECTION)["metadata"]["resourceVersion"]
        threading.Thread(target=self._watch, args=(version,), daemon=True).start()

    def _watch(self, version: str) -> None:
        """Goes on where a quiet watch was ended."""
        while True:
            with contextlib.suppress(ApiError):
                for event in self._cluster.api().watch(COLLECTION, seconds=3600, resourceVersion=version):
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._seen(event["object"])

    def _seen(self, obj: dict[str, Any]) -> None:
        status = obj.get("status", {})
        if status.get("claimedBy") and self.claimed is None:
            self.claimed = time.monotonic()
        if status.get("phase") == "Ready":
            self._at.setdefault(obj["metadata"]["name"], time.monotonic())

    def wait(self, names: list[str], *, seconds: float = 1800) -> dict[str, float]:
        """Returns when all of them have been answered: name → time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not all(name in self._at for name in names):
            time.sleep(0.05)
        return {name: self._at[name] for name in names if name in self._at}

    def watched(self, names: list[str], label: str) -> dict[str, float]:
        """The same, and prints how far it is now and then."""
        done, told = threading.Event(), time.monotonic()

        def tell() -> None:
            while not done.wait(15):
                print(f"{label}: {self.count()} of {len(names)} after {time.monotonic() - told:.0f} s", file=sys.stderr, flush=True)

        threading.Thread(target=tell, daemon=True).start()
        try:
            return self.wait(names)
        finally:
            done.set()

    def count(self) -> int:
        """How many there are."""
        return len(self._at)


def processor_seconds() -> float:
    """What this machine has computed so far."""
    times = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(times[:3]) + sum(times[5:7])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def silent_registry() -> Iterator[str]:
    """`host:port` of one that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Bench:
    """Both parts, on one control plane.

    Args:
        cluster: with a registry.
        database: trivy's cache.
        directory: for everything else.
        options: `parallel`: scans at the same time; `packages` and `kib`: what is in an image.
    """

    def __init__(self, cluster: EmbeddedCluster, database: Path, directory: Path, options: argparse.Namespace) -> None:
        self._cluster, self._database, self._directory, self._parallel = cluster, database, directory, options.parallel
        self._packages, self._kib = options.packages, options.kib

    @contextlib.contextmanager
    def _scanner(self, *options: str) -> Iterator[Process]:
        """The whole scanner, as one process and its worker; it remembers nothing of others before it."""
        cluster, directory = self._cluster, Path(tempfile.mkdtemp(dir=self._directory))
        command: list[str | Path] = [sys.executable, "-m", "mlwarden.cli.main", "scanner", "--no-database-update", "--host=127.0.0.1"]
        command += [f"--kubeconfig={cluster.kubeconfig()}", f"--probe-port={free_port()}", f"--trivy={binary('trivy')}"]
        command += [f"--cosign={binary('cosign')}", f"--trivy-cache={self._database}", f"--scratch={directory}"]
        command += [f"--plain-http={cluster.registry}", f"--workers={self._parallel}", *options]
        process = Process("scanner", command, log=directory / "scanner.log", keeper=cluster.keeper, environment=dict(os.environ))
        try:
            yield process
        finally:
            process.stop()

    def _ask(self, references: list[str], requester: Requester) -> list[str]:
        """Asks for all of them; returns the objects' names."""
        bodies = [evidence.pending(each, requester) for each in references]
        return [str(self._cluster.api().create(COLLECTION, body)["metadata"]["name"]) for body in bodies]

    def _push(self, prefix: str, count: int) -> list[str]:
        """Pushes distinct images and returns them by digest."""
        registry, found = self._cluster.registry, []
        for number in range(count):
            name, content = f"{prefix}-{number}", random.Random(number).randbytes(self._kib << 10)
            digest = images.push_image(
                registry,
                f"{name}:1",
                alpine={"musl": "1.2.5-r10"} | {f"package-{n}": "1.0-r0" for n in range(self._packages)},
                python={"torch": "2.6.0", "requests": "2.32.4"},
                files={"usr/lib/content": content} if content else None,
            )
            found.append(f"{registry}/{name}@{digest}")
        return found

    def throughput(self, count: int, rounds: int) -> None:
        """Part 1."""
        references = self._push("load", count)
        loop, lazy, scanner = "trivy in a loop", f"the same, with the scanner's GOGC={GOGC}", "mlwarden scanner"
        rates: dict[str, list[float]] = {loop: [], lazy: [], scanner: []}
        costs: dict[str, list[float]] = {loop: [], lazy: [], scanner: []}
        for number in range(1, rounds + 1):
            for which, environment in ((loop, {}), (lazy, {"GOGC": GOGC})):
                before = processor_seconds()
                rates[which].append(count / bare(references, self._database, self._directory, self._parallel, **environment))
                costs[which].append((processor_seconds() - before) / count)
            names = self._ask(references, Requester(namespace="load"))
            answers = Answers(self._cluster)
            with self._scanner():
                while answers.claimed is None:
                    time.sleep(0.02)
                before = processor_seconds()
                last = max(answers.watched(names, f"round {number}").values())
                costs[scanner].append((processor_seconds() - before) / count)
            rates[scanner].append(count / (last - answers.claimed))
            print(f"round {number}:", *(f"{found[-1]:.2f}" for found in rates.values()), "per second", file=sys.stderr, flush=True)
            for name in names:
                self._cluster.api().delete(f"{COLLECTION}/{name}")
        base = statistics.median(rates["trivy in a loop"])
        print(f"\n{count} distinct images, {self._parallel} at the same time, {os.cpu_count()} cores, {rounds} rounds, medians\n")
        print("| | images per second | ratio | processor time of the machine for each, ms |\n| --- | --- | --- | --- |")
        for name, found in rates.items():
            rate, cost = statistics.median(found), statistics.median(costs[name])
            print(f"| {name} | {rate:.2f} | {rate / base:.2f} | {cost * 1000:.0f} |")

    def turns(self, count: int) -> None:
        """Part 2."""
        many, few, template = self._push("many", count), self._push("few", 5), self._push("template", 5)
        with silent_registry() as silent:
            self._ask([f"{silent}/hang-{n}@sha256:{n:064x}" for n in range(1, 11)], Requester(namespace="slow"))
            asked = {
                "5 for a template, first of all": self._ask(template, Requester(purpose=Purpose.TEMPLATE, namespace="template")),
                f"{count} of one namespace, second": self._ask(many, Requester(namespace="many")),
            }
            answers, start = Answers(self._cluster), time.monotonic()
            with self._scanner(f"--plain-http={silent}"):
                while answers.count() < count / 4:
                    time.sleep(0.02)
                late = time.monotonic()
                asked["5 of another, when a quarter is done"] = self._ask(few, Requester(namespace="few"))
                found = {who: sorted(answers.wait(names).values()) for who, names in asked.items()}
        print(f"\n10 images of a registry that never answers asked for before, {self._parallel} at the same time; seconds from the start\n")
        print("| who | asked | first answer | last answer |\n| --- | --- | --- | --- |")
        for who, times in found.items():
            asked_at = late - start if who.startswith("5 of another") else 0.0
            print(f"| {who} | {asked_at:.1f} | {times[0] - start:.1f} | {times[-1] - start:.1f} |")
        letters = dict(zip(found, "TMF", strict=True))
        order = sorted((at, letters[who]) for who, times in found.items() for at in times)
        runs = [(letter, len(list(run))) for letter, run in itertools.groupby(letter for _, letter in order)]
        line = " ".join(f"{number}{letter}" for letter, number in runs)
        print(f"\nIn the order of the answers (T: of the template, M: of the many, F: of the few): {line}")


def main() -> int:
    """Runs both parts and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--packages", type=int, default=0, help="in each image, beside three")
    parser.add_argument("--kib", type=int, default=0, help="of noise in each image")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster() as cluster:
        directory = Path(folder)
        database = trivydb.make_database(directory / "cache")
        for crd in crds():
            cluster.api().apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd)
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}", "--timeout=60s")
        bench = Bench(cluster, database, directory, options)
        bench.throughput(options.count, options.rounds)
        bench.turns(max(options.count // 5, 20))
    return 0


if __name__ == "__main__":
    sys.exit(main())

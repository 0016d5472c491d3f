"""What every part of the benchmarks measures with: the load generator, and what a process takes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlwarden.embedded import build
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import NAMESPACE
from mlwarden.policy.admission_policies import PREFIX

HERE = Path(__file__).parent
WARM = 100
"""Pods before those that are measured."""
_NUMBERS = itertools.count()


class Load:
    """The load generator (Go, standard library), pointed at one cluster and namespace."""

    def __init__(self, cluster: EmbeddedCluster, namespace: str, body: dict[str, Any], directory: Path) -> None:
        self._cluster = cluster
        self._binary = directory / "load"
        if not self._binary.exists():
            subprocess.run([build.compiler(HERE / "load" / "go.mod"), "build", "-o", self._binary, "."], cwd=HERE / "load", check=True)
        self._body = directory / f"body-{next(_NUMBERS)}.json"
        self._body.write_text(json.dumps(body))
        self._url = f"{cluster.server}/api/v1/namespaces/{namespace}/pods"

    def run(self, *, clients: int, count: int, dry: bool = True, warm: int = WARM) -> dict[str, Any]:
        """Posts `count` pods; returns average, p50, p95, p99 in ms, perSecond and failures."""
        answer = subprocess.run(
            [
                *(str(self._binary), "-url", self._url + ("?dryRun=All" if dry else ""), "-ca", str(self._cluster.pki.ca)),
                *(
                    "-token",
                    self._cluster.token(),
                    "-body",
                    str(self._body),
                    "-clients",
                    str(clients),
                    "-count",
                    str(count),
                    "-warm",
                    str(warm),
                ),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        result: dict[str, Any] = json.loads(answer.stdout)
        if result["failures"]:
            print(f"!! {result['failures']} failures: {result['example']}", file=sys.stderr)
        return result


def latencies(load: Load, count: int, rounds: int, clients: Sequence[int] = (1, 20)) -> dict[int, dict[str, float]]:
    """The median of several rounds, per number of clients."""
    found: dict[int, dict[str, float]] = {}
    for many in clients:
        runs = [load.run(clients=many, count=count) for _ in range(rounds)]
        found[many] = {key: statistics.median(run[key] for run in runs) for key in ("average", "p50", "p95", "p99", "perSecond")}
    return found


def rss(pid: int) -> float:
    """Resident memory in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def processes(word: str) -> list[int]:
    """Process ids of `mlwarden WORD …`, found by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if word.encode() in command and any(b"mlwarden" in part for part in command):
                found.append(int(entry.name))
    return found


def processor(*names: str) -> float:
    """Seconds of processor time that our descendants of these names (a program, or a command of mlwarden's) took so far."""
    parents: dict[int, int] = {}
    taken: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            parents[int(entry.name)] = int(stat[1])
            command = (entry / "cmdline").read_text().split("\0")
            if Path(command[0]).name in names or ("mlwarden.cli.main" in command and not set(names).isdisjoint(command)):
                taken[int(entry.name)] = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return sum(seconds for pid, seconds in taken.items() if ours(pid))


def without_compiled(cluster: EmbeddedCluster) -> None:
    """Takes the policies out of the API server: the controller, which would put them back, goes first."""
    cluster.kubectl("scale", "deployment/mlwarden-controller", "--namespace", NAMESPACE, "--replicas=0")
    base = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    while any("controller" in item["metadata"]["name"] for item in cluster.api().get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]):
        time.sleep(0.2)
    for binding in cluster.api().get(base)["items"]:
        if binding["spec"]["policyName"].startswith(PREFIX):
            cluster.api().delete(f"{base}/{binding['metadata']['name']}")
    time.sleep(2)

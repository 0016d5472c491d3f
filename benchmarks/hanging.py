"""`python benchmarks/hanging.py`: an honest image's time to evidence, without and with fifteen registries that hang, named by others.

Each round is an image that nobody has seen, with an attestation and a VEX document that excuses what is found in it. An editor of another
namespace names the same digest in fifteen repositories whose hosts take every connection and never answer, fourteen before and one after
the honest request. Printed is how long it takes until the scan with its excuse, and the attestation, can be relied on for the honest
repository. Rounds with and without alternate; nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlwarden import evidence, policy
from mlwarden.controllers.install import crds
from mlwarden.embedded import images, trivydb
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.build import binary
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import Process, free_port, wait_until
from mlwarden.embedded.signer import KeyPair, Signer, openvex
from mlwarden.evidence import store
from mlwarden.evidence.store import Requester
from mlwarden.model.evidence import SIGNATURES
from mlwarden.model.signing import PREDICATES

COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
HANGING = 15
FOUND = "CVE-2025-32434"


@contextlib.contextmanager
def hanging(count: int) -> Iterator[list[str]]:
    """Hosts that take connections and say nothing."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512)) for _ in range(count)]
        yield [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def ask(cluster: EmbeddedCluster, wanted: str, namespace: str) -> str:
    """Asks as the webhook does; returns the object's name."""
    api, requester = cluster.api(), Requester(namespace=namespace)
    name = evidence.name_for(wanted)
    while True:
        try:
            api.create(COLLECTION, evidence.pending(wanted, requester))
        except ApiError as error:
            if error.code != 409:
                raise
            stored = store.read(api.get(f"{COLLECTION}/{name}"))
            try:
                api.patch(f"{COLLECTION}/{name}", store.request(stored, wanted, datetime.now(UTC), requester))
            except ApiError as conflict:
                if conflict.code == 409:
                    continue
                raise
        return name


def _policy(name: str, requirement: dict[str, Any]) -> dict[str, Any]:
    spec = {"profiles": {"production": "Deny"}, "requirement": requirement, "message": "m", "why": "w", "fix": {"text": "f"}}
    return {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}


class Bench:
    """A scanner, a registry, and a key whose word counts."""

    def __init__(self, cluster: EmbeddedCluster, directory: Path, most: float) -> None:
        self.cluster, self.most = cluster, most
        self.signer = Signer(directory)
        self.key: KeyPair = self.signer.key_pair("team")
        attested = {"authorities": [{"name": "team", "key": self.key.pem}], "predicateType": "vuln"}
        for name, requirement in (
            ("attested", {"imageAttestation": attested}),
            ("excused", {"imageScan": {"vex": attested["authorities"]}}),
        ):
            body = _policy(name, requirement)
            policy.compile_policy(policy.parse(body))
            cluster.api().apply(f"{POLICIES}/{name}", body)

    def image(self, number: int) -> str:
        """A new one, with all that belongs to it."""
        python = {"torch": "2.5.1", f"only-{number}": "1"}
        digest = images.push_image(self.cluster.registry, f"team/home{number}:1", alpine={"musl": "1.2.5-r10"}, python=python)
        home = f"{self.cluster.registry}/team/home{number}@{digest}"
        now = datetime.now(UTC).isoformat()
        scanned = {"scanner": {"result": {"critical": 0}}, "metadata": {"scanStartedOn": now, "scanFinishedOn": now}}
        self.signer.attest(home, self.key, type=PREDICATES["vuln"], predicate=scanned)
        self.signer.attest(home, self.key, type="openvex", predicate=openvex(digest, FOUND, "not_affected"))
        return home

    def round(self, number: int, hosts: list[str]) -> dict[str, float]:
        """Seconds until scan and attestation can be relied on; `inf` where they cannot within the time that there is."""
        home = self.image(number)
        digest = home.rpartition("@")[2]
        copies = [f"{host}/evil/copy@{digest}" for host in hosts]
        for copy in copies[:-1]:
            for wanted in (copy, SIGNATURES + copy):
                ask(self.cluster, wanted, "evil")
        start = time.monotonic()
        names = {"scan": ask(self.cluster, home, "team"), "attestation": ask(self.cluster, SIGNATURES + home, "team")}
        for copy in copies[-1:]:
            for wanted in (copy, SIGNATURES + copy):
                ask(self.cluster, wanted, "evil")
        found: dict[str, float] = {}
        holds: dict[str, Callable[[dict[str, Any]], bool]] = {"scan": excused, "attestation": attested}
        while len(found) < len(names) and time.monotonic() - start < self.most:
            for what, name in names.items():
                status = self.cluster.api().get(f"{COLLECTION}/{name}").get("status", {})
                if what not in found and holds[what](status) and from_home(status, home):
                    found[what] = time.monotonic() - start
            time.sleep(0.02)
        return {what: found.get(what, float("inf")) for what in names}


def excused(status: dict[str, Any]) -> bool:
    """Whether there is a scan with its excuse."""
    return status.get("phase") == "Ready" and bool(status.get("scan", {}).get("suppressed"))


def attested(status: dict[str, Any]) -> bool:
    """Whether there is an attestation that was verified."""
    return any(proof["outcome"] == "Verified" for proof in status.get("proofs", ()))


def from_home(status: dict[str, Any], home: str) -> bool:
    """Whether the honest repository itself has answered; before that was noted, everything was an answer of all."""
    places = {place["reference"]: place.get("answered") for place in status.get("places", ())}
    return bool(places.get(home)) if places else True


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="with and without, each")
    parser.add_argument("--most", type=float, default=360, metavar="SECONDS", help="for one round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlwarden-hanging-") as temporary, EmbeddedCluster() as cluster, hanging(HANGING) as hosts:
        directory = Path(temporary)
        for crd in crds():
            cluster.api().apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}", crd)
        wait_until(lambda: _served(cluster), seconds=30)
        bench = Bench(cluster, directory, options.most)
        database, scratch = trivydb.make_database(directory / "trivy"), directory / "scratch"
        scratch.mkdir()
        command: list[str | Path] = [sys.executable, "-m", "mlwarden.cli.main", "scanner", f"--kubeconfig={cluster.kubeconfig()}"]
        command += ["--host=127.0.0.1", f"--probe-port={free_port()}", f"--trivy={binary('trivy')}", f"--cosign={binary('cosign')}"]
        command += [f"--trivy-cache={database}", f"--scratch={scratch}", "--no-database-update"]
        command += [f"--plain-http={host}" for host in (cluster.registry, *hosts)]
        process = Process("scanner", command, log=directory / "scanner.log", keeper=cluster.keeper, environment=dict(os.environ))
        try:
            bench.round(0, [])  # the first one waits for the tools to be tried out
            taken: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
            for number in range(options.rounds):
                for kind, named in (("without", []), ("with", hosts)):
                    taken[kind].append(bench.round(1 + 2 * number + (kind == "with"), named))
                    print(f"{kind}: {taken[kind][-1]}", file=sys.stderr, flush=True)
        finally:
            process.stop()
    print("| seconds until it can be relied on, median | without | with 15 that hang | ratio |\n| --- | --- | --- | --- |")
    for what in ("scan", "attestation"):
        alone, beside = (statistics.median(each[what] for each in taken[kind]) for kind in ("without", "with"))
        print(f"| {'scan and excuse' if what == 'scan' else what} | {alone:.2f} | {beside:.2f} | {beside / alone:.1f} |")


def _served(cluster: EmbeddedCluster) -> bool:
    try:
        return all(cluster.api().get(each) is not None for each in (COLLECTION, POLICIES))
    except ApiError:
        return False


if __name__ == "__main__":
    main()

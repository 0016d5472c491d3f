"""Every way in which an image gets into a pod, tried with every kind of image that should not.

One table for two readers: `mlwarden demo` prints it, a test asserts it. Ways are tried as an ordinary user, with the real kubectl where a
person would use it. What counts is what came of it: a pod that waits behind the gate has not started, and neither has one that was refused.

The evidence of the first columns is there before they are tried: a template without replicas is enough for that. For the last two the
scanner is stopped, so that what is unscanned stays so and what was scanned long ago is not scanned again; then it comes back, and what was
held starts by itself.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import NAMESPACE
from mlwarden.embedded.node import NODE
from mlwarden.embedded.processes import wait_until
from mlwarden.embedded.signer import Signer
from mlwarden.errors import ClusterError

SPACE = "ways"
STATES = ("unsigned", "wrong signer", "vulnerable", "unscanned", "stale scan", "good")
WITHOUT_SCANNER = ("unscanned", "stale scan")
REFUSED, HELD, RUNS, ADMITTED = "refused", "held", "runs", "admitted"
POLICY, _FRESH = "ways-signed", "ways-fresh"
_SECONDS = 60.0
_EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
_POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
_PODS = f"/api/v1/namespaces/{SPACE}/pods"
_TARGET = "target"


@dataclass(kw_only=True)
class Cell:
    """One way tried with one kind of image.

    Attributes:
        way: how it gets in.
        state: what is wrong with the image, or `good`.
        outcome: refused, held, runs or admitted (a template that runs nothing by itself).
        said: what the person was told, where it was refused.
    """

    way: str
    state: str
    outcome: str
    said: str = ""

    @property
    def right(self) -> bool:
        """A good image starts, nothing else does; of a template the pods are held when they come."""
        if self.state == "good":
            return self.outcome in {RUNS, ADMITTED}
        return self.outcome in {REFUSED, HELD} or (self.outcome == ADMITTED and self.state in WITHOUT_SCANNER)


class Ways:
    """Tries all of them.

    Args:
        cluster: with mlwarden installed, and the ML kinds of `install_ml_kinds`.
        say: told what is being done.

    Attributes:
        cells: what came of it.
        images: state → `repository@sha256:…`.
    """

    def __init__(self, cluster: EmbeddedCluster, say: Callable[[str], None] = lambda _: None) -> None:
        self._cluster, self._say = cluster, say
        self._admin, self._alice = cluster.api(), cluster.api("alice")
        self.cells: list[Cell] = []
        self.images: dict[str, str] = {}
        self._ways: Mapping[str, Callable[[str, str], Cell]] = {
            "container": lambda state, image: self._pod("container", state, _spec(image)),
            "init container": lambda state, image: self._pod("init container", state, _spec(self.images["good"], init=image)),
            "image volume": lambda state, image: self._pod("image volume", state, _spec(self.images["good"], volume=image)),
            "Deployment": self._deployment,
            "RayCluster worker": self._ray,
            "kubectl debug": self._debug,
            "kubectl debug --copy-to": self._copy,
            "pod that names its node": lambda state, image: self._pod(
                "pod that names its node", state, _spec(image, node=NODE if cluster.node else "node-0")
            ),
        }

    def run(self) -> list[Cell]:
        """Tries every way with every kind of image, and returns the table. What it made stays in the namespace until `clean`."""
        self._prepare()
        first = [state for state in STATES if state not in WITHOUT_SCANNER]
        self._attempts(first)
        self._observe()
        self._say("the scanner is stopped: what is unscanned stays so, what is old is not scanned again")
        self._scale(0)
        self._admin.apply(f"{_POLICIES}/{_FRESH}", _policy(_FRESH, {"imageScan": {"maxAge": "5s"}}, "image {image} has known holes"))
        self._wait(self._is_old, "the scan does not grow old")
        self._attempts(WITHOUT_SCANNER)
        self._observe()
        self.cells.sort(key=lambda cell: (list(self._ways).index(cell.way), STATES.index(cell.state)))
        return self.cells

    def come_back(self) -> list[str]:
        """Starts the scanner again, with scans that may be older than seconds; returns what was held and does not run by itself then."""
        self._say("the scanner comes back")
        self._admin.delete(f"{_POLICIES}/{_FRESH}")
        self._scale(1)
        held = [cell for cell in self.cells if cell.state in WITHOUT_SCANNER and cell.outcome == HELD]
        wait_until(lambda: all(self._phase(_name(cell)) == RUNS for cell in held), seconds=_SECONDS)
        return [f"{cell.way}, {cell.state}" for cell in held if self._phase(_name(cell)) != RUNS]

    def debug_again(self, state: str) -> Cell:
        """`kubectl debug` as before, until it is not told any more to try again."""
        tries: list[Cell] = []

        def tried() -> bool:
            tries.append(self._debug(state, self.images[state]))
            return tries[-1].outcome == RUNS

        wait_until(tried, seconds=_SECONDS)
        return tries[-1]

    def clean(self) -> None:
        """Takes everything away again."""
        for path in (f"{_POLICIES}/{POLICY}", f"{_POLICIES}/{_FRESH}", f"/api/v1/namespaces/{SPACE}"):
            with contextlib.suppress(ApiError):
                self._admin.delete(path)

    # Before.

    def _prepare(self) -> None:
        cluster = self._cluster
        cluster.create_namespace(SPACE, labels={"mlwarden.io/profile": "production"})
        cluster.grant("alice", "edit", SPACE)
        self._may_debug()
        with tempfile.TemporaryDirectory() as directory:
            signer = Signer(Path(directory))
            ours, theirs = signer.key_pair("ours"), signer.key_pair("theirs")
            for state in STATES:
                make = images.vulnerable if state == "vulnerable" else images.clean
                name = f"debug-ways/{state.replace(' ', '-')}"  # a name that the list of debug images allows
                self.images[state] = f"{cluster.registry}/{name}@{make(cluster.registry, f'{name}:1', runs=cluster.node is not None)}"
                if state != "unsigned":
                    signer.sign(self.images[state], theirs if state == "wrong signer" else ours)
            signed = {"imageSignature": {"authorities": [{"name": "release", "key": ours.pem}]}}
            self._admin.apply(f"{_POLICIES}/{POLICY}", _policy(POLICY, signed, "image {image} is not signed by the release key"))
        self._prewarm()
        self._create(_PODS, {"metadata": {"name": _TARGET}, "spec": _spec(self.images["good"])})
        self._wait(lambda: self._phase(_TARGET) == RUNS, "a good pod does not run")

    def _may_debug(self) -> None:
        """`edit` does not include ephemeral containers."""
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SPACE}"
        rule = {"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["patch", "update"]}
        self._admin.create(f"{rbac}/roles", {"metadata": {"name": "debug"}, "rules": [rule]})
        body = {
            "metadata": {"name": "debug"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debug"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}],
        }
        self._admin.create(f"{rbac}/rolebindings", body)

    def _prewarm(self) -> None:
        """A template without replicas names all images; their evidence is there before any pod is."""
        known = [state for state in STATES if state != "unscanned"]
        containers = [_container(self.images[state], f"c{number}") for number, state in enumerate(known)]
        self._create(
            f"/apis/apps/v1/namespaces/{SPACE}/deployments", _deployment("prewarm", {**_spec(""), "containers": containers}, replicas=0)
        )
        self._say("a Deployment without replicas names the images; waiting for what is found out about them")
        for state in known:
            digest = self.images[state].rpartition("sha256:")[2]
            for name in (f"sha256-{digest}", f"signatures-{digest}"):
                self._wait(partial(self._is_ready, name), f"there is no {name}, about the image {state}")

    def _is_ready(self, name: str) -> bool:
        try:
            return bool((self._admin.get(f"{_EVIDENCE}/{name}").get("status") or {}).get("phase") == "Ready")
        except ApiError:
            return False

    def _is_old(self) -> bool:
        digest = self.images["stale scan"].rpartition("sha256:")[2]
        scanned = self._admin.get(f"{_EVIDENCE}/sha256-{digest}")["status"]["scan"]["scannedAt"]
        return datetime.now(UTC) - datetime.fromisoformat(scanned) > timedelta(seconds=6)

    def _scale(self, replicas: int) -> None:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/mlwarden-scanner"
        self._admin.patch(f"{path}/scale", {"spec": {"replicas": replicas}})
        self._wait(lambda: (self._admin.get(path).get("status") or {}).get("readyReplicas", 0) == replicas, "the scanner does not scale")
        selector = "app.kubernetes.io/component=scanner"
        self._wait(
            lambda: len(self._admin.get(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)["items"]) == replicas,
            "the scanner does not go",
        )

    # The attempts.

    def _attempts(self, states: tuple[str, ...] | list[str]) -> None:
        for way, attempt in self._ways.items():
            self._say(f"trying: {way}")
            for state in states:
                self.cells.append(attempt(state, self.images[state]))

    def _pod(self, way: str, state: str, spec: dict[str, Any]) -> Cell:
        cell = Cell(way=way, state=state, outcome="")
        return self._tried(cell, _PODS, {"metadata": {"name": _name(cell)}, "spec": spec})

    def _deployment(self, state: str, image: str) -> Cell:
        cell = Cell(way="Deployment", state=state, outcome="")
        return self._tried(cell, f"/apis/apps/v1/namespaces/{SPACE}/deployments", _deployment(_name(cell), _spec(image)))

    def _ray(self, state: str, image: str) -> Cell:
        cell = Cell(way="RayCluster worker", state=state, outcome=ADMITTED)
        groups = [{"groupName": "w", "template": {"spec": _spec(image)}}]
        spec = {"headGroupSpec": {"template": {"spec": _spec(self.images["good"])}}, "workerGroupSpecs": groups}
        body = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": _name(cell)}, "spec": spec}
        return self._tried(cell, f"/apis/ray.io/v1/namespaces/{SPACE}/rayclusters", body)

    def _tried(self, cell: Cell, path: str, body: dict[str, Any]) -> Cell:
        try:
            self._alice.create(path, body)
        except ApiError as error:
            cell.outcome, cell.said = REFUSED, str(error)
        return cell

    def _debug(self, state: str, image: str) -> Cell:
        name = f"{state.replace(' ', '-')}-{len(self._ephemeral())}"
        arguments = ("--image", image, "--container", name, "--profile", "restricted", "--attach=false", "--quiet", "--", "/app/server")
        said = self._cluster.kubectl("debug", _TARGET, "-n", SPACE, *arguments, user="alice", check=False)
        if name not in self._ephemeral():
            return Cell(way="kubectl debug", state=state, outcome=REFUSED, said=said.strip())
        started = self._cluster.node is None or wait_until(lambda: self._debugs(name), seconds=_SECONDS)
        outcome = RUNS if started else "added, does not run"
        return Cell(way="kubectl debug", state=state, outcome=outcome, said=said.strip())

    def _ephemeral(self) -> list[str]:
        return [each["name"] for each in self._admin.get(f"{_PODS}/{_TARGET}")["spec"].get("ephemeralContainers") or ()]

    def _debugs(self, name: str) -> bool:
        """On a real node: whether the container really runs. kwok says nothing of such containers."""
        statuses = self._admin.get(f"{_PODS}/{_TARGET}")["status"].get("ephemeralContainerStatuses") or ()
        return any(each["name"] == name and "running" in each["state"] for each in statuses)

    def _copy(self, state: str, image: str) -> Cell:
        cell = Cell(way="kubectl debug --copy-to", state=state, outcome="")
        arguments = ("--copy-to", _name(cell), "--set-image", f"main={image}", "--keep-labels=false", "--quiet")
        said = self._cluster.kubectl("debug", _TARGET, "-n", SPACE, *arguments, user="alice", check=False)
        if not self._phase(_name(cell)):
            cell.outcome, cell.said = REFUSED, said.strip()
        return cell

    def _observe(self) -> None:
        """Waits until everything good runs, and looks what became of the rest."""
        waiting = [cell for cell in self.cells if not cell.outcome]
        good = [cell for cell in waiting if cell.state == "good"]
        wait_until(lambda: all(self._phase(_name(cell)) == RUNS for cell in good), seconds=_SECONDS)
        for cell in waiting:
            cell.outcome = self._phase(_name(cell)) or "nothing"

    def _phase(self, name: str) -> str:
        """What became of a pod of this name, or of one that a Deployment of this name made: held, runs, or nothing."""
        pods = self._admin.get(_PODS)["items"]
        own = [pod for pod in pods if pod["metadata"]["name"] == name or pod["metadata"]["name"].startswith(f"{name}-")]
        if not own:
            return ""
        if any(pod["spec"].get("schedulingGates") for pod in own):
            return HELD
        phases = {pod["status"].get("phase") for pod in own}
        return RUNS if phases == {"Running"} else f"started: {', '.join(sorted(map(str, phases)))}"

    def _create(self, path: str, body: dict[str, Any]) -> None:
        self._alice.create(path, body)

    def _wait(self, condition: Callable[[], bool], complaint: str) -> None:
        if not wait_until(condition, seconds=_SECONDS):
            said = {event.get("message", "") for event in self._admin.get(f"/api/v1/namespaces/{SPACE}/events")["items"]}
            raise ClusterError(f"{complaint}, after {_SECONDS:.0f} s; Events: {'; '.join(sorted(said)) or 'none'}")


def _name(cell: Cell) -> str:
    return f"{cell.way} {cell.state}".lower().replace("--", "").replace(" ", "-")


def _container(image: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _spec(image: str, *, init: str = "", volume: str = "", node: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_container(image, "main")],
    }
    if init:
        spec["initContainers"] = [{**_container(init, "setup"), "args": ["say", "done"]}]
    if volume:
        spec["volumes"] = [{"name": "weights", "image": {"reference": volume, "pullPolicy": "IfNotPresent"}}]
    if node:
        spec["nodeName"] = node
    return spec


def _deployment(name: str, spec: dict[str, Any], *, replicas: int = 1) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}}


def _policy(name: str, requirement: dict[str, Any], message: str) -> dict[str, Any]:
    return {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": name},
        "spec": {
            "profiles": {"production": "Deny"},
            "severity": "critical",
            "match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SPACE}}},
            "requirement": requirement,
            "message": message,
            "why": "what nobody signed may have been pushed by anybody: a signature says that it went through the review of the release",
            "references": ["OWASP ML Security Top 10 ML06:2023 AI Supply Chain Attacks"],
            "fix": {"text": "have the release pipeline build, scan and sign it: cosign sign --key … IMAGE@sha256:…"},
        },
    }


def shown(cell: Cell) -> str:
    """Returns the line of a refusal that says what is wrong, for a person who looks at the table."""
    text = cell.said
    if text.startswith("{"):
        text = str(json.loads(text).get("message", text))
    return next((line for line in text.splitlines() if " by " in line or "try again" in line), text.partition("\n")[0])[:300]

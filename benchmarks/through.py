"""What gets through: every way an image gets into a pod, signed, signed by another key and not signed, with mlwarden and with Kyverno.

Each way is tried as an administrator, with the real kubectl where a person would use it. The pods that are debugged are older than any
policy; one of them already has an ephemeral container whose image is named by a tag. mlwarden knows the images from a Deployment without
replicas, so what is refused is refused at once; without that it would be held first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peer
import signed
from images import container, spec
from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.installed import Installation, install_ml_kinds
from mlwarden.embedded.kubelet import HostKubelet
from mlwarden.embedded.processes import wait_until
from mlwarden.errors import ClusterError
from mlwarden.model.policy import PROFILE_LABEL

_SECONDS = 20.0
_OLD, _FRESH = "old", "fresh"


class Attempts:
    """All ways in one namespace.

    Args:
        cluster: where.
        space: a namespace that does not exist yet.
        pushed: what there is.
        directory: for more keys.
    """

    def __init__(self, cluster: EmbeddedCluster, space: str, pushed: signed.Signed) -> None:
        self._cluster, self._space, self._pushed, self._api = cluster, space, pushed, cluster.api()
        self._pods = f"/api/v1/namespaces/{space}/pods"
        self.said: dict[tuple[str, str], str] = {}
        self.ways: Mapping[str, Callable[[str, str], str]] = {
            "container": lambda kind, image: self._pod(f"container-{kind}", spec(image)),
            "init container": lambda kind, image: self._pod(f"init-{kind}", {**self._good(), "initContainers": [container(image, "i")]}),
            "image volume": lambda kind, image: self._pod(f"volume-{kind}", {**self._good(), "volumes": [_volume(image)]}),
            "`kubectl debug`, fresh pod": lambda kind, image: self._debug(_FRESH, kind, image),
            "`kubectl debug`, pod with an older unpinned one": lambda kind, image: self._debug(_OLD, kind, image),
            "Deployment": self._deployment,
            "RayCluster": self._ray,
            "pod that names its node": lambda kind, image: self._pod(f"node-{kind}", {**spec(image), "nodeName": "node-0"}),
            "tag that moves afterwards": self._moving,
        }
        cluster.create_namespace(space, labels={PROFILE_LABEL: "production"})
        for kind in signed.KINDS:
            for age in (_OLD, _FRESH):
                self._api.create(self._pods, {"metadata": {"name": f"{age}-{_slug(kind)}"}, "spec": self._good()})
            by_tag = f"{pushed.images['signed'].partition('@')[0]}:1"
            cluster.kubectl("debug", f"{_OLD}-{_slug(kind)}", "-n", space, "--image", by_tag, "--container", "older", "--quiet", "--", "sh")

    def run(self) -> dict[tuple[str, str], str]:
        """Returns way and kind → what happened."""
        found = {}
        for way, attempt in self.ways.items():
            for kind in signed.KINDS:
                try:
                    found[way, kind] = attempt(_slug(kind), self._pushed.images[kind])
                except ApiError as error:
                    found[way, kind] = "refused"
                    self.said[way, kind] = str(error)
        return found

    def prewarm(self) -> None:
        """A Deployment without replicas names every image."""
        labels = {"app": "prewarm"}
        body = {
            "metadata": {"name": "prewarm"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec(*self._pushed.images.values())},
            },
        }
        self._api.create(f"/apis/apps/v1/namespaces/{self._space}/deployments", body)
        signed.await_evidence(self._cluster, self._pushed.images.values())

    def _good(self) -> dict[str, Any]:
        return spec(self._pushed.images["signed"])

    def _pod(self, name: str, body: dict[str, Any]) -> str:
        self._api.create(self._pods, {"metadata": {"name": name}, "spec": body})
        return self._became(name)

    def _became(self, name: str) -> str:
        """What became of a pod of this name, or of those that a Deployment of this name makes."""

        def own() -> list[dict[str, Any]]:
            return [pod for pod in self._api.get(self._pods)["items"] if f"{pod['metadata']['name']}-".startswith(f"{name}-")]

        def started() -> bool:
            return bool(own()) and all(pod["spec"].get("nodeName") for pod in own())

        if wait_until(started, seconds=_SECONDS, interval=0.2):
            return "admitted"
        return "held" if own() else "its pods refused"

    def _debug(self, age: str, kind: str, image: str) -> str:
        target = f"{age}-{kind}"
        arguments = ("--image", image, "--container", "looking", "--profile", "restricted", "--quiet", "--", "sh")
        answer = self._cluster.kubectl("debug", target, "-n", self._space, *arguments, check=False)
        names = [each["name"] for each in self._api.get(f"{self._pods}/{target}")["spec"].get("ephemeralContainers") or ()]
        if "looking" in names:
            return "admitted"
        self.said[f"debug {age}", kind] = answer
        return "refused"

    def _deployment(self, kind: str, image: str) -> str:
        labels = {"app": kind}
        template = {"metadata": {"labels": labels}, "spec": spec(image)}
        body = {
            "metadata": {"name": f"deployment-{kind}"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
        self._api.create(f"/apis/apps/v1/namespaces/{self._space}/deployments", body)
        return self._became(f"deployment-{kind}")

    def _ray(self, kind: str, image: str) -> str:
        groups = [{"groupName": "w", "template": {"spec": spec(image)}}]
        body = {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "metadata": {"name": f"ray-{kind}"},
            "spec": {"headGroupSpec": {"template": {"spec": self._good()}}, "workerGroupSpecs": groups},
        }
        self._api.create(f"/apis/ray.io/v1/namespaces/{self._space}/rayclusters", body)
        return "admitted"

    def _moving(self, kind: str, image: str) -> str:
        """By a tag; once the pod is in, the tag is given to an unsigned image."""
        digest, name = image.rpartition("@")[2], f"moving/{self._space}-{kind}:1"
        self._cluster.run("crane", "copy", image, f"{self._cluster.registry}/{name}", "--insecure")
        if kind == "signed":
            self._pushed.signer.sign(f"{self._cluster.registry}/{name.removesuffix(':1')}@{digest}", self._pushed.ours)
        became = self._pod(f"moving-{kind}", spec(f"{self._cluster.registry}/{name}"))
        images.vulnerable(self._cluster.registry, name)
        stored = self._api.get(f"{self._pods}/moving-{kind}")["spec"]["containers"][0]["image"]
        pinned = "pinned to what was judged" if digest in stored else "NOT pinned"
        return f"admitted, {pinned}" if became == "admitted" else became


def _slug(kind: str) -> str:
    return kind.replace(" ", "-")


def _volume(image: str) -> dict[str, Any]:
    return {"name": "weights", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}


def main() -> None:
    """Tries everything and prints the table."""
    tables: dict[str, dict[tuple[str, str], str]] = {}
    said: dict[str, dict[tuple[str, str], str]] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedCluster() as cluster, HostKubelet(cluster) as kubelet:
        pushed = signed.push(cluster, Path(folder))
        install_ml_kinds(cluster)
        attempts = {name: Attempts(cluster, f"through-{n}", pushed) for n, name in enumerate(("mlwarden", "Kyverno", "Kyverno, all named"))}

        def tried(name: str) -> None:
            tables[name], said[name] = attempts[name].run(), attempts[name].said

        unsigned = {"metadata": {"generateName": "probe-"}, "spec": spec(pushed.images["unsigned"])}
        with peer.Kyverno(cluster) as kyverno:
            for name, every_list in (("Kyverno", False), ("Kyverno, all named", True)):
                rule = peer.policy(pushed.ours.pem, cluster.registry, every_list=every_list)
                kyverno.apply(rule, refused=("/api/v1/namespaces/default/pods", unsigned))
                tried(name)
                kyverno.remove(rule["metadata"]["name"])
        Installation(cluster, kubelet).install()
        signed.enforce(cluster, signed.policy([pushed.ours.pem]))
        attempts["mlwarden"].prewarm()
        tried("mlwarden")
    if not tables:
        raise ClusterError("nothing was tried")
    ways = list(attempts["mlwarden"].ways)
    for name, table in tables.items():
        print(f"\n**{name}**\n\n| way | " + " | ".join(signed.KINDS) + " |\n| --- |" + " --- |" * len(signed.KINDS))
        for way in ways:
            print(f"| {way} | " + " | ".join(table[way, kind] for kind in signed.KINDS) + " |")
        for (way, kind), text in said[name].items():
            if kind == "signed":
                print(f"\n{way}, signed well, and refused: {text.strip()[:400]}")


if __name__ == "__main__":
    main()

"""Images that are signed, badly signed and not signed, and mlwarden's policy about them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.processes import wait_until
from mlwarden.embedded.signer import KeyPair, Signer
from mlwarden.errors import ClusterError

KINDS = ("unsigned", "another key", "signed")
POLICY = "signed-by-release"
_EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
_POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What is in the registry.

    Attributes:
        images: one of `KINDS` → `repository@sha256:…`.
        ours: the key that counts.
        signer: signs more.
    """

    images: Mapping[str, str]
    ours: KeyPair
    signer: Signer


def push(cluster: EmbeddedCluster, directory: Path, *, legacy: bool = False) -> Signed:
    """Pushes an image of each kind, with signatures as referrers or as `.sig` tags; each also has the tag `1`."""
    signer = Signer(directory)
    ours, theirs = signer.key_pair("ours"), signer.key_pair("theirs")
    pushed = {}
    for kind in KINDS:
        name = f"team/{kind.replace(' ', '-')}"
        pushed[kind] = f"{cluster.registry}/{name}@{images.clean(cluster.registry, f'{name}:1')}"
    signer.sign(pushed["signed"], ours, legacy=legacy)
    signer.sign(pushed["another key"], theirs, legacy=legacy)
    return Signed(images=pushed, ours=ours, signer=signer)


def policy(keys: Iterable[str], *, name: str = POLICY) -> dict[str, Any]:
    """Returns the WardenPolicy that wants a signature by one of these keys, refused otherwise in every profile."""
    return {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": name},
        "spec": {
            "profiles": {"*": "Deny"},
            "severity": "critical",
            "requirement": {"imageSignature": {"authorities": [{"name": f"release-{n}", "key": key} for n, key in enumerate(keys)]}},
            "message": "image {image} is not signed by the release key",
            "why": "what nobody signed may have been pushed by anybody",
            "fix": {"text": "sign it: cosign sign --key … IMAGE@sha256:…"},
        },
    }


def enforce(cluster: EmbeddedCluster, *policies: dict[str, Any]) -> None:
    """Puts policies in force in mlwarden."""
    for each in policies:
        cluster.api().apply(f"{_POLICIES}/{each['metadata']['name']}", each)


def leave_only(cluster: EmbeddedCluster, *names: str) -> None:
    """Puts every other policy out of force; the controller, which would put them back, must be gone.

    They stay, for a profile that nothing has: where a shipped policy is missing, the webhook judges nothing at all.
    """
    for item in cluster.api().get(_POLICIES)["items"]:
        if item["metadata"]["name"] not in names:
            put_aside(cluster, item["metadata"]["name"])


def put_aside(cluster: EmbeddedCluster, name: str) -> None:
    """Puts one policy out of force, in the same way."""
    patch = json.dumps([{"op": "replace", "path": "/spec/profiles", "value": {"nowhere": "Audit"}}])
    cluster.kubectl("patch", "wardenpolicy", name, "--type=json", "--patch", patch)


def await_refusal(cluster: EmbeddedCluster, path: str, pod: dict[str, Any], *, seconds: float = 60) -> None:
    """Waits until the webhook refuses a pod for its signature: what does not answer costs next to nothing, and judges nothing.

    That an image is not signed is believed for a minute: until it was looked at again, pods of it are created, and held.
    """

    def refused() -> bool:
        try:
            cluster.api().create(path, pod)
        except ApiError as error:
            return 'admission webhook "workloads.mlwarden.io" denied' in str(error) and POLICY in str(error)
        return False

    if not wait_until(refused, seconds=seconds, interval=1.0):
        raise ClusterError("mlwarden's webhook does not refuse an image that is not signed")


def await_evidence(cluster: EmbeddedCluster, images_: Iterable[str], *, seconds: float = 60) -> None:
    """Waits until scan and signatures of these digests were looked at."""

    def ready(name: str) -> bool:
        try:
            return bool((cluster.api().get(f"{_EVIDENCE}/{name}").get("status") or {}).get("phase") == "Ready")
        except ApiError:
            return False

    deadline = time.monotonic() + seconds
    for image in images_:
        digest = image.rpartition("sha256:")[2]
        for name in (f"sha256-{digest}", f"signatures-{digest}"):
            if not wait_until(lambda name=name: ready(name), seconds=max(deadline - time.monotonic(), 0.1)):
                raise ClusterError(f"there is no {name} about {image}, after {seconds:.0f} s")

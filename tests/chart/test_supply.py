"""Signatures, attestations, excuses and private registries, configured by the chart alone and asked by a whole installation."""

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.door import USER, Door
from mlwarden.embedded.installed import NAMESPACE, Installation
from mlwarden.embedded.signer import Signer, openvex

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.kubelet import HostKubelet
    from mlwarden.embedded.sigstore import Sigstore

    from .conftest import Installed  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"
PASSWORD = "s3cret"
HOLE = "CVE-2025-26519"
HUB = "hub.example"  # cannot be resolved: what comes from there comes from its mirror
BUILT = {"buildDefinition": {"buildType": "https://example.com/built/by-ci"}, "runDetails": {"builder": {"id": "https://example.com/ci"}}}


class Supply:
    """The installation, and what stands before its registry."""

    def __init__(self, installed: "Installed", sigstore: "Sigstore", signer: Signer, doors: tuple[Door, Door]) -> None:
        self.installed, self.sigstore, self.signer = installed, sigstore, signer
        self.private, self.tls = doors
        self.keys = {name: signer.key_pair(name) for name in ("release", "security", "stranger")}
        self.registry = installed.cluster.registry
        self.space = ""

    def image(self, name: str, *, vulnerable: bool = False) -> str:
        """Pushes a fresh image, and returns `repository@sha256:…`."""
        made = images.push_image(
            self.registry, f"{name}:1", alpine={"musl": "1.2.5-r9" if vulnerable else "1.2.5-r10"}, files={"name": name.encode()}
        )
        return f"{self.registry}/{name}@{made}"

    def policy(self, name: str, requirement: dict[str, Any]) -> None:
        spec = {
            "profiles": {"experiment": "Deny"},
            "severity": "high",
            "requirement": requirement,
            "message": f"image {{image}} fails {name}",
            "why": "what nobody answers for may have been pushed by anybody who found a password",
            "fix": {"text": "have the release pipeline build, scan and sign it"},
        }
        body = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}
        self.installed.admin.apply(f"{POLICIES}/{name}", body)

    def pull_secret(self, namespace: str) -> dict[str, Any]:
        """Makes the Secret for the private registry there, and returns what a pod says of it."""
        entry = {self.private.host: {"username": USER, "password": PASSWORD}}
        secret = {"type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "pull"}}
        secret["stringData"] = {".dockerconfigjson": json.dumps({"auths": entry})}
        self.installed.admin.apply(f"/api/v1/namespaces/{namespace}/secrets/pull", {"apiVersion": "v1", "kind": "Secret", **secret})
        return {"imagePullSecrets": [{"name": "pull"}]}

    def start(self, name: str, image: str, **changes: Any) -> None:
        body = self.installed.pod(name, **changes)
        body["spec"]["containers"][0]["image"] = image
        self.installed.create(self.space, body)

    def runs(self, name: str) -> None:
        self.installed.runs(self.space, name)

    def is_held(self, name: str, *said: str) -> None:
        """By an Event that says all of `said`; it has not started."""
        message = self.installed.said(self.space, name, said[0])
        assert [text for text in said if text not in message] == [], message
        assert self.installed.state(self.space, name) == "Held"


@pytest.fixture(scope="module")
def supply(
    cluster: "EmbeddedCluster",
    kubelet: "HostKubelet",
    sigstore: "Sigstore",
    install_on: "type[Installed]",
    tmp_path_factory: pytest.TempPathFactory,
    *,
    private_tls: tuple[ssl.SSLContext, str],
) -> Iterator[Supply]:
    context, authority = private_tls
    found = install_on(cluster, kubelet)
    with contextlib.ExitStack() as stack:
        doors = (
            stack.enter_context(Door(cluster.registry, password=PASSWORD, tokens=True)),
            stack.enter_context(Door(cluster.registry, tls=context)),
        )
        told = Supply(found, sigstore, Signer(tmp_path_factory.mktemp("keys")), doors)
        stack.callback(found.clean)
        cluster.create_namespace(NAMESPACE)
        key = {"metadata": {"name": "release-key"}, "stringData": {"cosign.pub": told.keys["release"].pem}}
        found.admin.create(f"/api/v1/namespaces/{NAMESPACE}/secrets", key)
        found.release = Installation(
            cluster,
            kubelet,
            scanner={
                "keySecrets": ["release-key"],
                "trustRoots": {"ours": Path(sigstore.trust_root).read_text(encoding="utf-8")},
                "podPullSecrets": True,
                "plainHTTP": [cluster.registry, doors[0].host],
                "registries": {
                    HUB: {"mirrors": [f"{cluster.registry}/hub"], "tags": True},
                    doors[1].host: {"ca": authority},
                },
            },
        )
        found.release.install()
        told.space = found.namespace("supply", "experiment")
        stack.callback(found.admin.delete, f"/api/v1/namespaces/{told.space}")
        yield told


def keyless(supply: Supply) -> dict[str, Any]:
    identity = {"issuer": supply.sigstore.issuer, "subject": supply.sigstore.subject("signer")}
    return {"name": "ci", "keyless": {"identities": [identity]}, "trustRoot": "ours"}


def test_keyless_by_identity_and_provenance_by_what_it_says(supply: Supply) -> None:
    everything = [f"{supply.registry}/supply-ci/**"]
    supply.policy("supply-ci", {"imageSignature": {"images": everything, "authorities": [keyless(supply)]}})
    condition = "predicate.buildDefinition.buildType == 'https://example.com/built/by-ci'"
    provenance = {"images": everything, "predicateType": "slsaprovenance1", "authorities": [keyless(supply)], "condition": condition}
    supply.policy("supply-provenance", {"imageAttestation": provenance})
    laptop = {**BUILT, "buildDefinition": {"buildType": "https://example.com/a/laptop"}}
    for name, account, predicate in (
        ("good", "signer", BUILT),
        ("stranger", "somebody", BUILT),
        ("laptop", "signer", laptop),
        ("bare", "signer", None),
    ):
        image = supply.image(f"supply-ci/{name}")
        supply.sigstore.sign(image, account=account)
        if predicate:
            supply.sigstore.attest(image, type="slsaprovenance1", predicate=predicate)
        supply.start(name, image)
    supply.runs("good")
    supply.is_held("stranger", "supply-ci", "no signature by ci, only attestations")
    supply.is_held("laptop", "supply-provenance", "does not satisfy the condition")
    supply.is_held("bare", "supply-provenance", "there is no ")


def test_a_key_in_a_secret_that_the_chart_names(supply: Supply) -> None:
    authority = {"name": "release", "keySecret": {"name": "release-key"}}
    supply.policy("supply-key", {"imageSignature": {"images": [f"{supply.registry}/supply-key/**"], "authorities": [authority]}})
    for name, key in (("signed", "release"), ("forged", "stranger")):
        image = supply.image(f"supply-key/{name}")
        supply.signer.sign(image, supply.keys[key])
        supply.start(name, image)
    supply.runs("signed")
    supply.is_held("forged", "supply-key")


def test_a_signed_excuse(supply: Supply) -> None:
    vex = [{"name": "security", "key": supply.keys["security"].pem}]
    supply.installed.admin.patch(f"{POLICIES}/image-scanned", {"spec": {"requirement": {"imageScan": {"vex": vex}}}})
    for name, key in (("excused", "security"), ("pretended", "stranger")):
        image = supply.image(f"supply-vex/{name}", vulnerable=True)
        excuse = openvex(image.rpartition("@")[2], HOLE, "not_affected")
        supply.signer.attest(image, supply.keys[key], type="openvex", predicate=excuse)
        supply.start(name, image)
    supply.runs("excused")
    supply.is_held("pretended", "image-scanned", HOLE)


class TestRegistries:
    def test_a_private_image_is_read_with_the_pods_own_pull_secret_and_not_without(self, supply: Supply) -> None:
        supply.image("supply-private/with")
        supply.image("supply-private/without")
        with_it = supply.pull_secret(supply.space)
        supply.start("with", f"{supply.private.host}/supply-private/with:1", **with_it)
        supply.start("without", f"{supply.private.host}/supply-private/without:1")
        supply.runs("with")
        supply.is_held("without", "denies access (401)")

    def test_what_was_found_in_a_private_image_is_told_where_it_was_pulled_and_nowhere_else(
        self, supply: Supply, attack: Callable[[str, str, str], None]
    ) -> None:
        digest = supply.image("supply-private/told", vulnerable=True).rpartition("@")[2]
        image = f"{supply.private.host}/supply-private/told@{digest}"
        own, other = supply.space, supply.installed.namespace("supply-other", "experiment")
        with_it = supply.pull_secret(own)
        supply.pull_secret(other)
        supply.start("told", image, **with_it)
        supply.is_held("told", "has known holes", HOLE)

        def refused(namespace: str, **query: str) -> str:
            body = supply.installed.pod("again", **with_it)
            body["spec"]["containers"][0]["image"] = image
            with pytest.raises(ApiError) as error:
                supply.installed.create(namespace, body, **query)
            return str(error.value.message)

        for query in ({}, {"dryRun": "All"}):
            assert HOLE in refused(own, **query)
            elsewhere = refused(other, **query)
            assert "was judged and refused; ask for mlwarden-evidence-reader" in elsewhere
            assert HOLE not in elsewhere
        supply.installed.admin.delete(f"/api/v1/namespaces/{other}")
        attack(
            "a pod in one namespace, or a dry run of it, that names another team's private image",
            "refused with the CVEs of the other team's image",
            "refused: it was judged and refused; ask for mlwarden-evidence-reader",
        )

    def test_a_mirror_speaks_for_a_host_that_nobody_reaches(self, supply: Supply) -> None:
        digest = supply.image("hub/supply/app").rpartition("@")[2]
        supply.start("mirrored", f"{HUB}/supply/app:1")
        supply.runs("mirrored")
        container = supply.installed.get(supply.space, "mirrored")["spec"]["containers"][0]
        assert container["image"] == f"{HUB}/supply/app:1@{digest}"

    def test_an_authority_that_no_system_knows(self, supply: Supply) -> None:
        supply.image("supply-tls/app")
        supply.start("over-tls", f"{supply.tls.host}/supply-tls/app:1")
        supply.runs("over-tls")
        assert supply.tls.asked("supply-tls/app/manifests")

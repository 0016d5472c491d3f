"""The real cosign signs in every way, and verifies what was signed, without anything from outside."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlwarden.embedded import build, images
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.signer import Signer
from mlwarden.embedded.sigstore import Sigstore
from mlwarden.errors import ClusterError

pytestmark = pytest.mark.cluster

WITHOUT_LOG = ("--insecure-ignore-tlog", "--insecure-ignore-sct")
SIGNATURES = {"cosign container image signature", "https://sigstore.dev/cosign/sign/v1"}


@pytest.fixture
def image(cluster: EmbeddedCluster) -> str:
    """A fresh image, by its digest."""
    name = f"signed/{secrets.token_hex(6)}"
    return f"{cluster.registry}/{name}@{images.clean(cluster.registry, f'{name}:1')}"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path)


@pytest.fixture(scope="module")
def other(cluster: EmbeddedCluster) -> Iterator[Sigstore]:
    with Sigstore(cluster) as running:
        yield running


def cosign(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    command = [build.binary("cosign"), arguments[0], "--allow-http-registry", *arguments[1:]]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def keyless(sigstore: Sigstore, account: str = "signer") -> tuple[str | Path, ...]:
    identity = ("--certificate-identity", sigstore.subject(account), "--certificate-oidc-issuer", sigstore.issuer)
    return ("--trusted-root", sigstore.trust_root, *identity, "--insecure-ignore-sct")


def tags(cluster: EmbeddedCluster, image: str) -> list[str]:
    return cluster.run("crane", "ls", "--insecure", image.partition("@")[0]).split()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_key_signs_in_both_forms_and_another_key_does_not_verify(
    cluster: EmbeddedCluster, signer: Signer, image: str, *, legacy: bool
) -> None:
    key, stranger = signer.key_pair(), signer.key_pair("stranger")
    signer.sign(image, key, legacy=legacy)
    assert any(tag.endswith(".sig") for tag in tags(cluster, image)) == legacy
    answer = cosign("verify", "--key", key.public, *WITHOUT_LOG, image)
    assert answer.returncode == 0, answer.stderr
    [signature] = json.loads(answer.stdout)
    assert signature["critical"]["type"] in SIGNATURES
    assert signature["critical"]["image"]["docker-manifest-digest"] == image.partition("@")[2]
    assert cosign("verify", "--key", stranger.public, *WITHOUT_LOG, image).returncode != 0


@pytest.mark.parametrize("legacy", [False, True])
def test_a_key_attests_in_both_forms_whatever_the_predicate_is(signer: Signer, image: str, *, legacy: bool) -> None:
    key = signer.key_pair()
    signer.attest(image, key, type="https://example.com/review/v1", predicate={"approved": True}, legacy=legacy)
    answer = cosign("verify-attestation", "--key", key.public, "--type", "https://example.com/review/v1", *WITHOUT_LOG, image)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["payloadType"] == "application/vnd.in-toto+json"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_certificate_of_ones_own_authority_signs_in_both_forms(signer: Signer, image: str, *, legacy: bool) -> None:
    authority = signer.authority()
    signer.sign(image, authority.issue("release@example.com"), legacy=legacy)
    root = signer.directory / "root.json"
    signer.cosign("trusted-root", "create", f"--fulcio=url=https://own.example,certificate-chain={authority.path}", "--out", str(root))
    asked = ("--certificate-oidc-issuer-regexp", ".*", "--trusted-root", root, "--allow-certificate-chain", *WITHOUT_LOG)
    assert cosign("verify", "--certificate-identity", "release@example.com", *asked, image).returncode == 0
    assert cosign("verify", "--certificate-identity", "other@example.com", *asked, image).returncode != 0


def test_a_service_account_signs_and_attests_without_a_key(sigstore: Sigstore, image: str) -> None:
    sigstore.sign(image)
    sigstore.attest(image, type="https://example.com/review/v1", predicate={"approved": True})
    answer = cosign("verify", *keyless(sigstore), image)
    assert answer.returncode == 0, answer.stderr
    assert {each["critical"]["type"] for each in json.loads(answer.stdout)} == {
        "https://sigstore.dev/cosign/sign/v1",
        "https://example.com/review/v1",  # cosign counts an attestation among the signatures
    }
    assert cosign("verify-attestation", "--type", "https://example.com/review/v1", *keyless(sigstore), image).returncode == 0
    assert cosign("verify", *keyless(sigstore, account="other"), image).returncode != 0


def test_one_sigstore_does_not_believe_another(sigstore: Sigstore, other: Sigstore, image: str) -> None:
    other.sign(image)
    assert cosign("verify", *keyless(other), image).returncode == 0
    assert cosign("verify", *keyless(sigstore), image).returncode != 0


def test_a_signature_without_a_log_entry_can_be_made_and_is_not_believed(sigstore: Sigstore, image: str) -> None:
    sigstore.sign(image, config=sigstore.signing_config_without_log)
    assert cosign("verify", *keyless(sigstore), image).returncode != 0
    assert cosign("verify", *keyless(sigstore), "--insecure-ignore-tlog", "--use-signed-timestamps", image).returncode == 0


def test_what_cosign_says_when_it_cannot_sign_is_in_the_error(signer: Signer) -> None:
    with pytest.raises(ClusterError, match="cosign sign exited with 1: "):
        signer.sign("127.0.0.1:1/nothing@sha256:" + "0" * 64, signer.key_pair())

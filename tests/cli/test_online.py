"""`mlwarden check --online`: what the cluster would find out is found out here, and saved it is judged again without a network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.cli import online
from mlwarden.errors import InputError

from .conftest import Run  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster


@pytest.fixture
def tools(cluster: "EmbeddedCluster", tmp_path: Path) -> list[str]:
    """Arguments that name the tools, the database and the registry of the test."""
    from mlwarden.embedded import trivydb
    from mlwarden.embedded.build import binary

    database = trivydb.make_database(tmp_path / "trivy")
    return [f"--trivy={binary('trivy')}", f"--trivy-cache={database}", f"--plain-http={cluster.registry}"]


def pod(image: str) -> str:
    spec = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "train",
                "image": image,
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            }
        ],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train", "namespace": "team"}, "spec": spec})


def test_a_vulnerable_image_is_denied_in_words_and_a_good_one_admitted(
    run: Run, cluster: "EmbeddedCluster", tools: list[str], tmp_path: Path
) -> None:
    from mlwarden.embedded import images

    images.vulnerable(cluster.registry, "online/bad:1")
    images.clean(cluster.registry, "online/good:1")
    (tmp_path / "bad.yaml").write_text(pod(f"{cluster.registry}/online/bad:1"))
    (tmp_path / "good.yaml").write_text(pod(f"{cluster.registry}/online/good:1"))

    bad = run("bad.yaml", "--profile=production", "--online", *tools)
    assert bad.code == 1
    assert "is refused by image-scanned (high)" in bad.out
    assert "CVE-2025-32434" in bad.out
    assert "[1 of 1] scanning" in bad.err

    good = run("good.yaml", "--profile=production", "--online", f"--trusted-registry={cluster.registry}", *tools)
    assert (good.code, good.out) == (0, "1 object: 0 denied, 0 held until there is evidence, 1 admitted\n")


def test_what_was_gathered_is_judged_again_without_a_registry(
    run: Run, cluster: "EmbeddedCluster", tools: list[str], tmp_path: Path
) -> None:
    from mlwarden.embedded import images

    images.vulnerable(cluster.registry, "online/saved:1")
    (tmp_path / "pod.yaml").write_text(pod(f"{cluster.registry}/online/saved:1"))
    assert run("pod.yaml", "--profile=production").code == 0  # held, and that is no failure
    first = run("pod.yaml", "--profile=production", "--online", "--evidence=evidence.json", *tools)
    again = run("pod.yaml", "--profile=production", "--evidence=evidence.json")
    assert again.code == first.code == 1
    assert again.out == first.out
    assert again.err == ""


def test_signatures_are_verified_for_whom_the_policies_name(run: Run, cluster: "EmbeddedCluster", tools: list[str], tmp_path: Path) -> None:
    from mlwarden.embedded import images
    from mlwarden.embedded.build import binary
    from mlwarden.embedded.signer import Signer

    of = images.clean(cluster.registry, "online/signed:1")
    image = f"{cluster.registry}/online/signed@{of}"
    key = Signer(tmp_path).key_pair()
    requirement = {"imageSignature": {"authorities": [{"name": "release", "key": key.pem}]}}
    spec = {"profiles": {"*": "Deny"}, "requirement": requirement, "message": "unsigned", "why": "w", "fix": {"text": "sign it"}}
    policy = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "signed"}, "spec": spec}
    (tmp_path / "policy.yaml").write_text(json.dumps(policy))
    (tmp_path / "pod.yaml").write_text(pod(image))
    arguments = ("pod.yaml", "--policies=policy.yaml", "--online", f"--cosign={binary('cosign')}", *tools)
    before = run(*arguments)
    assert before.code == 1
    assert "unsigned: it has no signature that counts: release: " in before.out
    Signer(tmp_path).sign(image, key)
    assert run(*arguments).code == 0
    without = run("pod.yaml", "--policies=policy.yaml", "--online", "--strict", "--cosign=no-such-cosign", *tools)
    assert without.code == 1
    assert "the scanner has no cosign" in without.out


def test_an_image_that_is_not_there_is_named_and_stays_unknown(
    run: Run, cluster: "EmbeddedCluster", tools: list[str], tmp_path: Path
) -> None:
    (tmp_path / "pod.yaml").write_text(pod(f"{cluster.registry}/online/nowhere:1"))
    done = run("pod.yaml", "--profile=production", "--online", "--strict", *tools)
    assert done.code == 1
    assert "no such image in the registry" in done.err
    assert "cannot be resolved" in done.out


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"items": [{"metadata": {"name": "sha256-x"}, "spec": {"references": ["a@b"]}}]}',
        "\xff",
        '{"items":' * 3000,
    ],
)
def test_a_file_that_is_no_evidence_is_said_to_be_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "evidence.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="is no file of evidence"):
        online.read(file)


def test_evidence_about_something_else_than_its_name_says_is_refused(tmp_path: Path) -> None:
    digest = "a" * 64
    item: dict[str, Any] = {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "ImageEvidence",
        "metadata": {"name": f"sha256-{digest}"},
        "spec": {"references": ["registry.example.com/x@sha256:" + "b" * 64]},
    }
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps({"items": [item]}))
    with pytest.raises(InputError, match="about something else"):
        online.read(file)


def test_without_trivy_it_says_what_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(pod("registry.example.com/x:1"))
    with pytest.raises(InputError, match="there is no program no-such-trivy"):
        run("pod.yaml", "--online", "--trivy=no-such-trivy")

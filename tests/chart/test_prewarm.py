"""A template is applied, and everything its pods will need to be judged by is there before the first of them."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden import evidence
from mlwarden.embedded import images
from mlwarden.model.evidence import SIGNATURES

if TYPE_CHECKING:
    from .conftest import Installed  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
EVIDENCE = "/apis/mlwarden.io/v1alpha1/imageevidences"
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


def known(installed: "Installed", wanted: str) -> dict[str, Any]:
    """The evidence about something, `{}` where there is none."""
    name = evidence.name_for(wanted)
    return next((each for each in installed.admin.get(EVIDENCE)["items"] if each["metadata"]["name"] == name), {})


def scanned(installed: "Installed", pinned: str) -> Any:
    return known(installed, pinned).get("status", {}).get("scan")


@pytest.fixture
def template(installed: "Installed") -> dict[str, Any]:
    spec: dict[str, Any] = installed.pod("x")["spec"]
    return {"metadata": {"labels": {"app": "w"}}, "spec": spec}


@pytest.mark.parametrize("kind", ["Deployment", "Notebook", "RayCluster"])
def test_evidence_is_there_before_the_first_pod(installed: "Installed", template: dict[str, Any], kind: str) -> None:
    namespace = installed.namespace(f"prewarm-{kind.lower()}")
    image = f"{installed.cluster.registry}/prewarm-{kind.lower()}:1.0"
    digest = images.push_image(
        installed.cluster.registry, f"prewarm-{kind.lower()}:1.0", alpine={"musl": "1.2.5-r10"}, files={"kind": kind.encode()}
    )
    pinned = f"{image.removesuffix(':1.0')}@{digest}"
    template["spec"]["containers"][0]["image"] = image
    specs = {
        "Deployment": ("apps/v1", {"replicas": 0, "selector": {"matchLabels": {"app": "w"}}, "template": template}),
        "Notebook": ("kubeflow.org/v1", {"template": template}),
        "RayCluster": ("ray.io/v1", {"workerGroupSpecs": [{"groupName": "g", "replicas": 0, "template": template}]}),
    }
    api_version, spec = specs[kind]
    body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "w", "namespace": namespace}, "spec": spec}
    installed.cluster.kubectl("apply", "--filename", "-", user="alice", input=json.dumps(body))
    first = installed.until(lambda: scanned(installed, pinned))
    assert known(installed, image)["status"]["digest"] == digest
    pods = f"/api/v1/namespaces/{namespace}/pods"
    assert installed.admin.get(pods)["items"] == []
    if kind == "Deployment":
        installed.admin.patch(f"/apis/apps/v1/namespaces/{namespace}/deployments/w", {"spec": {"replicas": 2}})
        installed.until(lambda: [pod["status"].get("phase") for pod in installed.admin.get(pods)["items"]] == ["Running"] * 2)
        assert scanned(installed, pinned) == first  # nothing was scanned for them


def test_signatures_are_asked_about_too_where_a_policy_wants_them(installed: "Installed", template: dict[str, Any]) -> None:
    namespace = installed.namespace("prewarm-signed")
    image = f"{installed.cluster.registry}/prewarm-signed:1.0"
    digest = images.push_image(installed.cluster.registry, "prewarm-signed:1.0", alpine={"musl": "1.2.5-r10"}, files={"kind": b"signed"})
    key = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
    requirement = {"imageSignature": {"images": ["**/prewarm-signed"], "authorities": [{"name": "team", "key": key}]}}
    spec = {"profiles": {"production": "Warn"}, "requirement": requirement, "message": "m", "why": "w", "fix": {"text": "f"}}
    policy = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "prewarm-signed"}, "spec": spec}
    installed.admin.create(POLICIES, policy)
    template["spec"]["containers"][0]["image"] = image
    body = {"replicas": 0, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    try:
        installed.until(lambda: installed.admin.get(f"{POLICIES}/prewarm-signed").get("status", {}).get("conditions"))
        installed.admin.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", {"metadata": {"name": "w"}, "spec": body})
        installed.until(lambda: known(installed, f"{SIGNATURES}{image.removesuffix(':1.0')}@{digest}"))
        assert installed.admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"] == []
    finally:
        installed.admin.delete(f"{POLICIES}/prewarm-signed")

"""Advisories of others in this field that concern the request path; those of registries and tools are in tests/evidence."""

from collections.abc import Callable
from typing import Any

import pytest

RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
DEBUGGER = {"name": "debugger", "image": "registry.example.com/tools/debug:1.0", "securityContext": RESTRICTED}
CLAIMS = {
    "kyverno.io/verify-images": '{"registry.example.com/team/app:1.0": "pass"}',
    "mlwarden.io/judged": '{"at": "2026-11-24T00:00:00Z"}',
    "image-verification-outcomes": "pass",
}


def test_cve_2023_2727_a_debug_container_whose_image_nobody_scanned_is_refused(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    """Kubernetes' ImagePolicyWebhook did not look at ephemeral containers; nor did most of the peers."""
    old = {**good, "spec": {**good["spec"]}}
    new = {**good, "spec": {**good["spec"], "ephemeralContainers": [DEBUGGER]}}
    _, response = ask(new, "/validate", operation="UPDATE", oldObject=old, subResource="ephemeralcontainers", name="good")
    assert response["allowed"] is False
    assert "image-scanned" in response["status"]["message"]
    assert "spec.ephemeralContainers[0].image" in response["status"]["message"]


def test_cve_2023_34091_an_object_that_is_going_is_judged_where_its_images_change(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    """Kyverno skipped whatever carried a deletion timestamp; here it must be in what is stored, and nothing starts any more then."""
    forged = {**good, "metadata": {**good["metadata"], "deletionTimestamp": "2026-11-24T00:00:00Z"}}
    forged["spec"] = {**good["spec"], "ephemeralContainers": [DEBUGGER]}
    for stored in (good, {**good, "metadata": forged["metadata"]}):
        _, response = ask(forged, "/validate", operation="UPDATE", oldObject=stored, subResource="ephemeralcontainers", name="good")
        assert response["allowed"] is False


def test_cve_2025_46342_a_namespace_that_cannot_be_looked_up_is_no_namespace_without_labels(
    ask: Callable[..., Any], good: dict[str, Any]
) -> None:
    """Kyverno took a failed lookup for empty labels, so that rules with a selector did not apply."""
    pod = {**good, "spec": {**good["spec"], "nodeName": "node-0"}}
    _, response = ask(pod, "/validate", namespace="nobody-has-seen-it")
    assert response["allowed"] is False
    assert "has not seen the namespace" in response["status"]["message"]


@pytest.mark.parametrize("annotation", CLAIMS)
def test_kyverno_16336_what_an_annotation_claims_about_an_image_is_no_evidence(
    ask: Callable[..., Any], good: dict[str, Any], annotation: str
) -> None:
    """Kyverno's validating phase believed the outcome that an annotation named."""
    pod = {**good, "metadata": {**good["metadata"], "annotations": {annotation: CLAIMS[annotation]}}}
    pod["spec"] = {**good["spec"], "nodeName": "node-0"}
    _, response = ask(pod, "/validate")
    assert response["allowed"] is False
    assert "image-scanned" in response["status"]["message"]

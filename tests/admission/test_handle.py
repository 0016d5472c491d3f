import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mlwarden.admission import handle
from mlwarden.admission.review import LARGEST
from mlwarden.cluster import Snapshot
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Resolution

from .conftest import NOW, review  # type: ignore[import-not-found]

D = "sha256:" + "a" * 64


def privileged(pod: dict[str, Any]) -> dict[str, Any]:
    bad = copy.deepcopy(pod)
    bad["spec"]["containers"][0]["securityContext"]["privileged"] = True
    return bad


def test_a_bad_pod_is_refused_with_what_where_why_fix_and_exception(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    _, response = ask(privileged(good))
    message = response["status"]["message"]
    assert response["allowed"] is False
    assert response["status"]["code"] == 403
    for part in ("privileged", "spec.containers[0].securityContext", "why:", "fix:", "exception:"):
        assert part in message
    assert len(message.splitlines()) <= 7


def test_a_good_pod_without_evidence_is_let_in_to_wait_and_its_image_is_asked_for(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    answer, response = ask(good)
    assert response["allowed"] is True
    assert answer.decision == "hold"
    assert answer.wanted == ("registry.example.com/team/app:1.0",)
    assert any("held" in warning for warning in response["warnings"])


def test_a_dry_run_asks_for_nothing(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    answer, _ = ask(good, dryRun=True)
    assert answer.wanted == ()


def test_the_tag_of_a_pod_is_pinned_while_its_resolution_is_young(snapshot: Snapshot, good: dict[str, Any]) -> None:
    known = msgspec.structs.replace(snapshot, resolutions={"registry.example.com/team/app:1.0": Resolution(digest=digest(D), at=NOW)})
    body = json.dumps(review(good)).encode()
    response = json.loads(handle(body, "/mutate", known, NOW).body)["response"]
    assert json.loads(base64.b64decode(response["patch"])) == [
        {"op": "test", "path": "/spec/containers/0/image", "value": "registry.example.com/team/app:1.0"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example.com/team/app:1.0@{D}"},
    ]


def test_a_template_is_never_rewritten(snapshot: Snapshot, good: dict[str, Any]) -> None:
    known = msgspec.structs.replace(snapshot, resolutions={"registry.example.com/team/app:1.0": Resolution(digest=digest(D), at=NOW)})
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": good["spec"]}}}
    body = json.dumps(review(deployment, resource="deployments", group="apps")).encode()
    response = json.loads(handle(body, "/mutate", known, NOW).body)["response"]
    assert response["allowed"] is True
    assert "patch" not in response


def test_scaling_labelling_and_deleting_always_pass(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    bad = privileged(good)
    old = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"replicas": 1, "template": {"spec": bad["spec"]}},
    }
    scaled = {**old, "spec": {**old["spec"], "replicas": 5}}
    assert ask(scaled, resource="deployments", group="apps", operation="UPDATE", oldObject=old)[1]["allowed"] is True
    going = {**bad, "metadata": {**bad["metadata"], "deletionTimestamp": "2026-11-24T00:00:00Z"}}
    assert ask(going, operation="UPDATE", oldObject=good)[1]["allowed"] is True
    assert ask(None, operation="DELETE", oldObject=bad)[1]["allowed"] is True


def test_a_template_that_becomes_bad_is_refused(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    old = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": good["spec"]}}}
    new = {**old, "spec": {"template": {"spec": privileged(good)["spec"]}}}
    assert ask(new, resource="deployments", group="apps", operation="UPDATE", oldObject=old)[1]["allowed"] is False


def test_a_pod_that_names_its_node_cannot_wait_and_is_told_to_come_again(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    good["spec"]["nodeName"] = "node-0"
    answer, response = ask(good, path="/validate")
    assert response["allowed"] is False
    assert "try again" in response["status"]["message"]
    assert answer.wanted == ("registry.example.com/team/app:1.0",)


def test_an_ephemeral_container_is_judged_and_what_was_there_is_not_judged_again(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    debugged = copy.deepcopy(good)
    debugged["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "docker.io/busybox:1", "securityContext": {"privileged": True}}]
    _, response = ask(debugged, path="/validate", operation="UPDATE", subResource="ephemeralcontainers", oldObject=good)
    assert response["allowed"] is False
    assert "spec.ephemeralContainers[0]" in response["status"]["message"]
    _, response = ask(debugged, path="/validate", operation="UPDATE", subResource="ephemeralcontainers", oldObject=debugged)
    assert response["allowed"] is True


def test_what_fails_closed_does_not_guess_the_profile_of_a_namespace_nobody_has_seen(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    _, response = ask(good, path="/validate", namespace="new-born")
    assert response["allowed"] is False
    assert "try again" in response["status"]["message"]


@pytest.mark.parametrize("namespace", ["kube-system", "mlwarden-system"])
def test_what_is_never_governed_is_never_judged(ask: Callable[..., Any], good: dict[str, Any], namespace: str) -> None:
    assert ask(privileged(good), namespace=namespace)[1]["allowed"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "CONNECT"},
        {"operation": "EXPLODE"},
        {"operation": ""},
        {"operation": "UPDATE", "subResource": "resize"},
        {"subResource": "unheard-of"},
        {"object": None},
        {"object": []},
        {"object": "pod"},
        {"operation": "UPDATE", "oldObject": 7},
    ],
)
def test_what_is_not_understood_is_refused_in_words(ask: Callable[..., Any], good: dict[str, Any], changes: dict[str, Any]) -> None:
    _, response = ask(good, **changes)
    assert response["allowed"] is False
    assert "mlwarden" in response["status"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}',
        b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE","resource":{}}}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"","operation":"CREATE","resource":{}}}',
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7,"operation":"CREATE","resource":{}}}',
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
    ],
)
def test_what_is_no_review_is_a_400_and_never_a_500(snapshot: Snapshot, body: bytes) -> None:
    answer = handle(body, "/mutate", snapshot, NOW)
    assert answer.status == 400


def test_explicit_nulls_are_what_the_api_server_sends_at_times(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    good["spec"].update({"initContainers": None, "volumes": None, "ephemeralContainers": None, "nodeName": None, "schedulingGates": None})
    good["metadata"]["annotations"] = None
    _, response = ask(good, subResource=None, name=None, oldObject=None, dryRun=None)
    assert response["allowed"] is True
    bad = privileged(good)
    assert ask(bad, userInfo=None)[1]["allowed"] is False


def test_the_last_of_two_equal_keys_counts_as_it_does_for_the_api_server(snapshot: Snapshot, good: dict[str, Any]) -> None:
    body = json.dumps(review(good)).replace('"allowPrivilegeEscalation": false', '"privileged": false, "privileged": true')
    assert json.loads(handle(body.encode(), "/mutate", snapshot, NOW).body)["response"]["allowed"] is False


def test_an_object_nested_too_deeply_is_refused(snapshot: Snapshot, good: dict[str, Any]) -> None:
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    body = json.dumps(review("DEEP")).replace('"DEEP"', deep).encode()
    answer = handle(body, "/mutate", snapshot, NOW)
    assert answer.status == 400 or json.loads(answer.body)["response"]["allowed"] is False


def test_a_large_object_is_judged_to_its_end(snapshot: Snapshot, good: dict[str, Any]) -> None:
    good["spec"]["containers"][0]["env"] = [{"name": f"N{number}", "value": "v" * 900} for number in range(3000)]
    bad = privileged(good)
    body = json.dumps(review(bad)).encode()
    assert 2_500_000 < len(body) < LARGEST
    assert json.loads(handle(body, "/mutate", snapshot, NOW).body)["response"]["allowed"] is False


def test_the_gate_is_added_once_and_a_forged_seal_removed(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    def patch(pod: dict[str, Any]) -> Any:
        response = ask(pod, path="/gate")[1]
        return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []

    assert patch(good) == [{"op": "add", "path": "/spec/schedulingGates", "value": [{"name": "mlwarden.io/evidence"}]}]
    good["spec"]["schedulingGates"] = [{"name": "other"}]
    assert patch(good) == [{"op": "add", "path": "/spec/schedulingGates/-", "value": {"name": "mlwarden.io/evidence"}}]
    good["spec"]["schedulingGates"] = [{"name": "mlwarden.io/evidence"}]
    assert patch(good) == []
    good["metadata"]["annotations"] = {"mlwarden.io/judged": "forged"}
    assert patch(good) == [{"op": "remove", "path": "/metadata/annotations/mlwarden.io~1judged"}]


def test_the_warnings_are_single_lines(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    good["metadata"]["name"] = "two\nlines"
    good["spec"]["containers"][0]["name"] = "two\nlines"
    _, response = ask(good, namespace="sandbox")
    assert all("\n" not in warning and len(warning.encode()) <= 256 for warning in response.get("warnings", ()))

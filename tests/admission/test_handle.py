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
from mlwarden.policy.account import MIRROR

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


def test_a_good_pod_without_evidence_is_let_in_to_wait_and_asked_about_as_it_is_stored(
    ask: Callable[..., Any], good: dict[str, Any]
) -> None:
    answer, response = ask(good)
    assert response["allowed"] is True
    assert answer.decision == "hold"
    assert answer.wanted == ()
    assert any("held" in warning for warning in response["warnings"])


def test_a_dry_run_asks_for_nothing(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    named = {**good, "spec": {**good["spec"], "nodeName": "node-0"}}
    answer, _ = ask(named, "/validate", dryRun=True)
    assert answer.wanted == ()
    assert ask(named, "/validate")[0].wanted


def test_what_is_refused_for_what_it_is_asks_for_nothing_and_for_missing_evidence_it_does(
    ask: Callable[..., Any], good: dict[str, Any]
) -> None:
    named = {**good, "spec": {**good["spec"], "nodeName": "node-0"}}
    answer, response = ask(named, "/validate")
    assert not response["allowed"]
    assert answer.wanted == ("registry.example.com/team/app:1.0",)
    answer, response = ask(privileged(good))
    assert not response["allowed"]
    assert answer.wanted == ()


def test_the_tag_of_a_pod_is_pinned_while_its_resolution_is_young(snapshot: Snapshot, good: dict[str, Any]) -> None:
    known = msgspec.structs.replace(snapshot, resolutions={"registry.example.com/team/app:1.0": Resolution(digest=digest(D), at=NOW)})
    body = json.dumps(review(good)).encode()
    response = json.loads(handle(body, "/mutate", known, NOW).body)["response"]
    assert json.loads(base64.b64decode(response["patch"])) == [
        {"op": "test", "path": "/spec/containers/0/image", "value": "registry.example.com/team/app:1.0"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": f"registry.example.com/team/app:1.0@{D}"},
    ]


PINNED = f"registry.example.com/team/app:1.0@{D}"


def pinned(pod: dict[str, Any], image: str = PINNED) -> dict[str, Any]:
    stored = copy.deepcopy(pod)
    stored["spec"]["containers"][0]["image"] = image
    return stored


def patch_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    return found


def test_a_pinned_image_that_is_named_by_its_tag_again_gets_its_digest_back(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    answer, response = ask(good, operation="UPDATE", oldObject=pinned(good))
    assert response["allowed"] is True
    assert patch_of(response) == [
        {"op": "test", "path": "/spec/containers/0/image", "value": "registry.example.com/team/app:1.0"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": PINNED},
    ]
    assert answer.wanted == ()


def test_what_else_such_an_update_changes_is_judged(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    _, response = ask(privileged(good), operation="UPDATE", oldObject=pinned(good))
    assert response["allowed"] is False


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        (PINNED, "registry.example.com/team/app:1.1"),
        (PINNED, "registry.example.com/team/app"),
        (PINNED, "registry.example.com/other/app:1.0"),
        (PINNED, f"registry.example.com/team/app:1.0@{D.replace('a', 'b')}"),
        (f"registry.example.com/team/app@{D}", "registry.example.com/team/app:1.0"),
        ("registry.example.com/team/app:1.0", "registry.example.com/team/app:1.0"),
        (PINNED, "not an image"),
    ],
)
def test_another_image_is_not_taken_for_the_pinned_one(ask: Callable[..., Any], good: dict[str, Any], stored: str, named: str) -> None:
    _, response = ask(pinned(good, named), operation="UPDATE", oldObject=pinned(good, stored))
    assert patch_of(response) == []


@pytest.mark.parametrize(
    "named", ["python", "python:latest", "docker.io/python", "docker.io/library/python:latest", "index.docker.io/python"]
)
def test_every_spelling_of_the_pinned_one_is_it(ask: Callable[..., Any], good: dict[str, Any], named: str) -> None:
    _, response = ask(pinned(good, named), operation="UPDATE", oldObject=pinned(good, f"docker.io/library/python:latest@{D}"))
    assert patch_of(response)[-1]["value"] == f"docker.io/library/python:latest@{D}"


def test_while_a_pod_is_held_its_containers_are_resolved_again_and_its_image_volumes_keep_theirs(
    ask: Callable[..., Any], good: dict[str, Any]
) -> None:
    """A tag that was pushed again with the fix must get through; a volume cannot change any more (422)."""

    def pod(tail: str) -> dict[str, Any]:
        made = pinned(good, f"registry.example.com/team/app:1.0{tail}")
        made["spec"] |= {
            "schedulingGates": [{"name": "mlwarden.io/evidence"}],
            "volumes": [{"name": "m", "image": {"reference": f"registry.example.com/models/m:1{tail}"}}],
        }
        return made

    _, response = ask(pod(""), operation="UPDATE", oldObject=pod(f"@{D}"))
    assert response["allowed"] is True
    assert [each["path"] for each in patch_of(response) if each["op"] == "replace"] == ["/spec/volumes/0/image/reference"]


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
    going = {**good, "metadata": {**good["metadata"], "deletionTimestamp": "2026-11-24T00:00:00Z", "finalizers": ["x/y"]}}
    assert ask(bad, operation="UPDATE", oldObject=going)[1]["allowed"] is True
    assert ask(None, operation="DELETE", oldObject=bad)[1]["allowed"] is True
    assert ask(None, operation="CONNECT", subResource="exec")[1]["allowed"] is True


def test_a_deletion_timestamp_that_somebody_writes_into_an_update_is_no_way_out(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    bad = privileged(good)
    bad["metadata"]["deletionTimestamp"] = "2026-11-24T00:00:00Z"
    assert ask(bad, operation="UPDATE", oldObject=good)[1]["allowed"] is False
    going = {**good, "metadata": {**good["metadata"], "deletionTimestamp": "2026-11-24T00:00:00Z"}}
    debugged = copy.deepcopy(going)
    debugged["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "docker.io/busybox:1", "securityContext": {"privileged": True}}]
    changes = {"operation": "UPDATE", "subResource": "ephemeralcontainers", "oldObject": going}
    assert ask(debugged, path="/validate", **changes)[1]["allowed"] is False


NODE = {"username": "system:node:node-0", "groups": ["system:nodes", "system:authenticated"]}
PERSON = {"username": "alice", "groups": ["system:authenticated"]}


@pytest.mark.parametrize("path", ["/mutate", "/validate"])
@pytest.mark.parametrize(("user", "annotation", "allowed"), [(NODE, MIRROR, True), (PERSON, MIRROR, False), (NODE, "other", False)])
def test_a_mirror_pod_is_admitted_from_a_node_and_from_nobody_else(
    ask: Callable[..., Any], good: dict[str, Any], path: str, user: Any, annotation: str, *, allowed: bool
) -> None:
    bad = privileged(good)
    bad["spec"]["nodeName"] = "node-0"
    bad["metadata"]["annotations"] = {annotation: "abc"}
    assert ask(bad, path, userInfo=user)[1]["allowed"] is allowed


@pytest.mark.parametrize(
    "kind", [{"group": "", "version": "v1", "kind": "ConfigMap"}, {"group": "apps", "version": "v1", "kind": "Pod"}, {}, None]
)
def test_an_object_that_is_not_what_it_was_sent_as_is_refused(ask: Callable[..., Any], good: dict[str, Any], kind: Any) -> None:
    _, response = ask(good, kind=kind)
    assert response["allowed"] is False


def test_an_unknown_kind_with_a_pod_in_it_is_judged(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    obj = {"apiVersion": "example.com/v1", "kind": "Novelty", "metadata": {"name": "n"}, "spec": {"worker": privileged(good)["spec"]}}
    _, response = ask(obj, resource="novelties", group="example.com")
    assert response["allowed"] is False


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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('"hostNetwork": true', '"hostNetwork": false'),
        ('"hostNetwork": false', '"hostNetwork": true'),
        ('"hostNetwork": true', '"host\\u004eetwork": false'),
        ('"x": "<&>"', '"x": "<&>"'),
    ],
)
def test_a_key_that_occurs_twice_is_refused_whichever_counts(snapshot: Snapshot, good: dict[str, Any], first: str, second: str) -> None:
    body = json.dumps(review(good)).replace('"containers":', f'{first}, {second}, "containers":')
    response = json.loads(handle(body.encode(), "/mutate", snapshot, NOW).body)["response"]
    assert (response["uid"], response["allowed"]) == ("1-2-3", False)
    assert "occurs twice" in response["status"]["message"]


@pytest.mark.parametrize("again", ['"object": null', '"operation": "DELETE"', '"namespace": "kube-system"', '"uid": "4-5-6"'])
def test_a_key_of_the_review_itself_that_occurs_twice_is_refused(snapshot: Snapshot, good: dict[str, Any], again: str) -> None:
    body = json.dumps(review(good)).replace('"dryRun":', f'{again}, "dryRun":')
    response = json.loads(handle(body.encode(), "/mutate", snapshot, NOW).body)["response"]
    assert (response["uid"], response["allowed"]) == ("1-2-3", False)


def test_the_same_key_in_two_objects_and_in_strings_is_no_key_twice(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    good["metadata"]["annotations"] = {"a": '{"a":1,"a":2}', "b": "<a>&\u2028é", '"a"': ":"}
    assert ask(good)[1]["allowed"] is True


@pytest.mark.parametrize("levels", [900, 1000, 5000])
def test_an_object_nested_too_deeply_is_refused(snapshot: Snapshot, good: dict[str, Any], levels: int) -> None:
    bad = privileged(good)
    bad["spec"]["containers"][0]["env"] = "DEEP"
    deep = '{"a":' * levels + "1" + "}" * levels
    body = json.dumps(review(bad)).replace('"DEEP"', deep).encode()
    for path in ("/mutate", "/validate"):
        response = json.loads(handle(body, path, snapshot, NOW).body)["response"]
        assert (response["uid"], response["allowed"]) == ("1-2-3", False)


def test_an_object_of_a_million_empty_lists_is_refused_before_it_is_decoded(snapshot: Snapshot, good: dict[str, Any]) -> None:
    good["metadata"]["annotations"] = "MANY"
    body = json.dumps(review(good)).replace('"MANY"', "[" + "[]," * 1_000_000 + "1]").encode()
    response = json.loads(handle(body, "/mutate", snapshot, NOW).body)["response"]
    assert (response["uid"], response["allowed"]) == ("1-2-3", False)
    assert "100,000" in response["status"]["message"]


@pytest.mark.parametrize("change", [{"namespace": 7}, {"resource": []}, {"subResource": {}}, {"dryRun": "no"}, {"userInfo": "alice"}])
def test_a_wrong_type_in_the_review_is_refused_in_words(ask: Callable[..., Any], good: dict[str, Any], change: dict[str, Any]) -> None:
    _, response = ask(good, **change)
    assert response["allowed"] is False
    assert "cannot read" in response["status"]["message"]


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\x00"])
def test_what_is_no_text_is_refused(snapshot: Snapshot, good: dict[str, Any], bad: bytes) -> None:
    good["metadata"]["name"] = "NAME"
    body = json.dumps(review(good)).encode().replace(b"NAME", bad)
    response = json.loads(handle(body, "/mutate", snapshot, NOW).body)["response"]
    assert (response["uid"], response["allowed"]) == ("1-2-3", False)


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
    good["metadata"]["annotations"] = {"mlwarden.io/judged": "forged", "mlwarden.io/break-glass": "by whom"}
    assert [(each["op"], each["path"]) for each in patch(good)] == [
        ("remove", "/metadata/annotations/mlwarden.io~1judged"),
        ("remove", "/metadata/annotations/mlwarden.io~1break-glass"),
    ]


def test_paths_gate_and_annotations_are_those_of_what_the_controller_generates() -> None:
    from mlwarden.admission.handle import OWN_ANNOTATIONS, PATHS
    from mlwarden.controllers import gate, webhooks

    assert set(OWN_ANNOTATIONS) == set(gate.OWN_ANNOTATIONS)
    assert {webhooks.MUTATE, webhooks.VALIDATE, webhooks.GATE_PATH, webhooks.POLICY} == PATHS


def test_a_policy_that_does_not_compile_is_refused_with_the_place(ask: Callable[..., Any]) -> None:
    def policy(expression: str) -> dict[str, Any]:
        spec = {"profiles": {"*": "Deny"}, "message": "m", "why": "w", "fix": {"text": "t"}}
        requirement = {"expression": {"forEach": "pod", "expression": expression}}
        return {
            "apiVersion": "mlwarden.io/v1alpha1",
            "kind": "WardenPolicy",
            "metadata": {"name": "p"},
            "spec": {**spec, "requirement": requirement},
        }

    def asked(expression: str, **changes: Any) -> dict[str, Any]:
        where = {"resource": "wardenpolicies", "group": "mlwarden.io", "namespace": ""}
        _, response = ask(policy(expression), "/policy", **{**where, **changes})
        found: dict[str, Any] = response
        return found

    assert asked("object.spec.hostNetwork != true")["allowed"]
    refused = asked("object.spec.hostNetwork !=")
    assert not refused["allowed"]
    assert "does not compile: policy p: spec.requirement.expression: CEL: " in refused["status"]["message"]
    assert not asked("authorizer.path('/healthz').check('get').allowed()")["allowed"]
    assert not asked("true", resource="pods")["allowed"]
    assert asked("object.spec.hostNetwork !=", operation="DELETE")["allowed"]


def test_the_warnings_are_single_lines(ask: Callable[..., Any], good: dict[str, Any]) -> None:
    good["metadata"]["name"] = "two\nlines"
    good["spec"]["containers"][0]["name"] = "two\nlines"
    _, response = ask(good, namespace="sandbox")
    assert all("\n" not in warning and len(warning.encode()) <= 256 for warning in response.get("warnings", ()))

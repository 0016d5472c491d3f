"""What a policy is about: resources, selectors and conditions as the API server understands them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import policy, workloads
from mlwarden.model.evidence import Facts

NOW = datetime(2026, 11, 24, tzinfo=UTC)
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "team", "labels": {"tier": "gold"}},
    "spec": {"containers": [{"name": "c"}]},
}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "team"}}


def compiled(match: dict[str, Any], each: str = "pod") -> policy.CompiledPolicy:
    spec = {
        "profiles": {"*": "Deny"},
        "match": match,
        "requirement": {"expression": {"forEach": each, "expression": "true"}},
        "message": "m",
        "why": "w",
        "fix": {"text": "f"},
    }
    return policy.compile_policy(
        policy.parse({"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "p"}, "spec": spec})
    )


def answer(match: dict[str, Any], obj: dict[str, Any] = POD, **facts: Any) -> bool | str:
    namespace = {"metadata": {"name": "team", "labels": {"env": "prod"}}}
    known = Facts(**{"now": NOW, "namespace": namespace, "profile": "production", **facts})
    return policy.matches(compiled(match), workloads.extract(obj), known)


def test_without_a_word_it_is_about_everything_that_runs_a_pod() -> None:
    assert answer({}) is True
    assert answer({}, SECRET) is False


@pytest.mark.parametrize(
    ("group", "resource", "expected"),
    [("", "pods", True), ("*", "*", True), ("apps", "pods", False), ("", "secrets", False), ("*", "pods", True), ("", "*", True)],
)
def test_resources_are_groups_and_plurals(group: str, resource: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    assert answer({"resources": [{"apiGroups": [group], "resources": [resource]}]}) is expected


GATEWAYS = {"resources": [{"apiGroups": ["gateway.networking.k8s.io"], "resources": ["gateways"]}]}
GATEWAY = {**POD, "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}


def test_the_plural_of_a_kind_is_what_the_api_server_says() -> None:
    assert answer(GATEWAYS, GATEWAY, plural="gateways") is True
    assert answer(GATEWAYS, GATEWAY, plural="gatewayclasses") is False


def test_a_plural_that_nobody_said_is_a_reason_and_not_a_guess() -> None:
    found = answer(GATEWAYS, GATEWAY)
    assert isinstance(found, str)
    assert "Gateway" in found
    assert answer(GATEWAYS, {**GATEWAY, "apiVersion": "example.com/v1"}) is False
    assert answer({"resources": [{"apiGroups": ["*"], "resources": ["*"]}]}, GATEWAY) is True


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"key": "tier", "operator": "In", "values": ["gold"]}, True),
        ({"key": "tier", "operator": "In", "values": ["silver"]}, False),
        ({"key": "none", "operator": "In", "values": ["gold"]}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, False),
        ({"key": "none", "operator": "NotIn", "values": ["gold"]}, True),
        ({"key": "tier", "operator": "Exists"}, True),
        ({"key": "none", "operator": "Exists"}, False),
        ({"key": "tier", "operator": "DoesNotExist"}, False),
        ({"key": "none", "operator": "DoesNotExist"}, True),
    ],
)
def test_selectors_are_those_of_kubernetes(row: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 -- a table
    assert answer({"objectSelector": {"matchExpressions": [row]}}) is expected


def test_labels_and_expressions_of_a_selector_are_both_needed() -> None:
    selector = {"matchLabels": {"tier": "gold"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}
    assert answer({"objectSelector": selector}) is False


def test_taking_a_label_off_does_not_take_the_object_out_of_sight() -> None:
    bare = {**POD, "metadata": {"name": "p", "namespace": "team"}}
    assert answer({"objectSelector": {"matchLabels": {"tier": "gold"}}}, bare, old=POD, operation="UPDATE") is True


def test_the_namespace_is_selected_by_its_labels() -> None:
    assert answer({"namespaceSelector": {"matchLabels": {"env": "prod"}}}) is True
    assert answer({"namespaceSelector": {"matchLabels": {"env": "test"}}}) is False


def test_an_unknown_namespace_is_a_reason_and_not_a_no() -> None:
    found = answer({"namespaceSelector": {"matchLabels": {"env": "prod"}}}, namespace={})
    assert isinstance(found, str)
    assert "team" in found


@pytest.mark.parametrize("labels", [[], "a", {"a": 1}, 7])
def test_labels_that_are_none_are_a_reason(labels: Any) -> None:
    obj = {**POD, "metadata": {"name": "p", "labels": labels}}
    assert isinstance(answer({"objectSelector": {"matchLabels": {"a": "b"}}}, obj), str)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("object.metadata.name == 'p'", True),
        ("object.metadata.name == 'q'", False),
        ("request.operation == 'CREATE' && request.userInfo.username == 'alice'", True),
        ("request.namespace == 'team' && request.name == 'p'", True),
        ("namespaceObject.metadata.labels.env == 'prod'", True),
    ],
)
def test_conditions_see_the_object_the_namespace_and_the_request(expression: str, expected: bool) -> None:  # noqa: FBT001 -- a table
    assert answer({"conditions": [{"name": "c", "expression": expression}]}, user={"username": "alice"}) is expected


def test_a_condition_that_fails_is_a_reason_that_names_it() -> None:
    found = answer({"conditions": [{"name": "broken", "expression": "object.spec.missing == 1"}]})
    assert isinstance(found, str)
    assert "broken" in found


def test_a_false_condition_outweighs_one_that_fails() -> None:
    conditions = [{"name": "broken", "expression": "object.spec.missing == 1"}, {"name": "no", "expression": "false"}]
    assert answer({"conditions": conditions}) is False


def test_nulls_in_the_object_are_as_good_as_nothing() -> None:
    obj = {**POD, "spec": {**POD["spec"], "hostNetwork": None}}  # type: ignore[dict-item]
    assert answer({"conditions": [{"name": "c", "expression": "!has(object.spec.hostNetwork)"}]}, obj) is True


def test_the_action_is_that_of_the_profile_or_of_the_rest() -> None:
    for each in policy.shipped():
        if each.name == "image-scanned":
            found = policy.compile_policy(each)
            assert (found.action("baseline"), found.action("a typing error")) == ("Audit", "Deny")

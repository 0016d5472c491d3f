"""What is generated: for which policies, under which names, bound to which namespaces with which action."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import policy
from mlwarden.model.finding import Action
from mlwarden.model.policy import PROFILE_LABEL, LabelSelector, Settings
from mlwarden.policy.match import selects

PROFILE = st.sampled_from(["baseline", "experiment", "production", "other"])


def made(settings_: Settings | None = None, **changes: Any) -> list[dict[str, Any]]:
    spec = {
        "profiles": {"production": "Deny"},
        "requirement": {"expression": {"forEach": "container", "expression": "container.image != ''"}},
        "message": "container {name} is bad",
        "why": "w",
        "fix": {"text": "do {image}"},
        **changes,
    }
    parsed = policy.parse({"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "p"}, "spec": spec})
    return policy.admission_policies([parsed], settings_ or Settings())


def bound(objects: list[dict[str, Any]], labels: dict[str, str]) -> list[list[str]]:
    """The validationActions of every binding whose selector takes a namespace with these labels."""
    found = []
    for obj in objects:
        if obj["kind"] == "ValidatingAdmissionPolicyBinding":
            selector = msgspec.convert(obj["spec"].get("matchResources", {}).get("namespaceSelector", {}), LabelSelector)
            if selects(selector, labels):
                found.append(obj["spec"]["validationActions"])
    return found


@settings(max_examples=200, deadline=None)
@given(
    profiles=st.dictionaries(PROFILE | st.just("*"), st.sampled_from(list(Action)), min_size=1),
    default=PROFILE,
    label=st.none() | PROFILE | st.sampled_from(["", "prodution"]),
)
def test_a_namespace_gets_the_action_of_its_profile_once(profiles: dict[str, Action], default: str, label: str | None) -> None:
    objects = made(Settings(default_profile=default), profiles={name: action.value for name, action in profiles.items()})
    action = profiles.get(default if label is None else label, profiles.get("*"))
    labels = {} if label is None else {PROFILE_LABEL: label}
    expected = {None: [], Action.DENY: [["Deny", "Audit"]], Action.WARN: [["Audit"]], Action.AUDIT: [["Audit"]]}
    assert bound(objects, labels) == expected[action]


def test_names_are_unique_and_stay_clear_of_the_gate() -> None:
    objects = policy.admission_policies(policy.shipped(("registry.example.com",)), Settings())
    names = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(set(names)) == len(names)
    assert all(name.startswith("mlwarden-policy-") for _, name in names)
    assert all(obj["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "mlwarden"} for obj in objects)


def test_exempt_namespaces_are_excluded_by_a_label_nobody_can_take_off() -> None:
    (found, *_) = made(Settings(namespace="warden", exempt_namespaces=("kube-system",)))
    row = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "warden"]}
    assert row in found["spec"]["matchConstraints"]["namespaceSelector"]["matchExpressions"]


def test_auditing_leaves_the_api_server_nothing_to_deny_and_the_warnings_to_the_webhook() -> None:
    objects = policy.admission_policies(policy.shipped(("registry.example.com",)), Settings(rollout="audit"))
    actions = [obj["spec"]["validationActions"] for obj in objects if obj["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert actions
    assert all(each == ["Audit"] for each in actions)


def test_a_stored_word_about_exceptions_does_not_take_a_policy_out_of_the_api_server() -> None:
    assert made(exceptions=True) == made(exceptions=False) != []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"requirement": {"imageScan": {}}}, "evidence"),
        ({"match": {"resources": [{"apiGroups": ["ray.io"], "resources": ["*"]}]}}, "built-in"),
        (
            {
                "requirement": {"expression": {"forEach": "object", "expression": "true"}},
                "match": {"resources": [{"apiGroups": ["apps"], "resources": ["deployments"]}]},
            },
            "scale",
        ),
        ({"requirement": {"expression": {"forEach": "pod", "expression": "[1].all(variables, object.kind == 'Pod')"}}}, "rewritten"),
        ({"requirement": {"expression": {"forEach": "pod", "expression": "[1].all(mlwarden_pod, object.kind == 'Pod')"}}}, "rewritten"),
    ],
)
def test_what_cannot_be_compiled_says_why(changes: dict[str, Any], says: str) -> None:
    assert made(**changes) == []
    spec = {
        "profiles": {"*": "Deny"},
        "requirement": {"expression": {"expression": "true"}},
        "message": "m",
        "why": "w",
        "fix": {"text": "f"},
    }
    manifest = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "p"}, "spec": {**spec, **changes}}
    assert says in policy.not_compiled(policy.parse(manifest))


def test_resources_narrow_to_the_built_in_kinds_among_them() -> None:
    (found, *_) = made(match={"resources": [{"apiGroups": ["*"], "resources": ["jobs", "rayclusters"]}]})
    rule = {"apiGroups": ["batch"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["jobs"], "scope": "Namespaced"}
    assert found["spec"]["matchConstraints"]["resourceRules"] == [rule]


def test_messages_are_one_line_that_names_what_is_wrong_what_helps_and_what_shows_more() -> None:
    for obj in policy.admission_policies(policy.shipped(("registry.example.com",)), Settings()):
        if obj["kind"] == "ValidatingAdmissionPolicy":
            (validation,) = obj["spec"]["validations"]
            assert "\n" not in validation["message"]
            assert "; fix: " in validation["message"]
            assert validation["message"].endswith("mlwarden check FILE shows all findings at once")
            assert "{name}" not in validation["message"]


def test_a_message_names_the_containers_that_fail() -> None:
    (found, *_) = made()
    (validation,) = found["spec"]["validations"]
    assert validation["message"].startswith("container … is bad (p); fix: do …;")
    named = '"container " + variables.containers.filter(container, !(container.image !='
    assert validation["messageExpression"].startswith("variables.large != '' ? ((variables.large")
    assert named in validation["messageExpression"]


def test_roles_are_only_spelled_out_where_they_are_asked_for() -> None:
    (with_roles,) = [
        obj
        for obj in policy.admission_policies(policy.shipped(("registry.example.com",)), Settings())
        if obj["metadata"]["name"] == "mlwarden-policy-resource-limits"
    ]
    (without, *_) = made()
    assert "roles" in {each["name"] for each in with_roles["spec"]["variables"]}
    assert "roles" not in {each["name"] for each in without["spec"]["variables"]}


def test_what_passes_is_a_match_condition_and_costs_no_message() -> None:
    injected = {each.name for each in policy.shipped() if each.spec.injected}
    for obj in policy.admission_policies(policy.shipped(("registry.example.com",)), Settings()):
        if obj["kind"] == "ValidatingAdmissionPolicy":
            (condition,) = obj["spec"]["matchConditions"]
            assert condition["name"] == "violated"
            assert "variables." not in condition["expression"]
            (validation,) = obj["spec"]["validations"]
            long = validation["expression"].startswith('variables.large == "the environment is too long')
            left = validation["expression"].startswith("false || variables.large == '' && !(namespaceObject.")
            name = obj["metadata"]["name"].removeprefix("mlwarden-policy-")
            assert (long, left) == (name == "env-credentials", name in injected)
            assert long or left or validation["expression"] == "false"


@pytest.mark.parametrize(
    "changes",
    [
        {"requirement": {"expression": {"expression": "has(namespaceObject.metadata)"}}},
        {"match": {"conditions": [{"name": "mine", "expression": "namespaceObject.metadata.name != 'a'"}]}},
    ],
)
def test_a_policy_that_looks_at_the_namespace_is_a_validation_because_conditions_do_not_see_it(changes: dict[str, Any]) -> None:
    (found, *_) = made(**changes)
    (condition,), (validation,) = found["spec"]["matchConditions"], found["spec"]["validations"]
    assert "namespaceObject" not in condition["expression"]
    assert validation["expression"] != "false"


def test_a_policy_of_the_clusters_own_is_a_validation_with_a_sentence_where_it_has_no_value() -> None:
    (found, *_) = made(match={"conditions": [{"name": "mine", "expression": "request.operation == 'UPDATE'"}]})
    (condition,), (validation,) = found["spec"]["matchConditions"], found["spec"]["validations"]
    assert condition["name"] == "asked"
    question, _, sentence = validation["expression"].partition(" // ")
    assert question == "variables.large != '' ? false : variables.satisfied"
    assert sentence.startswith("The policy p could not be evaluated on this object")
    variables = {each["name"]: each["expression"] for each in found["spec"]["variables"]}
    assert "(request.operation == 'UPDATE')" in variables["applies"]
    assert variables["satisfied"].startswith("!variables.applies || ")


def test_that_nobody_has_decided_is_left_to_the_webhook_to_say() -> None:
    def names(trusted: tuple[str, ...]) -> set[str]:
        return {obj["metadata"]["name"] for obj in policy.admission_policies(policy.shipped(trusted), Settings())}

    decided, undecided = names(("registry.example.com",)), names(())
    assert {name.partition(".")[0] for name in decided - undecided} == {"mlwarden-policy-trusted-registries"}


def test_what_a_policy_walks_over_is_measured_first_and_nothing_else() -> None:
    large = {}
    for obj in policy.admission_policies(policy.shipped(("registry.example.com",)), Settings()):
        if obj["kind"] == "ValidatingAdmissionPolicy":
            variables = {each["name"]: each["expression"] for each in obj["spec"].get("variables", [])}
            large[obj["metadata"]["name"].removeprefix("mlwarden-policy-")] = variables.get("large", "")
    assert "ports" in large["host-ports"]
    assert "env" not in large["host-ports"]
    assert "more than 1000 containers" in large["privileged-containers"]
    assert large["host-namespaces"] == ""
    assert "sysctls" in large["sysctls"]

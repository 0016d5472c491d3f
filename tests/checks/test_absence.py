"""Of what others complete only what is set can fail, also by policies of the cluster's own; no object gets round a question by its cost."""

from datetime import UTC, datetime
from typing import Any

import pytest

from mlwarden import checks, policy, workloads
from mlwarden.model.evidence import Facts

IMAGE = "registry.example/train:1"


def outcomes(expression: str, obj: dict[str, Any], *, each: str = "container", patch: dict[str, Any] | None = None) -> list[str]:
    body = {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": "own"},
        "spec": {
            "profiles": {"*": "Deny"},
            "severity": "low",
            "requirement": {"expression": {"forEach": each, "expression": expression}},
            "message": "m",
            "why": "w",
            "fix": {"text": "t", **({"patch": patch} if patch else {})},
        },
    }
    compiled = policy.compile_policy(policy.parse(body))
    facts = Facts(now=datetime(2026, 11, 30, tzinfo=UTC), namespace={"metadata": {"name": "n"}}, profile="production")
    return [answer.outcome.value for answer in checks.judge(compiled, workloads.extract(obj), facts)]


def overriding(container: dict[str, Any]) -> dict[str, Any]:
    spec = {"podSpecOverrides": [{"containers": [{"name": "node", **container}]}]}
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "t"}, "spec": spec}


def whole(container: dict[str, Any]) -> dict[str, Any]:
    spec = {"template": {"spec": {"containers": [{"name": "node", **container}]}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


@pytest.mark.parametrize(
    ("expression", "silent", "sets"),
    [
        (
            "container.?securityContext.?readOnlyRootFilesystem.orValue(false) == true",
            {},
            {"securityContext": {"readOnlyRootFilesystem": False}},
        ),
        ("!container.?tty.orValue(false)", {}, {"tty": True}),
        ("has(container.livenessProbe)", {}, None),
        ("container.securityContext.runAsUser > 999", {}, {"securityContext": {"runAsUser": 5}}),
        ("container.?command.orValue([]).size() > 0", {}, None),
    ],
)
def test_a_policy_of_the_clusters_own_asks_a_partial_container_for_nothing(expression: str, silent: Any, sets: Any) -> None:
    assert outcomes(expression, overriding(silent)) == ["Pass"]
    assert outcomes(expression, whole(silent)) != ["Pass"] or expression.startswith("!")
    if sets is not None:
        assert outcomes(expression, overriding(sets)) == ["Fail"]


def test_the_policys_own_patch_says_what_somebody_else_may_say() -> None:
    asked, patch = "container.?stdin.orValue(false) == true", {"stdin": True}
    assert outcomes(asked, overriding({}), patch=patch) == ["Pass"]
    assert outcomes(asked, overriding({"stdin": False}), patch=patch) == ["Fail"]


def test_an_object_that_uses_up_the_budget_is_not_passed_by() -> None:
    costly = "container.args.all(a, container.args.all(b, container.args.all(c, a != b || b != c || size(c) > 0)))"
    args = {"args": [f"argument {index}" for index in range(200)]}
    assert outcomes(f"!has(container.args) || {costly}", overriding(args)) == ["Unknown"]
    assert outcomes(f"!has(container.args) || {costly}", overriding({"args": ["a"]})) == ["Pass"]


def test_a_label_is_asked_of_kinds_that_have_a_place_for_it() -> None:
    asked = "object.metadata.?labels[?'team'].orValue('') != ''"
    label = {"labels": {"team": "a"}}

    def workflow(spec: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
        body = {**spec, "templates": [{"name": "t", "container": {"image": IMAGE}, **template}]}
        return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "w"}, "spec": body}

    def service(metadata: dict[str, Any], predictor: dict[str, Any]) -> dict[str, Any]:
        spec = {"predictor": {"containers": [{"name": "kserve-container", "image": IMAGE}], **predictor}}
        return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": {"name": "s", **metadata}, "spec": spec}

    def revision(spec: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": {"name": "r"}, "spec": spec}

    for good in (workflow({}, {"metadata": label}), workflow({"podMetadata": label}, {}), service(label, {}), service({}, label)):
        assert outcomes(asked, good, each="pod") == ["Pass"]
    for bad in (workflow({}, {}), service({}, {})):
        assert outcomes(asked, bad, each="pod") == ["Fail"]
    bare = revision({"containers": [{"image": IMAGE}], "hostPID": True})
    assert outcomes(asked, bare, each="pod") == ["Pass"]
    assert outcomes("has(object.metadata) && object.spec.?hostPID.orValue(false) == false", bare, each="pod") == ["Fail"]


def test_an_annotation_that_an_override_sets_is_its_own() -> None:
    asked = "!('example.com/unsafe' in object.metadata.?annotations.orValue({}))"

    def override(metadata: dict[str, Any]) -> dict[str, Any]:
        spec = {"podTemplateOverrides": [{"metadata": metadata, "spec": {"containers": [{"name": "node"}]}}]}
        return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "t"}, "spec": spec}

    for each in ("pod", "container"):
        assert outcomes(asked, override({"annotations": {"example.com/unsafe": "x"}}), each=each) == ["Fail"]
        assert outcomes(asked, override({"labels": {"a": "b"}}), each=each) == ["Pass"]


@pytest.mark.parametrize(
    ("expression", "each"),
    [
        ("container.image.startsWith('registry.example/')", "container"),
        ("container.?image.orValue('').startsWith('registry.example/')", "container"),
        ("object.spec.containers.all(c, c.image.startsWith('registry.example/'))", "pod"),
    ],
)
def test_an_image_that_is_set_is_asked_about_where_nobodys_pod_has_none(expression: str, each: str) -> None:
    assert outcomes(expression, overriding({"image": IMAGE}), each=each) == ["Pass"]
    assert outcomes(expression, overriding({}), each=each) == ["Pass"]
    assert outcomes(expression, overriding({"image": "docker.io/miner/x:1"}), each=each) == ["Fail"]


def test_a_kind_that_lacks_a_field_of_the_pod_is_asked_about_its_containers_like_any_other() -> None:
    spec = {"driver": {"image": IMAGE, "sidecars": [{"name": "s", "image": IMAGE}]}}
    obj = {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "s"}, "spec": spec}
    assert outcomes("has(container.livenessProbe) && has(container.tty)", obj) == ["Fail", "Fail"]
    assert outcomes("object.spec.automountServiceAccountToken == false", obj) == ["Pass", "Pass"]


@pytest.mark.parametrize("own", [0, 1000])
def test_what_the_pod_says_for_all_containers_counts_and_not_the_hardening(own: int) -> None:
    spec = {"podSpecOverrides": [{"securityContext": {"runAsUser": own}, "containers": [{"name": "node"}]}]}
    obj = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "t"}, "spec": spec}
    user = "securityContext.?runAsUser"
    expression = f"container.?{user}.orValue(object.spec.?{user}.orValue(0)) > 0"
    assert outcomes(expression, obj) == ["Pass" if own else "Fail"]
    del spec["podSpecOverrides"][0]["containers"]
    assert outcomes(expression, obj) == ["Pass" if own else "Fail"]


def test_two_pods_of_one_place_are_two() -> None:
    lone = {"image": IMAGE, "command": ["x"], "securityContext": {"privileged": True}}
    spec = {**lone, "containers": [{"name": "good", "image": IMAGE}]}
    obj = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "r"}, "spec": spec}
    expression = "object.spec.containers.all(c, has(c.securityContext) && !c.?securityContext.?privileged.orValue(false))"
    assert outcomes(expression, obj, each="pod") == ["Pass", "Fail"]

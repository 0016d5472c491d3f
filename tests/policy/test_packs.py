"""The shipped policies say what their samples say, and say it well."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mlwarden import policy
from mlwarden.checks import Answer
from mlwarden.model.finding import Action, Outcome
from mlwarden.model.policy import Policy, Settings
from mlwarden.policy import CompiledPolicy

Build = Callable[[dict[str, Any]], dict[str, Any]]
Judge = Callable[[CompiledPolicy, Any], list[Answer]]
Packs = tuple[Policy, ...]
Table = list[tuple[str, str, dict[str, Any]]]

PRIVILEGED = {"containers": [{"name": "w", "securityContext": {"privileged": True}}]}
LOUD = re.compile(r"\b(you must|please|invalid|illegal)\b", re.IGNORECASE)


def test_a_sample_is_answered_as_it_says(
    *, name: str, kind: str, sample: dict[str, Any], shipped: Mapping[str, CompiledPolicy], build: Build, judge: Judge
) -> None:
    answers = judge(shipped[name], build(sample))
    failing = [answer for answer in answers if answer.outcome is Outcome.FAIL]
    assert not [answer for answer in answers if answer.outcome is Outcome.UNKNOWN]
    assert bool(failing) == (kind == "bad")
    if "path" in sample:
        assert [answer.path for answer in failing] == [sample["path"]]
    if "secret" in sample:
        assert not any(str(sample["secret"]) in answer.message + answer.fix for answer in failing)


def test_the_patch_is_recommended_exactly_where_it_helps(
    *, name: str, kind: str, sample: dict[str, Any], shipped: Mapping[str, CompiledPolicy], build: Build, judge: Judge
) -> None:
    """The check shows the patch only where the patched element was judged again and passes, else the text."""
    text, _, _ = shipped[name].policy.spec.fix.text.partition("{name}")
    fixes = [answer.fix for answer in judge(shipped[name], build(sample)) if answer.outcome is Outcome.FAIL]
    assert any(not fix.startswith(text) for fix in fixes) == sample.get("patch", False)


@pytest.mark.parametrize(
    "image", ["{{inputs.parameters.image}}", "registry.example.com/{{workflow.parameters.name}}:latest", "${IMAGE}", "auto", " "]
)
def test_a_parameter_in_the_place_of_an_image_is_left_to_the_pod_that_it_becomes(
    image: str, shipped: Mapping[str, CompiledPolicy], judge: Judge
) -> None:
    def outcomes(version: str, kind: str, spec: dict[str, Any]) -> set[Outcome]:
        obj = {"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, "spec": spec}
        names = ("trusted-registries", "pinned-images", "image-scanned")
        return {answer.outcome for name in names for answer in judge(shipped[name], obj)}

    container = {"name": "main", "image": image}
    assert outcomes("argoproj.io/v1alpha1", "Workflow", {"templates": [{"name": "main", "container": container}]}) == {Outcome.PASS}
    assert outcomes("apps/v1", "Deployment", {"template": {"spec": {"containers": [container]}}}) == {Outcome.PASS}
    assert Outcome.FAIL in outcomes("v1", "Pod", {"containers": [container]})


def test_each_credential_is_a_finding_that_names_its_variable(shipped: Mapping[str, CompiledPolicy], build: Build, judge: Judge) -> None:
    env = [("A", "x"), ("MLFLOW_TRACKING_PASSWORD", "hunter2"), ("B", True), ("HF_TOKEN", "$HF_TOKEN"), ("API_TOKEN", 4096)]
    pod = build({"container": {"env": [{"name": name, "value": value} for name, value in env]}})
    failing = [answer for answer in judge(shipped["env-credentials"], pod) if answer.outcome is not Outcome.PASS]
    assert [(answer.path, answer.message) for answer in failing] == [
        (f"spec.containers[0].env[{index}].value", f"variable {name} has a credential in plain text")
        for index, name in ((1, "MLFLOW_TRACKING_PASSWORD"), (3, "HF_TOKEN"))
    ]
    assert "key: HF_TOKEN" in failing[1].fix


@pytest.mark.parametrize(
    ("pod", "container", "shown"),
    [
        ({}, {}, "runAsNonRoot: true, runAsUser: 1000"),
        ({}, {"runAsUser": 2000}, "runAsNonRoot: true"),
        ({"runAsUser": 2000}, {}, "runAsNonRoot: true"),
        ({}, {"runAsUser": 0}, "runAsNonRoot: true, runAsUser: 1000"),
        ({"runAsUser": 0}, {"runAsNonRoot": False}, "runAsNonRoot: true, runAsUser: 1000"),
    ],
)
def test_non_root_is_advised_with_a_number_unless_there_is_one(
    *, pod: dict[str, Any], container: dict[str, Any], shown: str, shipped: Mapping[str, CompiledPolicy], build: Build, judge: Judge
) -> None:
    """Without one the kubelet starts no container of an image whose user is root, or a name."""
    spec = {"securityContext": {"runAsNonRoot": None, **pod}}
    (answer,) = judge(shipped["run-as-non-root"], build({"spec": spec, "container": {"securityContext": container}}))
    assert answer.fix == f"set securityContext: {{{shown}}} in spec.containers[0]"


def test_every_patch_has_a_sample_that_it_helps(shipped: Mapping[str, CompiledPolicy], table: Table) -> None:
    helped = {name for name, _, sample in table if sample.get("patch")}
    assert {name for name, each in shipped.items() if each.policy.spec.fix.patch} <= helped


def test_every_expression_has_good_and_bad_samples(shipped: Mapping[str, CompiledPolicy], table: Table) -> None:
    expressions = {name for name, each in shipped.items() if each.policy.spec.requirement.expression}
    for kind in ("good", "bad"):
        assert {name for name, found, _ in table if found == kind} == expressions


def test_a_good_pod_passes_every_expression(shipped: Mapping[str, CompiledPolicy], build: Build, judge: Judge) -> None:
    for each in shipped.values():
        if each.policy.spec.requirement.expression:
            assert {answer.outcome for answer in judge(each, build({}))} <= {Outcome.PASS}, each.name


@pytest.mark.parametrize(
    ("version", "kind_", "spec"),
    [
        ("ray.io/v1", "RayCluster", {"workerGroupSpecs": [{"template": {"spec": PRIVILEGED}}]}),
        ("serving.kserve.io/v1beta1", "InferenceService", {"predictor": PRIVILEGED}),
        ("example.com/v1", "Unheard", {"deep": [PRIVILEGED]}),
    ],
    ids=["RayCluster", "InferenceService", "unknown kind"],
)
def test_ml_kinds_are_judged_by_the_same_expressions(
    version: str, kind_: str, spec: dict[str, Any], shipped: Mapping[str, CompiledPolicy], judge: Judge
) -> None:
    obj = {"apiVersion": version, "kind": kind_, "metadata": {"name": "x"}, "spec": spec}
    (answer,) = judge(shipped["privileged-containers"], obj)
    assert answer.outcome is Outcome.FAIL


def test_malformed_fields_of_custom_kinds_are_unknown_and_never_a_pass(shipped: Mapping[str, CompiledPolicy], judge: Judge) -> None:
    obj = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "r"},
        "spec": {"headGroupSpec": {"template": {"spec": {"containers": [{"name": "w", "securityContext": {"privileged": "yes please"}}]}}}},
    }
    (answer,) = judge(shipped["privileged-containers"], obj)
    assert answer.outcome is Outcome.UNKNOWN


def test_there_are_as_many_pod_security_controls_as_in_the_standard(packs: Packs) -> None:
    controls = policy.pod_security(packs)
    assert len(controls) == 18
    assert all(each.spec.profiles["production"] is Action.DENY for each in controls)


def test_a_profile_nobody_knows_gets_what_production_gets(packs: Packs) -> None:
    for each in packs:
        assert each.spec.profiles["*"] is each.spec.profiles["production"], each.name


def test_every_profile_is_at_least_as_strict_as_the_one_below(packs: Packs) -> None:
    order = [Action.AUDIT, Action.WARN, Action.DENY]
    for each in packs:
        ranks = [order.index(each.spec.profiles[profile]) for profile in ("baseline", "experiment", "production")]
        assert ranks == sorted(ranks), each.name


def test_the_pack_is_the_first_profile_that_denies(packs: Packs) -> None:
    for each in packs:
        first = next(profile for profile in ("baseline", "experiment", "production") if each.spec.profiles[profile] is Action.DENY)
        assert each.pack == first, each.name


def test_texts_teach_without_shouting(packs: Packs) -> None:
    for each in packs:
        for text in (each.spec.message, each.spec.why, each.spec.fix.text):
            assert not text.endswith("."), (each.name, text)
            assert not LOUD.search(text), (each.name, text)
        assert each.spec.references, each.name
        assert "{name}" in each.spec.message or "{image}" in each.spec.message, each.name


def test_every_expression_is_compiled_into_the_api_server(packs: Packs) -> None:
    not_compiled = {each.name for each in packs if policy.not_compiled(each)}
    assert not_compiled == {"image-scanned"}


def test_every_profile_of_the_settings_has_its_action(packs: Packs) -> None:
    for each in packs:
        compiled = policy.compile_policy(each)
        assert all(compiled.action(profile) for profile in Settings().profiles)

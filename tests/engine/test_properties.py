"""What holds for every object and every policy, tried on random ones."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import engine, policy, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution, Scan
from mlwarden.model.finding import Decision, Finding, Outcome, Verdict
from mlwarden.model.policy import Settings

Make = Callable[..., policy.CompiledPolicy]

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
PROFILES = ("baseline", "experiment", "production", "unheard-of")
IMAGES = ("registry.example/a:1", f"registry.example/a@{DIGEST}", "nginx", "", "NOT AN IMAGE")
FEW = settings(max_examples=100, deadline=None)

scalars = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=6) | st.sampled_from(IMAGES)
)
FIELDS = [
    "securityContext",
    "privileged",
    "capabilities",
    "add",
    "drop",
    "runAsNonRoot",
    "runAsUser",
    "seccompProfile",
    "type",
    "env",
    "name",
    "value",
    "image",
    "reference",
    "resources",
    "limits",
    "requests",
    "memory",
    "cpu",
    "nvidia.com/gpu",
    "hostPath",
    "path",
    "ports",
    "hostPort",
    "volumeMounts",
    "args",
    "procMount",
    "allowPrivilegeEscalation",
    "valueFrom",
    "secretKeyRef",
    "annotations",
    "labels",
    "serviceAccountName",
    "projected",
    "sources",
]
names = st.sampled_from(FIELDS) | st.text(max_size=4)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12)
containers = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "c"]), "image": st.sampled_from(IMAGES)},
    optional={
        "securityContext": st.fixed_dictionaries(
            {},
            optional={
                "privileged": st.booleans(),
                "allowPrivilegeEscalation": st.booleans(),
                "runAsNonRoot": st.booleans(),
                "capabilities": st.fixed_dictionaries(
                    {}, optional={"add": st.lists(st.sampled_from(["ALL", "NET_RAW"])), "drop": st.just(["ALL"])}
                ),
            },
        ),
        "resources": anything,
        "env": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["A", "API_TOKEN"]), "value": st.text(max_size=4)}), max_size=2),
        "ports": anything,
    },
)
specs = st.fixed_dictionaries(
    {"containers": st.lists(containers, min_size=1, max_size=3)},
    optional={
        "initContainers": st.lists(containers, max_size=2),
        "hostNetwork": st.booleans(),
        "hostPID": st.booleans(),
        "securityContext": anything,
        "volumes": st.lists(
            st.fixed_dictionaries({"name": st.just("v")}, optional={"hostPath": anything, "emptyDir": st.just({})}), max_size=2
        ),
    },
)
wild = st.fixed_dictionaries(
    {"apiVersion": st.sampled_from(["v1", "apps/v1", "example.org/v1"]), "kind": st.sampled_from(["Pod", "Deployment", "Thing", "List"])},
    optional={
        "metadata": anything,
        "spec": anything | specs | st.fixed_dictionaries({"template": st.fixed_dictionaries({"spec": specs | anything})}),
    },
)


def pod(spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": spec}


@pytest.fixture(scope="module")
def policies(make: Make) -> list[policy.CompiledPolicy]:
    """Every shipped policy, and one of each kind with each way of taking an Unknown."""
    own = [
        make(f"{kind}-{on_unknown.lower()}", requirement=requirement, onUnknown=on_unknown, profiles={"*": "Deny"})
        for on_unknown in ("Hold", "Deny", "Warn")
        for kind, requirement in (
            ("scan", {"imageScan": {"severity": "LOW", "fixable": False}}),
            (
                "pod",
                {
                    "expression": {
                        "forEach": "pod",
                        "expression": "!has(object.spec.hostPID) || !object.spec.hostPID",
                        "path": "spec.hostPID",
                    }
                },
            ),
            ("volume", {"expression": {"forEach": "volume", "expression": "!has(volume.hostPath)", "path": "hostPath"}}),
            ("fails", {"expression": {"forEach": "container", "expression": "container.securityContext.privileged == false"}}),
        )
    ]
    return [*(policy.compile_policy(each) for each in policy.shipped()), *own]


def judged(obj: Any, policies: list[policy.CompiledPolicy], profile: str, rollout: str = "enforce", **fields: Any) -> Verdict:
    known = Facts(now=NOW, namespace={"metadata": {"name": "n", "labels": {}}}, profile=profile, **fields)
    return engine.evaluate(workloads.extract(obj), policies, known, Settings(rollout=rollout), passes=True)


def exists(obj: Any, path: str) -> bool:
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(obj, dict) and step in obj:
            obj = obj[step]
        elif isinstance(obj, list) and step.isdecimal() and int(step) < len(obj):
            obj = obj[int(step)]
        else:
            return False
    return True


@given(anything | wild, st.sampled_from(PROFILES))
@FEW
def test_no_json_value_makes_any_policy_raise(policies: list[policy.CompiledPolicy], obj: Any, profile: str) -> None:
    workload = workloads.extract(obj)
    verdict = judged(obj, policies, profile)
    for text in (
        engine.refusal(verdict, workload.resource),
        engine.held(verdict),
        *engine.warnings(verdict),
        *engine.audit(verdict).values(),
    ):
        text.encode()
    for line in (*engine.warnings(verdict), engine.held(verdict)):
        assert line.isprintable()
        assert len(line.encode()) <= 1024
    assert len(engine.refusal(verdict, workload.resource).splitlines()) <= 7
    engine.relevant_change(workload, workload)


@given(anything | wild, st.sampled_from(PROFILES))
@FEW
def test_no_check_ends_in_a_defect(policies: list[policy.CompiledPolicy], obj: Any, profile: str) -> None:
    for finding in judged(obj, policies, profile).findings:
        assert "the policy could not be evaluated" not in finding.message


@given(specs, st.sampled_from(PROFILES), st.randoms(use_true_random=False))
@FEW
def test_the_order_of_containers_is_irrelevant_to_the_decision(
    policies: list[policy.CompiledPolicy], spec: Any, profile: str, random: Any
) -> None:
    shuffled = {**spec, "containers": random.sample(spec["containers"], len(spec["containers"]))}
    one, other = judged(pod(spec), policies, profile), judged(pod(shuffled), policies, profile)
    assert (one.decision, one.wanted) == (other.decision, other.wanted)
    assert sorted(finding.policy for finding in one.findings) == sorted(finding.policy for finding in other.findings)


def _nested(spec: Any, version: str, kind: str, *steps: str) -> tuple[dict[str, Any], str]:
    value: Any = spec
    for step in reversed(steps):
        value = [value] if step.endswith("[]") else value
        value = {step.removesuffix("[]"): value}
    path = ".".join(step.replace("[]", "[0]") for step in steps)
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "p", "namespace": "n"}, **value}, path


KINDS = {
    "Deployment": ("apps/v1", ["spec", "template", "spec"]),
    "StatefulSet": ("apps/v1", ["spec", "template", "spec"]),
    "DaemonSet": ("apps/v1", ["spec", "template", "spec"]),
    "Job": ("batch/v1", ["spec", "template", "spec"]),
    "CronJob": ("batch/v1", ["spec", "jobTemplate", "spec", "template", "spec"]),
    "Notebook": ("kubeflow.org/v1", ["spec", "template", "spec"]),
    "RayCluster": ("ray.io/v1", ["spec", "workerGroupSpecs[]", "template", "spec"]),
    "InferenceService": ("serving.kserve.io/v1beta1", ["spec", "predictor"]),
    "UnheardOf": ("example.org/v1", ["spec", "somewhere", "template", "spec"]),
}


def _said(findings: tuple[Finding, ...], base: str) -> set[tuple[str, str, str, str, str]]:
    """Findings with paths from the pod spec; an Unknown does another thing on a template, and only that."""
    return {
        (
            finding.policy,
            finding.outcome,
            "" if finding.outcome is Outcome.UNKNOWN else finding.action,
            finding.path.removeprefix(base) if finding.path.startswith(base) else "",
            finding.message,
        )
        for finding in findings
    }


@pytest.mark.parametrize("kind", KINDS)
@given(spec=specs, profile=st.sampled_from(PROFILES))
@settings(max_examples=25, deadline=None)
def test_a_pod_and_its_template_in_any_kind_get_the_same_findings(
    policies: list[policy.CompiledPolicy], kind: str, spec: Any, profile: str
) -> None:
    version, steps = KINDS[kind]
    obj, path = _nested(spec, version, kind, *steps)
    assert _said(judged(obj, policies, profile).findings, path) == _said(judged(pod(spec), policies, profile).findings, "spec")


@given(wild | specs.map(pod), st.sampled_from(PROFILES))
@FEW
def test_an_audit_rollout_never_denies_or_holds(policies: list[policy.CompiledPolicy], obj: Any, profile: str) -> None:
    assert judged(obj, policies, profile, rollout="audit").decision is Decision.ADMIT


@given(wild | specs.map(pod), st.sampled_from(PROFILES))
@FEW
def test_a_denial_is_about_something_that_is_there(policies: list[policy.CompiledPolicy], obj: Any, profile: str) -> None:
    """The place to blame, or what it would be in: a missing `securityContext.runAsNonRoot` is missing from a container that exists."""
    for finding in judged(obj, policies, profile).findings:
        if finding.action == "Deny":
            element = re.match(r"(.*(?:\]|template|predictor|spec))(?:\.|$)", finding.path)
            assert exists(obj, finding.path) or element is None or exists(obj, element[1])


_SCANS = st.none() | st.builds(
    Scan,
    scanner=st.just("trivy"),
    scanned_at=st.sampled_from([NOW, NOW - timedelta(days=30), NOW + timedelta(days=30)]),
    database_at=st.none() | st.just(NOW - timedelta(hours=1)),
    packages=st.integers(0, 2),
    counts=st.dictionaries(st.sampled_from(["HIGH", "LOW", "unfixed"]), st.integers(0, 1)),
    blind=st.lists(st.sampled_from(["", "conda"]), max_size=1).map(tuple),
)


@given(spec=specs, phase=st.sampled_from(list(Phase)), found=_SCANS, age=st.integers(-100, 100), resolved=st.booleans())
@FEW
def test_an_unknown_is_never_a_pass_and_never_lost(
    policies: list[policy.CompiledPolicy], spec: Any, phase: Phase, found: Scan | None, age: int, *, resolved: bool
) -> None:
    resolutions = {image: Resolution(digest=DIGEST, at=NOW - timedelta(seconds=age)) for image in IMAGES if image and resolved}
    images = {DIGEST: ImageFacts(digest=DIGEST, phase=phase, scan=found)}
    verdict = judged(pod(spec), policies, "production", images=images, resolutions=resolutions)
    answers = [finding for finding in verdict.findings if finding.policy == "scan-hold"]
    assert len(answers) == len(workloads.extract(pod(spec)).images)
    if phase is not Phase.READY or found is None or found.blind or not found.packages or found.scanned_at != NOW:
        assert not any(finding.outcome is Outcome.PASS for finding in answers)
    if any(finding.outcome is Outcome.UNKNOWN for finding in answers):
        assert verdict.decision is not Decision.ADMIT

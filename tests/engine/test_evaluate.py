"""From answers to a verdict: profile, roll-out, holding, updates, and everything that must not be skipped."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlwarden import checks, engine, policy, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution, Scan
from mlwarden.model.finding import Decision, Outcome, Severity, Verdict
from mlwarden.model.policy import Settings

Make = Callable[..., policy.CompiledPolicy]

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGEST = digest("sha256:" + "a" * 64)
IMAGE = f"registry.example/team/train@{DIGEST}"
TAGGED = "registry.example/team/train:1.0"
CLEAN = {
    DIGEST: ImageFacts(
        digest=DIGEST, phase=Phase.READY, scan=Scan(scanner="trivy", scanned_at=NOW, database_at=NOW, os="debian 13", packages=9)
    )
}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    given = list(containers) or [{"name": "main", "image": IMAGE}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": given} | spec}


def deployment(*containers: dict[str, Any]) -> dict[str, Any]:
    template = {"spec": pod(*containers)["spec"]}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": {"template": template}}


def facts(profile: str = "production", **fields: Any) -> Facts:
    return Facts(now=NOW, namespace={"metadata": {"name": "n"}}, profile=profile, **fields)


def judged(
    obj: dict[str, Any], *policies: policy.CompiledPolicy, known: Facts | None = None, rollout: str = "enforce", **options: Any
) -> Verdict:
    return engine.evaluate(workloads.extract(obj), policies, known or facts(), Settings(rollout=rollout), **options)


def actions(verdict: Verdict) -> list[str]:
    return [finding.action for finding in verdict.findings]


def test_what_is_good_is_admitted_without_findings(make: Make) -> None:
    verdict = judged(pod({"name": "main", "good": 1}), make())
    assert (verdict.decision, verdict.findings) == (Decision.ADMIT, ())


def test_what_is_bad_is_denied_in_the_words_of_the_policy(make: Make) -> None:
    verdict = judged(pod(), make(references=["ATLAS AML.T0010"]))
    (finding,) = verdict.findings
    assert verdict.decision is Decision.DENY
    assert (finding.path, finding.message, finding.fix) == ("spec.containers[0].good", "main is not good", "make it good")
    assert finding.why == "because [ATLAS AML.T0010]"


def test_the_profile_decides_what_a_fail_does(make: Make) -> None:
    assert actions(judged(pod(), make(), known=facts("baseline"))) == ["Warn"]
    assert actions(judged(pod(), make(), known=facts("experiment"))) == []


def test_the_star_is_every_profile_that_is_not_named(make: Make) -> None:
    rule = make(profiles={"*": "Deny", "baseline": "Warn"})
    assert actions(judged(pod(), rule, known=facts("experiment"))) == ["Deny"]
    assert actions(judged(pod(), rule, known=facts("baseline"))) == ["Warn"]


def test_missing_evidence_holds_a_pod_and_is_asked_for(scan: policy.CompiledPolicy) -> None:
    verdict = judged(pod(), scan)
    assert (verdict.decision, actions(verdict), verdict.wanted) == (Decision.HOLD, ["Hold"], (IMAGE,))


def test_missing_evidence_is_a_warning_on_a_template_and_asked_for(scan: policy.CompiledPolicy) -> None:
    verdict = judged(deployment(), scan)
    assert (verdict.decision, actions(verdict), verdict.wanted) == (Decision.ADMIT, ["Warn"], (IMAGE,))


def test_what_cannot_be_held_is_denied_with_try_again(scan: policy.CompiledPolicy) -> None:
    for verdict in (judged(pod(), scan, holdable=False), judged(pod(nodeName="node-1"), scan)):
        assert verdict.decision is Decision.DENY
        assert "try again" in verdict.findings[0].fix
        assert "scanned" in verdict.findings[0].fix


def test_with_evidence_it_is_admitted(scan: policy.CompiledPolicy) -> None:
    assert judged(pod(), scan, known=facts(images=CLEAN)).decision is Decision.ADMIT


def test_a_policy_that_only_warns_does_not_hold(scan: policy.CompiledPolicy) -> None:
    assert actions(judged(pod(), scan, known=facts("baseline"))) == ["Warn"]


def test_an_expression_that_fails_to_run_holds_a_pod(make: Make) -> None:
    rule = make(requirement={"expression": {"forEach": "pod", "expression": "object.spec.nothing == 1"}})
    verdict = judged(pod(), rule)
    assert (verdict.decision, verdict.findings[0].outcome) == (Decision.HOLD, Outcome.UNKNOWN)


def test_an_expression_about_a_whole_object_that_fails_to_run_denies_it(make: Make) -> None:
    match = {"resources": [{"apiGroups": [""], "resources": ["services"]}]}
    rule = make(requirement={"expression": {"forEach": "object", "expression": "object.spec.nothing == 1"}}, match=match)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {}}
    assert judged(service, rule).decision is Decision.DENY


def test_an_audit_rollout_warns_and_nothing_more(make: Make, scan: policy.CompiledPolicy) -> None:
    verdict = judged(pod(), make(), scan, rollout="audit", broken={"b": "x"})
    assert verdict.decision is Decision.ADMIT
    assert set(actions(verdict)) == {"Warn"}


def test_a_policy_that_does_not_compile_holds_where_pods_are_held_and_warns_elsewhere() -> None:
    verdict = judged(pod(), broken={"bad": "no such function"})
    (finding,) = verdict.findings
    assert (verdict.decision, finding.policy, finding.outcome) == (Decision.HOLD, "bad", Outcome.UNKNOWN)
    assert "no such function" in finding.message
    assert judged(pod(), known=facts("baseline"), broken={"bad": "x"}).decision is Decision.ADMIT
    assert judged(deployment(), broken={"bad": "x"}).decision is Decision.ADMIT


def test_a_profile_that_does_not_exist_is_no_way_out() -> None:
    verdict = judged(pod(), known=facts("porduction"))
    assert verdict.decision is Decision.HOLD
    assert "'porduction'" in verdict.findings[0].message
    assert judged(pod(nodeName="n"), known=facts("porduction")).decision is Decision.DENY


def test_a_defect_in_a_check_is_an_unknown_and_not_an_exception(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any, **__: Any) -> Any:
        raise KeyError("oops")

    monkeypatch.setattr(checks, "judge", defect)
    verdict = judged(pod(), make())
    assert verdict.decision is Decision.HOLD
    assert "KeyError" in verdict.findings[0].message


def test_the_worst_is_first_and_the_order_is_always_the_same(make: Make) -> None:
    rules = [
        make("a-warning", profiles={"production": "Warn"}, severity="critical"),
        make("low", severity="low"),
        make("critical", severity="critical"),
        make("also-critical", severity="critical"),
    ]
    first = judged(pod(), *rules)
    assert [finding.policy for finding in first.findings] == ["also-critical", "critical", "low", "a-warning"]
    assert judged(pod(), *reversed(rules)) == first


def test_containers_are_ordered_by_number_and_not_by_letter(make: Make) -> None:
    verdict = judged(pod(*({"name": f"c{n}"} for n in range(12))), make())
    assert [finding.message for finding in verdict.findings] == [f"c{n} is not good" for n in range(12)]


def test_passes_are_there_where_they_are_asked_for(make: Make) -> None:
    verdict = judged(pod({"name": "main", "good": 1}, {"name": "side"}), make(), passes=True)
    assert [finding.outcome for finding in verdict.findings] == [Outcome.FAIL, Outcome.PASS]
    assert verdict.findings[1].severity is Severity.HIGH


def test_a_tag_is_pinned_to_what_it_was_just_resolved_to(scan: policy.CompiledPolicy) -> None:
    young = {TAGGED: Resolution(digest=DIGEST, at=NOW - timedelta(seconds=5))}
    obj = pod({"name": "main", "image": TAGGED}, volumes=[{"name": "model", "image": {"reference": TAGGED}}])
    verdict = judged(obj, scan, known=facts(resolutions=young))
    pinned = f"{TAGGED}@{DIGEST}"
    assert verdict.pins == {"spec.containers[0].image": pinned, "spec.volumes[0].image.reference": pinned}


def test_an_old_resolution_pins_nothing(scan: policy.CompiledPolicy) -> None:
    old = {TAGGED: Resolution(digest=DIGEST, at=NOW - timedelta(seconds=61))}
    verdict = judged(pod({"name": "main", "image": TAGGED}), scan, known=facts(resolutions=old, images=CLEAN))
    assert (verdict.decision, verdict.pins, verdict.wanted) == (Decision.HOLD, {}, (TAGGED,))


def test_templates_are_never_pinned(scan: policy.CompiledPolicy) -> None:
    young = {TAGGED: Resolution(digest=DIGEST, at=NOW)}
    assert judged(deployment({"name": "main", "image": TAGGED}), scan, known=facts(resolutions=young)).pins == {}


def test_an_update_of_a_pod_is_judged_by_what_it_adds(make: Make) -> None:
    old = pod()
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": IMAGE}]
    verdict = judged(new, make(), known=facts(old=old, operation="UPDATE"), holdable=False)
    assert [finding.path for finding in verdict.findings] == ["spec.ephemeralContainers[0].good"]


OLD = [{"name": "first", "image": "a:1"}, {"name": "second", "image": "b:1"}]


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param([{"name": "new", "image": TAGGED, "good": 1}, *OLD], id="the new one first, as a strategic merge patch puts it"),
        pytest.param([OLD[1], {"name": "new", "image": TAGGED, "good": 1}, OLD[0]], id="shuffled"),
    ],
)
def test_old_ephemeral_containers_are_neither_judged_nor_pinned_wherever_they_stand(
    listed: list[dict[str, Any]], make: Make, scan: policy.CompiledPolicy
) -> None:
    old, new = pod(ephemeralContainers=OLD), pod(ephemeralContainers=listed)
    young = {reference: Resolution(digest=DIGEST, at=NOW) for reference in ("a:1", "b:1", TAGGED)}
    verdict = judged(
        new, make(), scan, known=facts(old=old, operation="UPDATE", resolutions=young, images=CLEAN, profile="production"), holdable=False
    )
    assert verdict.decision is Decision.ADMIT, verdict.findings
    assert verdict.pins == {f"spec.ephemeralContainers[{[each['name'] for each in listed].index('new')}].image": f"{TAGGED}@{DIGEST}"}


def test_an_old_ephemeral_container_lends_its_name_to_no_other_image(make: Make) -> None:
    old, new = pod(ephemeralContainers=OLD), pod(ephemeralContainers=[{"name": "second", "image": "evil:1"}, OLD[0]])
    verdict = judged(new, make(), known=facts(old=old, operation="UPDATE"), holdable=False)
    assert [finding.path for finding in verdict.findings] == ["spec.ephemeralContainers[0].good"]


def test_an_image_that_changes_to_another_bad_one_is_judged(make: Make) -> None:
    old, new = pod({"name": "main", "image": "a"}), pod({"name": "main", "image": "b"})
    assert judged(new, make(), known=facts(old=old, operation="UPDATE")).decision is Decision.DENY


def test_an_image_that_stays_is_not_judged_again_by_evidence(scan: policy.CompiledPolicy) -> None:
    old = pod({"name": "main", "image": TAGGED})
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debug", "image": IMAGE}]
    verdict = judged(new, scan, known=facts(old=old, operation="UPDATE", images=CLEAN), holdable=False)
    assert (verdict.decision, verdict.wanted) == (Decision.ADMIT, ())


def test_a_bad_field_added_beside_an_old_one_is_judged(make: Make) -> None:
    rule = make(requirement={"expression": {"forEach": "pod", "expression": "!has(object.spec.hostPID)", "path": "spec.hostPID"}})
    old, new = pod(), pod(hostPID=True)
    assert judged(new, rule, known=facts(old=old, operation="UPDATE")).decision is Decision.DENY


@pytest.mark.parametrize("obj", [None, 7, "x", [], {}, {"kind": "Pod"}, {"apiVersion": "v1", "kind": "Pod", "spec": None}])
def test_any_json_value_gets_a_verdict(obj: Any, make: Make, scan: policy.CompiledPolicy) -> None:
    assert isinstance(judged(obj, make(), scan), Verdict)


def test_a_running_pod_cannot_be_held_by_an_update(scan: policy.CompiledPolicy) -> None:
    old, new = pod({"name": "main", "image": "a"}), pod()
    assert judged(new, scan, known=facts(old=old, operation="UPDATE")).decision is Decision.DENY
    gates = [{"name": "mlwarden.io/evidence"}]
    held = judged(
        pod(schedulingGates=gates), scan, known=facts(old=pod({"name": "main", "image": "a"}, schedulingGates=gates), operation="UPDATE")
    )
    assert held.decision is Decision.HOLD


def test_an_object_too_large_to_be_judged_is_refused_at_once(make: Make) -> None:
    (finding,) = judged(deployment(*({} for _ in range(100_000))), make()).findings
    assert (finding.action, finding.policy) == ("Deny", "mlwarden-size")
    assert judged(pod(volumes=[{}] * 100_000), make()).decision is Decision.DENY


def test_an_object_as_large_as_may_be_is_judged_in_full(make: Make) -> None:
    verdict = judged(pod(*({"name": f"c{n}"} for n in range(400))), make(fix={"text": "by hand", "patch": {"good": 1}}))
    assert len(verdict.findings) == 400
    assert [finding.fix for finding in verdict.findings[:2]] == [f"set good: 1 in spec.containers[{n}]" for n in range(2)]

"""What a person reads: bounded, on the lines it belongs on, worst first."""

import pytest

from mlwarden.engine import audit, held, refusal, warnings
from mlwarden.model.finding import Decision, Finding, Outcome, Severity, Verdict
from mlwarden.model.workload import Resource

RESOURCE = Resource(api_version="v1", kind="Pod", namespace="team", name="train")


def finding(**changes: object) -> Finding:
    fields: dict[str, object] = {
        "policy": "container-privileged",
        "outcome": Outcome.FAIL,
        "action": "Deny",
        "severity": Severity.CRITICAL,
        "resource": RESOURCE,
        "path": "spec.containers[0].securityContext.privileged",
        "message": "container agent is privileged",
        "why": "a privileged container owns the node",
        "fix": "set securityContext: {privileged: false} in spec.containers[0]",
        "exception": "none: this policy allows no exceptions",
    }
    return Finding(**(fields | changes))  # type: ignore[arg-type]


def verdict(*findings: Finding, decision: Decision = Decision.DENY) -> Verdict:
    return Verdict(decision=decision, findings=findings)


def test_a_refusal_says_what_where_why_the_fix_and_the_exception() -> None:
    assert refusal(verdict(finding()), RESOURCE).splitlines() == [
        "Pod team/train is refused by container-privileged (critical): container agent is privileged",
        "  where:     spec.containers[0].securityContext.privileged",
        "  why:       a privileged container owns the node",
        "  fix:       set securityContext: {privileged: false} in spec.containers[0]",
        "  exception: none: this policy allows no exceptions",
    ]


def test_the_rest_of_a_refusal_is_one_line_that_counts() -> None:
    rest = [finding(policy="host-network"), finding(policy="limits", action="Warn"), finding(policy="limits", action="Warn", path="x")]
    assert (
        refusal(verdict(finding(), *rest), RESOURCE).splitlines()[-1] == "and 3 more: 1 refused (host-network), 2 warnings (limits 2 times)"
    )


def test_a_refusal_is_never_longer_than_seven_lines() -> None:
    many = [finding(policy=f"policy-{n}", message="a\nb\nc") for n in range(100)]
    assert len(refusal(verdict(*many), RESOURCE).splitlines()) <= 7


def test_audited_findings_and_passes_are_not_told() -> None:
    quiet = [finding(action="Audit"), finding(outcome=Outcome.PASS, action="Audit")]
    assert refusal(verdict(finding(), *quiet), RESOURCE).count("more") == 0
    assert warnings(verdict(*quiet, decision=Decision.ADMIT)) == []


def test_a_warning_is_one_short_line_that_names_policy_and_place() -> None:
    (line,) = warnings(verdict(finding(action="Warn"), decision=Decision.ADMIT))
    assert line == "container-privileged: container agent is privileged (spec.containers[0].securityContext.privileged)"


def test_a_hold_is_told_first_and_as_one() -> None:
    lines = warnings(verdict(finding(action="Hold", outcome=Outcome.UNKNOWN), finding(action="Warn"), decision=Decision.HOLD))
    assert lines[0].startswith("held, ")


def test_the_same_in_several_places_is_one_warning() -> None:
    (line,) = warnings(verdict(*(finding(action="Warn", path=f"spec.containers[{n}]") for n in range(4)), decision=Decision.ADMIT))
    assert line.endswith("(spec.containers[0] and 3 more)")


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "a\nb\x00\x1b" * 100, "\ud800" * 400])
def test_no_warning_is_too_long_or_has_a_line_break(text: str) -> None:
    for line in warnings(verdict(finding(action="Warn", message=text, path=text), decision=Decision.ADMIT)):
        assert len(line.encode()) <= 256
        assert line.isprintable()


def test_warnings_are_few() -> None:
    lines = warnings(verdict(*(finding(action="Warn", policy=f"p{n}") for n in range(30)), decision=Decision.ADMIT))
    assert len(lines) == 5
    assert lines[-1] == "and 26 more: mlwarden check shows all of them"


def test_an_event_says_why_a_pod_waits_in_one_line_that_fits() -> None:
    line = held(verdict(*(finding(policy=f"p{n}", action="Hold", message="é" * 3000) for n in range(30)), decision=Decision.HOLD))
    assert line.isprintable()
    assert len(line.encode()) <= 1024
    assert line.startswith("Held by p0: ")


def test_audit_annotations_name_the_policies_by_what_they_did() -> None:
    said = audit(verdict(finding(), finding(policy="b", action="Warn"), finding(policy="c", action="Hold", outcome=Outcome.UNKNOWN)))
    assert said == {"decision": "Deny", "denied": "container-privileged", "held": "c", "warned": "b", "unknown": "c"}


def test_audit_annotations_are_bounded() -> None:
    said = audit(verdict(*(finding(policy=f"policy-{n:050}") for n in range(500))))
    assert all(len(value) <= 1000 for value in said.values())

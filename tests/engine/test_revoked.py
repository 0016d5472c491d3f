"""What is revoked is refused in every profile, whatever the policies say; what cannot be told is never a Pass where pods are held."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlwarden import engine, workloads
from mlwarden.model.digest import digest
from mlwarden.model.evidence import Facts, Resolution
from mlwarden.model.finding import Decision, Outcome, Severity, Verdict
from mlwarden.model.policy import GATE, Settings
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked, RevokedSigner
from mlwarden.model.signing import Signer

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
BAD, GOOD = digest("sha256:" + "b" * 64), digest("sha256:" + "a" * 64)
KEY = "sha256:" + "e" * 64
TAGGED = "registry.example/team/train:1.0"


def revocation(name: str = "r", **spec: Any) -> Revocation:
    return Revocation(name=name, spec=RevocationSpec(**{"reason": "it mines coins", **spec}))


REVOKED = Revoked.of([revocation(digest=BAD, reference="SEC-17")])


def pod(image: str, **spec: Any) -> dict[str, Any]:
    given = {"containers": [{"name": "main", "image": image}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "spec": given}


def deployment(image: str) -> dict[str, Any]:
    spec = {"template": {"spec": pod(image)["spec"]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec}


def judged(
    obj: dict[str, Any], profile: str = "production", *, revoked: Revoked = REVOKED, rollout: str = "enforce", **fields: Any
) -> Verdict:
    facts = Facts(now=NOW, namespace={"metadata": {"name": "n"}}, profile=profile, revoked=revoked, **fields)
    return engine.evaluate(workloads.extract(obj), (), facts, Settings(rollout=rollout))


def resolved(to: str, *, age: timedelta = timedelta(seconds=5)) -> Mapping[str, Resolution]:
    return {TAGGED: Resolution(digest=digest(to), at=NOW - age)}


def test_a_placeholder_in_a_template_is_no_tag_that_has_to_be_resolved() -> None:
    template, its_pod = judged(deployment("auto")), judged(pod("auto"))
    assert (template.findings, template.wanted) == ((), ())
    assert "the tag of auto" in its_pod.findings[0].message
    assert its_pod.wanted == ("auto",)


@pytest.mark.parametrize("profile", ["production", "experiment", "baseline", "unheard-of"])
@pytest.mark.parametrize("shape", [pod, deployment])
def test_a_revoked_digest_is_refused_everywhere(shape: Any, profile: str) -> None:
    verdict = judged(shape(f"registry.example/app@{BAD}"), profile)
    worst = verdict.findings[0]
    assert verdict.decision is Decision.DENY
    assert (worst.policy, worst.outcome, worst.severity) == ("mlwarden-revoked", Outcome.FAIL, Severity.CRITICAL)
    assert "it mines coins [SEC-17]" in worst.message
    assert "RevokedArtifact r" in worst.fix
    assert worst.exception.startswith("none")


def test_wherever_the_image_hides() -> None:
    image = f"registry.example/app@{BAD}"
    spec = {
        "initContainers": [{"name": "i", "image": image}],
        "ephemeralContainers": [{"name": "e", "image": image}],
        "volumes": [{"name": "v", "image": {"reference": image}}],
    }
    verdict = judged(pod(f"registry.example/app@{GOOD}", **spec))
    paths = {"spec.initContainers[0].image", "spec.ephemeralContainers[0].image", "spec.volumes[0].image.reference"}
    assert {finding.path for finding in verdict.findings} == paths


def test_a_tag_is_as_good_as_its_young_resolution() -> None:
    assert judged(pod(TAGGED), "baseline", resolutions=resolved(BAD)).decision is Decision.DENY
    assert judged(pod(TAGGED), resolutions=resolved(GOOD)).findings == ()


@pytest.mark.parametrize("known", [{}, resolved(GOOD, age=timedelta(hours=1)), {TAGGED: Resolution(digest=None, at=NOW, reason="401")}])
def test_a_tag_that_is_not_resolved_waits_where_pods_are_held(known: Any) -> None:
    verdict = judged(pod(TAGGED), resolutions=known)
    assert (verdict.decision, verdict.wanted) == (Decision.HOLD, (TAGGED,))


def test_and_is_warned_about_and_asked_for_where_none_is() -> None:
    verdict = judged(pod(TAGGED), "baseline")
    assert (verdict.decision, [finding.action for finding in verdict.findings], verdict.wanted) == (Decision.ADMIT, ["Warn"], (TAGGED,))


def test_but_refused_until_it_is_resolved_again_where_it_pointed_at_what_is_revoked() -> None:
    verdict = judged(pod(TAGGED), "baseline", resolutions=resolved(BAD, age=timedelta(hours=1)))
    assert (verdict.decision, verdict.findings[0].outcome, verdict.wanted) == (Decision.DENY, Outcome.UNKNOWN, (TAGGED,))
    template = judged(deployment(TAGGED), "baseline", resolutions=resolved(BAD, age=timedelta(hours=1)))
    assert (template.decision, template.findings[0].action) == (Decision.ADMIT, "Warn")


def test_a_template_by_tag_is_warned_about_because_its_pods_are_judged() -> None:
    verdict = judged(deployment(TAGGED))
    assert (verdict.decision, [finding.action for finding in verdict.findings], verdict.wanted) == (Decision.ADMIT, ["Warn"], (TAGGED,))


def test_what_cannot_wait_in_a_holding_namespace_is_refused_until_the_tag_is_resolved() -> None:
    assert judged(pod(TAGGED, nodeName="n1")).decision is Decision.DENY


def test_nobody_waits_for_tags_while_no_digest_is_revoked() -> None:
    assert judged(pod(TAGGED), revoked=Revoked.of([revocation(key=KEY)])).findings == ()
    assert judged(pod(TAGGED), revoked=Revoked()).findings == ()


def test_a_roll_out_that_audits_warns() -> None:
    verdict = judged(pod(f"a@{BAD}"), rollout="audit")
    assert (verdict.decision, [finding.action for finding in verdict.findings]) == (Decision.ADMIT, ["Warn"])


def test_what_runs_already_can_be_looked_at_with_a_debugger() -> None:
    old = pod(f"registry.example/app@{BAD}")
    clean = pod(f"registry.example/app@{BAD}", ephemeralContainers=[{"name": "d", "image": f"tools@{GOOD}"}])
    assert judged(clean, operation="UPDATE", old=old).findings == ()
    bad = pod(f"registry.example/app@{BAD}", ephemeralContainers=[{"name": "d", "image": f"tools@{BAD}"}])
    assert [finding.path for finding in judged(bad, operation="UPDATE", old=old).findings] == ["spec.ephemeralContainers[0].image"]


def test_text_that_names_no_image_is_left_to_the_policies() -> None:
    assert judged(pod("NOT AN IMAGE")).findings == ()


def test_a_revocation_that_cannot_be_read_is_not_skipped() -> None:
    revoked = Revoked.of([], {"torn": "nobody knows"})
    gated = pod(f"a@{GOOD}", schedulingGates=[{"name": GATE}])
    verdict = judged(gated, revoked=revoked)
    assert verdict.decision is Decision.HOLD
    assert "torn" in verdict.findings[0].message
    assert judged(gated, "baseline", revoked=revoked).decision is Decision.ADMIT


def test_of_two_that_name_the_same_the_first_by_name_speaks() -> None:
    both = Revoked.of([revocation("z", digest=BAD), revocation("a", digest=BAD, reason="first"), revocation("m", digest=BAD)])
    assert both.digests[BAD].spec.reason == "first"


def test_what_belongs_to_a_revoked_digest_is_refused_and_says_so_but_its_own_revocation_comes_first() -> None:
    together = Revoked.of([revocation("a", digest=BAD)], related=lambda _: [GOOD])
    worst = judged(pod(f"registry.example/app@{GOOD}"), "baseline", revoked=together).findings[0]
    assert (worst.outcome, worst.action) == (Outcome.FAIL, "Deny")
    assert "belongs to what is named by RevokedArtifact a" in worst.fix
    own = Revoked.of([revocation("a", digest=BAD), revocation("z", digest=GOOD)], related=lambda of: [GOOD, BAD] if of == BAD else [BAD])
    assert {of: each.name for of, each in own.digests.items()} == {BAD: "a", GOOD: "z"}


def test_signatures_by_revoked_keys_and_signers_are_found() -> None:
    signer = RevokedSigner(issuer="https://issuer.example", subject="ci@example.com")
    revoked = Revoked.of([revocation("k", key=KEY), revocation("s", signer=signer)])

    def by(**signed: str) -> str:
        found = revoked.signer(Signer(**signed))
        return found.name if found else ""

    assert by(key=KEY) == "k"
    assert by(key=BAD) == ""
    assert by(issuer=signer.issuer, subject=signer.subject) == "s"
    assert by(issuer=signer.issuer, subject=f"x{signer.subject}") == ""
    assert by(issuer="https://other.example", subject=signer.subject) == ""
    assert by(issuer=signer.issuer, subject=signer.subject, key=KEY) == "k"
    assert by() == ""

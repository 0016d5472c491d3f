"""An attestation counts when it was verified, satisfies the condition, and what it attests is fresh enough."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from mlwarden.errors import PolicyError
from mlwarden.model.finding import Outcome
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked
from mlwarden.model.signing import Proven, Said, Signer

from .signing import DIGEST, NOW, PINNED, SIGNER, answer, compiled, key, proof, ready  # type: ignore[import-not-found]


def attestation(**requirement: Any) -> Any:
    return compiled("imageAttestation", **({"predicateType": "vuln"} | requirement))


@pytest.mark.parametrize(
    ("made", "outcome", "says"),
    [
        (NOW - timedelta(days=1), Outcome.PASS, ""),
        (NOW - timedelta(days=8), Outcome.FAIL, "what is attested is 8 days old, and the policy wants 7d"),
        (NOW + timedelta(days=1), Outcome.FAIL, "dated in the future"),
        (None, Outcome.FAIL, "has no date"),
    ],
)
def test_what_is_attested_must_be_fresh_however_lately_it_was_verified(made: Any, outcome: Outcome, says: str) -> None:
    rule = attestation(fresh="7d")
    got = answer(rule, proofs=ready(proof(rule, made_at=made)))
    assert got.outcome is outcome
    assert says in got.message


def test_without_a_demand_on_freshness_the_date_does_not_matter() -> None:
    rule = attestation()
    assert answer(rule, proofs=ready(proof(rule))).outcome is Outcome.PASS


def test_cve_2022_35930_no_attestation_of_the_type_is_a_failure() -> None:
    rule = attestation()
    got = answer(rule, proofs=ready(proof(rule, outcome=Proven.MISSING, reason="no attestation of this type")))
    assert got.outcome is Outcome.FAIL
    assert "it has no attestation that counts: team-a: no attestation of this type" in got.message


def test_cve_2022_35929_a_signature_is_no_attestation_and_one_type_is_not_another() -> None:
    signature = compiled("imageSignature", authorities=[key("a")])
    spdx, vuln = attestation(predicateType="spdx"), attestation()
    assert len({*signature.demands, *spdx.demands, *vuln.demands}) == 3
    assert answer(vuln, proofs=ready(proof(signature), proof(spdx))).outcome is Outcome.UNKNOWN


def test_another_condition_is_another_demand() -> None:
    lax, strict = attestation(condition="true"), attestation(condition="has(predicate.scanner)")
    assert answer(strict, proofs=ready(proof(lax))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "requirement",
    [{"predicateType": "provenance"}, {"condition": "predicate."}, {"condition": "object.spec"}, {"condition": "1 + 1"}, {"fresh": "7"}],
)
def test_what_cannot_be_asked_is_refused_when_it_is_written(requirement: dict[str, str]) -> None:
    with pytest.raises((PolicyError, ValueError)):
        answer(attestation(**requirement))


def test_a_copy_elsewhere_says_nothing_of_the_repository_that_is_named_here() -> None:
    rule, copy = attestation(), PINNED.replace("/team/", "/evil/")
    good = proof(rule, made_at=NOW - timedelta(days=1))
    got = answer(rule, proofs=ready(good, named=(copy,)))
    assert got.outcome is Outcome.UNKNOWN
    assert "have not been looked at for team-a in the repository that is named here" in got.message
    assert got.wanted == f"signatures of {PINNED}"
    assert answer(rule, proofs=ready(good, named=(copy, PINNED))).outcome is Outcome.PASS


def test_what_the_repository_itself_said_long_ago_is_looked_at_again_however_lately_a_copy_was_asked() -> None:
    rule = attestation(maxAge="1h")
    known = ready(proof(rule))[DIGEST]
    old = {PINNED: dict.fromkeys(rule.demands, NOW - timedelta(hours=2))}
    assert answer(rule, proofs={DIGEST: msgspec.structs.replace(known, answered=old)}).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("newest", "next_", "outcome"), [(Proven.VERIFIED, Proven.INVALID, Outcome.FAIL), (Proven.INVALID, Proven.VERIFIED, Outcome.PASS)]
)
def test_the_answer_of_a_revoked_signer_does_not_count_and_the_next_newest_does(newest: Proven, next_: Proven, outcome: Outcome) -> None:
    rule, gone = attestation(), Signer(key="sha256:" + "9" * 64)
    other = Said(outcome=next_, reason="it fails", signer=SIGNER, made_at=NOW - timedelta(days=2), at=NOW)
    both = proof(rule, outcome=newest, reason="it fails", signer=gone, made_at=NOW - timedelta(days=1), others=(other,))
    revocation = Revocation(name="leaked", spec=RevocationSpec(key=gone.key, reason="it leaked"))
    assert answer(rule, proofs=ready(both)).outcome is (Outcome.PASS if newest is Proven.VERIFIED else Outcome.FAIL)
    assert answer(rule, proofs=ready(both), revoked=Revoked.of([revocation])).outcome is outcome

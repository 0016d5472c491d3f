"""An attestation counts when it was verified, satisfies the condition, and what it attests is fresh enough."""

from datetime import timedelta
from typing import Any

import pytest

from mlwarden.errors import PolicyError
from mlwarden.model.finding import Outcome
from mlwarden.model.signing import Proven

from .signing import NOW, answer, compiled, key, proof, ready  # type: ignore[import-not-found]


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

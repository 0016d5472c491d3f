"""A signature counts when it was verified for an authority of the policy, recently; everything else is Fail or Unknown, and says why."""

from datetime import timedelta
from typing import Any

import pytest

from mlwarden.errors import PolicyError
from mlwarden.model.evidence import Phase, Proofs
from mlwarden.model.finding import Outcome
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked, RevokedSigner
from mlwarden.model.signing import MAX_PROOFS, Authority, Demand, Identity, Keyless, Proof, Proven, Signer

from .signing import DIGEST, NOW, PINNED, SIGNER, answer, answers, compiled, key, proof, ready  # type: ignore[import-not-found]


def signature(**requirement: Any) -> Any:
    return compiled("imageSignature", **requirement)


def test_more_demands_than_are_looked_at_are_said_to_be_too_many() -> None:
    others = [proof(signature(authorities=[{"name": f"other-{number}", "key": f"PEM {number}"}])) for number in range(MAX_PROOFS)]
    got = answer(signature(), proofs=ready(*others))
    assert got.outcome is Outcome.UNKNOWN
    assert "more than 64 different things" in got.message


def test_a_verified_signature_passes() -> None:
    rule = signature()
    assert answer(rule, proofs=ready(proof(rule))).outcome is Outcome.PASS


def test_an_image_of_another_registry_is_not_asked() -> None:
    rule = signature(images=["registry.example/team/*"])
    assert [each.path for each in answers(rule, "other.example/team/x:1", PINNED)] == ["spec.containers[1].image"]


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({}, "have not been looked at yet"),
        ({DIGEST: Proofs(digest=DIGEST, phase=Phase.PENDING, reason="waiting for the scanner")}, "are being looked at: waiting"),
        (
            {DIGEST: Proofs(digest=DIGEST, phase=Phase.FAILED, reason="the registry denies access")},
            "cannot be looked at: the registry denies",
        ),
        ({DIGEST: Proofs(digest=DIGEST, phase=Phase.READY)}, "have not been looked at for team-a yet"),
    ],
)
def test_what_is_not_known_is_unknown_and_asked_for(known: dict[Any, Any], says: str) -> None:
    got = answer(signature(), proofs=known)
    assert got.outcome is Outcome.UNKNOWN
    assert says in got.message
    assert got.wanted == f"signatures of {PINNED}"


@pytest.mark.parametrize(
    ("changes", "outcome", "says"),
    [
        ({"at": NOW - timedelta(hours=25)}, Outcome.UNKNOWN, "verified for team-a 25 hours ago"),
        ({"at": NOW + timedelta(hours=1)}, Outcome.UNKNOWN, "in the future"),
        ({"outcome": Proven.UNKNOWN, "reason": "the registry answers 503"}, Outcome.UNKNOWN, "the registry answers 503"),
        ({"outcome": Proven.MISSING, "reason": "no signatures"}, Outcome.FAIL, "team-a: no signatures"),
        ({"outcome": Proven.INVALID, "reason": "signed by another key"}, Outcome.FAIL, "team-a: signed by another key"),
        ({"outcome": Proven.MISSING, "at": NOW - timedelta(seconds=61)}, Outcome.UNKNOWN, "being looked at again"),
    ],
)
def test_a_proof_is_believed_as_long_as_it_may_be(changes: dict[str, Any], outcome: Outcome, says: str) -> None:
    rule = signature()
    got = answer(rule, proofs=ready(proof(rule, **changes)))
    assert got.outcome is outcome
    assert says in got.message


def test_an_unsigned_image_is_asked_about_again_because_people_sign_after_they_push() -> None:
    rule = signature()
    got = answer(rule, proofs=ready(proof(rule, outcome=Proven.MISSING, reason="no signatures")))
    assert got.wanted == f"signatures of {PINNED}"
    assert got.message == f"image {PINNED} is not signed: it has no signature that counts: team-a: no signatures"
    assert got.fix == "sign it with cosign"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ("VVx", Outcome.PASS),
        ("VVV", Outcome.PASS),
        ("Vxx", Outcome.FAIL),
        ("V?x", Outcome.UNKNOWN),
        ("V??", Outcome.UNKNOWN),
        ("xx?", Outcome.FAIL),
    ],
)
def test_two_of_three_must_have_signed(outcomes: str, expected: Outcome) -> None:
    rule = signature(authorities=[key("a"), key("b"), key("c")], required=2)
    meanings = {"V": Proven.VERIFIED, "x": Proven.MISSING}
    known = [proof(rule, number, meanings[letter]) for number, letter in enumerate(outcomes) if letter != "?"]
    assert answer(rule, proofs=ready(*known)).outcome is expected


def test_the_proof_of_another_demand_proves_nothing() -> None:
    theirs = signature(authorities=[key("b")])
    assert answer(signature(), proofs=ready(proof(theirs))).outcome is Outcome.UNKNOWN


def test_evidence_about_another_digest_proves_nothing() -> None:
    rule = signature()
    (known,) = ready(proof(rule)).values()
    other = "sha256:" + "b" * 64
    assert answer(rule, proofs={other: known}).outcome is Outcome.UNKNOWN


def revoked(**spec: Any) -> Revoked:
    return Revoked.of([Revocation(name="r", spec=RevocationSpec(reason="the laptop was stolen", **spec))])


@pytest.mark.parametrize(
    "known",
    [
        revoked(signer=RevokedSigner(issuer=SIGNER.issuer, subject=SIGNER.subject)),
        revoked(key="sha256:" + "e" * 64),
    ],
)
def test_what_a_revoked_key_or_signer_signed_does_not_count(known: Revoked) -> None:
    rule = signature(authorities=[key("a"), key("b")])
    signer = SIGNER if known.signers else Signer(key="sha256:" + "e" * 64)
    got = answer(rule, proofs=ready(*(proof(rule, number, signer=signer) for number in (0, 1))), revoked=known)
    assert got.outcome is Outcome.FAIL
    assert "which is revoked: the laptop was stolen" in got.message
    other = Signer(key="sha256:" + "f" * 64)
    assert answer(rule, proofs=ready(proof(rule, 0, signer=signer), proof(rule, 1, signer=other)), revoked=known).outcome is Outcome.PASS


def test_nobody_knows_whether_a_signature_of_nobody_is_revoked() -> None:
    rule = signature()
    known = ready(proof(rule, signer=None))
    assert answer(rule, proofs=known, revoked=revoked(key="sha256:" + "e" * 64)).outcome is Outcome.UNKNOWN
    assert answer(rule, proofs=known, revoked=revoked(digest=DIGEST)).outcome is Outcome.PASS


def test_a_demand_is_known_by_what_it_asks_and_not_by_what_people_call_it() -> None:
    one, same, other = (Authority(name=name, key=pem) for name, pem in (("a", "PEM"), ("b", "PEM"), ("a", "PEM2")))
    assert Demand(authority=one).id == Demand(authority=same).id != Demand(authority=other).id
    assert Demand(authority=one).id != Demand(authority=one, predicate_type="https://spdx.dev/Document").id


def test_two_authorities_with_one_key_are_refused_or_one_signature_would_count_twice() -> None:
    with pytest.raises(PolicyError, match="two authorities are the same"):
        signature(authorities=[key("a"), {**key("a"), "name": "again"}], required=2)


@pytest.mark.parametrize(
    "other",
    [
        {"name": "again", "keySecret": {"name": "the-same-key"}},
        {"name": "again", "key": key("a")["key"] + "\n"},
        {"name": "again", "keyless": {"identities": [{"issuer": SIGNER.issuer, "subjectRegExp": ".*"}]}},
    ],
)
def test_one_signer_counts_once_however_often_a_policy_names_it(other: dict[str, Any]) -> None:
    rule = signature(authorities=[key("a"), other, key("c")], required=2)
    twice = [proof(rule, 0), proof(rule, 1, signer=SIGNER)]
    got = answer(rule, proofs=ready(*twice, proof(rule, 2, Proven.MISSING)))
    assert got.outcome is Outcome.FAIL
    assert "which counts for team-a already" in got.message
    assert answer(rule, proofs=ready(*twice)).outcome is Outcome.UNKNOWN
    assert answer(rule, proofs=ready(*twice, proof(rule, 2))).outcome is Outcome.PASS


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"issuer": "https://a"},
        {"subject": "a@b"},
        {"issuer": "https://a", "issuerRegExp": ".*", "subject": "a@b"},
        {"issuer": "https://a", "subject": "a@b", "subjectRegExp": ".*"},
        {"issuer": "https://a", "subject": "a@b", "subjectRegEx": ".*"},
    ],
)
def test_cve_2025_29778_an_identity_names_issuer_and_subject_and_nothing_that_nobody_reads(identity: dict[str, str]) -> None:
    with pytest.raises(PolicyError):
        signature(authorities=[{"name": "ci", "keyless": {"identities": [identity]}}])


def test_a_pattern_that_go_would_read_otherwise_is_refused() -> None:
    with pytest.raises(PolicyError, match="authority ci"):
        signature(authorities=[{"name": "ci", "keyless": {"identities": [{"issuer": "https://a", "subjectRegExp": "(?=x)y"}]}}])


def test_the_worst_case_is_one_process_per_authority() -> None:
    identities = (Identity(issuer="https://a", subject="x"), Identity(issuer="https://a", subject="y"))
    rule = signature(authorities=[key(letter) for letter in "abcd"])
    assert len(rule.demands) == 4
    assert Demand(authority=Authority(name="ci", keyless=Keyless(identities=identities))).id not in rule.demands


def test_eight_containers_with_one_image_are_judged_by_one_proof() -> None:
    rule = signature(authorities=[key(letter) for letter in "abcde"], required=5)
    known: list[Proof] = [proof(rule, number) for number in range(5)]
    got = answers(rule, *[PINNED] * 8, proofs=ready(*known))
    assert [each.outcome for each in got] == [Outcome.PASS] * 8


def test_a_signature_counts_wherever_it_is_and_that_there_is_none_only_where_it_was_looked_for() -> None:
    rule, copy = compiled("imageSignature"), PINNED.replace("/team/", "/evil/")
    assert answer(rule, proofs=ready(proof(rule), named=(copy,))).outcome is Outcome.PASS
    missing = proof(rule, outcome=Proven.MISSING, signer=None)
    assert answer(rule, proofs=ready(missing, named=(copy,))).outcome is Outcome.UNKNOWN
    assert answer(rule, proofs=ready(missing, named=(PINNED,))).outcome is Outcome.FAIL

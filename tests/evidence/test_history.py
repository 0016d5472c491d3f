"""What is known is monotonic: nothing that speaks against an image is forgotten because somebody looked elsewhere."""

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mlwarden.evidence.history import MAX_PLACES, is_complete, merged, places, together
from mlwarden.model.signing import MAX_ANSWERS, Place, Proof, Proven, Said, Signer

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
THEN, LATELY = NOW - timedelta(days=20), NOW - timedelta(days=1)
A, B = Signer(key="sha256:" + "a" * 64), Signer(key="sha256:" + "b" * 64)


def said(outcome: Proven, made_at: datetime | None, signer: Signer | None = A) -> Said:
    return Said(outcome=outcome, reason="it fails" if outcome is Proven.INVALID else "", signer=signer, made_at=made_at, at=NOW)


def proof(*answers: Said, outcome: Proven = Proven.MISSING, material: str = "key") -> Proof:
    empty = Proof(demand="one", outcome=outcome, material=material, at=NOW)
    return empty.by(*answers) if answers else empty


GOOD, BAD = said(Proven.VERIFIED, THEN), said(Proven.INVALID, LATELY)


def test_an_older_attestation_that_is_found_elsewhere_does_not_replace_a_newer_one_that_failed() -> None:
    for complete in (False, True):
        found = merged(proof(BAD), proof(GOOD), NOW, complete=complete)
        assert (found.outcome, found.made_at) == (Proven.INVALID, LATELY)


def test_it_is_not_forgotten_in_two_steps_either() -> None:
    nothing = merged(proof(BAD), proof(), NOW, complete=True)
    assert nothing.outcome is Proven.INVALID
    assert merged(nothing, proof(GOOD), NOW, complete=True).outcome is Proven.INVALID


def test_the_same_signer_who_attests_something_newer_is_believed() -> None:
    found = merged(proof(BAD), proof(said(Proven.VERIFIED, NOW)), NOW, complete=False)
    assert (found.outcome, found.made_at) == (Proven.VERIFIED, NOW)


def test_the_newest_answer_of_each_signer_is_kept_for_when_the_other_is_revoked() -> None:
    first = merged(None, proof(said(Proven.VERIFIED, LATELY, B)), NOW, complete=True)
    found = merged(first, proof(said(Proven.INVALID, NOW, A)), NOW, complete=False)
    assert [(each.signer, each.outcome) for each in found.answers] == [(A, Proven.INVALID), (B, Proven.VERIFIED)]


def test_what_has_no_date_fails_until_every_place_says_otherwise() -> None:
    before, made = proof(said(Proven.INVALID, None)), proof(said(Proven.VERIFIED, None))
    assert merged(before, made, NOW, complete=False).outcome is Proven.INVALID
    assert merged(before, made, NOW, complete=True).outcome is Proven.VERIFIED


def test_a_signature_that_was_taken_away_everywhere_is_gone_and_one_that_was_not_looked_for_is_not() -> None:
    before = msgspec.structs.replace(proof(said(Proven.VERIFIED, None)), at=LATELY)
    assert merged(before, proof(), NOW, complete=True).outcome is Proven.MISSING
    kept = merged(before, proof(), NOW, complete=False)
    assert (kept.outcome, kept.at) == (Proven.VERIFIED, LATELY), "it is as old as it was"


def test_what_could_not_be_found_out_leaves_what_was_known_unless_another_key_proved_it() -> None:
    unknown = proof(outcome=Proven.UNKNOWN)
    assert merged(proof(GOOD), unknown, NOW, complete=False) == proof(GOOD)
    assert merged(proof(GOOD, material="old"), unknown, NOW, complete=False).outcome is Proven.UNKNOWN
    assert merged(proof(BAD, material="old"), proof(GOOD), NOW, complete=False).outcome is Proven.VERIFIED


def test_a_date_in_the_future_counts_as_the_time_it_was_first_seen_for_ever() -> None:
    dated = datetime(2999, 1, 1, tzinfo=UTC)
    first = merged(None, proof(said(Proven.VERIFIED, dated)), NOW, complete=True)
    assert (first.made_at, first.dated) == (NOW, dated)
    later = NOW + timedelta(days=2)
    newer = merged(first, proof(said(Proven.INVALID, NOW + timedelta(days=1))), later, complete=False)
    assert newer.outcome is Proven.INVALID
    again = merged(newer, proof(said(Proven.VERIFIED, dated)), later, complete=False)
    assert (again.outcome, again.made_at) == (Proven.INVALID, NOW + timedelta(days=1))
    in_the_year = merged(newer, proof(said(Proven.VERIFIED, dated)), dated + timedelta(days=1), complete=False)
    assert in_the_year.outcome is Proven.INVALID


def test_what_several_places_say_is_the_newest_and_nothing_is_known_only_where_none_could_be_asked() -> None:
    unknown = proof(outcome=Proven.UNKNOWN)
    assert together([proof(GOOD), unknown, proof(BAD)]).outcome is Proven.INVALID
    assert together([unknown, proof()]).outcome is Proven.MISSING
    assert together([unknown, unknown]).outcome is Proven.UNKNOWN
    same = [proof(said(Proven.VERIFIED, LATELY)), proof(said(Proven.INVALID, LATELY))]
    assert together(same).outcome is together(same[::-1]).outcome is Proven.INVALID


ANSWERS = st.builds(
    said,
    st.sampled_from([Proven.VERIFIED, Proven.INVALID]),
    st.sampled_from([THEN, LATELY, NOW, NOW + timedelta(days=300)]),
    st.sampled_from([A, B]),
)
LOOKS = st.lists(st.tuples(st.lists(ANSWERS, max_size=4), st.booleans()), min_size=1, max_size=6)


@given(LOOKS)
def test_a_signer_whose_newest_attestation_failed_is_not_believed_again_before_a_newer_one(looks: list[tuple[list[Said], bool]]) -> None:
    known: Proof | None = None
    for number, (answers, complete) in enumerate(looks):
        now = NOW + timedelta(hours=number)
        made = together([proof(each) for each in answers]) if answers else proof()
        after = merged(known, made, now, complete=complete)
        assert len(after.answers) <= MAX_ANSWERS
        for signer in (A, B):
            was = next((each for each in (known.answers if known else ()) if each.signer == signer), None)
            found = next((each for each in after.answers if each.signer == signer), None)
            if was is not None and was.outcome is Proven.INVALID:
                assert found is not None
                assert was.made_at is not None
                assert found.made_at is not None
                assert found.made_at >= was.made_at
                assert found.outcome is Proven.INVALID or found.made_at > was.made_at or complete
        known = after


def test_places_keep_what_they_answered_and_those_that_are_named_stay() -> None:
    home = Place(reference="home", at=THEN, answered={"one": THEN})
    many = [Place(reference=f"copy-{number}", at=NOW) for number in range(2 * MAX_PLACES)]
    kept = places([home], many, ["home"])
    assert len(kept) == MAX_PLACES
    assert home in kept
    (again,) = places([home], [Place(reference="home", at=NOW, reason="down", answered={"two": NOW})], ["home"])
    assert again.answered == {"one": THEN, "two": NOW}


def test_a_look_is_complete_when_every_place_that_had_an_answer_has_answered_again() -> None:
    before = {"home": {"one": LATELY}, "copy": {"two": LATELY}, "closed": {"one": NOW - timedelta(days=8)}}
    assert is_complete("one", before, {"home"}, NOW)
    assert not is_complete("one", before, {"copy"}, NOW)

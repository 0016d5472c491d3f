from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.evidence.requests import worth_asking
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata, Purpose
from mlwarden.model.evidence import Phase
from mlwarden.model.signing import Proof, Proven
from mlwarden.scanner.agenda import AGAIN_SCAN, LONGEST_TRANSIENT, SKEW, Agenda, Due, Rank, Terms, backoff, due, long_backoff

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TERMS = Terms(identity="me", started=NOW, lease=45 * SECOND, max_age=timedelta(hours=24))
TAG, DIGEST = "tag-" + "a" * 40, "sha256-" + "a" * 64


def evidence(name: str = TAG, *, asked: datetime | None = None, **status: object) -> ImageEvidence:
    metadata = Metadata(name=name, creation_timestamp=NOW - timedelta(days=1))
    return ImageEvidence(metadata=metadata, spec=EvidenceSpec(references=("x",), requested_at=asked), status=EvidenceStatus(**status))


def taken(agenda: Agenda, now: datetime = NOW, **arguments: Any) -> str | None:
    turn = agenda.take(now, **arguments)
    return None if turn is None else turn.name


def held(*, host: str, namespace: str = "", since: datetime = NOW, rank: Rank = Rank.HELD, attempts: int = 0) -> Due:
    return Due(at=NOW, rank=rank, since=since, host=host, namespaces=(namespace,), attempts=attempts)


def at(found: ImageEvidence) -> datetime | None:
    when = due(found, TERMS)
    return None if when is None else when.at


def test_what_has_no_answer_is_due_at_once() -> None:
    when = due(evidence(), TERMS)
    assert when is not None
    assert when.at < NOW
    assert when.rank is Rank.HELD


def test_what_nobody_waits_for_comes_last() -> None:
    found = evidence()
    background = due(msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, purpose=Purpose.RENEWAL)), TERMS)
    agenda = Agenda()
    agenda.put("background", background)
    agenda.put("held", due(evidence(asked=NOW - SECOND), TERMS))
    assert [taken(agenda), taken(agenda)] == ["held", "background"]


def test_a_transient_failure_is_due_when_it_says_and_asking_again_does_not_hurry_a_rate_limit() -> None:
    later = NOW + 60 * SECOND
    assert at(evidence(retry_at=later)) == later
    assert at(evidence(retry_at=later, asked=NOW)) == later
    assert at(evidence(DIGEST, phase=Phase.READY, at=NOW - timedelta(hours=1), retry_at=later, asked=NOW)) == later


def test_what_was_tried_before_waits_behind_what_was_not() -> None:
    """Or a registry that hangs would be tried for ever before everybody else."""
    agenda = Agenda()
    agenda.put("hangs", due(evidence(asked=NOW - 60 * SECOND, retry_at=NOW - SECOND, attempts=1), TERMS))
    agenda.put("new", due(evidence(asked=NOW - 5 * SECOND), TERMS))
    assert [taken(agenda), taken(agenda)] == ["new", "hangs"]


def test_what_another_scanner_works_on_is_due_when_its_lease_is_over() -> None:
    assert at(evidence(claimed_by="other", claimed_until=NOW + 30 * SECOND)) == NOW + 30 * SECOND
    assert (
        at(evidence(phase=Phase.READY, at=NOW, asked=NOW + SECOND, claimed_by="other", claimed_until=NOW + 30 * SECOND))
        == NOW + 30 * SECOND
    )


def test_a_claim_from_before_this_process_started_is_nobodys_and_a_later_one_is_our_own() -> None:
    before = at(evidence(claimed_by="me", claimed_until=NOW + 44 * SECOND))
    assert before is not None
    assert before < NOW
    assert at(evidence(claimed_by="me", claimed_until=NOW + 46 * SECOND)) == NOW + 46 * SECOND


def test_a_resolution_is_renewed_only_when_it_is_asked_for() -> None:
    old = NOW - timedelta(days=30)
    assert at(evidence(phase=Phase.READY, at=old)) is None
    assert at(evidence(phase=Phase.READY, at=old, asked=old, answered=old)) is None
    assert at(evidence(phase=Phase.READY, at=old, asked=NOW)) == old + 2 * SECOND


def test_a_requester_whose_clock_is_ahead_is_answered_once() -> None:
    ahead = NOW + timedelta(hours=1)
    assert at(evidence(phase=Phase.READY, at=NOW, asked=ahead)) == NOW + 2 * SECOND
    assert at(evidence(phase=Phase.READY, at=NOW, asked=ahead, answered=ahead)) is None


def test_a_requester_whose_clock_is_behind_is_answered_too() -> None:
    assert at(evidence(phase=Phase.READY, at=NOW, asked=NOW - timedelta(hours=1))) == NOW + 2 * SECOND


def test_a_scan_is_renewed_when_it_is_too_old_after_those_that_somebody_waits_for() -> None:
    made = NOW - timedelta(hours=1)
    when = due(evidence(DIGEST, phase=Phase.READY, at=made), TERMS)
    assert when is not None
    assert when.at == made + timedelta(hours=24)
    assert when.rank is Rank.RENEWAL


def test_a_definitive_failure_is_tried_again_soon_when_it_is_asked_for_and_late_when_not() -> None:
    later = NOW + timedelta(hours=1)
    assert at(evidence(phase=Phase.FAILED, at=NOW, retry_at=later)) == later
    assert at(evidence(DIGEST, phase=Phase.FAILED, at=NOW, retry_at=later, asked=NOW + SECOND)) == NOW + 30 * SECOND


def test_waiting_grows_and_has_an_end() -> None:
    waits = [backoff(attempts) for attempts in range(1, 2000)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2 * SECOND, timedelta(hours=1))
    days = [long_backoff(attempts) for attempts in range(1, 2000)]
    assert days == sorted(days)
    assert (days[0], days[-1]) == (timedelta(hours=1), timedelta(days=1))


def test_what_somebody_waits_for_comes_first_and_then_who_waits_longest() -> None:
    agenda = Agenda()
    agenda.put("refresh", Due(at=NOW, rank=Rank.RENEWAL, since=NOW - timedelta(days=9)))
    agenda.put("late", Due(at=NOW, rank=Rank.HELD, since=NOW))
    agenda.put("early", Due(at=NOW, rank=Rank.HELD, since=NOW - SECOND))
    agenda.put("future", Due(at=NOW + SECOND, rank=Rank.HELD, since=NOW - timedelta(days=9)))
    assert [taken(agenda) for _ in range(4)] == ["early", "late", "refresh", None]
    assert agenda.next_at() == NOW + SECOND
    assert taken(agenda, NOW + SECOND) == "future"
    assert agenda.next_at() is None
    assert len(agenda) == 0


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 9), st.sampled_from(Rank)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(0, 9))
def test_the_agenda_gives_out_everything_that_is_due_once_and_nothing_else(steps: list[tuple[str, int | None, Rank]], until: int) -> None:
    agenda, expected = Agenda(), dict[str, int]()
    for name, seconds, rank in steps:
        agenda.put(name, None if seconds is None else Due(at=NOW + seconds * SECOND, rank=rank, since=NOW))
        expected.pop(name, None)
        if seconds is not None:
            expected[name] = seconds
    found = []
    while (name := taken(agenda, NOW + until * SECOND)) is not None:
        found.append(name)
    assert sorted(found) == sorted(name for name, seconds in expected.items() if seconds <= until)
    rest = [seconds for seconds in expected.values() if seconds > until]
    assert agenda.next_at() == (NOW + min(rest) * SECOND if rest else None)


def test_what_may_not_be_done_now_waits_and_the_next_one_is_taken() -> None:
    agenda = Agenda()
    for seconds, name in ((60, "slow-1"), (50, "slow-2"), (5, "other")):
        agenda.put(name, held(host=name[:4], since=NOW - seconds * SECOND))
    assert taken(agenda, may=lambda _rank, _namespace, host: host != "slow") == "other"
    assert taken(agenda, may=lambda _rank, _namespace, host: host != "slow") is None
    assert [taken(agenda), taken(agenda)] == ["slow-1", "slow-2"]


def of_purpose(purpose: Purpose, *, created: datetime = NOW, name: str = TAG) -> ImageEvidence:
    spec = EvidenceSpec(references=("x",), purpose=purpose, namespaces=("team",))
    return ImageEvidence(metadata=Metadata(name=name, creation_timestamp=created), spec=spec)


def test_a_held_pod_comes_before_a_template_before_a_renewal_before_what_nobody_waits_for_any_more() -> None:
    agenda, long_ago = Agenda(), NOW - timedelta(days=2)
    agenda.put("gone", due(of_purpose(Purpose.POD, created=NOW - timedelta(hours=1)), TERMS))
    agenda.put("renewal", due(evidence(DIGEST, phase=Phase.READY, at=long_ago), TERMS))
    agenda.put("template", due(of_purpose(Purpose.TEMPLATE, created=NOW - 50 * SECOND), TERMS))
    agenda.put("pod", due(of_purpose(Purpose.POD, created=NOW - 2 * SECOND), TERMS))
    assert [taken(agenda) for _ in range(5)] == ["pod", "template", "renewal", "gone", None]


def test_what_nobody_asks_about_any_more_sinks_while_it_stands_in_the_queue() -> None:
    agenda = Agenda()
    agenda.put("gone", due(of_purpose(Purpose.POD, created=NOW - timedelta(minutes=59)), TERMS))
    agenda.put("template", due(of_purpose(Purpose.TEMPLATE), TERMS))
    assert agenda.take(NOW, may=lambda _rank, _namespace, _host: False) is None
    later = NOW + timedelta(minutes=2)
    assert [taken(agenda, later), taken(agenda, later)] == ["template", "gone"]


def test_the_namespace_with_the_least_running_comes_first_then_the_registry_then_who_waits_longest() -> None:
    agenda = Agenda()
    for number in range(1000):
        agenda.put(f"many-{number}", held(host="one.example", namespace="many", since=NOW - 60 * SECOND))
    agenda.put("other-registry", held(host="two.example", namespace="many"))
    agenda.put("other-namespace", held(host="one.example", namespace="few"))
    running = [("many", "one.example")]

    def load(namespace: str, host: str) -> tuple[int, int]:
        return sum(each[0] == namespace for each in running), sum(each[1] == host for each in running)

    assert taken(agenda, turn=load) == "other-namespace"
    assert taken(agenda, turn=load) == "other-registry"
    assert taken(agenda, turn=load) == "many-0"


def test_what_two_namespaces_wait_for_has_its_turn_with_the_first_of_them_and_once() -> None:
    agenda = Agenda()
    agenda.put("shared", Due(at=NOW, rank=Rank.HELD, since=NOW, namespaces=("busy", "idle")))
    agenda.put("busy", held(host="", namespace="busy", since=NOW - SECOND))
    turn = agenda.take(NOW, turn=lambda namespace, _host: (3 if namespace == "busy" else 0, 0))
    assert turn is not None
    assert (turn.name, turn.namespace) == ("shared", "idle")
    assert [taken(agenda), taken(agenda)] == ["busy", None]


def test_only_who_was_never_tried_and_is_waited_for_is_worth_making_room_for() -> None:
    agenda = Agenda()
    agenda.put("tried", held(host="", attempts=1))
    agenda.put("renewal", held(host="", rank=Rank.RENEWAL))
    assert agenda.waiting(NOW) is None
    agenda.put("new", held(host="", rank=Rank.TEMPLATE))
    waiting = agenda.waiting(NOW)
    assert waiting is not None
    assert waiting.name == "new"
    assert len(agenda) == 3


SIGNATURES = "signatures-" + "a" * 64


def proven(demand: str, key: str = "") -> Proof:
    return Proof(demand=demand, outcome=Proven.VERIFIED, material=key, at=NOW)


def test_what_policies_began_to_demand_is_looked_at_and_what_they_ask_no_more_is_not() -> None:
    known = evidence(SIGNATURES, phase=Phase.READY, at=NOW, proofs=(proven("one"),))
    as_it_is = due(known, TERMS, {"one": ""})
    assert as_it_is is not None
    assert as_it_is.at == NOW + TERMS.max_age
    when = due(known, TERMS, {"one": "", "two": ""})
    assert when is not None
    assert when.at <= NOW
    assert when.rank is Rank.RENEWAL


def test_a_key_that_was_exchanged_makes_its_proofs_again() -> None:
    known = evidence(SIGNATURES, phase=Phase.READY, at=NOW, proofs=(proven("one", "old"),))
    later = due(known, TERMS, {"one": "old"})
    again = due(known, TERMS, {"one": "new"})
    assert later is not None
    assert again is not None
    assert later.at == NOW + TERMS.max_age
    assert again.at <= NOW


def test_signatures_are_looked_at_again_soon_after_somebody_asks() -> None:
    known = evidence(SIGNATURES, phase=Phase.READY, at=NOW, asked=NOW + SECOND, proofs=(proven("one"),))
    when = due(known, TERMS, {"one": ""})
    assert when is not None
    assert (when.at, when.rank) == (NOW + 5 * SECOND, Rank.HELD)


@pytest.mark.parametrize(
    ("field", "honest", "latest"),
    [
        ("claimed_until", TERMS.lease, SKEW + TERMS.lease),
        ("retry_at", LONGEST_TRANSIENT, SKEW + LONGEST_TRANSIENT),
    ],
)
def test_a_date_that_no_scanner_would_write_puts_work_off_for_no_longer_than_an_honest_one(
    field: str, honest: timedelta, latest: timedelta
) -> None:
    def at(date: datetime) -> datetime:
        status = msgspec.structs.replace(known.status, claimed_by="another", **{field: date})
        when = due(msgspec.structs.replace(known, status=status), TERMS, now=NOW)
        assert when is not None
        return when.at

    known = evidence()
    assert at(NOW + honest) == NOW + honest
    assert at(datetime(9999, 1, 1, tzinfo=UTC)) == NOW + latest


def test_an_answer_of_tomorrow_is_asked_for_again_today() -> None:
    tomorrow = NOW + timedelta(days=3650)
    known = evidence(DIGEST, phase=Phase.READY, at=tomorrow, asked=NOW)
    when = due(known, TERMS, now=NOW)
    assert when is not None
    assert when.at <= NOW + SKEW + AGAIN_SCAN
    answered = evidence(DIGEST, phase=Phase.READY, at=tomorrow, asked=NOW, answered=NOW)
    assert worth_asking(answered, "x", NOW + SECOND)
    honest = evidence(DIGEST, phase=Phase.READY, at=NOW, asked=NOW, answered=NOW)
    assert not worth_asking(honest, "x", NOW + SECOND)

"""How many requests for evidence wait in the name of one namespace, and which of them makes room."""

from datetime import UTC, datetime, timedelta

import msgspec

from mlwarden.evidence.bounds import NEW, Unanswered, by_purpose
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata, Purpose, name_for
from mlwarden.model.evidence import Phase

T0 = datetime(2026, 11, 30, 12, tzinfo=UTC)


def asked(number: int, *namespaces: str, purpose: Purpose = Purpose.TEMPLATE, status: EvidenceStatus | None = None) -> ImageEvidence:
    reference = f"registry.example/team/app-{number}:1"
    return ImageEvidence(
        metadata=Metadata(name=name_for(reference), creation_timestamp=T0 + timedelta(seconds=number)),
        spec=EvidenceSpec(references=(reference,), namespaces=namespaces, purpose=purpose),
        status=status or EvidenceStatus(),
    )


def queue(*requests: ImageEvidence, most: int = 3) -> Unanswered:
    made = Unanswered(most)
    for each in requests:
        made.changed(each.metadata.name, each)
    return made


def test_each_namespace_has_room_of_its_own() -> None:
    bounds = queue(*(asked(number, "a") for number in range(3)), asked(3, "b"))
    assert bounds.is_full("a")
    assert not bounds.is_full("b")
    assert not bounds.is_full("c")


def test_an_answer_and_a_deletion_give_room_back_and_asking_again_after_a_failure_takes_it() -> None:
    requests = [asked(number, "a") for number in range(3)]
    bounds = queue(*requests)
    ready = EvidenceStatus(phase=Phase.READY, at=T0, digest="sha256:" + "a" * 64)
    bounds.changed(requests[0].metadata.name, asked(0, "a", status=ready))
    assert bounds.count("a") == 2
    bounds.changed(requests[1].metadata.name, None)
    assert bounds.count("a") == 1
    failed = asked(2, "a", status=EvidenceStatus(phase=Phase.FAILED, at=T0, reason="no such image"))
    bounds.changed(failed.metadata.name, failed)
    assert bounds.count("a") == 0
    again = msgspec.structs.replace(failed, spec=msgspec.structs.replace(failed.spec, requested_at=T0 + timedelta(minutes=1)))
    bounds.changed(again.metadata.name, again)
    assert bounds.count("a") == 1


def test_the_oldest_that_no_held_pod_waits_for_makes_room_and_one_that_is_being_answered_last() -> None:
    claimed = asked(0, "a", status=EvidenceStatus(claimed_by="scanner-0", claimed_until=T0))
    held, template, newer = asked(1, "a", purpose=Purpose.POD), asked(2, "a"), asked(3, "a")
    bounds = queue(held, newer, claimed, template)
    order = []
    while (one := bounds.makes_room("a", by_purpose)) is not None:
        order.append(one)
        bounds.changed(one.metadata.name, None)
    assert order == [template, newer, claimed]
    assert bounds.count("a") == 1


def test_what_others_wait_for_too_is_nobodys_to_take_away() -> None:
    bounds = queue(asked(0, "a", "b"), asked(1, "a", "b"), asked(2, "b", "a"))
    assert bounds.is_full("a")
    assert bounds.makes_room("a", by_purpose) is None


def test_beyond_the_bound_what_came_last_goes_first() -> None:
    requests = [asked(number, "a") for number in range(8)]
    bounds = queue(*requests, *(asked(number, "b") for number in range(10, 14)))
    assert list(bounds.surplus(3, lambda _: True)) == [requests[7], requests[6]]


def test_a_namespace_that_nobody_has_seen_has_a_few_and_not_five_hundred() -> None:
    requests = [asked(number, "made-up") for number in range(NEW + 2)]
    bounds = queue(*requests, asked(100, "a"), most=500)
    assert list(bounds.surplus(500, lambda namespace: namespace == "a")) == [requests[-1], requests[-2]]
    assert list(bounds.surplus(500, lambda _: True)) == []


def test_what_is_not_about_what_its_name_says_does_not_pile_up() -> None:
    bounds = queue(asked(0, "a"))
    strangers = [f"tag-{number:040x}" for number in range(NEW + 2)]
    for version, name in enumerate(strangers):
        metadata = {"name": name, "resourceVersion": str(version)}
        bounds.changed(name, {"metadata": metadata, "spec": {"references": ["registry.example/x:1"], "namespaces": ["a"]}})
    assert bounds.strangers() == [(strangers[NEW + 1], str(NEW + 1)), (strangers[NEW], str(NEW))]
    bounds.changed(strangers[0], None)
    assert len(bounds.strangers()) == 1
    assert bounds.count("a") == 1


def test_what_is_going_already_is_not_taken_away_again() -> None:
    going = asked(0, "a")
    going = msgspec.structs.replace(going, metadata=msgspec.structs.replace(going.metadata, deletion_timestamp=T0))
    bounds = queue(going, asked(1, "a", purpose=Purpose.POD), asked(2, "a", purpose=Purpose.POD), most=1)
    assert bounds.makes_room("a", by_purpose) is None
    assert going not in list(bounds.surplus(0, lambda _: True))


def test_the_objects_of_older_versions_and_what_is_no_evidence_count_for_nobody() -> None:
    bounds = queue(asked(0))
    bounds.changed("x", {"metadata": {"name": "x"}, "spec": {"references": ["x@y"]}})
    assert len(bounds) == 1
    assert not bounds.is_full("")

import contextlib
import hashlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import evidence
from mlwarden.errors import EvidenceError, InputError
from mlwarden.evidence import store
from mlwarden.evidence.requests import worth_asking
from mlwarden.evidence.store import Purpose, Requester
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import ImageFacts, Phase, Proofs, Resolution, Scan

HEX = "a" * 64
DIGEST = Digest(f"sha256:{HEX}")
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SCAN = Scan(scanner="trivy 0.72.0", scanned_at=NOW, os="alpine 3.19.1", packages=3, counts={"HIGH": 1, "unfixed": 0})


def stored(reference: str, **status: object) -> dict[str, object]:
    return {**evidence.pending(reference), "status": msgspec.to_builtins(store.EvidenceStatus(**status))}


def test_a_tag_is_named_by_the_hash_of_the_reference_as_written() -> None:
    assert evidence.name_for("nginx:1") == "tag-" + hashlib.sha256(b"nginx:1").hexdigest()[:40]
    assert evidence.name_for("nginx:1") != evidence.name_for("docker.io/library/nginx:1")


def test_a_digest_is_named_by_itself_wherever_it_is_pulled_from() -> None:
    assert evidence.name_for(f"nginx@{DIGEST}") == evidence.name_for(f"ghcr.io/x/y:tag@{DIGEST}") == f"sha256-{HEX}"


def test_what_is_no_image_reference_cannot_be_asked_for() -> None:
    with pytest.raises(InputError):
        evidence.pending("Not An Image")


def test_a_new_request_is_pending_work() -> None:
    about, facts = evidence.to_facts(evidence.pending(f"nginx:1@{DIGEST}"))
    assert about == DIGEST
    assert facts == ImageFacts(digest=DIGEST, phase=Phase.PENDING, reason="waiting for the scanner")
    about, resolution = evidence.to_facts(evidence.pending("nginx:1"))
    assert about == "nginx:1"
    assert isinstance(resolution, Resolution)
    assert resolution.digest is None
    assert resolution.reason == "waiting for the scanner"


def test_a_finished_scan_is_read_back_as_it_was_written() -> None:
    _, facts = evidence.to_facts(stored(f"nginx@{DIGEST}", phase=Phase.READY, scan=SCAN, at=NOW))
    assert facts == ImageFacts(digest=DIGEST, phase=Phase.READY, scan=SCAN, answered_at=NOW)


def test_a_finished_resolution_is_read_back_with_its_time() -> None:
    assert evidence.to_facts(stored("nginx:1", phase=Phase.READY, digest=DIGEST, at=NOW)) == ("nginx:1", Resolution(digest=DIGEST, at=NOW))


def test_ready_without_an_answer_is_never_ready() -> None:
    _, facts = evidence.to_facts(stored(f"nginx@{DIGEST}", phase=Phase.READY))
    assert isinstance(facts, ImageFacts)
    assert facts.phase is Phase.FAILED
    _, resolution = evidence.to_facts(stored("nginx:1", phase=Phase.READY, at=NOW))
    assert isinstance(resolution, Resolution)
    assert resolution.digest is None


def test_a_scan_of_something_that_failed_since_is_not_shown() -> None:
    _, facts = evidence.to_facts(stored(f"nginx@{DIGEST}", phase=Phase.FAILED, scan=SCAN, reason="gone"))
    assert facts == ImageFacts(digest=DIGEST, phase=Phase.FAILED, reason="gone")


def test_an_object_that_is_about_something_else_than_its_name_is_not_evidence() -> None:
    other = stored(f"nginx@sha256:{'b' * 64}", phase=Phase.READY, scan=SCAN)
    other["metadata"] = {"name": f"sha256-{HEX}"}
    with pytest.raises(EvidenceError):
        evidence.to_facts(other)
    tag = stored("nginx:1", phase=Phase.READY, digest=DIGEST, at=NOW)
    tag["spec"] = {"references": ["nginx:2"]}
    with pytest.raises(EvidenceError):
        evidence.to_facts(tag)


KEYS = st.sampled_from(["metadata", "spec", "status", "name", "references", "phase", "scan", "at"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_whatever_is_stored_is_evidence_or_an_evidence_error(obj: object) -> None:
    with contextlib.suppress(EvidenceError):
        evidence.to_facts(obj)


def test_asking_again_says_when_and_leaves_the_references_alone() -> None:
    known = store.read(evidence.pending("nginx:1"))
    assert evidence.request(known, "nginx:1", NOW) == {"spec": {"requestedAt": "2026-11-24T12:00:00.000000Z"}}


def test_asking_for_a_digest_from_another_repository_appends_it_under_the_resource_version() -> None:
    known = store.read(evidence.pending(f"nginx@{DIGEST}") | {"metadata": {"name": f"sha256-{HEX}", "resourceVersion": "7"}})
    patch = evidence.request(known, f"ghcr.io/x/y:tag@{DIGEST}", NOW)
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert patch["spec"]["references"] == [f"docker.io/library/nginx@{DIGEST}", f"ghcr.io/x/y@{DIGEST}"]


def test_a_full_list_of_repositories_makes_room_so_that_nobody_can_spoil_a_digest_for_others() -> None:
    full = evidence.pending(f"nginx@{DIGEST}")
    full["spec"] = {"references": [f"evil.example/n{number}@{DIGEST}" for number in range(16)]}
    patch = evidence.request(store.read(full), f"ghcr.io/x/y@{DIGEST}", NOW)
    assert patch["spec"]["references"][-1] == f"ghcr.io/x/y@{DIGEST}"
    assert len(patch["spec"]["references"]) == 16


def test_the_crd_knows_every_field_that_is_written() -> None:
    schema = evidence.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for struct, properties in (
        (store.EvidenceSpec, schema["spec"]["properties"]),
        (store.EvidenceStatus, schema["status"]["properties"]),
        (Scan, schema["status"]["properties"]["scan"]["properties"]),
    ):
        assert set(struct.__struct_encode_fields__) == set(properties)


def asked(*, purpose: Purpose = Purpose.POD, namespaces: tuple[str, ...] = (), minutes: float = 0, **status: object) -> store.ImageEvidence:
    stored = store.read(evidence.pending("nginx:1"))
    metadata = msgspec.structs.replace(stored.metadata, creation_timestamp=NOW - timedelta(minutes=minutes), resource_version="7")
    spec = msgspec.structs.replace(stored.spec, purpose=purpose, namespaces=namespaces)
    return msgspec.structs.replace(stored, metadata=metadata, spec=spec, status=store.EvidenceStatus(**status))


TEMPLATE = Requester(purpose=Purpose.TEMPLATE, namespace="a")
POD = Requester(namespace="b")


def test_a_request_says_what_for_and_in_which_namespace() -> None:
    spec = evidence.pending("nginx:1", TEMPLATE)["spec"]
    assert spec == {"references": ["nginx:1"], "purpose": "Template", "namespaces": ["a"]}


def test_a_held_pod_hurries_what_a_template_asked_for_and_is_not_a_second_request() -> None:
    stored = asked(purpose=Purpose.TEMPLATE, namespaces=("a",))
    assert worth_asking(stored, "nginx:1", NOW, POD)
    patch = evidence.request(stored, "nginx:1", NOW, POD)
    assert patch == {"metadata": {"resourceVersion": "7"}, "spec": {"purpose": "Pod", "namespaces": ["b"]}}


def test_a_template_does_not_slow_down_what_a_pod_waits_for() -> None:
    assert not worth_asking(asked(namespaces=("b",)), "nginx:1", NOW, TEMPLATE)
    assert evidence.request(asked(namespaces=("b",)), "nginx:1", NOW, TEMPLATE) == {"spec": {}}


def test_every_namespace_that_waits_is_known_up_to_eight() -> None:
    stored = asked(namespaces=("b",))
    assert not worth_asking(stored, "nginx:1", NOW, POD)
    assert evidence.request(stored, "nginx:1", NOW, Requester(namespace="c"))["spec"]["namespaces"] == ["b", "c"]
    full = asked(namespaces=tuple("12345678"))
    assert evidence.request(full, "nginx:1", NOW, POD)["spec"]["namespaces"] == [*"2345678", "b"]


def test_who_still_waits_says_so_every_ten_minutes() -> None:
    assert not worth_asking(asked(namespaces=("b",), minutes=9), "nginx:1", NOW, POD)
    stored = asked(namespaces=("b",), minutes=10)
    assert worth_asking(stored, "nginx:1", NOW, POD)
    assert "requestedAt" in evidence.request(stored, "nginx:1", NOW, POD)["spec"]


def test_who_asks_again_after_an_answer_waits_alone() -> None:
    stored = asked(namespaces=("a", "c"), minutes=60, phase=Phase.READY, at=NOW - timedelta(hours=1), digest=DIGEST)
    spec = evidence.request(stored, "nginx:1", NOW, TEMPLATE)["spec"]
    assert spec == {"purpose": "Template", "namespaces": ["a"], "requestedAt": "2026-11-24T12:00:00.000000Z"}


@pytest.mark.parametrize(("seconds", "worth"), [(1, False), (6, True)])
def test_who_asks_right_after_the_answer_has_not_seen_it_yet(seconds: int, *, worth: bool) -> None:
    stored = asked(phase=Phase.READY, digest=DIGEST, at=NOW - timedelta(seconds=seconds), answered=NOW)
    stored = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, requested_at=NOW))
    assert worth_asking(stored, "nginx:1", NOW, POD) is worth


def placed(*references: str, named_by: dict[str, tuple[str, ...]]) -> store.ImageEvidence:
    found = store.read(evidence.pending(f"{references[0]}@{DIGEST}"))
    names = {f"{reference}@{DIGEST}": names for reference, names in named_by.items()}
    spec = msgspec.structs.replace(found.spec, references=tuple(f"{each}@{DIGEST}" for each in references), named_by=names)
    return msgspec.structs.replace(found, spec=spec)


def patched(stored: store.ImageEvidence, wanted: str, namespace: str) -> store.ImageEvidence:
    """As the API server would have it after the request."""
    change = evidence.request(stored, f"{wanted}@{DIGEST}", NOW, Requester(namespace=namespace))["spec"]
    named_by = {**msgspec.to_builtins(stored.spec.named_by), **change.get("namedBy", {})}
    body = msgspec.to_builtins(stored)
    body["spec"] |= change | {"namedBy": {key: value for key, value in named_by.items() if value is not None}}
    return store.read(body)


def test_who_fills_the_list_pushes_out_its_own_and_not_the_repository_of_others() -> None:
    stored = placed("r.example/team/home", named_by={"r.example/team/home": ("team",)})
    for number in range(40):
        stored = patched(stored, f"r.example/evil/copy{number}", "evil")
    references = [reference.partition("@")[0] for reference in stored.spec.references]
    assert references == ["r.example/team/home", *(f"r.example/evil/copy{number}" for number in range(25, 40))]
    assert set(stored.spec.named_by) == set(stored.spec.references)


def test_a_repository_that_a_stranger_names_too_does_not_become_the_strangers() -> None:
    stored = placed("r.example/team/home", named_by={"r.example/team/home": ("team",)})
    stored = patched(stored, "r.example/team/home", "evil")
    assert stored.spec.named_by[f"r.example/team/home@{DIGEST}"] == ("team", "evil")
    for number in range(40):
        stored = patched(stored, f"r.example/evil/copy{number}", "evil")
    assert stored.spec.references[0] == f"r.example/team/home@{DIGEST}"


def test_the_repository_that_is_named_now_comes_last_which_is_asked_first() -> None:
    answered = {"phase": Phase.READY, "at": NOW - timedelta(hours=1)}
    stored = placed("r.example/team/home", "r.example/other/copy", named_by={})
    stored = msgspec.structs.replace(stored, status=store.EvidenceStatus(**answered))
    patch = evidence.request(stored, f"r.example/team/home:1@{DIGEST}", NOW)
    assert patch["spec"]["references"] == [f"r.example/other/copy@{DIGEST}", f"r.example/team/home@{DIGEST}"]
    assert "resourceVersion" in patch["metadata"]


def test_a_namespace_that_names_a_known_repository_is_noted_once() -> None:
    stored = placed("r.example/team/home", named_by={"r.example/team/home": ("a",)})
    wanted = f"r.example/team/home@{DIGEST}"
    stored = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, namespaces=("a", "b"), requested_at=NOW))
    assert worth_asking(stored, wanted, NOW, Requester(namespace="b"))
    assert not worth_asking(patched(stored, "r.example/team/home", "b"), wanted, NOW, Requester(namespace="b"))
    assert not worth_asking(stored, wanted, NOW, Requester(namespace="a"))


def test_evidence_from_before_places_were_noted_is_read_as_an_answer_of_all_of_them() -> None:
    name = f"signatures-{HEX}"
    proofs = [
        {"demand": "one", "outcome": "Verified", "at": "2026-11-24T11:00:00Z"},
        {"demand": "two", "outcome": "Unknown", "at": "2026-11-24T11:00:00Z"},
    ]
    spec = {"references": [f"r.example/a@{DIGEST}", f"r.example/b@{DIGEST}"]}
    obj = {**evidence.pending(f"signatures of r.example/a@{DIGEST}"), "metadata": {"name": name}, "spec": spec}
    _, facts = evidence.to_facts(obj | {"status": {"phase": "Ready", "at": "2026-11-24T11:00:00Z", "proofs": proofs}})
    assert isinstance(facts, Proofs)
    at = NOW - timedelta(hours=1)
    assert facts.answered == {f"r.example/a@{DIGEST}": {"one": at}, f"r.example/b@{DIGEST}": {"one": at}}

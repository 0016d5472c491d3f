"""Who forges an answer is found out: by chance where another pod looks again, for certain where the pod that is named did not write it."""

import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlwarden import policy
from mlwarden.embedded import images
from mlwarden.embedded.processes import free_port, wait_until
from mlwarden.embedded.signer import KeyPair, Signer
from mlwarden.evidence.disagreement import is_comparable, is_open, unexcused, unproven, unscanned, worse
from mlwarden.evidence.store import Compared, EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata, SecondLook
from mlwarden.model.evidence import SIGNATURES, Phase, Scan, Suppressed
from mlwarden.model.signing import Demand, Proof, Proven
from mlwarden.model.signing import Signer as WhoSigned
from mlwarden.scanner.agenda import Rank
from mlwarden.scanner.keys import material
from mlwarden.scanner.provenance import Writer
from mlwarden.scanner.second import SecondLooks

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

COLLECTION = "/apis/mlwarden.io/v1alpha1/imageevidences"
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
Ask = Callable[[str], str]
Scanner = Callable[..., "Process"]
Until = Callable[..., dict[str, Any]]


def ready(status: dict[str, Any]) -> bool:
    return status.get("phase") == "Ready"


def outcome(wanted: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status.get("secondLook", {}).get("outcome") == wanted


def write(cluster: "EmbeddedCluster", name: str, status: dict[str, Any]) -> None:
    """What a stolen token does: the status as a whole."""
    patch = [{"op": "add", "path": "/status", "value": status}]
    cluster.api().patch(f"{COLLECTION}/{name}/status", patch, content_type="application/json-patch+json")


@pytest.mark.cluster
def test_a_forged_clean_scan_is_taken_back_by_another_pod_and_an_honest_one_stays(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, attack: Callable[[str, str, str], None]
) -> None:
    bad = images.vulnerable(cluster.registry, "second/bad:1")
    good = images.clean(cluster.registry, "second/good:1")
    honest = ask(f"{cluster.registry}/second/good@{good}")
    first = scanner("--second-looks=0", name="scanner-a")
    answered = until(honest, ready)
    first.stop()
    forged = ask(f"{cluster.registry}/second/bad@{bad}")
    now = datetime.now(UTC).isoformat()
    scan = {**answered["scan"], "scannedAt": now, "counts": {"unfixed": 0}}
    write(cluster, forged, {"phase": "Ready", "at": now, "scan": scan, "answeredBy": "scanner-b"})

    scanner("--second-looks=1", name="scanner-c")
    found = until(forged, outcome("Worse"))
    assert found["scan"]["counts"] == {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}
    assert found["answeredBy"] == "scanner-c"
    assert (found["secondLook"]["by"], found["secondLook"]["of"]) == ("scanner-c", "scanner-b")
    assert "1 CRITICAL instead of 0" in found["secondLook"]["reason"]
    stays = until(honest, outcome("Agrees"))
    assert {**stays, "secondLook": None} == {**answered, "secondLook": None}
    assert stays["answeredBy"] == "scanner-a"
    attack(
        "a clean scan is forged with a scanner's token",
        "it stood for a day, and nobody knew whose it was",
        f"taken back by a second look (share 1 here, 0.01 by default): {found['secondLook']['reason']}; an honest one stayed",
    )


@pytest.mark.cluster
def test_a_forged_answer_in_a_live_scanners_own_name_is_noticed_at_once_without_chance(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until, attack: Callable[[str, str, str], None]
) -> None:
    bad = images.vulnerable(cluster.registry, "second/own:1")
    name, probes = ask(f"{cluster.registry}/second/own@{bad}"), free_port()
    scanner("--second-looks=0", name="scanner-a", probes=probes)
    answered = until(name, ready)
    clean = {**answered, "scan": {**answered["scan"], "counts": {}, "vulnerabilities": []}}
    write(cluster, name, clean)

    def forged() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes}/metrics", timeout=5) as answer:
            return b"mlwarden_scanner_forged_answers_total 1.0" in answer.read()

    assert wait_until(forged, seconds=30)
    again = until(name, lambda status: ready(status) and status["at"] != answered["at"])
    assert again["scan"]["counts"] == answered["scan"]["counts"]
    attack(
        "a clean scan is forged in the name of the very pod whose token was stolen",
        "nobody noticed",
        "noticed at once by that pod, which knows what it wrote; taken back and made again",
    )


@pytest.fixture
def demanded(cluster: "EmbeddedCluster", evidence_crd: None, tmp_path: Path) -> Iterator[tuple[Signer, KeyPair, str, Demand]]:
    """A policy that asks for the signature of one key: who signs, with what, the demand's id and the demand."""
    signer = Signer(tmp_path)
    key = signer.key_pair("team")
    requirement = {"imageSignature": {"authorities": [{"name": "team", "key": key.pem}]}}
    spec = {"profiles": {"production": "Deny"}, "requirement": requirement, "message": "m", "why": "w", "fix": {"text": "f"}}
    body = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": "second-signed"}, "spec": spec}
    path = "/apis/mlwarden.io/v1alpha1/wardenpolicies/second-signed"
    cluster.api().apply(path, body)
    ((name, demand),) = policy.compile_policy(policy.parse(body)).demands.items()
    yield signer, key, name, demand
    cluster.api().delete(path)


@pytest.mark.cluster
def test_a_forged_signature_is_taken_back_by_another_pod_and_an_honest_one_stays(
    cluster: "EmbeddedCluster",
    ask: Ask,
    scanner: Scanner,
    until: Until,
    *,
    demanded: tuple[Signer, KeyPair, str, Demand],
    attack: Callable[[str, str, str], None],
) -> None:
    signer, key, demand, asked = demanded
    names = {}
    for what in ("signed", "unsigned"):
        of = images.push_image(cluster.registry, f"second/{what}:1", alpine={"musl": "1.2.5-r10"}, python={what: "1"})
        names[what] = f"{cluster.registry}/second/{what}@{of}"
    signer.sign(names["signed"], key)
    honest = ask(SIGNATURES + names["signed"])
    first = scanner("--second-looks=0", name="scanner-a")
    answered = until(honest, ready)
    assert [proof["outcome"] for proof in answered["proofs"]] == ["Verified"]
    first.stop()
    forged = ask(SIGNATURES + names["unsigned"])
    proof = {**answered["proofs"][0], "at": datetime.now(UTC).isoformat()}
    assert proof["material"] == material(asked)
    write(cluster, forged, {"phase": "Ready", "at": proof["at"], "proofs": [proof], "proven": "1 of 1", "answeredBy": "scanner-b"})

    scanner("--second-looks=1", name="scanner-c")
    found = until(forged, outcome("Worse"))
    assert [(each["demand"], each["outcome"]) for each in found["proofs"]] == [(demand, "Missing")]
    assert found["proven"] == "0 of 1"
    assert "team: Missing" in found["secondLook"]["reason"]
    stays = until(honest, outcome("Agrees"))
    assert {**stays, "secondLook": None} == {**answered, "secondLook": None}
    attack(
        "a signature is forged with a scanner's token",
        "it was believed for as long as the policy's maxAge",
        f"taken back by a second look: {found['secondLook']['reason'][:60]}; an honest one stayed",
    )


@pytest.mark.cluster
def test_a_scanner_that_starts_again_under_its_name_knows_its_answers(
    cluster: "EmbeddedCluster", ask: Ask, scanner: Scanner, until: Until
) -> None:
    good = images.clean(cluster.registry, "second/again:1")
    name = ask(f"{cluster.registry}/second/again@{good}")
    first = scanner("--second-looks=0", name="scanner-a")
    answered = until(name, ready)
    first.stop()
    scanner("--second-looks=1", name="scanner-a")
    stays = until(name, outcome("Agrees"))
    assert stays["at"] == answered["at"]


def scan(**changes: Any) -> Scan:
    made = {"scanner": "trivy 0.72.0", "scanned_at": NOW, "database_at": NOW, "packages": 7, "scanners": ("vuln",)}
    return Scan(**{**made, **changes})


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"counts": {"HIGH": 1}}, "1 HIGH instead of 0"),
        ({"counts": {"LOW": 4}}, {"counts": {"LOW": 4, "CRITICAL": 2}}, "2 CRITICAL instead of 0"),
        ({}, {"counts": {"unfixed": 3}}, "without a fix 3 in all instead of 0"),
        ({}, {"unfixed": {"HIGH": 3}}, "without a fix 3 HIGH instead of 0"),
        ({"scanners": ("vuln", "secret")}, {"scanners": ("vuln", "secret"), "secret_counts": {"HIGH": 1}}, "secrets 1 HIGH"),
        ({}, {"eol": True}, "no more updates"),
        ({}, {"packages": 0}, "no packages"),
        ({}, {"blind": ("conda",)}, "does not see everything"),
    ],
)
def test_a_second_scan_that_finds_more_is_worse_and_one_that_finds_less_is_not(
    first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    assert said in worse(scan(**first), scan(**second))
    assert worse(scan(**second), scan(**first)) == ""
    assert worse(scan(**second), scan(**second)) == ""


def test_what_was_not_looked_for_the_first_time_is_no_lie() -> None:
    assert worse(scan(), scan(scanners=("vuln", "secret"), secret_counts={"HIGH": 1})) == ""


def test_a_newer_database_or_another_version_may_find_more() -> None:
    older, newer = scan(database_at=NOW - timedelta(hours=6)), scan()
    assert not is_comparable(older, newer)
    assert is_comparable(newer, older)
    assert is_comparable(newer, newer)
    assert is_comparable(scan(database_at=None), newer)
    assert not is_comparable(newer, scan(scanner="trivy 0.73.0"))


def test_platforms_that_the_second_scan_leaves_out_are_named() -> None:
    both, one = scan(platforms=("linux/amd64", "linux/arm64")), scan(platforms=("linux/amd64",), unjudged=("windows/amd64",))
    assert unscanned(both, one) == "not scanned for linux/arm64, windows/amd64"
    assert unscanned(one, both) == unscanned(one, one) == ""


@pytest.mark.parametrize(
    ("first", "of", "noticed"),
    [
        ({}, "other", True),
        ({}, "me", False),
        ({"counts": {"HIGH": 1}}, "other", False),
        ({"database_at": NOW - timedelta(hours=1)}, "other", False),
        ({"scanner": "trivy 0.71.0"}, "other", False),
    ],
)
def test_the_next_scan_notices_that_the_one_before_was_too_good(first: dict[str, Any], of: str, noticed: bool) -> None:  # noqa: FBT001
    known = stored(1, of)
    known = msgspec.structs.replace(known, status=msgspec.structs.replace(known.status, scan=scan(**first)))
    second = looks(0.0, 0.9)
    look = second.noticed(known, scan(counts={"HIGH": 1}))
    assert (look is not None) is noticed
    if look is not None:
        assert (look.of, look.outcome) == ("other", Compared.WORSE)


def test_an_excuse_that_nobody_signed_is_found_and_one_that_is_there_is_not() -> None:
    excuse = Suppressed(id="CVE-2026-1", package="torch", signer=WhoSigned(subject="security", issuer="i"))
    assert "CVE-2026-1" in unexcused(scan(suppressed=(excuse,)), scan())
    assert unexcused(scan(suppressed=(excuse,)), scan(suppressed=(excuse,))) == ""
    assert unexcused(scan(), scan(suppressed=(excuse,))) == ""


def test_a_proof_that_cannot_be_made_again_is_denied_and_one_that_could_not_be_asked_is_not() -> None:
    signer = WhoSigned(key="sha256:" + "a" * 64)
    proof = Proof(demand="d", authority="team", outcome=Proven.VERIFIED, signer=signer, at=NOW)
    missing = msgspec.structs.replace(proof, outcome=Proven.MISSING, signer=None, reason="no signature")
    assert "team: Missing (no signature)" in unproven([proof], [missing])
    assert unproven([missing], [proof]) == ""
    assert unproven([proof], [proof]) == ""
    assert unproven([proof], [msgspec.structs.replace(missing, outcome=Proven.UNKNOWN)]) == ""
    assert unproven([proof], [msgspec.structs.replace(missing, material="another key")]) == ""
    other = msgspec.structs.replace(proof, signer=WhoSigned(key="sha256:" + "b" * 64))
    assert "signed by" in unproven([proof], [other])


def test_what_could_not_be_looked_for_is_open_and_not_agreed_with() -> None:
    proof = Proof(demand="d", outcome=Proven.VERIFIED, at=NOW)
    unknown = msgspec.structs.replace(proof, outcome=Proven.UNKNOWN)
    assert is_open([proof], [unknown])
    assert not is_open([proof], [proof])
    assert not is_open([unknown], [unknown])
    assert not is_open([proof], [])  # nobody asks for it any more


def test_after_many_tries_those_decide_that_answer() -> None:
    second = looks(0.5, 0.4)
    answer = stored(1, "other")
    chosen(second, answer)
    tries = 1
    while not second.is_last(answer.metadata.name):
        second.failed(answer.metadata.name)
        tries += 1
        assert answer.metadata.name in second
    assert tries == 10
    second.failed(answer.metadata.name)
    assert answer.metadata.name not in second


def stored(number: int, by: str, *, at: datetime | None = None) -> ImageEvidence:
    at = at or datetime.now(UTC)
    return ImageEvidence(
        metadata=Metadata(name=f"sha256-{number:064x}"),
        spec=EvidenceSpec(references=(f"r.example/team/x@sha256:{number:064x}",)),
        status=EvidenceStatus(phase=Phase.READY, at=at, scan=scan(scanned_at=at), answered_by=by),
    )


def found_out(of: str, *, by: str = "me") -> ImageEvidence:
    """An answer that `by` took back."""
    look = SecondLook(by=by, of=of, at=NOW, outcome=Compared.WORSE)
    found = stored(9, by)
    return msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, second_look=look))


def chosen(looks: SecondLooks, *answers: ImageEvidence) -> list[int]:
    for each in answers:
        looks.changed(each.metadata.name, each)
    return [number for number, each in enumerate(answers) if each.metadata.name in looks]


def looks(share: float, *draws: float) -> SecondLooks:
    rolled = iter(draws)
    return SecondLooks(None, Writer("me"), share, draw=lambda: next(rolled))  # type: ignore[arg-type]


def test_dice_decide_about_what_others_wrote_and_are_thrown_once_for_an_answer() -> None:
    second = looks(0.5, 0.4, 0.6)
    answers = stored(1, "other"), stored(2, "other")
    assert chosen(second, *answers) == [0]
    assert chosen(second, *answers) == [0]  # the same answers, seen again: no dice are left


def test_writing_an_answer_again_does_not_call_off_the_look_that_dice_chose() -> None:
    second = looks(0.5, 0.4)
    now = datetime.now(UTC)
    assert chosen(second, stored(1, "other", at=now)) == [0]
    for seconds in range(1, 4):
        assert chosen(second, stored(1, "other", at=now + timedelta(seconds=seconds))) == [0]
    assert chosen(second, stored(1, "me")) == []  # answered by us, and honestly


def test_what_dice_chose_does_not_wait_behind_what_others_want_and_the_rest_of_a_liars_answers_does() -> None:
    second = looks(0.5, 0.4, 0.9)
    answers = stored(1, "liar"), stored(2, "liar")
    chosen(second, *answers)
    second.suspect(found_out("liar"), {each.metadata.name: each for each in answers})
    ranks = [due.rank for each in answers if (due := second.due(each)) is not None]
    assert ranks == [Rank.HELD, Rank.RENEWAL]


def test_several_replicas_share_the_share_and_who_is_alone_looks_at_its_own() -> None:
    assert chosen(looks(0.5, 0.4, 0.4, 0.4), stored(1, "a"), stored(2, "b"), stored(3, "b")) == [0]
    assert chosen(looks(0.5, 0.4), stored(1, "me")) == [0]
    assert chosen(looks(0.5, 0.9, 0.0), stored(1, "other"), stored(2, "me")) == []


def test_everything_of_a_pod_that_lied_is_looked_at_again() -> None:
    second = looks(0.0, *[0.9] * 4)
    known = {each.metadata.name: each for each in (stored(1, "liar"), stored(2, "liar"), stored(3, "honest"))}
    assert chosen(second, *known.values()) == []
    assert len(second.suspect(found_out("liar"), known)) == 2
    assert second.suspect(found_out("me"), known) == []
    assert second.suspect(found_out("honest", by="somebody else"), known) == []
    assert chosen(second, stored(4, "liar")) == [0]


def test_who_could_not_reach_a_registry_does_not_put_its_name_under_what_another_one_said() -> None:
    writer, theirs = Writer("me"), stored(1, "other")
    later = msgspec.structs.replace(theirs.status, at=datetime.now(UTC), reason="no such image", attempts=1)
    with writer.writing(theirs, later) as signed:
        assert signed.answered_by == "other"
    tag = msgspec.structs.replace(theirs, metadata=Metadata(name="tag-" + "a" * 40))
    with writer.writing(tag, later) as signed:
        assert signed.answered_by == "me"


def test_an_answer_in_our_name_is_ours_where_we_wrote_it_or_found_it_when_we_started() -> None:
    writer, mine = Writer("me"), stored(1, "me")
    assert writer.disowns(mine)
    writer.adopt(mine)
    assert not writer.disowns(mine)
    asked = msgspec.structs.replace(mine, status=msgspec.structs.replace(mine.status, attempts=3, claimed_by="other", at=NOW))
    assert not writer.disowns(asked)
    changed = msgspec.structs.replace(mine, status=msgspec.structs.replace(mine.status, scan=scan(counts={"HIGH": 0})))
    assert writer.disowns(changed)
    assert not writer.disowns(stored(1, "other"))
    with writer.writing(mine, changed.status) as signed:
        assert signed.answered_by == "me"
    assert not writer.disowns(msgspec.structs.replace(mine, status=signed))

"""Unknown is never Pass: every way in which evidence about an image can be missing, old or blind."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden import checks, policy, workloads
from mlwarden.checks.age import duration
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution, Scan, Suppressed, Unheard, Vulnerability, Weakness
from mlwarden.model.finding import Outcome
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked
from mlwarden.model.signing import Signer

from .scans import DIGEST, NOW, PINNED, compiled, ready, scan  # type: ignore[import-not-found]

TAGGED = "registry.example/team/train:1.0"


def vulnerability(**changes: Any) -> Vulnerability:
    found = {"id": "CVE-2026-1", "package": "openssl", "installed": "3.0.1", "fixed": "3.0.2", "severity": "CRITICAL"}
    return Vulnerability(**(found | changes))


def answer(image: str = PINNED, *, rule: policy.CompiledPolicy | None = None, **facts: Any) -> checks.Answer:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "train"}, "spec": {"containers": [{"name": "main", "image": image}]}}
    known = Facts(now=NOW, namespace={}, profile="production", **facts)
    (only,) = checks.judge(rule or compiled(), workloads.extract(pod), known)
    assert only.path == "spec.containers[0].image"
    return only


def test_a_fresh_clean_scan_passes() -> None:
    assert answer(images=ready(scan())).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ({}, "has not been scanned yet"),
        ({DIGEST: ImageFacts(digest=DIGEST, phase=Phase.PENDING)}, "is being scanned"),
        (
            {DIGEST: ImageFacts(digest=DIGEST, phase=Phase.FAILED, reason="401 from the registry")},
            "could not be scanned: 401 from the registry",
        ),
        (ready(None), "the result was not recorded"),
        (ready(scan(packages=0)), "recognised no packages"),
        (ready(scan(blind=("conda environments are not seen",))), "conda environments are not seen"),
        (ready(scan(database_at=None)), "does not say how old the scanner's vulnerability database was"),
        (ready(scan(database_at=NOW + timedelta(days=1))), "vulnerability database is dated in the future"),
        (ready(scan(scanned_at=NOW - timedelta(days=8))), "was scanned 8 days ago"),
        (ready(scan(scanned_at=NOW + timedelta(days=1))), "dated in the future"),
        (ready(scan(database_at=NOW - timedelta(days=90))), "vulnerability database was 89 days old"),
        ({DIGEST: ImageFacts(digest=digest("sha256:" + "b" * 64), phase=Phase.READY, scan=scan())}, "about another digest"),
    ],
)
def test_what_is_missing_old_or_blind_is_unknown(images: dict[Digest, ImageFacts], says: str) -> None:
    said = answer(images=images)
    assert said.outcome is Outcome.UNKNOWN
    assert says in said.message


def test_missing_evidence_asks_for_a_scan_of_that_digest() -> None:
    assert answer(images={}).wanted == PINNED


def test_a_tag_that_was_never_resolved_is_unknown_and_wanted_as_written() -> None:
    said = answer(TAGGED)
    assert (said.outcome, said.wanted) == (Outcome.UNKNOWN, TAGGED)


def test_a_tag_resolved_a_minute_ago_is_judged_by_its_digest() -> None:
    resolutions = {TAGGED: Resolution(digest=DIGEST, at=NOW - timedelta(seconds=59))}
    assert answer(TAGGED, resolutions=resolutions, images=ready(scan())).outcome is Outcome.PASS


@pytest.mark.parametrize("age", [61, 3600, -3600])
def test_a_tag_resolved_at_another_time_is_not(age: int) -> None:
    resolutions = {TAGGED: Resolution(digest=DIGEST, at=NOW - timedelta(seconds=age))}
    said = answer(TAGGED, resolutions=resolutions, images=ready(scan()))
    assert (said.outcome, said.wanted) == (Outcome.UNKNOWN, TAGGED)


def test_a_tag_that_cannot_be_resolved_says_why() -> None:
    said = answer(TAGGED, resolutions={TAGGED: Resolution(digest=None, at=NOW, reason="no such tag")})
    assert said.outcome is Outcome.UNKNOWN
    assert "no such tag" in said.message


def test_a_tag_beside_a_digest_does_not_need_resolving() -> None:
    assert answer(f"registry.example/team/train:latest@{DIGEST}", images=ready(scan())).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("image", "outcome", "said"),
    [
        ("{{image}}", "Pass", "judged as the pod it becomes"),
        ("${IMAGE}", "Pass", "judged as the pod it becomes"),
        ("auto", "Pass", "judged as the pod it becomes"),
        ("", "Unknown", "(empty) is not an image reference: an image is named by an empty string"),
        ("a b", "Fail", ""),
    ],
)
def test_what_a_template_may_still_be_given_is_left_to_its_pod(image: str, outcome: str, said: str) -> None:
    template = {"spec": {"containers": [{"name": "main", "image": image}]}}
    workload = workloads.extract({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": template}})
    facts = Facts(now=NOW, namespace={}, profile="experiment")
    [found] = checks.judge(compiled(), workload, facts)
    assert found.outcome.value == outcome
    assert not said or found.message == said


HEX = "5d" * 32


@pytest.mark.parametrize(
    "image",
    [
        "sha256:x y",
        "UPPER/Case",
        "a b",
        "x@sha256:123",
        "x@md5:" + "a" * 32,
        f"registry.example/app@sha512:{'ab' * 64}",
        f"registry.example/app@sha256:{HEX.upper()}",
        f"registry.example/app@sha256:{HEX}:v2",
        f"registry.example/app@sha256:{HEX}:",
        "registry.example/app:",
        "https://registry.example/app:1",
        "docker://registry.example/app:1",
        "oci://registry.example/app:1",
        "registry.example/app:1\n",
        "registry.example/app:1\u00a0",
        "registry.example//app:1",
        f"sha256:{HEX}",
        HEX,
        "{{image}}",
        "https://x/y:1",
    ],
)
def test_what_can_never_be_an_image_reference_fails_at_once_and_is_not_scanned(image: str) -> None:
    """Held, its pod would wait for ever."""
    said = answer(image)
    assert (said.outcome, said.wanted) == (Outcome.FAIL, "")
    assert " is not an image reference: " in said.message
    assert "vulnerable" not in said.message
    assert "registry/repository" in said.fix


@pytest.mark.parametrize(
    "image",
    [
        "registry.example:5000/app",
        "[2001:db8::5]:5000/team/app:1.0",
        "auto",
        f"sha256:{HEX[2:]}",
        HEX[2:],
        f"team/{HEX}",
    ],
)
def test_what_looks_odd_and_is_a_reference_waits_for_its_digest(image: str) -> None:
    said = answer(image)
    assert (said.outcome, said.wanted) == (Outcome.UNKNOWN, image)


def test_an_image_that_is_not_there_yet_is_unknown() -> None:
    said = answer("")
    assert (said.outcome, said.wanted) == (Outcome.UNKNOWN, "")


def test_a_vulnerability_with_a_fix_fails_and_the_fix_is_named() -> None:
    said = answer(images=ready(scan(counts={"CRITICAL": 1}, vulnerabilities=(vulnerability(),))))
    assert said.outcome is Outcome.FAIL
    assert said.message == (
        f"image {PINNED} is vulnerable: 1 vulnerability of HIGH or worse with a fix: "
        "CVE-2026-1 (CRITICAL) in openssl 3.0.1 (fixed in 3.0.2)"
    )
    assert said.fix == "rebuild the image with openssl>=3.0.2, then push it under a new tag"


def test_at_most_three_vulnerabilities_are_named_the_worst_first() -> None:
    found = tuple(vulnerability(id=f"CVE-2026-{n}", severity="CRITICAL" if n == 7 else "HIGH") for n in range(10))
    said = answer(images=ready(scan(counts={"CRITICAL": 1, "HIGH": 40}, vulnerabilities=found)))
    assert said.message.count("CVE-") == 3
    assert said.message.index("CVE-2026-7") < said.message.index("CVE-2026-0")
    assert said.message.endswith("and 38 more")


def test_counts_beyond_the_listed_vulnerabilities_fail_too() -> None:
    assert answer(images=ready(scan(counts={"HIGH": 2}))).outcome is Outcome.FAIL


def test_listed_vulnerabilities_beyond_the_counts_fail_too() -> None:
    assert answer(images=ready(scan(vulnerabilities=(vulnerability(),)))).outcome is Outcome.FAIL


def test_what_a_half_blind_scanner_found_still_fails() -> None:
    half_blind = scan(blind=("conda",), counts={"HIGH": 1}, vulnerabilities=(vulnerability(severity="HIGH"),))
    assert answer(images=ready(half_blind)).outcome is Outcome.FAIL


def test_below_the_threshold_passes() -> None:
    assert answer(images=ready(scan(counts={"MEDIUM": 5}, vulnerabilities=(vulnerability(severity="MEDIUM"),)))).outcome is Outcome.PASS


def test_without_a_fix_passes_only_where_the_policy_wants_fixable_ones() -> None:
    images = ready(scan(counts={"unfixed": 1}, vulnerabilities=(vulnerability(fixed=""),)))
    assert answer(images=images).outcome is Outcome.PASS
    assert answer(images=images, rule=compiled(severity="HIGH", fixable=False)).outcome is Outcome.FAIL


def test_unfixed_ones_that_the_summary_does_not_list_are_unknown() -> None:
    said = answer(images=ready(scan(counts={"unfixed": 30})), rule=compiled(severity="HIGH", fixable=False))
    assert said.outcome is Outcome.UNKNOWN


def test_unfixed_ones_of_a_known_severity_are_counted_beyond_the_list() -> None:
    images = ready(scan(counts={"unfixed": 30}, unfixed={"LOW": 29, "HIGH": 1}))
    assert answer(images=images, rule=compiled(severity="HIGH", fixable=False)).message.endswith("1 vulnerability of HIGH or worse")
    assert answer(images=images, rule=compiled(severity="CRITICAL", fixable=False)).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("maximum", "counts", "outcome", "says"),
    [
        ({"HIGH": 2}, {"HIGH": 2}, Outcome.PASS, ""),
        ({"HIGH": 2}, {"HIGH": 3}, Outcome.FAIL, "too many vulnerabilities (3 HIGH where 2 may be) with a fix"),
        ({"HIGH": 2}, {"HIGH": 2, "CRITICAL": 1}, Outcome.FAIL, "1 vulnerability of HIGH or worse with a fix"),
        ({"HIGH": 2}, {"HIGH": 3, "CRITICAL": 1}, Outcome.FAIL, "(1 CRITICAL where none may be, 3 HIGH where 2 may be)"),
        ({"MEDIUM": 2}, {"MEDIUM": 3}, Outcome.FAIL, "(3 MEDIUM where 2 may be)"),
        ({"UNKNOWN": 0}, {"UNKNOWN": 1}, Outcome.FAIL, "(1 UNKNOWN where none may be)"),
        ({"CRITICAL": 5}, {"MEDIUM": 9}, Outcome.PASS, ""),
    ],
)
def test_no_more_of_a_severity_than_the_policy_tolerates(
    maximum: dict[str, int], counts: dict[str, int], outcome: Outcome, says: str
) -> None:
    said = answer(images=ready(scan(counts=counts)), rule=compiled(severity="HIGH", maximum=maximum))
    assert said.outcome is outcome
    assert says in said.message


def test_a_system_past_its_end_of_life_fails_where_the_policy_says_so() -> None:
    images = ready(scan(os="debian 9", eol=True))
    said = answer(images=images, rule=compiled(exitOnEOL=True))
    assert (said.outcome, said.fix) == (Outcome.FAIL, "build the image on a release that is still supported")
    assert "debian 9 gets no more updates" in said.message
    assert answer(images=images).outcome is Outcome.PASS


def test_a_database_may_be_as_old_as_the_policy_says_and_no_older() -> None:
    images = ready(scan(database_at=NOW - timedelta(days=5)))
    said = answer(images=images)
    assert said.outcome is Outcome.UNKNOWN
    assert "vulnerability database was 4 days old, and the policy wants 3d" in said.message
    assert answer(images=images, rule=compiled(databaseMaxAge="1w")).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("asked", "says"),
    [("secrets", "look for secrets"), ("misconfiguration", "look at its configuration"), ("exitOnEOL", "still gets updates")],
)
def test_what_was_not_looked_for_is_unknown_and_not_absent(asked: str, says: str) -> None:
    said = answer(images=ready(scan(scanners=())), rule=compiled(**{asked: True}))
    assert said.outcome is Outcome.UNKNOWN
    assert says in said.message
    looked = scan(scanners=("vuln", "secret", "misconfig"))
    assert answer(images=ready(looked), rule=compiled(**{asked: True})).outcome is Outcome.PASS


def test_a_secret_in_the_image_fails_and_its_place_is_named() -> None:
    key = Weakness(id="private-key", severity="HIGH", title="Asymmetric Private Key", where="app/id_rsa:1")
    images = ready(scan(scanners=("vuln", "secret"), secret_counts={"HIGH": 2, "MEDIUM": 5}, secrets=(key,)))
    said = answer(images=images, rule=compiled(secrets=True))
    assert said.message.endswith("2 secrets of HIGH or worse: Asymmetric Private Key in app/id_rsa:1, and 1 more")
    assert "revoke it" in said.fix
    assert answer(images=images, rule=compiled(secrets=True, severity="CRITICAL")).outcome is Outcome.PASS
    assert answer(images=images).outcome is Outcome.PASS


def test_everything_that_is_wrong_is_said_at_once_with_a_fix_for_each() -> None:
    found = scan(
        os="debian 9",
        eol=True,
        scanners=("vuln", "secret", "misconfig"),
        counts={"CRITICAL": 1},
        vulnerabilities=(vulnerability(),),
        misconfigurations=(Weakness(id="DS-0002", severity="HIGH", title="Image user should not be 'root'"),),
    )
    said = answer(images=ready(found), rule=compiled(exitOnEOL=True, misconfiguration=True))
    assert said.message.count("; ") == said.fix.count("; ") == 2
    assert "1 mistake in its configuration of HIGH or worse: Image user should not be 'root'" in said.message


def test_every_place_of_the_same_image_is_named() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train"},
        "spec": {
            "containers": [{"name": "main", "image": PINNED}, {"name": "side", "image": PINNED}],
            "volumes": [{"name": "model", "image": {"reference": PINNED}}],
        },
    }
    facts = Facts(now=NOW, namespace={}, profile="production")
    paths = [found.path for found in checks.judge(compiled(), workloads.extract(pod), facts)]
    assert sorted(paths) == ["spec.containers[0].image", "spec.containers[1].image", "spec.volumes[0].image.reference"]


def test_what_a_scanner_reports_cannot_break_the_line() -> None:
    found = vulnerability(package="x\n\x1b[2J", id="CVE\u202e")
    said = answer(images=ready(scan(vulnerabilities=(found,))))
    assert said.message.isprintable()
    assert said.fix.isprintable()


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("7d", 604800), ("2w", 1209600), ("30s", 30)])
def test_a_duration_has_units(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "7d ", "-7d", "1.5h", "1d12h", "0d", "7d\n", "٣d", "7dd", "7x", "9999999d"])
def test_what_is_no_duration_is_none(text: str) -> None:
    assert duration(text) is None


_TIMES = st.integers(-100, 100).map(lambda days: NOW + timedelta(days=days))


@given(
    st.sampled_from(list(Phase)),
    st.none()
    | st.builds(
        scan,
        scanned_at=_TIMES,
        database_at=st.none() | _TIMES,
        packages=st.integers(0, 2),
        blind=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        counts=st.dictionaries(st.sampled_from(["CRITICAL", "HIGH", "LOW", "unfixed"]), st.integers(0, 2)),
    ),
)
@settings(max_examples=200, deadline=None)
def test_only_a_complete_recent_scan_ever_passes(phase: Phase, found: Scan | None) -> None:
    said = answer(images={DIGEST: ImageFacts(digest=DIGEST, phase=phase, scan=found)})
    if said.outcome is Outcome.PASS:
        assert phase is Phase.READY
        assert found is not None
        assert timedelta(minutes=-5) <= NOW - found.scanned_at <= timedelta(days=7)
        assert found.packages
        assert found.database_at is not None
        assert timedelta(minutes=-5) <= found.scanned_at - found.database_at <= timedelta(days=3)
        assert not found.blind
        assert not found.counts.get("CRITICAL")
        assert not found.counts.get("HIGH")


VEX = {"severity": "HIGH", "vex": [{"name": "security team", "key": "PEM"}]}


def excused(rule: policy.CompiledPolicy, *, by: str = "", **changes: Any) -> Suppressed:
    said = {
        "id": "CVE-2026-1",
        "package": "openssl",
        "installed": "3.0.1",
        "fixed": "3.0.2",
        "severity": "CRITICAL",
        "status": "not_affected",
    }
    return Suppressed(**(said | {"source": by or next(iter(rule.vex))} | changes))


def test_what_the_named_authority_excuses_does_not_count() -> None:
    rule = compiled(**VEX)
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=(excused(rule),))
    assert answer(rule=rule, images=ready(found)).outcome is Outcome.PASS


@pytest.mark.parametrize(("signer", "outcome"), [("e", Outcome.FAIL), ("f", Outcome.PASS), ("", Outcome.FAIL)])
def test_what_a_revoked_key_excuses_counts_again(signer: str, outcome: Outcome) -> None:
    rule = compiled(**VEX)
    signed = Signer(key="sha256:" + signer * 64) if signer else None
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=(excused(rule, signer=signed),))
    revoked = Revoked.of([Revocation(name="r", spec=RevocationSpec(reason="the laptop was stolen", key="sha256:" + "e" * 64))])
    assert answer(rule=rule, images=ready(found), revoked=revoked).outcome is outcome


def test_nobody_elses_word_counts_nor_that_of_a_policy_that_names_nobody() -> None:
    rule = compiled(**VEX)
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=(excused(rule, by="0" * 16),))
    assert answer(rule=rule, images=ready(found)).outcome is Outcome.FAIL
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=(excused(rule),))
    assert answer(images=ready(found)).outcome is Outcome.FAIL


def test_one_excuse_covers_one_vulnerability_of_one_package_however_often_it_is_said() -> None:
    rule = compiled(**VEX)
    other = vulnerability(package="libssl")
    twice = (excused(rule), excused(rule, by=list(rule.vex)[1]))
    found = scan(vulnerabilities=(vulnerability(), other), counts={"CRITICAL": 2}, suppressed=twice)
    got = answer(rule=rule, images=ready(found))
    assert got.outcome is Outcome.FAIL
    assert "1 vulnerability" in got.message
    assert "libssl" in got.message


def test_an_excuse_for_what_is_not_listed_does_not_hide_what_is_only_counted() -> None:
    rule = compiled(**VEX)
    found = scan(vulnerabilities=(), counts={"CRITICAL": 2}, suppressed=(excused(rule),))
    assert answer(rule=rule, images=ready(found)).outcome is Outcome.FAIL


def test_what_has_no_fix_is_excused_from_what_has_none() -> None:
    rule = compiled(**VEX, fixable=False)
    without = vulnerability(fixed="")
    suppressed = (excused(rule, fixed=""),)
    found = scan(vulnerabilities=(without,), counts={"unfixed": 1}, unfixed={"CRITICAL": 1}, suppressed=suppressed)
    assert answer(rule=rule, images=ready(found)).outcome is Outcome.PASS
    found = scan(vulnerabilities=(without,), counts={"unfixed": 2}, unfixed={"CRITICAL": 2}, suppressed=suppressed)
    assert answer(rule=rule, images=ready(found)).outcome is Outcome.FAIL


def test_an_excuse_that_is_known_of_a_copy_counts_where_the_repository_that_is_named_was_asked_too() -> None:
    rule, copy = compiled(**VEX), PINNED.replace("/team/", "/evil/")
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=(excused(rule),))
    got = answer(rule=rule, images=ready(found, named=(copy,)))
    assert got.outcome is Outcome.UNKNOWN
    assert "VEX documents were not looked for in the repository that is named here" in got.message
    assert got.wanted == PINNED
    assert answer(rule=rule, images=ready(found, named=(copy, PINNED))).outcome is Outcome.PASS


def test_a_document_that_was_found_and_does_not_count_is_mentioned_with_the_reason() -> None:
    rule, signed = compiled(**VEX), Signer(key="sha256:" + "e" * 64)
    source = next(iter(rule.vex))
    reasons = (
        Unheard(source=source, reason="there is one, and not by the key of security team"),
        Unheard(source=source, id="CVE-2026-1", reason="it is about another image"),
        Unheard(source=source, id="CVE-2026-9", reason="that was not found"),
        Unheard(source="0" * 16, reason="of another policy's authority"),
    )
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, unheard=reasons)
    message = answer(rule=rule, images=ready(found)).message
    assert "a VEX document was found for security team and does not count: there is one, and not by the key of security team" in message
    assert "a VEX document about CVE-2026-1 was found for security team and does not count: it is about another image" in message
    assert "not found" not in message
    assert "another policy's" not in message

    said = (excused(rule, signer=signed),)
    found = scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}, suppressed=said)
    revoked = Revoked.of([Revocation(name="r", spec=RevocationSpec(reason="the laptop was stolen", key=signed.key))])
    assert "its signer is revoked (the laptop was stolen)" in answer(rule=rule, images=ready(found), revoked=revoked).message
    assert "whom this policy does not name" in answer(images=ready(found)).message
    assert "VEX" not in answer(images=ready(scan(vulnerabilities=(vulnerability(),), counts={"CRITICAL": 1}))).message

"""Whose word about which vulnerability of which package of which image, and how long."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.evidence import excuses, summary, vex
from mlwarden.evidence.failure import DefinitiveError
from mlwarden.evidence.report import Findings, Package
from mlwarden.evidence.vex import package_url
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Vulnerability
from mlwarden.model.revocation import Revocation, RevocationSpec, Revoked
from mlwarden.model.signing import Place, Signer
from mlwarden.model.suppression import without

A, B, INDEX = (Digest(f"sha256:{letter * 64}") for letter in "abc")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
OCI = f"pkg:oci/model@sha256%3A{'a' * 64}?repository_url=ghcr.io%2Fteam%2Fmodel"
TORCH = "pkg:pypi/torch@2.5.1"
FOUND = Vulnerability(id="CVE-2025-32434", package="torch", installed="2.5.1", fixed="2.6.0", severity="CRITICAL", purl=TORCH)
MUSL = Vulnerability(
    id="CVE-2025-26519",
    package="musl",
    installed="1.2.5-r9",
    severity="HIGH",
    purl="pkg:apk/alpine/musl@1.2.5-r9?arch=x86_64&distro=3.22.1",
)


def openvex(*statements: dict[str, Any], **changes: Any) -> dict[str, Any]:
    usual = {
        "vulnerability": {"name": FOUND.id},
        "products": [{"@id": OCI}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_present",
    }
    whole = {"@context": "https://openvex.dev/ns/v0.2.0", "@id": "x", "author": "x", "timestamp": "2026-11-01T00:00:00Z", "version": 1}
    return whole | changes | {"statements": [usual | statement for statement in statements or ({},)]}


def cyclonedx(state: str = "not_affected", ref: str = "image", **changes: Any) -> dict[str, Any]:
    rated = {"id": FOUND.id, "analysis": {"state": state, "justification": "code_not_reachable"}, "affects": [{"ref": ref}]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"timestamp": "2026-11-01T00:00:00Z", "component": {"type": "container", "bom-ref": "image", "name": "x", "purl": OCI}},
        "components": [{"type": "library", "bom-ref": "t", "name": "torch", "purl": TORCH}, {"bom-ref": "m", "purl": MUSL.purl}],
        "vulnerabilities": [rated | changes],
    }


def suppressed(
    *predicates: dict[str, Any], parts: tuple[Findings, ...] = (), digest: Digest = A, source: str = "team"
) -> list[tuple[str, str]]:
    parts = parts or (Findings(digest=A, vulnerabilities=(FOUND, MUSL)),)
    documents = [vex.read(predicate, source=source) for predicate in predicates]
    return [(found.id, found.status) for found in vex.spoken(parts, documents, digest=digest).suppressed]


TAKEN = [(FOUND.id, "not_affected")]


@pytest.mark.parametrize(
    ("status", "taken"),
    [("not_affected", TAKEN), ("fixed", [(FOUND.id, "fixed")]), ("affected", []), ("under_investigation", []), ("odd", [])],
)
def test_openvex_suppresses_by_two_of_its_four_words(status: str, taken: list[tuple[str, str]]) -> None:
    assert suppressed(openvex({"status": status})) == taken


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        *[(state, TAKEN) for state in ("not_affected", "false_positive")],
        *[(state, [(FOUND.id, "fixed")]) for state in ("resolved", "resolved_with_pedigree")],
        *[(state, []) for state in ("exploitable", "in_triage", "", "odd")],
    ],
)
def test_cyclonedx_suppresses_by_four_of_its_six_words(state: str, taken: list[tuple[str, str]]) -> None:
    assert suppressed(cyclonedx(state)) == taken


@pytest.mark.parametrize(
    "product",
    [
        {"@id": OCI},
        {"@id": A},
        {"@id": f"ghcr.io/team/model@{A}"},
        {"@id": "https://example.com/x", "identifiers": {"purl": OCI}},
        {"@id": "x", "hashes": {"sha-256": "A" * 64}},
    ],
)
def test_a_product_is_the_image_where_it_names_its_digest(product: dict[str, Any]) -> None:
    assert suppressed(openvex({"products": [product]})) == TAKEN


@pytest.mark.parametrize(
    "product",
    [
        {"@id": OCI.replace("a" * 64, "d" * 64)},
        {"@id": "pkg:oci/model"},
        {"@id": "pkg:oci/model?repository_url=ghcr.io%2Fteam%2Fmodel"},
        {"@id": "pkg:oci/model@1.0"},
        {"@id": f"pkg:generic/model@{A}"},
        {"@id": TORCH},
        {"@id": "a" * 64},
        {"@id": A[:-1]},
        {"@id": "x", "hashes": {"sha-512": "a" * 64}},
        {"@id": "x", "identifiers": {"cpe23": "cpe:2.3:a:x:y:*:*:*:*:*:*:*:*"}},
        {},
    ],
)
def test_a_product_that_does_not_name_the_digest_is_another_one(product: dict[str, Any]) -> None:
    assert suppressed(openvex({"products": [product]})) == []


@pytest.mark.parametrize(
    ("subcomponents", "taken"),
    [
        (None, TAKEN),
        ([], TAKEN),
        ([{"@id": TORCH}], TAKEN),
        ([{"@id": "pkg:pypi/torch"}], TAKEN),
        ([{"@id": "x", "identifiers": {"purl": TORCH}}], TAKEN),
        ([{"@id": "pkg:pypi/requests"}, {"@id": "pkg:pypi/Torch"}], TAKEN),
        ([{"@id": "pkg:pypi/torch@2.5.0"}], []),
        ([{"@id": "pkg:pypi/torch@2.5.1?arch=x"}], []),
        ([{"@id": "pkg:npm/torch"}], []),
        ([{"@id": "torch"}], []),
        ([{"@id": "x", "hashes": {"sha-256": "a" * 64}}], []),
    ],
)
def test_subcomponents_narrow_a_statement_to_these_packages(subcomponents: Any, taken: list[tuple[str, str]]) -> None:
    product = {"@id": OCI} | ({} if subcomponents is None else {"subcomponents": subcomponents})
    assert suppressed(openvex({"products": [product]})) == taken


@pytest.mark.parametrize(
    ("vulnerability", "taken"),
    [
        ({"name": "cve-2025-32434"}, TAKEN),
        ({"name": "GHSA-1", "aliases": ["CVE-2025-32434"]}, TAKEN),
        ({"@id": "https://nvd.nist.gov/vuln/detail/CVE-2025-32434"}, TAKEN),
        ({"name": "CVE-2025-3243"}, []),
        ({"name": ""}, []),
    ],
)
def test_a_vulnerability_goes_by_its_name_and_its_aliases(vulnerability: dict[str, Any], taken: list[tuple[str, str]]) -> None:
    assert suppressed(openvex({"vulnerability": vulnerability})) == taken


def test_not_affected_without_a_reason_is_no_statement() -> None:
    assert suppressed(openvex({"justification": ""})) == []
    assert suppressed(openvex({"justification": "", "impact_statement": "it is never called"})) == TAKEN


@pytest.mark.parametrize(
    ("times", "taken"),
    [
        (("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"), TAKEN),
        (("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"), []),
        (("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"), []),
        (("2026-11-01T01:00:00+02:00", "2026-11-01T00:00:00Z"), []),
        (("2026-11-02T00:00:00Z", None), TAKEN),
        ((None, "2026-11-02T00:00:00Z"), []),
    ],
)
def test_the_latest_statement_counts_and_at_the_same_time_the_one_that_does_not_suppress(
    times: tuple[str | None, str | None], taken: list[tuple[str, str]]
) -> None:
    rows = [{"timestamp": at, "status": status} for at, status in zip(times, ("not_affected", "affected"), strict=True)]
    assert suppressed(openvex(*rows)) == taken
    assert suppressed(openvex(rows[1]), openvex(rows[0])) == taken


def test_what_does_not_say_when_it_was_said_takes_nothing_back_from_what_does() -> None:
    undated = openvex({"status": "affected"})
    del undated["timestamp"]
    assert suppressed(openvex(), undated) == []


@pytest.mark.parametrize(
    ("ref", "taken"),
    [
        ("image", TAKEN),
        ("t", TAKEN),
        (TORCH, TAKEN),
        (A, TAKEN),
        (f"urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#{TORCH.replace('@', '%40')}", TAKEN),
        ("m", []),
        ("pkg:pypi/torch@2.5.0", []),
        (OCI.replace("a" * 64, "d" * 64), []),
        ("urn:cdx:3e671687-395b-41f5-a30f-a58921a69b79/1#nothing", []),
        ("", []),
    ],
)
def test_cyclonedx_names_a_package_by_reference_link_or_url(ref: str, taken: list[tuple[str, str]]) -> None:
    assert suppressed(cyclonedx(ref=ref)) == taken


def test_cyclonedx_about_another_image_says_nothing_about_this_one() -> None:
    other = cyclonedx(ref=TORCH)
    other["metadata"]["component"]["purl"] = OCI.replace("a" * 64, "d" * 64)
    assert suppressed(other) == []
    del other["metadata"]["component"]
    assert suppressed(other) == []


@pytest.mark.parametrize(
    ("versions", "taken"), [([{"version": "2.5.1"}], TAKEN), ([{"version": "2.5.0"}], []), ([{"range": "vers:pypi/<3"}], []), ([], [])]
)
def test_cyclonedx_of_some_versions_suppresses_no_others(versions: list[dict[str, str]], taken: list[tuple[str, str]]) -> None:
    assert suppressed(cyclonedx(affects=[{"ref": "t", "versions": versions}])) == taken


def test_what_is_in_two_images_is_suppressed_only_where_it_is_in_both() -> None:
    parts = (Findings(digest=A, vulnerabilities=(FOUND,)), Findings(digest=B, vulnerabilities=(FOUND,)))
    assert suppressed(openvex(), parts=parts, digest=INDEX) == []
    assert suppressed(openvex(), openvex({"products": [{"@id": B}]}), parts=parts, digest=INDEX) == TAKEN
    assert suppressed(openvex({"products": [{"@id": INDEX}]}), parts=parts, digest=INDEX) == TAKEN


def test_two_packages_of_one_name_and_version_are_suppressed_only_together() -> None:
    twin = Vulnerability(id=FOUND.id, package="torch", installed="2.5.1", severity="LOW", purl="pkg:npm/torch@2.5.1")
    parts = (Findings(digest=A, vulnerabilities=(FOUND, twin)),)
    only = {"products": [{"@id": OCI, "subcomponents": [{"@id": TORCH}]}]}
    assert suppressed(openvex(only), parts=parts) == []
    assert suppressed(openvex(), parts=parts) == TAKEN


def test_one_source_does_not_finish_what_another_began() -> None:
    parts = (Findings(digest=A, vulnerabilities=(FOUND,)), Findings(digest=B, vulnerabilities=(FOUND,)))
    documents = [vex.read(openvex(), source="one"), vex.read(openvex({"products": [{"@id": B}]}), source="two")]
    assert vex.spoken(parts, documents, digest=INDEX).suppressed == ()


@pytest.mark.parametrize(
    "predicate",
    [
        {},
        {"@context": "https://example.com"},
        {"@context": "https://openvex.dev/ns/v0.2.0", "statements": "x"},
        {"@context": "https://openvex.dev/ns", "statements": [{"vulnerability": "CVE-1", "products": ["x"], "status": "fixed"}]},
        {"bomFormat": "SPDX"},
        {"bomFormat": "CycloneDX", "vulnerabilities": [{"id": 7}]},
        {"@context": "https://openvex.dev/ns/v0.2.0", "statements": [{"vulnerability": {"name": "x"}, "status": "fixed"}] * 10_001},
        openvex({"timestamp": "yesterday"}),
        openvex({"products": [{"@id": OCI}] * 9_000}, *[{"products": [{"@id": OCI}] * 9_000}] * 9),
    ],
)
def test_what_is_no_vex_document_is_a_failure_and_says_so(predicate: dict[str, Any]) -> None:
    with pytest.raises(DefinitiveError, match=r"VEX document|neither OpenVEX nor CycloneDX"):
        vex.read(predicate, source="team")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([A, TORCH, OCI, FOUND.id, "fixed", "CycloneDX"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["@context", "statements", "products", "status", "vulnerability", "bomFormat", "vulnerabilities", "affects", "@id"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_document_does_more_than_fail(found: Any) -> None:
    predicate = found if isinstance(found, dict) else {"@context": "https://openvex.dev/ns/v0.2.0", "statements": found}
    with contextlib.suppress(DefinitiveError):
        assert isinstance(suppressed(predicate), list)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pkg:npm/%40scope/thing@1.0", ("npm", "@scope", "thing", "1.0")),
        ("pkg:npm/@scope/thing", ("npm", "@scope", "thing", "")),
        ("pkg:golang/github.com/a/b@v1#sub/dir", ("golang", "github.com/a", "b", "v1")),
        ("pkg://PyPI/My_Thing@1%2Bcu12", ("pypi", "", "my-thing", "1+cu12")),
    ],
)
def test_a_package_url_is_taken_apart(text: str, parts: tuple[str, ...]) -> None:
    found = package_url(text)
    assert found is not None
    assert (found.type, found.namespace, found.name, found.version) == parts


@pytest.mark.parametrize("text", ["", "pkg:", "pkg:npm", "pkg:npm/", "http://x/y", "pkg:npm/" + "x" * 3000])
def test_what_is_no_package_url_is_none(text: str) -> None:
    assert package_url(text) is None


def scan(count: int = 2) -> Scan:
    parts = [Findings(digest=A, packages=(Package(type="pip", name="torch"),), vulnerabilities=(FOUND, MUSL)[:count])]
    said = vex.spoken(parts, [vex.read(openvex(), source="team")], digest=A)
    return summary.summarise(parts, scanner="trivy", at=NOW, database_at=NOW, spoken=said)


def test_evidence_says_what_is_suppressed_by_whom_and_takes_nothing_away() -> None:
    found = scan()
    assert found.counts == {"CRITICAL": 1, "unfixed": 1}
    (kept,) = found.suppressed
    assert (kept.id, kept.source, kept.justification) == (FOUND.id, "team", "vulnerable_code_not_present")
    assert [each.id for each in found.vulnerabilities] == [MUSL.id, FOUND.id]


def test_a_policy_takes_away_what_the_sources_it_trusts_suppress() -> None:
    found = scan()
    assert without(found, {"somebody"}) == (found, ())
    left, taken = without(found, {"team"})
    assert (left.counts, left.unfixed, taken) == ({"unfixed": 1}, {"HIGH": 1}, found.suppressed)
    assert [each.id for each in left.vulnerabilities] == [MUSL.id]


def test_a_vulnerability_without_a_fix_is_taken_from_those() -> None:
    parts = [Findings(digest=A, vulnerabilities=(MUSL,))]
    said = vex.spoken(parts, [vex.read(openvex({"vulnerability": {"name": MUSL.id}}), source="team")], digest=A)
    left, _ = without(summary.summarise(parts, scanner="trivy", at=NOW, database_at=NOW, spoken=said), {"team"})
    assert (left.counts, left.unfixed, left.vulnerabilities) == ({"unfixed": 0}, {}, ())


def test_suppressions_beyond_what_is_kept_are_none() -> None:
    many = tuple(
        Vulnerability(
            id=f"CVE-{number}", package="torch", installed="2.5.1", fixed="3", severity="LOW" if number % 2 else "HIGH", purl=TORCH
        )
        for number in range(120)
    )
    parts = [Findings(digest=A, vulnerabilities=many)]
    rows = [{"vulnerability": {"name": found.id}} for found in many]
    said = vex.spoken(parts, [vex.read(openvex(*rows), source="team")], digest=A)
    assert len(said.suppressed) == 120
    left, taken = without(summary.summarise(parts, scanner="trivy", at=NOW, database_at=NOW, spoken=said), {"team"})
    assert len(taken) == summary.KEPT_SUPPRESSED
    assert left.counts == {"HIGH": 10, "LOW": 60, "unfixed": 0}


OTHER = "pkg:oci/model@sha256%3A" + "d" * 64


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (openvex({"status": "affected"}), "it says affected"),
        (openvex({"status": "under_investigation"}), "it says under investigation"),
        (openvex({"justification": ""}), "it says not_affected without a justification"),
        (openvex({"products": [{"@id": OTHER}]}), "it is about another image"),
        (openvex({"products": [{"@id": "pkg:oci/model"}]}), "it names no image by its digest"),
        (openvex({"products": [{"@id": OCI, "subcomponents": [{"@id": "pkg:pypi/numpy"}]}]}), "it is not about every package, or version"),
        (cyclonedx(affects=[{"ref": "t", "versions": [{"version": "2.5.0"}]}]), "it is not about every package, or version"),
    ],
)
def test_what_names_a_vulnerability_and_does_not_count_is_said_with_the_reason(document: dict[str, Any], reason: str) -> None:
    parts = (Findings(digest=A, vulnerabilities=(FOUND, MUSL)),)
    said = vex.spoken(parts, [vex.read(document, source="team")], digest=A)
    assert said.suppressed == ()
    (only,) = said.unheard
    assert (only.source, only.id) == ("team", FOUND.id)
    assert only.reason.startswith(reason)


def test_what_counts_or_names_nothing_that_was_found_is_not_mentioned() -> None:
    parts = (Findings(digest=A, vulnerabilities=(FOUND,)),)
    documents = [
        vex.read(openvex(), source="team"),
        vex.read(openvex({"vulnerability": {"name": "CVE-1"}, "status": "affected"}), source="team"),
    ]
    assert vex.spoken(parts, documents, digest=A).unheard == ()


# What is known of excuses, from one scan to the next.

KEY, STOLEN = (Signer(key="sha256:" + letter * 64) for letter in "ef")
EARLY, LATE = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)


def looked(*said: tuple[str, datetime, Signer], found: tuple[Vulnerability, ...] = (FOUND,)) -> Scan:
    """A scan whose documents say this, at that time, by whom."""
    parts = [Findings(digest=A, packages=(Package(type="pip", name="torch"),), vulnerabilities=found)]
    rows = [(openvex({"status": status, "timestamp": at.isoformat()}), signer) for status, at, signer in said]
    spoken = vex.spoken(parts, [vex.read(row, source="team", signer=signer) for row, signer in rows], digest=A)
    return summary.summarise(parts, scanner="trivy", at=NOW, database_at=NOW, spoken=spoken)


def known(before: Scan | None, made: Scan, *asked: str, answered: tuple[str, ...] = ("home",), now: datetime = NOW) -> Scan:
    """`home` was heard before; who is `asked` is heard now."""
    places = [Place(reference=each, at=now, answered={"team": now}) for each in asked]
    return excuses.merged(
        before, made, now, sources={"team"}, answered={each: {"team": NOW - timedelta(days=1)} for each in answered}, asked=places
    )


def statuses(scan: Scan) -> list[str]:
    return [each.status for each in without(scan, {"team"})[1]]


def test_an_excuse_that_was_taken_back_does_not_come_back_with_a_copy_that_has_only_the_older_document() -> None:
    taken_back = known(None, looked(("not_affected", EARLY, KEY), ("affected", LATE, KEY)), "home")
    assert statuses(taken_back) == []
    after = known(taken_back, looked(("not_affected", EARLY, KEY)), "copy")
    assert statuses(after) == []
    assert statuses(known(after, looked(("not_affected", EARLY, KEY)), "copy", "home")) == []
    assert statuses(known(after, looked(("fixed", NOW, KEY)), "copy")) == ["fixed"]


def test_an_excuse_stays_while_its_repository_cannot_be_heard_and_is_over_when_it_is_gone_from_there() -> None:
    excused = known(None, looked(("not_affected", EARLY, KEY)), "home")
    assert statuses(known(excused, looked(), "copy")) == ["not_affected"]
    assert statuses(known(excused, looked(), "home")) == []
    assert statuses(known(excused, looked(found=(MUSL,)), "copy")) == [], "and there is nothing to excuse where nothing is found"


def test_the_word_of_a_revoked_signer_does_not_count_and_the_next_newest_does() -> None:
    revoked = Revoked.of([Revocation(name="r", spec=RevocationSpec(key=STOLEN.key, reason="stolen"))])
    scan = looked(("affected", EARLY, KEY), ("not_affected", LATE, STOLEN))
    assert [each.status for each in without(scan, {"team"})[1]] == ["not_affected"]
    assert without(scan, {"team"}, revoked)[1] == ()
    scan = looked(("not_affected", EARLY, KEY), ("affected", LATE, STOLEN))
    assert without(scan, {"team"})[1] == ()
    assert [each.status for each in without(scan, {"team"}, revoked)[1]] == ["not_affected"]


def test_a_document_from_the_future_counts_as_the_time_it_was_first_seen() -> None:
    future = datetime(2999, 1, 1, tzinfo=UTC)
    first = known(None, looked(("not_affected", future, KEY)), "home")
    assert (first.suppressed[0].at, first.suppressed[0].dated) == (NOW, future)
    later = NOW + timedelta(days=2)
    second = known(first, looked(("affected", NOW + timedelta(days=1), KEY)), "copy", now=later)
    assert statuses(second) == []

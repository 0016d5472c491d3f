import re
from datetime import UTC, datetime

import msgspec
import pytest

from mlwarden.evidence import report, summary
from mlwarden.evidence.report import Findings, Package, System
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Vulnerability

DIGEST = Digest("sha256:" + "a" * 64)
IMAGE = f"registry.example/team/model@{DIGEST}"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def read(*results: dict[str, object], os: dict[str, str] | None = None) -> Findings:
    whole = {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.72.0"},
        "ArtifactName": IMAGE,
        "ArtifactType": "container_image",
        "Metadata": {"OS": os, "RepoDigests": [IMAGE]},
        "Results": list(results) or None,
    }
    return report.read(msgspec.json.encode(whole), asked=IMAGE, digest=DIGEST, version="0.72.0")


def packages(kind: str, type_: str, count: int = 1) -> dict[str, object]:
    return {"Class": kind, "Type": type_, "Packages": [{"Name": f"p{number}", "Version": "1"} for number in range(count)]}


ALPINE = {"Family": "alpine", "Name": "3.19.1"}


@pytest.mark.parametrize(
    ("results", "os", "words"),
    [
        ([], None, "no operating system and no packages"),
        ([{"Class": "os-pkgs", "Type": "alpine"}], ALPINE, "no list of its packages"),
        ([packages("lang-pkgs", "python-pkg")], ALPINE, "no list of its packages"),
        ([packages("os-pkgs", "fedora")], {"Family": "fedora", "Name": "41"}, "no advisories for fedora"),
        ([packages("os-pkgs", "alpine")], None, "not recognised"),
        ([packages("os-pkgs", "alpine"), packages("lang-pkgs", "conda-pkg", 3)], ALPINE, r"conda packages \(3 found\)"),
    ],
)
def test_what_trivy_cannot_see_is_said(results: list[dict[str, object]], os: dict[str, str] | None, words: str) -> None:
    (found,) = read(*results, os=os).blind
    assert re.search(words, found)


@pytest.mark.parametrize(
    ("results", "os"),
    [([packages("os-pkgs", "alpine")], ALPINE), ([packages("lang-pkgs", "gobinary")], None), ([packages("lang-pkgs", "python-pkg")], None)],
)
def test_what_trivy_sees_is_not_called_blind(results: list[dict[str, object]], os: dict[str, str] | None) -> None:
    assert read(*results, os=os).blind == ()


A1 = System(family="a", version="1")
TWO = (Package(type="a", name="p"),) * 2


def vulnerability(id_: str, severity: str, fixed: str = "2", package: str = "p") -> Vulnerability:
    return Vulnerability(id=id_, package=package, installed="1", fixed=fixed, severity=severity)


def test_the_summary_counts_all_and_names_the_worst_that_can_be_fixed_first() -> None:
    many = [vulnerability(f"CVE-{number}", "LOW") for number in range(40)]
    found = (*many, vulnerability("CVE-x", "CRITICAL", fixed=""), vulnerability("CVE-y", "HIGH"), vulnerability("CVE-z", "CRITICAL"))
    scan = summary.summarise([Findings(system=A1, packages=TWO, vulnerabilities=found)], scanner="trivy", at=NOW, database_at=None)
    assert scan.counts == {"CRITICAL": 1, "HIGH": 1, "LOW": 40, "unfixed": 1}
    assert [kept.id for kept in scan.vulnerabilities[:2]] == ["CVE-z", "CVE-y"]
    assert len(scan.vulnerabilities) == 25
    assert scan.unfixed == {"CRITICAL": 1}
    assert scan.scanners == ("vuln",)


def test_one_vulnerability_in_many_files_and_platforms_counts_once() -> None:
    part = Findings(system=A1, packages=TWO, vulnerabilities=(vulnerability("CVE-1", "HIGH"),) * 3, blind=("x",))
    scan = summary.summarise([part, part], scanner="trivy", at=NOW, database_at=None, blind=("y",))
    assert scan.counts == {"HIGH": 1, "unfixed": 0}
    assert scan.packages == 4
    assert scan.blind == ("y", "x")


def test_one_platform_past_its_end_of_life_makes_the_digest_so() -> None:
    parts = [Findings(system=A1, packages=TWO), Findings(system=A1, packages=TWO, eol=True)]
    assert summary.summarise(parts, scanner="trivy", at=NOW, database_at=None).eol


def test_the_end_of_life_of_the_system_is_read() -> None:
    assert read(packages("os-pkgs", "alpine"), os={**ALPINE, "EOSL": True}).eol  # type: ignore[dict-item]
    assert not read(packages("os-pkgs", "alpine"), os=ALPINE).eol


def test_of_a_secret_everything_is_kept_but_its_value() -> None:
    row = {"RuleID": "private-key", "Severity": "HIGH", "Title": "Private Key", "StartLine": 3, "Match": "s3cret", "Code": {"x": "s3cret"}}
    found = read(packages("os-pkgs", "alpine"), {"Class": "secret", "Target": "/app/id_rsa\n", "Secrets": [row] * 40}, os=ALPINE)
    scan = summary.summarise([found], scanner="trivy", at=NOW, database_at=None)
    (kept,) = scan.secrets
    assert (kept.id, kept.severity, kept.title, kept.where) == ("private-key", "HIGH", "Private Key", "/app/id_rsa:3")
    assert b"s3cret" not in msgspec.json.encode([found.secrets, scan])


def test_only_mistakes_that_were_found_are_kept() -> None:
    rows = [{"ID": f"DS-{number}", "Severity": "HIGH", "Title": "t", "Status": "FAIL" if number % 2 else "PASS"} for number in range(60)]
    found = read(packages("os-pkgs", "alpine"), {"Class": "config", "Misconfigurations": rows}, os=ALPINE)
    scan = summary.summarise([found], scanner="trivy", at=NOW, database_at=None)
    assert scan.misconfiguration_counts == {"HIGH": 30}
    assert len(scan.misconfigurations) == 10


def test_text_from_the_image_is_bounded() -> None:
    row = {
        "VulnerabilityID": "C" * 500,
        "PkgName": "p\n" * 500,
        "InstalledVersion": "v" * 500,
        "FixedVersion": "f" * 500,
        "Severity": "evil",
    }
    (kept,) = read({**packages("os-pkgs", "alpine"), "Vulnerabilities": [row]}, os=ALPINE).vulnerabilities
    assert (len(kept.id), len(kept.package), len(kept.installed), len(kept.fixed), kept.severity) == (64, 200, 100, 100, "UNKNOWN")
    assert "\n" not in kept.package

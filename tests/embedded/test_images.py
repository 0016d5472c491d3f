"""The real Trivy reads our database and our images, and finds exactly what was planted."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlwarden.embedded import build, images
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.embedded.trivydb import Advisory, make_database

pytestmark = pytest.mark.cluster

QUIET = ["--quiet", "--skip-version-check", "--disable-telemetry", "--offline-scan"]
OFFLINE = ["--skip-db-update", "--skip-java-db-update", "--skip-vex-repo-update", "--cache-backend", "memory", "--image-src", "remote"]


def scan(cache: Path, reference: str) -> dict[str, Any]:
    command = [build.binary("trivy"), "image", "--format", "json", "--scanners", "vuln", *QUIET, *OFFLINE, "--cache-dir", cache, reference]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def found(report: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    every = [each for result in report.get("Results", []) for each in result.get("Vulnerabilities", [])]
    return {(each["VulnerabilityID"], each["PkgName"], each["Severity"], each.get("FixedVersion", "")) for each in every}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("trivy"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (images.clean, set()),
        (
            images.vulnerable,
            {("CVE-2025-32434", "torch", "CRITICAL", "2.6.0"), ("CVE-2025-26519", "musl", "HIGH", "1.2.5-r10")},
        ),
        (images.without_fix, {("CVE-2999-0001", "without-a-fix", "CRITICAL", "")}),
    ],
)
def test_trivy_finds_exactly_what_was_planted(
    cluster: EmbeddedCluster, database: Path, make: Callable[[str, str], str], expected: set[tuple[str, str, str, str]]
) -> None:
    digest = make(cluster.registry, f"images/{make.__name__.replace('_', '-')}:1")
    report = scan(database, f"{cluster.registry}/images/{make.__name__.replace('_', '-')}@{digest}")
    assert found(report) == expected
    assert report["Metadata"]["OS"]["Family"] == "alpine"
    assert not report["Metadata"]["OS"].get("EOSL")


def test_of_an_opaque_image_trivy_knows_nothing(cluster: EmbeddedCluster, database: Path) -> None:
    digest = images.opaque(cluster.registry, "images/opaque:1")
    report = scan(database, f"{cluster.registry}/images/opaque@{digest}")
    assert "OS" not in report["Metadata"]
    assert not report.get("Results")


def test_the_digest_is_the_registrys_and_stays_the_same(cluster: EmbeddedCluster) -> None:
    first = images.clean(cluster.registry, "images/same:1")
    assert cluster.run("crane", "digest", "--insecure", f"{cluster.registry}/images/same:1").strip() == first
    assert images.clean(cluster.registry, "images/same:1") == first
    assert images.clean(cluster.registry, "images/same:2") != first


def test_a_database_with_more_entries_than_fit_a_page_is_read(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    many = [
        Advisory(id=f"CVE-2999-{number:04}", ecosystem="alpine 3.22", package="musl", fixed="2.0-r0", severity="LOW", title="x" * 300)
        for number in range(600)
    ]
    digest = images.clean(cluster.registry, "images/many:1")
    report = scan(make_database(tmp_path, many), f"{cluster.registry}/images/many@{digest}")
    assert {identifier for identifier, *_ in found(report)} == {each.id for each in many}

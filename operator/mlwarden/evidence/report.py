"""From trivy's JSON to what is kept of it, strictly: a report that is not exactly about the digest asked for is no report.

Trivy's exit code says nothing (0 with findings, 0 with an empty report), and its silence about what it cannot see reads like a clean
bill: an image of conda packages, an operating system it has no advisories for, a package database that was deleted from the image. All of
these are named in `blind`, and `blind` is `Unknown`. Fields that are not read are skipped, so that a report of 60 MB costs little memory.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Vulnerability

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
UNFIXED = "unfixed"
KEPT = 25
"""Vulnerabilities kept by name."""
_SEEN_SYSTEMS = frozenset(
    {
        *("alma", "alpine", "amazon", "azurelinux", "bottlerocket", "cbl-mariner", "centos", "chainguard", "coreos", "debian", "echo"),
        *("minimos", "opensuse-leap", "opensuse-tumbleweed", "oracle", "photon", "redhat", "rocky", "slem", "sles", "ubuntu", "wolfi"),
    }
)
"""Operating systems that trivy has advisories for: the drivers in its pkg/detector/ospkg/detect.go, 0.72.0."""
_UNSEEN_LANGUAGES = {"conda-pkg": "conda packages", "conda-environment": "conda environments"}
"""Package types that trivy lists but has no advisories for: pkg/detector/library/driver.go, 0.72.0."""


class _Package(msgspec.Struct, frozen=True, rename="pascal"):
    name: str = ""
    version: str = ""


class _Vulnerability(msgspec.Struct, frozen=True, rename="pascal"):
    vulnerability_i_d: str = msgspec.field(name="VulnerabilityID")
    pkg_name: str
    installed_version: str = ""
    fixed_version: str = ""
    severity: str = "UNKNOWN"


class _Result(msgspec.Struct, frozen=True, rename="pascal"):
    class_: str = msgspec.field(name="Class", default="")
    type: str = ""
    packages: tuple[_Package, ...] | None = None
    vulnerabilities: tuple[_Vulnerability, ...] | None = None


class _System(msgspec.Struct, frozen=True, rename="pascal"):
    family: str = ""
    name: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename="pascal"):
    os: _System | None = msgspec.field(name="OS", default=None)
    repo_digests: tuple[str, ...] | None = None


class _Trivy(msgspec.Struct, frozen=True, rename="pascal"):
    version: str


class _Report(msgspec.Struct, frozen=True, rename="pascal"):
    schema_version: int
    trivy: _Trivy
    artifact_name: str
    artifact_type: str
    metadata: _Metadata
    results: tuple[_Result, ...] | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What one report says about one image manifest, before it is cut to what is kept."""

    os: str
    packages: int
    vulnerabilities: tuple[Vulnerability, ...]
    blind: tuple[str, ...]


def read(raw: bytes, *, asked: str, digest: Digest, version: str) -> Findings:
    """Returns what a report of `trivy image --format json` says.

    Args:
        raw: standard output.
        asked: the image as it was named on the command line, `repository@sha256:…`.
        digest: the digest in it.
        version: of the trivy that ran.

    Raises:
        TransientError: it is not a whole report: trivy was cut short or is not what it says.
        DefinitiveError: it is a report about something else.
    """
    try:
        report = msgspec.json.decode(raw, type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TransientError(f"trivy's report cannot be read ({one_line(str(error), 120)})") from None
    if report.schema_version != 2 or report.artifact_type != "container_image":
        raise DefinitiveError(
            f"trivy's report is of schema {report.schema_version} about a {one_line(report.artifact_type, 40)}, not an image"
        )
    digests = {text.rpartition("@")[2] for text in report.metadata.repo_digests or ()}
    if report.artifact_name != asked or digests != {digest}:
        raise DefinitiveError(f"trivy's report is about {one_line(report.artifact_name, 160)}, not about what was asked")
    if report.trivy.version != version:
        raise TransientError(f"the report is of trivy {one_line(report.trivy.version, 20)}, but {version} was checked at the start")
    results = report.results or ()
    system = report.metadata.os or _System()
    return Findings(
        os=one_line(f"{system.family} {system.name}", 60),
        packages=sum(len(result.packages or ()) for result in results),
        vulnerabilities=tuple(_kept(found) for result in results for found in result.vulnerabilities or ()),
        blind=tuple(_blind(system.family, results)),
    )


def summarise(parts: Iterable[Findings], *, scanner: str, at: datetime, database_at: datetime | None, blind: Iterable[str] = ()) -> Scan:
    """Returns the bounded summary of all image manifests that stand behind one digest.

    Each vulnerability counts once per package and installed version, in however many layers, files and platforms it is.
    """
    parts = tuple(parts)
    distinct = {(found.id, found.package, found.installed): found for part in parts for found in part.vulnerabilities}.values()
    worst = sorted(distinct, key=lambda found: (not found.fixed, SEVERITIES.index(found.severity), found.id, found.package))
    counts = {severity: sum(found.severity == severity for found in distinct if found.fixed) for severity in SEVERITIES}
    return Scan(
        scanner=scanner,
        scanned_at=at,
        database_at=database_at,
        os=", ".join(dict.fromkeys(part.os for part in parts if part.os))[:120],
        packages=sum(part.packages for part in parts),
        counts={**{severity: number for severity, number in counts.items() if number}, UNFIXED: sum(not found.fixed for found in distinct)},
        vulnerabilities=tuple(worst[:KEPT]),
        blind=tuple(dict.fromkeys((*blind, *(reason for part in parts for reason in part.blind))))[:16],
    )


def _kept(found: _Vulnerability) -> Vulnerability:
    severity = found.severity.upper()
    return Vulnerability(
        id=one_line(found.vulnerability_i_d, 64),
        package=one_line(found.pkg_name, 200),
        installed=one_line(found.installed_version, 100),
        fixed=one_line(found.fixed_version, 100),
        severity=severity if severity in SEVERITIES else "UNKNOWN",
    )


def _blind(family: str, results: tuple[_Result, ...]) -> Iterable[str]:
    """What trivy could not see, in words."""
    system_packages = sum(len(result.packages or ()) for result in results if result.class_ == "os-pkgs")
    others = sum(len(result.packages or ()) for result in results if result.class_ != "os-pkgs")
    if not family and not system_packages and not others:
        yield "no operating system and no packages recognised"
    elif family and family not in _SEEN_SYSTEMS:
        yield f"trivy has no advisories for {one_line(family, 40)}"
    elif family and not system_packages:
        yield f"{family} recognised, but no list of its packages found"
    elif system_packages and not family:
        yield "packages of an operating system that was not recognised"
    for result in results:
        if result.type in _UNSEEN_LANGUAGES and result.packages:
            yield f"trivy has no advisories for {_UNSEEN_LANGUAGES[result.type]} ({len(result.packages)} found)"

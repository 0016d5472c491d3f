"""From trivy's JSON to what is kept of it, strictly: a report that is not exactly about the digest asked for is no report.

Trivy's exit code says nothing (0 with findings, 0 with an empty report), and its silence about what it cannot see reads like a clean
bill: an image of conda packages, an operating system it has no advisories for, a package database that was deleted from the image. All of
these are named in `blind`, and `blind` is `Unknown`. Fields that are not read are skipped, so that a report of 60 MB costs little memory;
the value of a secret is one of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Vulnerability, Weakness

SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
_SEEN_SYSTEMS = frozenset(
    {
        *("alma", "alpine", "amazon", "azurelinux", "bottlerocket", "cbl-mariner", "centos", "chainguard", "coreos", "debian", "echo"),
        *("minimos", "opensuse-leap", "opensuse-tumbleweed", "oracle", "photon", "redhat", "rocky", "slem", "sles", "ubuntu", "wolfi"),
    }
)
"""Operating systems that trivy has advisories for: the drivers in its pkg/detector/ospkg/detect.go, 0.72.0."""
_UNSEEN_LANGUAGES = {"conda-pkg": "conda packages", "conda-environment": "conda environments"}
"""Package types that trivy lists but has no advisories for: pkg/detector/library/driver.go, 0.72.0."""

_PROGRAMS = frozenset({"gobinary", "rustbinary"})
"""Package types whose target is the program that they were found in."""


class _Identifier(msgspec.Struct, frozen=True):
    purl: str = msgspec.field(name="PURL", default="")
    reference: str = msgspec.field(name="BOMRef", default="")


class _Build(msgspec.Struct, frozen=True, rename="pascal"):
    content_sets: tuple[str, ...] = ()
    nvr: str = ""
    arch: str = ""


class _Repository(msgspec.Struct, frozen=True, rename="pascal"):
    class_: str = msgspec.field(name="Class", default="")


class _Package(msgspec.Struct, frozen=True, rename="pascal"):
    name: str = ""
    version: str = ""
    release: str = ""
    epoch: int = 0
    arch: str = ""
    src_name: str = ""
    src_version: str = ""
    src_release: str = ""
    src_epoch: int = 0
    modularitylabel: str = ""
    build_info: _Build | None = None
    repository: _Repository = _Repository()
    identifier: _Identifier = _Identifier()


class _Vulnerability(msgspec.Struct, frozen=True, rename="pascal"):
    vulnerability_i_d: str = msgspec.field(name="VulnerabilityID")
    pkg_name: str
    installed_version: str = ""
    fixed_version: str = ""
    severity: str = "UNKNOWN"
    pkg_identifier: _Identifier = _Identifier()


class _Secret(msgspec.Struct, frozen=True, rename="pascal"):
    """Without `Match` and `Code`, which hold the secret, or what is left of it."""

    rule_i_d: str = msgspec.field(name="RuleID", default="")
    severity: str = "UNKNOWN"
    title: str = ""
    start_line: int = 0


class _Misconfiguration(msgspec.Struct, frozen=True, rename="pascal"):
    i_d: str = msgspec.field(name="ID", default="")
    severity: str = "UNKNOWN"
    title: str = ""
    status: str = "FAIL"


class _Result(msgspec.Struct, frozen=True, rename="pascal"):
    class_: str = msgspec.field(name="Class", default="")
    type: str = ""
    target: str = ""
    packages: tuple[_Package, ...] | None = None
    vulnerabilities: tuple[_Vulnerability, ...] | None = None
    secrets: tuple[_Secret, ...] | None = None
    misconfigurations: tuple[_Misconfiguration, ...] | None = None


class _System(msgspec.Struct, frozen=True, rename="pascal"):
    family: str = ""
    name: str = ""
    eosl: bool = msgspec.field(name="EOSL", default=False)
    extended: bool = msgspec.field(name="extended", default=False)


class _Layer(msgspec.Struct, frozen=True, rename="pascal"):
    digest: str = ""
    size: int = 0


class _Metadata(msgspec.Struct, frozen=True, rename="pascal"):
    os: _System | None = msgspec.field(name="OS", default=None)
    layers: tuple[_Layer, ...] | None = None
    repo_digests: tuple[str, ...] | None = None


class _Trivy(msgspec.Struct, frozen=True, rename="pascal"):
    version: str


class _Report(msgspec.Struct, frozen=True, rename="pascal"):
    schema_version: int
    trivy: _Trivy
    artifact_name: str
    artifact_type: str
    metadata: _Metadata = _Metadata()
    results: tuple[_Result, ...] | None = None


class System(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operating system as trivy names it. `extended`: support was bought for it (Ubuntu ESM), and other advisories count."""

    family: str = ""
    version: str = ""
    extended: bool = False

    @property
    def text(self) -> str:
        """For people."""
        return one_line(f"{self.family} {self.version}", 60)


class Package(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One package: all that trivy's detectors look at, so that they can be asked about it again without the image.

    Attributes:
        type: what lists it: `alpine`, `debian`, … for packages of the system, else `python-pkg`, `gobinary`, ….
        system: whether it is the system's.
        name: its name, as advisories have it.
        version, release, epoch: of it; a system without releases has all in `version`.
        source, source_version, source_release, source_epoch: of the source package it was built from.
        arch: machine architecture, where the package says.
        purl: package URL; empty where trivy can make none.
        label: modularity label (Red Hat).
        contents: content sets (Red Hat).
        nvr: of the image it was built in (Red Hat).
        build_arch: of that image.
        foreign: not of the distribution, whose advisories do not speak of it.
    """

    type: str
    system: bool = False
    name: str
    version: str = ""
    release: str = ""
    epoch: int = 0
    source: str = ""
    source_version: str = ""
    source_release: str = ""
    source_epoch: int = 0
    arch: str = ""
    purl: str = ""
    label: str = ""
    contents: tuple[str, ...] = ()
    nvr: str = ""
    build_arch: str = ""
    foreign: bool = False

    def looked_at(self) -> tuple[object, ...]:
        """Returns what detectors go by; equal for two packages means that they say the same of both."""
        return (
            *(self.type, self.system, self.name, _version(self.epoch, self.version, self.release)),
            *(self.source, _version(self.source_epoch, self.source_version, self.source_release)),
            *(self.arch, self.label, self.contents, self.nvr, self.build_arch),
        )


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What one report says about one image manifest, before it is cut to what is kept.

    Attributes:
        digest: of the manifest.
        system: the operating system; empty family where there is none.
        eol: it gets no more updates.
        packages: all of them.
        vulnerabilities: all of them.
        secrets: all of them, without their values.
        misconfigurations: all of them.
        programs: files that it found build information in.
        layers: digest → how many bytes trivy read as an archive: unpacked, or as they were where it took them for no compressed ones.
        configured: whether trivy judged the image's configuration: one without a history gives it nothing to judge.
        blind: what could not be seen, in words.
        lasting: those of `blind` that the packages do not tell, and that no newer database changes.
        rereadable: whether the packages are all that trivy went by; otherwise only the image itself can be scanned again.
    """

    digest: str = ""
    system: System = System()
    eol: bool = False
    packages: tuple[Package, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    secrets: tuple[Weakness, ...] = ()
    misconfigurations: tuple[Weakness, ...] = ()
    programs: frozenset[str] = frozenset()
    layers: Mapping[str, int] = {}
    configured: bool = False
    blind: tuple[str, ...] = ()
    lasting: tuple[str, ...] = ()
    rereadable: bool = True


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
    report = _decode(raw, version)
    if report.schema_version != 2 or report.artifact_type != "container_image":
        raise DefinitiveError(
            f"trivy's report is of schema {report.schema_version} about a {one_line(report.artifact_type, 40)}, not an image"
        )
    digests = {text.rpartition("@")[2] for text in report.metadata.repo_digests or ()}
    if report.artifact_name != asked or digests != {digest}:
        raise DefinitiveError(f"trivy's report is about {one_line(report.artifact_name, 160)}, not about what was asked")
    results = report.results or ()
    found = report.metadata.os or _System()
    packages = tuple(_package(result, each) for result in results for each in result.packages or ())
    system = System(family=found.family, version=found.name, extended=found.extended)
    return Findings(
        digest=digest,
        system=system,
        eol=found.eosl,
        packages=packages,
        vulnerabilities=tuple(_kept(found) for result in results for found in result.vulnerabilities or ()),
        secrets=tuple(_secret(result, found) for result in results for found in result.secrets or ()),
        misconfigurations=tuple(
            _mistake(found) for result in results for found in result.misconfigurations or () if found.status == "FAIL"
        ),
        programs=frozenset(result.target for result in results if result.type in _PROGRAMS and result.packages),
        layers={layer.digest: layer.size for layer in report.metadata.layers or ()},
        configured=any(result.class_ == "config" for result in results),
        blind=tuple(unseen(system.family, packages)),
    )


class Reread(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says about a list of packages: everything with the reference it has in that list."""

    system: System
    eol: bool
    packages: tuple[tuple[str, Package], ...]
    vulnerabilities: tuple[tuple[str, Vulnerability], ...]


def reread(raw: bytes, *, asked: str, version: str) -> Reread:
    """Returns what a report of `trivy sbom --format json` about a CycloneDX document says.

    Raises:
        TransientError: it is not a whole report about that document.
    """
    report = _decode(raw, version)
    if (report.schema_version, report.artifact_type, report.artifact_name) != (2, "cyclonedx", asked):
        raise TransientError("trivy's report is not about the list of packages that it was given")
    results = report.results or ()
    found = report.metadata.os or _System()
    return Reread(
        system=System(family=found.family, version=found.name),
        eol=found.eosl,
        packages=tuple((each.identifier.reference, _package(result, each)) for result in results for each in result.packages or ()),
        vulnerabilities=tuple(
            (found.pkg_identifier.reference, _kept(found)) for result in results for found in result.vulnerabilities or ()
        ),
    )


def _decode(raw: bytes, version: str) -> _Report:
    try:
        report = msgspec.json.decode(raw, type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TransientError(f"trivy's report cannot be read ({one_line(str(error), 120)})") from None
    if report.trivy.version != version:
        raise TransientError(f"the report is of trivy {one_line(report.trivy.version, 20)}, but {version} was checked at the start")
    return report


def _package(result: _Result, found: _Package) -> Package:
    build = found.build_info or _Build()
    return Package(
        type=result.type,
        system=result.class_ == "os-pkgs",
        name=found.name,
        version=found.version,
        release=found.release,
        epoch=found.epoch,
        source=found.src_name,
        source_version=found.src_version,
        source_release=found.src_release,
        source_epoch=found.src_epoch,
        arch=found.arch,
        purl=found.identifier.purl,
        label=found.modularitylabel,
        contents=build.content_sets,
        nvr=build.nvr,
        build_arch=build.arch,
        foreign=found.repository.class_ == "third-party",
    )


def _version(epoch: int, version: str, release: str) -> str:
    """As trivy writes it: pkg/scan/utils/utils.go, FormatVersion."""
    whole = f"{version}-{release}" if release else version
    return f"{epoch}:{whole}" if epoch else whole


def _secret(result: _Result, found: _Secret) -> Weakness:
    where = one_line(result.target, 200)
    return Weakness(
        id=one_line(found.rule_i_d, 64),
        severity=_severity(found.severity),
        title=one_line(found.title, 100),
        where=f"{where}:{found.start_line}" if found.start_line else where,
    )


def _mistake(found: _Misconfiguration) -> Weakness:
    return Weakness(id=one_line(found.i_d, 64), severity=_severity(found.severity), title=one_line(found.title, 100))


def _kept(found: _Vulnerability) -> Vulnerability:
    return Vulnerability(
        id=one_line(found.vulnerability_i_d, 64),
        package=one_line(found.pkg_name, 200),
        installed=one_line(found.installed_version, 100),
        fixed=one_line(found.fixed_version, 100),
        severity=_severity(found.severity),
        purl=one_line(found.pkg_identifier.purl, 300),
    )


def _severity(text: str) -> str:
    severity = text.upper()
    return severity if severity in SEVERITIES else "UNKNOWN"


def unseen(family: str, packages: Sequence[Package]) -> Iterator[str]:
    """Yields what trivy could not see in an image of these packages, in words."""
    of_the_system = any(package.system for package in packages)
    if not family and not packages:
        yield "no operating system and no packages recognised"
    elif family and family not in _SEEN_SYSTEMS:
        yield f"trivy has no advisories for {one_line(family, 40)}"
    elif family and not of_the_system:
        yield f"{family} recognised, but no list of its packages found"
    elif of_the_system and not family:
        yield "packages of an operating system that was not recognised"
    for type_, words in _UNSEEN_LANGUAGES.items():
        number = sum(package.type == type_ for package in packages)
        if number:
            yield f"trivy has no advisories for {words} ({number} found)"

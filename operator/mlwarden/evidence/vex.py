"""What a verified VEX document says about the vulnerabilities found in one digest: OpenVEX and CycloneDX VEX.

Trivy's own `--vex` was rejected. It takes what is suppressed out of the report, although it depends on the policy whose word counts; it
matches a product by its name, where a signature vouches for a digest; and it knows one image, where a new database is looked up for a
thousand at once. So the matching is here, and narrower: a statement counts only about a product that is this digest.

`not_affected` and `fixed` suppress; `affected` and `under_investigation` do not. Of several statements of one source about one
vulnerability of one package the latest counts, and of two at the same time the one that does not suppress. A statement that this module
does not understand (a product without a digest, a component named by a CPE, a range of versions, `not_affected` without a reason)
suppresses nothing. Who signed the document, and that it is about the image at all, was verified before.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from mlwarden.evidence.failure import DefinitiveError, one_line
from mlwarden.evidence.report import SEVERITIES, Findings
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Suppressed, Unheard, Vulnerability
from mlwarden.model.signing import Signer

_ANALYSES = {"not_affected": "not_affected", "false_positive": "not_affected", "resolved": "fixed", "resolved_with_pedigree": "fixed"}
"""CycloneDX: states that suppress; `exploitable` and `in_triage` do not."""
_SUPPRESSING = frozenset({"not_affected", "fixed"})
_WORDS = frozenset({*_SUPPRESSING, "under_investigation"})
_MANY = 10_000
_MOST = 50_000
"""Statements of one document, each product of each counted."""
_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


class PackageURL(msgspec.Struct, frozen=True):
    """A package URL in parts (ECMA-427). As a pattern, what it leaves out matches anything."""

    type: str
    namespace: str
    name: str
    version: str
    qualifiers: tuple[tuple[str, str], ...]
    subpath: str

    def matches(self, other: "PackageURL") -> bool:
        """Whether `other` is one of those that this describes."""
        return (
            (self.type, self.namespace, self.name) == (other.type, other.namespace, other.name)
            and self.version in {"", other.version}
            and self.subpath in {"", other.subpath}
            and set(self.qualifiers) <= set(other.qualifiers)
        )


def package_url(text: str) -> PackageURL | None:
    """Returns a package URL in parts; None for what is not one."""
    scheme, found, rest = text.partition(":")
    if not found or scheme.lower() != "pkg" or len(text) > 2048:
        return None
    rest, _, subpath = rest.lstrip("/").partition("#")
    rest, _, query = rest.partition("?")
    kind, found, rest = rest.partition("/")
    path, at, version = rest.rpartition("@")
    if not at or "/" in version:  # an `@` of a namespace that was not encoded
        path, version = rest, ""
    *namespace, name = [unquote(part) for part in path.strip("/").split("/")]
    if not found or not name:
        return None
    pairs = (part.partition("=") for part in query.split("&") if part)
    qualifiers = tuple(sorted((key.lower(), unquote(value)) for key, _, value in pairs if value))
    kind = kind.lower()
    if kind == "pypi":
        name = name.lower().replace("_", "-")
    return PackageURL(kind, "/".join(namespace), name, unquote(version), qualifiers, unquote(subpath.strip("/")))


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One vulnerability, one status, of some packages of some images.

    Attributes:
        ids: names of the vulnerability, in capitals.
        status: OpenVEX's four words.
        justification: why.
        at: when it was said.
        images: digests it is about.
        packages: of these packages in them; None: of whatever is in them.
        versions: of these versions of the packages; None: of all that `packages` names.
        signer: who signed the document, where that is known.
        void: why it says nothing; empty where it does.
    """

    ids: frozenset[str]
    status: str
    justification: str
    at: datetime
    images: frozenset[str]
    packages: tuple[PackageURL, ...] | None = None
    versions: frozenset[str] | None = None
    signer: Signer | None = None
    void: str = ""

    def speaks_of(self, found: Vulnerability, package: PackageURL | None) -> bool:
        """Whether it is about a vulnerability of a package, in an image that it is about."""
        if found.id.upper() not in self.ids or self.void:
            return False
        any_version = self.versions is None or self.status not in _SUPPRESSING
        if self.packages is None:
            return any_version
        if package is None or not any(each.matches(package) for each in self.packages):
            return False
        return any_version or package.version in (self.versions or ())


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What one source says. `source`: what the caller calls whoever signed it."""

    source: str
    statements: tuple[Statement, ...]


class _Base(msgspec.Struct, frozen=True):
    """Of OpenVEX. Fields that are not read are skipped."""


class _Identifiers(_Base, frozen=True):
    purl: str = ""


class _Component(_Base, frozen=True):
    id: str = msgspec.field(name="@id", default="")
    identifiers: _Identifiers = _Identifiers()
    hashes: dict[str, str] = {}


class _Product(_Component, frozen=True):
    subcomponents: tuple[_Component, ...] | None = None


class _Name(_Base, frozen=True):
    id: str = msgspec.field(name="@id", default="")
    name: str = ""
    aliases: tuple[str, ...] = ()


class _OpenStatement(_Base, frozen=True):
    vulnerability: _Name
    status: str
    products: Annotated[tuple[_Product, ...], Meta(max_length=_MANY)] = ()
    justification: str = ""
    impact_statement: str = ""
    timestamp: datetime | None = None
    last_updated: datetime | None = None


class _OpenVEX(_Base, frozen=True):
    context: str = msgspec.field(name="@context")
    statements: Annotated[tuple[_OpenStatement, ...], Meta(max_length=_MANY)] = ()
    timestamp: datetime | None = None
    last_updated: datetime | None = None


class _CamelCase(msgspec.Struct, frozen=True, rename="camel"):
    """Of CycloneDX."""


class _Hash(_CamelCase, frozen=True):
    alg: str = ""
    content: str = ""


class _Part(_CamelCase, frozen=True):
    reference: str = msgspec.field(name="bom-ref", default="")
    purl: str = ""
    version: str = ""
    hashes: tuple[_Hash, ...] = ()


class _Metadata(_CamelCase, frozen=True):
    timestamp: datetime | None = None
    component: _Part | None = None


class _Analysis(_CamelCase, frozen=True):
    state: str = ""
    justification: str = ""
    detail: str = ""
    first_issued: datetime | None = None
    last_updated: datetime | None = None


class _Versions(_CamelCase, frozen=True):
    version: str = ""


class _Affects(_CamelCase, frozen=True):
    ref: str = ""
    versions: tuple[_Versions, ...] | None = None


class _Rated(_CamelCase, frozen=True):
    id: str = ""
    analysis: _Analysis | None = None
    affects: Annotated[tuple[_Affects, ...], Meta(max_length=_MANY)] = ()


class _CycloneDX(_CamelCase, frozen=True):
    bom_format: str
    metadata: _Metadata = _Metadata()
    components: Annotated[tuple[_Part, ...], Meta(max_length=10 * _MANY)] = ()
    vulnerabilities: Annotated[tuple[_Rated, ...], Meta(max_length=_MANY)] = ()


def read(predicate: Mapping[str, object], *, source: str, signer: Signer | None = None) -> Document:
    """Returns what a document says, in either of the two formats.

    Args:
        predicate: the document, decoded: of an attestation whose signature was verified.
        source: what to call whoever signed it.
        signer: who that was.

    Raises:
        DefinitiveError: it is not a VEX document, or not a bounded one.
    """
    try:
        if "bomFormat" in predicate:
            found = _cyclonedx(msgspec.convert(predicate, _CycloneDX))
        else:
            found = _open(msgspec.convert(predicate, _OpenVEX))
        statements = tuple(msgspec.structs.replace(each, signer=signer) for each in itertools.islice(found, _MOST + 1))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DefinitiveError(
            f"the VEX document cannot be read ({one_line(str(error), 120)})", hint="OpenVEX 0.2 or CycloneDX, as signed"
        ) from None
    if len(statements) > _MOST:
        raise DefinitiveError(f"the VEX document makes more than {_MOST} statements", hint="one document for each image")
    return Document(source=source, statements=statements)


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """What documents say about an image: see `Scan`."""

    suppressed: tuple[Suppressed, ...] = ()
    affirmed: tuple[Suppressed, ...] = ()
    unheard: tuple[Unheard, ...] = ()


def spoken(parts: Sequence[Findings], documents: Sequence[Document], *, digest: Digest) -> Spoken:
    """Returns which vulnerabilities of an image are suppressed by whom, which are not, and why what was said of others does not count.

    One that is in several packages of the same name and version, or in several images behind an index, is suppressed by a source only
    where that source suppresses every one of them. Each signer of a source speaks alone: one of them may be revoked.

    Args:
        parts: what was found in each image manifest behind the digest, and in which.
        documents: verified; several of one source and signer are one.
        digest: that was asked for: a statement about an index is one about every image in it.
    """
    sources = _by_source(documents)
    places: dict[tuple[str, str, str], list[tuple[str, Vulnerability]]] = {}
    for part in parts if sources else ():
        for found in part.vulnerabilities:
            places.setdefault((found.id, found.package, found.installed), []).append((part.digest, found))
    suppressed, affirmed, unheard = list[Suppressed](), list[Suppressed](), list[Unheard]()
    for (source, _), statements in sources.items():
        for found_at in places.values():
            about = statements.get(found_at[0][1].id.upper(), [])
            decisive = [_latest(about, found, {digest, part}) for part, found in found_at] if about else []
            good = [each for each in decisive if each is not None and each.status in _SUPPRESSING]
            bad = [each for each in decisive if each is not None and each.status not in _SUPPRESSING]
            if good and len(good) == len(found_at):
                suppressed.append(_suppressed(found_at, good, source, min(each.at for each in good)))
            elif about:
                reason = _why_not(about, bad, {digest, *(part for part, _ in found_at)})
                unheard.append(Unheard(source=source, id=found_at[0][1].id, reason=reason))
            if bad:
                affirmed.append(_suppressed(found_at, bad, source, max(each.at for each in bad)))
    return Spoken(suppressed=tuple(suppressed), affirmed=tuple(affirmed), unheard=tuple(dict.fromkeys(unheard)))


def _by_source(documents: Sequence[Document]) -> dict[tuple[str, Signer | None], dict[str, list[Statement]]]:
    """Source and signer → vulnerability → what is said of it."""
    sources: dict[tuple[str, Signer | None], dict[str, list[Statement]]] = {}
    for document in documents:
        for statement in document.statements:
            for name in statement.ids:
                sources.setdefault((document.source, statement.signer), {}).setdefault(name, []).append(statement)
    return sources


def _why_not(about: Sequence[Statement], bad: Sequence[Statement], images: set[str]) -> str:
    """Why nothing that names a vulnerability excuses it."""
    if bad:
        return f"it says {one_line(bad[0].status.replace('_', ' '), 60)}"
    if void := next((each.void for each in about if each.void), ""):
        return void
    ours = [each for each in about if not images.isdisjoint(each.images)]
    if ours:
        return "it is not about every package, or version, in which that was found"
    return "it is about another image" if any(each.images for each in about) else "it names no image by its digest"


def _latest(statements: Sequence[Statement], found: Vulnerability, images: set[str]) -> Statement | None:
    package = package_url(found.purl)
    about = [each for each in statements if not images.isdisjoint(each.images) and each.speaks_of(found, package)]
    return max(about, key=lambda each: (each.at, each.status not in _SUPPRESSING), default=None)


def _suppressed(found_at: Sequence[tuple[str, Vulnerability]], reasons: Sequence[Statement], source: str, at: datetime) -> Suppressed:
    statement, found = reasons[0], [each for _, each in found_at]
    worst = min(found, key=lambda each: (not each.fixed, SEVERITIES.index(each.severity)))
    return Suppressed(
        id=worst.id,
        package=worst.package,
        installed=worst.installed,
        fixed=worst.fixed,
        severity=worst.severity,
        status=statement.status if statement.status in _WORDS else "affected",
        justification=one_line(statement.justification, 200),
        source=source,
        signer=statement.signer,
        at=None if at == _FIRST else at,
    )


def _open(document: _OpenVEX) -> Iterator[Statement]:
    if not document.context.startswith("https://openvex.dev/ns"):
        raise DefinitiveError("the document is neither OpenVEX nor CycloneDX")
    for each in document.statements:
        reason = each.justification or each.impact_statement
        # OpenVEX 0.2: a not_affected statement must have one of the two.
        void = "it says not_affected without a justification" if each.status == "not_affected" and not reason else ""
        name = each.vulnerability
        ids = {name.name, name.id.rpartition("/")[2], *name.aliases} - {""}
        for product in each.products:
            yield Statement(
                ids=frozenset(text.upper() for text in ids),
                status=each.status,
                justification=reason,
                at=_utc(each.last_updated or each.timestamp or document.last_updated or document.timestamp, each.status),
                images=frozenset(_digests((product.id, product.identifiers.purl), product.hashes.items())),
                packages=_packages(product.subcomponents),
                void=void,
            )


def _packages(components: Sequence[_Component] | None) -> tuple[PackageURL, ...] | None:
    """What subcomponents name; None where there are none, which is the whole product."""
    if not components:
        return None
    found = (package_url(text) for component in components for text in (component.id, component.identifiers.purl))
    return tuple(each for each in found if each is not None)


def _cyclonedx(document: _CycloneDX) -> Iterator[Statement]:
    if document.bom_format != "CycloneDX":
        raise DefinitiveError("the document is neither OpenVEX nor CycloneDX")
    root = document.metadata.component or _Part()
    images = frozenset(_digests((root.reference, root.purl, root.version), ((each.alg, each.content) for each in root.hashes)))
    components = {each.reference: each.purl or each.reference for each in document.components if each.reference}
    for each in document.vulnerabilities:
        if each.analysis is None or not each.id:
            continue
        for affects in each.affects:
            reference = unquote(affects.ref.partition("#")[2]) if affects.ref.startswith("urn:cdx:") else affects.ref
            of_image = frozenset(_digests((reference,), ()))
            package = package_url(components.get(reference, reference))
            whole = bool(of_image) or (reference != "" and reference == root.reference)
            if not whole and package is None:
                continue
            status = _ANALYSES.get(each.analysis.state, "affected")
            yield Statement(
                ids=frozenset({each.id.upper()}),
                status=status,
                justification=each.analysis.justification or each.analysis.detail or each.analysis.state,
                at=_utc(each.analysis.last_updated or each.analysis.first_issued or document.metadata.timestamp, status),
                images=of_image or images,
                packages=None if whole or package is None else (package,),
                versions=None if affects.versions is None else frozenset(version.version for version in affects.versions),
            )


def _digests(names: Iterable[str], hashes: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The image digests that a product names: in an `oci` package URL, after an `@`, alone, or as its hash."""
    for name in names:
        found = package_url(name)
        text = name.rpartition("@")[2] if found is None else found.version if found.type == "oci" else ""
        if _is_digest(text.lower()):
            yield text.lower()
    for algorithm, value in hashes:
        text = f"sha256:{value.lower()}"
        if algorithm.lower() in {"sha-256", "sha256"} and _is_digest(text):
            yield text


def _is_digest(text: str) -> bool:
    return len(text) == 71 and text.startswith("sha256:") and all(char in "0123456789abcdef" for char in text[7:])


def _utc(at: datetime | None, status: str) -> datetime:
    """A time that can be compared. What does not say when was said before everything else, if it suppresses, and after it, if not."""
    if at is None:
        return _FIRST if status in _SUPPRESSING else _LAST
    return at if at.tzinfo else at.replace(tzinfo=UTC)

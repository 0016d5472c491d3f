"""The evidence of an image: its digest, and the scan of what stands behind that digest.

A digest often names an index, and behind it stand images that have nothing in common but the name. Leaving the choice to trivy was
rejected: it scans the first match and says nothing of the others, so an index with two entries for one platform would run what nobody
looked at. Here every entry for the platforms of this cluster is scanned, and the summary is of all of them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence import report
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.registry import Manifest, Registry
from mlwarden.evidence.trivy import Pull, Trivy
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import Scan
from mlwarden.model.reference import Reference

MAX_ENTRIES = 8
"""Images behind one digest that are scanned; an index with more for our platforms is not one that people make."""
_INDEXES = frozenset({"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"})
_ATTESTATION = "vnd.docker.reference.type"
"""Annotation that buildkit puts on entries that are no images (with platform unknown/unknown)."""


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str = ""
    media_type: str = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    manifests: tuple[_Descriptor, ...] | None = None
    layers: tuple[_Descriptor, ...] | None = None
    config: _Descriptor | None = None


class Gatherer:
    """Gathers evidence about images.

    Args:
        registry: entered.
        trivy: the scanner.
        architectures: of this cluster's nodes, in Go's words (`amd64`, `arm64`).
    """

    def __init__(self, *, registry: Registry, trivy: Trivy, architectures: Sequence[str] = ("amd64",)) -> None:
        self._registry, self._trivy, self._architectures = registry, trivy, tuple(architectures)

    async def resolve(self, text: str) -> Digest:
        """Returns what an image reference, as written, points at.

        Raises:
            DefinitiveError, TransientError: why that could not be told.
        """
        return await self._registry.resolve(_parse(text))

    async def scan(self, candidates: Sequence[str]) -> Scan:
        """Scans a digest under the first of `repository@sha256:…` where it can be had.

        Raises:
            DefinitiveError: none of them has it. TransientError: one of them may.
            EvidenceError: the scanner itself is not fit for use.
        """
        failures: list[GatherError] = []
        for text in candidates:
            try:
                return await self._scan(_parse(text))
            except GatherError as error:
                failures.append(error)
        if not failures:
            raise DefinitiveError("nobody said in which repository this digest is")
        raise next((error for error in failures if isinstance(error, TransientError)), failures[0])

    async def _scan(self, reference: Reference) -> Scan:
        if not reference.digest:
            raise DefinitiveError(f"{reference.repository} is named without a digest")
        self._registry.refuse(reference)
        top = await self._registry.manifest(reference, reference.digest)
        document = _document(top)
        if top.media_type in _INDEXES:
            entries, blind = self._entries(document)
        else:
            entries, blind = [(top, "")], ()
        database = self._trivy.database()
        parts = []
        for entry, platform in entries:
            manifest = entry if isinstance(entry, Manifest) else await self._registry.manifest(reference, entry)
            blind += _unseen_layers(manifest)
            name = reference.at(manifest.digest)
            parts.append(
                await self._trivy.scan(
                    Pull(
                        image=name,
                        digest=manifest.digest,
                        platform=platform,
                        plain_http=self._registry.plain(reference.registry),
                        docker_config=self._registry.docker_config(reference.registry),
                    )
                )
            )
        version = await self._trivy.version()
        return report.summarise(parts, scanner=f"trivy {version}", at=datetime.now(UTC), database_at=database.updated_at, blind=blind)

    def _entries(self, document: _Document) -> tuple[list[tuple[Manifest | Digest, str]], tuple[str, ...]]:
        """The entries of an index that a node of this cluster could run, with their platforms, and what was left out.

        An entry without a platform could be run by any of them (containerd, platforms.Only: an absent platform is taken from the config).
        """
        images = [entry for entry in document.manifests or () if _ATTESTATION not in (entry.annotations or {})]
        ours = [entry for entry in images if _could_run(entry.platform, self._architectures)]
        if not ours:
            return [], (f"the index has no image for linux/{', linux/'.join(self._architectures)}",)
        try:
            distinct = list(dict.fromkeys((digest(entry.digest), _platform(entry.platform)) for entry in ours))
        except InputError:
            raise DefinitiveError("the index names an image by something that is not a sha256 digest") from None
        left = len(distinct) - MAX_ENTRIES
        blind = (f"{left} more images behind this digest were not scanned",) if left > 0 else ()
        return [(name, platform) for name, platform in distinct[:MAX_ENTRIES]], blind


def _document(manifest: Manifest) -> _Document:
    try:
        return msgspec.json.decode(manifest.body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise DefinitiveError(f"the manifest {manifest.digest[:19]}… is not one") from None


def _unseen_layers(manifest: Manifest) -> tuple[str, ...]:
    """Layers that come from somewhere else than the registry, which a runtime may fetch and trivy does not."""
    if manifest.media_type in _INDEXES:
        raise DefinitiveError("an index inside an index", hint="push the image without nesting")
    layers = _document(manifest).layers or ()
    foreign = [layer for layer in layers if layer.urls or "nondistributable" in layer.media_type or "foreign" in layer.media_type]
    return (f"{len(foreign)} layers are not in the registry",) if foreign else ()


def _could_run(platform: _Platform | None, architectures: tuple[str, ...]) -> bool:
    return platform is None or (platform.os in {"", "linux"} and (not platform.architecture or platform.architecture in architectures))


def _platform(platform: _Platform | None) -> str:
    return f"{platform.os or 'linux'}/{platform.architecture}" if platform is not None and platform.architecture else ""


def _parse(text: str) -> Reference:
    try:
        return references.parse(text)
    except InputError as error:
        raise DefinitiveError(error.message, hint=error.hint) from None

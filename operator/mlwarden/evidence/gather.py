"""The evidence of an image: its digest, and the scan of what stands behind that digest.

A digest often names an index, and behind it stand images that have nothing in common but the name. Leaving the choice to trivy was
rejected: it scans the first match and says nothing of the others, so an index with two entries for one platform would run what nobody
looked at. Here every entry for the platforms of this cluster is scanned, and the summary is of all of them.

What a node runs is decided by containerd, so its reading counts: platform names in any case and spelling, entries that call themselves
attestations but name a platform, a 32-bit image where there is no other. Go's JSON takes `Manifests` for `manifests`, and the last of two;
a document that says one thing to Go and another to us is refused.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlwarden.errors import InputError
from mlwarden.evidence import binaries, report, summary, vex
from mlwarden.evidence.credentials import Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.evidence.reevaluate import Reevaluated, reevaluate
from mlwarden.evidence.registry import Manifest, Registry
from mlwarden.evidence.sboms import Image, Record, SBOMs
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Trivy
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import MODELS, NOT_READ, Scan
from mlwarden.model.reference import Reference

LOG = logging.getLogger(__name__)
_ANONYMOUS = Credentials()
ARCHITECTURES = ("amd64", "arm64")
"""Unless somebody says what the nodes are. What an index has for others is in `Scan.unjudged`, and is kept from running."""
MAX_UNJUDGED = 16
"""Platforms that were not scanned of which a scan tells."""
MAX_ENTRIES = 8
"""Images behind one digest that are scanned; an index with more for our platforms is not one that people make."""
_INDEXES = frozenset({"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"})
_ARCHIVES = frozenset({"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"})
"""Layers that containerd does not unpack. Docker's own uncompressed ones it does, where it thinks that they are compressed."""
_LAYERS_OF_MODELS = ("application/vnd.cncf.model.", "application/vnd.docker.ai.", "application/vnd.kitops.modelkit.")
_ARCHITECTURES = {"i386": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm"}
"""Other spellings (containerd/platforms, `normalizeArch`); all of them in any case."""
_TOO = {"amd64": ("386",), "arm64": ("arm",)}
"""What a node runs where an index has nothing better (containerd/platforms, `platformVector`)."""
_NAMES = ("manifests", "layers", "config", "digest", "mediaType", "platform", "os", "architecture", "urls", "schemaVersion", "size")
_KEYS = {name.casefold(): name for name in _NAMES}
"""Keys that decide what runs, by their folded form."""


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str = ""
    media_type: str = ""
    size: int = -1
    platform: _Platform | None = None
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
        architectures: of this cluster's nodes, in Go's words (`amd64`, `arm64`): of an index their images are scanned.
        sboms: where the packages of each digest are kept; None: they are not.
    """

    def __init__(self, *, registry: Registry, trivy: Trivy, architectures: Sequence[str], sboms: SBOMs | None = None) -> None:
        self._registry, self._trivy, self._sboms = registry, trivy, sboms
        self._architectures = tuple(dict.fromkeys(each for own in architectures for each in (own, *_TOO.get(own, ()))))

    async def resolve(self, text: str, credentials: Credentials = _ANONYMOUS) -> Digest:
        """Returns what an image reference, as written, points at.

        Args:
            text: the reference.
            credentials: for this question alone, before the configured ones.

        Raises:
            DefinitiveError, TransientError: why that could not be told.
        """
        return await self._registry.showing(credentials).resolve(_parse(text))

    async def scan(
        self,
        candidates: Sequence[str],
        credentials: Credentials = _ANONYMOUS,
        *,
        documents: Sequence[vex.Document] = (),
        fresh: bool = False,
    ) -> Scan:
        """Scans a digest under the first of `repository@sha256:…` where it can be had.

        Args:
            candidates: to be tried in turn.
            credentials: for this question alone, before the configured ones.
            documents: verified VEX documents that may speak of it.
            fresh: read the image itself, whatever is kept of it.

        Raises:
            DefinitiveError: none of them has it. TransientError: one of them may.
            EvidenceError: the scanner itself is not fit for use.
        """
        if not fresh and (again := await self.known(candidates, documents)) is not None:
            return again
        failures: list[GatherError] = []
        for text in candidates:
            try:
                return await self._scan(self._registry.showing(credentials), _parse(text), documents)
            except GatherError as error:
                failures.append(error)
        if not failures:
            raise DefinitiveError("nobody said in which repository this digest is")
        raise next((error for error in failures if isinstance(error, TransientError)), failures[0])

    async def there(self, text: str, credentials: Credentials = _ANONYMOUS) -> None:
        """Asks for the manifest of one of the candidates. Raises as `scan`, where it cannot be had there."""
        reference = _parse(text)
        if not reference.digest:
            raise DefinitiveError(f"{reference.repository} is named without a digest")
        await self._registry.showing(credentials).manifest(reference, reference.digest)

    async def known(self, candidates: Sequence[str], documents: Sequence[vex.Document] = ()) -> Scan | None:
        """What can be said without pulling it: a digest is always the same bytes, and the same trivy reads the same out of them."""
        of = {parsed.digest for text in candidates if (parsed := _parse(text)).digest}
        if self._sboms is None or len(of) != 1:
            return None
        (only,) = of
        return None if only is None else (await self.reevaluate([only], documents={only: documents})).scans.get(only)

    async def reevaluate(
        self, digests: Sequence[Digest], *, documents: Mapping[Digest, Sequence[vex.Document]] | None = None
    ) -> Reevaluated:
        """Says of digests that were scanned before what a scan with the present database would say, without pulling them.

        Raises:
            TransientError: there is no database.
            EvidenceError: the scanner itself is not fit for use.
        """
        if self._sboms is None:
            return Reevaluated(scans={}, left=dict.fromkeys(digests, "packages are not kept"))
        return await reevaluate(self._trivy, self._sboms, digests, architectures=self._architectures, documents=documents)

    async def _scan(self, registry: Registry, reference: Reference, documents: Sequence[vex.Document]) -> Scan:
        if not reference.digest:
            raise DefinitiveError(f"{reference.repository} is named without a digest")
        top = await registry.manifest(reference, reference.digest)
        document = _document(top)
        entries: list[tuple[Manifest | Digest, str]] = [(top, "")]
        blind: tuple[str, ...] = ()
        platforms: tuple[str, ...] = ()
        unjudged: tuple[str, ...] = ()
        if top.media_type in _INDEXES:
            entries, blind = self._entries(document)
            platforms, unjudged = self._platforms(document)
        artifact = _artifact(document)
        database = self._trivy.database()
        parts = []
        for entry, platform in entries:
            manifest = entry if isinstance(entry, Manifest) else await registry.manifest(reference, entry)
            unseen = _unseen_layers(manifest)
            blind += (*unseen, *_file_systems(manifest), NOT_READ) if artifact else unseen
            if unseen or artifact:  # trivy would fetch them from there; an artifact it refuses
                parts.append(report.Findings(digest=manifest.digest, rereadable=False))
                continue
            pull = Pull.by(manifest.access, manifest.digest, platform)
            found = await self._trivy.scan(msgspec.structs.replace(pull, size=_size(manifest)))
            blind += _misread_layers(manifest, found.layers)
            parts.append(await self._programs(registry, reference, manifest, found))
        record = Record(
            digest=reference.digest,
            trivy=await self._trivy.version(),
            scanners=() if artifact else self._trivy.scanners,
            architectures=self._architectures,
            read_at=datetime.now(UTC),
            blind=blind,
            images=tuple(Image.of(part) for part in parts),
            platforms=platforms,
            unjudged=unjudged,
            anonymous=registry.anonymous,
        )
        await self._keep(record, all(part.rereadable for part in parts))
        return summary.summarise(
            parts,
            scanner=f"trivy {record.trivy}",
            at=record.read_at,
            database_at=database.updated_at,
            scanners=record.scanners,
            blind=blind,
            spoken=vex.spoken(parts, documents, digest=reference.digest),
            subject=record.digest,
            platforms=platforms,
            unjudged=unjudged,
            artifact=artifact,
            anonymous=record.anonymous,
        )

    async def _programs(self, registry: Registry, reference: Reference, manifest: Manifest, found: report.Findings) -> report.Findings:
        """Adds the programs and packages that trivy cannot see, where it was not blind anyway and the image is small enough."""
        layers = _document(manifest).layers or ()
        if found.blind or not layers or not binaries.pullable([(layer.media_type, layer.size) for layer in layers]):
            return found
        try:
            blobs = [await registry.blob(reference, digest(layer.digest), cap=layer.size) for layer in layers]
        except InputError:
            return found
        known = frozenset(binaries.normalised(each.name) for each in found.packages if each.type == "python-pkg")
        unseen = await asyncio.to_thread(binaries.unseen, blobs, seen=found.programs, known=known)
        reasons = []
        if unseen.programs:
            what = "program" if len(unseen.programs) == 1 else "programs"
            reasons.append(f"{len(unseen.programs)} statically linked {what} without build information: {_few(unseen.programs)}")
        if unseen.packages:
            what = "description of a package is" if len(unseen.packages) == 1 else "descriptions of packages are"
            reasons.append(f"{len(unseen.packages)} {what} hidden from trivy: {_few(unseen.packages)}")
        return msgspec.structs.replace(found, blind=(*found.blind, *reasons), lasting=(*found.lasting, *reasons)) if reasons else found

    async def _keep(self, record: Record, rereadable: bool) -> None:  # noqa: FBT001 -- private
        """Keeps the packages. That they cannot be kept costs another scan later, and is no reason to lose this one."""
        if self._sboms is None:
            return
        try:
            if rereadable:
                await asyncio.to_thread(self._sboms.put, record)
            else:
                self._sboms.remove(record.digest)
        except OSError as error:
            LOG.warning("the packages of %s cannot be kept: %s", record.digest, type(error).__name__)

    def _entries(self, document: _Document) -> tuple[list[tuple[Manifest | Digest, str]], tuple[str, ...]]:
        """The entries of an index that a node of this cluster could run, with their platforms, and what was left out.

        An entry without a platform could be run by any of them (containerd, platforms.Only: an absent platform is taken from the config).
        """
        ours = [entry for entry in document.manifests or () if _could_run(entry.platform, self._architectures)]
        if not ours:
            return [], (f"the index has no image for linux/{', linux/'.join(self._architectures)}",)
        try:
            distinct = list(dict.fromkeys((digest(entry.digest), _platform(entry.platform)) for entry in ours))
        except InputError:
            raise DefinitiveError("the index names an image by something that is not a sha256 digest") from None
        left = len(distinct) - MAX_ENTRIES
        blind = (f"{left} more images behind this digest were not scanned",) if left > 0 else ()
        return [(name, platform) for name, platform in distinct[:MAX_ENTRIES]], blind

    def _platforms(self, document: _Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The nodes on which nothing of an index runs but what is scanned, and for which platforms it has more."""
        entries = [entry.platform for entry in document.manifests or ()]
        ours = {_architecture(each) if each else "" for each in entries if _could_run(each, self._architectures)}
        found = [own for own in self._architectures if "" in ours or not ours.isdisjoint((own, *_TOO.get(own, ())))]
        others = dict.fromkeys(_words(each) for each in entries if each and not _could_run(each, self._architectures) and not _nobody(each))
        return tuple(f"linux/{each}" for each in found), tuple(others)[:MAX_UNJUDGED]


def _few(paths: Sequence[str]) -> str:
    return one_line(", ".join(paths[:3]), 200)


def _document(manifest: Manifest) -> _Document:
    try:
        json.loads(manifest.body, object_pairs_hook=_exact)
        document = msgspec.json.decode(manifest.body, type=_Document)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise DefinitiveError(f"the manifest {manifest.digest[:19]}… is not one") from None
    listed, layered = document.manifests is not None, document.layers is not None or document.config is not None
    if listed == layered or listed != (manifest.media_type in _INDEXES):
        raise DefinitiveError("the registry's document is neither an image nor an index, or both at once")
    return document


def _artifact(document: _Document) -> str:
    """The media type of a model's configuration; an index has none, nor has an image."""
    return document.config.media_type if document.config is not None and document.config.media_type in MODELS else ""


def _exact(pairs: list[tuple[str, Any]]) -> None:
    """Refuses an object whose keys mean something else to Go, which folds their case and takes the last one."""
    keys = [key for key, _ in pairs]
    folded = [key.casefold() for key in keys]
    odd = any(low in _KEYS and key != _KEYS[low] for key, low in zip(keys, folded, strict=True))
    if odd or len(set(keys)) != len(keys):
        raise DefinitiveError("a manifest has a key twice, or in another case: which one counts depends on who reads it")


def _unseen_layers(manifest: Manifest) -> tuple[str, ...]:
    """Layers that come from somewhere else than the registry, which a runtime may fetch and trivy does not."""
    if manifest.media_type in _INDEXES:
        raise DefinitiveError("an index inside an index", hint="push the image without nesting")
    layers = _document(manifest).layers or ()
    foreign = [layer for layer in layers if layer.urls or "nondistributable" in layer.media_type or "foreign" in layer.media_type]
    return (f"{len(foreign)} layers are not in the registry",) if foreign else ()


def _file_systems(manifest: Manifest) -> tuple[str, ...]:
    """Layers of a model artifact that are not a model's: containerd mounts those of an image whatever the configuration is called.

    It asks for the type of the layers alone (client, `getLayers`), and takes the rest from the configuration's content.
    """
    others = [layer for layer in _document(manifest).layers or () if not layer.media_type.startswith(_LAYERS_OF_MODELS)]
    return (f"layers that are not a model's: {len(others)}; a node may mount them like an image's",) if others else ()


def _misread_layers(manifest: Manifest, read: Mapping[str, int]) -> tuple[str, ...]:
    """Layers that a node may unpack to something else than trivy has read.

    Trivy goes by the first bytes, containerd by the media type and then by first bytes of its own: a skippable frame of Zstandard may be an
    archive to the one and nothing to the other (containerd, core/diff/stream.go and pkg/archive/compression). So what calls itself an
    archive must have been read as it is, and what calls itself compressed must not.
    """
    layers = _document(manifest).layers or ()
    odd = [
        layer
        for layer in layers
        if layer.size <= 0 or layer.digest not in read or (read[layer.digest] == layer.size) != (layer.media_type in _ARCHIVES)
    ]
    return (f"{len(odd)} layers are not of the kind that they call themselves, and a node may read them otherwise",) if odd else ()


def _size(manifest: Manifest) -> int:
    return sum(max(layer.size, 0) for layer in _document(manifest).layers or ())


def _could_run(platform: _Platform | None, architectures: tuple[str, ...]) -> bool:
    if platform is None:
        return True
    architecture = _architecture(platform)
    return platform.os.lower() in {"", "linux"} and (not architecture or architecture in architectures)


def _nobody(platform: _Platform) -> bool:
    """What BuildKit writes on attestations: no node is of it, and containerd on none takes it for its own."""
    return platform.os.lower() == platform.architecture.lower() == "unknown"


def _words(platform: _Platform) -> str:
    return one_line(f"{platform.os.lower() or 'linux'}/{_architecture(platform) or 'any'}", 40)


def _architecture(platform: _Platform) -> str:
    low = platform.architecture.lower()
    return _ARCHITECTURES.get(low, low)


def _platform(platform: _Platform | None) -> str:
    return f"{platform.os.lower() or 'linux'}/{_architecture(platform)}" if platform is not None and platform.architecture else ""


def _parse(text: str) -> Reference:
    try:
        return references.parse(text)
    except InputError as error:
        raise DefinitiveError(error.message, hint=error.hint) from None

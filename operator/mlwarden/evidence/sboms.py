"""What was found in each digest, kept beside the scanner, so that a new vulnerability database needs no image a second time.

One file for each digest: all packages of all images behind it, as trivy's detectors see them, and what else the scan established that no
database changes (blind spots, secrets, configuration). From it `document` makes a CycloneDX document, for people and for trivy. Trivy's own
`convert` was rejected: one more process for each image, and it leaves out why a scan was half blind.

The directory is bounded; what was not asked for longest goes first. Whatever is in it may go at any time: a digest that is not kept is
scanned again. So a file that was cut short, or made by another version, is removed and counts as not kept. Nothing is synchronised to disk
and nothing is locked: each file is whole or not there, and gzip's checksum tells.
"""

import contextlib
import gzip
import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from mlwarden.evidence.report import Findings, Package, System
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Weakness

FORMAT = 3
"""Of a file; another is not read. Before 3 it was not written down which images of an index were not looked into."""
LARGEST = 64 << 20
"""Bytes of one file, unpacked; an image with more packages than that is scanned each time."""
_PREFIX = "aquasecurity:trivy:"


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image manifest behind a digest: see `report.Findings`."""

    digest: str
    system: System = System()
    packages: tuple[Package, ...] = ()
    secrets: tuple[Weakness, ...] = ()
    misconfigurations: tuple[Weakness, ...] = ()
    configured: bool = False
    lasting: tuple[str, ...] = ()

    @classmethod
    def of(cls, findings: Findings) -> "Image":
        """Returns what is kept of a scan."""
        return cls(
            digest=findings.digest,
            system=findings.system,
            packages=findings.packages,
            secrets=findings.secrets,
            misconfigurations=findings.misconfigurations,
            configured=findings.configured,
            lasting=findings.lasting,
        )


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one digest.

    Attributes:
        format: `FORMAT`.
        digest: as it was asked for: of an image or of an index.
        trivy: version of the trivy that read the images; another one may see more in them.
        scanners: what it looked for.
        architectures: of which images behind an index it is.
        read_at: when.
        blind: what was not looked into at all, in words.
        images: all that were looked into.
        platforms: of an index: see `Scan`.
        unjudged: of an index: see `Scan`.
        anonymous: see `Scan`.
    """

    format: int = msgspec.field(name="format", default=0)
    digest: Digest
    trivy: str
    scanners: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    read_at: datetime
    blind: tuple[str, ...] = ()
    images: tuple[Image, ...]
    platforms: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    anonymous: bool = False


_RECORDS: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class SBOMs:
    """A directory of records. Not for several processes at once, although nothing worse than a second scan comes of that.

    Args:
        directory: made when it is not there; nothing else is kept in it.
        limit: bytes that all files may take.
    """

    def __init__(self, directory: Path, *, limit: int = 1 << 30) -> None:
        self._directory, self._limit = directory, limit
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        self._bytes = sum(size for _, size, _ in self._files())

    def digests(self) -> tuple[Digest, ...]:
        """Returns the digests that are kept, the one that was asked for last first."""
        return tuple(Digest(f"sha256:{path.name.partition('.')[0]}") for _, _, path in sorted(self._files(), reverse=True))

    def get(self, digest: Digest) -> Record | None:
        """Returns what is kept of a digest; None where nothing is, or nothing that can be read."""
        path = self._path(digest)
        try:
            record = _RECORDS.decode(_unpack(path.read_bytes()))
            if (record.format, record.digest) == (FORMAT, digest):
                os.utime(path)
                return record
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
            pass
        self.remove(digest)
        return None

    def put(self, record: Record) -> bool:
        """Keeps a record, in place of an older one of the same digest. Returns whether there was room.

        Raises:
            OSError: the directory cannot be written to.
        """
        raw = msgspec.json.encode(msgspec.structs.replace(record, format=FORMAT))
        packed = gzip.compress(raw, compresslevel=6, mtime=0)
        if len(raw) > LARGEST or len(packed) > self._limit:
            self.remove(record.digest)
            return False
        path = self._path(record.digest)
        before = _size(path)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=self._directory)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(packed)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        self._bytes += len(packed) - before
        if self._bytes > self._limit:
            self._make_room(path)
        return True

    def remove(self, digest: Digest) -> None:
        """Forgets a digest."""
        path = self._path(digest)
        self._bytes -= _size(path)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _make_room(self, newest: Path) -> None:
        files = sorted(self._files())
        self._bytes = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._bytes <= self._limit:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    self._bytes -= size

    def _files(self) -> Iterable[tuple[int, int, Path]]:
        """When each was last asked for, its bytes, its path."""
        for path in self._directory.glob("*.json.gz"):
            with contextlib.suppress(OSError):
                found = path.stat()
                yield found.st_mtime_ns, found.st_size, path

    def _path(self, digest: Digest) -> Path:
        return self._directory / f"{digest.removeprefix('sha256:')}.json.gz"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _unpack(packed: bytes) -> bytes:
    """Unpacks one gzip member, up to `LARGEST` bytes; raises ValueError for what is more, or is cut short."""
    unpacker = zlib.decompressobj(wbits=31)
    raw = unpacker.decompress(packed, LARGEST)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("not one whole gzip member")
    return raw


def document(system: System, packages: Mapping[str, Package], *, name: str = "", digest: str = "") -> bytes:
    """Returns a CycloneDX document of packages, as trivy itself would write it.

    Args:
        system: the operating system of all of them.
        packages: reference → package. The reference finds it again in a report; also its `PkgID`, by which trivy drops what it takes for a
            second mention (pkg/fanal/applier/docker.go, UniqBy).
        name: of the image, for people.
        digest: of the image, for people.
    """
    components: list[dict[str, object]] = []
    listed: dict[str, list[str]] = {}
    for reference, package in packages.items():
        components.append(_component(reference, package))
        listed.setdefault("os" if package.system else f"app:{package.type}", []).append(reference)
    if system.family:
        # A name with `-ESM` is what trivy makes of `extended` (pkg/scan/ospkg/scan.go); the format has no place for it.
        version = f"{system.version}-ESM" if system.extended else system.version
        components.append(
            {
                "type": "operating-system",
                "bom-ref": "os",
                "name": system.family,
                "version": version,
                "properties": _properties({"Class": "os-pkgs", "Type": system.family}),
            }
        )
    for parent in listed:
        if parent.startswith("app:"):
            properties = _properties({"Class": "lang-pkgs", "Type": parent[4:]})
            components.append({"type": "application", "bom-ref": parent, "name": parent[4:], "properties": properties})
    root: dict[str, object] = {"type": "container", "bom-ref": "image", "name": name or "packages"}
    if digest:
        root["version"] = digest
    return msgspec.json.encode(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": root,
                "tools": {"components": [{"type": "application", "group": "aquasecurity", "name": "trivy"}]},
            },
            "components": components,
            "dependencies": [{"ref": parent, "dependsOn": references} for parent, references in listed.items()],
        }
    )


def described(image: Image, *, name: str) -> bytes:
    """Returns the CycloneDX document of one image."""
    return document(image.system, {f"{number}": package for number, package in enumerate(image.packages)}, name=name, digest=image.digest)


def _component(reference: str, package: Package) -> dict[str, object]:
    version = f"{package.version}-{package.release}" if package.release else package.version
    properties: dict[str, str] = {
        "PkgID": reference,
        "PkgType": package.type,
        "SrcName": package.source,
        "SrcVersion": package.source_version,
        "SrcRelease": package.source_release,
        "SrcEpoch": str(package.source_epoch or ""),
        "Modularitylabel": package.label,
        "NVR": package.nvr,
        "Arch": package.build_arch,
    }
    return {
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": f"{package.epoch}:{version}" if package.epoch else version,
        "purl": package.purl,
        "properties": [
            *_properties(properties),
            *({"name": f"{_PREFIX}ContentSet", "value": each} for each in package.contents),
        ],
    }


def _properties(found: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": f"{_PREFIX}{name}", "value": value} for name, value in found.items() if value]

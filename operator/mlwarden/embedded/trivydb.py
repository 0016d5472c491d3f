"""A vulnerability database for Trivy with exactly the entries that are asked for.

Trivy's own database is 700 MB, comes from a container registry and says something else every day: no test can stand on it. Its format is a
bbolt file (buckets of sorted keys in fixed pages) and a small `metadata.json` beside it; this writes both, and the real Trivy reads them.

Only what a reader needs is written: every bucket is one leaf page, with as many overflow pages as it takes, so there are no branch pages
and at most 65,535 keys in a bucket. Format: `internal/common/{page,meta}.go` of go.etcd.io/bbolt. Layout of the buckets: Trivy's
`integration/testdata/fixtures/db`. Rejected: Trivy's Go helper for fixtures (one more program to build), and an old copy of the real
database (a licence question, and 700 MB).
"""

from __future__ import annotations

import datetime as dt
import io
import itertools
import json
import os
import struct
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlwarden.embedded import images

_CONFIG, _LAYER = "application/vnd.aquasec.trivy.config.v1+json", "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
Severity = Literal["UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL"]

_SEVERITIES: dict[Severity, int] = {"UNKNOWN": 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}
_LANGUAGES = {"pip": "pip::GitHub Security Advisory Pip", "npm": "npm::GitHub Security Advisory npm"}
_SOURCES = {
    "alpine": {"ID": "alpine", "Name": "Alpine Secdb", "URL": "https://secdb.alpinelinux.org/"},
    "debian": {"ID": "debian", "Name": "Debian Security Tracker", "URL": "https://salsa.debian.org/security-tracker-team/security-tracker"},
    "ubuntu": {"ID": "ubuntu", "Name": "Ubuntu CVE Tracker", "URL": "https://git.launchpad.net/ubuntu-cve-tracker"},
    "rocky": {"ID": "rocky", "Name": "Rocky Linux updateinfo", "URL": "https://download.rockylinux.org/pub/rocky/"},
    "npm": {"ID": "ghsa", "Name": "GitHub Security Advisory npm", "URL": "https://github.com/advisories?query=ecosystem%3Anpm"},
    "pip": {"ID": "ghsa", "Name": "GitHub Security Advisory Pip", "URL": "https://github.com/advisories?query=ecosystem%3Apip"},
}


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One known vulnerability of one package.

    Args:
        id: such as `CVE-2025-32434`.
        ecosystem: `pip`, `npm`, or a distribution with its release as Trivy names it: `alpine 3.22`, `debian 12`, `rocky 9`.
        package: the package; for Alpine, Debian and Ubuntu the source package.
        fixed: the first version without it; empty when there is none.
        severity: as Trivy prints it.
        title: one line.
    """

    id: str
    ecosystem: str
    package: str
    fixed: str
    severity: Severity
    title: str


ADVISORIES = (
    Advisory(
        id="CVE-2025-32434",
        ecosystem="pip",
        package="torch",
        fixed="2.6.0",
        severity="CRITICAL",
        title="PyTorch: torch.load with weights_only=True leads to remote code execution",
    ),
    Advisory(
        id="CVE-2025-26519",
        ecosystem="alpine 3.22",
        package="musl",
        fixed="1.2.5-r10",
        severity="HIGH",
        title="musl libc: out-of-bounds write in iconv",
    ),
    Advisory(
        id="CVE-2999-0001",
        ecosystem="alpine 3.22",
        package="without-a-fix",
        fixed="",
        severity="CRITICAL",
        title="Made up for tests: nobody has fixed this",
    ),
)
"""What `make_database` writes unless told otherwise: two real vulnerabilities, and a made-up one that has no fix."""


def make_database(directory: Path, advisories: Iterable[Advisory] = ADVISORIES, *, updated: dt.datetime | None = None) -> Path:
    """Writes a database and returns the directory, which is what Trivy calls `--cache-dir`.

    Args:
        directory: made when it is not there; an older database in it is replaced.
        advisories: what the database knows.
        updated: when its contents were current, for whoever judges a database's age; now unless said.
    """
    database = directory / "db"
    database.mkdir(parents=True, exist_ok=True)
    content = _encode(_buckets(advisories))
    moment = (updated or dt.datetime.now(dt.UTC)).astimezone(dt.UTC)
    metadata = {
        "Version": 2,
        "UpdatedAt": _timestamp(moment),
        "DownloadedAt": _timestamp(moment),
        "NextUpdate": "2999-01-01T00:00:00Z",
    }
    for name, data in (("trivy.db", content), ("metadata.json", json.dumps(metadata).encode())):
        temporary = database / f".{name}.{os.getpid()}"
        temporary.write_bytes(data)
        temporary.replace(database / name)
    return directory


def publish(registry: str, name: str, directory: Path) -> None:
    """Pushes a database as Trivy's own are published; mirrors of it look like that.

    Args:
        registry: `host:port`, plain HTTP.
        name: `repository:tag`; Trivy asks for the tag that is the schema's number, 2.
        directory: with a database that `make_database` made.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in ("trivy.db", "metadata.json"):
            archive.add(directory / "db" / file, file)
    images.push_artifact(registry, name, config_type=_CONFIG, layer_type=_LAYER, layer=buffer.getvalue(), title="db.tar.gz")


def _timestamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _buckets(advisories: Iterable[Advisory]) -> dict[str, Any]:
    """The database as nested mappings: a mapping with only `_Leaf` and mappings in it is a bucket."""
    root: dict[str, Any] = {"data-source": {}, "vulnerability": {}}
    for each in advisories:
        family = each.ecosystem.split(" ", maxsplit=1)[0]
        bucket = _LANGUAGES.get(family, each.ecosystem)
        entry: dict[str, Any]
        if family in _LANGUAGES:
            entry = {"VulnerableVersions": [f"<{each.fixed}" if each.fixed else ">=0"]}
            if each.fixed:
                entry["PatchedVersions"] = [each.fixed]
        else:
            entry = {"FixedVersion": each.fixed}
        source = _SOURCES[family]
        root["data-source"][bucket] = _Leaf(source)
        root.setdefault(bucket, {}).setdefault(each.package, {})[each.id] = _Leaf(entry)
        root["vulnerability"][each.id] = _Leaf(
            {
                "Title": each.title,
                "Description": each.title,
                "Severity": each.severity,
                "VendorSeverity": {source["ID"]: _SEVERITIES[each.severity]},
                "References": [f"https://nvd.nist.gov/vuln/detail/{each.id}"],
            }
        )
    return root


# The file format.

_PAGE = 4096
_PAGE_HEADER = struct.Struct("<QHHI")  # id, kind, number of elements, number of overflow pages
_ELEMENT = struct.Struct("<IIII")  # kind, offset of the key from here, length of the key, length of the value
_BUCKET = struct.Struct("<QQ")  # page of its root, sequence
_META = struct.Struct("<IIIIQQQQQ")  # magic, version, page size, flags, root bucket (page, sequence), free list, next page, transaction
_META_PAGE, _LEAF_PAGE, _FREE_LIST_PAGE = 4, 2, 16
_MAGIC, _VERSION = 0xED0CDAED, 2
_FIRST_FREE_PAGE = 3


@dataclass(frozen=True)
class _Leaf:
    """A value: JSON."""

    content: Any


def _encode(root: Mapping[str, Any]) -> bytes:
    pages: dict[int, bytes] = {}
    free = itertools.count(_FIRST_FREE_PAGE)
    last = _FIRST_FREE_PAGE

    def place(bucket: Mapping[str, Any]) -> int:
        """Writes a bucket behind those inside it, and returns its page."""
        nonlocal last
        elements = []
        for key, value in sorted((key.encode(), value) for key, value in bucket.items()):
            if isinstance(value, _Leaf):
                elements.append((0, key, json.dumps(value.content).encode()))
            else:
                elements.append((1, key, _BUCKET.pack(place(value), 0)))
        headers, data = b"", b""
        for index, (kind, key, value) in enumerate(elements):
            offset = _ELEMENT.size * (len(elements) - index) + len(data)
            headers += _ELEMENT.pack(kind, offset, len(key), len(value))
            data += key + value
        body = headers + data
        count = -(-(_PAGE_HEADER.size + len(body)) // _PAGE)
        number = next(free)
        last = number + count
        for _ in range(count - 1):
            next(free)
        pages[number] = (_PAGE_HEADER.pack(number, _LEAF_PAGE, len(elements), count - 1) + body).ljust(count * _PAGE, b"\0")
        return number

    top = place(root)
    metas = b"".join(_meta_page(number, top, last) for number in (0, 1))
    free_list = _PAGE_HEADER.pack(2, _FREE_LIST_PAGE, 0, 0).ljust(_PAGE, b"\0")
    return metas + free_list + b"".join(pages[number] for number in sorted(pages))


def _meta_page(number: int, root: int, pages: int) -> bytes:
    """Two of these stand at the beginning; bbolt takes the one with the higher transaction whose checksum is right."""
    meta = _META.pack(_MAGIC, _VERSION, _PAGE, 0, root, 0, 2, pages, number)
    checksum = 0xCBF29CE484222325
    for byte in meta:
        checksum = ((checksum ^ byte) * 0x100000001B3) % 2**64  # FNV-1a
    return (_PAGE_HEADER.pack(number, _META_PAGE, 0, 0) + meta + struct.pack("<Q", checksum)).ljust(_PAGE, b"\0")

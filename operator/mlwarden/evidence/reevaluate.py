"""A new vulnerability database, and every digest that is kept: what is known about them now, without an image being pulled.

One trivy for each operating system and one for all languages, not one for each image: the packages of all images go into one list, each
once, and what is found of a package is true of every image that has it. A thousand images of one organisation share most of their packages,
so this takes seconds where a process for each would take minutes.

It must say exactly what a scan of the image would. That is not taken on trust: trivy's report repeats the packages as its detectors saw
them, and where one is missing or differs from what the detectors saw in the image, the digests that have it are left to a real scan. So are
those whose list another version of trivy made, or one that looked for less. Nothing is ever found clean by being left out.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mlwarden.evidence import report, summary, vex
from mlwarden.evidence.database import Database
from mlwarden.evidence.failure import GatherError, TransientError
from mlwarden.evidence.report import Findings, Package, Reread, System
from mlwarden.evidence.sboms import Image, Record, SBOMs, document
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Vulnerability

LOG = logging.getLogger(__name__)
LARGEST = 10_000
"""Packages of one list; a longer one is split, which bounds what one trivy and its report take."""
RETRIES = 40
"""Runs that lists nobody can read may cost: each is halved until the package that spoils it is alone, and only its images are left."""
MOST = 200_000
"""Different packages that are held at a time, which bounds memory: an image can have eighty thousand that no other has."""
_PORTION = 64
"""Records read at a time, so that other work is not held up."""


class Reevaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What is known now.

    Attributes:
        scans: digest → what a scan with this database would say.
        left: digest → why it must be scanned itself.
    """

    scans: dict[Digest, Scan]
    left: dict[Digest, str]


_LANGUAGES = System()
"""Under which packages of languages are looked up: their advisories are the same on every operating system."""


class _Pool:
    """Packages, each once, and under which system each of them is looked up."""

    def __init__(self) -> None:
        self.packages: list[Package] = []
        self.lists: dict[System, dict[int, None]] = {}
        self._numbers: dict[Package, int] = {}

    def taken(self, image: Image) -> Image:
        """Returns the image with its packages out of the pool, so that each is held once."""
        self.lists.setdefault(image.system, {})
        packages = []
        for package in image.packages:
            number = self.number(package)
            if _looked_up(package):
                self.lists.setdefault(_place(image, package), {})[number] = None
            packages.append(self.packages[number])
        return msgspec.structs.replace(image, packages=tuple(packages))

    def number(self, package: Package) -> int:
        """Returns the number of a package, the same for equal ones."""
        found = self._numbers.setdefault(package, len(self.packages))
        if found == len(self.packages):
            self.packages.append(package)
        return found


async def reevaluate(
    trivy: Trivy,
    sboms: SBOMs,
    digests: Sequence[Digest],
    *,
    architectures: tuple[str, ...],
    documents: Mapping[Digest, Sequence[vex.Document]] | None = None,
    processes: int = 2,
) -> Reevaluated:
    """Says of each digest what a scan of it would say now.

    Args:
        trivy: with the new database.
        sboms: where the lists of packages are kept.
        digests: to be judged; asking for them keeps them from being forgotten.
        architectures: whose images behind an index count.
        documents: digest → verified VEX documents that may speak of it.
        processes: of trivy at the same time.

    Raises:
        TransientError: there is no database.
        EvidenceError: the binary is not one that may be used.
    """
    database, version = trivy.database(), await trivy.version()
    left: dict[Digest, str] = {}
    scans: dict[Digest, Scan] = {}
    waiting = list(dict.fromkeys(digests))
    while waiting:
        records: dict[Digest, Record] = {}
        pool = _Pool()
        while waiting and len(pool.packages) < MOST:
            portion = await asyncio.to_thread(_read, sboms, waiting[:_PORTION])
            for digest, record in zip(waiting, portion, strict=False):
                reason = _unfit(record, version, trivy.scanners, architectures)
                if record is None or reason:
                    left[digest] = reason
                else:
                    records[digest] = msgspec.structs.replace(record, images=tuple(pool.taken(image) for image in record.images))
            del waiting[: len(portion)]
        lookups = _Lookups(trivy, pool, asyncio.Semaphore(processes))
        await asyncio.gather(*(lookups.run(system, part) for system, numbers in pool.lists.items() for part in _split(list(numbers))))
        for digest, record in records.items():
            reason = next((reason for image in record.images if (reason := lookups.doubt(image))), "")
            if reason:
                left[digest] = reason
            else:
                parts = [lookups.findings(image) for image in record.images]
                scans[digest] = _scan(record, parts, (documents or {}).get(digest, ()), database)
    return Reevaluated(scans=scans, left=left)


def _scan(record: Record, parts: Sequence[Findings], documents: Sequence[vex.Document], database: Database) -> Scan:
    return summary.summarise(
        parts,
        scanner=f"trivy {record.trivy}",
        at=datetime.now(UTC),
        read_at=record.read_at,
        database_at=database.updated_at,
        scanners=record.scanners,
        blind=record.blind,
        spoken=vex.spoken(parts, documents, digest=record.digest),
        subject=record.digest,
        platforms=record.platforms,
        unjudged=record.unjudged,
        anonymous=record.anonymous,
    )


def _read(sboms: SBOMs, digests: Sequence[Digest]) -> list[Record | None]:
    """Those of the first of them, up to so many packages; one at least."""
    found: list[Record | None] = []
    packages = 0
    for digest in digests:
        record = sboms.get(digest)
        found.append(record)
        packages += sum(len(image.packages) for image in record.images) if record is not None else 0
        if packages >= MOST:
            break
    return found


def _unfit(record: Record | None, version: str, scanners: tuple[str, ...], architectures: tuple[str, ...]) -> str:
    """Why a record says nothing; `""` where it does."""
    if record is None:
        return "its packages are not kept"
    if record.trivy != version:
        return f"its packages were listed by trivy {record.trivy}, which is not the one that runs now"
    if record.scanners != scanners:
        return "other things are looked for now"
    if record.architectures != architectures:
        return "its images were read for nodes of other architectures"
    for image in record.images:
        if any(package.system for package in image.packages) and not image.system.family:
            return "its operating system is not known"
        if any(not package.purl for package in image.packages if _looked_up(package)):
            return "one of its packages has no package URL"
    return ""


def _looked_up(package: Package) -> bool:
    """Whether detectors look at it at all (trivy's detector/ospkg/detect.go, filterPkgs, and detector/library/detect.go, detect)."""
    return not package.foreign if package.system else bool(package.version)


def _place(image: Image, package: Package) -> System:
    return image.system if package.system else _LANGUAGES


def _split(numbers: Sequence[int]) -> list[Sequence[int]]:
    """Lists of at most `LARGEST`; one at least, because a system without packages has an end of life, too."""
    return [numbers[start : start + LARGEST] for start in range(0, len(numbers), LARGEST)] or [numbers]


class _Lookups:
    """Asks trivy about lists of packages and collects what is said of them."""

    def __init__(self, trivy: Trivy, pool: _Pool, slots: asyncio.Semaphore) -> None:
        self._trivy, self._pool, self._slots = trivy, pool, slots
        self._retries = RETRIES
        self._eol: dict[System, bool] = {_LANGUAGES: False}
        self._said: dict[System, tuple[str, ...]] = {}
        self._found: dict[tuple[System, int], list[Vulnerability]] = {}
        self._doubtful: dict[tuple[System, int], str] = {}
        self._failed: dict[System, str] = {}

    async def run(self, system: System, numbers: Sequence[int]) -> None:
        """One list; where it cannot be read, its halves."""
        if not numbers and system == _LANGUAGES:
            return
        try:
            async with self._slots:
                raw = document(system, {str(number): self._pool.packages[number] for number in numbers})
                answer, said = await self._trivy.reread(raw)
            await asyncio.to_thread(self._take, system, numbers, answer)
        except GatherError as error:
            if len(numbers) < 2 or self._retries < 2:
                LOG.warning("%d packages of %s cannot be looked up: %s", len(numbers), system.text or "languages", error.message)
                reason = f"its packages could not be looked up: {error.message}"
                self._doubtful |= {(system, number): reason for number in numbers}
                self._failed[system] = reason
                return
            self._retries -= 2
            middle = len(numbers) // 2
            await self.run(system, numbers[:middle])
            await self.run(system, numbers[middle:])
            return
        self._eol[system], self._said[system] = answer.eol, said

    def _take(self, system: System, numbers: Sequence[int], answer: Reread) -> None:
        """Takes what is said of each package, unless trivy did not see it as it was in the image."""
        expected = System(family=system.family, version=f"{system.version}-ESM" if system.extended else system.version)
        if answer.system != expected:
            raise TransientError("trivy took the packages for those of another operating system")
        references = {str(number): number for number in numbers}
        if any(reference not in references for reference, _ in answer.vulnerabilities):
            raise TransientError("trivy's report speaks of a package that was not in the list")
        seen: dict[str, Package] = dict(answer.packages)
        for reference, number in references.items():
            if reference not in seen or seen[reference].looked_at() != self._pool.packages[number].looked_at():
                self._doubtful[system, number] = f"its package {self._pool.packages[number].name[:80]} looks different outside the image"
        for reference, vulnerability in answer.vulnerabilities:
            self._found.setdefault((system, references[reference]), []).append(vulnerability)

    def _keys(self, image: Image) -> list[tuple[System, int]]:
        """Where its packages were looked up."""
        return [(_place(image, package), self._pool.number(package)) for package in image.packages if _looked_up(package)]

    def doubt(self, image: Image) -> str:
        """Why nothing can be said of an image; `""` where it can."""
        if image.system not in self._eol:
            return self._failed.get(image.system, "its operating system was not looked up")
        return next((self._doubtful[key] for key in self._keys(image) if key in self._doubtful), "") if self._doubtful else ""

    def findings(self, image: Image) -> Findings:
        """What a scan of the image would say."""
        return Findings(
            digest=image.digest,
            system=image.system,
            eol=self._eol[image.system],
            packages=image.packages,
            vulnerabilities=tuple(each for key in dict.fromkeys(self._keys(image)) for each in self._found.get(key, ())),
            secrets=image.secrets,
            misconfigurations=image.misconfigurations,
            configured=image.configured,
            blind=(*report.unseen(image.system.family, image.packages), *self._said.get(image.system, ()), *image.lasting),
        )

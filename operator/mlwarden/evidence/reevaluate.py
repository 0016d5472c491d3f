"""A new vulnerability database, and every digest that is kept: what is known about them now, without an image being pulled.

One trivy for each operating system, not for each image: the packages of all images of one system go into one list, each once, and what is
found of a package is true of every image that has it. A thousand images of one organisation share most of their packages, so this takes
seconds where a process for each would take minutes.

It must say exactly what a scan of the image would. That is not taken on trust: trivy's report repeats the packages as its detectors saw
them, and where one is missing or differs from what the detectors saw in the image, the digests that have it are left to a real scan. So are
those whose list another version of trivy made, or one that looked for less. Nothing is ever found clean by being left out.
"""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mlwarden.evidence import report, vex
from mlwarden.evidence.failure import GatherError, TransientError
from mlwarden.evidence.report import Findings, Package, Reread, System
from mlwarden.evidence.sboms import Image, Record, SBOMs, document
from mlwarden.evidence.trivy import Database, Trivy
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Vulnerability

LOG = logging.getLogger(__name__)
LARGEST = 20_000
"""Packages of one list; a longer one is split, which bounds what one trivy and its report take."""
RETRIES = 16
"""Runs that a list nobody can read may cost beyond the first: it is halved until the image that spoils it is alone."""
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


class _Member(msgspec.Struct, frozen=True, kw_only=True):
    """One image of one record: its packages by their numbers in the pool."""

    owner: Digest
    place: int
    image: Image
    numbers: tuple[int, ...]


class _Pool:
    """Packages, each once."""

    def __init__(self) -> None:
        self.packages: list[Package] = []
        self._numbers: dict[Package, int] = {}

    def number(self, package: Package) -> int:
        found = self._numbers.setdefault(package, len(self.packages))
        if found == len(self.packages):
            self.packages.append(package)
        return found


async def reevaluate(
    trivy: Trivy,
    sboms: SBOMs,
    digests: Sequence[Digest],
    *,
    documents: Mapping[Digest, Sequence[vex.Document]] | None = None,
    processes: int = 2,
) -> Reevaluated:
    """Says of each digest what a scan of it would say now.

    Args:
        trivy: with the new database.
        sboms: where the lists of packages are kept.
        digests: to be judged; asking for them keeps them from being forgotten.
        documents: digest → verified VEX documents that may speak of it.
        processes: of trivy at the same time.

    Raises:
        TransientError: there is no database.
        EvidenceError: the binary is not one that may be used.
    """
    database, version = trivy.database(), await trivy.version()
    left: dict[Digest, str] = {}
    records: dict[Digest, Record] = {}
    members: dict[System, list[_Member]] = {}
    pool = _Pool()
    distinct = tuple(dict.fromkeys(digests))
    for start in range(0, len(distinct), _PORTION):
        portion = distinct[start : start + _PORTION]
        for digest, record in zip(portion, await asyncio.to_thread(_read, sboms, portion), strict=True):
            reason = _unfit(record, version, trivy.scanners)
            if record is None or reason:
                left[digest] = reason
                continue
            records[digest] = msgspec.structs.replace(record, images=())
            for place, image in enumerate(record.images):
                numbers = tuple(dict.fromkeys(pool.number(package) for package in image.packages if _looked_up(package)))
                lean = msgspec.structs.replace(image, packages=tuple(pool.packages[pool.number(package)] for package in image.packages))
                members.setdefault(image.system, []).append(_Member(owner=digest, place=place, image=lean, numbers=numbers))
    lookups = _Lookups(trivy, pool, asyncio.Semaphore(processes))
    lists = [each for system, found in members.items() for each in _split(system, found)]
    await asyncio.gather(*(lookups.run(system, found) for system, found in lists))
    left |= {digest: reason for digest, reason in lookups.left.items() if digest in records}
    scans = {}
    for digest, record in records.items():
        if digest not in left:
            parts = [findings for _, findings in sorted(lookups.findings.get(digest, {}).items())]
            scans[digest] = _scan(record, parts, (documents or {}).get(digest, ()), database)
    return Reevaluated(scans=scans, left=left)


def _scan(record: Record, parts: Sequence[Findings], documents: Sequence[vex.Document], database: Database) -> Scan:
    return report.summarise(
        parts,
        scanner=f"trivy {record.trivy}",
        at=datetime.now(UTC),
        read_at=record.read_at,
        database_at=database.updated_at,
        scanners=record.scanners,
        blind=record.blind,
        suppressed=vex.suppressed(parts, documents, digest=record.digest),
    )


def _read(sboms: SBOMs, digests: Sequence[Digest]) -> list[Record | None]:
    return [sboms.get(digest) for digest in digests]


def _unfit(record: Record | None, version: str, scanners: tuple[str, ...]) -> str:
    """Why a record says nothing; `""` where it does."""
    if record is None:
        return "its packages are not kept"
    if record.trivy != version:
        return f"its packages were listed by trivy {record.trivy}, which is not the one that runs now"
    if record.scanners != scanners:
        return "other things are looked for now"
    for image in record.images:
        if any(package.system for package in image.packages) and not image.system.family:
            return "its operating system is not known"
        if any(not package.purl for package in image.packages if _looked_up(package)):
            return "one of its packages has no package URL"
    return ""


def _looked_up(package: Package) -> bool:
    """Whether detectors look at it at all (trivy's detector/ospkg/detect.go, filterPkgs, and detector/library/detect.go, detect)."""
    return not package.foreign if package.system else bool(package.version)


def _split(system: System, members: Sequence[_Member]) -> Iterator[tuple[System, list[_Member]]]:
    """Yields lists of at most `LARGEST` packages, but for a single image with more."""
    part: list[_Member] = []
    numbers: set[int] = set()
    for member in members:
        if part and len(numbers) + sum(number not in numbers for number in member.numbers) > LARGEST:
            yield system, part
            part, numbers = [], set()
        part.append(member)
        numbers.update(member.numbers)
    if part:
        yield system, part


class _Lookups:
    """Asks trivy about lists of packages and collects what is said of whom."""

    def __init__(self, trivy: Trivy, pool: _Pool, slots: asyncio.Semaphore) -> None:
        self._trivy, self._pool, self._slots = trivy, pool, slots
        self._retries = RETRIES
        self.findings: dict[Digest, dict[int, Findings]] = {}
        self.left: dict[Digest, str] = {}

    async def run(self, system: System, members: Sequence[_Member]) -> None:
        """One list; where it cannot be read, its halves."""
        numbers = dict.fromkeys(number for member in members for number in member.numbers)
        if not numbers and not system.family:
            self._keep(members, eol=False, said=(), found={}, doubtful=frozenset())
            return
        try:
            async with self._slots:
                raw = document(system, {str(number): self._pool.packages[number] for number in numbers})
                answer, said = await self._trivy.reread(raw)
            found, doubtful = self._checked(system, numbers, answer)
        except GatherError as error:
            if len(members) == 1 or self._retries < 2:
                LOG.warning("%d images of %s are left to a scan: %s", len(members), system.text or "no system", error.message)
                self.left |= {member.owner: f"its packages could not be looked up: {error.message}" for member in members}
                return
            self._retries -= 2
            middle = len(members) // 2
            await self.run(system, members[:middle])
            await self.run(system, members[middle:])
            return
        self._keep(members, eol=answer.eol, said=said, found=found, doubtful=doubtful)

    def _checked(
        self, system: System, numbers: Mapping[int, None], answer: Reread
    ) -> tuple[dict[int, list[Vulnerability]], frozenset[int]]:
        """What is said of each package, and which packages trivy did not see as they were in the image."""
        expected = System(family=system.family, version=f"{system.version}-ESM" if system.extended else system.version)
        if answer.system != expected:
            raise TransientError("trivy took the packages for those of another operating system")
        references = {str(number): number for number in numbers}
        seen: dict[str, Package] = dict(answer.packages)
        doubtful = {
            number
            for reference, number in references.items()
            if reference not in seen or seen[reference].looked_at() != self._pool.packages[number].looked_at()
        }
        found: dict[int, list[Vulnerability]] = {}
        for reference, vulnerability in answer.vulnerabilities:
            if reference not in references:
                raise TransientError("trivy's report speaks of a package that was not in the list")
            found.setdefault(references[reference], []).append(vulnerability)
        return found, frozenset(doubtful)

    def _keep(
        self,
        members: Sequence[_Member],
        *,
        eol: bool,
        said: tuple[str, ...],
        found: Mapping[int, list[Vulnerability]],
        doubtful: frozenset[int],
    ) -> None:
        for member in members:
            if not doubtful.isdisjoint(member.numbers):
                self.left[member.owner] = "one of its packages looks different outside the image"
                continue
            image = member.image
            self.findings.setdefault(member.owner, {})[member.place] = Findings(
                digest=image.digest,
                system=image.system,
                eol=eol,
                packages=image.packages,
                vulnerabilities=tuple(each for number in member.numbers for each in found.get(number, ())),
                secrets=image.secrets,
                misconfigurations=image.misconfigurations,
                configured=image.configured,
                blind=(*report.unseen(image.system.family, image.packages), *said, *image.lasting),
            )

"""A new vulnerability database and every image that is known: how long until each was judged again, without being pulled.

Real trivy; the images and the database are made up: 1,000 digests of 500 packages each over ten systems, 3,000 advisories. What is measured
is `evidence.reevaluate`, from the kept packages to the scans; writing them to the API server is not in it.
"""

import asyncio
import random
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from mlwarden.embedded import trivydb
from mlwarden.embedded.build import binary
from mlwarden.evidence.reevaluate import Reevaluated, reevaluate
from mlwarden.evidence.report import Package, System
from mlwarden.evidence.sboms import Image, Record, SBOMs
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.digest import Digest

IMAGES = 1000
_NAMES = 3000
_SYSTEMS = [
    *(System(family="debian", version=version) for version in ("11.9", "12.5", "12.6", "12.7", "12.8")),
    *(System(family="alpine", version=version) for version in ("3.20.3", "3.21.0", "3.22.1")),
    *(System(family="ubuntu", version=version) for version in ("22.04", "24.04")),
]


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_measure(Path(directory)))


async def _measure(directory: Path) -> None:
    dice = random.Random(4)
    (directory / "scratch").mkdir()
    trivydb.make_database(directory / "cache", [*trivydb.ADVISORIES, *(_advisory(dice, number) for number in range(_NAMES))])
    trivy = Trivy(binary=binary("trivy"), cache=directory / "cache", scratch=directory / "scratch")
    kept = SBOMs(directory / "packages")
    version = await trivy.version()
    digests = [Digest(f"sha256:{number:064x}") for number in range(IMAGES)]
    for of in digests:
        image = Image(digest=of, system=(system := dice.choice(_SYSTEMS)), packages=_packages(dice, system))
        kept.put(Record(digest=of, trivy=version, scanners=trivy.scanners, read_at=datetime.now(UTC), images=(image,)))
    size = sum(file.stat().st_size for file in (directory / "packages").iterdir())
    began = time.perf_counter()
    found: Reevaluated = await reevaluate(trivy, kept, digests, architectures=())
    seconds = time.perf_counter() - began
    own, theirs = (resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{len(found.scans)} of {IMAGES} digests judged again in {seconds:.1f} s, {len(found.left)} left to a scan")
    print(f"kept packages {size >> 20} MiB; resident at most: this process {own} MiB, one trivy {theirs} MiB")


def _advisory(dice: random.Random, number: int) -> trivydb.Advisory:
    return trivydb.Advisory(
        id=f"CVE-2026-{number}",
        ecosystem=dice.choice(["pip", "debian 12", "alpine 3.22"]),
        package=f"package{dice.randrange(_NAMES)}",
        fixed="1.5-1",
        severity=dice.choice(["LOW", "MEDIUM", "HIGH", "CRITICAL"]),
        title="made up",
    )


def _packages(dice: random.Random, system: System) -> tuple[Package, ...]:
    own = [_package(f"package{number}", f"1.{dice.randrange(4)}", system) for number in dice.sample(range(_NAMES), 350)]
    python = [(f"package{number}", f"1.{dice.randrange(8)}") for number in dice.sample(range(_NAMES), 150)]
    return (*own, *(Package(type="python-pkg", name=name, version=at, purl=f"pkg:pypi/{name}@{at}") for name, at in python))


def _package(name: str, version: str, system: System) -> Package:
    if system.family == "alpine":
        full = f"{version}-r1"
        purl = f"pkg:apk/alpine/{name}@{full}?arch=x86_64&distro={system.version}"
        return Package(type="alpine", system=True, name=name, version=full, source=name, source_version=full, arch="x86_64", purl=purl)
    purl = f"pkg:deb/{system.family}/{name}@{version}-1?arch=amd64&distro={system.family}-{system.version}"
    return Package(
        type=system.family,
        system=True,
        name=name,
        version=version,
        release="1",
        source=name,
        source_version=version,
        source_release="1",
        arch="amd64",
        purl=purl,
    )


if __name__ == "__main__":
    main()

"""The real trivy: what is said from the kept packages is what a scan of the image would say, whatever the database."""

import http.client
import itertools
import json
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlwarden.embedded import images, trivydb
from mlwarden.embedded.build import binary
from mlwarden.embedded.trivydb import ADVISORIES, Advisory
from mlwarden.evidence import reevaluate as module
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.reevaluate import Reevaluated
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.report import Reread
from mlwarden.evidence.sboms import SBOMs
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def advisory(id_: str, ecosystem: str, package: str, fixed: str, severity: trivydb.Severity = "HIGH") -> Advisory:
    return Advisory(id=id_, ecosystem=ecosystem, package=package, fixed=fixed, severity=severity, title=id_)


OLD = (*ADVISORIES, advisory("CVE-1", "debian 12", "openssl", "3.0.99-1"), advisory("CVE-2", "npm", "left-pad", "9.0.0", "LOW"))
NEW = (
    *ADVISORIES[1:],  # the one of torch is withdrawn
    *OLD[len(ADVISORIES) :],
    advisory("CVE-3", "alpine 3.22", "musl", "1.2.5-r20", "CRITICAL"),
    advisory("CVE-4", "alpine 3.8", "musl", "2"),
    advisory("CVE-5", "debian 12", "openssl", ""),
    advisory("CVE-6", "pip", "torch", "2.5.1.post1", "MEDIUM"),
    advisory("CVE-7", "npm", "@scope/thing", "2.0.0"),
)
ALPINE = {"musl": "1.2.5-r9", "busybox": "1.37.0-r1"}
DEBIAN = {"openssl": "3.0.11-1~deb12u2", "libssl3 (openssl)": "1:3.0.11-1~deb12u2", "gpg-pubkey": "1"}


class House:
    """A registry, a database that changes, and what keeps what was found."""

    def __init__(self, registry: str, client: Registry, directory: Path) -> None:
        self.registry, self._client, self._directory = registry, client, directory
        (directory / "scratch").mkdir()
        self.trivy = Trivy(binary=binary("trivy"), cache=directory / "cache", scratch=directory / "scratch")
        self.sboms = SBOMs(directory / "sboms")
        self.use("amd64")
        self._bare = Gatherer(registry=client, trivy=self.trivy, architectures=("amd64",))

    def use(self, *architectures: str) -> None:
        self.gatherer = Gatherer(registry=self._client, trivy=self.trivy, architectures=architectures, sboms=self.sboms)

    def know(self, *advisories: Advisory) -> datetime:
        updated = datetime.now(UTC).replace(microsecond=0)
        trivydb.make_database(self._directory / "cache", advisories, updated=updated)
        return updated

    async def scan(self, repository: str, digest: str, *, keep: bool = True) -> Scan:
        return await (self.gatherer if keep else self._bare).scan([f"{self.registry}/{repository}@{digest}"])

    async def say(self, *digests: str) -> Reevaluated:
        return await self.gatherer.reevaluate([Digest(digest) for digest in digests])


@pytest.fixture
async def house(registry: str, tmp_path: Path) -> AsyncIterator[House]:
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        made = House(registry, client, tmp_path)
        made.know(*OLD)
        yield made


def index(registry: str, repository: str, digests: Sequence[str], architectures: Sequence[str] = ("amd64",)) -> str:
    rows = [
        {"mediaType": MANIFEST, "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}}
        for digest, architecture in zip(digests, itertools.cycle(architectures), strict=False)
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})
    connection = http.client.HTTPConnection(registry, timeout=10)
    connection.request("PUT", f"/v2/{repository}/manifests/index", body, {"Content-Type": INDEX})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 201
    return answer.headers["Docker-Content-Digest"]


def push_old(registry: str, name: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "ALPINE", "3.8.4")
        return images.push_image(registry, name, alpine={"musl": "1.1.19-r11"})


def push_unknown(registry: str, name: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "ALPINE", "99.1.0")
        return images.push_image(registry, name, alpine={"musl": "1.1.19-r11"})


def push_index(registry: str, name: str) -> str:
    repository = name.partition(":")[0]
    first = images.push_image(registry, f"{repository}:1", alpine=ALPINE, python={"torch": "2.5.1"})
    second = images.push_image(registry, f"{repository}:2", debian=DEBIAN, python={"torch": "2.5.1"})
    third = images.push_image(registry, f"{repository}:3", python={"torch": "2.6.0"})
    return index(registry, repository, [second, first, third])


STATIC = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
STATIC += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 0)
CONDA = {"opt/conda/conda-meta/numpy-1.26.0-py311_0.json": b'{"name": "numpy", "version": "1.26.0"}'}
PUSH: dict[str, Callable[[str, str], str]] = {
    "alpine": lambda host, name: images.push_image(host, name, alpine=ALPINE),
    "debian": lambda host, name: images.push_image(host, name, debian=DEBIAN),
    "python": lambda host, name: images.push_image(host, name, python={"torch": "2.5.1+cu121", "Requests": "2.32.4"}),
    "node": lambda host, name: images.push_image(host, name, alpine=ALPINE, node={"left-pad": "1.0.0", "@scope/thing": "1.0.0"}),
    "mixed": lambda host, name: images.push_image(host, name, debian=DEBIAN, python={"torch": "2.5.1"}, node={"left-pad": "1.0.0"}),
    "conda": lambda host, name: images.push_image(host, name, alpine=ALPINE, files=CONDA),
    "opaque": images.opaque,
    "deleted": lambda host, name: images.push_image(host, name, alpine={}),
    "static": lambda host, name: images.push_image(host, name, debian=DEBIAN, files={"app/server": STATIC}),
    "end-of-life": push_old,
    "unknown-release": push_unknown,
    "index": push_index,
}


def timeless(scan: Scan) -> dict[str, object]:
    """Everything but when it was done."""
    return msgspec.to_builtins(msgspec.structs.replace(scan, scanned_at=datetime.min.replace(tzinfo=UTC), read_at=None))  # type: ignore[no-any-return]


async def test_what_is_said_from_the_kept_packages_is_what_a_scan_with_the_new_database_says(house: House) -> None:
    digests = {name: push(house.registry, f"again/{name}:1") for name, push in PUSH.items()}
    before = {name: await house.scan(f"again/{name}", digest) for name, digest in digests.items()}
    house.know(*NEW)
    said = await house.say(*digests.values())
    assert said.left == {}
    for name, digest in digests.items():
        real = await house.scan(f"again/{name}", digest, keep=False)
        assert timeless(said.scans[Digest(digest)]) == timeless(real), name
        assert said.scans[Digest(digest)].read_at == before[name].scanned_at
    assert sum(timeless(before[name]) != timeless(said.scans[Digest(digest)]) for name, digest in digests.items()) > 5


async def test_what_is_newly_known_appears_and_what_was_withdrawn_is_gone(house: House) -> None:
    digest = images.push_image(house.registry, "again/both:1", alpine=ALPINE, python={"torch": "2.5.1"})
    before = await house.scan("again/both", digest)
    assert [found.id for found in before.vulnerabilities] == ["CVE-2025-32434", "CVE-2025-26519"]
    at = house.know(*NEW)
    after = (await house.say(digest)).scans[Digest(digest)]
    assert [found.id for found in after.vulnerabilities] == ["CVE-3", "CVE-2025-26519", "CVE-6"]
    assert after.database_at == at
    assert after.scanned_at > before.scanned_at


async def test_what_nodes_of_a_new_architecture_would_run_is_scanned_although_the_index_is_known(house: House) -> None:
    good = images.push_image(house.registry, "again/nodes:1", alpine={"musl": "1.2.5-r20"})
    bad = images.push_image(house.registry, "again/nodes:2", alpine=ALPINE)
    digest = index(house.registry, "again/nodes", [good, bad], ("amd64", "arm64"))
    assert not (await house.scan("again/nodes", digest)).counts.get("HIGH")
    house.use("amd64", "arm64")
    assert (await house.scan("again/nodes", digest)).counts["HIGH"] == 1


async def test_an_alpine_with_packages_of_another_release_is_left_to_a_scan(house: House) -> None:
    """Its advisories are those of the release in the list of repositories, which is in no report."""
    for name, release, left in (("edge", "edge", True), ("other", "v3.21", True), ("same", "v3.22", False)):
        files = {"etc/apk/repositories": f"https://dl-cdn.alpinelinux.org/alpine/{release}/main\n".encode()}
        digest = images.push_image(house.registry, f"again/{name}:1", alpine=ALPINE, files=files)
        await house.scan(f"again/{name}", digest)
        said = await house.say(digest)
        assert (Digest(digest) in said.left) is left, name


@pytest.mark.parametrize("packages", [{"musl": "1.2.5-r10071"}, {"seal-musl": "1.2.5-r9"}])
async def test_packages_that_change_what_is_looked_up_beside_them_are_left_to_a_scan(house: House, packages: dict[str, str]) -> None:
    """Trivy's drivers for Root.io and Seal: one package of theirs, and all others of the system are looked up elsewhere."""
    digest = images.push_image(house.registry, "again/vendor:1", alpine={**ALPINE, **packages})
    await house.scan("again/vendor", digest)
    assert list((await house.say(digest)).left) == [digest]


async def test_what_is_not_kept_is_left_to_a_scan(house: House) -> None:
    said = await house.say("sha256:" + "0" * 64)
    assert said.scans == {}
    assert list(said.left.values()) == ["its packages are not kept"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trivy": "0.71.9"}, "listed by trivy 0.71.9"),
        ({"scanners": ("vuln", "secret")}, "other things are looked for"),
        ({"architectures": ("arm64",)}, "other architectures"),
    ],
)
async def test_what_another_scanner_kept_is_left_to_a_scan(house: House, change: dict[str, object], says: str) -> None:
    digest = Digest(images.push_image(house.registry, "again/kept:1", alpine=ALPINE))
    await house.scan("again/kept", digest)
    record = house.sboms.get(digest)
    assert record is not None
    house.sboms.put(msgspec.structs.replace(record, **change))
    assert says in (await house.say(digest)).left[digest]


@pytest.mark.parametrize(
    "change",
    [
        {"purl": "pkg:apk/alpine/other@1?arch=x86_64&distro=3.22.1"},
        {"purl": "pkg:nothing/musl@1.2.5-r9"},
        {"purl": "not a package url"},
        {"purl": ""},
        {"source": "", "source_version": "7"},
        {"arch": "riscv64"},
        {"version": "1.2.5-r10"},
    ],
)
async def test_a_package_that_trivy_sees_differently_outside_the_image_leaves_its_images_to_a_scan(
    house: House, change: dict[str, object]
) -> None:
    digest, other = (Digest(images.push_image(house.registry, f"again/{name}:1", alpine={name: "1.2.5-r9"})) for name in ("musl", "zlib"))
    await house.scan("again/musl", digest)
    await house.scan("again/zlib", other)
    record = house.sboms.get(digest)
    assert record is not None
    (image,) = record.images
    (package,) = image.packages
    changed = msgspec.structs.replace(image, packages=(msgspec.structs.replace(package, **change),))
    house.sboms.put(msgspec.structs.replace(record, images=(changed,)))
    said = await house.say(digest, other)
    assert (list(said.left), list(said.scans)) == ([digest], [other])


async def test_a_list_that_nobody_can_read_costs_only_the_images_that_spoil_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"p{number}" for number in range(8)]
    digests = {
        name: Digest(images.push_image(house.registry, f"again/{name}:1", alpine={name: "1.0-r0", "musl": "1.2.5-r9"})) for name in names
    }
    for name, digest in digests.items():
        await house.scan(f"again/{name}", digest)
    real = house.trivy.reread

    async def spoilt(document: bytes) -> tuple[Reread, tuple[str, ...]]:
        if b'"p5"' in document:
            raise TransientError("trivy was killed by signal 9")
        return await real(document)

    monkeypatch.setattr(house.trivy, "reread", spoilt)
    said = await house.say(*digests.values())
    assert said.left == {digests["p5"]: "its packages could not be looked up: trivy was killed by signal 9"}
    assert all(scan.counts == {"HIGH": 1, "unfixed": 0} for scan in said.scans.values())


async def test_a_trivy_that_fails_every_time_leaves_all_to_scans_and_is_not_tried_forever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = images.push_image(house.registry, "again/many:1", alpine={f"p{number}": "1.0-r0" for number in range(300)})
    await house.scan("again/many", digest)
    tries = 0

    async def fails(document: bytes) -> tuple[Reread, tuple[str, ...]]:
        nonlocal tries
        tries += 1
        raise TransientError("trivy failed (1): no")

    monkeypatch.setattr(house.trivy, "reread", fails)
    assert list((await house.say(digest)).left) == [digest]
    assert tries <= 1 + module.RETRIES


async def test_a_list_that_is_too_long_is_looked_up_in_parts(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 2)
    digest = images.push_image(
        house.registry, "again/parts:1", alpine={**ALPINE, "zlib": "1-r1"}, python={"torch": "2.5.1", "a": "1", "b": "2"}
    )
    real = await house.scan("again/parts", digest)
    said = await house.say(digest)
    assert timeless(said.scans[Digest(digest)]) == timeless(real)


async def test_many_digests_cost_one_trivy_for_each_system_and_one_for_all_languages(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for number in range(5):
        for system in ("alpine", "debian"):
            name = f"again/{system}{number}"
            packages = {"musl": "1.2.5-r9", f"own{number}": "1-r1"} if system == "alpine" else {"openssl": f"3.0.{number}-1"}
            digests.append(images.push_image(house.registry, f"{name}:1", python={"torch": f"2.{number}.0"}, **{system: packages}))
            await house.scan(name, digests[-1])
    real, runs = house.trivy.reread, []

    async def counted(document: bytes) -> tuple[Reread, tuple[str, ...]]:
        runs.append(document)
        return await real(document)

    monkeypatch.setattr(house.trivy, "reread", counted)
    assert len((await house.say(*digests)).scans) == 10
    assert len(runs) == 3


async def test_no_more_packages_are_held_at_a_time_than_fit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image has packages that no other has: two hundred of them with eighty thousand each would not fit into any memory."""
    digests = []
    for number in range(6):
        name = f"again/own{number}"
        digests.append(
            images.push_image(house.registry, f"{name}:1", python={"torch": "2.5.1", f"own{number}a": "1", f"own{number}b": "1"})
        )
        await house.scan(name, digests[-1])
    at_once = await house.say(*digests)
    monkeypatch.setattr(module, "MOST", 4)
    sizes: list[int] = []
    real = module._Lookups.__init__

    def held(self: Any, trivy: Any, pool: Any, slots: Any) -> None:
        sizes.append(len(pool.packages))
        real(self, trivy, pool, slots)

    monkeypatch.setattr(module._Lookups, "__init__", held)
    in_parts = await house.say(*digests)
    assert {digest: timeless(scan) for digest, scan in in_parts.scans.items()} == {
        digest: timeless(scan) for digest, scan in at_once.scans.items()
    }
    assert len(in_parts.scans) == 6
    assert len(sizes) > 1
    assert max(sizes) < 2 * 4


async def test_without_a_database_nothing_is_said(house: House, tmp_path: Path) -> None:
    (tmp_path / "cache" / "db" / "metadata.json").unlink()
    with pytest.raises(TransientError, match="no vulnerability database"):
        await house.say("sha256:" + "0" * 64)

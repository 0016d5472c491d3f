"""The real trivy, a real registry, images made for the purpose."""

import asyncio
import http.client
import io
import json
import struct
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.evidence.failure import DefinitiveError, TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Trivy

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ALPINE = {"musl": "1.2.5-r10"}


@pytest.fixture
async def gatherer(registry: str, database: Path, tmp_path: Path) -> AsyncIterator[Gatherer]:
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        yield Gatherer(registry=client, trivy=trivy, architectures=("amd64",))


def put(registry: str, repository: str, tag: str, body: object, media_type: str) -> str:
    """Pushes a manifest as it is; returns its digest."""
    connection = http.client.HTTPConnection(registry, timeout=10)
    connection.request("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(body), {"Content-Type": media_type})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 201
    return answer.headers["Docker-Content-Digest"]


def index(registry: str, repository: str, *entries: tuple[str, str | None]) -> str:
    """Pushes an index of `(digest, architecture)`, or `(digest, os/architecture)`."""
    rows = []
    for digest, platform in entries:
        row: dict[str, object] = {"mediaType": MANIFEST, "digest": digest, "size": size(registry, repository, digest)}
        if platform:
            os, _, architecture = platform.rpartition("/")
            row["platform"] = {"os": os or "linux", "architecture": architecture}
        rows.append(row)
    return put(registry, repository, "index", {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}, INDEX)


def size(registry: str, repository: str, digest: str) -> int:
    connection = http.client.HTTPConnection(registry, timeout=10)
    connection.request("GET", f"/v2/{repository}/manifests/{digest}")
    length = len(connection.getresponse().read())
    connection.close()
    return length


async def test_a_tag_points_at_what_was_pushed(gatherer: Gatherer, registry: str) -> None:
    digest = images.clean(registry, "team/clean:1")
    assert await gatherer.resolve(f"{registry}/team/clean:1") == digest
    with pytest.raises(DefinitiveError, match="no such image"):
        await gatherer.resolve(f"{registry}/team/clean:2")


async def test_a_clean_image_is_scanned_clean(gatherer: Gatherer, registry: str, tmp_path: Path) -> None:
    digest = images.clean(registry, "team/clean:1")
    scan = await gatherer.scan([f"{registry}/team/clean@{digest}"])
    assert scan.counts == {"unfixed": 0}
    assert scan.blind == ()
    assert scan.os == "alpine 3.22.1"
    assert scan.packages == 3
    assert scan.scanner.startswith("trivy 0.")
    assert scan.database_at is not None
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 -- a test


async def test_a_vulnerable_image_is_scanned_vulnerable(gatherer: Gatherer, registry: str) -> None:
    digest = images.vulnerable(registry, "team/bad:1")
    scan = await gatherer.scan([f"{registry}/team/bad@{digest}"])
    assert scan.counts == {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}
    assert [(kept.id, kept.package, kept.installed, kept.fixed) for kept in scan.vulnerabilities] == [
        ("CVE-2025-32434", "torch", "2.5.1", "2.6.0"),
        ("CVE-2025-26519", "musl", "1.2.5-r9", "1.2.5-r10"),
    ]


async def test_a_system_past_its_end_of_life_is_said_to_be(gatherer: Gatherer, registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ALPINE", "3.8.4")
    digest = images.push_image(registry, "team/old:1", alpine=ALPINE)
    old = await gatherer.scan([f"{registry}/team/old@{digest}"])
    assert (old.eol, old.os, old.blind) == (True, "alpine 3.8.4", ())


async def test_secrets_and_mistakes_are_found_where_they_are_looked_for(registry: str, database: Path, tmp_path: Path) -> None:
    key = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"MIIEowIBAAKCAQEAn5Yv4bJ0y2GfS1q8\n" * 12 + b"-----END RSA PRIVATE KEY-----\n"
    history = ["COPY . /app # buildkit", "USER root"]
    digest = images.push_image(registry, "team/secret:1", alpine=ALPINE, files={"app/id_rsa": key}, history=history)
    scans = []
    for scanners in ((), ("secret", "misconfig")):
        trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path, scanners=scanners)
        async with Registry(plain_http=frozenset({registry})) as client:
            scans.append(await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan([f"{registry}/team/secret@{digest}"]))
    plain, full = scans
    assert (plain.scanners, plain.secret_counts, plain.misconfiguration_counts) == (("vuln",), {}, {})
    assert full.scanners == ("vuln", "secret", "misconfig")
    assert [(found.id, found.severity, found.where) for found in full.secrets] == [("private-key", "HIGH", "/app/id_rsa:2")]
    assert any("root" in found.title for found in full.misconfigurations)
    assert full.packages == plain.packages


async def test_an_image_that_does_not_say_how_it_was_made_has_a_configuration_nobody_judged(
    registry: str, database: Path, tmp_path: Path
) -> None:
    digest = images.push_image(registry, "team/silent:1", alpine=ALPINE)
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path, scanners=("misconfig",))
    async with Registry(plain_http=frozenset({registry})) as client:
        assert (
            await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan([f"{registry}/team/silent@{digest}"])
        ).scanners == ("vuln",)


async def test_a_vulnerability_without_a_fix_is_counted_apart(gatherer: Gatherer, registry: str) -> None:
    digest = images.without_fix(registry, "team/unfixed:1")
    assert (await gatherer.scan([f"{registry}/team/unfixed@{digest}"])).counts == {"unfixed": 1}


async def test_a_version_of_the_system_that_trivy_has_no_advisories_for_is_blind(
    gatherer: Gatherer, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ALPINE", "99.1.0")
    digest = images.vulnerable(registry, "team/tomorrow:1")
    scan = await gatherer.scan([f"{registry}/team/tomorrow@{digest}"])
    assert any("does not know this version" in reason for reason in scan.blind)


async def test_an_image_without_system_and_packages_is_blind(gatherer: Gatherer, registry: str) -> None:
    digest = images.opaque(registry, "team/opaque:1")
    assert (await gatherer.scan([f"{registry}/team/opaque@{digest}"])).blind == ("no operating system and no packages recognised",)


async def test_a_static_program_of_no_package_is_a_blind_spot_and_one_of_go_is_not(gatherer: Gatherer, registry: str) -> None:
    """Go's programs carry build information, which trivy reads."""
    static = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    crane = bytearray(Path(binary("crane")).read_bytes())  # noqa: ASYNC240 -- a test
    for at in range(64, 64 + 56 * struct.unpack_from("<H", crane, 56)[0], 56):  # as if linked statically: no PT_INTERP
        if struct.unpack_from("<I", crane, at)[0] == 3:
            struct.pack_into("<I", crane, at, 0)
    files = {"app/server": static + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, 0), "app/crane": bytes(crane)}
    digest = images.push_image(registry, "team/static:1", alpine=ALPINE, files=files)
    scan = await gatherer.scan([f"{registry}/team/static@{digest}"])
    assert scan.packages > 10
    assert scan.blind == ("1 statically linked program without build information: app/server",)


@pytest.mark.parametrize(
    ("metadata", "blind"),
    [(b"Metadata-Version: 2.1\nName: torch\nVersion: 2.5.1\n", False), (b"Metadata-Version: 2.1\nVersion: 2.5.1\n", True)],
    ids=["as pip writes it", "without its name"],
)
async def test_a_package_that_trivy_does_not_list_is_a_blind_spot(
    gatherer: Gatherer, registry: str, attack: Callable[[str, str, str], None], *, metadata: bytes, blind: bool
) -> None:
    folder = "usr/lib/python3.12/site-packages/torch-2.5.1.dist-info"
    files = {f"{folder}/METADATA": metadata, f"{folder}/RECORD": b"torch/__init__.py,,\n"}
    digest = images.push_image(registry, "team/described:1", alpine=ALPINE, files=files)
    scan = await gatherer.scan([f"{registry}/team/described@{digest}"])
    assert scan.counts.get("CRITICAL", 0) == (0 if blind else 1)
    assert scan.blind == ((f"1 description of a package is hidden from trivy: {folder}",) if blind else ())
    attack(
        "packages hidden by a link, a whiteout or a METADATA without a name",
        "clean",
        "Unknown, up to 64 MiB; larger images: said in the docs",
    )


@pytest.mark.parametrize(
    "path", ["opt/conda/conda-meta/numpy-1.26.0-py311_0.json", "opt/conda/envs/x/conda-meta/numpy-1.26.0-py311_0.json"]
)
async def test_conda_packages_are_a_blind_spot_in_every_environment(gatherer: Gatherer, registry: str, path: str) -> None:
    digest = images.push_image(registry, "team/conda:1", alpine=ALPINE, files={path: b'{"name": "numpy", "version": "1.26.0"}'})
    assert (await gatherer.scan([f"{registry}/team/conda@{digest}"])).blind == ("trivy has no advisories for conda packages (1 found)",)


async def test_java_archives_without_a_java_index_are_a_blind_spot_and_the_rest_is_scanned(gatherer: Gatherer, registry: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nImplementation-Title: x\n")
    digest = images.push_image(registry, "team/java:1", alpine={"musl": "1.2.5-r9"}, files={"app/x.jar": archive.getvalue()})
    scan = await gatherer.scan([f"{registry}/team/java@{digest}"])
    assert scan.counts == {"HIGH": 1, "unfixed": 0}
    assert any("Java" in reason for reason in scan.blind)


async def test_a_deleted_package_database_does_not_look_clean(gatherer: Gatherer, registry: str) -> None:
    digest = images.push_image(registry, "team/deleted:1", alpine={})
    (blind,) = (await gatherer.scan([f"{registry}/team/deleted@{digest}"])).blind
    assert "no list of its packages" in blind


async def test_every_entry_of_an_index_that_our_nodes_could_run_is_scanned(gatherer: Gatherer, registry: str) -> None:
    clean = images.clean(registry, "team/index:clean")
    bad = images.vulnerable(registry, "team/index:bad")
    first = index(registry, "team/index", (clean, "amd64"), (bad, "amd64"))
    assert (await gatherer.scan([f"{registry}/team/index@{first}"])).counts == {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}
    nameless = index(registry, "team/index", (clean, None), (bad, None))
    assert (await gatherer.scan([f"{registry}/team/index@{nameless}"])).counts == {"CRITICAL": 1, "HIGH": 1, "unfixed": 0}
    other = index(registry, "team/index", (clean, "amd64"), (bad, "s390x"))
    assert (await gatherer.scan([f"{registry}/team/index@{other}"])).counts == {"unfixed": 0}


async def test_the_manifests_that_were_scanned_of_an_index_are_kept(gatherer: Gatherer, registry: str) -> None:
    clean, bad = images.clean(registry, "team/index4:clean"), images.vulnerable(registry, "team/index4:bad")
    both = index(registry, "team/index4", (clean, "amd64"), (bad, "amd64"), (clean, None))
    assert (await gatherer.scan([f"{registry}/team/index4@{both}"])).manifests == (clean, bad)
    one = index(registry, "team/index4", (clean, "amd64"), (bad, "s390x"))
    assert (await gatherer.scan([f"{registry}/team/index4@{one}"])).manifests == (clean,)
    assert (await gatherer.scan([f"{registry}/team/index4@{clean}"])).manifests == ()


async def test_what_was_not_scanned_of_an_index_is_written_down(gatherer: Gatherer, registry: str) -> None:
    clean, bad = images.clean(registry, "team/left:clean"), images.vulnerable(registry, "team/left:bad")

    async def of(*entries: tuple[str, str | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        scan = await gatherer.scan([f"{registry}/team/left@{index(registry, 'team/left', *entries)}"])
        return scan.platforms, scan.unjudged

    amd64 = ("linux/amd64",)
    assert await of((clean, "amd64"), (bad, "s390x"), (bad, "windows/amd64")) == (amd64, ("linux/s390x", "windows/amd64"))
    assert await of((clean, "amd64"), (bad, "freebsd/amd64"), (bad, "Windows/AMD64")) == (amd64, ("freebsd/amd64", "windows/amd64"))
    assert await of((clean, "amd64"), (bad, "unknown/unknown")) == (amd64, ())  # BuildKit's attestations: no node is of it
    assert await of((clean, "amd64"), (bad, "unknown/amd64")) == (amd64, ("unknown/amd64",))
    assert await of((clean, "386"), (clean, "arm64")) == (("linux/amd64", "linux/386"), ("linux/arm64",))  # which amd64 runs, too
    assert await of((clean, None), (bad, "windows/amd64")) == (("linux/amd64", "linux/386"), ("windows/amd64",))
    only = await gatherer.scan([f"{registry}/team/left@{clean}"])
    assert (only.platforms, only.unjudged) == ((), ())


IMAGE = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize(
    "change",
    [
        {"platform": {"os": "Linux", "architecture": "amd64"}},
        {"platform": {"os": "linux", "architecture": "x86_64"}},
        {"platform": {"os": "linux", "architecture": "AMD64"}},
        {"platform": {"os": "linux", "architecture": "386"}},
        {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
    ],
)
async def test_what_containerd_could_pick_from_an_index_is_scanned(gatherer: Gatherer, registry: str, change: dict[str, object]) -> None:
    clean, bad = images.clean(registry, "team/pick:clean"), images.vulnerable(registry, "team/pick:bad")
    rows = [
        {
            "mediaType": IMAGE,
            "digest": each,
            "size": size(registry, "team/pick", each),
            "platform": {"os": "linux", "architecture": "amd64"},
        }
        for each in (bad, clean)
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**rows[0], **change}, rows[1]]}
    digest = put(registry, "team/pick", "index", document, INDEX)
    assert (await gatherer.scan([f"{registry}/team/pick@{digest}"])).counts["CRITICAL"] == 1


@pytest.mark.parametrize(
    ("key", "inside"), [("Manifests", False), ("manife\u017fts", False), ("Digest", True), ("Platform", True), ("DIGEST", True)]
)
async def test_what_go_reads_otherwise_than_python_is_refused(gatherer: Gatherer, registry: str, key: str, *, inside: bool) -> None:
    clean, bad = images.clean(registry, "team/fold:clean"), images.vulnerable(registry, "team/fold:bad")
    row = {"mediaType": IMAGE, "digest": clean, "size": size(registry, "team/fold", clean)}
    other = {**row, "digest": bad}
    value: object = {"Digest": bad, "DIGEST": bad, "Platform": {"os": "linux"}}.get(key, [other])
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**row, **({key: value} if inside else {})}]}
    digest = put(registry, "team/fold", "index", document if inside else {**document, key: value}, INDEX)
    with pytest.raises(DefinitiveError, match="twice, or in another case"):
        await gatherer.scan([f"{registry}/team/fold@{digest}"])


async def test_what_is_an_image_and_an_index_at_once_is_refused(gatherer: Gatherer, registry: str) -> None:
    clean = images.clean(registry, "team/both:clean")
    row = {"mediaType": IMAGE, "digest": clean, "size": size(registry, "team/both", clean)}
    digest = put(registry, "team/both", "both", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [row], "layers": []}, INDEX)
    with pytest.raises(DefinitiveError, match="neither an image nor an index, or both"):
        await gatherer.scan([f"{registry}/team/both@{digest}"])


async def test_an_index_without_an_image_for_our_nodes_is_blind(gatherer: Gatherer, registry: str) -> None:
    digest = index(registry, "team/index2", (images.clean(registry, "team/index2:x"), "s390x"))
    assert (await gatherer.scan([f"{registry}/team/index2@{digest}"])).blind == ("the index has no image for linux/amd64, linux/386",)


async def test_an_index_of_ten_thousand_entries_is_not_scanned_ten_thousand_times(gatherer: Gatherer, registry: str) -> None:
    clean = images.clean(registry, "team/index3:x")
    entry = {"mediaType": MANIFEST, "digest": clean, "size": 1}
    rows = [entry | {"platform": {"os": "linux", "architecture": "amd64", "variant": f"v{number}"}} for number in range(10_000)]
    digest = put(registry, "team/index3", "big", {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}, INDEX)
    assert (await gatherer.scan([f"{registry}/team/index3@{digest}"])).counts == {"unfixed": 0}


async def test_an_index_inside_an_index_is_refused(gatherer: Gatherer, registry: str) -> None:
    inner = index(registry, "team/nested", (images.clean(registry, "team/nested:x"), "amd64"))
    entry = {"mediaType": INDEX, "digest": inner, "size": size(registry, "team/nested", inner)}
    outer = put(registry, "team/nested", "outer", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    with pytest.raises(DefinitiveError, match="index inside an index"):
        await gatherer.scan([f"{registry}/team/nested@{outer}"])


async def test_a_digest_is_taken_from_the_first_repository_that_has_it(gatherer: Gatherer, registry: str) -> None:
    digest = images.clean(registry, "team/here:1")
    scan = await gatherer.scan([f"{registry}/team/nowhere@{digest}", f"{registry}/team/here@{digest}"])
    assert scan.counts == {"unfixed": 0}
    with pytest.raises(DefinitiveError, match="no such image"):
        await gatherer.scan([f"{registry}/team/nowhere@{digest}"])


async def test_a_repository_that_may_have_it_keeps_a_failure_transient(gatherer: Gatherer, registry: str) -> None:
    digest = images.clean(registry, "team/here:1")
    with pytest.raises(TransientError):
        await gatherer.scan([f"{registry}/team/nowhere@{digest}", f"registry.invalid/x@{digest}"])


async def test_an_image_named_without_a_digest_is_not_scanned(gatherer: Gatherer, registry: str) -> None:
    with pytest.raises(DefinitiveError, match="without a digest"):
        await gatherer.scan([f"{registry}/team/clean:1"])


async def test_without_a_database_nothing_is_scanned(registry: str, tmp_path: Path) -> None:
    digest = images.clean(registry, "team/clean:1")
    trivy = Trivy(binary=binary("trivy"), cache=tmp_path / "nothing", scratch=tmp_path)
    async with Registry(plain_http=frozenset({registry})) as client:
        with pytest.raises(TransientError, match="no vulnerability database"):
            await Gatherer(registry=client, trivy=trivy, architectures=("amd64",)).scan([f"{registry}/team/clean@{digest}"])


async def test_a_scan_that_is_cancelled_leaves_nothing_on_disk(gatherer: Gatherer, registry: str, tmp_path: Path) -> None:
    digest = images.clean(registry, "team/clean:1")
    task = asyncio.create_task(gatherer.scan([f"{registry}/team/clean@{digest}"]))
    while not any(path.name.startswith("scan-") for path in tmp_path.iterdir()):  # noqa: ASYNC240 -- a test
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 -- a test

"""Vulnerability databases from a file, a directory and a mirror: the real trivy opens them, or they are not used."""

import gzip
import http.client
import io
import tarfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlwarden.embedded import images, trivydb
from mlwarden.embedded.build import binary
from mlwarden.evidence import database
from mlwarden.evidence.database import Origin
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.trivy import Trivy

JUNE, JULY = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


def trivy(directory: Path, origin: Origin) -> Trivy:
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    return Trivy(binary=binary("trivy"), cache=directory / "cache", scratch=scratch, origin=origin)


def members(directory: Path, updated: datetime = JUNE) -> dict[str, bytes]:
    made = trivydb.make_database(directory / f"made-{updated:%m}", updated=updated) / "db"
    return {name: (made / name).read_bytes() for name in ("trivy.db", "metadata.json")}


def archive(path: Path, content: dict[str, bytes], *, odd: Iterable[tarfile.TarInfo] = (), prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz") as out:
        for member in odd:
            out.addfile(member)
        for name, data in content.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("prefix", ["", "./", "db/"])
async def test_a_published_archive_becomes_the_database(tmp_path: Path, prefix: str) -> None:
    file = archive(tmp_path / "db.tar.gz", members(tmp_path), prefix=prefix)
    subject = trivy(tmp_path, Origin(file=file))
    assert await subject.update()
    assert subject.database().updated_at == JUNE
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"db"}


async def test_a_directory_becomes_the_database_and_a_newer_one_replaces_it(tmp_path: Path) -> None:
    subject = trivy(tmp_path, Origin(file=trivydb.make_database(tmp_path / "carried", updated=JUNE) / "db"))
    assert await subject.update()
    assert not await subject.update()
    trivydb.make_database(tmp_path / "carried", updated=JULY)
    assert await subject.update()
    assert subject.database().updated_at == JULY
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"db"}


async def test_the_same_database_in_another_file_is_not_a_new_one(tmp_path: Path) -> None:
    content = members(tmp_path)
    file = archive(tmp_path / "db.tar.gz", content)
    subject = trivy(tmp_path, Origin(file=file))
    assert await subject.update()
    archive(file, content)
    assert not await subject.update()


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


async def test_what_else_is_in_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    odd = [tarfile.TarInfo("../../outside"), tarfile.TarInfo(str(outside)), link("trivy.db", str(outside)), tarfile.TarInfo("x" * 4096)]
    subject = trivy(tmp_path, Origin(file=archive(tmp_path / "db.tar.gz", members(tmp_path), odd=odd)))
    assert await subject.update()
    assert not outside.exists()
    assert {path.name for path in (tmp_path / "cache" / "db").iterdir()} == {"trivy.db", "metadata.json"}


def broken(directory: Path) -> dict[str, bytes | dict[str, bytes]]:
    good = members(directory)
    whole = archive(directory / "good.tar.gz", good).read_bytes()
    return {
        "empty": b"",
        "not an archive": b"hello",
        "cut short": whole[: len(whole) // 2],
        "a bomb": gzip.compress(b"\0" * 10_000_000),
        "no metadata": {"trivy.db": good["trivy.db"]},
        "no content": {"metadata.json": good["metadata.json"]},
        "metadata that is none": good | {"metadata.json": b"[]"},
        "metadata that is large": good | {"metadata.json": good["metadata.json"] + b" " * 100_000},
        "another schema": good | {"metadata.json": good["metadata.json"].replace(b'"Version": 2', b'"Version": 3')},
        "content that is none": good | {"trivy.db": b"x" * 100_000},
        "content that is cut short": good | {"trivy.db": good["trivy.db"][:4096]},
        "content that is empty": good | {"trivy.db": b""},
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("empty", "not an archive", "cut short", "a bomb", "no metadata", "no content", "metadata that is none", "metadata that is large"),
        *("another schema", "content that is none", "content that is cut short", "content that is empty"),
    ],
)
async def test_what_is_no_database_leaves_the_old_one(tmp_path: Path, kind: str) -> None:
    old = trivy(tmp_path, Origin(file=archive(tmp_path / "old.tar.gz", members(tmp_path, JULY))))
    assert await old.update()
    found, file = broken(tmp_path)[kind], tmp_path / "db.tar.gz"
    if isinstance(found, bytes):
        file.write_bytes(found)
    else:
        archive(file, found)
    subject = trivy(tmp_path, Origin(file=file))
    with pytest.raises(TransientError) as error:
        await subject.update()
    assert "\n" not in str(error.value)
    assert subject.database().updated_at == JULY
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"db"}


async def test_a_file_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"nothing\.tar\.gz cannot be used: FileNotFoundError"):
        await trivy(tmp_path, Origin(file=tmp_path / "nothing.tar.gz")).update()


async def test_a_database_larger_than_any_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LARGEST", 8192)
    with pytest.raises(TransientError, match=r"its trivy\.db is too large"):
        await trivy(tmp_path, Origin(file=archive(tmp_path / "db.tar.gz", members(tmp_path)))).update()


def publish(registry: str, repository: str, content: dict[str, bytes], directory: Path) -> None:
    """As trivy's own databases are published: an OCI artifact with one layer."""
    layer = archive(directory / "layer.tar.gz", content).read_bytes()
    kinds = {
        name: f"application/vnd.aquasec.trivy.{kind}"
        for name, kind in (("config_type", "config.v1+json"), ("layer_type", "db.layer.v1.tar+gzip"))
    }
    images.push_artifact(registry, f"{repository}:2", layer=layer, title="db.tar.gz", **kinds)


async def test_a_mirror_is_asked_instead_of_the_registries_that_trivy_knows(registry: str, tmp_path: Path) -> None:
    publish(registry, "mirror/trivy-db", members(tmp_path), tmp_path)
    subject = trivy(tmp_path, Origin(repositories=(f"{registry}/mirror/trivy-db:2",), plain_http=True))
    assert await subject.update()
    assert subject.database().updated_at == JUNE
    assert not await subject.update()


async def test_a_mirror_that_publishes_something_else_leaves_the_old_database(registry: str, tmp_path: Path) -> None:
    overdue = members(tmp_path) | {"metadata.json": b'{"Version":2,"UpdatedAt":"2020-01-01T00:00:00Z","NextUpdate":"2020-01-02T00:00:00Z"}'}
    publish(registry, "mirror/broken", members(tmp_path) | {"trivy.db": b"x" * 100_000}, tmp_path)
    first = trivy(tmp_path, Origin(file=archive(tmp_path / "old.tar.gz", overdue)))
    assert await first.update()
    subject = trivy(tmp_path, Origin(repositories=(f"{registry}/mirror/broken:2",), plain_http=True))
    with pytest.raises(TransientError, match="that was fetched cannot be used"):
        await subject.update()
    assert subject.database().updated_at == datetime(2020, 1, 1, tzinfo=UTC)


async def test_a_mirror_that_lags_behind_is_not_asked_all_the_time(registry: str, tmp_path: Path) -> None:
    overdue = members(tmp_path) | {"metadata.json": b'{"Version":2,"UpdatedAt":"2020-01-01T00:00:00Z","NextUpdate":"2020-01-02T00:00:00Z"}'}
    publish(registry, "mirror/lagging", overdue, tmp_path)
    repositories = (f"{registry}/mirror/lagging:2",)
    seldom = trivy(tmp_path, Origin(repositories=repositories, plain_http=True))
    assert await seldom.update()
    connection = http.client.HTTPConnection(registry, timeout=10)
    connection.request("DELETE", "/v2/mirror/lagging/manifests/2")
    assert connection.getresponse().status < 300
    connection.close()
    assert not await seldom.update()
    often = trivy(tmp_path, Origin(repositories=repositories, plain_http=True, every=0))
    with pytest.raises(TransientError, match="cannot be fetched"):
        await often.update()

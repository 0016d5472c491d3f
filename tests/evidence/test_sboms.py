"""The directory of packages: bounded, and whatever is in it may be broken."""

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from mlwarden.evidence import sboms
from mlwarden.evidence.report import Package, System
from mlwarden.evidence.sboms import Image, Record, SBOMs
from mlwarden.model.digest import Digest

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def name(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def record(number: int, size: int = 1) -> Record:
    """Of `size` packages that do not compress well."""
    packages = tuple(Package(type="debian", system=True, name=os.urandom(16).hex(), version="1") for _ in range(size))
    image = Image(digest=name(number), system=System(family="debian", version="12.5"), packages=packages, lasting=("x",))
    return Record(digest=name(number), trivy="0.72.0", scanners=("vuln",), read_at=NOW, images=(image,))


def test_what_is_put_is_got(tmp_path: Path) -> None:
    kept = record(1)
    assert SBOMs(tmp_path).put(kept)
    assert SBOMs(tmp_path).get(name(1)) == msgspec.structs.replace(kept, format=sboms.FORMAT)
    assert SBOMs(tmp_path).get(name(2)) is None


def test_what_was_not_asked_for_longest_goes_first(tmp_path: Path) -> None:
    SBOMs(tmp_path).put(record(0, 100))
    (file,) = tmp_path.iterdir()
    kept = SBOMs(tmp_path, limit=3 * file.stat().st_size + 100)
    for number in (1, 2):
        kept.put(record(number, 100))
    for age, number in enumerate((2, 0, 1)):
        os.utime(tmp_path / f"{number:064x}.json.gz", ns=(age, age))
    assert kept.get(name(2)) is not None
    kept.put(record(3, 100))
    assert set(kept.digests()) == {name(1), name(2), name(3)}


def test_the_limit_holds_whatever_is_put(tmp_path: Path) -> None:
    kept = SBOMs(tmp_path, limit=20_000)
    for number in range(60):
        kept.put(record(number % 40, 1 + number * 7 % 90))
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 20_000
    assert kept.digests()[0] == name(19)


def test_what_does_not_fit_is_not_kept_and_neither_is_what_it_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = SBOMs(tmp_path, limit=5_000)
    assert kept.put(record(1))
    assert not kept.put(record(1, 1000))
    assert kept.digests() == ()
    monkeypatch.setattr(sboms, "LARGEST", 1000)
    assert not kept.put(record(1, 10))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not gzip",
        gzip.compress(b""),
        gzip.compress(b"not json"),
        gzip.compress(b"[" * 100_000),
        gzip.compress(msgspec.json.encode(record(1)))[:-5],
        gzip.compress(msgspec.json.encode(record(1))) + b"more",
        gzip.compress(msgspec.json.encode(record(1))),  # of no format
        gzip.compress(msgspec.json.encode(msgspec.structs.replace(record(1), format=sboms.FORMAT + 1))),
        gzip.compress(msgspec.json.encode(msgspec.structs.replace(record(2), format=sboms.FORMAT))),
        gzip.compress(b"0" * (sboms.LARGEST + 1)),
    ],
    ids=[
        "nothing",
        "no gzip",
        "an empty archive",
        "no JSON",
        "nested",
        "cut",
        "a tail",
        "no format",
        "another format",
        "of another",
        "too large",
    ],
)
def test_a_broken_file_counts_as_not_kept_and_is_removed(tmp_path: Path, content: bytes) -> None:
    kept = SBOMs(tmp_path)
    (tmp_path / f"{1:064x}.json.gz").write_bytes(content)
    assert kept.get(name(1)) is None
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    kept = SBOMs(tmp_path)
    kept.put(record(1, 50))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for place in range(10, len(whole), 97):  # after the header, where nothing that matters stands
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept.get(name(1)) is None


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".x.tmp").write_bytes(b"half")
    SBOMs(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_somebody_else_removed_is_not_missed(tmp_path: Path) -> None:
    kept = SBOMs(tmp_path, limit=10_000)
    kept.put(record(1, 50))
    (tmp_path / f"{1:064x}.json.gz").unlink()
    kept.remove(name(1))
    assert kept.put(record(2, 50))
    assert kept.digests() == (name(2),)


def test_the_document_for_people_names_the_image_and_every_package() -> None:
    (image,) = record(1, 2).images
    found = msgspec.json.decode(sboms.described(image, name="registry.example/team/model"))
    assert (found["bomFormat"], found["metadata"]["component"]["version"]) == ("CycloneDX", name(1))
    assert {each["name"] for each in found["components"]} == {"debian", *(package.name for package in image.packages)}

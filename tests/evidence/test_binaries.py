"""Programs that nobody can see into: what is one, whose it is, and when nothing is said. Real programs, from a real linker."""

import gzip
import hashlib
import io
import struct
import sys
import tarfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.evidence import binaries
from mlwarden.evidence.failure import DefinitiveError
from mlwarden.evidence.registry import Registry
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

APK = b"P:tool\nV:1-r0\nF:usr/bin\nR:tool\nR:other\nF:bin\nR:static\n"


def elf(kind: int = 2, *segments: int, dynamic: Iterable[tuple[int, int]] = ()) -> bytes:
    """A 64-bit program: its header, its segments, and what is in the dynamic one."""
    table = b"".join(struct.pack("<QQ", tag, value) for tag, value in dynamic)
    at = 64 + 56 * len(segments)
    rows = b"".join(struct.pack("<IIQQQQQQ", segment, 0, at, 0, 0, len(table), 0, 0) for segment in segments)
    return (
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 0, 0, 0)
        + rows
        + table
    )


STATIC = elf(2, 1)
PIE = elf(3, 1, 2, dynamic=[(0x6FFFFFFB, 0x08000001), (0, 0)])
LOADED = elf(3, 3, 1, 2, dynamic=[(1, 1), (0x6FFFFFFB, 0x08000001)])
LIBRARY = elf(3, 1, 2, dynamic=[(14, 1), (1, 1)])
LOADER = elf(3, 1, 2, dynamic=[(14, 1)])


def layer(files: dict[str, bytes], mode: int = 0o755) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def opaque(*layers: dict[str, bytes], seen: frozenset[str] = frozenset()) -> tuple[str, ...]:
    return binaries.unseen([layer(files) for files in layers], seen=seen).programs


@pytest.mark.parametrize("program", [STATIC, PIE])
def test_a_program_without_a_loader_is_opaque(program: bytes) -> None:
    assert opaque({"app/server": program}) == ("app/server",)


@pytest.mark.parametrize("program", [LOADED, LIBRARY, LOADER, elf(1, 1), elf(4, 1), elf(2), b"\x7fELF", b"#!/bin/sh", b"", STATIC[:80]])
def test_what_a_loader_starts_and_what_is_no_program_is_not(program: bytes) -> None:
    assert opaque({"app/server": program}) == ()


def test_what_cannot_be_executed_is_not_a_program() -> None:
    assert binaries.unseen([layer({"app/server": STATIC}, mode=0o644)], seen=frozenset()).programs == ()


def test_a_real_program_that_a_loader_starts_is_not() -> None:
    real = Path(binary("crane")).read_bytes()[: 1 << 20]
    python = Path(sys.executable).read_bytes()
    assert opaque({"app/crane": real, "bin/python": python}) == ()
    assert opaque({"app/crane": without_loader(real)}) == ("app/crane",)


def without_loader(program: bytes) -> bytes:
    """A 64-bit program as if it had been linked statically: the segment that names its loader (PT_INTERP, 3) is none (PT_NULL, 0)."""
    changed = bytearray(program)
    for number in range(struct.unpack_from("<H", program, 56)[0]):
        if struct.unpack_from("<I", program, 64 + 56 * number)[0] == 3:
            struct.pack_into("<I", changed, 64 + 56 * number, 0)
    return bytes(changed)


def test_a_program_in_which_trivy_found_build_information_is_not_opaque() -> None:
    assert opaque({"app/server": STATIC, "app/other": STATIC}, seen=frozenset({"app/server"})) == ("app/other",)


@pytest.mark.parametrize(
    "lists",
    [
        {"lib/apk/db/installed": APK},
        {"var/lib/dpkg/info/tool.list": b"/.\n/bin\n/bin/static\n/usr/bin/tool\n"},
        {"var/lib/dpkg/status.d/tool.md5sums": b"d41d8cd9  usr/bin/static\nd41d8cd9  usr/bin/tool\n"},
    ],
)
def test_a_program_of_a_package_is_the_packages(lists: dict[str, bytes]) -> None:
    assert opaque({**lists, "usr/bin/tool": STATIC, "usr/bin/static": STATIC, "usr/bin/mine": STATIC}) == ("usr/bin/mine",)
    assert opaque({"usr/bin/tool": STATIC}, lists) == ()


@pytest.mark.parametrize("folder", ["usr/lib/python3.12/site-packages/ruff/bin", "app/node_modules/@esbuild/linux-x64/bin"])
def test_a_program_inside_a_package_of_a_language_is_the_packages(folder: str) -> None:
    assert opaque({f"{folder}/tool": STATIC}) == ()


def test_what_a_later_layer_deletes_or_replaces_is_gone() -> None:
    assert opaque({"app/a": STATIC, "app/b": STATIC}, {"app/.wh.a": b""}) == ("app/b",)
    assert opaque({"app/a": STATIC, "b": STATIC}, {"app/.wh..wh..opq": b"", "app/c": STATIC}) == ("app/c", "b")
    assert opaque({"app/a": STATIC}, {".wh.app": b""}) == ()
    assert opaque({"app/a": STATIC}, {"app/a": b"#!/bin/sh"}) == ()
    assert opaque({"app/a": b"#!/bin/sh"}, {"./app/a": STATIC}) == ("app/a",)


def test_a_package_list_that_a_later_layer_deletes_owns_nothing() -> None:
    assert opaque({"lib/apk/db/installed": APK, "usr/bin/tool": STATIC}, {"lib/apk/.wh.db": b""}) == ("usr/bin/tool",)


def test_of_an_image_whose_lists_of_files_cannot_be_read_nothing_is_said() -> None:
    assert opaque({"var/lib/rpm/rpmdb.sqlite": b"x", "app/server": STATIC}) == ()


def test_an_image_that_is_too_large_or_of_another_compression_is_not_looked_into() -> None:
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    assert binaries.pullable([(kind, 1), (kind, binaries.LARGEST - 1)])
    assert not binaries.pullable([(kind, 1), (kind, binaries.LARGEST)])
    assert not binaries.pullable([(kind, -1)])
    assert not binaries.pullable([("application/vnd.oci.image.layer.v1.tar+zstd", 1)])


def header_bomb() -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 1 << 30
    return gzip.compress(entry.tobuf() + b"\0" * (64 << 20))


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"not gzip",
        gzip.compress(b"not tar" * 1000),
        layer({"app/other": STATIC})[:-30],
        header_bomb(),
        gzip.compress(tarfile.TarInfo("x" * 100).tobuf() * 70_000),
        layer({"lib/apk/db/installed": b"F:" * (9 << 20)}),
    ],
    ids=["nothing", "no gzip", "no tar", "cut", "header bomb", "many headers", "a list without end"],  # the archives have the time in them
)
def test_of_an_image_that_was_not_seen_whole_nothing_is_said(bad: bytes) -> None:
    assert binaries.unseen([layer({"app/server": STATIC}), bad], seen=frozenset()) == binaries.Unseen()


def test_of_an_image_that_unpacks_to_too_much_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"app/server": STATIC, "zeros": b"\0" * (4 << 20)}
    assert opaque(files) == ("app/server",)
    monkeypatch.setattr(binaries, "_UNPACKED", 1 << 20)
    assert opaque(files) == ()


def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_SECONDS", -1)
    assert opaque({"app/server": STATIC}) == ()


@given(st.binary(max_size=300), st.integers(0, len(PIE)))
@settings(max_examples=300, deadline=None)
def test_no_program_does_more_than_be_looked_at(noise: bytes, place: int) -> None:
    assert isinstance(opaque({"a": PIE[:place] + noise + PIE[place + len(noise) :]}), tuple)


async def test_a_blob_is_believed_under_its_digest_and_within_its_size_only(registry: str) -> None:
    name = f"{registry}/team/blob"
    images.push_image(registry, "team/blob:1", files={"a": b"x" * 1000})
    async with Registry(plain_http=frozenset({registry})) as client:
        reference = references.parse(f"{name}:1")
        manifest = await client.manifest(reference, await client.resolve(reference))
        (layer,) = msgspec.json.decode(manifest.body)["layers"]
        content = await client.blob(reference, Digest(layer["digest"]), cap=layer["size"])
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer["digest"]
        with pytest.raises(DefinitiveError, match="an answer of more than"):
            await client.blob(reference, Digest(layer["digest"]), cap=layer["size"] - 1)


async def test_a_blob_of_other_bytes_is_a_failure(serve: Callable[[Handler], Awaitable[str]]) -> None:
    async def other(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"other")

    host = await serve(other)
    async with Registry(plain_http=frozenset({host})) as client:
        with pytest.raises(DefinitiveError, match="served other bytes"):
            await client.blob(references.parse(f"{host}/x:1"), Digest(f"sha256:{'a' * 64}"), cap=100)


SITE = "usr/lib/python3.12/site-packages"
INFO = f"{SITE}/torch-2.5.1.dist-info"
TORCH = b"Metadata-Version: 2.1\nName: torch\nVersion: 2.5.1\n\nAbout it.\n"


def linked(files: "Files") -> bytes:
    """A layer in which a value `(type, target)` is a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                entry.type, entry.linkname = content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


HARD, SYMBOLIC = tarfile.LNKTYPE, tarfile.SYMTYPE


DPKG = {"var/lib/dpkg/info/python3-torch.list": f"/{INFO}/METADATA\n/{INFO}/RECORD\n".encode()}
Files = dict[str, bytes | tuple[bytes, str]]


@pytest.mark.parametrize(
    ("layers", "hidden"),
    [
        ([{"opt/data": TORCH, f"{INFO}/METADATA": (HARD, "opt/data")}], {f"{INFO}/METADATA", INFO}),
        ([{"opt/data": TORCH, f"{INFO}/METADATA": (SYMBOLIC, "/opt/data")}], {f"{INFO}/METADATA", INFO}),
        ([{f"{INFO}/METADATA": TORCH, f"{INFO}/RECORD": b"x"}, {f"{INFO}/.wh.METADATA": b""}], {INFO}),
        ([{f"{INFO}/METADATA": TORCH.replace(b"Name: torch\n", b"")}], {INFO}),
        ([{"app/node_modules/x/package.json": (SYMBOLIC, "../../data")}], {"app/node_modules/x/package.json"}),
        ([{"app/log4j.jar": (HARD, "app/data"), "app/data": b"PK"}], {"app/log4j.jar"}),
    ],
    ids=["a hard link", "a symbolic link", "a whiteout", "without a name", "of Node.js", "of Java"],
)
def test_a_package_whose_description_trivy_does_not_read_is_hidden(layers: list[Files], hidden: set[str]) -> None:
    assert set(binaries.unseen([linked(each) for each in layers], seen=frozenset(), known=frozenset({"numpy"})).packages) == hidden


@pytest.mark.parametrize(
    ("layers", "known"),
    [
        ([{f"{INFO}/METADATA": TORCH, f"{INFO}/RECORD": b"x"}], "torch"),
        ([{f"{SITE}/Ruamel.Yaml_clib-0.2.dist-info/METADATA": TORCH}], "ruamel-yaml-clib"),
        ([{f"{INFO}/METADATA": (HARD, f"root/.cache/uv/a/{INFO}/METADATA"), f"root/.cache/uv/a/{INFO}/METADATA": TORCH}], "torch"),
        ([{f"{INFO}/METADATA": TORCH, f"{INFO}/RECORD": b"x"}, {f"{SITE}/.wh.torch-2.5.1.dist-info": b""}], ""),
        ([{**DPKG, f"{INFO}/METADATA": TORCH, f"{INFO}/RECORD": b"x"}], ""),
        ([{"var/lib/rpm/rpmdb.sqlite": b"x", f"{INFO}/METADATA": TORCH}], ""),
        ([{"app/node_modules/x/package.json": (SYMBOLIC, "../.pnpm/x@1/node_modules/x/package.json")}], ""),
        ([{"usr/share/java/log4j.jar": (SYMBOLIC, "log4j-2.1.jar")}], ""),
        ([{"app/METADATA.txt": (SYMBOLIC, "data"), "etc/mtab": (SYMBOLIC, "../proc/mounts")}], ""),
    ],
    ids=["pip", "another spelling", "uv", "uninstalled", "of Debian", "of Red Hat", "pnpm", "Java of Debian", "other links"],
)
def test_what_installers_do_hides_nothing(layers: list[Files], known: str) -> None:
    assert binaries.unseen([linked(each) for each in layers], seen=frozenset(), known=frozenset({known})).packages == ()

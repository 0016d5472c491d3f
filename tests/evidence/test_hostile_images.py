"""Images made to hurt whoever reads them: each ends in a failure or in a blind spot with a sentence, or is scanned for what it is."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web

from mlwarden.embedded import trivydb
from mlwarden.embedded.build import binary
from mlwarden.evidence.credentials import Credential, Credentials
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.process import Limits
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.evidence import Scan

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
RELEASE = b"ID=alpine\nVERSION_ID=3.22.1\n"
INSTALLED = b"P:musl\nV:1.2.5-r9\nA:x86_64\no:musl\n\n"
MUSL = {"etc/os-release": RELEASE, "etc/alpine-release": b"3.22.1\n", "lib/apk/db/installed": INSTALLED}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Image:
    """One image of a registry that serves whatever bytes it is told, under whatever digest."""

    def __init__(self, layers: Sequence[bytes] = (), *, config: bytes | None = None) -> None:
        self.layers = [gzip.compress(layer, mtime=0) for layer in layers]
        whole = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
        self.config = json.dumps(whole).encode() if config is None else config
        self.blobs = {digest(blob): blob for blob in (self.config, *self.layers)}
        kind = "application/vnd.oci.image."
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}manifest.v1+json",
            "config": {"mediaType": f"{kind}config.v1+json", "digest": digest(self.config), "size": len(self.config)},
            "layers": [{"mediaType": f"{kind}layer.v1.tar+gzip", "digest": digest(layer), "size": len(layer)} for layer in self.layers],
        }

    @property
    def body(self) -> bytes:
        return json.dumps(self.manifest).encode()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v2/":
            return web.Response()
        if "/manifests/" in request.path:
            headers = {"Content-Type": str(self.manifest["mediaType"]), "Docker-Content-Digest": digest(self.body)}
            return web.Response(body=self.body, headers=headers)
        found = self.blobs.get(request.path.rpartition("/")[2])
        return web.Response(status=404) if found is None else web.Response(body=found)


class House:
    """A scanner with small limits, and the scratch that must be empty afterwards."""

    def __init__(self, serve: Serve, directory: Path) -> None:
        self._serve, self.scratch = serve, directory / "scratch"
        self.scratch.mkdir()
        limits = Limits(seconds=60, file_bytes=256 << 20, address_space=6 << 30, output=16 << 20)
        cache = trivydb.make_database(directory / "cache")
        self.trivy = Trivy(binary=binary("trivy"), cache=cache, scratch=self.scratch, limits=limits)

    async def scan(self, image: Image, handler: Handler | None = None, credentials: dict[str, Credential] | None = None) -> Scan:
        host = await self._serve(handler or image.answer)
        async with Registry(plain_http=frozenset({host}), timeout=10, credentials=Credentials(credentials or {})) as client:
            gatherer = Gatherer(registry=client, trivy=self.trivy, architectures=("amd64",))
            try:
                return await gatherer.scan([f"{host}/team/model@{digest(image.body)}"])
            finally:
                assert not list(self.scratch.iterdir())

    async def ends(self, image: Image) -> Scan | str:
        """Returns the scan, or why there is none."""
        try:
            return await self.scan(image)
        except GatherError as error:
            return str(error)


def not_clean(end: Scan | str) -> bool:
    """Whether it is a sentence, a blind spot or what is really in there: never silence."""
    if isinstance(end, str):
        return bool(end) and "\n" not in end
    return bool(end.blind or end.counts.get("HIGH"))


@pytest.fixture
def house(serve: Serve, tmp_path: Path) -> House:
    return House(serve, tmp_path)


async def test_an_image_of_127_layers_is_scanned_to_the_last(house: House) -> None:
    layers = [tar({f"a/{number}": b"x"}) for number in range(126)]
    scan = await house.scan(Image([*layers[:63], tar(MUSL), *layers[63:]]))
    assert (scan.counts, scan.blind) == ({"HIGH": 1, "unfixed": 0}, ())


async def test_an_image_without_layers_is_blind(house: House) -> None:
    assert (await house.scan(Image())).blind == ("no operating system and no packages recognised",)


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../../tmp/{mark}",
        "/tmp/{mark}",
        "a/../../{mark}",
        "./{mark}",
        "new\nline-{mark}",
        "x" * 4096,
        "\u202e{mark}",
        "a//b/./{mark}",
        "..",
        "/",
    ],
)
async def test_a_hostile_file_name_is_written_nowhere_and_hides_nothing(house: House, tmp_path: Path, name: str) -> None:
    mark = f"mlwarden-{tmp_path.name}"
    scan = await house.scan(Image([tar({name.format(mark=mark): b"x", **MUSL})]))
    assert (scan.counts, scan.blind) == ({"HIGH": 1, "unfixed": 0}, ())
    assert not (Path("/tmp") / mark).exists()


async def test_a_package_database_above_the_root_is_none(house: House) -> None:
    files = {f"../{name}" if "apk" in name else name: content for name, content in MUSL.items()}
    (blind,) = (await house.scan(Image([tar(files)]))).blind
    assert "no list of its packages" in blind


async def test_a_package_database_that_is_a_link_out_of_the_image_is_none(house: House) -> None:
    links = {"lib/apk/db/installed": "../../../../../../../../lib/apk/db/installed", "etc/passwd": "/etc/shadow"}
    files = {name: content for name, content in MUSL.items() if "apk" not in name}
    (blind,) = (await house.scan(Image([tar(files, links=links)]))).blind
    assert "no list of its packages" in blind


@pytest.mark.parametrize(
    "name", ["etc/os-release", "lib/apk/db/installed", "usr/lib/python3/x.dist-info/METADATA", "app/node_modules/x/package.json"]
)
async def test_cve_2026_54448_a_layer_that_unpacks_to_far_more_than_it_is_ends_within_the_limits(house: House, name: str) -> None:
    bomb = Image([tar({**MUSL, name: b"\0" * (300 << 20)})])
    assert len(bomb.layers[0]) < 1 << 20
    assert not_clean(await house.ends(bomb))
    assert (await house.scan(Image([tar(MUSL)]))).counts["HIGH"] == 1


def without_config(image: Image) -> None:
    del image.blobs[digest(image.config)]


def without_layer(image: Image) -> None:
    del image.blobs[digest(image.layers[0])]


def other_layer(image: Image) -> None:
    image.blobs[digest(image.layers[0])] = gzip.compress(tar({}), mtime=0)


def other_config(image: Image) -> None:
    image.blobs[digest(image.config)] = image.config.replace(b"amd64", b"arm64")


def half_a_layer(image: Image) -> None:
    image.blobs[digest(image.layers[0])] = image.layers[0][:-20]


def plain_layer(image: Image) -> None:
    image.blobs[digest(image.layers[0])] = b"\x1f\x8b\x08 and so on"


@pytest.mark.parametrize("spoil", [without_config, without_layer, other_layer, other_config, half_a_layer, plain_layer])
async def test_a_blob_that_is_missing_or_is_not_what_its_digest_says_is_a_failure(house: House, spoil: Callable[[Image], None]) -> None:
    image = Image([tar(MUSL)])
    spoil(image)
    with pytest.raises((DefinitiveError, TransientError)) as error:
        await house.scan(image)
    assert "\n" not in str(error.value)
    assert "trivy" in str(error.value)


@pytest.mark.parametrize(
    "config", [b"", b"hello", b"[]", b"7", b"{", b"[" * 100_000, b'{"rootfs":{"diff_ids":[7]}}', b'{"rootfs":{"diff_ids":"x"}}']
)
async def test_a_config_that_is_none_is_a_failure(house: House, config: bytes) -> None:
    with pytest.raises((DefinitiveError, TransientError)) as error:
        await house.scan(Image([tar(MUSL)], config=config))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("config", [b"{}", b'{"rootfs":{"type":"layers","diff_ids":[]}}', b"null"])
async def test_a_config_that_knows_of_no_layers_hides_none(house: House, config: bytes) -> None:
    """Its layers are what the manifest says, to whoever runs it; to say that it has no packages would be wrong."""
    assert not_clean(await house.ends(Image([tar(MUSL)], config=config)))


async def test_a_layer_that_is_no_archive_is_a_failure(house: House) -> None:
    with pytest.raises((DefinitiveError, TransientError)):
        await house.scan(Image([tar(MUSL), b"this is not an archive, whatever its media type says" * 20]))


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", ""]
)
async def test_a_layer_of_another_kind_is_not_skipped_in_silence(house: House, kind: str) -> None:
    image = Image([tar(MUSL)])
    image.manifest["layers"][0]["mediaType"] = kind  # type: ignore[index]
    assert not_clean(await house.ends(image))


async def test_a_registry_that_never_ends_a_layer_is_not_waited_for(house: House, tmp_path: Path) -> None:
    image = Image([tar(MUSL)])

    async def endless(request: web.Request) -> web.StreamResponse:
        if not request.path.endswith(digest(image.layers[0])):
            return await image.answer(request)
        response = web.StreamResponse(headers={"Content-Length": str(len(image.layers[0]))})
        await response.prepare(request)
        await response.write(image.layers[0][:10])
        await request.protocol.closed if False else None
        return response

    house.trivy = Trivy(binary=binary("trivy"), cache=tmp_path / "cache", scratch=house.scratch, limits=Limits(seconds=3))
    with pytest.raises((DefinitiveError, TransientError)):
        await house.scan(image, endless)


async def test_cve_2024_35192_a_hostile_registry_is_given_no_credentials_of_others(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the cloud's, which are in the environment and beside it, nor those of another registry."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "TRIVY_PASSWORD",
        "TRIVY_USERNAME",
    ):
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    image, seen = Image([tar(MUSL)]), list[str]()

    async def asks(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.path} {request.headers.get('Authorization', '')} {dict(request.headers)} {await request.text()}")
        if "/blobs/" in request.path:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="your cloud"'})
        return await image.answer(request)

    with pytest.raises((DefinitiveError, TransientError)):
        await house.scan(image, asks, {"registry.example": Credential(username="ana", password="s3cret")})
    assert any("/blobs/" in line for line in seen)
    assert not any("s3cret" in line or "Authorization" in line or "Basic" in line for line in seen)


def skipped(shown: bytes, real: bytes) -> bytes:
    """A layer that is one archive to whoever takes it as it is, and another to whoever unpacks it.

    A skippable frame of Zstandard (RFC 8878) whose magic number and length are the beginning of the first file's name, then a frame.
    """
    frame = bytearray(shown)
    frame[:8] = struct.pack("<II", 0x184D2A50, len(shown) - 8)
    frame[148:156] = b" " * 8
    frame[148:156] = b"%06o\0 " % sum(frame[:512])
    return bytes(frame) + raw_zstd(real)


def raw_zstd(content: bytes) -> bytes:
    """A frame of Zstandard in blocks that are not compressed."""
    blocks = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    heads = [struct.pack("<I", len(block) << 3 | (number == len(blocks) - 1))[:3] for number, block in enumerate(blocks)]
    whole = b"".join(head + block for head, block in zip(heads, blocks, strict=True))
    return struct.pack("<IBQ", 0xFD2FB528, 0xE0, len(content)) + whole


def labelled(shown: bytes, real: bytes) -> bytes:
    """The other way round: an archive to whoever takes it as it is, in a field of gzip's header that whoever unpacks it passes over."""
    extra = bytearray(real)
    head = b"\x1f\x8b\x08\x04" + bytes(6) + struct.pack("<H", len(real) - 12)
    extra[:12] = head
    extra[148:156] = b" " * 8
    extra[148:156] = b"%06o\0 " % sum(extra[:512])
    return bytes(extra) + gzip.compress(shown, mtime=0)[10:]


TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (f"{TAR}+zstd", skipped),
        (f"{TAR}+gzip", skipped),
        (f"{DOCKER}.gzip", skipped),
        (f"{DOCKER}.zstd", skipped),
        (DOCKER, skipped),
        (TAR, labelled),
    ],
)
@pytest.mark.parametrize("size", [None, 0, 1])
async def test_a_layer_that_containerd_reads_otherwise_than_trivy_is_not_clean(
    house: House, kind: str, make: Callable[[bytes, bytes], bytes], size: int | None
) -> None:
    clean = {"etc/motd": b"x", **MUSL, "lib/apk/db/installed": INSTALLED.replace(b"1.2.5-r9", b"1.2.5-r20")}
    real = tar({"etc/motd": b"x", **MUSL})
    image = Image([real])
    layer = make(tar(clean), real)
    image.blobs[digest(layer)] = layer
    image.manifest["layers"] = [{"mediaType": kind, "digest": digest(layer), "size": len(layer) if size is None else size}]
    assert not_clean(await house.ends(image))


async def test_layers_of_every_kind_are_scanned_for_what_they_are(house: House) -> None:
    image, layer = Image([tar(MUSL)]), tar(MUSL)
    whole = {gzip.compress(layer, mtime=0): f"{TAR}+gzip", raw_zstd(layer): f"{TAR}+zstd", layer: TAR}
    for blob, kind in whole.items():
        image.blobs[digest(blob)] = blob
        image.manifest["layers"] = [{"mediaType": kind, "digest": digest(blob), "size": len(blob)}]
        scan = await house.scan(image)
        assert (scan.counts, scan.blind) == ({"HIGH": 1, "unfixed": 0}, ())

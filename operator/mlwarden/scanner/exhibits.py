"""Three images of which the answer is known, and the registry that has them: in this process, on loopback, for as long as it takes.

One has a vulnerability that every database knows, one a signature by a key made a moment ago, one no signature. They are images in a
registry, and not a list of packages or a file, so that what is tried out is the way that everybody's images go: pull, unpack, find, look
up, report. An image in a real registry was rejected: it would need a network, and be somebody else's to change.
"""

import base64
import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mlwarden.evidence.tool import Pull
from mlwarden.model.digest import Digest

REPOSITORY = "mlwarden-canary"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A Python package in which every vulnerability database must find something. Known since April 2025 by default."""

    package: str = "torch"
    version: str = "2.5.1"
    vulnerability: str = "CVE-2025-32434"

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{self.package}=={self.version}={self.vulnerability}"


class Exhibits(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask about.

    Attributes:
        vulnerable: has the suspect in it.
        signed: signed by `key`.
        unsigned: by nobody.
        key: public key, PEM.
        other_key: of which nothing is signed.
    """

    vulnerable: Pull
    signed: Pull
    unsigned: Pull
    key: str
    other_key: str


@contextlib.asynccontextmanager
async def exhibited(suspect: Suspect) -> AsyncIterator[Exhibits]:
    """The images, while the body runs."""
    store = _Store()
    digests = [store.image(suspect, name) for name in ("vulnerable", "signed", "unsigned")]
    key = ec.generate_private_key(ec.SECP256R1())
    store.sign(digests[1], key)
    app = web.Application()
    app.router.add_get("/v2/", store.ping)
    app.router.add_get("/v2/{repository}/manifests/{name}", store.manifest)
    app.router.add_get("/v2/{repository}/blobs/{name}", store.blob)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        at = f"127.0.0.1:{runner.addresses[0][1]}/{REPOSITORY}"
        vulnerable, signed, unsigned = (Pull(image=f"{at}@{digest}", digest=digest, plain_http=True) for digest in digests)
        other = ec.generate_private_key(ec.SECP256R1())
        yield Exhibits(vulnerable=vulnerable, signed=signed, unsigned=unsigned, key=_pem(key), other_key=_pem(other))
    finally:
        await runner.cleanup()


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class _Store:
    """Manifests and blobs by digest, and manifests by tag."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, bytes] = {}

    def image(self, suspect: Suspect, name: str) -> Digest:
        """One more image, whose digest is another one for each name."""
        package = f"{suspect.package}-{suspect.version}"
        metadata = f"Metadata-Version: 2.1\nName: {suspect.package}\nVersion: {suspect.version}\n"
        layer = _tar(
            {
                "etc/os-release": b"ID=alpine\nVERSION_ID=3.22.1\n",
                "etc/alpine-release": b"3.22.1\n",
                f"usr/lib/python3.12/site-packages/{package}.dist-info/METADATA": metadata.encode(),
            }
        )
        rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}}, "rootfs": rootfs}
        return self._add(config, layer, _LAYER)

    def sign(self, digest: Digest, key: ec.EllipticCurvePrivateKey) -> None:
        """A signature in cosign's older form of storage, which every cosign reads: a tag beside the image."""
        critical = {
            "identity": {"docker-reference": REPOSITORY},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
        config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [_digest(payload)]}}
        made = self._add(config, payload, _PAYLOAD, {_SIGNATURE: signature})
        self._manifests[digest.replace(":", "-") + ".sig"] = self._manifests[made]

    def _add(self, config: dict[str, Any], layer: bytes, media_type: str, annotations: Mapping[str, str] | None = None) -> Digest:
        described = self._describe(media_type, layer) | ({"annotations": dict(annotations)} if annotations else {})
        document = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._describe(_CONFIG, json.dumps(config).encode()),
            "layers": [described],
        }
        body = json.dumps(document).encode()
        self._manifests[_digest(body)] = body
        return _digest(body)

    def _describe(self, media_type: str, content: bytes) -> dict[str, Any]:
        self._blobs[_digest(content)] = content
        return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}

    async def ping(self, _request: web.Request) -> web.Response:
        """Says that this is a registry."""
        return web.json_response({})

    async def manifest(self, request: web.Request) -> web.Response:
        """A manifest, by tag or digest."""
        return _found(self._manifests.get(request.match_info["name"]), _MANIFEST)

    async def blob(self, request: web.Request) -> web.Response:
        """A layer or a configuration."""
        return _found(self._blobs.get(request.match_info["name"]), "application/octet-stream")


def _found(content: bytes | None, media_type: str) -> web.Response:
    if content is None:
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "there is none"}]}, status=404)
    return web.Response(body=content, content_type=media_type, headers={"Docker-Content-Digest": _digest(content)})


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")

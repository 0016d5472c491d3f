"""A registry that sends a layer a byte at a time, and the real trivy."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from mlwarden.embedded import trivydb
from mlwarden.embedded.build import binary
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.process import Limits
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.digest import Digest

LAYER = b"\0" * (1 << 20)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@asynccontextmanager
async def dripping() -> AsyncIterator[Pull]:
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(LAYER)]}}).encode()
    kinds = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    described = [
        {"mediaType": kind, "digest": digest(content), "size": len(content)} for kind, content in zip(kinds, (config, LAYER), strict=True)
    ]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
    body = json.dumps(document).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "manifests" in request.path:
            return web.Response(body=body, content_type=MANIFEST)
        if request.path.endswith(digest(config)):
            return web.Response(body=config)
        response = web.StreamResponse(headers={"Content-Length": str(len(LAYER))})
        if not request.path.endswith(digest(LAYER)):
            return web.json_response({})
        await response.prepare(request)
        for position in range(len(LAYER)):
            await response.write(LAYER[position : position + 1])
            await asyncio.sleep(0.05)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield Pull(image=f"{host}/drip@{digest(body)}", digest=Digest(digest(body)), plain_http=True)
    finally:
        await runner.cleanup()


def left(directory: Path) -> list[Path]:
    return list(directory.glob("scan-*"))


async def test_a_layer_that_comes_a_byte_at_a_time_is_given_up(tmp_path: Path) -> None:
    database = trivydb.make_database(tmp_path / "cache")
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path, limits=Limits(seconds=100, stalled=3))
    async with dripping() as pull:
        with pytest.raises(TransientError, match="trivy got nowhere for"):
            await trivy.scan(pull)
    assert not left(tmp_path)

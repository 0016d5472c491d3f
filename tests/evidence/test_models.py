"""Models as OCI artifacts, with the real trivy and a real registry."""

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mlwarden.embedded import images
from mlwarden.embedded.build import binary
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.gather import Gatherer
from mlwarden.evidence.registry import Registry
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.evidence import NOT_READ

CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHTS = "application/vnd.cncf.model.weight.v1."


@pytest.fixture
async def gatherer(registry: str, database: Path, tmp_path: Path) -> AsyncIterator[Gatherer]:
    trivy = Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)
    async with Registry(plain_http=frozenset({registry}), timeout=10) as client:
        yield Gatherer(registry=client, trivy=trivy, architectures=("amd64",))


def tar(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize(("kind", "layer"), [("raw", b"weights" * 100), ("tar", tar(weights=b"w" * 1000))])
async def test_a_model_is_told_from_an_image_and_is_no_scan_without_findings(
    gatherer: Gatherer, registry: str, kind: str, layer: bytes
) -> None:
    digest = images.push_artifact(registry, f"models/{kind}:1", config_type=CONFIG, layer_type=WEIGHTS + kind, layer=layer, title="w")
    scan = await gatherer.scan([f"{registry}/models/{kind}@{digest}"])
    assert (scan.artifact, scan.packages, scan.blind) == (CONFIG, 0, (NOT_READ,))
    assert scan.scanners == ()  # nobody looked for anything


@pytest.mark.parametrize("layer", ["oci.image.layer.v1.tar", "oci.image.layer.v1.tar+gzip", "docker.image.rootfs.diff.tar.gzip"])
async def test_an_image_that_calls_itself_a_model_is_not_only_one(gatherer: Gatherer, registry: str, layer: str) -> None:
    """Its configuration may list the layers like any image's: containerd mounts them, with every program in them."""
    digest = images.push_artifact(
        registry, "models/image:2", config_type=CONFIG, layer_type=f"application/vnd.{layer}", layer=tar(run=b"#!/bin/sh"), title="run"
    )
    scan = await gatherer.scan([f"{registry}/models/image@{digest}"])
    assert scan.artifact == CONFIG
    assert scan.blind == ("layers that are not a model's: 1; a node may mount them like an image's", NOT_READ)


async def test_an_image_of_files_alone_is_no_model(gatherer: Gatherer, registry: str) -> None:
    digest = images.push_image(registry, "models/image:1", files={"models/weights": b"w" * 1000})
    scan = await gatherer.scan([f"{registry}/models/image@{digest}"])
    assert scan.artifact == ""
    assert NOT_READ not in scan.blind
    assert scan.blind


async def test_another_artifact_is_no_model(gatherer: Gatherer, registry: str) -> None:
    chart = "application/vnd.cncf.helm.config.v1+json"
    digest = images.push_artifact(registry, "charts/x:1", config_type=chart, layer_type=WEIGHTS + "raw", layer=b"x", title="x")
    with pytest.raises(TransientError, match="unsupported artifact type"):
        await gatherer.scan([f"{registry}/charts/x@{digest}"])

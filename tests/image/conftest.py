"""The image of this source tree, built once and kept; the first build compiles trivy and cosign."""

import pytest

from mlwarden.embedded import ownimage
from mlwarden.embedded.signer import KeyPair, Signer

from .container import Container  # type: ignore[import-not-found]


@pytest.fixture(scope="session")
def image() -> ownimage.Image:
    """The finished image; without root or without the programs it takes, the test is skipped with what is missing."""
    if reason := ownimage.obstacle():
        pytest.skip(reason)
    return ownimage.image()


@pytest.fixture(scope="session")
def container(image: ownimage.Image, tmp_path_factory: pytest.TempPathFactory) -> Container:
    """The image, unpacked."""
    return Container(image, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, KeyPair]:
    """Who signs the image."""
    signer = Signer(tmp_path_factory.mktemp("signer"))
    return signer, signer.key_pair()


@pytest.fixture(scope="session")
def published(image: ownimage.Image, registry: str, key: tuple[Signer, KeyPair]) -> str:
    """The reference under which the image is in a registry, signed, with its bill of materials."""
    return ownimage.publish(image, registry, *key)

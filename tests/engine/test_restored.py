"""A manifest that is applied again: also where its image is in a volume."""

from typing import Any

import pytest

from mlwarden import engine
from mlwarden.workloads import extract

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "volume",
    [
        lambda image: {"image": {"reference": image}},
        lambda image: {"csi": {"driver": "image.csi.k8s.io", "volumeAttributes": {"image": image}}},
    ],
    ids=["an image volume", "a CSI volume"],
)
def test_the_image_of_a_volume_gets_its_digest_back(volume: Any) -> None:
    def pod(image: str) -> dict[str, Any]:
        spec = {"containers": [], "volumes": [{"name": "empty", "emptyDir": {}}, {"name": "model", **volume(image)}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}

    stored, again = pod(f"registry.example/model:1@{DIGEST}"), pod("registry.example/model:1")
    kept = engine.restored(extract(stored), extract(again))
    assert engine.with_images(again, kept) == stored
    assert engine.restored(extract(stored), extract(pod("registry.example/model:2"))) == {}

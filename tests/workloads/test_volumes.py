"""An image that a CSI driver mounts is an image like any other."""

from typing import Any

import pytest

from mlwarden.model.workload import Role
from mlwarden.workloads import extract
from mlwarden.workloads.volumes import CSI_IMAGES


def pod(**volume: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"volumes": [{"name": "model", **volume}], "containers": []},
    }


@pytest.mark.parametrize("driver", CSI_IMAGES)
def test_an_inline_volume_of_a_driver_that_pulls_is_an_image(driver: str) -> None:
    (image,) = extract(pod(csi={"driver": driver, "volumeAttributes": {"image": "ttl.sh/model:1h", "pullAlways": "true"}})).images
    assert (image.reference, image.owner, image.role) == ("ttl.sh/model:1h", "model", Role.VOLUME)
    assert image.path == "spec.volumes[0].csi.volumeAttributes.image"


@pytest.mark.parametrize("attributes", [None, {}, {"image": 5}, {"Image": "ttl.sh/model:1h"}, "ttl.sh/model:1h"])
def test_one_that_does_not_say_which_is_an_image_that_nobody_can_know(attributes: Any) -> None:
    (image,) = extract(pod(csi={"driver": "image.csi.k8s.io", "volumeAttributes": attributes})).images
    assert image.reference == ""


@pytest.mark.parametrize(
    "volume",
    [
        {"csi": {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"image": "x"}}},
        {"csi": {"volumeAttributes": {"image": "x"}}},
        {"csi": "image.csi.k8s.io"},
        {"emptyDir": {}},
    ],
)
def test_any_other_volume_is_none(volume: dict[str, Any]) -> None:
    assert extract(pod(**volume)).images == ()


def test_it_is_found_in_kinds_that_nobody_knows() -> None:
    volumes = [{"name": "m", "csi": {"driver": "image.csi.k8s.io", "volumeAttributes": {"image": "ttl.sh/model:1h"}}}]
    workload = extract(
        {"apiVersion": "example.com/v1", "kind": "Unheard", "metadata": {"name": "x"}, "spec": {"deep": [{"volumes": volumes}]}}
    )
    assert [image.path for image in workload.images] == ["spec.deep[0].volumes[0].csi.volumeAttributes.image"]

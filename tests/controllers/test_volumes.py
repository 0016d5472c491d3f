"""An image that a CSI driver mounts is held, judged and pinned like an image of a container."""

from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.embedded.api import ApiError
from mlwarden.model.evidence import NOT_READ
from mlwarden.workloads import is_gated

from .test_controller import CLEAN, VULNERABLE, events, unique  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from conftest import Running

pytestmark = pytest.mark.cluster


def mounting(reference: str, driver: str = "image.csi.k8s.io") -> dict[str, Any]:
    return {"volumes": [{"name": "model", "csi": {"driver": driver, "volumeAttributes": {"image": reference}}}]}


def test_a_pod_waits_until_the_image_in_its_csi_volume_was_judged(running: "Running", good_pod: Any, attack: Any) -> None:
    space = running.held.namespace()
    (image, digest), (model, model_digest), (bad, bad_digest) = unique(), unique(), unique()
    pinned, inner, worse = f"{image}@{digest}", f"{model}@{model_digest}", f"{bad}@{bad_digest}"
    running.held.create(space, good_pod("good", pinned, **mounting(inner)))
    running.held.create(space, good_pod("bad", pinned, **mounting(worse, "csi-image.warm-metal.tech")))
    running.answer(pinned, scan=CLEAN)
    running.answer(worse, scan=VULNERABLE)
    said = running.held.until(lambda: events(running, space, "NotReleased"))
    assert "spec.volumes[0].csi.volumeAttributes.image" in said[0]["message"]
    assert all(map(is_gated, running.held.pods(space)))
    running.answer(inner, scan=CLEAN)
    running.held.until(lambda: not is_gated(running.admin.get(f"/api/v1/namespaces/{space}/pods/good")))
    assert is_gated(running.admin.get(f"/api/v1/namespaces/{space}/pods/bad"))
    attack(
        "an unscanned image in an inline CSI volume",
        "mounted: nobody looked at it",
        "held until it was judged; a driver that nobody knows is refused",
    )


def test_a_pod_that_names_its_node_names_the_image_in_its_csi_volume_by_digest(running: "Running", good_pod: Any) -> None:
    space = running.held.namespace()
    pinned = f"registry.example/app@sha256:{'a' * 64}"

    def refused() -> str:
        with pytest.raises(ApiError) as caught:
            running.held.create(space, good_pod("p", pinned, nodeName="node-0", **mounting("ttl.sh/model:1h")), dryRun="All")
        return str(caught.value)

    # No webhook answers here, which refuses it, too, until the guard is in force.
    running.held.until(lambda: "names its images by digest" in refused())


def test_a_pod_that_mounts_a_model_is_released_once_the_model_was_looked_at(running: "Running", good_pod: Any) -> None:
    space = running.held.namespace()
    (image, digest), (model, model_digest) = unique(), unique()
    pinned, mounted = f"{image}@{digest}", f"{model}@{model_digest}"
    volumes = [{"name": "model", "image": {"reference": mounted}}]
    running.held.create(space, good_pod("serves", pinned, volumes=volumes))
    running.answer(pinned, scan=CLEAN)
    assert is_gated(running.admin.get(f"/api/v1/namespaces/{space}/pods/serves"))
    config = "application/vnd.cncf.model.config.v1+json"
    running.answer(mounted, scan={**CLEAN, "packages": 0, "os": "", "artifact": config, "blind": [NOT_READ]})
    running.held.until(lambda: not is_gated(running.admin.get(f"/api/v1/namespaces/{space}/pods/serves")))

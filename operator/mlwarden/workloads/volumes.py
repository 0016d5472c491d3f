"""Volumes that are images: `image` volumes of Kubernetes, and inline CSI volumes of drivers that mount one.

An inline volume's attributes are the pod author's own words, and its driver does as they say: what such a driver mounts is code that
nobody judged, exactly like an image. The table is of drivers that are known to pull; the policy `volume-types` has those that are known not
to, and asks about all others.
"""

from collections.abc import Mapping

from mlwarden.model.workload import Json
from mlwarden.workloads.values import as_text

CSI_IMAGES: Mapping[str, str] = {
    "container-image.csi.k8s.io": "image",
    "csi-image.warm-metal.tech": "image",
    "csi.image.warm-metal.tech": "image",
    "image.csi.k8s.io": "image",
}
"""Driver → the volume attribute that names the image: warm-metal's under each of its names, and Kubernetes' own image populator."""


def image_of(volume: Json) -> tuple[str, tuple[str, ...]] | None:
    """Returns the image that a volume is, as written, and the steps to it below the volume; None for any other."""
    if not isinstance(volume, Mapping):
        return None
    source = volume.get("image")
    if isinstance(source, Mapping):
        return as_text(source.get("reference")), ("image", "reference")
    csi = volume.get("csi")
    key = CSI_IMAGES.get(as_text(csi.get("driver"))) if isinstance(csi, Mapping) else None
    if key is None or not isinstance(csi, Mapping):
        return None
    attributes = csi.get("volumeAttributes")
    return as_text(attributes.get(key)) if isinstance(attributes, Mapping) else "", ("csi", "volumeAttributes", key)


def csi_images(volumes: str) -> str:
    """Returns CEL for the images of the inline CSI volumes in a list of volumes."""
    by_key: dict[str, list[str]] = {}
    for driver, key in CSI_IMAGES.items():
        by_key.setdefault(key, []).append(f"'{driver}'")
    return " + ".join(
        f"{volumes}.filter(v, has(v.csi) && v.csi.?driver.orValue('') in [{', '.join(drivers)}])"
        f".map(v, v.csi.?volumeAttributes[?'{key}'].orValue(''))"
        for key, drivers in by_key.items()
    )

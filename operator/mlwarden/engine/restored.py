"""A manifest that is applied again: an image that was pinned, and is named by its tag again, keeps its digest.

Whoever keeps a manifest in git applies it again and again, and it names a tag. What is stored names the digest that was judged, and may not
change any more: without this every second `kubectl apply` of a pod was refused, and where nothing holds its containers started anew.

While mlwarden holds the pod its containers' images are left to be resolved again: they may still change, and a tag that was pushed again
with what was missing must get through. An image volume never changes after its creation, so it keeps its digest there, too.

So it is with the platforms that a pod was kept to: a manifest with node affinity of its own names it without them, and the affinity of a
pod may not change any more (of one that is held, only grow stricter).

Rejected: comparing texts alone (`python`, `docker.io/library/python:latest` and `index.docker.io/python` are one image).
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.workload import Json, Role, Workload
from mlwarden.workloads import is_gated, nodes

_PLACE = re.compile(r"spec\.(containers|initContainers|volumes)\[(\d+)\]\.(image|image\.reference)")
_ATTRIBUTE = re.compile(r"spec\.volumes\[(\d+)\]\.csi\.volumeAttributes\.(\w+)")


def restored(old: Workload, new: Workload) -> dict[str, str]:
    """Returns the images of a pod that get their digest back: JSON path → the pinned reference as stored.

    Args:
        old: the pod as stored.
        new: the pod as its update would have it.
    """
    if not (old.is_pod and new.is_pod):
        return {}
    held = is_gated(old.object)
    before = {image.path: image for image in old.images}
    found = {}
    for image in new.images:
        known = before.get(image.path)
        if known is None or image.role is Role.EPHEMERAL or (held and image.role is not Role.VOLUME):
            continue
        if known.owner == image.owner and is_tag_of(image.reference, known.reference):
            found[image.path] = known.reference
    return found


def is_tag_of(named: str, pinned: str) -> bool:
    """Whether `named` is, by its tag, the image that `pinned` names by that tag and a digest."""
    try:
        tag, known = references.parse(named), references.parse(pinned)
    except Error:
        return False
    return tag.digest is None and known.digest is not None and bool(known.tag) and (tag.name, tag.tag) == (known.name, known.tag)


def restored_affinity(old: Workload, new: Workload) -> Json:
    """Returns the affinity that a pod gets back, None where it is what the update says."""
    before, after = old.object.get("spec"), new.object.get("spec")
    if not (old.is_pod and new.is_pod and isinstance(before, Mapping) and isinstance(after, Mapping)):
        return None
    return nodes.named_again(before, after)


def with_images(pod: Mapping[str, Json], images: Mapping[str, str]) -> dict[str, Json]:
    """Returns a copy of a pod with these images: JSON path → reference, as `restored` returns them."""
    result: dict[str, Any] = copy.deepcopy(dict(pod))
    for path, reference in images.items():
        place, attribute = _PLACE.fullmatch(path), _ATTRIBUTE.fullmatch(path)
        if attribute is not None:
            result["spec"]["volumes"][int(attribute[1])]["csi"]["volumeAttributes"][attribute[2]] = reference
        if place is None:
            continue
        element = result["spec"][place[1]][int(place[2])]
        if place[1] == "volumes":
            element["image"]["reference"] = reference
        else:
            element["image"] = reference
    return result

"""What a pod really runs, as the kubelet says it: the digest of each container's image, and of each image volume.

A tag in the spec says what was meant; `imageID` says what was pulled, and that is what is judged again. A digest in the spec stays: the
kubelet pulls just that, and some runtimes then report the manifest of their own platform, which nobody scanned under that name. Unless it
is the very manifest that was revoked.

An `imageID` without a repository (`sha256:…`, what containerd reports of images that were loaded and not pulled) is the digest of a
configuration, not of a manifest: nothing is known about it, and it is left alone.
"""

import re
import sys
from collections.abc import Container, Iterator, Mapping

from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest
from mlwarden.model.workload import Json
from mlwarden.workloads.volumes import image_of

_FIELDS = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
_PULLED = re.compile(r".+@(sha256:[0-9a-f]{64})")


def digests(pod: Json) -> tuple[str, ...]:
    """Returns every digest that a pod runs or names, sorted; the same text is the same object."""
    spec = pod["spec"]
    found: set[str | None] = set()
    for field, status in _FIELDS:
        found.update(_reported(pod, status).values())
        found.update(_pinned(container.get("image")) for container in _list(spec, field))
    for name, volume in _volumes(spec):
        found.update((_pinned(volume), _mounted(pod).get(name)))
    return tuple(sys.intern(each) for each in sorted(each for each in found if each))


def as_running(pod: Json, revoked: Container[str] = ()) -> Json:
    """Returns the pod with the digests it runs in place of its tags, and of digests whose manifest is among the `revoked`."""
    spec = dict(pod["spec"])
    for field, status in _FIELDS:
        if field in spec:
            ids = _reported(pod, status)
            spec[field] = [_replaced(each, "image", ids.get(str(each.get("name"))), revoked) for each in _list(spec, field)]
    if _list(spec, "volumes"):
        mounted = _mounted(pod)
        spec["volumes"] = [
            {**each, "image": _replaced(each["image"], "reference", mounted.get(str(each.get("name"))), revoked)}
            if isinstance(each.get("image"), dict)
            else each
            for each in _list(spec, "volumes")
        ]
    return {**pod, "apiVersion": "v1", "kind": "Pod", "spec": spec}


def _replaced(where: Mapping[str, Json], field: str, digest: str | None, revoked: Container[str]) -> Mapping[str, Json]:
    if not digest:
        return where
    try:
        written = references.parse(str(where.get(field)))
    except Error:
        return where
    return where if written.digest and digest not in revoked else {**where, field: written.at(Digest(digest))}


def _reported(pod: Json, status: str) -> dict[str, str]:
    """Container → the digest that its status names."""
    found = {str(each.get("name")): _PULLED.fullmatch(str(each.get("imageID") or "")) for each in _list(pod.get("status"), status)}
    return {name: match[1] for name, match in found.items() if match}


def _mounted(pod: Json) -> dict[str, str]:
    """Image volume → the digest that the status of a container that mounts it names (KEP-5365; empty on older clusters)."""
    found = {}
    for _, status in _FIELDS:
        for container in _list(pod.get("status"), status):
            for mount in _list(container, "volumeMounts"):
                image = (mount.get("volumeStatus") or {}).get("image") or {}
                if match := _PULLED.fullmatch(str(image.get("imageRef") or "")):
                    found[str(mount.get("name"))] = match[1]
    return found


def _volumes(spec: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Name and image of every volume that is one. Of an inline CSI volume no status says what was pulled."""
    for volume in _list(spec, "volumes"):
        found = image_of(volume)
        if found is not None:
            yield str(volume.get("name")), found[0]


def _pinned(reference: Json) -> str:
    match = _PULLED.fullmatch(str(reference or ""))
    return match[1] if match else ""


def _list(obj: Json, field: str) -> list[dict[str, Json]]:
    found = (obj or {}).get(field)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

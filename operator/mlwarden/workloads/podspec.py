"""Pod specs, containers and images by their shape: what a kind writes down as Kubernetes does is a pod as it stands."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from mlwarden.model.workload import Container, Image, Json, Partial, Pod, Role
from mlwarden.workloads.paths import join
from mlwarden.workloads.values import EMPTY, as_map, as_text
from mlwarden.workloads.volumes import image_of

LISTS = (("initContainers", Role.INIT), ("containers", Role.CONTAINER), ("ephemeralContainers", Role.EPHEMERAL))
"""The lists of containers of a pod spec, in the order in which they start."""
ROLES = dict(LISTS)
NAMES = tuple(ROLES)
POD_FIELDS = (
    *("activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy", "enableServiceLinks"),
    *("hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "hostname", "imagePullSecrets", "nodeName", "nodeSelector"),
    *("os", "overhead", "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims", "resources"),
    *("restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates", "securityContext", "serviceAccount"),
    *("serviceAccountName", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds"),
    *("tolerations", "topologySpreadConstraints", "volumes"),
)
"""Fields of a pod spec that are no containers."""
INHERITED = tuple(field for field in POD_FIELDS if field != "volumes")
OTHERS = "of this pod"
"""The name of what stands for containers that others write, where only the pod says something about them."""
KNOWN = frozenset(POD_FIELDS)
JUDGED = frozenset(
    {
        *("automountServiceAccountToken", "hostIPC", "hostNetwork", "hostPID", "hostUsers", "nodeName", "securityContext"),
        *("serviceAccount", "serviceAccountName", "volumes"),
    }
)
"""Those that make a pod of a place without containers: somebody else says the rest, and these are dangerous by themselves."""
_BESIDE = frozenset(
    {
        *("args", "command", "env", "envFrom", "imagePullPolicy", "lifecycle", "livenessProbe", "ports", "readinessProbe", "resources"),
        *("securityContext", "startupProbe", "volumeMounts", "workingDir", "source", "script", "tty"),
    }
)
"""Fields that make a container of a map with an image."""


def runs(value: Mapping[str, Any], partial: Partial = Partial.NOTHING) -> bool:
    """Whether this has the shape of a pod spec: containers of some kind, or a volume that is an image; of a partial one any part of it."""
    if any(isinstance(value.get(name), list) and any(isinstance(each, dict) for each in value[name]) for name in NAMES):
        return True
    if partial and not JUDGED.isdisjoint(value):
        return True
    volumes = value.get("volumes")
    return isinstance(volumes, list) and any(image_of(volume) is not None for volume in volumes)


def is_container(value: Mapping[str, Any]) -> bool:
    """Whether a map with an `image` is a container, by what stands beside it, or an image in the parts that charts and operators like."""
    image = value["image"]
    if isinstance(image, dict):
        return isinstance(image.get("repository"), str)
    return isinstance(image, str) and not _BESIDE.isdisjoint(value)


def of_spec(
    path: str,
    spec: Mapping[str, Json],
    *,
    metadata: Mapping[str, Json] | None = None,
    bare: bool = False,
    partial: Partial = Partial.NOTHING,
) -> Pod:
    """Returns the pod of a pod spec as it is written."""
    base = path if bare else join(path, "spec")
    containers = tuple(
        Container(
            path=f"{base}.{field}[{index}]" if base else f"{field}[{index}]",
            name=as_text(as_map(body).get("name")),
            role=role,
            body=as_map(body),
            partial=bool(partial),
        )
        for field, role in LISTS
        if isinstance(spec.get(field), list)
        for index, body in enumerate(spec[field])
    )
    if partial and not containers and "securityContext" in spec:
        said = {"securityContext": f"{base}.securityContext"}
        containers = (Container(path=f"{base}.containers", name=OTHERS, role=Role.CONTAINER, body=EMPTY, partial=True, origins=said),)
        spec = {**spec, "containers": [EMPTY]}
    images = tuple(images_of(containers, spec.get("volumes"), f"{base}.volumes"))
    return Pod(
        path=path,
        bare=bare,
        metadata=metadata or {},
        spec=spec,
        containers=containers,
        images=images,
        partial=partial,
        has_metadata=not bare,
    )


def images_of(containers: tuple[Container, ...], volumes: Json, where: str | Pod) -> Iterator[Image]:
    """The images of containers, and of those volumes that are images; the volumes' path, or the pod that knows where each is."""
    for each in containers:
        if "image" in each.body or not each.partial:
            path = each.where("image") if each.origins else f"{each.path}.image"
            yield Image(reference=reference(each.body.get("image")), path=path, owner=each.name, role=each.role)
    for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        found = image_of(volume)
        if found is not None:
            text, steps = found
            start = where.where(f"volumes[{index}]") if isinstance(where, Pod) else f"{where}[{index}]"
            yield Image(
                reference=text, path=functools.reduce(join, steps, start), owner=as_text(as_map(volume).get("name")), role=Role.VOLUME
            )


def reference(image: Json) -> str:
    """Returns an image as it is written, or put together of `registry`, `repository` or `name`, and `tag`, as many operators have it."""
    if isinstance(image, dict):
        repository, tag, digest, registry = (as_text(image.get(key)) for key in ("repository", "tag", "digest", "registry"))
        repository = repository or as_text(image.get("name"))
        name = f"{registry}/{repository}" if registry and repository else repository
        return f"{name}@{digest}" if name and digest else f"{name}:{tag}" if name and tag else name
    return as_text(image)

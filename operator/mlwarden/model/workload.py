"""What a request would run.

`Workload` is made by `mlwarden.workloads.extract` alone: nothing else in mlwarden looks for containers or images.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

Json = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""
_NOWHERE: Mapping[str, str] = MappingProxyType({})


class Role(StrEnum):
    """Where in a pod spec an image or container stands."""

    CONTAINER = "container"
    INIT = "initContainer"
    EPHEMERAL = "ephemeralContainer"
    VOLUME = "imageVolume"


class Partial(StrEnum):
    """What of a pod others may still say: a runtime it is merged with, a preset, whatever an override is laid upon.

    Of that only what the object itself sets can be wrong; what it leaves out is judged in the pod it becomes.
    """

    NOTHING = ""
    CONTAINERS = "containers"
    POD = "pod"


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One container as its operator makes it of what is written, with the JSON path it stands at.

    Attributes:
        path: from the root of the object, e.g. `spec.template.spec.containers[0]`.
        name: `name` of the container, `""` where it has none or it is not a string.
        role: containers, initContainers or ephemeralContainers.
        body: the container object itself (never None; a non-object is `{}`).
        partial: somebody else says the rest of it.
        origins: field, as a path below the container → where it is written, of those that stand elsewhere (defaults, a patch).
    """

    path: str
    name: str
    role: Role
    body: Mapping[str, Json]
    partial: bool = False
    origins: Mapping[str, str] = _NOWHERE

    def where(self, field: str) -> str:
        """Returns the JSON path of a field (`securityContext.privileged`) as it stands in the object."""
        return _where(self.origins, self.path, field)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One image reference as written.

    Attributes:
        reference: the string in the manifest, unparsed; `""` where there is none.
        path: JSON path of the string, e.g. `spec.volumes[2].image.reference`.
        owner: name of the container or volume.
        role: where it stands.
    """

    reference: str
    path: str
    owner: str
    role: Role


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """One pod that the workload is or would create.

    Attributes:
        path: JSON path of the pod *template* (what has `metadata` and `spec`): `""` for a Pod, `spec.template` for a Deployment.
            Where a kind embeds a bare pod spec (`spec.predictor` of an InferenceService), `bare` is True and `path` is the spec itself.
        bare: the thing at `path` is a pod spec, not a template around one.
        metadata: the template's metadata, `{}` where there is none.
        spec: the pod spec, always a mapping.
        containers: all of them: init, ordinary and ephemeral, in the order of the object.
        images: of every container, and of every image volume.
        partial: what of it others may still say.
        origins: field, as a path below the spec → where it is written, of those that stand elsewhere (inherited, a patch).
        lacks: fields of a pod spec that the kind has no field for: nobody can say them here.
        has_metadata: the kind has a place for the pod's labels and annotations; else nothing about them can be asked of it.
        holder: JSON path of what would say the pod's fields where nothing does, `""` for the spec itself (a container beside them).
        unwritten: the operator makes this template by itself: nothing stands at `path`, and whoever wants another one writes all of it.
    """

    path: str
    bare: bool
    metadata: Mapping[str, Json]
    spec: Mapping[str, Json]
    containers: tuple[Container, ...]
    images: tuple[Image, ...]
    partial: Partial = Partial.NOTHING
    origins: Mapping[str, str] = _NOWHERE
    lacks: tuple[str, ...] = ()
    has_metadata: bool = True
    holder: str = ""
    unwritten: bool = False

    def where(self, field: str) -> str:
        """Returns the JSON path of a field of the pod spec (`hostNetwork`, `volumes[0]`) as it stands in the object."""
        return _where(self.origins, self.holder or self.spec_path, field)

    @property
    def spec_path(self) -> str:
        """The JSON path of the pod spec."""
        if self.bare:
            return self.path
        return f"{self.path}.spec" if self.path else "spec"


class Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an object is and what it is called. `name` may be empty while `generateName` decides."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group, `""` for the core group."""
        return self.api_version.rpartition("/")[0]

    def __str__(self) -> str:
        """`kind namespace/name`, as a person would say it."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where or '(unnamed)'}"


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a request would run.

    Attributes:
        resource: what it is.
        object: the whole object as decoded.
        pods: every pod it is or would create; empty for an object that runs nothing.
        known: False where the kind is not in the table and the pods were found by the fallback.
    """

    resource: Resource
    object: Mapping[str, Json]
    pods: tuple[Pod, ...]
    known: bool

    @property
    def images(self) -> tuple[Image, ...]:
        """Every image of every pod, each place once: what several pods inherit is written once."""
        found: dict[tuple[str, str], Image] = {}
        for pod in self.pods:
            for image in pod.images:
                found.setdefault((image.path, image.reference), image)
        return tuple(found.values())

    @property
    def is_pod(self) -> bool:
        """The object itself is a Pod: it can be held. Anything else is a template and can only be warned about or denied."""
        return self.resource.kind == "Pod" and self.resource.api_version == "v1"


def _where(origins: Mapping[str, str], base: str, field: str) -> str:
    known = field if origins else ""
    while known:
        if known in origins:
            return f"{origins[known]}{field[len(known) :]}"
        known = known[: max(known.rfind("."), known.rfind("["), 0)]
    return f"{base}.{field}" if base and field and not field.startswith("[") else f"{base}{field}"

"""What a request would run.

`Workload` is made by `mlwarden.workloads.extract` alone: nothing else in mlwarden looks for containers or images.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

Json = Any
"""A decoded JSON value: dict, list, str, int, float, bool or None."""


class Role(StrEnum):
    """Where in a pod spec an image or container stands."""

    CONTAINER = "container"
    INIT = "initContainer"
    EPHEMERAL = "ephemeralContainer"
    VOLUME = "imageVolume"


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One container as written, with the JSON path it stands at.

    Attributes:
        path: from the root of the object, e.g. `spec.template.spec.containers[0]`.
        name: `name` of the container, `""` where it has none or it is not a string.
        role: containers, initContainers or ephemeralContainers.
        body: the container object itself (never None; a non-object is `{}`).
    """

    path: str
    name: str
    role: Role
    body: Mapping[str, Json]


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
    """

    path: str
    bare: bool
    metadata: Mapping[str, Json]
    spec: Mapping[str, Json]
    containers: tuple[Container, ...]
    images: tuple[Image, ...]

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
        """Every image of every pod."""
        return tuple(image for pod in self.pods for image in pod.images)

    @property
    def is_pod(self) -> bool:
        """The object itself is a Pod: it can be held. Anything else is a template and can only be warned about or denied."""
        return self.resource.kind == "Pod" and self.resource.api_version == "v1"

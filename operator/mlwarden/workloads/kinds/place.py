"""What a row of the table of kinds says: where, in a kind, pods are described, and how its operator composes them.

A path names fields from the root; `[]` after a name goes through a list (`[][]` through one of lists), `*` through all values of a map.
`Shape` says what stands there, and the other fields of a `Place` how the operator makes a pod of it.
Fields of scale say how many and when, never what: an update of them alone is not judged again.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from mlwarden.model.workload import Json, Partial


class Shape(StrEnum):
    """What a path leads to: a pod template (metadata and spec), a bare pod spec, a single container, or an object to be made."""

    TEMPLATE = "template"
    SPEC = "spec"
    CONTAINER = "container"
    OBJECT = "object"


class Default(msgspec.Struct, frozen=True, kw_only=True):
    """A pod template that an operator makes where an object has none.

    Attributes:
        template: without its containers' image.
        image: path from the root of the image of its containers; where the object has none, nobody knows what is made.
        mode: path from the root of what says whether it is made.
        modes: what has to stand there; `""` is nothing.
    """

    template: Mapping[str, Json]
    image: str
    mode: str
    modes: tuple[str, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a kind where a pod is described, and how its operator makes the pod of it. Most need no more than the first two.

    Attributes:
        path: from the root of the object.
        shape: what stands there.
        partial: what of the pod others may still say (a runtime, a preset): of that only what is set here can fail.
        flag: path of what says that the operator makes this pod, whether or not anything is written here; without it nobody knows.
        default: the template that the operator makes where none is written.
        lone: paths below the place of what is one container each, beside its lists (`container` and `script` of an Argo template).
        main: what the operator calls a lone container that has no name; where this is `""`, the name of the field, or of the one above it.
        lone_partial: a lone container is laid over one of a runtime.
        lists: lists of containers under names of the kind's own: the steps to one below the place → the list of a pod spec it becomes.
        under: name of such a list → field beside it that lies under each of its containers (Tekton's `stepTemplate`).
        refers: fields of a container of such a list that name what says the rest of it.
        fields: field of a pod spec → what it is called here, where that differs; of a single container, all that is said beside it.
        body: field of a lone container, or of one of a list of the kind's own → what it is called here, where that differs.
        shared: fields of a lone container that stand elsewhere in the object: field, path from the root.
        adds: what the operator puts into a lone container that does not say it.
        sets: what the operator puts into the pod spec, unless it is said.
        lacks: fields of a pod spec that the kind has no field for: nobody is asked for them here.
        images: maps whose keys with this ending name images: path from the root, ending (`container.image` in `sparkConf`).
        unsaid: fields of a pod spec that the operator leaves out when they have this value.
        completed: paths of what says the rest of some of these pods by their names: where one is there, the pod is partial.
        inherits: paths of what pod fields come from that are not said here, nearest first; of their volumes those that are mounted.
        holders: paths of what would say the pod's fields where nothing does: the first that is there, or the first.
        defaults: path of what is laid under the whole place.
        exclusive: fields of the defaults that count only where the place has them, too.
        patch: field with a patch of the pod spec as text, here and where the place inherits from.
        operators: names of the operator's own containers, which a patch may name.
        metadata: field with the pod's metadata; `.` where labels and annotations stand beside the pod's own fields.
        labels: paths of what else the pod's labels and annotations come from, nearest first.
        models: paths below the place of URIs that may name an image (`oci://…`); so may the variable `STORAGE_URI` of its containers then.
    """

    path: str
    shape: Shape
    partial: Partial = Partial.NOTHING
    flag: str = ""
    default: Default | None = None
    lone: tuple[str, ...] = ()
    main: str = ""
    lone_partial: bool = False
    lists: tuple[tuple[tuple[str, ...], str], ...] = ()
    under: Mapping[str, str] = {}
    refers: tuple[str, ...] = ()
    fields: Mapping[str, str] = {}
    body: Mapping[str, str] = {}
    shared: tuple[tuple[str, str], ...] = ()
    adds: Mapping[str, Json] = {}
    sets: Mapping[str, Json] = {}
    lacks: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    unsaid: tuple[tuple[str, Json], ...] = ()
    completed: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    defaults: str = ""
    exclusive: tuple[str, ...] = ()
    patch: str = ""
    operators: tuple[str, ...] = ()
    metadata: str = ""
    labels: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    @property
    def composed(self) -> bool:
        """Whether the pod is more than what is written at this place."""
        said = self.lone, self.lists, self.fields, self.body, self.shared, self.adds, self.sets, self.images, self.lacks
        elsewhere = self.inherits, self.holders, self.completed, self.defaults, self.patch, self.models, self.metadata, self.labels
        return any(said) or any(elsewhere)


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a kind, its plural resource name, where its pods are, where it says how many and when, and whether it has a namespace."""

    group: str
    kind: str
    resource: str
    places: tuple[Place, ...]
    scale: tuple[str, ...] = ()
    namespaced: bool = True


SCALE = ("spec.replicas", "spec.paused", "spec.suspend")
"""Fields of scale of a kind that is not in the table (Kubernetes API conventions, scale subresource; Kueue)."""

JOB = ("suspend", "parallelism", "completions")
"""Fields of scale of a Job's spec."""


def templates(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    """Returns places of pod templates."""
    return tuple(Place(path=path, shape=Shape.TEMPLATE, partial=partial) for path in paths)


def specs(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    """Returns places of bare pod specs."""
    return tuple(Place(path=path, shape=Shape.SPEC, partial=partial) for path in paths)


def containers(*paths: str, partial: Partial = Partial.NOTHING) -> tuple[Place, ...]:
    """Returns places of single containers."""
    return tuple(Place(path=path, shape=Shape.CONTAINER, partial=partial) for path in paths)


def objects(*paths: str) -> tuple[Place, ...]:
    """Returns places of objects that are to be made."""
    return tuple(Place(path=path, shape=Shape.OBJECT) for path in paths)


def row(group: str, kind: str, resource: str, *places: Place, scale: tuple[str, ...] = (), namespaced: bool = True) -> Kind:
    """Returns a row of the table."""
    return Kind(group=group, kind=kind, resource=resource, places=places, scale=scale, namespaced=namespaced)


def below(base: str, *fields: str) -> tuple[str, ...]:
    """Returns the paths of fields below one."""
    return tuple(f"{base}.{field}" for field in fields)

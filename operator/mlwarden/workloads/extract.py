"""The one function that finds what a workload would run. Nothing else in mlwarden looks for containers or images.

First the table says where a kind describes its pods, and `compose` makes them as the kind's operator does. Then, for kinds whose schema the
API server does not close, a walk looks everywhere else for anything that has the shape of a pod spec, or of a container: a field that the
table does not know must not be a hiding place. Of a container that stands alone there only what it sets can fail. Text inside strings (a
script that calls `kubectl`, JSON in an annotation) is out of scope, with one exception that changes pods: Argo's `podSpecPatch`.

Rejected: a recursive walk (an object nested a thousand deep must not end in an exception), and looking only where the table says.
"""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from mlwarden.model.workload import Json, Partial, Pod, Resource, Workload
from mlwarden.workloads import compose, podspec
from mlwarden.workloads.kinds import KINDS, SCALE, Default, Kind, Place, Shape
from mlwarden.workloads.paths import expand, join, rooted
from mlwarden.workloads.values import as_list, as_map, as_text

_TABLE: dict[tuple[str, str], Kind] = {(row.group, row.kind): row for row in KINDS}
_CLOSED = {"", "apps", "batch"}
"""Groups whose kinds the API server prunes to its own schema: what the table does not name cannot be there."""
_PATCH = Place(path="", shape=Shape.SPEC, partial=Partial.POD, patch="podSpecPatch")
"""A patch of a pod where the table does not expect one."""
_SETTINGS = podspec.KNOWN - {"resources"}
"""Fields of a pod spec in which no pod and no container stands; operators call other things resources."""
_LONE = Place(path="", shape=Shape.CONTAINER, partial=Partial.POD, metadata="metadata")
"""A container outside of any pod spec, where the table does not expect one: nobody knows what its operator adds."""


def extract(obj: Json) -> Workload:
    """Returns everything `obj` would run. Never raises, whatever JSON value it is given."""
    root = obj if isinstance(obj, dict) else {}
    resource = _resource(root)
    row = _TABLE.get((resource.group, resource.kind))
    found: list[Pod] = []
    items = root.get("items")
    known = row is not None
    if resource.kind.endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            found.extend(_pods(item, _TABLE.get(_identity(item)), f"items[{index}]"))
        known = all(_identity(item) in _TABLE for item in items)
        root_alone = {key: value for key, value in root.items() if key != "items"}  # a kind may end in List and be none
    else:
        root_alone = root
    found.extend(_pods(root_alone, row, ""))
    return Workload(resource=resource, object=root, pods=tuple(found), known=known)


def resource_of(kind: str, api_version: str) -> str:
    """Returns the plural resource name of a kind of the table, `""` for any other."""
    row = _TABLE.get((api_version.rpartition("/")[0], kind))
    return row.resource if row else ""


def scale_of(resource: Resource) -> tuple[str, ...]:
    """Returns the paths at which a kind says how many and when."""
    row = _TABLE.get((resource.group, resource.kind))
    return row.scale if row else SCALE


def template_as_pod(workload: Workload, pod: Pod) -> dict[str, Json]:
    """Returns the pod as a Pod object, for expressions: the object itself where it is one."""
    if workload.is_pod and not pod.path:
        return dict(workload.object)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": dict(pod.metadata), "spec": dict(pod.spec)}


def _resource(obj: Mapping[str, Json]) -> Resource:
    metadata = as_map(obj.get("metadata"))
    return Resource(
        api_version=as_text(obj.get("apiVersion")),
        kind=as_text(obj.get("kind")),
        namespace=as_text(metadata.get("namespace")),
        name=as_text(metadata.get("name")) or as_text(metadata.get("generateName")),
    )


def _identity(obj: Json) -> tuple[str, str]:
    own = as_map(obj)
    return as_text(own.get("apiVersion")).rpartition("/")[0], as_text(own.get("kind"))


def _pods(obj: Json, row: Kind | None, base: str) -> Iterator[Pod]:
    seen: set[str] = set()
    bodies: dict[str, bool] = {}
    closed = row is not None and row.group in _CLOSED
    for place, whole, start in _places(obj, row, base):
        values = expand(whole, place.path, start)
        if place.flag:
            place, values = _flagged(whole, place, start, values)  # noqa: PLW2901 -- the same place, as this object has it
        if place.default is not None and all(value is None for _, value in values):
            yield from _unwritten(whole, place, place.default, start)
        if not values:
            continue
        has = compose.given(whole, place, start, len(values)) if place.composed else compose.NOTHING
        for path, value in values:
            pod = compose.pod(path, value, place, has)
            if pod is not None:
                if not closed:
                    seen.update(_consumed(pod, place))
                    bodies.update(dict.fromkeys((container.path for container in pod.containers), place.shape is not Shape.CONTAINER))
                yield pod
    if not closed:
        yield from _walk(obj, base, seen, bodies)


def _places(obj: Json, row: Kind | None, base: str) -> Iterator[tuple[Place, Json, str]]:
    """Every place of a kind, with the object that it belongs to and where that stands: itself, or one that its operator makes of it.

    One that would make yet another is looked through by shape alone, so that no object sends us around in circles.
    """
    for place in row.places if row is not None else ():
        if place.shape is not Shape.OBJECT:
            yield place, obj, base
            continue
        for path, inner in expand(obj, place.path, base):
            made = _TABLE.get(_identity(inner))
            yield from ((each, inner, path) for each in (made.places if made else ()) if each.shape is not Shape.OBJECT)


def _flagged(obj: Json, place: Place, base: str, values: list[tuple[str, Json]]) -> tuple[Place, list[tuple[str, Json]]]:
    """A place whose pod is made when the object says so, even of nothing; where it does not, only what is set there can fail."""
    if not any(value is True for _, value in expand(obj, place.flag, base)):
        return replace(place, partial=Partial.POD), values
    written = [(path, value) for path, value in values if isinstance(value, dict)]
    return place, written or [(rooted(base, place.path), {})]


def _unwritten(obj: Json, place: Place, default: Default, base: str) -> Iterator[Pod]:
    """The pod that the operator makes by itself where the object has no template for it."""
    said = next((value for _, value in expand(obj, default.mode, base)), "")
    where, image = next(iter(expand(obj, default.image, base)), ("", None))
    if said not in default.modes or not isinstance(image, str):
        return
    spec = as_map(default.template.get("spec"))
    bodies = [{"name": as_map(each).get("name"), "image": image, **as_map(each)} for each in as_list(spec, "containers")]
    pod = podspec.of_spec(rooted(base, place.path), {**spec, "containers": bodies})
    containers = tuple(replace(each, origins={"image": where}) for each in pod.containers)
    yield replace(pod, containers=containers, images=tuple(podspec.images_of(containers, None, pod)), unwritten=True)


def _consumed(pod: Pod, place: Place) -> Iterator[str]:
    """What the walk need not look at again."""
    yield pod.spec_path
    yield from (f"{pod.path}.{'.'.join(steps[:-1])}" for steps, _ in place.lists if len(steps) > 1)
    if place.patch:
        yield f"{pod.path}.{place.patch}"


def _walk(obj: Json, base: str, seen: set[str], bodies: dict[str, bool]) -> Iterator[Pod]:
    """Everything else that has the shape of a pod spec or of a container, wherever it stands.

    Kubernetes' own container has no containers in it: whatever stands in one that is known, in its `resources` say, is none. A pod spec has
    them in its lists alone: nothing in its `volumes` or its `securityContext` is one.

    Args:
        obj: the object.
        base: its path.
        seen: paths of pod specs and patches that are known already.
        bodies: path → whether it is one of a pod spec, for the containers that are.
    """
    stack: list[tuple[str, Json, bool]] = [(base, obj, False)]
    while stack:
        path, value, inside = stack.pop()
        inside = inside or bodies.get(path, False)
        if isinstance(value, list):
            stack.extend((f"{path}[{index}]", element, inside) for index, element in enumerate(value) if isinstance(element, dict | list))
        elif isinstance(value, dict):
            is_spec = path in seen
            if not is_spec and podspec.runs(value):
                is_spec = True
                pod = podspec.of_spec(path, value, bare=True)
                bodies.update(dict.fromkeys((container.path for container in pod.containers), True))
                yield pod
            if "image" in value and not inside and path not in bodies and podspec.is_container(value) and not _reported(path, base):
                yield from filter(None, [compose.pod(path, value, _LONE, compose.NOTHING)])
            if "podSpecPatch" in value and (where := join(path, "podSpecPatch")) not in seen:
                found = compose.pod(path, {"podSpecPatch": value["podSpecPatch"]}, _PATCH, compose.NOTHING)
                if found is not None:
                    seen.add(where)
                    yield found
            stack.extend(
                (join(path, key), inner, inside)
                for key, inner in value.items()
                if isinstance(inner, dict | list) and not (is_spec and key in _SETTINGS)
            )


def _reported(path: str, base: str) -> bool:
    """Whether something stands in the object's status: what runs already, in the words of who reports it."""
    status = join(base, "status")
    return path.startswith((f"{status}.", f"{status}[")) or path == status

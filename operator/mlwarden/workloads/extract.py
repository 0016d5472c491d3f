"""The one function that finds what a workload would run. Nothing else in mlwarden looks for containers or images.

First the table says where a kind describes its pods. Then, for kinds whose schema the API server does not close, a walk looks everywhere
else for anything that has the shape of a pod spec: a field that the table does not know must not be a hiding place. Text inside strings (a
script that calls `kubectl`, JSON in an annotation) is out of scope, with one exception that runs containers: Argo's `podSpecPatch`.

Rejected: a recursive walk (an object nested a thousand deep must not end in an exception), and looking only where the table says.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlwarden.model.workload import Container, Image, Json, Pod, Resource, Role, Workload
from mlwarden.workloads.kinds import KINDS, SCALE, Kind, Shape
from mlwarden.workloads.volumes import image_of

_LISTS = (("initContainers", Role.INIT), ("containers", Role.CONTAINER), ("ephemeralContainers", Role.EPHEMERAL))
_LIST_NAMES = tuple(name for name, _ in _LISTS)
_TABLE: dict[tuple[str, str], Kind] = {(row.group, row.kind): row for row in KINDS}
_CLOSED = {"", "apps", "batch"}
"""Groups whose kinds the API server prunes to its own schema: what the table does not name cannot be there."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_EMPTY: Mapping[str, Json] = {}


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


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else _EMPTY


def _resource(obj: Mapping[str, Json]) -> Resource:
    metadata = _map(obj.get("metadata"))
    return Resource(
        api_version=_text(obj.get("apiVersion")),
        kind=_text(obj.get("kind")),
        namespace=_text(metadata.get("namespace")),
        name=_text(metadata.get("name")) or _text(metadata.get("generateName")),
    )


def _identity(obj: Json) -> tuple[str, str]:
    own = _map(obj)
    return _text(own.get("apiVersion")).rpartition("/")[0], _text(own.get("kind"))


def _pods(obj: Json, row: Kind | None, base: str) -> Iterator[Pod]:
    seen: set[str] = set()
    if row is not None:
        for place, shape in row.places:
            for path, value in _expand(obj, place, base):
                pod = _pod(path, value, shape)
                if pod is not None:
                    if shape is not Shape.CONTAINER:  # a lone container may have a pod spec beside its own fields
                        seen.add(pod.spec_path)
                    yield pod
        if row.group in _CLOSED:
            return
    yield from _walk(obj, base, seen)


def _expand(obj: Json, place: str, base: str) -> list[tuple[str, Json]]:
    """Every value that a path of the table leads to, with its full JSON path."""
    reached: list[tuple[str, Json]] = [(base, obj)]
    for step in place.split(".") if place else ():
        name, through_list = (step[:-2], True) if step.endswith("[]") else (step, False)
        following: list[tuple[str, Json]] = []
        for path, value in reached:
            if not isinstance(value, dict):
                continue
            keys = list(value) if name == "*" else [name] if name in value else []
            for key in keys:
                inner, where = value[key], _join(path, key)
                if not through_list:
                    following.append((where, inner))
                elif isinstance(inner, list):
                    following.extend((f"{where}[{index}]", element) for index, element in enumerate(inner))
        reached = following
    return reached


def _pod(path: str, value: Json, shape: Shape) -> Pod | None:
    if not isinstance(value, dict):
        return None
    if shape is Shape.CONTAINER:
        if not isinstance(value.get("image"), str):
            return None
        container = Container(path=path, name=_text(value.get("name")) or path.rpartition(".")[2], role=Role.CONTAINER, body=value)
        return Pod(path=path, bare=True, metadata={}, spec={"containers": [value]}, containers=(container,), images=(_image(container),))
    if shape is Shape.TEMPLATE:
        spec = value.get("spec")
        return _of_spec(path, False, _map(value.get("metadata")), spec) if isinstance(spec, dict) else None
    return _of_spec(path, True, {}, value) if _runs(value) else None


def _of_spec(path: str, bare: bool, metadata: Mapping[str, Json], spec: Mapping[str, Json]) -> Pod:  # noqa: FBT001 -- private
    base = path if bare else _join(path, "spec")
    containers = tuple(
        Container(
            path=f"{base}.{field}[{index}]" if base else f"{field}[{index}]", name=_text(_map(body).get("name")), role=role, body=_map(body)
        )
        for field, role in _LISTS
        if isinstance(spec.get(field), list)
        for index, body in enumerate(spec[field])
    )
    images = [_image(container) for container in containers]
    volumes = spec.get("volumes")
    if isinstance(volumes, list):
        for index, volume in enumerate(volumes):
            found = image_of(volume)
            if found is not None:
                reference, steps = found
                where = functools.reduce(_join, steps, f"{_join(base, 'volumes')}[{index}]")
                images.append(Image(reference=reference, path=where, owner=_text(_map(volume).get("name")), role=Role.VOLUME))
    return Pod(path=path, bare=bare, metadata=metadata, spec=spec, containers=containers, images=tuple(images))


def _image(container: Container) -> Image:
    return Image(reference=_text(container.body.get("image")), path=f"{container.path}.image", owner=container.name, role=container.role)


def _runs(value: Mapping[str, Any]) -> bool:
    """Has the shape of a pod spec: containers of some kind, or a volume that is an image."""
    if any(isinstance(value.get(name), list) and any(isinstance(each, dict) for each in value[name]) for name in _LIST_NAMES):
        return True
    volumes = value.get("volumes")
    return isinstance(volumes, list) and any(image_of(volume) is not None for volume in volumes)


def _walk(obj: Json, base: str, seen: set[str]) -> Iterator[Pod]:
    """Everything else that has the shape of a pod spec, wherever it stands."""
    stack: list[tuple[str, Json]] = [(base, obj)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, list):
            stack.extend((f"{path}[{index}]", element) for index, element in enumerate(value) if isinstance(element, dict | list))
        elif isinstance(value, dict):
            if path not in seen and _runs(value):
                yield _of_spec(path, True, {}, value)
            patch = value.get("podSpecPatch")
            if isinstance(patch, str):
                yield from _patched(_join(path, "podSpecPatch"), patch)
            stack.extend((_join(path, key), inner) for key, inner in value.items() if isinstance(inner, dict | list))


def _patched(path: str, patch: str) -> Iterator[Pod]:
    """Argo merges this text into the pod. JSON is read; anything else is a container whose image nobody can know."""
    try:
        value = json.loads(patch)
    except (ValueError, RecursionError):
        value = {"containers": [{"name": "podSpecPatch"}]} if "image" in patch else {}
    if isinstance(value, dict) and _runs(value):
        yield _of_spec(path, True, {}, value)


def _join(path: str, key: str) -> str:
    if _PLAIN.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{json.dumps(key)}]"

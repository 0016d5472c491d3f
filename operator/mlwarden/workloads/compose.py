"""The pod that an operator makes of one place of an object: what it takes from where, merged as the operator merges it.

The table (`workloads.kinds`) says of each place what a container inherits and what is patched over it; this puts the pod together and
keeps, for every field that stands elsewhere, where it is written: a finding and its fix point there. Other objects are not looked up: what
they could still say makes a pod `partial`.

Composition is bounded: what many templates inherit is shared, and where the sum of what would be merged is larger than `BUDGET`, the pods
are partial instead, so that no object makes the work grow with its square.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from mlwarden.model.workload import Container, Image, Json, Partial, Pod, Role
from mlwarden.workloads import merge
from mlwarden.workloads.kinds import Place, Shape
from mlwarden.workloads.paths import expand, join, rooted
from mlwarden.workloads.podspec import INHERITED, JUDGED, KNOWN, LISTS, NAMES, POD_FIELDS, ROLES, images_of, of_spec, runs
from mlwarden.workloads.values import EMPTY, as_list, as_map, as_text

BUDGET = 100_000
"""Values that are merged into the pods of one place, all of them together."""
_OCI = (("oci+native://", Role.VOLUME), ("oci://", Role.CONTAINER))
"""How a model's URI names an image, and what it becomes: KServe's modelcar is a container, a native one is mounted."""
_STORAGE = "STORAGE_URI"
"""The variable by which a custom predictor names its model."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What all templates of one place get from elsewhere in their object.

    Attributes:
        defaults: what each is laid over, with its path.
        sources: what pod fields are inherited from, nearest first.
        volumes: of each source, name → place in its list, and the volume.
        patches: what is laid over the pods: the path of the as_text, and the patch; None where it cannot be read.
        shared: fields of a lone container that are said beside it, with their paths.
        labels: labels and annotations that all of the pods get.
        images: images that are named elsewhere, with their paths.
        holder: what would say the pod's fields where nothing does, `""` for the place itself.
        budget: how many values may be merged into one of the pods.
        more: others say more of these pods, or what they get would be more than `BUDGET` and is left out: the pods are partial.
    """

    defaults: tuple[str, Mapping[str, Json]] | None = None
    sources: tuple[tuple[str, Mapping[str, Json]], ...] = ()
    volumes: tuple[Mapping[str | int | None, tuple[int, Json]], ...] = ()
    patches: tuple[tuple[str, Mapping[str, Json] | None], ...] = ()
    shared: Mapping[str, tuple[str, Json]] = {}
    labels: Mapping[str, Mapping[str, Json]] = {}
    images: tuple[tuple[str, str], ...] = ()
    holder: str = ""
    budget: int = BUDGET
    more: bool = False


NOTHING = Given()


def given(obj: Json, place: Place, base: str, times: int) -> Given:
    """Returns what the templates of a place get from elsewhere.

    Args:
        obj: the object.
        place: the place.
        base: the object's own path, in a list.
        times: how many templates there are.
    """
    if not any((place.inherits, place.defaults, place.shared, place.labels, place.images, place.under, place.holders, place.completed)):
        return NOTHING

    def maps(path: str) -> list[tuple[str, Mapping[str, Json]]]:
        return [(at, value) for at, value in expand(obj, path, base)[:1] if isinstance(value, dict)]

    defaults = maps(place.defaults) if place.defaults else []
    sources = [found for path in place.inherits for found in maps(path)]
    texts = [(f"{at}.{place.patch}", value[place.patch]) for at, value in reversed(sources) if place.patch and place.patch in value]
    patches = tuple((at, merge.patch_of(text)) for at, text in texts)
    labels = _labels([value for path in place.labels for _, value in maps(path)])
    images = tuple(
        (join(at, key), value)
        for path, ending in place.images
        for at, conf in maps(path)
        for key, value in conf.items()
        if key.endswith(ending) and isinstance(value, str)
    )
    shared = {field: found for field, path in place.shared for found in expand(obj, path, base)[:1]}
    holder = next(
        (at for path in place.holders for at, _ in expand(obj, path, base)), rooted(base, place.holders[0]) if place.holders else ""
    )
    more = any(expand(obj, path, base) for path in place.completed)
    if times > 1:
        inherited = [value[field] for _, value in sources for field in INHERITED if field in value]
        weight = sum(_weight(each) for each in (*inherited, labels, *(patch for _, patch in patches), *(value for _, value in defaults)))
        if weight * times > BUDGET:
            return Given(shared=shared, images=images, holder=holder, budget=BUDGET // times, more=True)
    volumes = tuple(
        {merge.named(each, "name"): (index, each) for index, each in enumerate(as_list(value, "volumes"))} for _, value in sources
    )
    return Given(
        defaults=defaults[0] if defaults else None,
        sources=tuple(sources),
        volumes=volumes,
        patches=patches,
        shared=shared,
        labels=labels,
        images=images,
        holder=holder,
        budget=BUDGET // times,
        more=more,
    )


def pod(path: str, value: Json, place: Place, has: Given) -> Pod | None:
    """Returns the pod that the operator makes of what stands at one place; None where it makes none.

    Args:
        path: JSON path of the value.
        value: what stands there.
        place: what the table says about it.
        has: what it gets from elsewhere.
    """
    if not isinstance(value, dict):
        return None
    if place.shape is Shape.TEMPLATE:
        spec = value.get("spec")
        metadata = value.get("metadata")
        if place.sets and isinstance(spec, dict):
            spec = {**place.sets, **{name: said for name, said in spec.items() if said is not None or name not in place.sets}}
        return (
            of_spec(path, spec, metadata=metadata if isinstance(metadata, dict) else None, partial=place.partial)
            if isinstance(spec, dict)
            else None
        )
    if place.shape is Shape.SPEC and not place.composed:
        return of_spec(path, value, bare=True, partial=place.partial) if runs(value, place.partial) else None
    return _composed(path, value, place, has)


@dataclass(slots=True)
class _Making:
    """A pod that is being made.

    Attributes:
        path: where its place stands.
        own: what is written there.
        over: the same, laid over the defaults.
        place: what the table says.
        has: what comes from elsewhere.
        said: leaves of the defaults that count, and where each is written.
    """

    path: str
    own: Mapping[str, Json]
    over: Mapping[str, Json]
    place: Place
    has: Given
    said: Mapping[str, str]
    partial: Partial = Partial.NOTHING
    spec: dict[str, Json] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    unread: list[Image] = field(default_factory=list)

    def take(self) -> bool:
        """Reads what the place itself says; returns whether the operator makes a pod of it."""
        place, over = self.place, self.over
        fields = ("volumes", *place.fields) if place.shape is Shape.CONTAINER else POD_FIELDS
        named = {name: place.fields.get(name, name) for name in fields}
        self.spec = {name: over[key] for name, key in named.items() if key in over}
        self.origins = {leaf: where for leaf, where in self.said.items() if leaf.partition(".")[0] in KNOWN}
        self.origins |= {name: f"{self.path}.{key}" for name, key in place.fields.items() if name != key}
        if self._holder():  # what is said here is not where it would be said
            self.origins |= {name: f"{self.path}.{place.fields.get(name, name)}" for name in self.spec}
        self.containers = [*self._lone(), *self._listed()]
        self.partial = place.partial
        if self.has.more:
            self.partial = Partial.POD
        elif place.lone_partial and any(isinstance(over.get(name), dict) for name in place.lone):
            self.partial = Partial.CONTAINERS
        said = (
            not JUDGED.isdisjoint(self.spec)
            or place.patch in over
            or any(expand(over, name, "") for name in place.models)
            or self.has.images
        )
        alone = place.partial and said
        self.spec = {**place.sets, **self.spec}
        return bool(self.containers or alone)

    def _lone(self) -> Iterator[Container]:
        place = self.place
        if place.shape is Shape.CONTAINER and (place.partial or place.adds or "image" in self.over or "image" in self.has.shared):
            yield self._single(self.path, "", self.over, place.main or self.path.rpartition(".")[2])
        for name in place.lone:
            *above, last = name.split(".")
            body = _held(self.over, (*above, last))
            if isinstance(body, dict):
                yield self._single(f"{self.path}.{name}", name, body, place.main or (above or [last])[-1])

    def _single(self, path: str, key: str, body: Mapping[str, Json], name: str) -> Container:
        origins = {leaf.removeprefix(f"{key}."): where for leaf, where in self.said.items() if leaf.startswith(f"{key}.")}
        body, renamed = self._named_here(body, path)
        origins |= renamed
        for known, (where, value) in self.has.shared.items():
            if known not in body:
                body = {**body, known: value}
                origins[known] = where
        if self.place.adds:
            body = merge.laid(self.place.adds, body)
        imageless = bool(self.place.adds) and "image" not in body
        own = as_text(body.get("name"))
        if own and own != name and self.place.main in self.place.operators:  # Argo calls it `main`, whatever it is called here
            own, body = name, {**body, "name": name}
        return Container(path=path, name=own or name, role=Role.CONTAINER, body=body, partial=imageless, origins=origins)

    def _listed(self) -> Iterator[Container]:
        for name in NAMES:
            for where, body in self._items((name,)):
                yield Container(path=where, name=as_text(as_map(body).get("name")), role=ROLES[name], body=as_map(body))
        for steps, name in self.place.lists:
            found = list(self._items(steps))
            below = self._below(self.place.under.get(steps[-1], ""), ROLES[name])
            if below is not None and _weight(below.body) * len(found) > self.has.budget:
                yield from (replace(self._listed_here(*each, ROLES[name]), partial=True) for each in found)
            else:
                yield from (self._own(self._listed_here(*each, ROLES[name]), below) for each in found)

    def _listed_here(self, where: str, item: Json, role: Role) -> Container:
        body, origins = self._named_here(as_map(item), where)
        return Container(path=where, name=as_text(body.get("name")), role=role, body=body, origins=origins)

    def _below(self, name: str, role: Role) -> Container | None:
        found = as_map(self.over.get(name)) if name else EMPTY
        return self._listed_here(f"{self.path}.{name}", found, role) if found else None

    def _own(self, item: Container, below: Container | None) -> Container:
        """A container of a list of the kind's own, over what lies below each of them."""
        elsewhere = any(name in item.body for name in self.place.refers)
        if below is None or elsewhere:
            return replace(item, partial=elsewhere)
        said = merge.undirected(item.body)
        body, own = merge.merged(below.body, said), set(merge.leaves(said))
        origins = {leaf: below.where(leaf) for leaf in merge.leaves(below.body) if leaf not in own}
        for each in (below, item):
            origins |= {**each.origins, **_placed(as_list(body, "env"), as_list(each.body, "env"), "env", each.path)}
        return replace(item, body=body, origins=origins)

    def _named_here(self, body: Mapping[str, Json], path: str) -> tuple[Mapping[str, Json], dict[str, str]]:
        """A container with Kubernetes' names of its fields, and where those stand that have others here."""
        origins = {}
        for known, other in self.place.body.items():
            if other in body:
                body = {**body, known: body[other]}
            if other in body or known not in body:
                origins[known] = f"{path}.{other}"
        return body, origins

    def _items(self, steps: tuple[str, ...]) -> Iterator[tuple[str, Json]]:
        """The items of one list of containers with where each is written: here, or in the defaults."""
        key, found = ".".join(steps), _at(self.over, steps)
        if self.has.defaults is None:
            yield from ((f"{self.path}.{key}[{index}]", body) for index, body in enumerate(found))
            return
        where, defaults = self.has.defaults
        here, there = ({merge.named(body, "name"): index for index, body in enumerate(_at(each, steps))} for each in (self.own, defaults))
        for index, body in enumerate(found):
            name = merge.named(body, "name")
            yield (f"{self.path}.{key}[{here[name]}]" if name in here else f"{where}.{key}[{there.get(name, index)}]"), body

    def inherit(self) -> None:
        """Puts in what the place does not say and inherits, nearest first; of volumes those that are mounted."""
        for (where, source), volumes in zip(self.has.sources, self.has.volumes, strict=True):
            for name in INHERITED:
                if name not in self.spec and name in source:
                    self.spec[name] = source[name]
                    self.origins[name] = f"{where}.{name}"
            if volumes:
                self._mount(where, volumes)
        for name, value in self.place.unsaid:
            if self.spec.get(name) == value:
                del self.spec[name]

    def _mount(self, where: str, volumes: Mapping[str | int | None, tuple[int, Json]]) -> None:
        bodies = (*(container.body for container in self.containers), as_map(self.over.get("containerSet")))
        wanted = dict.fromkeys(merge.named(mount, "name") for body in bodies for mount in as_list(body, "volumeMounts"))
        own = as_list(self.spec, "volumes")
        have = {merge.named(volume, "name") for volume in own}
        more = [volumes[name] for name in wanted if name in volumes and name not in have]
        if more:
            self.origins |= {f"volumes[{len(own) + at}]": f"{where}.volumes[{index}]" for at, (index, _) in enumerate(more)}
            self.spec["volumes"] = [*own, *(volume for _, volume in more)]

    def patch(self) -> None:
        """Lays the patches over the pod: that of the whole object first, then the place's own."""
        name = self.place.patch
        if not name:
            return
        own = [(self.said.get(name) or f"{self.path}.{name}", merge.patch_of(self.over[name]))] if name in self.over else []
        for where, patch in (*self.has.patches, *own):
            if patch is None:
                self.partial = Partial.POD
                self.unread += _unread(where, self.over.get(name))
            else:
                self._patch(where, patch)

    def _patch(self, where: str, patch: Mapping[str, Json]) -> None:
        rest = {name: value for name, value in patch.items() if name not in ROLES}
        self.spec = merge.merged(self.spec, rest)
        leaves = merge.leaves({name: value for name, value in rest.items() if name != "volumes"})
        self.origins |= {leaf: f"{where}.{leaf}" for leaf in leaves}
        self.origins |= _placed(as_list(self.spec, "volumes"), as_list(rest, "volumes"), "volumes", where)
        for name, role in LISTS:
            listed = as_list(patch, name)
            if any(as_map(each).get("$patch") == "replace" for each in listed):
                self.containers = [each for each in self.containers if each.role is not role]
            self._patch_containers(f"{where}.{name}", role, listed)

    def _patch_containers(self, where: str, role: Role, listed: list[Json]) -> None:
        result = list(self.containers)
        at = {each.name: index for index, each in enumerate(result) if each.role is role and each.name}
        gone: set[int] = set()
        for index, body in enumerate(listed):
            if not isinstance(body, dict) or body.get("$patch") == "replace":
                continue
            written, name = f"{where}[{index}]", as_text(body.get("name"))
            known = at.get(name)
            if body.get("$patch") == "delete":
                gone |= {known} if known is not None else set()
            elif known is None:
                at[name] = len(result)
                operators = name in self.place.operators
                result.append(Container(path=written, name=name, role=role, body=merge.merged({}, body), partial=operators))
            else:
                result[known] = _over(result[known], body, written)
        self.containers = [each for index, each in enumerate(result) if index not in gone]

    def _holder(self) -> str:
        """What would say the fields of a pod whose place has none for them; of a container that may be the place of its pod."""
        if self.has.holder:
            return self.has.holder
        if self.place.shape is not Shape.CONTAINER:
            return ""
        return self.path if self.place.fields else self.has.sources[0][0] if self.has.sources else ""

    def _named(self) -> Iterator[Image]:
        for where, name in self.has.images:
            yield Image(reference=name, path=where, owner=self.place.main, role=Role.CONTAINER)

    def made(self) -> Pod:
        """Returns the pod."""
        if self.partial:
            self.containers = [replace(each, partial=True) for each in self.containers]
        for name, role in LISTS:
            bodies = [each.body for each in self.containers if each.role is role]
            if bodies:
                self.spec[name] = bodies
        said = self.over if self.place.metadata == "." else as_map(self.over.get(self.place.metadata)) if self.place.metadata else EMPTY
        pod = Pod(
            path=self.path,
            bare=True,
            metadata=_labels([said, self.has.labels]),
            has_metadata=bool(self.place.metadata or self.place.labels),
            spec=self.spec,
            containers=tuple(self.containers),
            images=(),
            partial=self.partial,
            origins=self.origins,
            holder=self._holder(),
            lacks=self.place.lacks,
        )
        return replace(
            pod,
            images=(
                *images_of(pod.containers, pod.spec.get("volumes"), pod),
                *self.unread,
                *self._named(),
                *_models(pod, self.over, self.place),
            ),
        )


def _composed(path: str, value: Mapping[str, Json], place: Place, has: Given) -> Pod | None:
    over, said = value, {}
    if has.defaults:
        where, defaults = has.defaults
        kept = {key: inner for key, inner in defaults.items() if key in value or key not in place.exclusive}
        over = merge.laid(kept, value)
        own = set(merge.leaves(value))
        said = {leaf: f"{where}.{leaf}" for leaf in merge.leaves(kept) if leaf not in own}
    making = _Making(path, value, over, place, has, said)
    if not making.take():
        return None
    making.inherit()
    making.patch()
    return making.made()


def _labels(sources: list[Mapping[str, Json]]) -> dict[str, Mapping[str, Json]]:
    """Labels and annotations of several sources, the nearest first."""
    found: dict[str, Mapping[str, Json]] = {}
    for source in reversed(sources):
        for key in ("labels", "annotations"):
            said = source.get(key)
            if isinstance(said, dict) and said:
                found[key] = {**found.get(key, {}), **said}
    return found


def _held(value: Json, steps: tuple[str, ...]) -> Json:
    for step in steps:
        value = as_map(value).get(step)
    return value


def _at(value: Mapping[str, Json], steps: tuple[str, ...]) -> list[Json]:
    held = _held(value, steps)
    return held if isinstance(held, list) else []


def _over(container: Container, patch: Mapping[str, Json], where: str) -> Container:
    """A container with a patch over it."""
    body = merge.merged(container.body, patch)
    said = {leaf: f"{where}.{leaf}" for leaf in merge.leaves({key: value for key, value in patch.items() if key not in {"name", "env"}})}
    origins = {**container.origins, **said, **_placed(as_list(body, "env"), as_list(patch, "env"), "env", where)}
    return replace(container, body=body, origins=origins)


def _placed(merged: list[Json], patch: list[Json], field_name: str, where: str) -> dict[str, str]:
    """Where the items of a merged list stand that a patch has."""
    at = {name: index for index, each in enumerate(patch) if (name := merge.named(each, "name")) is not None}
    names = [merge.named(each, "name") for each in merged]
    return {f"{field_name}[{index}]": f"{where}.{field_name}[{at[name]}]" for index, name in enumerate(names) if name in at}


def _models(made: Pod, value: Mapping[str, Json], place: Place) -> Iterator[Image]:
    """The images that a model's URI names."""
    uris = [found for name in place.models for found in expand(value, name, made.path)]
    if place.models:
        for each in made.containers:
            variables = enumerate(map(as_map, as_list(each.body, "env")))
            uris += [(each.where(f"env[{at}].value"), env.get("value")) for at, env in variables if env.get("name") == _STORAGE]
    for where, uri in uris:
        for scheme, role in _OCI:
            if isinstance(uri, str) and uri.startswith(scheme):
                yield Image(reference=uri.removeprefix(scheme), path=where, owner=where.rpartition(".")[2], role=role)
                break


def _unread(where: str, text: Json) -> Iterator[Image]:
    """A patch that nobody can read and that seems to name an image: which one is not known."""
    if isinstance(text, str) and "image" in text and "{{" not in text:
        yield Image(reference="", path=where, owner="podSpecPatch", role=Role.CONTAINER)


def _weight(value: Json) -> int:
    """How many values a value has, long texts counted as more."""
    count = 0
    stack = [value]
    while stack:
        top = stack.pop()
        count += 1
        if isinstance(top, dict):
            stack.extend(top.values())
        elif isinstance(top, list):
            stack.extend(top)
        elif isinstance(top, str):
            count += len(top) // 100
    return count

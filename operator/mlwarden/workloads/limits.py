"""LimitRange defaults: what the API server fills into a pod before anybody judges it, and so what its template is judged with.

As in Kubernetes' `plugin/pkg/admission/limitranger`: each container and init container, never an ephemeral one, gets of every limit and
request that it does not set the default of the namespace. Where several LimitRanges have one, any may win there; here the first by name.
"""

from collections.abc import Iterable, Mapping

from mlwarden.model.limits import Defaults
from mlwarden.model.workload import Json
from mlwarden.workloads.values import as_map

_LISTS = ("initContainers", "containers")


def defaults_of(ranges: Iterable[Json]) -> Defaults:
    """Returns what the LimitRanges of one namespace fill in. Never raises, whatever JSON they are."""
    limits: dict[str, Json] = {}
    requests: dict[str, Json] = {}
    for each in ranges:
        items = as_map(as_map(each).get("spec")).get("limits")
        for item in items if isinstance(items, list) else ():
            if as_map(item).get("type") == "Container":
                limits = {**as_map(item.get("default")), **limits}
                requests = {**as_map(item.get("defaultRequest")), **requests}
    return Defaults(limits=limits, requests=requests)


def by_namespace(ranges: Iterable[Json]) -> dict[str, Defaults]:
    """Returns what is filled in in each namespace that has LimitRanges."""
    found: dict[str, list[tuple[str, Json]]] = {}
    for each in ranges:
        metadata = as_map(as_map(each).get("metadata"))
        found.setdefault(str(metadata.get("namespace") or ""), []).append((str(metadata.get("name")), each))
    return {namespace: defaults_of(each for _, each in sorted(listed, key=lambda one: one[0])) for namespace, listed in found.items()}


def is_range(obj: Mapping[str, Json]) -> bool:
    """Whether an object is a LimitRange."""
    return (obj.get("apiVersion"), obj.get("kind")) == ("v1", "LimitRange")


def stored(obj: Mapping[str, Json], defaults: Defaults) -> Mapping[str, Json]:
    """Returns a Pod with the defaults of its namespace, as it comes to be judged; anything else as it is."""
    spec = obj.get("spec")
    if (obj.get("apiVersion"), obj.get("kind")) != ("v1", "Pod") or not isinstance(spec, dict):
        return obj
    return {**obj, "spec": defaulted(spec, defaults)}


def defaulted(spec: Mapping[str, Json], defaults: Defaults) -> dict[str, Json]:
    """Returns the pod spec as the API server would store it; `spec` itself is not changed."""
    found = dict(spec)
    for field in _LISTS:
        listed = spec.get(field)
        if isinstance(listed, list):
            found[field] = [_filled(each, defaults) if isinstance(each, dict) else each for each in listed]
    return found


def _filled(container: Mapping[str, Json], defaults: Defaults) -> dict[str, Json]:
    resources = as_map(container.get("resources"))
    own = as_map(resources.get("limits"))
    # What has a limit and no request has been given the limit as its request before.
    filled = {"limits": {**defaults.limits, **own}, "requests": {**defaults.requests, **own, **as_map(resources.get("requests"))}}
    return {**container, "resources": {**resources, **{name: amounts for name, amounts in filled.items() if amounts}}}

"""Where a pod may be scheduled, as far as the platform of a node decides, and how it is kept from the others.

A requirement is written into the required node affinity, and there only: a `nodeSelector` cannot say "amd64 or arm64". Of a pod that is
held the API server lets node affinity only grow stricter (KEP-3838; `validateNodeAffinityMutability`, pkg/apis/core/validation): terms are
alternatives, so each of them gets the requirement, behind what stands in it, and a term that matches nothing stays as it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mlwarden.model.nodes import ARCHITECTURE_LABEL, OS_LABEL, Nodes
from mlwarden.model.workload import Json

_LABELS = frozenset({OS_LABEL, ARCHITECTURE_LABEL})


def named_node(spec: Mapping[str, Json]) -> str:
    """Returns the node that a pod names, `""` where the scheduler is to find one."""
    name = spec.get("nodeName")
    return name if isinstance(name, str) else ""


def permits(spec: Mapping[str, Json], nodes: Nodes) -> bool:
    """Whether a pod may be scheduled to any of these nodes, by what it says of platforms."""
    return any(
        all(any(_admits(each, value) for value in values) for key, values in nodes.labels().items() for each in _about(term, key))
        for term in _alternatives(spec)
    )


def confined(spec: Mapping[str, Json], nodes: Nodes) -> bool:
    """Whether a pod may be scheduled to none but these nodes."""
    return all(
        any(each.get("operator") == "In" and set(_values(each)) <= set(values) for each in _about(term, key))
        for term in _alternatives(spec)
        for key, values in nodes.labels().items()
    )


def required(spec: Mapping[str, Json], nodes: Nodes) -> dict[str, Json]:
    """Returns the required node affinity of a pod that is kept to these nodes, beside what it asks for itself."""
    ours = [{"key": key, "operator": "In", "values": list(values)} for key, values in nodes.labels().items()]
    own = _own(spec)
    if not isinstance(own, Mapping):
        return {"nodeSelectorTerms": [{"matchExpressions": ours}]}
    terms = [
        {**term, "matchExpressions": [*_list(term, "matchExpressions"), *ours]} if _matches_something(term) else term
        for term in _list(own, "nodeSelectorTerms")
    ]
    return {**own, "nodeSelectorTerms": terms}


def named_again(old: Mapping[str, Json], new: Mapping[str, Json]) -> Json:
    """Returns the affinity of a pod as stored, where an update has it without what `required` put there, and else as it is; None otherwise.

    Args:
        old: the spec as stored.
        new: the spec as the update would have it.
    """
    before, after = _own(old), _own(new)
    if not isinstance(before, Mapping) or before == after or _beside(old) != _beside(new):
        return None
    terms = _list(before, "nodeSelectorTerms")
    if after is None:
        others: list[Mapping[str, Any]] = [{} for _ in terms[:1]]
    else:
        others = _list(after, "nodeSelectorTerms") if isinstance(after, Mapping) else []
    same = len(terms) == len(others) and all(map(_is_longer_by_ours, terms, others))
    return old["affinity"] if same else None


def _is_longer_by_ours(term: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    known, named = _list(term, "matchExpressions"), _list(other, "matchExpressions")
    ours = known[len(named) :]
    fields = _list(term, "matchFields") == _list(other, "matchFields")
    return fields and known[: len(named)] == named and all(each.get("key") in _LABELS and each.get("operator") == "In" for each in ours)


def _beside(spec: Mapping[str, Json]) -> tuple[Json, Json]:
    """What an affinity says beside the required one of nodes."""
    affinity = spec.get("affinity")
    affinity = affinity if isinstance(affinity, Mapping) else {}
    nodes = affinity.get("nodeAffinity")
    preferred = nodes.get("preferredDuringSchedulingIgnoredDuringExecution") if isinstance(nodes, Mapping) else None
    return {key: value for key, value in affinity.items() if key != "nodeAffinity" and value}, preferred or None


def _alternatives(spec: Mapping[str, Json]) -> Iterator[list[Mapping[str, Any]]]:
    """What each of the alternatives of a pod demands of a node; with its `nodeSelector`, which all of them share."""
    selector = spec.get("nodeSelector")
    shared: list[Mapping[str, Any]] = [
        {"key": key, "operator": "In", "values": [value]} for key, value in (selector if isinstance(selector, Mapping) else {}).items()
    ]
    own = _own(spec)
    if not isinstance(own, Mapping):
        yield shared
        return
    for term in _list(own, "nodeSelectorTerms"):
        if _matches_something(term):
            yield [*shared, *_list(term, "matchExpressions")]


def _own(spec: Mapping[str, Json]) -> Json:
    found: Json = spec
    for step in ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _matches_something(term: Mapping[str, Any]) -> bool:
    """An empty term matches no node (corev1 NodeSelectorTerm)."""
    return bool(_list(term, "matchExpressions") or _list(term, "matchFields"))


def _about(expressions: list[Mapping[str, Any]], key: str) -> Iterator[Mapping[str, Any]]:
    return (each for each in expressions if each.get("key") == key)


def _admits(expression: Mapping[str, Any], value: str) -> bool:
    match expression.get("operator"):
        case "In":
            return value in _values(expression)
        case "NotIn":
            return value not in _values(expression)
        case "DoesNotExist":
            return False
        case _:
            return True


def _values(expression: Mapping[str, Any]) -> list[Json]:
    found = expression.get("values")
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _list(of: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = of.get(key)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []

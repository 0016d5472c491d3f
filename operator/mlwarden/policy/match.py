"""Whether a policy is about a workload: resources, selectors, conditions.

The semantics are the API server's, so that a policy means the same here and compiled (apimachinery, labels.Requirement.Matches;
apiserver, admission/plugin/policy/matching). Where what is needed is not known, or a condition fails to run, the answer is the reason, a
string: the engine makes it `Unknown`. It is never a silent no.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mlwarden import cel, workloads
from mlwarden.model.evidence import Facts
from mlwarden.model.policy import LabelRequirement, LabelSelector, Match
from mlwarden.model.workload import Json, Resource, Workload
from mlwarden.policy.compiled import CompiledPolicy


def matches(compiled: CompiledPolicy, workload: Workload, facts: Facts) -> bool | str:
    """Returns whether the policy is about the workload, or why that cannot be said.

    Args:
        compiled: the policy.
        workload: what is judged.
        facts: the namespace, the user, the operation and the old object.
    """
    match = compiled.policy.spec.match
    about = _is_resource(match, workload, facts.plural)
    if about is not True:
        return about
    namespaced = _in_namespace(match.namespace_selector, workload.resource, facts)
    if namespaced is not True:
        return namespaced
    labelled = _is_labelled(match.object_selector, workload, facts)
    if labelled is not True or not compiled.conditions:
        return labelled
    return _holds(compiled, workload, facts)


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Returns whether the selector matches (meta/v1 LabelSelector: everything is ANDed, empty matches all)."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _meets(requirement, labels) for requirement in selector.match_expressions
    )


def _is_resource(match: Match, workload: Workload, plural: str) -> bool | str:
    """By plural name, as the API server has it in the request, else from the table. A guess (`gatewaies`) would be a policy never asked."""
    if not match.resources:
        return bool(workload.pods)
    resource = workload.resource
    name = plural or workloads.resource_of(resource.kind, resource.api_version)
    rules = [rule for rule in match.resources if "*" in rule.api_groups or resource.group in rule.api_groups]
    if any("*" in rule.resources or (name and name in rule.resources) for rule in rules):
        return True
    if rules and not name:
        return f"the plural name of {resource.kind or 'its kind'} is not known here, and the policy is about resources by that name"
    return False


def _in_namespace(selector: LabelSelector, resource: Resource, facts: Facts) -> bool | str:
    if _is_empty(selector):
        return True
    if resource.kind == "Namespace" and resource.api_version == "v1":
        return True  # as for every cluster-scoped object; its labels are the objectSelector's business
    if not facts.namespace:
        return f"the labels of the namespace {resource.namespace or '(none given)'} are not known"
    labels = _labels(facts.namespace)
    return labels if isinstance(labels, str) else selects(selector, labels)


def _is_labelled(selector: LabelSelector, workload: Workload, facts: Facts) -> bool | str:
    """The old object counts as well: taking a label off must not take the object out of a policy's sight."""
    if _is_empty(selector):
        return True
    found = [_labels(each) for each in (workload.object, facts.old) if each is not None]
    for labels in found:
        if isinstance(labels, str):
            return labels
    return any(selects(selector, labels) for labels in found if not isinstance(labels, str))


def _holds(compiled: CompiledPolicy, workload: Workload, facts: Facts) -> bool | str:
    env: dict[str, Json] = {
        "object": cel.strip_nulls(workload.object),
        "namespaceObject": cel.strip_nulls(facts.namespace),
        "request": {
            "operation": facts.operation,
            "userInfo": cel.strip_nulls(facts.user),
            "namespace": workload.resource.namespace,
            "name": workload.resource.name,
        },
    }
    reason = ""
    for name, program in compiled.conditions:
        try:
            if program(env) is not True:
                return False  # as in the API server: one false condition outweighs another's error
        except (cel.EvaluationError, RecursionError) as error:
            reason = reason or f"its condition {name} could not be evaluated: {error or 'nested too deeply'}"
    return reason or True


def _is_empty(selector: LabelSelector) -> bool:
    return not selector.match_labels and not selector.match_expressions


def _meets(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    key, values = requirement.key, requirement.values
    match requirement.operator:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _labels(obj: Mapping[str, Any]) -> dict[str, str] | str:
    metadata = obj.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or not _all_text((*labels, *labels.values())):
        return "its labels are not a map of strings"
    return dict(labels)


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)

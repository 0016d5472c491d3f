"""Whether an update changes anything that is judged.

What did not change is not judged again: scaling down, removing a finalizer, editing a label and writing a status always pass, whatever
policies say by now. Otherwise a policy that became stricter, or an outage, would be in the way of everybody who wants to clean up.
"""

from collections.abc import Mapping, Sequence

from mlwarden import workloads
from mlwarden.model.workload import Json, Resource, Workload

# Annotations that say what runs, not what a thing is called: judged when they change. Everything else in metadata is bookkeeping.
_JUDGED_ANNOTATIONS = (
    "mlwarden.io/",
    ".mlwarden.io/",
    "container.apparmor.security.beta.kubernetes.io/",
    "seccomp.security.alpha.kubernetes.io/",
)
_BOOKKEEPING = frozenset({"metadata", "status"})
# Scheduling may change while a pod is held, by design of the gate itself (KEP-3521), and Kubernetes allows nothing that matters here.
_POD_SCHEDULING = frozenset({"schedulingGates", "nodeName", "nodeSelector", "affinity", "tolerations", "activeDeadlineSeconds"})


def relevant_change(old: Workload, new: Workload) -> bool:
    """Returns whether `new` would run, or ask for, anything that `old` did not.

    Args:
        old: the object as stored.
        new: the object as it would be stored.
    """
    try:
        return _differs(old, new)
    except RecursionError:  # nested too deeply to compare: judged again
        return True


def _differs(old: Workload, new: Workload) -> bool:
    if _annotations(old.object) != _annotations(new.object):
        return True
    if new.is_pod and old.is_pod:
        before, after = (_without(pod.object.get("spec"), _POD_SCHEDULING) for pod in (old, new))
    else:
        before, after = (_unscaled(_without(workload.object, _BOOKKEEPING), workload.resource) for workload in (old, new))
    return bool(before != after)


def _annotations(obj: Mapping[str, Json]) -> dict[str, Json]:
    metadata = obj.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if not isinstance(annotations, Mapping):
        return {}
    return {key: value for key, value in annotations.items() if isinstance(key, str) and any(part in key for part in _JUDGED_ANNOTATIONS)}


def _unscaled(value: Json, resource: Resource) -> Json:
    """Without how many and when, where the kind says that. A template called `replicas` or `suspend` stays."""
    for path in workloads.scale_of(resource):
        value = _dropped(value, path.split("."))
    return value


def _dropped(value: Json, steps: Sequence[str]) -> Json:
    step, *rest = steps
    name, through_list = step.removesuffix("[]"), step.endswith("[]")
    if not isinstance(value, Mapping) or (name != "*" and name not in value):
        return value
    changed = dict(value)
    for key in list(value) if name == "*" else [name]:
        inner = value[key]
        if not rest and isinstance(inner, int | None):
            del changed[key]
        elif rest and through_list:
            changed[key] = [_dropped(item, rest) for item in inner] if isinstance(inner, list) else inner
        elif rest:
            changed[key] = _dropped(inner, rest)
    return changed


def _without(value: Json, fields: frozenset[str]) -> Json:
    return {key: item for key, item in value.items() if key not in fields} if isinstance(value, Mapping) else value

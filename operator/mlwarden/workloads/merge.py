"""What operators merge: fields that a template inherits, and patches of the pod it becomes.

A patch is Kubernetes' strategic merge patch of a pod spec, as Argo applies `podSpecPatch` and KServe and the Kubeflow Trainer merge pods:
maps key by key, null removes, lists of named things by their key, every other list as a whole; `$patch`, `$retainKeys` and
`$deleteFromPrimitiveList` do as they say.

Source: k8s.io/apimachinery/pkg/util/strategicpatch; the keys are those of the Go types in k8s.io/api/core/v1.
"""

from collections.abc import Iterator, Mapping

from mlwarden.errors import InputError
from mlwarden.model.documents import yaml_loads
from mlwarden.model.workload import Json
from mlwarden.workloads import podspec
from mlwarden.workloads.paths import join

KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "sidecars": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "schedulingGates": "name",
    "topologySpreadConstraints": "topologyKey",
}
"""Field → the key by which its list is merged."""
FIELDS: Mapping[str, str] = {
    name.lower(): name
    for name in (
        *podspec.NAMES,
        *podspec.POD_FIELDS,
        *("args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "name", "ports", "readinessProbe"),
        *("startupProbe", "value", "valueFrom", "volumeDevices", "volumeMounts", "workingDir", "hostIP", "hostPort", "httpGet", "host"),
        *("allowPrivilegeEscalation", "appArmorProfile", "capabilities", "add", "drop", "fsGroup", "privileged", "procMount"),
        *("readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile", "supplementalGroups"),
        *("sysctls", "type", "windowsOptions", "hostProcess", "limits", "requests", "role", "user", "tcpSocket", "postStart", "preStop"),
        *("hostPath", "path", "csi", "driver", "volumeAttributes", "reference", "projected", "sources", "serviceAccountToken"),
    )
}
"""A field of a pod that policies ask about, in small letters → as it is spelled."""
_DELETE = "$deleteFromPrimitiveList/"
_LONGEST = 65_536
"""Characters of a patch that are read: what is longer is a patch whose content nobody knows."""


def merged(base: Json, patch: Json, field: str = "", depth: int = 0) -> Json:
    """Returns `base` with the strategic merge patch applied; `base` is not changed.

    Args:
        base: any value.
        patch: any value.
        field: the name of what is merged, which says the key of a list.
        depth: levels so far; what is nested deeper than any pod is replaced.
    """
    if isinstance(base, dict) and isinstance(patch, dict) and depth < 40:
        return _map(base, patch, depth)
    key = KEYS.get(field)
    if key and isinstance(base, list) and isinstance(patch, list):
        return _list(base, patch, key, depth)
    return _map({}, patch, depth) if isinstance(patch, dict) and depth < 40 else patch


def laid(base: Json, over: Json, field: str = "", depth: int = 0) -> Json:
    """Returns `base` with a value laid over it that is no patch: directives and nulls say nothing there."""
    return merged(base, undirected(over), field, depth)


def undirected(value: Json, depth: int = 0) -> Json:
    """Returns a value without nulls and directives: as an operator has it that decodes it before anything is merged."""
    if depth > 40:
        return value
    if isinstance(value, dict):
        return {key: undirected(inner, depth + 1) for key, inner in value.items() if not key.startswith("$") and inner is not None}
    return [undirected(each, depth + 1) for each in value] if isinstance(value, list) else value


def leaves(patch: Json, field: str = "") -> Iterator[str]:
    """Yields the paths of everything a patch sets below one map; lists are leaves."""
    stack: list[tuple[str, Json]] = [(field, patch)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict) and value and path.count(".") < 40:
            stack.extend((join(path, key), inner) for key, inner in value.items() if not key.startswith("$"))
        elif path:
            yield path


def patch_of(text: Json) -> Mapping[str, Json] | None:
    """Returns a patch that was written as text, JSON or YAML; None where nobody can tell what it sets."""
    if not isinstance(text, str) or len(text) > _LONGEST:
        return None
    try:
        documents = yaml_loads(text)
    except InputError:
        return None
    if not documents:
        return {}
    return _spelled(documents[0]) if len(documents) == 1 and isinstance(documents[0], dict) else None


def _spelled(value: Json, depth: int = 0) -> Json:
    """A patch with the names of fields as they are spelled: Go reads `HostNetwork` in JSON as `hostNetwork`, of several the last."""
    if depth > 40:
        return value
    if isinstance(value, dict):
        return {FIELDS.get(key.lower(), key): _spelled(value[key], depth + 1) for key in sorted(value)}
    return [_spelled(each, depth + 1) for each in value] if isinstance(value, list) else value


def _map(base: Mapping[str, Json], patch: Mapping[str, Json], depth: int) -> dict[str, Json]:
    if patch.get("$patch") == "delete":
        return {}
    result = {} if patch.get("$patch") == "replace" else dict(base)
    retained = patch.get("$retainKeys")
    if isinstance(retained, list):
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            if isinstance(result.get(name), list) and isinstance(value, list):
                result[name] = [each for each in result[name] if each not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, key, depth + 1)
    return result


def _list(base: list[Json], patch: list[Json], key: str, depth: int) -> list[Json]:
    if any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch):
        return [each for each in patch if not (isinstance(each, dict) and "$patch" in each)]
    result: list[Json] = list(base)
    at = {name: index for index, old in enumerate(result) if (name := named(old, key)) is not None}
    gone: set[int] = set()
    for each in patch:
        name = named(each, key)
        index = at.get(name) if name is not None else None
        if isinstance(each, dict) and each.get("$patch") == "delete":
            if index is not None:
                gone.add(index)
        elif index is None:
            if name is not None:
                at[name] = len(result)
            result.append(each)
        else:
            result[index] = merged(result[index], each, "", depth + 1)
    return [each for index, each in enumerate(result) if index not in gone] if gone else result


def named(item: Json, key: str) -> str | int | None:
    """Returns what one item of a list is merged by; None where it has no such thing."""
    value = item.get(key) if isinstance(item, dict) else None
    return value if isinstance(value, str | int) else None

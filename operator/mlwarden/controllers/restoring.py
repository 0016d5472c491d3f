"""The API server's part of "a manifest may be applied again": a MutatingAdmissionPolicy that gives a pinned image its digest back.

It says what `engine.restored` says, in CEL, so that a `kubectl apply` of what is in git passes while no webhook answers. `failurePolicy:
Ignore`: where it cannot be evaluated the image is what the update says, and the guard of the gate refuses it, as before.

By position, not by name: neither the containers nor the volumes of a pod can be put in another order.
"""

from mlwarden.controllers.scope import admission, governed
from mlwarden.model.policy import GATE, Settings
from mlwarden.model.workload import Json

RESTORE = "mlwarden-restore"
"""Name of the policy and of its binding."""

_PINNED = "@sha256:[0-9a-f]{64}$"
_LISTS = ("initContainers", "containers")


def restoring_objects(settings: Settings) -> list[dict[str, Json]]:
    """Returns the policy and its binding, for every namespace that is governed: the webhook pins in all of them."""
    spec: dict[str, Json] = {
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["pods"]}],
        },
        "matchConditions": [{"name": "an-image-changes", "expression": _changes()}],
        "variables": [{"name": "held", "expression": f"oldObject.spec.?schedulingGates.orValue([]).exists(g, g.name == '{GATE}')"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": " + ".join([*map(_containers, _LISTS), _volumes()])}}],
    }
    binding = {"policyName": RESTORE, "matchResources": {"namespaceSelector": governed(settings)}}
    return [admission("MutatingAdmissionPolicy", RESTORE, spec), admission("MutatingAdmissionPolicyBinding", RESTORE, binding)]


def _changes() -> str:
    """CEL: of the elements that can have an image, one is not what it was. Almost no update of a pod is of that kind."""
    return " || ".join(f"object.spec.?{field}.orValue([]) != oldObject.spec.?{field}.orValue([])" for field in (*_LISTS, "volumes"))


def _containers(field: str) -> str:
    again = _is_tag_of("c.?image.orValue('')", f"oldObject.spec.{field}[i].?image.orValue('')")
    return (
        f"(variables.held ? [] : object.spec.?{field}.orValue([]).transformList(i, c,"
        f" i < oldObject.spec.?{field}.orValue([]).size() && oldObject.spec.{field}[i].name == c.name && {again},"
        f' JSONPatch{{op: "replace", path: "/spec/{field}/" + string(i) + "/image", value: oldObject.spec.{field}[i].image}}))'
    )


def _volumes() -> str:
    """Those of a held pod, too: the API server lets no volume change after the pod's creation."""
    old = "oldObject.spec.volumes[i]"
    again = _is_tag_of("v.image.?reference.orValue('')", f"{old}.image.?reference.orValue('')")
    return (
        "object.spec.?volumes.orValue([]).transformList(i, v,"
        f" i < oldObject.spec.?volumes.orValue([]).size() && {old}.name == v.name && has(v.image) && has({old}.image) && {again},"
        f' JSONPatch{{op: "replace", path: "/spec/volumes/" + string(i) + "/image/reference", value: {old}.image.reference}})'
    )


def _is_tag_of(named: str, pinned: str) -> str:
    """CEL for `engine.restored.is_tag_of`: the name as container engines complete it, with its tag or with `latest`, is what is pinned."""
    whole = (
        "(n.matches('^(index[.])?docker[.]io/[^/]+$') ? 'docker.io/library/' + n.substring(n.indexOf('/') + 1)"
        " : n.startsWith('index.docker.io/') ? n.substring(6)"
        " : !n.contains('/') ? 'docker.io/library/' + n"
        " : n.matches('^[^/.:A-Z]+/') && !n.startsWith('localhost/') ? 'docker.io/' + n : n)"
    )
    return (
        f"!{named}.contains('@') && {pinned}.matches('{_PINNED}')"
        f" && [{named}].exists(n, [n, {whole}].exists(w, {pinned}.startsWith((w.matches(':[^/]+$') ? w : w + ':latest') + '@')))"
    )

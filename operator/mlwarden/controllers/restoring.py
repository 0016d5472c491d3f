"""The API server's part of "a manifest may be applied again": a MutatingAdmissionPolicy that gives a pinned image its digest back.

It says what `engine.restored` says, in CEL, of images and of the platforms that a pod was kept to, so that a `kubectl apply` of what is in
git passes while no webhook answers. `failurePolicy: Ignore`: where it cannot be evaluated the update says what it says, and the guard of
the gate refuses another image, as before.

By position, not by name: neither the containers nor the volumes of a pod can be put in another order.
"""

from mlwarden.controllers.scope import governed
from mlwarden.model.nodes import ARCHITECTURE_LABEL, OS_LABEL
from mlwarden.model.policy import GATE, Settings
from mlwarden.model.workload import Json
from mlwarden.policy.bindings import admission

RESTORE = "mlwarden-restore"
"""Name of the policy and of its binding."""

_PINNED = "@sha256:[0-9a-f]{64}$"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
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
        "matchConditions": [{"name": "something-of-ours-changes", "expression": _changes()}],
        "variables": [
            {"name": "held", "expression": f"oldObject.spec.?schedulingGates.orValue([]).exists(g, g.name == '{GATE}')"},
            {"name": "before", "expression": _terms("oldObject")},
            {"name": "after", "expression": _terms("object")},
        ],
        "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": " + ".join([*map(_containers, _LISTS), _volumes(), _affinity()])}}
        ],
    }
    binding = {"policyName": RESTORE, "matchResources": {"namespaceSelector": governed(settings)}}
    return [admission("MutatingAdmissionPolicy", RESTORE, spec), admission("MutatingAdmissionPolicyBinding", RESTORE, binding)]


def _changes() -> str:
    """CEL: of the elements that mlwarden writes into, one is not what it was. Almost no update of a pod is of that kind."""
    lists = " || ".join(f"object.spec.?{field}.orValue([]) != oldObject.spec.?{field}.orValue([])" for field in (*_LISTS, "volumes"))
    return f"{lists} || object.spec.?affinity != oldObject.spec.?affinity"


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


def _terms(of: str) -> str:
    """CEL for what a pod demands of nodes: a list of alternatives, empty where it demands nothing."""
    return f"dyn({of}).spec.?affinity.?nodeAffinity.?{_REQUIRED}.?nodeSelectorTerms.orValue([])"


def _affinity() -> str:
    """What is demanded of nodes as stored, where the update only lacks, behind each alternative, what `workloads.nodes.required` put there.

    An update without any demand (a PUT of a manifest that has none) is left to the webhook: apply does not send what was never in it.
    """
    expressions = "{0}.?matchExpressions.orValue([])"
    old, new = expressions.format("t"), expressions.format("variables.after[i]")
    ours = f"['{OS_LABEL}', '{ARCHITECTURE_LABEL}']"
    longer = (
        f"{old}.size() >= {new}.size() && {old}.slice(0, {new}.size()) == {new}"
        f" && {old}.slice({new}.size(), {old}.size()).all(e, e.key in {ours} && e.operator == 'In')"
        " && t.?matchFields.orValue([]) == variables.after[i].?matchFields.orValue([])"
    )
    beside = " && ".join(
        f"dyn(object).spec.?affinity.?{field} == dyn(oldObject).spec.?affinity.?{field}"
        for field in ("podAffinity", "podAntiAffinity", "nodeAffinity.?preferredDuringSchedulingIgnoredDuringExecution")
    )
    kind = f"Object.spec.affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms.matchExpressions"
    value = f"{old}.map(e, {kind}{{key: e.key, operator: e.operator, values: e.?values.orValue([]).map(v, string(v))}})"
    return (
        "(variables.before != variables.after && variables.after.size() > 0 && variables.before.size() == variables.after.size()"
        f" && {beside}"
        f" && variables.before.all(i, t, {longer})"
        f' ? variables.before.transformList(i, t, JSONPatch{{op: "add", path: "/spec/affinity/nodeAffinity/{_REQUIRED}/nodeSelectorTerms/"'
        f' + string(i) + "/matchExpressions", value: {value}}}) : [])'
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

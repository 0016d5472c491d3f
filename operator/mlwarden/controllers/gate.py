"""The API server's part of "fail held": the policy that gates every new pod, and the guard that keeps the gate on.

Both live inside the API server, so they hold while mlwarden does not run. They were attacked on a real server before they were built; every
way in that was found is a test in `tests/controllers/test_fail_held_*.py`.

Nothing is released inside CREATE: the guard refuses a created pod without the gate, whoever took it off. One exception, because the API
server refuses a gate beside `spec.nodeName`: a pod that names its node is let through here, **and only because** the fail-closed webhook
`node.mlwarden.io` judges exactly those pods (`NAMES_NODE` is its match condition too, over the same namespaces).

Rejected: to refuse pods that name their node (`kubectl debug node/…` and some schedulers need them); `reinvocationPolicy: IfNeeded` (a
webhook of the same mind wins anyway, and the guard catches it); to release by the annotation of a person with pod rights alone.
"""

import hashlib
import json

from mlwarden.controllers import guards
from mlwarden.controllers.scope import holding, may, validating
from mlwarden.model.policy import GATE, Settings
from mlwarden.model.workload import Json
from mlwarden.policy.account import IS_MIRROR, is_account
from mlwarden.policy.bindings import admission
from mlwarden.workloads.volumes import csi_images

HOLD = "mlwarden-hold"
"""Name of the gating policy and of its binding."""
PROBE = "mlwarden-hold-probe"
"""Name of the binding by which a dry-run pod finds out whether the policy is in force."""
PROBE_LABEL = "mlwarden.io/gate-probe"
"""On that pod; its value is the revision of the gating policy."""
JUDGED = "mlwarden.io/judged"
"""Annotation that the release leaves: what it was judged by, and when. Nobody else can write it."""
BREAK_GLASS = "mlwarden.io/break-glass"
"""Annotation by which somebody with the verb `release` on `pods.mlwarden.io` gives the reason for a release by hand."""
NAMES_NODE = "has(object.spec.nodeName) && object.spec.nodeName != ''"
"""CEL: the pod names its node. Such a pod is not held; a fail-closed webhook judges it."""
OWN_ANNOTATIONS = (JUDGED, BREAK_GLASS)

_PODS: dict[str, Json] = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"]}
_IMAGES = (
    "{0}.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) + {0}.spec.containers.map(c, c.?image.orValue(''))"
    " + {0}.spec.?volumes.orValue([]).filter(v, has(v.image)).map(v, v.image.?reference.orValue(''))"
    f" + {csi_images('{0}.spec.?volumes.orValue([])')}"
)
_VCLUSTER = (
    "('vcluster.loft.sh/object-name' in object.metadata.?annotations.orValue({})"
    " || 'vcluster.loft.sh/managed-by' in object.metadata.?labels.orValue({}))"
)
"""CEL: a vCluster's syncer made this pod. It is only told more: anybody may write that."""
# Of every subresource that a pod has in Kubernetes 1.37, those that cannot bring in code.
_HARMLESS = "['', 'status', 'binding', 'eviction', 'resize', 'exec', 'attach', 'portforward', 'proxy', 'log']"


def gate_objects(settings: Settings, *, enforced: bool) -> list[dict[str, Json]]:
    """Returns everything of the gate and its guards, in the order to apply: the gate first, then what demands it.

    Args:
        settings: the chart's.
        enforced: MutatingAdmissionPolicy is in force here. Where it is not, the webhook adds the gate and the guards are the same.
    """
    if settings.rollout == "audit":  # nothing is held and nobody refused; mlwarden's own identity and memory are protected all the same
        return guards.guard_objects(settings)
    return [
        *(hold_objects(settings) if enforced else []),
        *_gate_guard(settings),
        *_subresources_guard(settings),
        *guards.guard_objects(settings),
    ]


def hold_objects(settings: Settings) -> list[dict[str, Json]]:
    """Returns the gating MutatingAdmissionPolicy, its binding, and the binding for the probe, in the order to apply.

    The probe's binding carries the revision of the other two. The API server sees objects of one kind in the order they were written, so
    a dry-run pod with the label of that revision that comes back gated proves that the binding before it is in force.
    """
    policy = admission(
        "MutatingAdmissionPolicy",
        HOLD,
        {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [{**_PODS, "operations": ["CREATE"]}]},
            "matchConditions": [{"name": "something-to-do", "expression": _unfinished()}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _mutation()}}],
        },
    )
    binding = admission(
        "MutatingAdmissionPolicyBinding", HOLD, {"policyName": HOLD, "matchResources": {"namespaceSelector": holding(settings)}}
    )
    probe = admission(
        "MutatingAdmissionPolicyBinding",
        PROBE,
        {
            "policyName": HOLD,
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
                "objectSelector": {"matchLabels": {PROBE_LABEL: revision(settings)}},
            },
        },
    )
    return [policy, binding, probe]


def revision(settings: Settings) -> str:
    """Returns a label value that changes whenever the gating policy or its reach does."""
    return hashlib.sha256(json.dumps([_unfinished(), _mutation(), holding(settings)], sort_keys=True).encode()).hexdigest()[:32]


def probe_pod(settings: Settings) -> dict[str, Json]:
    """Returns the pod to create with `dryRun=All` in mlwarden's namespace; it comes back gated when the gating policy is in force."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": PROBE, "namespace": settings.namespace, "labels": {PROBE_LABEL: revision(settings)}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "probe",
                    "image": "mlwarden.invalid/never-started:1",
                    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def _unfinished() -> str:
    """CEL: the gating policy, or the guard behind it, has something to do with a pod that is created.

    A match condition costs a fraction of what follows it: the API server writes a pod down and reads it again for a mutation without
    effect, too, and asks again whenever a webhook has changed the pod.
    """
    brought = " || ".join(f"'{key}' in object.metadata.?annotations.orValue({{}})" for key in OWN_ANNOTATIONS)
    return f"!{_gated('object')} || {brought}"


def _mutation() -> str:
    """A JSON patch: off with annotations that only we write (nobody brings a seal of their own), on with the gate."""
    strip = " + ".join(
        f"(has(object.metadata.annotations) && '{key}' in object.metadata.annotations"
        f' ? [JSONPatch{{op: "remove", path: "/metadata/annotations/" + jsonpatch.escapeKey("{key}")}}] : [])'
        for key in OWN_ANNOTATIONS
    )
    return (
        f"{strip} + ({NAMES_NODE} ? [] : !has(object.spec.schedulingGates)"
        f' ? [JSONPatch{{op: "add", path: "/spec/schedulingGates", value: [Object.spec.schedulingGates{{name: "{GATE}"}}]}}]'
        f' : object.spec.schedulingGates.exists(g, g.name == "{GATE}") ? []'
        f' : [JSONPatch{{op: "add", path: "/spec/schedulingGates/-", value: Object.spec.schedulingGates{{name: "{GATE}"}}}}])'
    )


def _gated(of: str) -> str:
    return f"{of}.spec.?schedulingGates.orValue([]).exists(g, g.name == '{GATE}')"


def _annotation(key: str) -> dict[str, str]:
    """CEL for an annotation's value now and before, `''` where there is none."""
    return {
        "now": f"object.metadata.?annotations[?'{key}'].orValue('')",
        "before": f"(oldObject == null ? '' : oldObject.metadata.?annotations[?'{key}'].orValue(''))",
    }


def _seals(settings: Settings) -> list[dict[str, str]]:
    """Nobody but mlwarden writes the seal; nobody writes a break-glass reason who may not break the glass."""
    judged, glass = _annotation(JUDGED), _annotation(BREAK_GLASS)
    return [
        {
            "expression": f"{judged['now']} == {judged['before']} || (oldObject != null && {is_account(settings, settings.releaser)})",
            "message": f"only mlwarden writes the annotation {JUDGED}",
        },
        {
            "expression": f"{glass['now']} == {glass['before']} || (oldObject != null && {_may_release()})",
            "message": f"the annotation {BREAK_GLASS} needs the verb release on pods.mlwarden.io, and a pod that exists",
        },
    ]


def _may_release() -> str:
    return may("release", "pods", namespace="object.metadata.namespace", name="object.metadata.name")


def _gate_guard(settings: Settings) -> list[dict[str, Json]]:
    glass = _annotation(BREAK_GLASS)
    return validating(
        "mlwarden-gate",
        constraints={
            "resourceRules": [{**_PODS, "operations": ["CREATE", "UPDATE"]}],
            "namespaceSelector": holding(settings),
        },
        # A created pod with the gate and without our annotations is as it should be: nothing below could refuse it.
        conditions={"of-interest": f"request.operation != 'CREATE' || ({NAMES_NODE}) || {_unfinished()}"},
        variables={
            "gated": _gated("object"),
            "wasGated": f"oldObject != null && {_gated('oldObject')}",
            "trusted": is_account(settings, settings.releaser),
            "images": _IMAGES.format("object"),
            "oldImages": f"oldObject == null ? [] : {_IMAGES.format('oldObject')}",
            # The reason is given in the very request that releases: one that somebody left there earlier is nobody's decision today.
            "glass": f"{glass['now']} != '' && {glass['now']} != {glass['before']} && {_may_release()}",
            "where": "object.metadata.namespace + '/' + object.metadata.?name.orValue('')",
        },
        validations=[
            {
                "expression": "!variables.wasGated || variables.gated || variables.trusted || variables.glass",
                "messageExpression": (
                    "'only mlwarden releases a held pod; see what it waits for: kubectl mlwarden why ' + object.metadata.name + ' -n '"
                    f" + object.metadata.namespace + ({_VCLUSTER} ? '. vCluster writes its own scheduling gates over those of the host:"
                    " the pod syncs again once it was released, see docs/held-elsewhere.md'"
                    f" : ' (in an emergency: annotation {BREAK_GLASS}=REASON in the same patch,"
                    " by somebody with the verb release on pods.mlwarden.io)')"
                ),
                "message": "only mlwarden releases a held pod",
            },
            {
                "expression": f"request.operation != 'CREATE' || variables.gated || ({NAMES_NODE})",
                "message": "this pod is not held: something took mlwarden's gate off while it was being created",
            },
            {
                # Not even in the release: there a webhook on updates could exchange what was judged. Images are pinned before.
                "expression": "request.operation != 'UPDATE' || variables.gated || variables.images == variables.oldImages",
                "message": "the images of a judged pod do not change; create a new pod",
            },
            # Nobody judges these again: what is judged now must be what starts. The webhook pins before; it may have been down.
            {
                "expression": (
                    f"request.operation != 'CREATE' || !({NAMES_NODE}) || {IS_MIRROR}"
                    " || variables.images.all(i, i.matches('@sha256:[0-9a-f]{64}$'))"
                ),
                "message": "a pod that names its node names its images by digest (image@sha256:...)",
            },
            *_seals(settings),
        ],
        audit={
            # Written for attempts, too: whether it was allowed is in the audit event. (An audit annotation cannot ask the authorizer.)
            "break-glass": (
                f"variables.wasGated && !variables.gated && !variables.trusted && {glass['now']} != ''"
                f" ? request.userInfo.username + ' breaks the glass of ' + variables.where + ': ' + {glass['now']} : ''"
            ),
        },
    )


def _subresources_guard(settings: Settings) -> list[dict[str, Json]]:
    """Subresources can bring in code or write our annotations (status). An unknown one is refused until it is known."""
    old = "oldObject.spec.?ephemeralContainers.orValue([])"
    new = "object.spec.?ephemeralContainers.orValue([])"
    sealed = " || ".join(
        f"object.metadata.?annotations[?'{key}'].orValue('') != oldObject.metadata.?annotations[?'{key}'].orValue('')"
        for key in OWN_ANNOTATIONS
    )
    pod = "object != null && oldObject != null && object.kind == 'Pod' && oldObject.kind == 'Pod'"
    return validating(
        "mlwarden-subresources",
        constraints={
            "resourceRules": [{**_PODS, "operations": ["*"], "resources": ["pods/*"]}],
            "excludeResourceRules": [{**_PODS, "operations": ["*"]}],  # plain pods match `pods/*`, too
            "namespaceSelector": holding(settings),
        },
        conditions={
            # Where there is no subresource `request.subResource` is not empty: it does not exist.
            "of-interest": (f"request.?subResource.orValue('') != '' && (!(request.subResource in {_HARMLESS}) || ({pod} && ({sealed})))"),
        },
        variables={
            "ephemeral": "request.subResource == 'ephemeralcontainers'",
            "gated": f"oldObject != null && {_gated('oldObject')}",
        },
        validations=[
            {
                "expression": f"request.subResource in {_HARMLESS} || variables.ephemeral",
                "messageExpression": "'mlwarden does not know the pod subresource ' + request.subResource",
                "message": "mlwarden does not know this pod subresource",
            },
            {
                "expression": f"!variables.ephemeral || !variables.gated || {new} == {old}",
                "message": "a held pod takes no ephemeral containers",
            },
            # Only what a digest pins can be judged at all. The webhook pins before; the fail-closed one judges after.
            {
                "expression": (
                    f"!variables.ephemeral || {new}.all(c, {old}.exists(o, o.name == c.name && o.?image == c.?image)"
                    " || c.?image.orValue('').matches('@sha256:[0-9a-f]{64}$'))"
                ),
                "message": "an ephemeral container names its image by digest (image@sha256:...)",
            },
            *_seals(settings),
        ],
    )

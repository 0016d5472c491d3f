"""What the releaser's account may do to pods beside releasing them: delete those that can never start, and write one condition.

RBAC grants verbs on all pods; these say which, inside the API server and whatever the process that has the token is made to do. They go by
the name of the account alone, not by the kind of its token: a bound is for whoever speaks in its name.
"""

from mlwarden.controllers.recreation import MAKERS
from mlwarden.controllers.scope import validating
from mlwarden.model.policy import GATE, HELD_CONDITION, Settings
from mlwarden.model.workload import Json
from mlwarden.policy.account import cel, username

BOUNDS = "mlwarden-releaser-bounds"
_RULE: dict[str, Json] = {"apiGroups": [""], "apiVersions": ["*"]}
# Every field of a pod's status in Kubernetes 1.37 but its conditions.
_STATUS = (
    "allocatedResources",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "extendedResourceClaimStatus",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "nodeAllocatableResourceClaimStatuses",
    "nominatedNodeName",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "resize",
    "resourceClaimStatuses",
    "resources",
    "startTime",
    "volumeHealth",
)
_METADATA = ("annotations", "finalizers", "labels", "ownerReferences")


def bounds_objects(settings: Settings) -> list[dict[str, Json]]:
    """Returns the guard and its binding, for every namespace."""
    makers = [f"{group}/{kind}" for group, kind in MAKERS]
    controlled = (
        "oldObject.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false)"
        f" && (o.apiVersion.contains('/') ? o.apiVersion.split('/')[0] : '') + '/' + o.kind in {cel(makers)})"
    )
    by_tag = "oldObject.spec.?volumes.orValue([]).exists(v, has(v.image) && !v.image.?reference.orValue('').contains('@'))"
    others = "{0}.status.?conditions.orValue([]).filter(c, c.type != '" + HELD_CONDITION + "')"
    same = [
        *(f"object.status.?{field} == oldObject.status.?{field}" for field in _STATUS),
        *(f"object.metadata.?{field} == oldObject.metadata.?{field}" for field in _METADATA),
        f"{others.format('object')} == {others.format('oldObject')}",
        f"object.status.?conditions.orValue([]).exists(c, c.type == '{HELD_CONDITION}')",
    ]
    return validating(
        BOUNDS,
        constraints={
            "resourceRules": [
                {**_RULE, "operations": ["DELETE"], "resources": ["pods"]},
                {**_RULE, "operations": ["UPDATE"], "resources": ["pods/status"]},
            ]
        },
        conditions={"by-the-releaser": f"request.userInfo.username == {cel(username(settings, settings.releaser))}"},
        variables={
            "deletes": "request.operation == 'DELETE'",
            "never": f"oldObject != null && oldObject.spec.?schedulingGates.orValue([]).exists(g, g.name == '{GATE}')"
            f" && oldObject.spec.?nodeName.orValue('') == '' && {controlled} && {by_tag}",
            "sure": "request.options != null && dyn(request.options).?preconditions.?uid.hasValue()"
            " && dyn(request.options).?preconditions.?resourceVersion.hasValue()",
        },
        validations=[
            {
                "expression": "!variables.deletes || (variables.never && variables.sure)",
                "message": "mlwarden's releaser deletes a held pod that never had a node, names an image volume by its tag and is made anew"
                " by its controller, with uid and resource version as preconditions; and no other",
            },
            {
                "expression": f"variables.deletes || ({' && '.join(same)})",
                "message": f"mlwarden's releaser writes the condition {HELD_CONDITION} into the status of a pod, and nothing else",
            },
        ],
    )

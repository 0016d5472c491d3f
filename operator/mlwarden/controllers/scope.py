"""Which namespaces a generated object is about, and the shape of a guard.

Gate, guards and webhooks must agree to the letter on what "a namespace that holds" is: a pod that the gate skips because a webhook judges
it must really be in that webhook's reach. So the selectors are made here and nowhere else.

A label selector can say "label absent or not one of these", and "label present and not one of these"; it cannot say "absent or one of
these". Whatever is not named is therefore on the strict side: a profile that nobody knows holds.
"""

from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.workload import Json
from mlwarden.policy.account import cel
from mlwarden.policy.bindings import admission

ACCEPTED = "mlwarden-accepted"
"""Name of the Secret that says which policies were accepted: `acceptance`."""
NAME_LABEL = "kubernetes.io/metadata.name"
"""Set by the API server on every namespace, and out of anybody's reach."""


def governed(settings: Settings) -> dict[str, Json]:
    """Returns the namespaceSelector of every namespace that mlwarden judges: all but the exempt ones and its own."""
    return {"matchExpressions": [_not_exempt(settings)]}


def holding(settings: Settings) -> dict[str, Json]:
    """Returns the namespaceSelector of the namespaces whose pods are held."""
    lenient = sorted(name for name, holds in settings.profiles.items() if not holds)
    expressions = [_not_exempt(settings)]
    if not settings.holds(settings.default_profile):
        expressions.append({"key": PROFILE_LABEL, "operator": "Exists"})
    if lenient:
        expressions.append({"key": PROFILE_LABEL, "operator": "NotIn", "values": lenient})
    return {"matchExpressions": expressions}


def lenient(settings: Settings) -> dict[str, Json] | None:
    """Returns a namespaceSelector for the governed namespaces that do not hold, or None where every namespace holds.

    A label with a profile that nobody knows is in both selectors: judged twice rather than not at all.
    """
    if settings.holds(settings.default_profile):
        names = sorted(name for name, holds in settings.profiles.items() if not holds)
        return {"matchExpressions": [_not_exempt(settings), {"key": PROFILE_LABEL, "operator": "In", "values": names}]} if names else None
    strict = sorted(name for name, holds in settings.profiles.items() if holds)
    return {
        "matchExpressions": [_not_exempt(settings), *([{"key": PROFILE_LABEL, "operator": "NotIn", "values": strict}] if strict else [])]
    }


def _not_exempt(settings: Settings) -> dict[str, Json]:
    return {"key": NAME_LABEL, "operator": "NotIn", "values": sorted(set(settings.never_governed))}


def may(verb: str, resource: str, *, namespace: str = "", name: str = "") -> str:
    """Returns CEL that asks the authorizer whether the user has `verb` on `resource.mlwarden.io`; `namespace` and `name` are CEL."""
    where = (f".namespace({namespace})" if namespace else "") + (f".name({name})" if name else "")
    return f"authorizer.group('mlwarden.io').resource({cel(resource)}){where}.check({cel(verb)}).allowed()"


def validating(
    name: str,
    *,
    constraints: dict[str, Json],
    validations: list[dict[str, str]],
    variables: dict[str, str] | None = None,
    conditions: dict[str, str] | None = None,
    audit: dict[str, str] | None = None,
    actions: tuple[str, ...] = ("Deny", "Audit"),
) -> list[dict[str, Json]]:
    """Returns a ValidatingAdmissionPolicy that fails closed, and its binding."""
    spec: dict[str, Json] = {"failurePolicy": "Fail", "matchConstraints": {"matchPolicy": "Equivalent", **constraints}}
    if conditions:
        spec["matchConditions"] = [{"name": key, "expression": value} for key, value in conditions.items()]
    if variables:
        spec["variables"] = [{"name": key, "expression": value} for key, value in variables.items()]
    spec["validations"] = [{"reason": "Forbidden", **validation} for validation in validations]
    if audit:
        spec["auditAnnotations"] = [{"key": key, "valueExpression": value} for key, value in audit.items()]
    return [
        admission("ValidatingAdmissionPolicy", name, spec),
        admission("ValidatingAdmissionPolicyBinding", name, {"policyName": name, "validationActions": list(actions)}),
    ]

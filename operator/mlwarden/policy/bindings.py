"""Which action a compiled policy has in which namespace, as ValidatingAdmissionPolicyBindings.

- **Profiles are bindings.** A namespaceSelector can say "absent or not one of", and "present and one of", but not "absent or one of"; the
  profile of namespaces without a label needs a binding of its own where its action is not that of `*`.
- **A warning is the webhook's**: here it is an audit annotation, or a person would read it twice.
"""

from collections.abc import Iterator

from mlwarden.model.finding import Action
from mlwarden.model.policy import PROFILE_LABEL, Policy, Settings
from mlwarden.model.workload import Json

PREFIX = "mlwarden-policy-"
MANAGED_BY = {"app.kubernetes.io/managed-by": "mlwarden"}
"""On everything generated; nothing without it is ever pruned."""


def bindings(policy: Policy, settings: Settings) -> Iterator[dict[str, Json]]:
    """Yields the bindings of one policy: which action in which profile."""
    profiles = policy.spec.profiles
    star = profiles.get("*")
    default = profiles.get(settings.default_profile, star)
    for action in sorted(set(profiles.values())):
        if action is star:
            requirements: list[Json] = []
            others = sorted(name for name, other in profiles.items() if name != "*" and other is not action)
            if others:
                requirements.append({"key": PROFILE_LABEL, "operator": "NotIn", "values": others})
            if default is not action:
                requirements.append({"key": PROFILE_LABEL, "operator": "Exists"})
            yield _binding(policy, action, "", requirements, settings)
        else:
            named = sorted(name for name, other in profiles.items() if name != "*" and other is action)
            yield _binding(policy, action, "", [{"key": PROFILE_LABEL, "operator": "In", "values": named}], settings)
            if default is action:
                yield _binding(policy, action, ".default", [{"key": PROFILE_LABEL, "operator": "DoesNotExist"}], settings)


def _binding(policy: Policy, action: Action, suffix: str, requirements: list[Json], settings: Settings) -> dict[str, Json]:
    body: dict[str, Json] = {"policyName": PREFIX + policy.name, "validationActions": _actions(action, settings)}
    if requirements:
        body["matchResources"] = {"namespaceSelector": {"matchExpressions": requirements}}
    return admission("ValidatingAdmissionPolicyBinding", f"{PREFIX}{policy.name}.{action.value.lower()}{suffix}", body)


def _actions(action: Action, settings: Settings) -> list[str]:
    """What is warned about is recorded here and said by the webhook, which judges it as well: said by both, a person reads it twice."""
    return [action.value, "Audit"] if action is Action.DENY and settings.rollout != "audit" else ["Audit"]


def admission(kind: str, name: str, spec: dict[str, Json]) -> dict[str, Json]:
    """Returns an object of admissionregistration.k8s.io/v1."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": dict(MANAGED_BY)},
        "spec": spec,
    }

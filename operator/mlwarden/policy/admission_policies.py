"""Policies as ValidatingAdmissionPolicies: enforced inside the API server, without a network hop, while mlwarden is down as well.

Only a pure `expression` can be compiled: evidence is not in the API server. Decisions:

- **What is judged.** Pods and the built-in kinds that make pods, on CREATE and UPDATE. On UPDATE only where the containers of a pod, or
  the spec or annotations of a template changed, and never what is being deleted (nothing starts from it): scaling down, finalizers and
  labels always pass. A pod that has ended is not treated apart: its containers can change, but nobody does that.
- **`kubectl debug` (`pods/ephemeralcontainers`) is judged by what it adds**, as in the engine: seen as a whole, one old container that
  breaks a newer policy would make the pod impossible to debug for ever. A policy about whole pods counts there only where it names
  `ephemeralContainers` (nothing else can change), and only where the pod satisfied it before; one about volumes never does.
  Rejected: leaving it to the webhook, which fails open where nothing is held: during an outage a privileged container came in.
- **`failurePolicy: Fail`.** A runtime error must not be a pass. It makes the action of the binding happen: a denial where the policy
  denies, a warning where it warns. So shipped expressions are total: they use optional fields, and a test has the real API server evaluate
  them on generated pods.
- **The question is a match condition, `violated`**, and the validation behind it is `false`. The API server evaluates every variable and
  message expression of a policy that it validates, also where all is well, and the message asks the same question again to name what fails:
  a pod that passes cost nearly twice as much that way. Only of shipped policies, whose expressions have a value for every pod: a match
  condition without one is refused with all of its text. One of the cluster's own is a validation, asked whenever the request is a reason
  to (`asked`), whose text is a variable's name and a sentence.
- **Nothing is cut off half way**: what is too large to be judged within the budget is refused with a sentence first (`policy.size`).
- **What the platform puts into pods** is known by its configuration, which the API server does not look at. A policy with `injected` leaves
  containers of such a name to the gate. Rejected: the configuration as a parameter of the policy (what is compared is more than CEL can
  say within its budget, and a parameter that is missing refuses every pod).
- **What a template has of resources** is for the webhook: a LimitRange fills in the rest, and only the pods have it.
- **Names start with `mlwarden-policy-`**: the gate and the guards are called `mlwarden-…`, and a policy named `gate` must not replace them.
- `apiVersion`, `kind`, `metadata` and `spec` are what `object` has; the `status` of a pod is not policy's business.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mlwarden import cel
from mlwarden.errors import PolicyError
from mlwarden.model.policy import GATE, PROFILE_LABEL, Each, Expression, LabelSelector, Policy, ResourceRule, Settings
from mlwarden.model.workload import Json
from mlwarden.policy import size
from mlwarden.policy.account import IS_MIRROR, is_account
from mlwarden.policy.bindings import PREFIX, admission, bindings
from mlwarden.policy.compiled import VARIABLES, CompiledPolicy
from mlwarden.policy.loader import total
from mlwarden.workloads import injectors
from mlwarden.workloads.placeholders import without_placeholders
from mlwarden.workloads.volumes import csi_images

NAME_LABEL = "kubernetes.io/metadata.name"
"""Set by the API server on every namespace; nobody can take it off."""

WORKLOADS: Mapping[str, tuple[str, ...]] = {
    "": ("pods", "replicationcontrollers"),
    "apps": ("daemonsets", "deployments", "replicasets", "statefulsets"),
    "batch": ("cronjobs", "jobs"),
}
"""The built-in kinds that run pods. Others have no schema the API server would vouch for: the webhook judges them."""

_TEMPLATE = "dyn({0}).?spec.?jobTemplate.?spec.?template.or(dyn({0}).?spec.?template)"
_LISTS = {"container": "containers", "initContainer": "initContainers", "ephemeralContainer": "ephemeralContainers"}
_POD_CHANGED = (
    "request.operation == 'CREATE' || "
    + " || ".join(f"dyn(object).?spec.?{field} != dyn(oldObject).?spec.?{field}" for field in _LISTS.values())
    + " || "
    + " || ".join(
        f"{_TEMPLATE.format('object')}.?{field} != {_TEMPLATE.format('oldObject')}.?{field}" for field in ("spec", "metadata.?annotations")
    )
)
_OBJECT_CHANGED = (
    "request.operation == 'CREATE' || "
    "dyn(object).exists(key, !(key in ['metadata', 'status']) && (!(key in dyn(oldObject)) || dyn(object)[key] != dyn(oldObject)[key])) || "
    "dyn(oldObject).exists(key, !(key in ['metadata', 'status']) && !(key in dyn(object)))"
)
_EPHEMERAL = "pods/ephemeralcontainers"
_DEBUGGED = "request.?subResource.orValue('') == 'ephemeralcontainers'"
_NOT_DELETED = f"!has(object.metadata.deletionTimestamp) || {_DEBUGGED}"
"""Nothing starts from what is being deleted, but for ephemeral containers, until the last moment."""

_LEFT_TO_THE_GATE = (
    f"container.?name.orValue('') in {json.dumps(injectors.NAMES)} && !({_DEBUGGED}) && (request.resource.resource != 'pods'"
    f" || object.spec.?schedulingGates.orValue([]).exists(gate, gate.?name.orValue('') == '{GATE}')"
    " || request.operation == 'UPDATE' && (dyn(oldObject).?spec.?initContainers.orValue([]) + "
    "dyn(oldObject).?spec.?containers.orValue([])).exists(old, dyn(old) == dyn(container)))"
)
"""CEL: whether this container is the platform's is for who judges the pod while the gate holds it, or was, when it did.

By its name alone, which anybody can write: what is passed over is held, so nothing starts that was not judged with the cluster's
configuration at hand. A pod without the gate is asked here, and so is every container that an update changes.
"""

_POD = {
    "template": f"{_TEMPLATE.format('object')}.orValue(dyn(object))",
    "pod": "{'apiVersion': dyn('v1'), 'kind': dyn('Pod'), 'metadata': dyn(variables.template.?metadata.orValue({})), "
    "'spec': dyn(variables.template.?spec.orValue({}))}",
}
_ADDED = {
    "debugged": _DEBUGGED,
    # Evaluated only where `debugged` is true: there always is an oldObject then.
    "added": "variables.pod.spec.?ephemeralContainers.orValue([])"
    ".filter(each, !(each in dyn(oldObject).?spec.?ephemeralContainers.orValue([])))",
}
_BEFORE = {
    "debugged": _DEBUGGED,
    "before": "{'apiVersion': dyn('v1'), 'kind': dyn('Pod'), 'metadata': dyn(oldObject).?metadata.orValue(dyn({})), "
    "'spec': dyn(oldObject).?spec.orValue(dyn({}))}",
}


def _each(of: Callable[[str, str], str], *more: str) -> str:
    """CEL for a list over the containers of every role; of what an update adds where that is all it can do."""
    every = " + ".join((*(of(f"variables.pod.spec.?{field}.orValue([])", role) for role, field in _LISTS.items()), *more))
    return f"variables.debugged ? {of('variables.added', 'ephemeralContainer')} : {every}"


_CONTAINERS = _each(lambda listed, _role: listed)
_ELEMENTS: Mapping[Each, Mapping[str, str]] = {
    Each.POD: {},
    Each.OBJECT: {},
    Each.CONTAINER: {**_ADDED, "containers": _CONTAINERS},
    Each.VARIABLE: {
        **_ADDED,
        "containers": _CONTAINERS,
        "variables": "variables.containers.map(each, each.?env.orValue([])).flatten()",
    },
    Each.VOLUME: {"volumes": "variables.pod.spec.?volumes.orValue([])"},
    Each.IMAGE: {
        **_ADDED,
        "containers": _CONTAINERS,
        "images": without_placeholders(
            _each(
                lambda listed, _role: f"{listed}.map(each, each.?image.orValue(''))",
                "variables.pod.spec.?volumes.orValue([]).filter(each, has(each.image)).map(each, each.image.?reference.orValue(''))",
                csi_images("variables.pod.spec.?volumes.orValue([])"),
            )
        ),
    },
}
_ROLES = _each(lambda listed, role: f"{listed}.map(each, {{'container': dyn(each), 'role': dyn('{role}')}})")
_ROLE_VARIABLE = "mlwarden_each"
_LISTED = tuple(f"variables.pod.spec.?{field}.orValue([])" for field in _LISTS.values())
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LARGE = "large"
"""Variable: what is too large to be judged, as text."""
_UNEVALUATED = (
    "The policy {} could not be evaluated on this object, and is not passed by without an answer: "
    "mlwarden check FILE says which field it stumbles over; whoever wrote the policy makes the field optional (.?field)"
)
"""A comment: the API server puts a validation's expression into the refusal where it had no value."""
_PLACEHOLDER = re.compile(r"\{(name|value|image)\}")
_VARIABLE = re.compile(r"variables\.([A-Za-z]+)")
_BOUND = {"template": "mlwarden_template", "pod": "mlwarden_pod", "before": "mlwarden_before"}
"""What is bound by a loop over a list of one where there are no variables, because it is used more than once."""
_REFERENCE = "^[A-Za-z0-9][A-Za-z0-9._/-]*(:[0-9]+/[A-Za-z0-9._/-]+)?(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]{64})?$"
"""What of image references may be shown as it is: no user information, no other digest, nothing unprintable."""


def admission_policies(policies: Iterable[Policy | CompiledPolicy], settings: Settings) -> list[dict[str, Json]]:
    """Returns the ValidatingAdmissionPolicies, each followed by its bindings, of those policies that can be compiled.

    Args:
        policies: any; those that `not_compiled` has a reason for are left out.
        settings: exempt namespaces, default profile and rollout.
    """
    made: list[dict[str, Json]] = []
    for each in policies:
        policy = each.policy if isinstance(each, CompiledPolicy) else each
        if not_compiled(policy):
            continue
        made.append(_policy(policy, settings))
        made.extend(bindings(policy, settings))
    return made


def not_compiled(policy: Policy) -> str:
    """Returns why a policy cannot be compiled to a ValidatingAdmissionPolicy, `""` where it can: for its status."""
    requirement = _compiled_question(policy)
    if requirement is None:
        return "its requirement needs evidence, which the API server does not have"
    if requirement.expression == "false":
        return "it asks nothing: it is said of every workload, by the webhook"
    if not _rules(policy, requirement):
        return "none of its resources is a built-in kind that runs pods"
    if requirement.for_each is Each.OBJECT and any(_about_workloads(rule) for rule in policy.spec.match.resources):
        return "it is about whole workload objects, which must be free to scale whatever it says"
    try:
        variables = _variables(policy, requirement)
        _validation(policy, requirement, variables)
        _satisfied(requirement, variables)
    except PolicyError as error:
        return f"its expression cannot be rewritten: {error.message}"
    return ""


def _policy(policy: Policy, settings: Settings) -> dict[str, Json]:
    spec, requirement = policy.spec, _compiled_question(policy)
    if requirement is None:
        raise PolicyError(f"policy {policy.name} has no expression")
    constraints: dict[str, Json] = {
        "matchPolicy": "Equivalent",
        "resourceRules": _rules(policy, requirement),
        "namespaceSelector": _selector(
            spec.match.namespace_selector, {"key": NAME_LABEL, "operator": "NotIn", "values": sorted(settings.never_governed)}
        ),
    }
    if spec.match.object_selector != LabelSelector():
        constraints["objectSelector"] = _selector(spec.match.object_selector)
    asked, variables = _asked(requirement, settings), _variables(policy, requirement)
    validation = _validation(policy, requirement, variables)
    left = _left(settings) if size.TOO_LONG in variables.get(LARGE, "") else "false"
    if spec.injected is not None:
        passed_over = msgspec.structs.replace(requirement, expression=f"({requirement.expression}) || {_LEFT_TO_THE_GATE}")
        others = _validation(policy, passed_over, variables)["expression"]
        left = f"{left} || variables.{LARGE} == '' && {_waits(settings)} && ({others})"
    if total(policy):
        condition = {"name": "violated", "expression": f"{asked} && !({_satisfied(requirement, variables)})"}
        validation["expression"] = left
    else:
        condition = {"name": "asked", "expression": asked}
        variables["satisfied"] = validation["expression"]
        if spec.injected is not None:
            variables["satisfied"] += f" || {left}"
        question = f"variables.{LARGE} != '' ? {left} : variables.satisfied" if LARGE in variables else "variables.satisfied"
        validation["expression"] = f"{question} // {_UNEVALUATED.format(policy.name)}"
    body: dict[str, Json] = {"failurePolicy": "Fail", "matchConstraints": constraints, "matchConditions": [condition]}
    if variables:
        body["variables"] = [{"name": name, "expression": expression} for name, expression in variables.items()]
    body["validations"] = [validation]
    return admission("ValidatingAdmissionPolicy", PREFIX + policy.name, body)


def _compiled_question(policy: Policy) -> Expression | None:
    """What the API server asks: nothing of what templates have of resources."""
    requirement = policy.spec.requirement.expression
    if requirement is None:
        return None
    pods = f"({requirement.expression}) || request.resource.resource != 'pods'"
    return msgspec.structs.replace(requirement, expression=pods) if requirement.sees_resources else requirement


def _asked(requirement: Expression, settings: Settings) -> str:
    """CEL: this request is a reason to ask. One expression, because of several conditions the API server evaluates every one."""
    conditions = (
        _NOT_DELETED,
        # The releaser has just judged what it pins or releases, and the guard lets no image change in a release: asked once.
        f"request.operation != 'UPDATE' || !{is_account(settings, settings.releaser)}",
        _OBJECT_CHANGED if requirement.for_each is Each.OBJECT else _POD_CHANGED,
        f"!{IS_MIRROR}",
    )
    return " && ".join(f"({condition})" for condition in conditions)


def _left(settings: Settings) -> str:
    """CEL: what this policy does not judge here, the webhook does, and pods wait until the controller has."""
    return f"variables.{LARGE} == {json.dumps(size.TOO_LONG)} && {_waits(settings)}"


def _waits(settings: Settings) -> str:
    """CEL: pods of this namespace wait until the controller has judged them. Elsewhere nobody guards the gate that an author writes."""
    if settings.rollout == "audit":
        return "true"
    free = sorted(name for name, holds in settings.profiles.items() if not holds)
    profile = f"namespaceObject.metadata.?labels[?{json.dumps(PROFILE_LABEL)}].orValue({json.dumps(settings.default_profile)})"
    return f"!({profile} in {json.dumps(free)})"


def _satisfied(requirement: Expression, variables: Mapping[str, str]) -> str:
    """CEL for a match condition, which sees no variables: what the policy demands, with its variables spelled out."""

    def spelled(expression: str) -> str:
        return _VARIABLE.sub(lambda found: _BOUND.get(found[1]) or f"({spelled(variables[found[1]])})", expression)

    def bound(variable: str, body: str) -> str:
        return f"[{spelled(variables[variable])}].all({_BOUND[variable]}, {body})"

    over, variable, names = _loop(requirement)
    names = {name: _BOUND["pod"] if becomes == "variables.pod" else becomes for name, becomes in names.items()}
    body = cel.rename_root(requirement.expression, names)
    every = f"{spelled(over)}.all({variable}, {body})" if over else body
    if "before" in variables:
        before = cel.rename_root(requirement.expression, {"object": _BOUND["before"]})
        every = f"({body}) || {spelled('variables.debugged')} && !{bound('before', before)}"
    if LARGE in variables:
        every = f"({spelled(variables[LARGE])}) == '' && ({every})"
    return bound("template", bound("pod", every)) if "pod" in variables else every


def _rules(policy: Policy, requirement: Expression) -> list[Json]:
    wanted = policy.spec.match.resources
    if requirement.for_each is Each.OBJECT:
        return [_rule(list(rule.api_groups), list(rule.resources)) for rule in wanted]
    rules = []
    for group, resources in WORKLOADS.items():
        named = [name for name in resources if not wanted or any(_names(rule, group, name) for rule in wanted)]
        if named:
            rules.append(_rule([group], named))
        if "pods" in named and _sees_ephemeral(requirement):
            rules.append(_rule([""], [_EPHEMERAL], "UPDATE"))
    return rules


def _rule(groups: list[str], resources: list[str], *operations: str) -> Json:
    """Namespaced only: a binding's selector lets all cluster-scoped objects through, which would get every profile's action at once."""
    return {
        "apiGroups": groups,
        "apiVersions": ["*"],
        "operations": list(operations) or ["CREATE", "UPDATE"],
        "resources": resources,
        "scope": "Namespaced",
    }


def _sees_ephemeral(requirement: Expression) -> bool:
    """Whether an ephemeral container that is added can make a difference."""
    match requirement.for_each:
        case Each.CONTAINER | Each.VARIABLE | Each.IMAGE:
            return True
        case Each.POD:
            return "ephemeralContainers" in requirement.expression
        case _:
            return False


def _names(rule: ResourceRule, group: str, resource: str) -> bool:
    return ("*" in rule.api_groups or group in rule.api_groups) and ("*" in rule.resources or resource in rule.resources)


def _about_workloads(rule: ResourceRule) -> bool:
    return any(_names(rule, group, resource) for group, resources in WORKLOADS.items() for resource in resources)


def _variables(policy: Policy, requirement: Expression) -> dict[str, str]:
    found: dict[str, str] = {}
    if requirement.for_each is not Each.OBJECT:
        found.update(_POD)
        found.update(_ELEMENTS[requirement.for_each])
        if requirement.for_each is Each.POD and _sees_ephemeral(requirement):
            found.update(_BEFORE)
        if _sees_role(requirement):
            found["roles"] = _ROLES
        large = size.cel(
            frozenset(_NAMES.findall(requirement.expression)),
            "variables.containers" if "containers" in found else f"({' + '.join(_LISTED)})" if requirement.for_each is Each.POD else "",
            elements=requirement.for_each is not Each.POD,
        )
        if large:
            found[LARGE] = large
    if policy.spec.match.conditions:
        found["applies"] = " && ".join(f"({condition.expression})" for condition in policy.spec.match.conditions)
    return found


def _validation(policy: Policy, requirement: Expression, variables: Mapping[str, str]) -> dict[str, str]:
    over, variable, names = _loop(requirement)
    body = cel.rename_root(requirement.expression, names)
    every = f"{over}.all({variable}, {body})" if over else body
    if requirement.for_each is Each.POD and _sees_ephemeral(requirement):
        every = f"({body}) || variables.debugged && !({cel.rename_root(requirement.expression, {'object': 'variables.before'})})"
    # a condition also makes the type of the whole known to be bool, which a bare field's is not
    guard = "!variables.applies" if policy.spec.match.conditions else "false"
    spec = policy.spec
    parts = [spec.message, f" ({policy.name}); fix: {spec.fix.text}; mlwarden check FILE shows all findings at once"]
    found = {
        "expression": f"{guard} || ({every})",
        "message": _PLACEHOLDER.sub("…", "".join(parts)),
        "reason": "Forbidden",
    }
    subject = _subject(requirement, over, variable, body)
    placeholder = "{image}" if requirement.for_each is Each.IMAGE else "{name}"
    said = _literal("".join(parts))
    if placeholder in parts[0]:
        before, _, after = "".join(parts).partition(placeholder)
        said = f"{_literal(before)} + {subject} + {_literal(after)}"
    if LARGE in variables:
        said = f"variables.{LARGE} != '' ? {_too_large(policy)} : {said}"
    found["messageExpression"] = said
    return found


def _too_large(policy: Policy) -> str:
    """CEL for the refusal of what this policy does not judge for its size."""
    more = f" ({policy.name}); fix: {{}}; mlwarden check FILE shows all findings at once"
    split = more.format("split it into several objects")
    mounted = more.format("keep what is long in a ConfigMap or a volume")
    is_long = f"variables.{LARGE} == {json.dumps(size.TOO_LONG)}"
    return f"(({is_long} ? '' : 'it ') + variables.{LARGE} + ({is_long} ? {_literal(mounted)} : {_literal(', and is not judged' + split)}))"


def _loop(requirement: Expression) -> tuple[str, str, dict[str, str]]:
    """What is looped over, the loop's variable, and what the expression's own names become."""
    pod = {"object": "variables.pod"}
    match requirement.for_each:
        case Each.OBJECT:
            return "", "", {}
        case Each.POD:
            return "", "", pod
        case Each.CONTAINER if _sees_role(requirement):
            names = {name: f"{_ROLE_VARIABLE}.{name}" for name in ("container", "role")}
            return "variables.roles", _ROLE_VARIABLE, pod | names
        case _:
            return f"variables.{requirement.for_each.value}s", requirement.for_each.value, pod


def _subject(requirement: Expression, over: str, variable: str, body: str) -> str:
    """CEL for the names of what fails, joined: containers, volumes, images or the pod."""
    match requirement.for_each:
        case Each.OBJECT:
            return "string(object.metadata.?name.orValue('…'))"
        case Each.POD:
            return "string(variables.pod.metadata.?name.orValue(object.metadata.?name.orValue('…')))"
        case Each.IMAGE:
            # Raw text here would reach terminals as it is, with escapes and with passwords that somebody wrote into a reference.
            named = f"({variable}.matches({json.dumps(_REFERENCE)}) ? {variable} : '(not an image reference)')"
        case _:
            thing = f"{variable}.container" if variable == _ROLE_VARIABLE else variable
            named = f"{thing}.?name.orValue('…')"
    return f"{over}.filter({variable}, !({body})).map({variable}, string({named})).join(', ')"


def _sees_role(requirement: Expression) -> bool:
    if "role" not in VARIABLES[requirement.for_each]:
        return False
    return cel.rename_root(requirement.expression, {"role": _ROLE_VARIABLE}) != requirement.expression


def _literal(text: str) -> str:
    return json.dumps(_PLACEHOLDER.sub("…", text), ensure_ascii=False)


def _selector(selector: LabelSelector, *more: Mapping[str, Any]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if selector.match_labels:
        found["matchLabels"] = dict(selector.match_labels)
    expressions: list[Json] = [
        {"key": row.key, "operator": row.operator, **({"values": list(row.values)} if row.values else {})}
        for row in selector.match_expressions
    ]
    expressions.extend(more)
    if expressions:
        found["matchExpressions"] = expressions
    return found

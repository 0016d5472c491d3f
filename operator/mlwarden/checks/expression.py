"""`expression`: a CEL expression that is true where all is well, asked of every element it is about.

An expression that fails to run (a wrong type somewhere, the cost budget) is `Unknown` with the reason, as a ValidatingAdmissionPolicy with
`failurePolicy: Fail` would refuse. The same expression, re-rooted, is compiled to exactly such a policy; a test holds both to one answer.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from mlwarden import cel
from mlwarden.checks import absence, debugging, patch
from mlwarden.checks.answer import Answer
from mlwarden.checks.text import clean, fill
from mlwarden.checks.view import LISTS, Element, View
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Edit, Outcome
from mlwarden.model.policy import Each, Expression, Fix, PolicySpec
from mlwarden.model.workload import Json, Role
from mlwarden.policy import CompiledPolicy

REQUIREMENT = "expression"

TRIED = 20
"""For how many elements a policy's patch is tried; nobody reads more, and each costs a copy of its pod. The rest get the text."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")


def judge(compiled: CompiledPolicy, view: View, _facts: Facts) -> Iterator[Answer]:
    """Yields an answer per element: Pass, Fail with a fix, or Unknown with the reason."""
    spec = compiled.policy.spec
    requirement = spec.requirement.expression
    if requirement is None:
        return
    program = compiled.programs[REQUIREMENT].metered()  # for all elements together: many of them cost no more than one that is large
    left_out: absence.Absence | None = None
    attempts = 0
    failed: set[str] = set()
    for element in view.elements(requirement.for_each):
        reason = ""
        try:
            if program(element.env) is True:
                yield element.passed
                continue
        except (cel.EvaluationError, RecursionError) as error:
            reason = str(error) or "nested too deeply"
        left_out = left_out or absence.Absence(program, compiled.programs[REQUIREMENT], spec.fix.patch)
        if left_out.explains(element):
            yield element.passed
            continue
        if reason or (view.is_unlimited and requirement.sees_resources):
            yield _unknown(element, requirement, view, reason=reason) if reason else _unlimited(element)
            continue
        tried = program if attempts < TRIED else None
        attempts += 1
        answer = _fail(element, spec, requirement, tried)
        if answer.path not in failed:  # what several pods inherit is written once
            failed.add(answer.path)
            better = _debugged(element, view, spec, tried) if tried else ""
            yield msgspec.structs.replace(answer, fix=better, edit=None) if better else answer


def _fail(element: Element, spec: PolicySpec, requirement: Expression, program: cel.Program | None) -> Answer:
    unwritten = element.pod is not None and element.pod.unwritten
    change = _helping(element, spec.fix, program) if program and not unwritten else {}
    field = _blamed(element, change, requirement.path)
    value = value_at(element.body, field)
    path = element.place(field)

    def filled(template: str) -> str:
        return fill(template, name=element.name, value=value, image=element.image, path=path)

    edit = _edit(element, change) if change else _whole(element, program) if unwritten and program else None
    return Answer(
        outcome=Outcome.FAIL,
        element=element.path,
        path=path,
        message=filled(spec.message),
        fix=patch.instruction(edit.patch, edit.path) if edit else filled(spec.fix.text),
        edit=edit,
    )


def _debugged(element: Element, view: View, spec: PolicySpec, program: cel.Program) -> str:
    """The command for a debug container. Its security context is another one then, not one more patch on the one it had."""

    def passes(change: Mapping[str, Json]) -> bool:
        without = dict.fromkeys(change)
        bare = msgspec.structs.replace(element, body=patch.merged(element.body, without))
        return _passes(bare, change, program)

    return debugging.fix(element, view.workload, spec.severity, passes)


def _helping(element: Element, fix: Fix, program: cel.Program) -> Mapping[str, Any]:
    """As much of the policy's patch as it takes; nothing where it does not help."""
    change = fix.patch
    if not change or not _passes(element, change, program):
        return {}
    return patch.smallest(change, lambda less: _passes(element, less, program) and (not fix.complete or _all_set(element, change, less)))


def _all_set(element: Element, change: Mapping[str, Any], less: Mapping[str, Any]) -> bool:
    """Whether what a patch leaves out is there already: in the element or, for a container, where its pod says it for all of them."""
    pod = element.env["object"].get("spec")
    left_out = set(patch.leaves(change)) - set(patch.leaves(less))
    return all(any(value_at(body, ".".join(leaf)) for body in (element.body, pod)) for leaf in left_out)


def _blamed(element: Element, change: Mapping[str, Any], field: str) -> str:
    """The field to blame: below the policy's, the one that the fix changes, if there is just one and it is there."""
    changed = patch.leaves(change)
    leaf = ".".join(changed[0]) if len(changed) == 1 and all(_NAME.fullmatch(step) for step in changed[0]) else ""
    below = leaf.startswith(f"{field}." if field else "")
    return leaf if leaf and below and value_at(element.body, leaf) is not None else field


def _unknown(element: Element, requirement: Expression, view: View, *, reason: str) -> Answer:
    return Answer(
        outcome=Outcome.UNKNOWN,
        element=element.path,
        path=element.path,
        message=clean(f"the policy's expression could not be evaluated here: {reason}"),
        fix="correct the types of the fields here (kubectl apply --dry-run=server checks them); if they are right, report the policy",
        final=requirement.for_each is Each.OBJECT and not view.workload.is_pod,
    )


def _unlimited(element: Element) -> Answer:
    return Answer(
        outcome=Outcome.UNKNOWN,
        element=element.path,
        path=element.path,
        message="what the namespace's LimitRanges fill in here is not known: they were not read",
        fix="try again in a few seconds; the pods are judged with their limits",
    )


def _edit(element: Element, change: Mapping[str, Any]) -> Edit:
    """The patch at the place where it has to be written: what is inherited or patched is changed there."""
    if element.each is Each.POD and element.pod is not None and element.pod.bare:
        change = change.get("spec", change)
    called = {name: _called(element, name) for name in change}
    written = {_holder(element, leaf, called[leaf[0]]) for leaf in patch.leaves(change)}
    change = {called[name]: value for name, value in change.items()}
    return Edit(path=written.pop() if len(written) == 1 else element.path, patch=change)


def _whole(element: Element, program: cel.Program) -> Edit | None:
    """The template to write where the operator makes one by itself: a part of one would be none. None where this does not help, either."""
    pod = element.pod
    if pod is None or element.each not in {Each.POD, Each.CONTAINER}:
        return None
    hardened = absence.hardened(pod.spec)
    env = {**element.env, "object": {**element.env["object"], "spec": hardened}}
    if element.container is not None:
        env["container"] = hardened["containers"][pod.containers.index(element.container)]
    above, _, name = pod.path.rpartition(".")
    return Edit(path=above, patch={name: {"spec": hardened}}) if absence.asked(program, env) else None


def _called(element: Element, name: str) -> str:
    """What the kind calls a field of an element."""
    found = element.place(name).rpartition(".")[2]
    return found if _NAME.fullmatch(found) else name


def _holder(element: Element, leaf: tuple[str, ...], called: str) -> str:
    """The JSON path of what holds a field of an element; the element's own where that is written in another way there."""
    place = element.place(".".join(leaf))
    field = ".".join((called, *leaf[1:]))
    return place.removesuffix(field).removesuffix(".") if place.endswith(field) else element.path


def _passes(element: Element, change: Mapping[str, Any], program: cel.Program) -> bool:
    """Whether the element passes once patched: seen as itself and as a part of its pod."""
    if element.each in {Each.IMAGE, Each.VARIABLE}:
        return False  # a string cannot be merged, and of a variable's value nothing is right
    if element.each is Each.POD and element.pod is not None and element.pod.bare and ("metadata" in change or element.is_container):
        return False  # there is no metadata to set, or no pod spec
    body = patch.merged(element.body, change)
    env = dict(element.env)
    match element.each:
        case Each.POD | Each.OBJECT:
            env["object"] = body
        case Each.CONTAINER:
            env["container"] = body
            env["object"] = _replaced(element, body, LISTS[Role(element.env["role"])])
        case Each.VOLUME:
            env["volume"] = body
            env["object"] = _replaced(element, body, "volumes")
    return absence.asked(program, env)


def _replaced(element: Element, body: Json, field: str) -> Json:
    pod = element.env["object"]
    spec = pod.get("spec")
    items = spec.get(field) if isinstance(spec, Mapping) else None
    if not isinstance(items, list):
        return pod
    return {**pod, "spec": {**spec, field: [body if item is element.body else item for item in items]}}


def value_at(body: Json, path: str) -> Json:
    """Returns what stands at a field path (`a.b`, `a[0].b`) below `body`; None where nothing does."""
    for step in path.replace("[", ".").replace("]", "").split("."):
        if not step:
            continue
        if isinstance(body, Mapping):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return None
    return body

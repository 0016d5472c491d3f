"""Findings → verdict: the one place where a workload meets its policies.

Nothing is skipped: a policy that does not compile, one that fails while it runs, a profile that does not exist and evidence that is missing
are findings like any other, with `Unknown` as their outcome. Nothing is raised either: whatever a check stumbles over becomes an `Unknown`
with the reason, because the alternative in the request path is a 500, and a 500 under `failurePolicy: Ignore` is an allow.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mlwarden import checks, policy
from mlwarden.checks import Answer, View
from mlwarden.checks.resolved import young
from mlwarden.checks.text import clean
from mlwarden.engine.actions import HOLD, Situation, Waiting, action, decision, rank, softened
from mlwarden.engine.before import Before
from mlwarden.engine.injected import Platforms, asks
from mlwarden.engine.revoked import revoked
from mlwarden.engine.waits import waits
from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Action, Edit, Finding, OnUnknown, Outcome, Severity, Verdict
from mlwarden.model.nodes import Nodes
from mlwarden.model.policy import PROFILE_LABEL, Each, Settings
from mlwarden.model.workload import Resource, Workload
from mlwarden.policy import CompiledPolicy, size
from mlwarden.workloads import is_gated
from mlwarden.workloads import nodes as places

PROFILE = "mlwarden-profile"
"""Name under which a profile that does not exist is reported; no policy."""
SIZE = "mlwarden-size"
"""Name under which an object is refused that is too large to be judged; no policy."""

_NO_EXCEPTION = "none: this policy allows no exceptions"
_NUMBER = re.compile(r"(\d+)")


def evaluate(
    workload: Workload,
    policies: Sequence[CompiledPolicy],
    facts: Facts,
    settings: Settings,
    *,
    holdable: bool | None = None,
    passes: bool = False,
    broken: Mapping[str, str] | None = None,
) -> Verdict:
    """Returns what all policies say about a workload, and the decision that makes. Never raises.

    Args:
        workload: what is judged.
        policies: every policy there is; those not in force under `facts.profile` say nothing.
        facts: evidence, namespace, profile, time; `facts.old` on an update: of a pod, only what the update adds is judged.
        settings: roll-out and profiles.
        holdable: whether it can wait for evidence. None: a pod under a profile that holds, unless it names its own node.
        passes: include what was found good.
        broken: policies that do not compile, name → reason.
    """
    situation = Situation(waiting=_waiting(workload, facts, settings, holdable), audit=settings.rollout == "audit")
    if too_large := size.too_large(workload):
        finding = _too_large(workload, too_large, situation)
        return Verdict(decision=decision([finding]), findings=(finding,))
    view = View(workload, facts)
    before, platforms = Before(workload, facts, _answers), Platforms(workload, facts)
    findings, unresolved = revoked(workload, facts, settings, situation, before)
    findings += _not_in_force(workload, facts, settings, situation, broken or {})
    wanted = dict.fromkeys(unresolved)
    kept: list[Nodes] = []
    edits: list[Edit] = []
    for compiled in policies:
        on_fail = compiled.action(facts.profile)
        if on_fail is None:
            continue
        for answer in _answers(compiled, workload, facts, view):
            if answer.outcome is Outcome.PASS:
                kept += _only_on(compiled, answer, on_fail, situation)
                if passes:
                    findings.append(_finding(compiled, answer, workload.resource, on_fail, situation))
                continue
            if before.said(compiled, answer):
                continue
            if answer.wanted:
                wanted[answer.wanted] = None
            finding, edit = _found(compiled, answer, workload.resource, on_fail, situation, platforms=platforms)
            findings.append(finding)
            edits += [edit] if edit else ()
    findings += _predicted(workload, platforms, policies, facts, situation)
    pins = _pins(workload, facts, before)
    findings += waits(workload, facts, settings, pins) if holdable is None else ()
    if len(findings) > 1:
        findings.sort(key=_order)
    return Verdict(
        decision=decision(findings),
        findings=tuple(findings),
        wanted=tuple(sorted(wanted)),
        pins=pins,
        edits=tuple(edits),
        nodes=_kept_to(workload, facts, kept),
    )


def _predicted(
    workload: Workload, platforms: Platforms, policies: Sequence[CompiledPolicy], facts: Facts, situation: Situation
) -> Iterator[Finding]:
    """Yields what will be found in what the platform adds to the pods of an object."""
    for path, pod in platforms.predicted():
        view, added = View(pod, facts), Platforms(pod, facts)
        for compiled in policies:
            on_fail = compiled.action(facts.profile)
            if on_fail is None or not asks(compiled):
                continue
            for answer in _answers(compiled, pod, facts, view):
                if answer.outcome is Outcome.FAIL:
                    finding, _ = _found(compiled, answer, workload.resource, on_fail, situation, platforms=added)
                    yield msgspec.structs.replace(finding, path=path)


def _found(
    compiled: CompiledPolicy, answer: Answer, resource: Resource, on_fail: Action, situation: Situation, *, platforms: Platforms
) -> tuple[Finding, Edit | None]:
    """Returns the finding for an answer that is no Pass, by whose container it is about, and what a program could write about a refusal.

    Nothing where the container may be the platform's: no author edits that.
    """
    said, done = platforms.judged(compiled, answer, on_fail, situation)
    finding = _finding(compiled, said, resource, on_fail, situation)
    if done:
        finding = msgspec.structs.replace(finding, action=done)
    return finding, answer.edit if said is answer and finding.action == Action.DENY.value else None


def _only_on(compiled: CompiledPolicy, answer: Answer, on_fail: Action, situation: Situation) -> tuple[Nodes, ...]:
    """Where an answer is good, if not everywhere, and what this policy does not know does not start: then not elsewhere, either."""
    if answer.nodes is None:
        return ()
    stops = action(Outcome.UNKNOWN, on_fail, compiled.policy.spec.on_unknown, situation) in {Action.DENY.value, HOLD}
    return (answer.nodes,) if stops else ()


def _kept_to(workload: Workload, facts: Facts, kept: Sequence[Nodes]) -> Nodes | None:
    """Where a pod is to be kept. One that exists and is not held cannot be, and one that names its node is judged by that."""
    if not kept or not workload.is_pod or facts.old is not None:
        return None
    nodes = kept[0]
    for each in kept[1:]:
        nodes = nodes.both(each) or nodes  # of those that have none in common the check has said so
    spec = workload.pods[0].spec if workload.pods else {}
    return None if places.named_node(spec) or places.confined(spec, nodes) else nodes


def _answers(compiled: CompiledPolicy, workload: Workload, facts: Facts, view: View) -> Sequence[Answer]:
    try:
        applies = policy.matches(compiled, workload, facts)
        if applies is True:
            return list(checks.judge(compiled, workload, facts, view=view))
        if applies is False:
            return ()
        reason = f"whether this policy applies could not be decided: {applies}"
    except RecursionError:
        reason = "the object is nested too deeply to be judged"
    except Exception as error:  # noqa: BLE001 -- a defect of ours is an Unknown with a reason, never a 500 and never a policy that was skipped
        reason = f"the policy could not be evaluated: {type(error).__name__}: {error}"
    fix = "report this with the object: mlwarden check FILE shows it again"
    expression = compiled.policy.spec.requirement.expression
    final = not workload.pods or (expression is not None and expression.for_each is Each.OBJECT and not workload.is_pod)
    return (Answer(outcome=Outcome.UNKNOWN, element="", path="", message=clean(reason), fix=fix, final=final),)


def _finding(compiled: CompiledPolicy, answer: Answer, resource: Resource, on_fail: Action, situation: Situation) -> Finding:
    spec = compiled.policy.spec
    done = action(answer.outcome, on_fail, spec.on_unknown, situation, final=answer.final)
    why = f"{spec.why} [{'; '.join(spec.references)}]" if spec.references else spec.why
    return Finding(
        policy=compiled.policy.name,
        outcome=answer.outcome,
        action=done,
        severity=spec.severity,
        resource=resource,
        path=answer.path,
        message=answer.message,
        why=clean(why),
        fix=answer.fix or _waiting_for(answer, done),
        exception=_NO_EXCEPTION,
    )


def _waiting_for(answer: Answer, done: str) -> str:
    """What a person can do about missing evidence: by what happens meanwhile."""
    if not answer.wanted:
        return ""
    match done:
        case "Hold":
            return "nothing to do: it starts by itself once the image was found good"
        case "Deny":
            return "try again once it was scanned: that is being done, and this cannot be held until then"
        case _:
            return "nothing to do: the image is scanned, and pods wait for it where the profile holds them"


def _not_in_force(
    workload: Workload, facts: Facts, settings: Settings, situation: Situation, broken: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields what stands for policies that cannot speak: broken ones, and all those of a profile that does not exist."""

    def finding(name: str, message: str, why: str, fix: str) -> Finding:
        on_fail = (
            Action.DENY if settings.holds(facts.profile) else Action.WARN
        )  # one bad policy does not stop every pod where nothing waits
        done = action(Outcome.UNKNOWN, on_fail, OnUnknown.HOLD, situation)
        return Finding(
            policy=name,
            outcome=Outcome.UNKNOWN,
            action=done,
            severity=Severity.HIGH,
            resource=workload.resource,
            path="",
            message=clean(message),
            why=why,
            fix=clean(fix),
            exception="none: nobody knows what would be excepted",
        )

    for name, reason in sorted(broken.items()):
        yield finding(
            name,
            f"policy {name} does not compile, so its question was not answered: {reason}",
            "a policy that cannot be read is never skipped",
            f"ask whoever runs the platform to correct it: kubectl describe wardenpolicy {name}",
        )
    if facts.profile not in settings.profiles:
        known = ", ".join(sorted(settings.profiles))
        yield finding(
            PROFILE,
            f"the namespace asks for profile {facts.profile!r}, which does not exist",
            "a typing error in a profile must not be a way around every policy",
            f"set the namespace's label {PROFILE_LABEL} to one of: {known}",
        )


def _too_large(workload: Workload, what: str, situation: Situation) -> Finding:
    """An object of a few bytes per container would keep a process busy for minutes, and everybody else waiting."""
    return Finding(
        policy=SIZE,
        outcome=Outcome.UNKNOWN,
        action=softened(Action.DENY.value, situation),
        severity=Severity.HIGH,
        resource=workload.resource,
        path="",
        message=what,
        why="what takes minutes to judge keeps every other workload of the cluster waiting",
        fix="split it into several objects",
        exception="none",
    )


def _waiting(workload: Workload, facts: Facts, settings: Settings, holdable: bool | None) -> Waiting:  # noqa: FBT001 -- the caller's argument, passed on
    if not workload.is_pod and holdable is None:
        return Waiting.PODS_ARE_JUDGED
    if holdable is None:
        spec = workload.pods[0].spec if workload.pods else {}
        created = facts.operation != "UPDATE" or is_gated(workload.object)  # a gate cannot be put on afterwards
        holdable = settings.holds(facts.profile) and not spec.get("nodeName") and created
    return Waiting.GATED if holdable else Waiting.IMPOSSIBLE


def _pins(workload: Workload, facts: Facts, before: Before) -> dict[str, str]:
    """Every tag of a pod whose resolution is young, by its digest. Templates are left as they were written."""
    if not workload.is_pod or not facts.resolutions:
        return {}
    pins = {}
    for image in workload.images:
        resolution = facts.resolutions.get(image.reference)
        if (
            resolution is None
            or resolution.digest is None
            or not young(resolution, facts.now)
            or before.image(image.path) == image.reference
        ):
            continue
        try:
            reference = references.parse(image.reference)
        except Error:
            continue
        if not reference.digest:
            pins[image.path] = reference.pinned(resolution.digest)
    return pins


def _order(finding: Finding) -> tuple[object, ...]:
    path = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in _NUMBER.split(finding.path[:2000])]
    return (*rank(finding), finding.policy, path, finding.path, finding.message)

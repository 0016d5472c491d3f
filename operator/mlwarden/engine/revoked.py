"""Whether anything of a workload is revoked: judged before every policy, in every profile, without exceptions.

A digest is revoked or it is not. A tag is as good as its young resolution; while that is missing, and any digest is revoked at all, it is
`Unknown`: what holds pods waits for it. Where nothing is held, refusing every tag at its first use would punish everybody for what somebody
else did, so there it is a warning, the resolution is asked for, and a pod that turns out to run something revoked is reported as running.
Unless the tag pointed at what is revoked when it was last resolved: then it has to be resolved again first, everywhere.
"""

from mlwarden.checks.resolved import young
from mlwarden.checks.text import VALUE_LENGTH, clean
from mlwarden.engine.actions import Situation, action
from mlwarden.engine.before import Before
from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Action, Finding, OnUnknown, Outcome, Severity
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Image, Resource, Workload
from mlwarden.workloads.placeholders import is_placeholder

REVOKED = "mlwarden-revoked"
"""Name under which a revoked artifact is reported; no policy."""
_NO_EXCEPTION = "none: what is revoked has no exceptions"
_WHY = "somebody with the right to say so has found that this must not run any more"


def revoked(workload: Workload, facts: Facts, settings: Settings, situation: Situation, before: Before) -> tuple[list[Finding], list[str]]:
    """Returns what is revoked and what cannot be told, and the references whose resolution is wanted.

    Args:
        workload: what is judged.
        facts: with what is revoked.
        settings: which profiles hold.
        situation: whether it can wait, and the roll-out.
        before: the pod before its update: what it runs already can still be looked at with a debugger.
    """
    findings: list[Finding] = []
    wanted: list[str] = []
    if not facts.revoked.digests and not facts.revoked.unreadable:
        return findings, wanted
    unknown = action(Outcome.UNKNOWN, Action.DENY if settings.holds(facts.profile) else Action.WARN, OnUnknown.HOLD, situation)
    suspected = action(Outcome.UNKNOWN, Action.DENY, OnUnknown.HOLD, situation)
    denied = action(Outcome.FAIL, Action.DENY, OnUnknown.HOLD, situation)
    for name, reason in sorted(facts.revoked.unreadable.items()):
        message = f"RevokedArtifact {name} cannot be read, so nobody knows what it revokes: {reason}"
        fix = f"ask whoever runs the platform to correct it: kubectl describe revokedartifact {name}"
        findings.append(_finding(Outcome.UNKNOWN, unknown, workload.resource, message, fix))
    for image in workload.images if facts.revoked.digests else ():
        if before.image(image.path) == image.reference or (is_placeholder(image.reference) and not workload.is_pod):
            continue
        shown = clean(image.reference, VALUE_LENGTH)
        known, digest = _digest(image, facts)
        if known and digest is None:
            last = facts.resolutions.get(image.reference)
            suspect = last is not None and last.digest in facts.revoked.digests
            message = f"the tag of {shown} has not been resolved to a digest yet, so whether it is revoked is not known"
            if suspect:
                message = f"the tag of {shown} pointed at a revoked digest when it was last resolved, and is being resolved again"
            fix = "wait a moment and try again, or name the image by its digest"
            done = suspected if suspect else unknown
            findings.append(_finding(Outcome.UNKNOWN, done, workload.resource, message, fix, path=image.path))
            wanted.append(image.reference)
        elif digest is not None and (found := facts.revoked.digests.get(digest)) is not None:
            reference = f" [{clean(found.spec.reference, VALUE_LENGTH)}]" if found.spec.reference else ""
            message = f"image {shown} is revoked: {clean(found.spec.reason, 300)}{reference}"
            named = "is named" if found.spec.digest == digest else "belongs to what is named"
            fix = f"use another version of it: its digest {digest[:19]}… {named} by RevokedArtifact {found.name}"
            findings.append(_finding(Outcome.FAIL, denied, workload.resource, message, fix, path=image.path))
    return findings, wanted


def _digest(image: Image, facts: Facts) -> tuple[bool, Digest | None]:
    """Whether the text names an image (else nothing can be pulled), and the digest that would run, where that is known."""
    try:
        parsed = references.parse(image.reference)
    except Error:
        return False, None
    if parsed.digest:
        return True, parsed.digest
    resolution = facts.resolutions.get(image.reference)
    return True, resolution.digest if resolution is not None and young(resolution, facts.now) else None


def _finding(outcome: Outcome, done: str, resource: Resource, message: str, fix: str, *, path: str = "") -> Finding:
    return Finding(
        policy=REVOKED,
        outcome=outcome,
        action=done,
        severity=Severity.CRITICAL,
        resource=resource,
        path=path,
        message=clean(message),
        why=_WHY,
        fix=clean(fix),
        exception=_NO_EXCEPTION,
    )

"""From an image as written to its digest, for every check that looks at evidence.

The way of a reference: as written → its digest (its own, or a resolution at most 60 s old). Whatever is missing or old on that way is an
`Unknown` with the reason: a tag that was resolved an hour ago says nothing about what the kubelet will pull. One thing is certain without
any evidence: what is no image reference will never be one, so it fails at once instead of being held for ever. A placeholder in a template
(`{{image}}`, `auto`) is passed over: the pod that it becomes is judged. Nothing at all may still be filled in, too; the API server lets no
pod be created with it.
"""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import msgspec

from mlwarden.checks.answer import Answer
from mlwarden.checks.text import REASON_LENGTH, VALUE_LENGTH, clean, fill
from mlwarden.checks.view import View
from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Facts, Phase, Resolution
from mlwarden.model.finding import Outcome
from mlwarden.model.policy import PolicySpec

RESOLUTION_AGE = timedelta(seconds=60)
"""How long a resolved tag may be believed."""
READER = "mlwarden-evidence-reader"
"""The chart's ClusterRole for those who may read what is known about every image."""
_ASK = (
    "mlwarden check --online FILE looks at it with your own credentials and says why; so do the Events of a pod that waits with it, and the"
    f" ClusterRole {READER} lets you read it"
)
LATER = "judged as the pod it becomes"
"""Said of a placeholder in a template."""
BROKEN = "put right what the reason names (the reference, the pull Secret, the registry); it is tried again by itself"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a check can look up.

    Attributes:
        name: as written, safe to print.
        digest: what it is.
        at: `registry/repository@sha256:…`, to ask for evidence by.
    """

    name: str
    digest: Digest
    at: str


def young(resolution: Resolution, now: datetime) -> bool:
    """Whether what a tag pointed at may still be relied on; a time from the future may not."""
    return -RESOLUTION_AGE <= now - resolution.at <= RESOLUTION_AGE


def per_image(
    view: View,
    facts: Facts,
    spec: PolicySpec,
    judged: Callable[[Subject], Answer],
    *,
    about: Callable[[str], bool] = lambda _: True,
    of_content: bool = False,
) -> Iterator[Answer]:
    """Yields one answer per image reference of the workload; the judgement itself is made once per reference.

    One answer per place, although evidence is keyed by digest: every place is one to be put right.

    Args:
        view: the workload.
        facts: resolutions and time.
        spec: the policy, for its message and its fix where something failed.
        judged: answers about one image; element and path are filled in here.
        about: whether a reference is this policy's business.
        of_content: the answers are of what is in an image, which of a public one anybody hears. Who signed it, and where that was looked
            for, is another matter.
    """
    known: dict[str, Answer] = {}
    for _, image in view.references():
        reference = image.reference
        if not about(reference):
            continue
        answer = known.get(reference)
        if answer is None:
            if view.is_filled_in_later(reference):
                yield Answer(outcome=Outcome.PASS, element=image.path, path=image.path, message=LATER)
                continue
            subject = resolved(reference, facts)
            if isinstance(subject, Answer):
                yield msgspec.structs.replace(subject, element=image.path, path=image.path)
                continue
            answer = known[reference] = _heard(judged(subject), subject, facts, of_content=of_content)
        message, fix = answer.message, answer.fix
        if answer.outcome is Outcome.FAIL:
            said = fill(spec.message, name=image.owner, value=reference, image=reference, path=image.path)
            message = clean(f"{said}: {answer.message}")
            fix = fix or fill(spec.fix.text, name=image.owner, value=reference, image=reference, path=image.path)
        yield msgspec.structs.replace(answer, element=image.path, path=image.path, message=message, fix=fix)


def _heard(answer: Answer, subject: Subject, facts: Facts, *, of_content: bool) -> Answer:
    """The answer as its audience may hear it: what was found in other people's images is theirs."""
    if answer.outcome is Outcome.PASS or facts.hears(subject.digest) or (of_content and facts.is_public(subject.digest)):
        return answer
    known = facts.images.get(subject.digest), facts.proofs.get(subject.digest)
    if answer.outcome is Outcome.FAIL:
        return msgspec.structs.replace(answer, message=f"image {subject.name} was judged and refused; ask for {READER}", fix=_ASK)
    if any(each is not None and each.phase is not Phase.PENDING for each in known):
        message = f"image {subject.name} was looked at and is not known to be good; ask for {READER}"
        return msgspec.structs.replace(answer, message=message, fix=_ASK)
    return answer


def resolved(reference: str, facts: Facts) -> Subject | Answer:
    """Returns which digest a reference is, or why that cannot be told: a `Fail` where it never will be, else an `Unknown`."""
    try:
        parsed = references.parse(reference)
    except Error as error:
        name = clean(reference, VALUE_LENGTH)
        fix = "name the image as registry/repository:tag or registry/repository@sha256:…"
        answer = unknown(clean(f"{name or '(empty)'} is not an image reference: {error.message}"), fix=fix)
        return answer if not reference else msgspec.structs.replace(answer, outcome=Outcome.FAIL)
    name = _shown(reference)
    digest, reason = (parsed.digest, "") if parsed.digest else _pointed_at(reference, facts)
    if digest is None:
        fix = BROKEN if reason.startswith("cannot") else ""
        return unknown(f"the tag of {name} {reason}", fix=fix, wanted=reference)
    return Subject(name=name, digest=digest, at=parsed.at(digest))


@functools.lru_cache(maxsize=2048)  # as for parsing: only what can be read comes here, so none of them is long
def _shown(reference: str) -> str:
    return clean(reference, VALUE_LENGTH)


def unknown(message: str, *, fix: str = "", wanted: str = "") -> Answer:
    """Returns an `Unknown`, its place to be filled in."""
    return Answer(outcome=Outcome.UNKNOWN, element="", path="", message=message, fix=fix, wanted=wanted)


def because(reason: str) -> str:
    """Returns a reason to be appended, `""` where there is none."""
    return f": {clean(reason, REASON_LENGTH)}" if reason else ""


def _pointed_at(reference: str, facts: Facts) -> tuple[Digest | None, str]:
    """The digest that a tag points at, or the reason why none can be relied on."""
    resolution = facts.resolutions.get(reference)
    if resolution is None:
        return None, "has not been resolved to a digest yet"
    if resolution.digest is None:
        return None, f"cannot be resolved{because(resolution.reason)}"
    if resolution.at - facts.now > RESOLUTION_AGE:
        return None, "was resolved in the future, by the scanner's clock: look at NTP on its node"
    if not young(resolution, facts.now):
        return None, "was resolved too long ago and is being resolved again"
    return resolution.digest, ""

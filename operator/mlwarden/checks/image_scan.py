"""`imageScan`: was this digest scanned within `maxAge`, with nothing at or above `severity` that has a fix?

The way of a reference: as written → its digest (its own, or a resolution at most 60 s old) → what is known about the digest → the answer.
Whatever is missing, old, contradictory or invisible to the scanner on that way is `Unknown` with the reason, never a Pass: a tag that was
resolved an hour ago says nothing about what the kubelet will pull, and an image without packages was not found clean, it was not seen.

One answer per place, although evidence is keyed by digest: every place is one to be put right. The judgement itself is made once per
reference.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from mlwarden.checks.answer import Answer
from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean, fill
from mlwarden.checks.view import View
from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution, Scan, Vulnerability
from mlwarden.model.finding import Outcome
from mlwarden.model.policy import ImageScan
from mlwarden.policy import CompiledPolicy

REQUIREMENT = "image_scan"

RESOLUTION_AGE = timedelta(seconds=60)
"""How long a resolved tag may be believed."""
SKEW = timedelta(minutes=5)
"""How far the scanner's clock may be ahead of ours."""
SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
"""Trivy's words, the worst first."""

_SHOWN = 3
_BROKEN = "put right what the reason names (the reference, the pull Secret, the registry); it is tried again by itself"
_VISIBLE = "rebuild the image so that the scanner sees what is in it: keep the package database and lock files, or put an SBOM inside"
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def judge(compiled: CompiledPolicy, view: View, facts: Facts) -> Iterator[Answer]:
    """Yields one answer per image reference of the workload."""
    spec = compiled.policy.spec
    requirement = spec.requirement.image_scan
    if requirement is None:
        return
    known: dict[str, Answer] = {}
    for _, image in view.references():
        answer = known.get(image.reference)
        if answer is None:
            answer = known[image.reference] = _about(image.reference, requirement, facts)
        if answer.outcome is Outcome.FAIL:
            said = fill(spec.message, name=image.owner, value=image.reference, image=image.reference, path=image.path)
            fix = answer.fix or fill(spec.fix.text, name=image.owner, value=image.reference, image=image.reference, path=image.path)
            message = clean(f"{said}: {answer.message}")
        else:
            message, fix = answer.message, answer.fix
        yield Answer(outcome=answer.outcome, element=image.path, path=image.path, message=message, fix=fix, wanted=answer.wanted)


def young(resolution: Resolution, now: datetime) -> bool:
    """Whether what a tag pointed at may still be relied on; a time from the future may not."""
    return -RESOLUTION_AGE <= now - resolution.at <= RESOLUTION_AGE


def _about(reference: str, requirement: ImageScan, facts: Facts) -> Answer:
    name = clean(reference, VALUE_LENGTH)
    try:
        parsed = references.parse(reference)
    except Error as error:
        fix = "name the image as registry/repository:tag or registry/repository@sha256:…"
        return _answer(Outcome.UNKNOWN, clean(f"{name or '(empty)'} is not an image reference: {error.message}"), fix=fix)
    digest, reason = (parsed.digest, "") if parsed.digest else _resolved(reference, facts)
    if digest is None:
        fix = _BROKEN if reason.startswith("cannot") else ""
        return _answer(Outcome.UNKNOWN, f"the tag of {name} {reason}", fix=fix, wanted=reference)
    evidence = facts.images.get(digest)
    reason = _missing(evidence, digest)
    if evidence is None or evidence.scan is None or reason:
        fix = _BROKEN if evidence is not None and evidence.phase is Phase.FAILED else ""
        return _answer(Outcome.UNKNOWN, f"image {name} {reason}", fix=fix, wanted=parsed.at(digest))
    return _judged(name, evidence.scan, requirement, facts.now, wanted=parsed.at(digest))


def _resolved(reference: str, facts: Facts) -> tuple[Digest | None, str]:
    """The digest that a tag points at, or the reason why none can be relied on."""
    resolution = facts.resolutions.get(reference)
    if resolution is None:
        return None, "has not been resolved to a digest yet"
    if resolution.digest is None:
        return None, f"cannot be resolved{_because(resolution.reason)}"
    if not young(resolution, facts.now):
        return None, "was resolved too long ago and is being resolved again"
    return resolution.digest, ""


def _missing(evidence: ImageFacts | None, digest: Digest) -> str:
    """The reason why there is no evidence, `""` where there is."""
    if evidence is None:
        return "has not been scanned yet"
    if evidence.digest != digest:
        return "has evidence that is about another digest"
    match evidence.phase:
        case Phase.PENDING:
            return f"is being scanned{_because(evidence.reason)}"
        case Phase.FAILED:
            return f"could not be scanned{_because(evidence.reason)}"
        case Phase.READY:
            return "" if evidence.scan else "was scanned, but the result was not recorded"


def _judged(name: str, scan: Scan, requirement: ImageScan, now: datetime, *, wanted: str) -> Answer:
    """The answer where there is a scan: what is found counts even where the scanner was half blind, what is not found does not."""
    threshold = requirement.severity.upper()
    limit = duration(requirement.max_age)
    if threshold not in SEVERITIES or limit is None:
        reason = f"severity {requirement.severity!r} or maxAge {requirement.max_age!r}"
        return _answer(
            Outcome.UNKNOWN, clean(f"image {name} cannot be judged: the policy's {reason} is not understood"), fix="correct the policy"
        )
    age = now - scan.scanned_at
    if age > limit:
        return _answer(
            Outcome.UNKNOWN, f"image {name} was scanned {_days(age)} ago, and the policy wants {requirement.max_age}", wanted=wanted
        )
    bad = SEVERITIES[: SEVERITIES.index(threshold) + 1]
    named = [found for found in scan.vulnerabilities if found.severity.upper() in bad and (found.fixed or not requirement.fixable)]
    fixable = max(_count(scan, bad), sum(1 for found in named if found.fixed))
    unfixed = 0 if requirement.fixable else sum(1 for found in named if not found.fixed)
    if fixable or unfixed:
        return _vulnerable(named, fixable + unfixed, threshold, requirement)
    reason = _blind(scan, requirement, limit, age)
    if reason:
        return _answer(Outcome.UNKNOWN, clean(f"image {name} cannot be judged: {reason}"), fix=_VISIBLE)
    return Answer(outcome=Outcome.PASS, element="", path="")


def _blind(scan: Scan, requirement: ImageScan, limit: timedelta, age: timedelta) -> str:
    """Why a scan that found nothing does not mean that there is nothing; `""` where it does."""
    if scan.blind:
        reasons = [clean(reason, VALUE_LENGTH) for reason in scan.blind[:_SHOWN] if reason]
        return "; ".join(reasons) or "the scanner could not see everything in it"
    if scan.packages <= 0:
        return "the scanner recognised no packages in it"
    if -age > SKEW:
        return "its scan is dated in the future"
    if scan.database_at is not None and scan.scanned_at - scan.database_at > limit:
        return f"the scanner's vulnerability database was {_days(scan.scanned_at - scan.database_at)} old"
    listed = sum(1 for found in scan.vulnerabilities if not found.fixed)
    if not requirement.fixable and scan.counts.get("unfixed", 0) > listed:
        return "it has more vulnerabilities without a fix than the summary lists, of unknown severity"
    return ""


def _vulnerable(named: Sequence[Vulnerability], count: int, threshold: str, requirement: ImageScan) -> Answer:
    worst = sorted(named, key=lambda found: (_rank(found), not found.fixed, found.id, found.package))[:_SHOWN]
    details = [
        f"{_short(found.id)} ({_short(found.severity)}) in {_short(found.package)} {_short(found.installed)}{_fixed(found)}"
        for found in worst
    ]
    rest = count - len(details)
    if details and rest > 0:
        details.append(f"and {rest} more")
    what = "vulnerability" if count == 1 else "vulnerabilities"
    with_a_fix = " with a fix" if requirement.fixable else ""
    rating = threshold if threshold == SEVERITIES[0] else f"{threshold} or worse"
    message = f"{count} {what} of {rating}{with_a_fix}{': ' if details else ''}{', '.join(details)}"
    return Answer(outcome=Outcome.FAIL, element="", path="", message=message, fix=_rebuild(named))


def _rebuild(named: Sequence[Vulnerability]) -> str:
    """The smallest upgrades that help, as a command to the person who builds the image; `""` where none is known."""
    wanted: dict[str, str] = {}
    for found in sorted(named, key=_rank):
        version = found.fixed.split(",")[0].strip()
        if version and (found.package not in wanted or _natural(version) > _natural(wanted[found.package])):
            wanted[found.package] = version
    if not wanted:
        return ""
    upgrades = [f"{_short(package)}>={_short(version)}" for package, version in list(wanted.items())[:_SHOWN]]
    rest = len(wanted) - len(upgrades)
    return clean(
        f"rebuild the image with {', '.join(upgrades)}{f' and {rest} more upgrades' if rest else ''}, then push it under a new tag"
    )


def duration(text: str) -> timedelta | None:
    """Returns a whole number with its unit (`7d`) as a duration, None where it is not one."""
    found = _DURATION.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def _answer(outcome: Outcome, message: str, *, fix: str = "", wanted: str = "") -> Answer:
    return Answer(outcome=outcome, element="", path="", message=message, fix=fix, wanted=wanted)


def _count(scan: Scan, severities: Sequence[str]) -> int:
    return sum(count for severity, count in scan.counts.items() if severity.upper() in severities)


def _rank(found: Vulnerability) -> int:
    severity = found.severity.upper()
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def _natural(version: str) -> list[tuple[int, int | str]]:
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", version[:64]) if part]


def _fixed(found: Vulnerability) -> str:
    return f" (fixed in {_short(found.fixed)})" if found.fixed else " (no fix)"


def _short(text: str) -> str:
    return clean(text, NAME_LENGTH)


def _because(reason: str) -> str:
    return f": {clean(reason, VALUE_LENGTH)}" if reason else ""


def _days(age: timedelta) -> str:
    return f"{age.days} days" if age.days > 1 else f"{int(age.total_seconds() // 3600)} hours"

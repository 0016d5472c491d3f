"""`imageScan`: was this digest scanned within `maxAge`, with nothing at or above `severity` that has a fix?

Whatever is missing, old, contradictory or invisible to the scanner is `Unknown` with the reason, never a Pass: an image without packages
was not found clean, it was not seen, and a scanner that was not told to look for secrets found none. What does not matter in this image,
by the word of somebody in a signed VEX document, does not count where the policy names that somebody, and counts everywhere else.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from mlwarden.checks.age import duration, spoken
from mlwarden.checks.answer import Answer
from mlwarden.checks.excused import heard, ignored
from mlwarden.checks.placed import ASKED_AGAIN, judged_on, placed
from mlwarden.checks.resolved import BROKEN, Subject, because, per_image, resolved, unknown
from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.checks.view import View
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import MODELS, NOT_READ, Facts, ImageFacts, Phase, Scan, Vulnerability, Weakness
from mlwarden.model.finding import Outcome
from mlwarden.model.policy import ImageScan
from mlwarden.model.suppression import without
from mlwarden.model.workload import Role
from mlwarden.policy import CompiledPolicy

REQUIREMENT = "image_scan"

SKEW = timedelta(minutes=5)
"""How far the scanner's clock may be ahead of ours."""
SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
"""Trivy's words, the worst first."""

_SHOWN = 3
_VISIBLE = "rebuild the image so that the scanner sees what is in it: keep the package database and lock files, or put an SBOM inside"
_SEARCHED = "have the scanner look for it (its option --scanners), or do not ask for it in the policy"


def judge(compiled: CompiledPolicy, view: View, facts: Facts) -> Iterator[Answer]:
    """Yields one answer per image reference of the workload."""
    spec = compiled.policy.spec
    requirement = spec.requirement.image_scan
    if requirement is None:
        return
    answers = per_image(view, facts, spec, lambda subject: _about(subject, requirement, compiled, facts), of_content=True)
    yield from placed(view, facts, _passed_over(view, facts, requirement, answers))


def _passed_over(view: View, facts: Facts, requirement: ImageScan, answers: Iterable[Answer]) -> Iterator[Answer]:
    """Passes over models that are only mounted: nobody looks into them. Other policies ask for their signature, registry and pin.

    Where one is to run as a container it stays Unknown: it is another thing then than a node makes of it.
    """
    mounted = {image.path: image.reference for _, image in view.references() if image.role is Role.VOLUME}
    for answer in answers:
        subject = resolved(mounted[answer.path], facts) if answer.outcome is Outcome.UNKNOWN and answer.path in mounted else answer
        known = facts.images.get(subject.digest) if isinstance(subject, Subject) else None
        if isinstance(subject, Answer) or known is None or known.scan is None or not _is_data(known, known.scan, requirement):
            yield answer
        else:
            said = f"image {subject.name} is a model that is only mounted ({known.scan.artifact}): nobody looked at what is in it"
            yield Answer(outcome=Outcome.PASS, element=answer.element, path=answer.path, message=clean(said))


def _is_data(known: ImageFacts, scan: Scan, requirement: ImageScan) -> bool:
    """A model artifact without packages, of which nothing else is unseen, nor asked for."""
    asked = requirement.secrets or requirement.misconfiguration
    model = scan.artifact in MODELS and scan.packages == 0 and frozenset(scan.blind) == {NOT_READ}
    return known.phase is Phase.READY and model and not asked


def _about(subject: Subject, requirement: ImageScan, compiled: CompiledPolicy, facts: Facts) -> Answer:
    evidence = facts.images.get(subject.digest)
    reason = _missing(evidence, subject.digest)
    if evidence is None or evidence.scan is None or reason:
        fix = BROKEN if evidence is not None and evidence.phase is Phase.FAILED else ""
        return unknown(f"image {subject.name} {reason}", fix=fix, wanted=subject.at)
    sources = heard(compiled, subject, evidence, facts, duration(requirement.max_age) or timedelta())
    scan = without(evidence.scan, sources, facts.revoked)[0]
    answer = _judged(subject, scan, requirement, facts.now)
    if answer.outcome is not Outcome.FAIL:
        return answer
    if sources != compiled.vex.keys():
        everywhere = without(evidence.scan, compiled.vex.keys(), facts.revoked)[0]
        if _judged(subject, everywhere, requirement, facts.now).outcome is not Outcome.FAIL:
            message = (
                f"image {subject.name} is excused elsewhere, and VEX documents were not looked for in the repository that is named here"
            )
            return unknown(clean(message), wanted=subject.at)
    more = ignored(compiled, scan, facts.revoked)
    return msgspec.structs.replace(answer, message=f"{answer.message}; {more}") if more else answer


def _missing(evidence: ImageFacts | None, digest: Digest) -> str:
    """The reason why there is no evidence, `""` where there is."""
    if evidence is None:
        return "has not been scanned yet"
    if evidence.digest != digest:
        return "has evidence that is about another digest"
    match evidence.phase:
        case Phase.PENDING:
            return f"is being scanned{because(evidence.reason)}"
        case Phase.FAILED:
            return f"could not be scanned{because(evidence.reason)}"
        case Phase.READY:
            return "" if evidence.scan else "was scanned, but the result was not recorded"


def _judged(subject: Subject, scan: Scan, requirement: ImageScan, now: datetime) -> Answer:
    """The answer where there is a scan: what is found counts even where the scanner was half blind, what is not found does not."""
    name = subject.name
    limit, database_limit = duration(requirement.max_age), duration(requirement.database_max_age)
    if requirement.severity.upper() not in SEVERITIES or limit is None or database_limit is None:
        limits = f"maxAge {requirement.max_age!r} or databaseMaxAge {requirement.database_max_age!r}"
        reason = f"severity {requirement.severity!r}, {limits} is not understood"
        return unknown(clean(f"image {name} cannot be judged: the policy's {reason}"), fix="correct the policy")
    age = now - scan.scanned_at
    if age > limit:
        return unknown(f"image {name} was scanned {spoken(age)} ago, and the policy wants {requirement.max_age}", wanted=subject.at)
    failures = [failure for failure in (_vulnerable(scan, requirement), *_faults(scan, requirement)) if failure]
    if failures:
        messages, fixes = zip(*failures, strict=True)
        # Asked for again although it is known: somebody may have excused it a moment ago.
        wanted = subject.at if requirement.vex else ""
        fix = "; ".join(fix for fix in fixes if fix)
        return Answer(outcome=Outcome.FAIL, element="", path="", message="; ".join(messages), fix=fix, wanted=wanted)
    reason = _unsearched(scan, requirement)
    if reason:
        return unknown(clean(f"image {name} cannot be judged: {reason}"), fix=_SEARCHED)
    reason = _blind(scan, requirement, database_limit, age)
    if reason:
        return unknown(clean(f"image {name} cannot be judged: {reason}"), fix=_VISIBLE)
    # Only where the pod may run elsewhere is what is wanted looked at.
    return Answer(outcome=Outcome.PASS, element="", path="", nodes=judged_on(scan), wanted=subject.at if age > ASKED_AGAIN else "")


def _unsearched(scan: Scan, requirement: ImageScan) -> str:
    """What the policy asks for and the scanner did not look for; `""` where it did."""
    if requirement.secrets and "secret" not in scan.scanners:
        return "the scanner did not look for secrets in it"
    if requirement.misconfiguration and "misconfig" not in scan.scanners:
        return "the scanner did not look at its configuration"
    if requirement.exit_on_eol and "vuln" not in scan.scanners:
        return "its scan does not say whether its operating system still gets updates"
    return ""


def _blind(scan: Scan, requirement: ImageScan, database_limit: timedelta, age: timedelta) -> str:
    """Why a scan that found nothing does not mean that there is nothing; `""` where it does."""
    if scan.blind:
        reasons = [clean(reason, VALUE_LENGTH) for reason in scan.blind[:_SHOWN] if reason]
        return "; ".join(reasons) or "the scanner could not see everything in it"
    if scan.packages <= 0:
        return "the scanner recognised no packages in it"
    if -age > SKEW:
        return "its scan is dated in the future"
    if scan.database_at is None:
        return "its scan does not say how old the scanner's vulnerability database was"
    if scan.scanned_at - scan.database_at > database_limit:
        stale = spoken(scan.scanned_at - scan.database_at)
        return f"the scanner's vulnerability database was {stale} old, and the policy wants {requirement.database_max_age}"
    if scan.database_at - scan.scanned_at > SKEW:
        return "the scanner's vulnerability database is dated in the future"
    listed = sum(1 for found in scan.vulnerabilities if not found.fixed)
    if not requirement.fixable and scan.counts.get("unfixed", 0) > max(listed, sum(scan.unfixed.values())):
        return "it has more vulnerabilities without a fix than the summary lists, of unknown severity"
    return ""


def tolerated(requirement: ImageScan) -> dict[str, int]:
    """Severity → how many vulnerabilities of it do not fail, for those that are limited at all."""
    bad = SEVERITIES[: SEVERITIES.index(requirement.severity.upper()) + 1]
    return dict.fromkeys(bad, 0) | dict(requirement.maximum)


def _vulnerable(scan: Scan, requirement: ImageScan) -> tuple[str, str] | None:
    """What is wrong with its packages and how to put it right; None where nothing is."""
    limits = tolerated(requirement)
    named = [found for found in scan.vulnerabilities if found.fixed or not requirement.fixable]
    counts = {severity: _count(scan, named, severity, requirement) for severity in limits}
    exceeded = [severity for severity in SEVERITIES if severity in limits and counts[severity] > limits[severity]]
    if not exceeded:
        return None
    named = [found for found in named if found.severity.upper() in exceeded]
    count = sum(counts[severity] for severity in exceeded)
    worst = sorted(named, key=lambda found: (_rank(found), not found.fixed, found.id, found.package))[:_SHOWN]
    details = [
        f"{_short(found.id)} ({_short(found.severity)}) in {_short(found.package)} {_short(found.installed)}{_fixed(found)}"
        for found in worst
    ]
    rest = count - len(details)
    if details and rest > 0:
        details.append(f"and {rest} more")
    with_a_fix = " with a fix" if requirement.fixable else ""
    return f"{_rated(exceeded, counts, requirement)}{with_a_fix}{': ' if details else ''}{', '.join(details)}", _rebuild(named)


def _rated(exceeded: Sequence[str], counts: Mapping[str, int], requirement: ImageScan) -> str:
    """How many, of what, and how many would have been tolerated."""
    if not any(severity in requirement.maximum for severity in exceeded):
        return f"{_many(sum(counts[severity] for severity in exceeded), 'vulnerability', 'vulnerabilities')} of {_rating(requirement)}"
    limits = tolerated(requirement)
    rows = [f"{counts[severity]} {severity} where {limits[severity] or 'none'} may be" for severity in exceeded]
    return f"too many vulnerabilities ({', '.join(rows)})"


def _count(scan: Scan, named: Sequence[Vulnerability], severity: str, requirement: ImageScan) -> int:
    """Vulnerabilities of a severity that count: the totals, or the list where it has more."""
    same = [found for found in named if found.severity.upper() == severity]
    fixable = max(_total(scan.counts, (severity,)), sum(1 for found in same if found.fixed))
    if requirement.fixable:
        return fixable
    return fixable + max(_total(scan.unfixed, (severity,)), sum(1 for found in same if not found.fixed))


def _faults(scan: Scan, requirement: ImageScan) -> Iterator[tuple[str, str]]:
    """What is wrong with the image beside its packages, and how to put it right."""
    if requirement.exit_on_eol and scan.eol:
        system = clean(scan.os, NAME_LENGTH) or "its operating system"
        yield f"{system} gets no more updates (end of life)", "build the image on a release that is still supported"
    if requirement.secrets:
        fix = "take the secret out of the image and every layer of it, mount it as a Secret instead, and revoke it: whoever pulled has it"
        yield from _weak(("secret", "secrets"), scan.secret_counts, scan.secrets, requirement, fix)
    if requirement.misconfiguration:
        fix = "correct how the image is built, then push it under a new tag"
        yield from _weak(
            ("mistake in its configuration", "mistakes in its configuration"),
            scan.misconfiguration_counts,
            scan.misconfigurations,
            requirement,
            fix,
        )


def _weak(
    names: tuple[str, str], counts: Mapping[str, int], listed: Sequence[Weakness], requirement: ImageScan, fix: str
) -> Iterator[tuple[str, str]]:
    bad = SEVERITIES[: SEVERITIES.index(requirement.severity.upper()) + 1]
    named = [found for found in listed if found.severity.upper() in bad]
    count = max(_total(counts, bad), len(named))
    if not count:
        return
    worst = sorted(named, key=_rank)[:_SHOWN]
    details = [f"{_short(found.title or found.id)}{f' in {_short(found.where)}' if found.where else ''}" for found in worst]
    if details and count > len(details):
        details.append(f"and {count - len(details)} more")
    yield f"{_many(count, *names)} of {_rating(requirement)}{': ' if details else ''}{', '.join(details)}", fix


def _rating(requirement: ImageScan) -> str:
    threshold = requirement.severity.upper()
    return threshold if threshold == SEVERITIES[0] else f"{threshold} or worse"


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


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


def _total(counts: Mapping[str, int], severities: Sequence[str]) -> int:
    return sum(count for severity, count in counts.items() if severity.upper() in severities)


def _rank(found: Vulnerability | Weakness) -> int:
    severity = found.severity.upper()
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0


def _natural(version: str) -> list[tuple[int, int | str]]:
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", version[:64]) if part]


def _fixed(found: Vulnerability) -> str:
    return f" (fixed in {_short(found.fixed)})" if found.fixed else " (no fix)"


def _short(text: str) -> str:
    return clean(text, NAME_LENGTH)

"""From all that was found in all images behind a digest to what is kept of it in the cluster: numbers of everything, names of the worst.

The whole report was rejected: the API server's store holds 1.5 MB an object, and every replica reads all of them.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from mlwarden.evidence.report import SEVERITIES, Findings
from mlwarden.evidence.vex import Spoken
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Scan, Suppressed, Vulnerability, Weakness

UNFIXED = "unfixed"
_SILENCE = Spoken()
KEPT = 25
"""Vulnerabilities kept by name."""
KEPT_SUPPRESSED = 50
"""Vulnerabilities kept of which a VEX document speaks: a suppression that does not fit is not one."""
KEPT_UNHEARD = 10
"""Reasons kept why something in VEX documents does not count, the worst vulnerabilities first."""
KEPT_WEAKNESSES = 10
"""Secrets, and mistakes in the configuration, kept by name."""


def summarise(
    parts: Iterable[Findings],
    *,
    scanner: str,
    at: datetime,
    database_at: datetime | None,
    scanners: Iterable[str] = ("vuln",),
    read_at: datetime | None = None,
    blind: Iterable[str] = (),
    spoken: Spoken = _SILENCE,
    subject: Digest | None = None,
    platforms: Iterable[str] = (),
    unjudged: Iterable[str] = (),
    artifact: str = "",
    anonymous: bool = False,
) -> Scan:
    """Returns the bounded summary of all image manifests that stand behind one digest.

    Each vulnerability counts once per package and installed version, in however many layers, files and platforms it is.
    """
    parts = tuple(parts)
    # Where two packages of one name say different things of it, the worse one counts.
    every = sorted((found for part in parts for found in part.vulnerabilities), key=_worse, reverse=True)
    distinct = {(found.id, found.package, found.installed): found for found in every}.values()
    hidden = {(found.id, found.package, found.installed) for found in spoken.suppressed}

    def order(found: Vulnerability) -> tuple[object, ...]:
        key = (found.id, found.package, found.installed)
        return key in hidden, not found.fixed, _rank(found), *key

    worst = sorted(distinct, key=order)
    ranks = {found.id: number for number, found in enumerate(worst)}
    secrets = dict.fromkeys(found for part in parts for found in part.secrets)
    mistakes = dict.fromkeys(found for part in parts for found in part.misconfigurations)
    without_fix = _counts(found for found in distinct if not found.fixed)
    return Scan(
        scanner=scanner,
        scanned_at=at,
        read_at=read_at,
        database_at=database_at,
        os=", ".join(dict.fromkeys(part.system.text for part in parts if part.system.text))[:120],
        eol=any(part.eol for part in parts),
        manifests=tuple(dict.fromkeys(Digest(part.digest) for part in parts if subject and part.digest != subject)),
        platforms=tuple(platforms),
        unjudged=tuple(unjudged),
        packages=sum(len(part.packages) for part in parts),
        scanners=tuple(name for name in scanners if name != "misconfig" or all(part.configured for part in parts)),
        counts={**_counts(found for found in distinct if found.fixed), UNFIXED: sum(without_fix.values())},
        unfixed=without_fix,
        vulnerabilities=tuple(worst[:KEPT]),
        suppressed=worst_of(spoken.suppressed),
        affirmed=worst_of(spoken.affirmed),
        unheard=tuple(sorted(spoken.unheard, key=lambda found: ranks.get(found.id, 0))[:KEPT_UNHEARD]),
        secret_counts=_counts(secrets),
        secrets=tuple(sorted(secrets, key=_rank)[:KEPT_WEAKNESSES]),
        misconfiguration_counts=_counts(mistakes),
        misconfigurations=tuple(sorted(mistakes, key=_rank)[:KEPT_WEAKNESSES]),
        blind=tuple(dict.fromkeys((*blind, *(reason for part in parts for reason in part.blind))))[:16],
        artifact=artifact,
        anonymous=anonymous,
    )


def worst_of(found: Iterable[Suppressed]) -> tuple[Suppressed, ...]:
    """Returns as many as are kept."""
    return tuple(sorted(found, key=lambda each: (not each.fixed, _rank(each), each.id, each.package))[:KEPT_SUPPRESSED])


def _counts(found: Iterable[Vulnerability | Weakness]) -> dict[str, int]:
    number = Counter(each.severity for each in found)
    return {severity: number[severity] for severity in SEVERITIES if number[severity]}


def _worse(found: Vulnerability) -> tuple[object, ...]:
    return not found.fixed, _rank(found), found.fixed, found.purl


def _rank(found: Vulnerability | Weakness | Suppressed) -> int:
    return SEVERITIES.index(found.severity)

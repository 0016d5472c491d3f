"""When it is worth trying again what was refused because evidence is missing.

From how long the last answers took: of those that took longer than this one has been waiting already, the median. So the number shrinks
from one try to the next, and where this one takes longer than all of them, or nothing was scanned lately, that is what is said instead of
a number that nobody has reason to believe.

Rejected: to say it as part of a finding. A finding says the same on a laptop, where nobody knows how busy the cluster's scanner is.
"""

import math
from collections.abc import Iterable

from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.evidence import Facts, ImageFacts, Phase, Resolution

_UNKNOWN = -1.0


def again(wanted: Iterable[str], facts: Facts) -> str:
    """Returns when to try again, one line without a subject; `""` where that is not known to help.

    Args:
        wanted: what is missing, as in `Verdict.wanted`.
        facts: with what is known of it, and how long the last answers took.
    """
    left = [seconds for each in wanted if (seconds := _remaining(each, facts)) is not None]
    if not left:
        return ""
    longest = max(left)
    if math.isinf(longest):
        return "in a minute: it is being scanned, and takes longer than the last images did"
    if _UNKNOWN in left:
        return "in about half a minute: it is being scanned, and nothing was scanned lately that would tell how long it takes"
    return f"in about {_rounded(longest)}: it is being scanned"


def _remaining(wanted: str, facts: Facts) -> float | None:
    """Seconds; infinite where it takes longer than all others did; `_UNKNOWN`; None where gathering has failed."""
    reference = wanted.rpartition(" ")[2]
    try:
        digest = references.parse(reference).digest
    except Error:
        return None
    waits: list[tuple[tuple[float, ...], float]] = []
    if digest is None:
        resolution = facts.resolutions.get(reference)
        since = _since(resolution, facts)
        if resolution is not None and resolution.digest is None and not since:
            return None
        waits.append((facts.waits.resolutions, since))
        digest = resolution.digest if resolution else None
    image = facts.images.get(digest) if digest else None
    since = _since(image, facts)
    if image is not None and image.phase is Phase.FAILED and not since:
        return None
    if not waits or image is None or image.scan is None:  # else the tag is resolved again, and what it points at was scanned
        waits.append((facts.waits.scans, since))
    if not all(taken for taken, _ in waits):
        return _UNKNOWN
    return sum(_left(taken, since) for taken, since in waits)


def _since(known: ImageFacts | Resolution | None, facts: Facts) -> float:
    """Seconds since it was asked for without an answer yet; 0 where nobody asked before this request."""
    if known is None or known.asked_at is None:
        return 0.0
    answered = known.answered_at if isinstance(known, ImageFacts) else known.at
    if answered is not None and answered >= known.asked_at:
        return 0.0
    return max((facts.now - known.asked_at).total_seconds(), 0.001)


def _left(taken: tuple[float, ...], since: float) -> float:
    longer = sorted(seconds for seconds in taken if seconds > since)
    if longer:
        return longer[len(longer) // 2] - since
    return math.inf if since else 0.0


def _rounded(seconds: float) -> str:
    """Up to the next 5 s, from a minute on to the next minute: it is an estimate, and looks like one."""
    whole = max(math.ceil(seconds / 5) * 5, 5)
    return f"{whole} s" if whole <= 60 else f"{math.ceil(seconds / 60)} min"

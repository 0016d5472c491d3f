"""What is left of a scan where somebody's word counts: who may say that a vulnerability does not matter is each policy's own business.

So evidence holds what was said and by whom, and takes nothing away; here it is taken away, for one policy.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import msgspec

from mlwarden.model.evidence import Scan, Suppressed
from mlwarden.model.revocation import Revoked

_NOTHING = Revoked()
_OLDEST = datetime(1, 1, 1, tzinfo=UTC)


def without(scan: Scan, sources: Collection[str], revoked: Revoked = _NOTHING) -> tuple[Scan, tuple[Suppressed, ...]]:
    """Returns the scan without the vulnerabilities that these sources suppress, and what they were.

    Args:
        scan: as it is stored.
        sources: whose word counts: names as in `Suppressed.source`.
        revoked: whose word does not count any more; nor does that of whom nobody knows, where any key or signer is revoked.
    """
    taken = {(found.id, found.package, found.installed): found for found in _decisive(scan, sources, revoked) if found.suppresses}
    if not taken:
        return scan, ()
    fixable = Counter(found.severity for found in taken.values() if found.fixed)
    unfixed = Counter(found.severity for found in taken.values() if not found.fixed)
    left = tuple(found for found in scan.vulnerabilities if (found.id, found.package, found.installed) not in taken)
    counts = _less(scan.counts, fixable)
    counts["unfixed"] = max(scan.counts.get("unfixed", 0) - unfixed.total(), 0)
    return msgspec.structs.replace(scan, counts=counts, unfixed=_less(scan.unfixed, unfixed), vulnerabilities=left), tuple(taken.values())


def _decisive(scan: Scan, sources: Collection[str], revoked: Revoked) -> list[Suppressed]:
    """What counts of each source about each vulnerability: its newest word; of two at the same time the one that does not suppress."""
    found: dict[tuple[str, str, str, str], Suppressed] = {}
    for each in (*scan.suppressed, *scan.affirmed):
        key = (each.source, each.id, each.package, each.installed)
        if each.source in sources and not _is_revoked(each, revoked) and (key not in found or newer(each, found[key])):
            found[key] = each
    return list(found.values())


def newer(one: Suppressed, other: Suppressed) -> bool:
    """Whether one word decides over another: it was said later, or at the same time and does not suppress."""
    return (one.at or _OLDEST, not one.suppresses) > (other.at or _OLDEST, not other.suppresses)


def _is_revoked(found: Suppressed, revoked: Revoked) -> bool:
    if found.signer is None:
        return bool(revoked.keys or revoked.signers)
    return revoked.signer(found.signer) is not None


def _less(counts: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, int]:
    return {severity: count for severity, number in counts.items() if (count := number - taken.get(severity, 0)) > 0}

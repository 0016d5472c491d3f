"""What is left of a scan where somebody's word counts: who may say that a vulnerability does not matter is each policy's own business.

So evidence holds what was said and by whom, and takes nothing away; here it is taken away, for one policy.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from mlwarden.model.evidence import Scan, Suppressed
from mlwarden.model.revocation import Revoked

_NOTHING = Revoked()


def without(scan: Scan, sources: Collection[str], revoked: Revoked = _NOTHING) -> tuple[Scan, tuple[Suppressed, ...]]:
    """Returns the scan without the vulnerabilities that these sources suppress, and what they were.

    Args:
        scan: as it is stored.
        sources: whose word counts: names as in `Suppressed.source`.
        revoked: whose word does not count any more; nor does that of whom nobody knows, where any key or signer is revoked.
    """
    spoken = [found for found in scan.suppressed if found.source in sources and not _is_revoked(found, revoked)]
    taken = {(found.id, found.package, found.installed): found for found in spoken}
    if not taken:
        return scan, ()
    fixable = Counter(found.severity for found in taken.values() if found.fixed)
    unfixed = Counter(found.severity for found in taken.values() if not found.fixed)
    left = tuple(found for found in scan.vulnerabilities if (found.id, found.package, found.installed) not in taken)
    counts = _less(scan.counts, fixable)
    counts["unfixed"] = max(scan.counts.get("unfixed", 0) - unfixed.total(), 0)
    return msgspec.structs.replace(scan, counts=counts, unfixed=_less(scan.unfixed, unfixed), vulnerabilities=left), tuple(taken.values())


def _is_revoked(found: Suppressed, revoked: Revoked) -> bool:
    if found.signer is None:
        return bool(revoked.keys or revoked.signers)
    return revoked.signer(found.signer) is not None


def _less(counts: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, int]:
    return {severity: count for severity, number in counts.items() if (count := number - taken.get(severity, 0)) > 0}

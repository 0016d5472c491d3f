"""Whose excuses count for an image, and why those that were found and do not count do not.

An excuse is like an attestation: that it is the newest word only the repository that is named here can say. One that is known of a copy
elsewhere does not count until this repository was asked, too.
"""

from collections.abc import Iterator
from datetime import timedelta

from mlwarden.checks.resolved import Subject
from mlwarden.checks.text import NAME_LENGTH, REASON_LENGTH, clean
from mlwarden.model.evidence import Facts, ImageFacts, Scan
from mlwarden.model.revocation import Revoked
from mlwarden.policy import CompiledPolicy

_SHOWN = 2


def heard(compiled: CompiledPolicy, subject: Subject, known: ImageFacts, facts: Facts, max_age: timedelta) -> frozenset[str]:
    """Returns the sources that the policy listens to and that the repository that is named here was asked for, lately enough."""
    asked = known.answered.get(subject.at, {})
    return frozenset(source for source in compiled.vex if source in asked and facts.now - asked[source] <= max_age)


def ignored(compiled: CompiledPolicy, scan: Scan, revoked: Revoked) -> str:
    """Returns a sentence about VEX documents that were found and do not count for a policy, `""` where there are none."""
    said = list(dict.fromkeys(_ignored(compiled, scan, revoked)))
    rest = len(said) - _SHOWN
    return "; ".join([*said[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])


def _ignored(compiled: CompiledPolicy, scan: Scan, revoked: Revoked) -> Iterator[str]:
    left = {found.id for found in scan.vulnerabilities}
    names = {source: clean(demand.authority.name, NAME_LENGTH) for source, demand in compiled.vex.items()}
    for each in scan.unheard:
        if each.source in names and (not each.id or each.id in left):
            of = f" about {clean(each.id, NAME_LENGTH)}" if each.id else ""
            yield f"a VEX document{of} was found for {names[each.source]} and does not count: {clean(each.reason, REASON_LENGTH)}"
    for found in scan.suppressed:
        about = f"a VEX document about {clean(found.id, NAME_LENGTH)} was found and does not count"
        by = revoked.signer(found.signer) if found.signer is not None else None
        if found.id not in left:
            continue
        if found.source not in names:
            who = clean(str(found.signer), NAME_LENGTH) if found.signer else "somebody"
            yield f"{about}: it is by {who}, whom this policy does not name"
        elif by is not None:
            yield f"{about}: its signer is revoked ({clean(by.spec.reason, REASON_LENGTH)})"
        elif found.signer is None and (revoked.keys or revoked.signers):
            yield f"{about}: nobody knows who signed it, and there are revoked keys or signers"

"""In which order the repositories that are said to have a digest are tried. Pure.

Whoever may create pods may name repositories: fifteen that hang, before or after the honest one. So the newest comes first (a poisoned
list does not delay who asks now), every registry has its turn before one has a second (fifteen repositories of one host cost one try), and
each try after a failure begins one further (whatever comes first, everybody comes first once). The order of the list alone was rejected:
it is what an attacker writes.
"""

import itertools

from mlwarden.errors import InputError
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model.reference import parse


def order(evidence: ImageEvidence) -> tuple[str, ...]:
    """Returns the references of an object in the order in which to try them this time."""
    attempts, turns = evidence.status.attempts, dict[str, list[str]]()
    for reference in reversed(evidence.spec.references):
        turns.setdefault(registry(reference), []).append(reference)
    hosts = _rotated(list(turns), attempts)
    rounds = itertools.zip_longest(*(_rotated(turns[host], attempts // len(turns)) for host in hosts))
    return tuple(reference for each in rounds for reference in each if reference is not None)


def _rotated(items: list[str], by: int) -> list[str]:
    first = by % len(items)
    return [*items[first:], *items[:first]]


def registry(reference: str) -> str:
    """Returns the host of a reference, empty where it is none."""
    try:
        return parse(reference).registry
    except InputError:
        return ""


def shares(seconds: float, count: int) -> tuple[float, ...]:
    """Returns how long each of so many may take: half of what is left, and the last one all of it."""
    return tuple(seconds / 2 ** min(number + 1, count - 1) for number in range(count))

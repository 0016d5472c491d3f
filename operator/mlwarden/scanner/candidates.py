"""In which order the repositories that are said to have a digest are tried, and for how long.

Whoever may create pods may name repositories: fifteen that hang, before or after the honest one. So the newest comes first (a poisoned
list does not delay who asks now), every registry has its turn before one has a second (fifteen repositories of one host cost one try), and
each try after a failure begins one further (whatever comes first, everybody comes first once). The order of the list alone was rejected:
it is what an attacker writes.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from mlwarden.errors import InputError
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model.reference import parse

_T = TypeVar("_T")


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


async def in_turn(candidates: Sequence[str], seconds: float, look: Callable[[str], Awaitable[_T]]) -> _T:
    """Returns what is found under the first of them, in so many seconds altogether: half of what is left for each, all for the last.

    Raises:
        DefinitiveError: none of them has it. TransientError: one of them may.
    """
    failures: list[GatherError] = []
    ends = asyncio.get_running_loop().time() + seconds
    for number, candidate in enumerate(candidates, start=1):
        left = ends - asyncio.get_running_loop().time()
        share = left if number == len(candidates) else left / 2
        try:
            async with asyncio.timeout(share) as scope:
                return await look(candidate)
        except GatherError as error:
            failures.append(error)
        except TimeoutError:
            if not scope.expired():
                raise
            failures.append(TransientError(f"{candidate} took more than {share:.0f} s", hint="a larger --scan-timeout, or a smaller image"))
    if not failures:
        raise DefinitiveError("nobody said in which repository this digest is")
    raise next((error for error in failures if isinstance(error, TransientError)), failures[0])

"""In which order the repositories that are said to have a digest are tried, and for how long.

Whoever may create pods may name repositories: fifteen that hang, before or after the honest one. So all are asked at the same time whether
they have it, and of those that have it the newest comes first (a poisoned list does not delay who asks now), every registry has its turn
before one has a second (fifteen repositories of one host cost one try), and each try after a failure begins one further (whatever comes
first, everybody comes first once). The order of the list alone was rejected: it is what an attacker writes.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from mlwarden.errors import InputError
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model.reference import parse

_T = TypeVar("_T")
_HEAD_START = 1.0
"""Seconds that others wait for who asks now."""


def order(evidence: ImageEvidence) -> tuple[str, ...]:
    """Returns the references of an object in the order in which to try them this time."""
    attempts, turns = evidence.status.attempts, dict[str, list[str]]()
    for reference in reversed(evidence.spec.references):
        turns.setdefault(registry(reference), []).append(reference)
    hosts = _rotated(list(turns), attempts)
    rounds = itertools.zip_longest(*(_rotated(turns[host], attempts // len(turns)) for host in hosts))
    return tuple(reference for each in rounds for reference in each if reference is not None)


def sides(evidence: ImageEvidence) -> list[tuple[str, ...]]:
    """Returns the references of an object by the namespaces that name them, each list in the order in which to try it.

    What several name belongs to the one that names least: whoever names a good repository beside fifteen that hang does not slow it down.
    """
    named_by = evidence.spec.named_by
    counts = Counter(namespace for names in named_by.values() for namespace in names)
    found: dict[str, list[str]] = {}
    for reference in order(evidence):
        found.setdefault(min(named_by.get(reference, ()), key=counts.__getitem__, default=""), []).append(reference)
    return [tuple(each) for each in found.values()]


def untried(evidence: ImageEvidence) -> bool:
    """Whether a repository was named since the last try: who names it does not wait for what others' repositories deserve."""
    known = {place.reference for place in evidence.status.places}
    return bool(known) and not known.issuperset(evidence.spec.references)


def _rotated(items: list[str], by: int) -> list[str]:
    first = by % len(items)
    return [*items[first:], *items[:first]]


def registry(reference: str) -> str:
    """Returns the host of a reference, empty where it is none."""
    try:
        return parse(reference).registry
    except InputError:
        return ""


async def in_turn(
    candidates: Sequence[str], seconds: float, look: Callable[[str], Awaitable[_T]], *, there: Callable[[str], Awaitable[None]]
) -> _T:
    """Returns what is found under the first of them that has it, in so many seconds altogether.

    Where there are several, all of them are asked at the same time whether they have it: one that hangs stands before nobody. Each that has
    it is looked into for half of what is left, the last one for all of it.

    Raises:
        DefinitiveError: none of them has it. TransientError: one of them may.
    """
    failures: list[GatherError] = []
    ends = asyncio.get_running_loop().time() + seconds
    async with contextlib.aclosing(_having(candidates, there, seconds)) as having:
        async for candidate in having:
            if isinstance(candidate, GatherError):
                failures.append(candidate)
                continue
            left = ends - asyncio.get_running_loop().time()
            share = left if len(failures) == len(candidates) - 1 else left / 2
            try:
                async with asyncio.timeout(share) as scope:
                    return await look(candidate)
            except GatherError as error:
                failures.append(error)
            except TimeoutError:
                if not scope.expired():
                    raise
                failures.append(_late(candidate, share))
    if not failures:
        raise DefinitiveError("nobody said in which repository this digest is")
    raise next((error for error in failures if isinstance(error, TransientError)), failures[0])


async def _having(
    candidates: Sequence[str], there: Callable[[str], Awaitable[None]], seconds: float
) -> AsyncGenerator[str | GatherError, None]:
    """Those that have it, or why they do not; the first candidate before those that are quicker by less than a second."""
    if len(candidates) == 1:
        yield candidates[0]
        return
    loop = asyncio.get_running_loop()
    began, asked = loop.time(), {candidate: asyncio.create_task(_asked(there, candidate)) for candidate in candidates}
    try:
        while asked and (left := began + seconds - loop.time()) > 0:
            done = [candidate for candidate, task in asked.items() if task.done()]
            head_start = began + _HEAD_START - loop.time() if candidates[0] in asked and candidates[0] not in done else 0
            if not done or head_start > 0:
                waiting = [task for task in asked.values() if not task.done()]
                await asyncio.wait(waiting, timeout=head_start if done else left, return_when=asyncio.FIRST_COMPLETED)
                continue
            yield asked.pop(done[0]).result() or done[0]
        for candidate in asked:
            yield _late(candidate, seconds)
    finally:
        for task in asked.values():
            task.cancel()
        await asyncio.gather(*asked.values(), return_exceptions=True)


async def _asked(there: Callable[[str], Awaitable[None]], candidate: str) -> GatherError | None:
    try:
        await there(candidate)
    except GatherError as error:
        return error
    return None


def _late(candidate: str, seconds: float) -> TransientError:
    return TransientError(f"{candidate} took more than {seconds:.0f} s", hint="a larger --scan-timeout, or a smaller image")

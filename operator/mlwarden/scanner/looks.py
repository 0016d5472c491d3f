"""One digest's signatures, looked for in all its repositories: what belongs to one namespace does not wait for what belongs to another.

Whoever may create pods may name repositories that hang. So the repositories that one namespace names are one *side*, a question of its own
to the worker, and each answer is written as soon as it is there, while the claim goes on. Who asks again meanwhile has their own side asked
again at once.

Rejected: one question about all of them (fifteen hosts that hang kept an image that was signed from starting, and what the others had
answered by then was thrown away), and an object for each namespace (the same digest would be verified once for each of them).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from mlwarden.evidence import store
from mlwarden.evidence.failure import GatherError, TransientError, one_line
from mlwarden.evidence.history import Looked, is_complete, merged, places, together
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model.evidence import Phase
from mlwarden.model.signing import MAX_PROOFS, Place, Proof, Proven
from mlwarden.scanner.candidates import sides

Side = tuple[str, ...]
ANSWERED: dict[str, Any] = {"phase": Phase.READY, "reason": "", "attempts": 0, "retry_at": None}


class Findings:
    """What is known so far. Pure: what was known before, and what each side has said since.

    Args:
        before: the object as it was claimed.
        failed: proofs of demands that nobody can be asked about.
    """

    def __init__(self, before: ImageEvidence, failed: Sequence[Proof] = ()) -> None:
        self._known = {proof.demand: proof for proof in before.status.proofs}
        self._places, self._answered = store.places(before), store.answered(before)
        self._failed, self._said = failed, dict[Side, Looked]()
        self._unheard: dict[str, Place] = {}

    def take(self, side: Side, looked: Looked) -> None:
        """One side has answered; what it said before does not count any more."""
        self._said = {other: said for other, said in self._said.items() if set(other).isdisjoint(side)} | {side: looked}

    def fail(self, side: Side, error: GatherError, now: datetime) -> None:
        """One side could not be asked."""
        self._unheard |= {reference: Place(reference=reference, at=now, reason=one_line(error.message, 200)) for reference in side}

    def status(self, now: datetime, named: Sequence[str]) -> dict[str, Any]:
        """Returns what is to be written: nothing that is known is forgotten because somebody has not answered."""
        made: dict[str, list[Proof]] = {}
        asked = [place for looked in self._said.values() for place in looked.places]
        for proof in (proof for looked in self._said.values() for proof in looked.proofs):
            made.setdefault(proof.demand, []).append(proof)
        proofs = []
        for demand, found in made.items():
            answered = {place.reference for place in asked if demand in place.answered}
            complete = is_complete(demand, self._answered, answered, now)
            proofs.append(merged(self._known.get(demand), together(found), now, complete=complete))
        proofs += [merged(self._known.get(proof.demand), proof, now, complete=False) for proof in self._failed]
        kept = tuple(proofs[:MAX_PROOFS])
        return {
            **ANSWERED,
            "proofs": kept,
            "proven": store.proven(kept),
            "at": now,
            "places": places(self._places, (*self._unheard.values(), *asked), named),
        }

    @property
    def open(self) -> str:
        """Why something could not be found out anywhere; empty where everything could."""
        every = [proof for looked in self._said.values() for proof in looked.proofs]
        settled = {proof.demand for proof in every if proof.outcome is not Proven.UNKNOWN}
        return next((proof.reason or "nobody knows" for proof in (*every, *self._failed) if proof.demand not in settled), "")


class Looks:
    """The questions about one object, from the first to the last answer.

    Args:
        ask: asks the worker about some references.
        current: the object as it is now; None where it is gone.
        news: set when it has changed.
        write: writes what is known so far.
    """

    def __init__(
        self,
        *,
        ask: Callable[[ImageEvidence, Side], Awaitable[Looked]],
        current: Callable[[], ImageEvidence | None],
        news: asyncio.Event,
        write: Callable[[dict[str, Any]], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        self._ask, self._current, self._news, self._write, self._now = ask, current, news, write, now

    async def run(self, known: ImageEvidence, findings: Findings) -> dict[str, Any]:
        """Returns what is to be written at the end.

        Raises:
            GatherError: no side has an answer.
        """
        asked = {asyncio.create_task(_answer(self._ask(known, side))): side for side in sides(known)}
        failures: list[GatherError] = []
        news = asyncio.create_task(self._news.wait())
        answers = 0
        try:
            while asked:
                done, _ = await asyncio.wait((*asked, news), return_when=asyncio.FIRST_COMPLETED)
                if news in done:
                    self._news.clear()
                    news = asyncio.create_task(self._news.wait())
                    known = self._again(known, asked)
                ended = [task for task in asked if task in done]
                for task in ended:
                    side, answer = asked.pop(task), task.result()
                    if isinstance(answer, Looked):
                        findings.take(side, answer)
                        answers += 1
                    else:
                        findings.fail(side, answer, self._now())
                        failures.append(answer)
                if asked and answers and ended:
                    await self._write({**findings.status(self._now(), known.spec.references), "answered": known.spec.requested_at})
        finally:
            for waiting in (news, *asked):
                waiting.cancel()
            await asyncio.gather(news, *asked, return_exceptions=True)
        if not answers:
            raise next((error for error in failures if isinstance(error, TransientError)), failures[0])
        return {**findings.status(self._now(), known.spec.references), "answered": known.spec.requested_at}

    def _again(self, known: ImageEvidence, asked: dict[asyncio.Task[Looked | GatherError], Side]) -> ImageEvidence:
        """Has the side of whoever asked again asked, unless it is being asked; returns the object as it is answered now."""
        current = self._current()
        if current is None or current.spec.requested_at == known.spec.requested_at:
            return known
        first = next(side for side in sides(current) if current.spec.references[-1] in side)
        if any(not set(first).isdisjoint(side) for side in asked.values()):
            return known
        asked[asyncio.create_task(_answer(self._ask(current, first)))] = first
        return current


_Result = TypeVar("_Result")


async def look_once(
    known: ImageEvidence,
    *,
    look: Callable[[ImageEvidence, str], Awaitable[_Result]],
    find: Callable[[ImageEvidence, Side], Awaitable[str]],
    current: Callable[[], ImageEvidence | None],
    news: asyncio.Event,
) -> tuple[ImageEvidence, _Result]:
    """Returns what is in a digest, which is the same wherever it is, and the object as it was when that was asked.

    Where a repository is named meanwhile that has the image, the look begins anew with that one, once: the others may hang. Once, so that
    whoever names repositories cannot keep it from ever coming to an end.

    Args:
        known: the object as it was claimed.
        look: looks into it; the second argument is where to look first, empty for as the object says.
        find: returns which of some repositories has it.
        current: the object as it is now.
        news: set when it has changed.

    Raises:
        GatherError: why it could not be looked into.
    """
    looking, coming = asyncio.ensure_future(look(known, "")), asyncio.ensure_future(news.wait())
    finding: list[asyncio.Future[tuple[ImageEvidence, str] | None]] = []
    sought, moved = set(known.spec.references), False
    try:
        while True:
            waiting: list[asyncio.Future[Any]] = [looking] if moved else [looking, coming, *finding]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if looking.done():
                return known, looking.result()
            if coming.done():
                news.clear()
                coming, now = asyncio.ensure_future(news.wait()), current()
                new = [each for each in reversed(now.spec.references) if each not in sought] if now is not None else []
                if now is not None and new:
                    sought.update(new)
                    finding.append(asyncio.ensure_future(_find(find, now, tuple(new))))
            ended = [each for each in finding if each.done()]
            finding = [each for each in finding if not each.done()]
            found = next((result for each in ended if (result := each.result()) is not None), None)
            if found is not None:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
                known, moved = found[0], True
                looking = asyncio.ensure_future(look(*found))
    finally:
        left: list[asyncio.Future[Any]] = [looking, coming, *finding]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _find(find: Callable[[ImageEvidence, Side], Awaitable[str]], of: ImageEvidence, new: Side) -> tuple[ImageEvidence, str] | None:
    try:
        return of, await find(of, new)
    except GatherError:
        return None


async def _answer(work: Awaitable[Looked]) -> Looked | GatherError:
    try:
        return await work
    except GatherError as error:
        return error


def with_materials(looked: Looked, materials: Mapping[str, str]) -> Looked:
    """Returns the same, each proof with what it was made with."""
    proofs = tuple(msgspec.structs.replace(proof, material=materials[proof.demand]) for proof in looked.proofs)
    return Looked(proofs=proofs, places=looked.places)


def tried(known: ImageEvidence, now: datetime) -> tuple[Place, ...]:
    """Returns the places of an object whose repositories were all tried, for an answer that is the same wherever it comes from."""
    made = [Place(reference=reference, at=now) for reference in known.spec.references]
    return places(store.places(known), made, known.spec.references)

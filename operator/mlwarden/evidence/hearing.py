"""VEX documents about a digest, from every repository, side by side.

What was taken back in one repository is not said any more by a copy elsewhere, so all are asked. Whoever may name repositories may name
some that hang, and a scan waits for nobody: once one repository has answered, one that has not even said that it has the image has as long
again, and one that has a few seconds. What cannot be had, or read, excuses nothing, is no reason to lose the scan, and is said with the
reason.

Rejected: one repository after the other (fifteen hosts that hang, a minute each, and the excuse was never found), and to write the scan
first and the excuses later (in between everybody's pods would be refused).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from mlwarden.errors import EvidenceError
from mlwarden.evidence import vex
from mlwarden.evidence.attestations import Attestations
from mlwarden.evidence.failure import one_line
from mlwarden.model.evidence import Unheard
from mlwarden.model.signing import Demand, Place

_LEAST, _ALIVE = 0.25, 5.0
"""Seconds at least for a repository that has said nothing, which has as long as the first answer took, and for one that has the image."""
_MOST = 120.0
"""Where none has."""
_LATE = "it was not heard in time"
Look = Callable[[str, Demand, Callable[[], None]], Awaitable[Sequence[Attestations]]]
"""What was attested in one repository; the last argument is to be called when it has said that it has the image. Raises EvidenceError."""


class Hearing:
    """An asynchronous context manager: the questions run while it is open.

    Args:
        look: asks one repository.
        candidates: `repository@sha256:…`, all of one digest.
        demands: source → whose documents.
    """

    def __init__(self, look: Look, candidates: Sequence[str], demands: Mapping[str, Demand]) -> None:
        self._look, self._candidates, self._demands = look, tuple(dict.fromkeys(candidates)), demands
        self._asked: dict[asyncio.Task[None], tuple[str, str]] = {}
        self._alive: set[str] = set()
        self._documents: list[vex.Document] = []
        self._unheard: list[Unheard] = []
        self._answered: dict[str, dict[str, datetime]] = {}
        self._reasons: dict[str, str] = {}
        self._first = 0.0  # seconds that the first answer took

    async def __aenter__(self) -> Self:
        self._began = asyncio.get_running_loop().time()
        for candidate in self._candidates:
            for source in self._demands:
                self._asked[asyncio.create_task(self._one(candidate, source))] = (candidate, source)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def _one(self, candidate: str, source: str) -> None:
        demand = self._demands[source]
        try:
            for attested in await self._look(candidate, demand, lambda: self._alive.add(candidate)):
                if attested.reason:
                    self._unheard.append(Unheard(source=source, reason=one_line(attested.reason, 200)))
                self._read(attested, source)
        except EvidenceError as error:
            self._reasons[candidate] = one_line(error.message, 200)
        else:
            self._answered.setdefault(candidate, {})[source] = datetime.now(UTC)
            self._first = self._first or asyncio.get_running_loop().time() - self._began

    def _read(self, attested: Attestations, source: str) -> None:
        for each in attested.found:
            try:
                self._documents.append(vex.read(each.predicate, source=source, signer=each.signer))
            except EvidenceError as error:
                self._unheard.append(Unheard(source=source, reason=one_line(error.message, 200)))

    async def heard(self) -> tuple[vex.Document, ...]:
        """Returns the documents that could be had in time."""
        while waiting := [task for task in self._asked if not task.done() and self._left(self._asked[task][0]) > 0]:
            left = min(self._left(self._asked[task][0]) for task in waiting)
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return tuple(self._documents)

    def _left(self, candidate: str) -> float:
        """Seconds that a repository still has."""
        most = _ALIVE if candidate in self._alive else 2 * max(self._first, _LEAST)
        return self._began + (most if self._first else _MOST) - asyncio.get_running_loop().time()

    def unheard(self) -> tuple[Unheard, ...]:
        """Returns the documents that do not count as a whole, with the reason."""
        return tuple(dict.fromkeys(self._unheard))

    def places(self) -> tuple[Place, ...]:
        """Returns what each repository has answered by now: source → when."""
        now = datetime.now(UTC)
        late = {candidate for task, (candidate, _) in self._asked.items() if not task.done()}
        return tuple(
            Place(
                reference=candidate,
                at=now,
                reason=self._reasons.get(candidate, _LATE if candidate in late else ""),
                answered=self._answered.get(candidate, {}),
            )
            for candidate in self._candidates
        )

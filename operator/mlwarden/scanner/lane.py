"""One kind of work: its agenda, its slots, and whose turn it is.

Resolutions and scans have a lane each, so that an image of gigabytes never stands in the way of asking what a tag points at.

Where scans are short, the slots of a lane would stand empty for as long as claiming takes. So the next ones are claimed while the slots
are still taken, and given back where none comes free soon: another scanner may have one. A claim written while the scan already runs was
rejected: of several scanners each would scan what only one may write.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from mlwarden.cluster import clock
from mlwarden.evidence.failure import TransientError
from mlwarden.scanner.agenda import Agenda, Due, Turn
from mlwarden.scanner.pools import Pools, Running

PATIENCE = 3.0
"""Seconds. What is claimed ahead is given back when it had no slot by then; nothing is claimed ahead where scans take longer."""


class NoSlotError(Exception):
    """It was claimed ahead, and no slot came free soon."""


class DisplacedError(TransientError):
    """It made room for somebody who was never tried."""


class Lane:
    """Gives out turns.

    Args:
        fast: how many run at the same time.
        total: how many with those that are slow, and with guests (`pools`).
        ahead: how many are claimed before there is a slot for them, where those before them were done soon.
    """

    def __init__(self, *, fast: int, total: int, ahead: int = 0) -> None:
        self.agenda, self.pools = Agenda(), Pools(fast=fast, total=total)
        self._ahead, self._quick = ahead, False
        self._waiting: dict[str, asyncio.Event] = {}
        self._scopes: dict[str, asyncio.Timeout] = {}
        self._writing: set[str] = set()
        self._changed = asyncio.Event()

    def plan(self, name: str, when: Due | None) -> None:
        """Replaces what is known about an object; one that runs is planned when it has ended."""
        self.agenda.put(name, None if name in self.pools or name in self._writing else when)
        self._changed.set()

    async def next(self, fit: asyncio.Event) -> Turn:
        """Returns whose turn it is to be claimed, as soon as it is anybody's. Nothing starts while there is no worker to do it."""
        while True:
            await fit.wait()
            self._changed.clear()
            now = _now()
            self._start(now)
            may = self.pools.may_claim(now, ahead=self._ahead if self._quick else 0)
            turn = self.agenda.take(now, may=may, turn=self.pools.turn)
            if turn is not None:
                self.pools.claim(turn.name, _running(turn, now))
                return turn
            self._make_room(now)
            moments = [moment for moment in (self.agenda.next_at(), self.pools.next_change(now)) if moment is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max((min(moments) - _now()).total_seconds(), 0.01) if moments else None):
                    await self._changed.wait()

    def _start(self, now: datetime) -> None:
        while (name := self.pools.first(self._waiting, now)) is not None:
            self.pools.start(name, now)
            self._waiting.pop(name).set()

    async def slot(self, name: str) -> None:
        """Returns when one that was claimed has its slot.

        Raises:
            NoSlotError: none came free soon.
        """
        started = self._waiting[name] = asyncio.Event()
        self._changed.set()
        try:
            async with asyncio.timeout(PATIENCE):
                await started.wait()
        except TimeoutError:
            self._quick = False
            raise NoSlotError from None
        finally:
            self._waiting.pop(name, None)

    def _make_room(self, now: datetime) -> None:
        first = self.agenda.waiting(now, turn=self.pools.turn)
        if first is None:
            return
        name = self.pools.displace(first.namespace, first.when.host, now)
        if name is not None and name in self._scopes:
            self._scopes[name].reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def displaceable(self, name: str) -> AsyncIterator[None]:
        """The body may be cancelled for somebody else's sake.

        Raises:
            DisplacedError: it was.
        """
        began = _now()
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes[name] = scope
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            seconds = (_now() - began).total_seconds()
            raise DisplacedError(f"it made room for others after {seconds:.0f} s, and will have more time") from None
        finally:
            del self._scopes[name]
            self._quick = (_now() - began).total_seconds() < PATIENCE

    def write(self, name: str) -> None:
        """The work is done and its answer is being written: its slot is free for the next."""
        self._writing.add(name)
        self.pools.end(name)
        self._changed.set()

    def end(self, name: str) -> None:
        """It is over, and may be planned again."""
        self._writing.discard(name)
        self.pools.end(name)
        self._changed.set()


def _running(turn: Turn, now: datetime) -> Running:
    return Running(began=now, rank=turn.rank, namespace=turn.namespace, host=turn.when.host, attempts=turn.when.attempts)


def _now() -> datetime:
    return clock.now()

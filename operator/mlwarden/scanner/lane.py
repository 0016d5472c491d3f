"""One kind of work: its agenda, its slots, and whose turn it is.

Resolutions and scans have a lane each, so that an image of gigabytes never stands in the way of asking what a tag points at.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from mlwarden.evidence.failure import TransientError
from mlwarden.scanner.agenda import Agenda, Due, Turn
from mlwarden.scanner.pools import Pools, Running


class DisplacedError(TransientError):
    """It made room for somebody who was never tried."""


class Lane:
    """Gives out turns.

    Args:
        fast: how many run at the same time.
        total: how many with those that are slow, and with guests (`pools`).
    """

    def __init__(self, *, fast: int, total: int) -> None:
        self.agenda, self.pools = Agenda(), Pools(fast=fast, total=total)
        self._scopes: dict[str, asyncio.Timeout] = {}
        self._writing: set[str] = set()
        self._changed = asyncio.Event()

    def plan(self, name: str, when: Due | None) -> None:
        """Replaces what is known about an object; one that runs is planned when it has ended."""
        self.agenda.put(name, None if name in self.pools or name in self._writing else when)
        self._changed.set()

    async def next(self, fit: asyncio.Event) -> Turn:
        """Returns whose turn it is, as soon as it is anybody's; it runs from now on. Nothing starts while there is no worker to do it."""
        while True:
            await fit.wait()
            self._changed.clear()
            now = _now()
            turn = self.agenda.take(now, may=self.pools.may_at(now), turn=self.pools.turn)
            if turn is not None:
                self.pools.start(turn.name, _running(turn, now))
                return turn
            self._make_room(now)
            moments = [moment for moment in (self.agenda.next_at(), self.pools.next_change(now)) if moment is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max((min(moments) - _now()).total_seconds(), 0.01) if moments else None):
                    await self._changed.wait()

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
    return datetime.now(UTC)

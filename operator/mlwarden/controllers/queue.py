"""What is to be looked at: every key once, however often it was reported, and never by two workers at a time.

The semantics are client-go's work queue. `asyncio.Queue` alone would judge a pod once per event, and a thousand events are
normal after an outage.
"""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys that wait. Belongs to one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._dirty: set[K] = set()
        self._busy: set[K] = set()
        self._later: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        return len(self._dirty)

    def add(self, key: K) -> None:
        """Looks at `key` as soon as a worker is free; again afterwards, where one is at it now."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._ready.put_nowait(key)

    def add_later(self, key: K, seconds: float) -> None:
        """Looks at `key` in `seconds`; the earlier of two such wishes counts."""
        loop = asyncio.get_running_loop()
        known = self._later.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._later[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> None:
        """Looks at `key` again after a failure: later each time, at most every 30 seconds."""
        failures = self._failures[key] = min(self._failures.get(key, 0) + 1, 10)
        self.add_later(key, min(0.1 * 2.0**failures, 30.0))

    def succeeded(self, key: K) -> None:
        """The last attempt went well: the next failure is the first one. What was to be looked at later still is."""
        self._failures.pop(key, None)

    def forget(self, key: K) -> None:
        """The key is no longer of interest."""
        self._failures.pop(key, None)
        later = self._later.pop(key, None)
        if later is not None:
            later.cancel()

    async def get(self) -> K:
        """Waits for a key; call `done` with it afterwards."""
        key = await self._ready.get()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is through with it."""
        self._busy.discard(key)
        if key in self._dirty:
            self._ready.put_nowait(key)

    def close(self) -> None:
        """Cancels what is to come later."""
        for later in self._later.values():
            later.cancel()
        self._later.clear()

    def _due(self, key: K) -> None:
        self._later.pop(key, None)
        self.add(key)

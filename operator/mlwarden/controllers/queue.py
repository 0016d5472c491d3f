"""What is to be looked at: every key once, however often it was reported, and never by two workers at a time.

The semantics are client-go's work queue. `asyncio.Queue` alone would judge a pod once per event, and a thousand events are
normal after an outage. Beyond client-go's: namespaces take turns, so that whoever has thousands of held pods delays nobody else's.
"""

import asyncio
import itertools

from mlwarden.cluster.informer import Key
from mlwarden.controllers.turns import Turns


class WorkQueue:
    """Keys that wait. Belongs to one event loop."""

    def __init__(self) -> None:
        self._ready: asyncio.PriorityQueue[tuple[int, int, Key]] = asyncio.PriorityQueue()
        self._numbers, self._turns = itertools.count(), Turns[str]()
        self._dirty: set[Key] = set()
        self._busy: set[Key] = set()
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._dirty)

    def add(self, key: Key) -> None:
        """Looks at `key` as soon as a worker is free; again afterwards, where one is at it now."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._put(key)

    def add_later(self, key: Key, seconds: float) -> None:
        """Looks at `key` in `seconds`; the earlier of two such wishes counts."""
        loop = asyncio.get_running_loop()
        known = self._later.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._later[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: Key) -> None:
        """Looks at `key` again after a failure: later each time, at most every 30 seconds."""
        failures = self._failures[key] = min(self._failures.get(key, 0) + 1, 10)
        self.add_later(key, min(0.1 * 2.0**failures, 30.0))

    def succeeded(self, key: Key) -> None:
        """The last attempt went well: the next failure is the first one. What was to be looked at later still is."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """The key is no longer of interest."""
        self._failures.pop(key, None)
        later = self._later.pop(key, None)
        if later is not None:
            later.cancel()

    async def get(self) -> Key:
        """Waits for a key; call `done` with it afterwards.

        Lets others run in between: from a queue that is never empty, a worker who waits for nothing else would take one key after the
        other, and nobody would hear the watches or renew the Lease meanwhile.
        """
        await asyncio.sleep(0)
        number, _, key = await self._ready.get()
        self._turns.began(number)
        self._turns.leave(key[0])
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        """The worker is through with it."""
        self._busy.discard(key)
        if key in self._dirty:
            self._put(key)

    def close(self) -> None:
        """Cancels what is to come later."""
        for later in self._later.values():
            later.cancel()
        self._later.clear()

    def _put(self, key: Key) -> None:
        self._turns.enter(key[0])
        self._ready.put_nowait((self._turns.next(key[0]), next(self._numbers), key))

    def _due(self, key: Key) -> None:
        self._later.pop(key, None)
        self.add(key)

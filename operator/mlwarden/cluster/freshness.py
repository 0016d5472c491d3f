"""Makes sure that what is known is at least as new as a pod, before that pod is released by it.

Policies, namespaces, revocations and evidence come by watches of their own, each a moment late: a namespace that has just become
`production` and a pod that was created after that may be seen in the other order. So before something is called good, what it was judged by
is compared with a consistent read that began after the pod was seen, and waited for where a watch is behind.

Reads are of metadata alone (names and resource versions), and shared: a pod that was seen before the last one began needs no other, and
whoever comes while one is under way waits for the next, of which there are at most ten a second.

Rejected: comparing the pod's resource version with that of the last event or bookmark of each watch (an idle collection has none for a
minute, and every release would wait for it; and two collections need not be in one etcd), and a pause before every release (how long?).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import NotFoundError, UnreachableError
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.snapshot import Snapshot, SnapshotSource

_APART = 0.1
"""Seconds between two reads."""
_POLL, _AGAIN = 0.01, 0.5
_LISTS, _NAMESPACE = "lists", "namespace/"
"""What a read covered, beside evidence, which has no name like these."""
_REMEMBERED = 20_000
_PATIENCE = 5.0
"""Seconds that a watch may be behind; then the pod is looked at again later."""


class Freshness:
    """Shared consistent reads.

    Args:
        client: of the API server.
        source: of the snapshot.
    """

    def __init__(self, client: Client, source: SnapshotSource) -> None:
        self._client, self._source = client, source
        self._next: _Asked | None = None
        self._last: asyncio.Task[None] | None = None
        self._began = -math.inf
        self._covered: dict[str, float] = {}

    async def snapshot(self, namespace: str, evidence: Iterable[str] = (), *, since: float = math.inf) -> Snapshot:
        """Returns a snapshot at least as new as anything that was stored before `since`.

        Args:
            namespace: whose metadata matters.
            evidence: names of the evidence that matters.
            since: when what is judged was seen, by the loop's clock; a read that began later will do. By default it is now.

        Raises:
            ApiError: the API server could not be asked, or a watch is behind for too long.
        """
        names = tuple(evidence)
        if all(self._covered.get(name, -math.inf) > since for name in (_LISTS, f"{_NAMESPACE}{namespace}", *names)):
            return self._source.current
        asked = self._next
        if asked is None:
            asked = self._next = _Asked()
            self._last = asked.task = asyncio.create_task(self._read(asked, self._last))
        asked.namespaces.add(namespace)
        asked.evidence.update(names)
        await asyncio.shield(asked.task)
        return self._source.current

    async def _read(self, asked: "_Asked", before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        await asyncio.sleep(self._began + _APART - asyncio.get_running_loop().time())
        self._next, began = None, asyncio.get_running_loop().time()  # who comes from now on waits for the next
        self._began = began
        source = self._source
        looks = [
            self._all(source.policies),
            self._all(source.revocations),
            *(self._one(source.namespaces, name) for name in asked.namespaces),
            *(self._one(source.evidence, name) for name in asked.evidence),
        ]
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        source.settle()
        if len(self._covered) > _REMEMBERED:
            self._covered.clear()
        covered = (_LISTS, *(f"{_NAMESPACE}{name}" for name in asked.namespaces), *asked.evidence)
        self._covered.update(dict.fromkeys(covered, began))

    async def _all(self, informer: Informer) -> None:
        async def look() -> Callable[[], bool]:
            stored, version = await self._client.versions(informer.kind)
            return lambda: _has_all(informer, stored, version)

        await _until(look, informer)

    async def _one(self, informer: Informer, name: str) -> None:
        async def look() -> Callable[[], bool]:
            try:
                stored = await self._client.version(informer.kind, name)
            except NotFoundError:
                return lambda: not informer.version(("", name))
            return lambda: _as_new(informer.version(("", name)), stored)

        await _until(look, informer)


class _Asked:
    """What one read is about; those who share it add to that until it begins."""

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.namespaces: set[str] = set()
        self.evidence: set[str] = set()


async def _until(look: Callable[[], Awaitable[Callable[[], bool]]], informer: Informer) -> None:
    """Waits until what is known is what a look saw; looks again where it is not soon: what was seen may be gone since."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + _PATIENCE
    while True:
        is_known, again = await look(), loop.time() + _AGAIN
        while not is_known():
            if loop.time() > ends:
                raise UnreachableError(f"{informer.kind.plural}: the watch is more than {_PATIENCE:.0f} s behind the API server")
            if loop.time() > again:
                break
            await asyncio.sleep(_POLL)
        else:
            return


def _has_all(informer: Informer, stored: Mapping[Key, str], version: str) -> bool:
    """Whether the copy has everything that a list had, and nothing older that the list had not."""
    known = informer.versions
    listed = all(_as_new(known.get(key, ""), each) for key, each in stored.items())
    return listed and all(key in stored or _as_new(each, version) for key, each in known.items())


def _as_new(known: str, stored: str) -> bool:
    """Whether `known` is `stored` or later: resource versions of one kind can be compared (KEP-5504)."""
    return known == stored or (known.isdecimal() and stored.isdecimal() and int(known) >= int(stored))

"""Forgets evidence that nobody asked for in a long time: whoever may create pods makes objects of it, and nothing else ends them.

Every ten minutes, and as soon as there is too much. Nothing is lost by it: who needs it asks again, and waits for a
scan. Every process holds all of it, and must not be ended by its number. So of more than `MOST` pieces those go first that were not asked
for longest, of the namespaces with the most of them: a tenant with ten thousand images does not push out another's ten.

Who asks keeps to a bound for each namespace (`evidence.bounds`). What is there beyond it all the same, because somebody writes with a token
of ours, goes as soon as it is seen, the newest first. Runs on the leader.
"""

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
from prometheus_client import Counter

from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, NotFoundError
from mlwarden.cluster.kinds import IMAGE_EVIDENCE
from mlwarden.cluster.snapshot import SnapshotSource
from mlwarden.errors import Error
from mlwarden.evidence.bounds import Unanswered
from mlwarden.evidence.store import ImageEvidence, read
from mlwarden.model.workload import Json

LOG = logging.getLogger(__name__)
SURPLUS = Counter("mlwarden_surplus_requests_total", "Requests for evidence that were removed because their namespace had too many.")
RESOLUTION = timedelta(days=1)
"""A tag's digest is believed for a minute."""
SCAN = timedelta(days=30)
"""Longer than any `maxAge` that makes sense."""
MOST = 20_000
"""Of tags, scans and signatures together: six thousand images and more, 20 KB for each scan with many findings."""
_ROUND = 600.0
_AGAIN = 5.0
_AHEAD = timedelta(minutes=5)
_SLACK = 2
"""Times the bound of a namespace. Two processes ask at the same time, and a scanner asks for the digest of a tag and its signatures."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What decides about one piece of evidence, and no more of it."""

    name: str
    version: str
    asked: datetime
    namespace: str


class Forgetter:
    """Forgets what is old, and what is too much.

    Args:
        client: of the API server.
        source: of snapshots; tells of each piece of evidence.
    """

    def __init__(self, client: Client, source: SnapshotSource) -> None:
        self._client, self._source = client, source
        self._unanswered = Unanswered(source.current.settings.evidence_per_namespace)
        self._names: set[str] = set()
        self._grew, self._many = asyncio.Event(), asyncio.Event()
        source.read_evidence(self._changed)

    def _changed(self, name: str, obj: Json | None) -> None:
        self._unanswered.changed(name, obj)
        self._grew.set()
        (self._names.discard if obj is None else self._names.add)(name)
        if len(self._names) > MOST + MOST // 20:
            self._many.set()

    async def lead(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._rounds())
            tasks.create_task(self._surplus())

    def _exists(self, namespace: str) -> bool:
        return not self._source.ready.is_set() or namespace in self._source.current.namespaces

    async def _rounds(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), _ROUND)
            self._many.clear()
            try:
                count = await forget(self._client, now=clock.now())
            except ApiError as error:
                LOG.warning("old evidence could not be removed: %s", error)
            else:
                if count:
                    LOG.info("%d pieces of evidence were removed: nobody has asked for them in a long time", count)
            await asyncio.sleep(_AGAIN)  # a flood is not answered with a list of everything for each object of it

    async def _surplus(self) -> None:
        while True:
            await self._grew.wait()
            self._grew.clear()
            try:
                count = 0
                for each in self._unanswered.surplus(self._unanswered.most * (_SLACK - 1), self._exists):
                    count += await _removed(self._client, each.metadata.name, each.metadata.resource_version)
                for name, version in self._unanswered.strangers():
                    count += await _removed(self._client, name, version)
            except ApiError as error:
                LOG.warning("requests for evidence beyond the bound of their namespace could not be removed: %s", error)
                await asyncio.sleep(_AGAIN)
                self._grew.set()
            else:
                if count:
                    SURPLUS.inc(count)
                    LOG.warning("%d requests for evidence were removed: more than scanner.perNamespace allows, or about nothing", count)


async def forget(client: Client, *, now: datetime) -> int:
    """Removes what is old at `now` and what is too much, and returns how much that was."""
    kept: list[Piece] = []
    count = 0
    async for page in client.pages(IMAGE_EVIDENCE):
        for obj, _ in page.items:
            try:
                stored = read(obj)
            except Error:
                continue  # not what it says it is; the snapshot reports it
            asked = _asked(stored, now)
            if asked is None:
                continue
            if now - asked >= (RESOLUTION if stored.is_resolution else SCAN):
                count += await _removed(client, stored.metadata.name, stored.metadata.resource_version)
            else:
                whose = stored.spec.namespaces[-1] if stored.spec.namespaces else ""
                kept.append(Piece(name=stored.metadata.name, version=stored.metadata.resource_version, asked=asked, namespace=whose))
    surplus = beyond(kept, MOST)
    if surplus:
        LOG.warning("there are %d pieces of evidence, more than are held: those of who has most that are asked for least go", len(kept))
    for piece in surplus:
        count += await _removed(client, piece.name, piece.version)
    return count


def beyond(pieces: Iterable[Piece], most: int) -> list[Piece]:
    """Returns what has to go so that no more than `most` are left: of the namespace with the most, what was not asked for longest."""
    by_namespace: dict[str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.asked, piece.name), reverse=True):
        by_namespace.setdefault(piece.namespace, []).append(piece)
    heap = [(-len(own), namespace) for namespace, own in by_namespace.items()]
    heapq.heapify(heap)
    gone = []
    for _ in range(sum(len(own) for own in by_namespace.values()) - most):
        count, namespace = heap[0]
        gone.append(by_namespace[namespace].pop())
        heapq.heapreplace(heap, (count + 1, namespace))
    return gone


def _asked(stored: ImageEvidence, now: datetime) -> datetime | None:
    """When it was last asked for. A date in the future was not written by who asks, and does not make it stay until then."""
    requested, created = stored.spec.requested_at, stored.metadata.creation_timestamp
    return requested if requested is not None and requested <= now + _AHEAD else created


async def _removed(client: Client, name: str, version: str) -> bool:
    with contextlib.suppress(ConflictError, NotFoundError):  # asked for a moment ago: it stays
        await client.delete(IMAGE_EVIDENCE, name, version=version)
        return True
    return False

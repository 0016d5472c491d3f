"""A new vulnerability database: what is known about every digest is said again, without an image being pulled.

In batches, because that is what makes it cheap (`evidence.reevaluate`), and without claims: each answer is written under the resource
version that was seen, so whoever changed the object meanwhile wins, and two scanners that do the same write the same. What has to be pulled
for it keeps its scan, with its age, until somebody needs a newer one. Where somebody's excuses count, the question is asked again in full:
each new database makes the scan young, and an excuse that was taken back would never be looked at again.

A batch that gets no answer (a worker that was killed for want of memory, an answer that is too long) is asked again in halves, and the
digest that spoils it is left out: whoever pushes images must not keep everybody's scans from being renewed.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from mlwarden.cluster import IMAGE_EVIDENCE, ApiError, Client, clock
from mlwarden.evidence.failure import GatherError
from mlwarden.evidence.store import EvidenceStatus, ImageEvidence, Purpose, asked_at
from mlwarden.model.evidence import Phase, Scan
from mlwarden.scanner import metrics
from mlwarden.scanner.claim import LostError, put
from mlwarden.scanner.protocol import Worker
from mlwarden.scanner.provenance import Writer

LOG = logging.getLogger(__name__)
_BATCH = 200
_WRITERS = 8
_RETRY_SECONDS = 30.0


class Refresh:
    """Says again what is known.

    Args:
        client: of the API server.
        worker: is asked.
        writer: writes our name under what is said.
        known: every object, by name; kept current by its owner.
    """

    def __init__(self, client: Client, worker: Worker, writer: Writer, *, known: Mapping[str, ImageEvidence]) -> None:
        self._client, self._worker, self._writer, self._known = client, worker, writer, known
        self._database: datetime | None = None
        self._newer = asyncio.Event()
        self._size, self._spoilt = _BATCH, set[str]()

    def database(self, at: datetime | None) -> None:
        """Told how old the worker's database is."""
        if at is not None and (self._database is None or at > self._database):
            self._database = at
            self._spoilt.clear()
            self._newer.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._newer.wait()
            self._newer.clear()
            try:
                count = await self._all(self._older())
            except GatherError as error:
                LOG.warning("scans cannot be renewed with the new database: %s", error.message)
                await asyncio.sleep(_RETRY_SECONDS)
                self._newer.set()
            else:
                if count:
                    LOG.info("%d digests judged again with a new vulnerability database", count)

    def _older(self) -> list[ImageEvidence]:
        """Scans by an older database, that nobody is at."""
        now = clock.now()
        return [
            known
            for name, known in self._known.items()
            if name not in self._spoilt and _is_older(known, self._database) and not _claimed(known.status, now)
        ]

    async def _all(self, older: Sequence[ImageEvidence]) -> int:
        count, waiting = 0, list(older)
        while waiting:
            batch: dict[str, ImageEvidence] = {known.digest: known for known in waiting[: self._size]}
            scans = await self._ask(batch)
            if scans is None:
                continue
            free = asyncio.Semaphore(_WRITERS)

            async def write(known: ImageEvidence, scan: Scan, free: asyncio.Semaphore = free) -> bool:
                async with free:
                    return await self._write(known, scan)

            count += sum(await asyncio.gather(*(write(batch[of], scan) for of, scan in scans.items())))
            del waiting[: len(batch)]
        metrics.FINISHED.labels("refresh", "ready").inc(count)
        return count

    async def _ask(self, batch: Mapping[str, ImageEvidence]) -> dict[str, Scan] | None:
        """What the worker says; None where it is to be asked about fewer at a time."""
        try:
            scans = await self._worker.scan_again(tuple(batch))
        except GatherError as error:
            if error.retry_after:  # it is not ready, whatever it is asked
                raise
            if len(batch) > 1:
                self._size = len(batch) // 2
                return None
            self._spoilt |= {known.metadata.name for known in batch.values()}
            LOG.warning("%s is not renewed with the new database: %s", *batch, error.message)
            return {}
        self._size = min(_BATCH, 2 * self._size)
        return scans

    async def _write(self, known: ImageEvidence, scan: Scan) -> bool:
        before = known.status.scan
        now = clock.now()
        # Documents were not asked for again: what they say goes on to count of what is still found, until that is done.
        found = {(each.id, each.package, each.installed) for each in scan.vulnerabilities}
        excused = tuple(each for each in before.suppressed if (each.id, each.package, each.installed) in found) if before else ()
        affirmed, unheard = (before.affirmed, before.unheard) if before else ((), ())
        scan = msgspec.structs.replace(scan, scanned_at=now, suppressed=excused, affirmed=affirmed, unheard=unheard)
        try:
            await put(self._client, known, msgspec.structs.replace(known.status, scan=scan, at=now, reason=""), self._writer)
            if excused and not known.is_asked:
                spec = {"requestedAt": asked_at(now), "purpose": Purpose.RENEWAL.value}
                await self._client.patch(IMAGE_EVIDENCE, known.metadata.name, {"spec": spec})
        except LostError:
            return False
        except ApiError as error:
            LOG.warning("%s: %s", known.metadata.name, error)
            return False
        return True


def _is_older(known: ImageEvidence, database: datetime | None) -> bool:
    scan = known.status.scan
    if known.status.phase is not Phase.READY or scan is None or database is None:
        return False
    return scan.database_at is None or scan.database_at < database


def _claimed(status: EvidenceStatus, now: datetime) -> bool:
    return bool(status.claimed_by) and status.claimed_until is not None and status.claimed_until > now

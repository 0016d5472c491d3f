"""One object of the queue, while this scanner is at it.

A claim is a status with our name and an end, written under the resource version that was seen: of several scanners one wins. Whoever needs
an answer sooner may change the spec meanwhile, so a conflict is no loss by itself; another name in the claim is.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from mlwarden.cluster import IMAGE_EVIDENCE, ApiError, Client, ConflictError, InvalidError, NotFoundError, clock
from mlwarden.cluster.retries import pause
from mlwarden.errors import EvidenceError
from mlwarden.evidence import store
from mlwarden.evidence.store import EvidenceStatus, ImageEvidence
from mlwarden.scanner.provenance import Writer

LOG = logging.getLogger(__name__)
_TRIES = 8
_FREE = {"claimed_by": "", "claimed_until": None}


class LostError(Exception):
    """The claim is somebody else's by now, or the object is gone. What was found out is thrown away."""


class Claim:
    """Held from `take` to `finish`.

    Attributes:
        current: the object as last written or read by us.
    """

    def __init__(self, client: Client, writer: Writer, lease: timedelta, current: ImageEvidence) -> None:
        self._client, self._writer, self._lease = client, writer, lease
        self.current = current
        self._writing = asyncio.Lock()

    @classmethod
    async def take(cls, client: Client, writer: Writer, lease: timedelta, seen: ImageEvidence) -> "Claim":
        """Claims an object as it was seen.

        Raises:
            LostError: it has changed since. ApiError: the API server did not take it.
        """
        claim = cls(client, writer, lease, seen)
        try:
            await claim._put(claim._changed(claimed_by=writer.identity, claimed_until=_now() + lease))
        except (ConflictError, NotFoundError):
            raise LostError from None
        return claim

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renews the claim while the body runs. Where it is lost the body is cancelled, and this raises LostError."""
        task, lost = asyncio.current_task(), False

        async def renew() -> None:
            nonlocal lost
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 3)
                try:
                    await self._write({"claimed_until": _now() + self._lease}, tries=2)
                except LostError:
                    lost = True
                    if task is not None:
                        task.cancel()
                    return
                except ApiError as error:
                    LOG.warning("%s: the claim cannot be renewed: %s", self.current.metadata.name, error)

        renewing = asyncio.create_task(renew())
        try:
            yield
        except asyncio.CancelledError:
            if lost and task is not None:
                task.uncancel()
                raise LostError from None
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def note(self, change: dict[str, Any]) -> None:
        """Writes a part of the answer, and goes on. Raises as `finish`."""
        await self._write(change, tries=_TRIES)

    async def finish(self, change: dict[str, Any]) -> None:
        """Writes an answer and gives the claim back.

        Raises:
            LostError: the claim is not ours any more. ApiError: the API server did not take it, for longer than we try.
        """
        await self._write({**change, **_FREE}, tries=_TRIES)

    async def _write(self, change: dict[str, Any], *, tries: int) -> None:
        async with self._writing:
            await self._try(change, tries)

    async def _try(self, change: dict[str, Any], tries: int) -> None:
        stale = False
        for attempt in range(1, tries + 1):
            try:
                if stale:
                    await self._read()
                    stale = False
                await self._put(self._changed(**change))
            except NotFoundError:
                raise LostError from None
            except ConflictError:
                stale = True
            except InvalidError:
                raise
            except ApiError as error:
                if attempt == tries:
                    raise
                stale = True  # it may have been taken, and only the answer lost
                LOG.warning("%s: %s; again", self.current.metadata.name, error)
                await asyncio.sleep(pause(attempt, first=0.5, longest=15))
            else:
                return
        raise LostError

    async def _read(self) -> None:
        """Reads the object again, and sees whether the claim is still ours."""
        uid = self.current.metadata.uid
        try:
            self.current = store.read(await self._client.get(IMAGE_EVIDENCE, self.current.metadata.name))
        except EvidenceError:
            raise LostError from None
        if self.current.metadata.uid != uid or self.current.status.claimed_by != self._writer.identity:
            raise LostError

    def _changed(self, **change: Any) -> EvidenceStatus:
        return msgspec.structs.replace(self.current.status, **change)

    async def _put(self, status: EvidenceStatus) -> None:
        self.current = await _update(self._client, self.current, status, self._writer)


async def put(client: Client, seen: ImageEvidence, status: EvidenceStatus, writer: Writer) -> ImageEvidence:
    """Writes a status without a claim, under the resource version that was seen.

    Raises:
        LostError: it has changed since, or is gone. ApiError: the API server did not take it.
    """
    try:
        return await _update(client, seen, status, writer)
    except (ConflictError, NotFoundError):
        raise LostError from None


async def _update(client: Client, seen: ImageEvidence, status: EvidenceStatus, writer: Writer) -> ImageEvidence:
    metadata = seen.metadata
    with writer.writing(seen, status) as signed:
        body = {
            "apiVersion": store.API_VERSION,
            "kind": store.KIND,
            "metadata": {"name": metadata.name, "uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "spec": {"references": list(seen.spec.references)},
            "status": store.encode(signed),
        }
        stored = store.read(await client.update(IMAGE_EVIDENCE, body, subresource="status"))
        if signed is not status:
            writer.adopt(stored)  # as the API server keeps it: an older schema may have left something out
    return stored


def _now() -> datetime:
    return clock.now()

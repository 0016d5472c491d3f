"""Forgets evidence that nobody asked for in a long time: whoever may create pods makes objects of it, and nothing else ends them.

Nothing is lost by it: who needs it asks again, and waits for a scan. Of more than `MOST` pieces those go first that were not asked for
longest: every process holds all of them, and must not be ended by their number. Runs on the leader.
"""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, NotFoundError
from mlwarden.cluster.kinds import IMAGE_EVIDENCE
from mlwarden.errors import Error
from mlwarden.evidence.store import read

LOG = logging.getLogger(__name__)
RESOLUTION = timedelta(days=1)
"""A tag's digest is believed for a minute."""
SCAN = timedelta(days=30)
"""Longer than any `maxAge` that makes sense."""
MOST = 20_000
"""Of tags, scans and signatures together: six thousand images and more, 20 KB for each scan with many findings."""
_ROUND = 600.0


async def run(client: Client) -> None:
    """Forgets, every ten minutes, until cancelled."""
    while True:
        await asyncio.sleep(_ROUND)
        try:
            count = await forget(client, now=datetime.now(UTC))
        except ApiError as error:
            LOG.warning("old evidence could not be removed: %s", error)
        else:
            if count:
                LOG.info("%d pieces of evidence were removed: nobody has asked for them in a long time", count)


async def forget(client: Client, *, now: datetime) -> int:
    """Removes what is old at `now`, and returns how much that was."""
    kept: list[tuple[datetime, str, str]] = []
    count = 0
    async for page in client.pages(IMAGE_EVIDENCE):
        for obj, _ in page.items:
            try:
                stored = read(obj)
            except Error:
                continue  # not what it says it is; the snapshot reports it
            asked = stored.spec.requested_at or stored.metadata.creation_timestamp
            if asked is None:
                continue
            if now - asked >= (RESOLUTION if stored.is_resolution else SCAN):
                count += await _removed(client, stored.metadata.name, stored.metadata.resource_version)
            else:
                kept.append((asked, stored.metadata.name, stored.metadata.resource_version))
    surplus = sorted(kept)[: max(len(kept) - MOST, 0)]
    if surplus:
        LOG.warning("there are %d pieces of evidence, more than are held: those that were not asked for longest are removed", len(kept))
    for _, name, version in surplus:
        count += await _removed(client, name, version)
    return count


async def _removed(client: Client, name: str, version: str) -> bool:
    with contextlib.suppress(ConflictError, NotFoundError):  # asked for a moment ago: it stays
        await client.delete(IMAGE_EVIDENCE, name, version=version)
        return True
    return False

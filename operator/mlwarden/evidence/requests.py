"""Asks for evidence that a held pod waits for. The API server is the queue: an `ImageEvidence` without an answer is work for the scanner.

Nothing is asked twice while the first answer is on its way, and a failure is not asked about again within a minute: a pod with a typing
error in its image must not make the scanner hammer a registry.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError
from mlwarden.cluster.kinds import IMAGE_EVIDENCE
from mlwarden.errors import Error
from mlwarden.evidence import store as evidence
from mlwarden.evidence.store import ImageEvidence, canonical, read
from mlwarden.model.evidence import Phase

LOG = logging.getLogger(__name__)
_ASKED = timedelta(seconds=10)
_FAILED = timedelta(seconds=60)
_REMEMBERED = 10_000


class Requests:
    """Makes sure that what is wanted is asked for.

    Args:
        client: of the API server.
        background: nobody waits for it.
        again: how long one reference is not asked about a second time.
    """

    def __init__(self, client: Client, *, background: bool = False, again: timedelta = _ASKED) -> None:
        self._client, self._background, self._again = client, background, again
        self._asked: OrderedDict[str, datetime] = OrderedDict()

    async def ensure(self, wanted: Iterable[str], now: datetime) -> None:
        """Asks for everything that is wanted, unless that was done a moment ago."""
        for reference in wanted:
            last = self._asked.get(reference)
            if last is not None and now - last < self._again:
                continue
            self._asked[reference] = now
            self._asked.move_to_end(reference)
            while len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
            try:
                await self._ask(reference, now)
            except Error as error:
                self._asked.pop(reference, None)
                LOG.warning("evidence for %.200s cannot be asked for: %s", reference, error)

    async def _ask(self, reference: str, now: datetime) -> None:
        try:
            await self._client.create(IMAGE_EVIDENCE, evidence.pending(reference, background=self._background))
        except ConflictError:
            stored = read(await self._client.get(IMAGE_EVIDENCE, evidence.name_for(reference)))
            if worth_asking(stored, reference, now, background=self._background):
                try:
                    again = evidence.request(stored, reference, now, background=self._background)
                    await self._client.patch(IMAGE_EVIDENCE, stored.metadata.name, again)
                except ApiError as error:
                    if not isinstance(error, ConflictError):  # somebody else asked at the same moment
                        raise


def worth_asking(stored: ImageEvidence, reference: str, now: datetime, *, background: bool = False) -> bool:
    """Whether to ask again for what is stored already: it was answered, and not a moment ago."""
    from_here = stored.is_resolution or canonical(reference) in stored.spec.references
    if not from_here:
        return True  # one more repository it can be pulled from
    if stored.status.phase is Phase.PENDING or stored.status.at is None or stored.is_asked:
        return stored.spec.background and not background  # now somebody waits for it
    return stored.status.phase is not Phase.FAILED or now - stored.status.at >= _FAILED

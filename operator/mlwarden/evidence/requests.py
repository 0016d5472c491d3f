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
from mlwarden.evidence.store import INTEREST, ImageEvidence, Requester, adds, canonical, new_pullers, read
from mlwarden.model.evidence import Phase

LOG = logging.getLogger(__name__)
_ASKED = timedelta(seconds=10)
_FAILED = timedelta(seconds=60)
_JUST = timedelta(seconds=5)
_REMEMBERED = 10_000


class Requests:
    """Makes sure that what is wanted is asked for.

    Args:
        client: of the API server.
        again: how long one reference is not asked about a second time.
    """

    def __init__(self, client: Client, *, again: timedelta = _ASKED) -> None:
        self._client, self._again = client, again
        self._asked: OrderedDict[tuple[str, Requester | None], datetime] = OrderedDict()

    async def ensure(self, wanted: Iterable[str], now: datetime, requester: Requester | None = None) -> None:
        """Asks for everything that is wanted, unless that was done a moment ago for the same requester."""
        for reference in wanted:
            key = (reference, requester)
            last = self._asked.get(key)
            if last is not None and now - last < self._again:
                continue
            self._asked[key] = now
            self._asked.move_to_end(key)
            while len(self._asked) > _REMEMBERED:
                self._asked.popitem(last=False)
            try:
                await self._ask(reference, now, requester)
            except Error as error:
                self._asked.pop(key, None)
                LOG.warning("evidence for %.200s cannot be asked for: %s", reference, error)

    async def _ask(self, reference: str, now: datetime, requester: Requester | None) -> None:
        try:
            await self._client.create(IMAGE_EVIDENCE, evidence.pending(reference, requester))
        except ConflictError:
            stored = read(await self._client.get(IMAGE_EVIDENCE, evidence.name_for(reference)))
            if worth_asking(stored, reference, now, requester):
                patch = evidence.request(stored, reference, now, requester)
                try:
                    await self._client.patch(IMAGE_EVIDENCE, stored.metadata.name, patch)
                except ApiError as error:
                    if not isinstance(error, ConflictError):  # somebody else asked at the same moment
                        raise


def worth_asking(stored: ImageEvidence, reference: str, now: datetime, requester: Requester | None = None) -> bool:
    """Whether to ask again for what is stored already: it was answered and not a moment ago, or who waits for it is not all known."""
    from_here = stored.is_resolution or canonical(reference) in stored.spec.references
    if not from_here:
        return True  # one more repository it can be pulled from
    if stored.status.phase is not Phase.READY and new_pullers(stored, requester):
        return True  # with other credentials it may be there
    if stored.status.phase is Phase.PENDING or stored.is_asked:
        return adds(stored, requester) or now - stored.asked_last >= INTEREST
    if stored.status.at is None:
        return True
    # Answered a moment ago: whoever asks has not seen it yet.
    return now - stored.status.at >= (_FAILED if stored.status.phase is Phase.FAILED else _JUST)

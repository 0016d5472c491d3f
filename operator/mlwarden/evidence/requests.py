"""Asks for evidence that a held pod waits for. The API server is the queue: an `ImageEvidence` without an answer is work for the scanner.

Nothing is asked twice while the first answer is on its way, and a failure is not asked about again within a minute: a pod with a typing
error in its image must not make the scanner hammer a registry. And no namespace has more than its share of requests (`evidence.bounds`).
"""

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timedelta

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, NotFoundError
from mlwarden.cluster.kinds import IMAGE_EVIDENCE
from mlwarden.errors import Error
from mlwarden.evidence import store as evidence
from mlwarden.evidence.bounds import Unanswered, Waits, by_purpose
from mlwarden.evidence.pullers import pullers
from mlwarden.evidence.store import INTEREST, ImageEvidence, Purpose, Requester, adds, canonical, names, new_pullers, read
from mlwarden.model.evidence import Phase
from mlwarden.model.workload import Json, Workload

LOG = logging.getLogger(__name__)
_ASKED = timedelta(seconds=10)
_FAILED = timedelta(seconds=60)
_JUST = timedelta(seconds=5)
_AHEAD = timedelta(minutes=5)
"""How far a scanner's clock may be ahead of ours."""
_REMEMBERED = 10_000
_TRIES = 3


class Requests:
    """Makes sure that what is wanted is asked for.

    Args:
        client: of the API server.
        unanswered: what waits for an answer, by namespace, and how much may; None: no bound.
        waits: whether a held pod waits for a request; None where this process may take no request away for another.
        again: how long one reference is not asked about a second time.
    """

    def __init__(
        self,
        client: Client,
        *,
        unanswered: Unanswered | None = None,
        waits: Waits | None = by_purpose,
        again: timedelta = _ASKED,
    ) -> None:
        self._client, self._unanswered, self._waits, self._again = client, unanswered, waits, again
        self._asked: OrderedDict[tuple[str, Requester | None], tuple[datetime, bool]] = OrderedDict()

    async def ensure(self, wanted: Iterable[str], now: datetime, requester: Requester | None = None) -> tuple[str, ...]:
        """Asks for everything that is wanted, unless that was done a moment ago for the same requester.

        What the API server did not take was not asked for: the next call asks again.

        Returns:
            What could not be asked for, because the requester's namespace has as many requests as it may.
        """
        full = []
        for reference in wanted:
            key = (reference, requester)
            last, asked = self._asked.get(key, (None, True))
            if last is None or now - last >= self._again:
                asked = await self._try(reference, now, requester)
            if not asked:
                full.append(reference)
        return tuple(full)

    async def _try(self, reference: str, now: datetime, requester: Requester | None) -> bool:
        key = (reference, requester)
        self._asked[key] = (now, True)
        self._asked.move_to_end(key)
        while len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        try:
            asked = await self._ask(reference, now, requester)
        except Error as error:
            self._asked.pop(key, None)
            LOG.warning("evidence for %.200s cannot be asked for: %s", reference, error)
            return True
        if key in self._asked:
            self._asked[key] = (now, asked)
        return asked

    async def _ask(self, reference: str, now: datetime, requester: Requester | None) -> bool:
        name, pending = evidence.name_for(reference), evidence.pending(reference, requester)
        if not await self._has_room(name, pending, requester.namespace if requester is not None else ""):
            return False
        try:
            await self._client.create(IMAGE_EVIDENCE, pending)
        except ConflictError:
            for _ in range(_TRIES):
                stored = read(await self._client.get(IMAGE_EVIDENCE, name))
                self._count(name, stored)
                if not worth_asking(stored, reference, now, requester):
                    break
                patch = evidence.request(stored, reference, now, requester)
                with contextlib.suppress(ConflictError):  # somebody else asked at the same moment, perhaps for another repository
                    await self._client.patch(IMAGE_EVIDENCE, stored.metadata.name, patch)
                    break
            else:
                raise ConflictError(f"others wrote {name} {_TRIES} times in a row") from None
        except ApiError:
            self._count(name, None)
            raise
        return True

    def _count(self, name: str, obj: Json | ImageEvidence | None) -> None:
        """Counts before the watch says so: other pods are looked at meanwhile."""
        if self._unanswered is not None:
            self._unanswered.changed(name, obj)

    async def _has_room(self, name: str, pending: Json, namespace: str) -> bool:
        """Whether this may be asked for in the name of a namespace; what no held pod waits for is taken away for it."""
        bounds = self._unanswered
        if bounds is None or bounds.knows(name):
            return True
        if not bounds.is_full(namespace):
            self._count(name, pending)
            return True
        try:
            await self._client.get(IMAGE_EVIDENCE, name)
        except NotFoundError:
            return await self._takes_room(name, pending, namespace, bounds)
        return True  # it is there: asking again makes nothing more

    async def _takes_room(self, name: str, pending: Json, namespace: str, bounds: Unanswered) -> bool:
        if bounds.is_full(namespace):
            old = bounds.makes_room(namespace, self._waits) if self._waits is not None else None
            if old is None:
                return False
            self._count(old.metadata.name, None)
            self._count(name, pending)
            with contextlib.suppress(ConflictError, NotFoundError):  # it was answered or is gone, and the watch says which
                await self._client.delete(IMAGE_EVIDENCE, old.metadata.name, version=old.metadata.resource_version)
                LOG.info("namespace %s has as many requests for evidence as it may: %s makes room", namespace, old.metadata.name)
        else:
            self._count(name, pending)
        return True


def purpose_of(workload: Workload) -> Purpose:
    """Returns what an answer is for: a pod, or a template whose pods are still to come."""
    return Purpose.POD if workload.is_pod else Purpose.TEMPLATE


def requester_for(stored: Workload, namespace: str, *, purpose: Purpose | None = None) -> Requester:
    """Returns who asks on behalf of an object in a namespace, and with whose pull Secrets the images may be pulled.

    For objects as they are stored: whose credentials are used is nothing that somebody may only say.
    """
    return Requester(purpose=purpose or purpose_of(stored), namespace=namespace, pullers=pullers(stored, namespace))


def worth_asking(stored: ImageEvidence, reference: str, now: datetime, requester: Requester | None = None) -> bool:
    """Whether to ask again for what is stored already: it was answered and not a moment ago, or who waits for it is not all known."""
    from_here = stored.is_resolution or canonical(reference) in stored.spec.references
    if not from_here:
        return True  # one more repository it can be pulled from
    if stored.status.phase is not Phase.READY and new_pullers(stored, requester):
        return True  # with other credentials it may be there
    if stored.status.phase is Phase.PENDING or stored.is_asked:
        return adds(stored, requester) or not names(stored, reference, requester) or now - stored.asked_last >= INTEREST
    if stored.status.at is None:
        return True
    # Answered a moment ago: whoever asks has not seen it yet. An answer of tomorrow is no reason to wait for it.
    age = now - stored.status.at
    return age >= (_FAILED if stored.status.phase is Phase.FAILED else _JUST) or age < -_AHEAD

"""Writes the Events of debug containers, behind the request path.

The webhook may create Events and nothing more: not read, not patch. An Event that is there already (another replica, another try) says the
same, and is left alone. Never waited for: where the API server is slow they are dropped and counted; the audit log has all of it anyway.
A person who is refused a thousand times on one pod gets a handful of Events, because the API server stores each of them for an hour; what
was admitted is always told, or those tries would be a way to have it go unsaid.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta

from mlwarden.admission import metrics
from mlwarden.admission.debug import Told
from mlwarden.cluster import EVENT, Client, clock
from mlwarden.cluster.errors import ApiError, ConflictError
from mlwarden.cluster.events import DEBUG, Said, event

LOG = logging.getLogger(__name__)
COMPONENT = "mlwarden-webhook"
PER_POD = 20
WINDOW = timedelta(minutes=10)
_QUEUE = 1000
_REMEMBERED = 10_000


class Events:
    """Writes Events in the background.

    Args:
        client: of the API server.
        now: the clock.
    """

    def __init__(self, client: Client, *, now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._now = client, now
        self._said = Said()
        self._pods: OrderedDict[str, tuple[datetime, int]] = OrderedDict()
        self._queue: asyncio.Queue[Told] = asyncio.Queue(_QUEUE)

    def add(self, told: Told) -> None:
        """Never blocks."""
        try:
            self._queue.put_nowait(told)
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.inc()

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            told = await self._queue.get()
            try:
                await self._write(told)
            except ApiError as error:
                LOG.warning("an Event could not be written: %s", error)
            except Exception:  # what somebody wrote into a pod must not end the process that everybody else is answered by
                LOG.exception("an Event could not be made")

    async def _write(self, told: Told) -> None:
        now = self._now()
        made = event(told.subject, component=COMPONENT, reason=DEBUG, message=told.message, warning=told.warning, now=now, about=told.about)
        if not self._said.is_new(made, now):
            return
        if told.refused and not self._room(told.subject.uid, now):
            metrics.EVENTS_DROPPED.inc()
            return
        try:
            await self._client.create(EVENT, made, namespace=told.subject.namespace)
        except ConflictError:
            LOG.debug("%s was said before", made["metadata"]["name"])

    def _room(self, uid: str, now: datetime) -> bool:
        """Whether there may be one more refusal about this pod; takes it."""
        since, count = self._pods.pop(uid, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        self._pods[uid] = since, count + 1
        while len(self._pods) > _REMEMBERED:
            self._pods.popitem(last=False)
        return count < PER_POD

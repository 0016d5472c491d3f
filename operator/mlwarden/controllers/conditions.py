"""`mlwarden.io/Held`, a condition of pods: True with the reason while mlwarden holds one, False once it was released.

For whoever decides by conditions, not by words: a quota that would count a held pod as waiting for nodes, a dashboard, `kubectl wait
--for=condition=mlwarden.io/Held=False`. Written at most twice in a pod's life: when it was held for more than two seconds, which most are
not, and at its release. The Events say what changes in between.

Behind a queue, and so many a second: 2,000 pods at once are released before most of them have waited for their turn here, and what is
released without a condition gets none. Namespaces take turns.
"""

import asyncio
import heapq
import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import Counter

from mlwarden.cluster.client import STRATEGIC_PATCH, Client
from mlwarden.cluster.errors import ApiError, ConflictError, InvalidError, NotFoundError
from mlwarden.cluster.informer import Key
from mlwarden.cluster.kinds import POD
from mlwarden.controllers.turns import Turns
from mlwarden.model.policy import HELD_CONDITION
from mlwarden.model.workload import Json

LOG = logging.getLogger(__name__)
WRITTEN = Counter("mlwarden_held_conditions_total", "Times that the condition mlwarden.io/Held was written into the status of a pod.")
AFTER = 2.0
"""Seconds that a pod is held before its condition says so."""
PER_SECOND = 25
_REMEMBERED = 20_000


class Conditions:
    """Writes them in the background.

    Args:
        client: of the API server.
        now: the clock.
    """

    def __init__(self, client: Client, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._client, self._now = client, now
        self._queue: dict[Key, tuple[int, str, Json]] = {}  # what is to be written of each, and the number of its place in the order
        self._order: list[tuple[int, int, Key]] = []
        self._numbers, self._turns = itertools.count(), Turns[str]()
        self._written: OrderedDict[Key, str] = OrderedDict()
        self._waiting = asyncio.Event()

    def held(self, key: Key, pod: Json, reason: str, message: str) -> None:
        """A pod has been held for `AFTER` seconds: `reason` in one word, `message` in one line. Said once."""
        uid = pod["metadata"]["uid"]
        if not self._says(key, pod):
            self._add(key, uid, "True", reason, message)

    def released(self, key: Key, pod: Json) -> None:
        """A pod was released. Said where it was said that it is held."""
        self._take(key)  # said too late
        if self._says(key, pod):
            self._add(key, pod["metadata"]["uid"], "False", "Released", "mlwarden judged it good and released it")

    def forget(self, key: Key) -> None:
        """A pod that waited is gone: nothing is to be said about it any more."""
        if (waiting := self._queue.get(key)) is not None and waiting[2]["status"] == "True":
            self._take(key)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._waiting.wait()
            while self._order:
                number, place, key = heapq.heappop(self._order)
                self._turns.began(number)
                waiting = self._queue.get(key)
                if waiting is None or waiting[0] != place:  # there is nothing to say any more, or it has another place
                    continue
                self._take(key)
                await self._write(key, *waiting[1:])
                await asyncio.sleep(1 / PER_SECOND)
            self._waiting.clear()

    def _says(self, key: Key, pod: Json) -> bool:
        """Whether the status says that it is held, as far as is known here."""
        uid = pod["metadata"]["uid"]
        conditions = (pod.get("status") or {}).get("conditions") or ()
        stored = any(each.get("type") == HELD_CONDITION and each.get("status") == "True" for each in conditions)
        return stored or self._written.get(key) == uid

    def _add(self, key: Key, uid: str, status: str, reason: str, message: str) -> None:
        at = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": HELD_CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}
        known = self._queue.get(key)
        place = known[0] if known is not None else next(self._numbers)
        self._queue[key] = place, uid, condition
        if known is None:
            self._turns.enter(key[0])
            heapq.heappush(self._order, (self._turns.next(key[0]), place, key))
        self._waiting.set()

    def _take(self, key: Key) -> None:
        """What was to be said of a pod waits no more."""
        if self._queue.pop(key, None) is not None:
            self._turns.leave(key[0])

    async def _write(self, key: Key, uid: str, condition: Json) -> None:
        said = condition["status"] == "True"
        if said:  # before the answer: it is not said a second time meanwhile
            self._written[key] = uid
            while len(self._written) > _REMEMBERED:
                self._written.popitem(last=False)
        # The uid is a precondition: not into the status of another pod of this name.
        body = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(POD, key[1], body, namespace=key[0], subresource="status", content_type=STRATEGIC_PATCH)
        except (NotFoundError, ConflictError, InvalidError):
            LOG.debug("pod %s/%s is gone", *key)
        except ApiError as error:
            LOG.warning("pod %s/%s: its condition could not be written: %s", *key, error)
            if said:
                self._written.pop(key, None)
            return
        WRITTEN.inc()
        if not said:
            self._written.pop(key, None)

"""Says on a pod that a debug container was added to it, as the pod is stored.

Whom the API server asks knows the person; who watches pods knows that it happened. Where the webhook can believe what it is asked it says
both, in an Event of the same name, and this one comes a moment later and finds it there. Where it cannot (no `webhook.clientCA`), an Event
in a person's name could be anybody's invention, and this one names nobody: the API server's audit log does.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, NotFoundError
from mlwarden.cluster.events import DEBUG, Subject, debugged, event
from mlwarden.cluster.kinds import EVENT
from mlwarden.model.workload import Json

LOG = logging.getLogger(__name__)
_COMPONENT = "mlwarden-controller"
_LATER = 3.0
"""Seconds that the webhook has to say it first."""
_OLD = timedelta(hours=1)
"""As long as the API server keeps Events: what was added before was said before."""
_QUEUE = 1000
_PODS = 20_000


class DebugContainers:
    """Notices them.

    Args:
        client: of the API server.
        now: the clock.
    """

    def __init__(self, client: Client, *, now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._now = client, now
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._queue: asyncio.Queue[tuple[float, Json, str]] = asyncio.Queue(_QUEUE)

    def look(self, pod: Json) -> None:
        """A pod as stored; never blocks."""
        listed = pod.get("spec", {}).get("ephemeralContainers") or ()
        if not listed:
            return
        uid, containers = pod["metadata"].get("uid", ""), {str(each.get("name")): each for each in listed if isinstance(each, Mapping)}
        before = self._known.get(uid, frozenset())
        new = [name for name in containers if name not in before]
        self._known[uid] = frozenset(containers)
        self._known.move_to_end(uid)
        while len(self._known) > _PODS:
            self._known.popitem(last=False)
        told = [containers[name] for name in new if not self._is_old(pod, name)]
        if told and not self._queue.full():
            subject = Subject.of({**pod, "apiVersion": "v1", "kind": "Pod"})
            made = event(
                subject,
                component=_COMPONENT,
                reason=DEBUG,
                message=_message(told),
                warning=False,
                now=self._now(),
                about=debugged(str(each.get("name")) for each in told),
            )
            self._queue.put_nowait((asyncio.get_running_loop().time() + _LATER, made, subject.namespace))

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            due, made, namespace = await self._queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            try:
                await self._client.create(EVENT, made, namespace=namespace)
            except (ConflictError, NotFoundError) as error:
                LOG.debug("a debug container was told of already, or its namespace is gone: %s", error)
            except ApiError as error:
                LOG.warning("an Event about a debug container could not be written: %s", error)

    def _is_old(self, pod: Json, name: str) -> bool:
        for status in pod.get("status", {}).get("ephemeralContainerStatuses") or ():
            if status.get("name") != name:
                continue
            for state in (status.get("state") or {}).values():
                try:
                    return self._now() - datetime.fromisoformat(state["startedAt"]) > _OLD
                except (KeyError, TypeError, ValueError):
                    continue
        return False


def _message(containers: list[Mapping[str, Json]]) -> str:
    def said(container: Mapping[str, Json], field: str, length: int) -> str:
        return clean(str(container.get(field) or "(none)"), length)

    what = "; ".join(
        f"image {said(each, 'image', VALUE_LENGTH * 2)}, target {said(each, 'targetContainerName', NAME_LENGTH)},"
        f" container {said(each, 'name', NAME_LENGTH)}"
        for each in containers[:4]
    )
    return f"a debug container was added: {what}; the API server's audit log says by whom"

"""Tells people: Events on the pod that waits, on what it belongs to, and on a namespace that holds pods it did not hold before.

Writing is behind bounded queues. An Event is worth less than a release: where the API server is slow, Events are dropped and counted. What
runs goes before what is refused, and that before what merely waits: a controller that starts among thousands of held pods has something to
say about each of them. Namespaces take turns (start-time fair queueing), and one that has too much to be said of it loses its own Events
alone. What the API server does not take is tried again, later each time, and given up after half a minute: it may be said
anew then, the next time that it is true.
"""

import asyncio
import itertools
import logging
from collections import Counter as Count
from collections.abc import Callable
from datetime import datetime

import msgspec
from prometheus_client import Counter

from mlwarden import engine, workloads
from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, InvalidError, NotFoundError
from mlwarden.cluster.events import Said, Subject, event
from mlwarden.cluster.kinds import EVENT, POD
from mlwarden.cluster.snapshot import Snapshot
from mlwarden.controllers.owners import Owners
from mlwarden.controllers.turns import Turns
from mlwarden.model.finding import Decision
from mlwarden.model.workload import Json
from mlwarden.workloads import is_gated

LOG = logging.getLogger(__name__)
DROPPED = Counter("mlwarden_events_dropped_total", "Events that were not written because the API server was too slow or did not take them.")
_RUNS, _REFUSED, _WAITS = range(3)
"""What is written first, and each with a queue of its own."""
_QUEUE, _ALL = 500, 10_000
"""How many Events wait to be written: of a namespace and a turn, and of a turn."""
_WRITERS = 4
_ROOTS = 50
_AGAIN = (0.5, 1.0, 2.0, 5.0, 20.0)
"""Seconds before each further try."""


class _Item(msgspec.Struct, kw_only=True):
    """What is to be said about a pod and about its root, and how far that is."""

    turn: int
    pod: Json
    reason: str
    message: str
    failures: int = 0
    told_pod: bool = False

    @property
    def namespace(self) -> str:
        """Whose Events it is one of."""
        return str(self.pod.get("metadata", {}).get("namespace", ""))


class Reporter:
    """Writes Events in the background.

    Args:
        client: of the API server.
        component: who says it.
        now: the clock.
    """

    def __init__(self, client: Client, *, component: str = "mlwarden-controller", now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._component, self._now = client, component, now
        self._owners = Owners(client)
        self._said = Said()
        self._queue: asyncio.PriorityQueue[tuple[int, int, int, _Item]] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._turns = {turn: Turns[str]() for turn in (_RUNS, _REFUSED, _WAITS)}

    async def run(self) -> None:
        """Writes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_WRITERS):
                tasks.create_task(self._write_all())

    def held(self, pod: Json, reason: str) -> None:
        """A pod waits for evidence."""
        self._put(_WAITS, pod, "Held", reason)

    def refused(self, pod: Json, reason: str) -> None:
        """A pod will not be released as it is."""
        self._put(_REFUSED, pod, "NotReleased", reason)

    def would_be_refused(self, pod: Json, reason: str) -> None:
        """A pod runs that would be refused now."""
        self._put(_RUNS, pod, "WouldBeRefusedNow", reason)

    def runs_unjudged(self, pod: Json, reason: str) -> None:
        """A pod runs that nobody could judge before."""
        self._put(_RUNS, pod, "RunsUnjudged", reason)

    def taken_back(self, evidence: Json, reason: str) -> None:
        """An answer about an image was taken back."""
        self._put(_RUNS, evidence, "AnswerTakenBack", reason)

    async def evicts(self, pod: Json, reason: str) -> None:
        """A pod is evicted next, which is written before it happens.

        Raises:
            ApiError: it could not be written.
        """
        await self._write(Subject.of(pod), "Evicting", reason, warning=True)
        root = await self._owners.root(pod, self._now())
        if root.subject is not None:
            await self._write(root.subject, "Evicting", reason, warning=True)

    async def gate_by_webhook(self, snapshot: Snapshot) -> None:
        """Says on mlwarden's own namespace that this cluster cannot add the gate by itself, and what follows from it."""
        message = (
            "MutatingAdmissionPolicy is not enforced by this API server (Kubernetes 1.36 and later have it on), so a webhook adds the"
            " gate: while no webhook answers, no pod can be created in a namespace that holds"
        )
        try:
            await self._write(_namespace(snapshot, snapshot.settings.namespace), "GateByWebhook", message, warning=True)
        except ApiError as error:
            LOG.warning("%s; no Event says so: %s", message, error)

    async def report_existing(self, snapshot: Snapshot, namespace: str) -> None:
        """Reports the pods that were there before the namespace held any. Nothing is deleted, and nothing can be held afterwards.

        Every root whose pods would not be admitted today gets an Event, the namespace one that counts.
        """
        now = self._now()
        verdicts: Count[Decision] = Count()
        told: set[str] = set()
        for pod in await self._client.list(POD, namespace=namespace):
            if is_gated(pod) or pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
                continue
            facts = snapshot.facts(namespace, now)
            verdict = engine.evaluate(
                workloads.extract({**pod, "apiVersion": "v1", "kind": "Pod"}),
                snapshot.policies,
                facts,
                snapshot.settings,
                holdable=True,
                broken=snapshot.broken,
            )
            verdicts[verdict.decision] += 1
            root = (await self._owners.root(pod, now)).subject or Subject.of(pod)
            if verdict.decision is not Decision.ADMIT and root.uid not in told and len(told) < _ROOTS:
                told.add(root.uid)
                reason = f"It ran before {namespace} held pods, and would not start today. {engine.held(verdict)}"
                await self._write(root, "RanBefore", reason, warning=verdict.decision is Decision.DENY)
        if verdicts:
            profile = snapshot.profile(namespace)
            message = (
                f"{verdicts.total()} pods ran here before profile {profile} held them: {verdicts[Decision.ADMIT]} good,"
                f" {verdicts[Decision.DENY]} would be refused, {verdicts[Decision.HOLD]} would wait for evidence. They are left alone."
            )
            await self._write(_namespace(snapshot, namespace), "PodsFromBefore", message, warning=bool(verdicts[Decision.DENY]))
            LOG.info("namespace %s: %s", namespace, message)

    def _put(self, turn: int, pod: Json, reason: str, message: str) -> None:
        made = self._event(Subject.of(pod), reason, message, warning=turn != _WAITS)
        if not self._said.is_new(made, self._now()):
            return
        small = {key: pod[key] for key in ("apiVersion", "kind", "metadata") if key in pod}
        item = _Item(turn=turn, pod=small, reason=reason, message=message)
        turns = self._turns[turn]
        turns.enter(item.namespace)  # until it is written or given up: what is tried again counts, too
        if turns.many(item.namespace) > _QUEUE or turns.total() > _ALL:
            self._give_up(item)
        else:
            self._queue_up(item)

    def _queue_up(self, item: _Item) -> None:
        self._queue.put_nowait((item.turn, self._turns[item.turn].next(item.namespace), next(self._numbers), item))

    def _give_up(self, item: _Item) -> None:
        self._turns[item.turn].leave(item.namespace)
        DROPPED.inc()
        if not item.told_pod:
            self._said.forget(self._event(Subject.of(item.pod), item.reason, item.message, warning=item.turn != _WAITS))

    async def _write_all(self) -> None:
        while True:
            turn, number, _, item = await self._queue.get()
            self._turns[turn].began(number)
            try:
                await self._tell(item)
                self._turns[turn].leave(item.namespace)
            except ApiError as error:
                self._again(item, error)
            except Exception:
                LOG.exception("an Event could not be made")
                self._give_up(item)

    async def _tell(self, item: _Item) -> None:
        """Says it about the pod, once, and about its root.

        Raises:
            ApiError: one of the two could not be written, or the root not be found.
        """
        warning = item.turn != _WAITS
        if not item.told_pod:
            await self._send(self._event(Subject.of(item.pod), item.reason, item.message, warning=warning))
            item.told_pod = True
        root = await self._owners.root(item.pod, self._now())
        if root.unread is not None and item.failures < len(_AGAIN):
            raise root.unread
        if root.subject is not None:
            await self._write(root.subject, item.reason, item.message, warning=warning)

    def _again(self, item: _Item, error: ApiError) -> None:
        """Tries it once more, later; what can never be written (the namespace is gone, the name is refused) is given up at once."""
        if item.failures >= len(_AGAIN) or isinstance(error, NotFoundError | InvalidError):
            LOG.warning("an Event could not be written: %s", error)
            self._give_up(item)
            return
        seconds = _AGAIN[item.failures]
        item.failures += 1
        asyncio.get_running_loop().call_later(seconds, self._queue_up, item)

    async def _write(self, subject: Subject, reason: str, message: str, *, warning: bool) -> None:
        made = self._event(subject, reason, message, warning=warning)
        if not self._said.is_new(made, self._now()):
            return
        try:
            await self._send(made)
        except ApiError:
            self._said.forget(made)
            raise

    def _event(self, subject: Subject, reason: str, message: str, *, warning: bool) -> Json:
        return event(subject, component=self._component, reason=reason, message=message, warning=warning, now=self._now())

    async def _send(self, made: Json) -> None:
        """Creates the Event, or counts one more of it."""
        where = made["metadata"]["namespace"]
        try:
            await self._client.create(EVENT, made, namespace=where)
        except ConflictError:
            known = await self._client.get(EVENT, made["metadata"]["name"], namespace=where)
            more = {"count": int(known.get("count") or 0) + 1, "lastTimestamp": made["lastTimestamp"]}
            await self._client.patch(EVENT, made["metadata"]["name"], more, namespace=where)


def gained(snapshot: Snapshot, before: dict[str, bool]) -> list[str]:
    """Returns the namespaces that hold now and did not before; `before` (namespace → whether it held) is brought up to date."""
    found = []
    for name in snapshot.namespaces:
        holds = snapshot.governed(name) and snapshot.settings.holds(snapshot.profile(name))
        if holds and before.get(name) is False:
            found.append(name)
        before[name] = holds
    for name in [name for name in before if name not in snapshot.namespaces]:
        del before[name]
    return found


def _namespace(snapshot: Snapshot, name: str) -> Subject:
    uid = str(snapshot.namespaces.get(name, {}).get("uid", ""))
    return Subject(api_version="v1", kind="Namespace", namespace="", name=name, uid=uid)

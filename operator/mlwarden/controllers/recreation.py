"""The second one that deletes (ADR 17): a held pod that can never be released is deleted where its controller makes another that can.

An image volume cannot change after its creation (422). Where its tag was not resolved within the minute before, the webhook could not pin
it, and the pod would be held for ever: the replica that an autoscaler makes at three in the morning. When everything else about it is good
and its tags have just been resolved, it is deleted; the one that takes its place is pinned at its creation.

Bounds: only on the leader; only pods with a controller of `MAKERS`, with our gate, without a node, with uid and resource version as
preconditions (the API server holds us to it: the chart's policy `mlwarden-accounts-pods`); one pod per owner and minute, and the others of
the owner that waited then only after one came back pinned; three for one owner and template, counted anew when one came back pinned. The
count is kept in an Event on the owner, written before anything is deleted and with its resource version as precondition: another leader
goes on from there, and one that hung cannot count past it. While a pod is left for it, the Event is written again before it expires.

Rejected: refreshing the tags of all templates every minute, so that the webhook could always pin (a registry and the API server would be
asked a thousand times a day for a pod that may come at night); pinning by an older resolution (what starts would not be what the tag says);
deleting what belongs to a Job (it counts a deleted pod as a failure), to a workflow (it ends), or to a kind we do not know; deleting all
stuck pods of an owner at once (where no webhook answers, each of a thousand would be made anew three times for nothing).
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from prometheus_client import Counter

from mlwarden import workloads
from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from mlwarden.cluster.events import AGAIN, Subject, event
from mlwarden.cluster.informer import Key
from mlwarden.cluster.kinds import EVENT, POD
from mlwarden.controllers.owners import controller_of
from mlwarden.model.workload import Json, Role

LOG = logging.getLogger(__name__)
RECREATED = Counter("mlwarden_recreated_pods_total", "Held pods that could never be released and were deleted, so that another is made.")
MAKERS: Mapping[tuple[str, str], str] = {
    ("apps", "ReplicaSet"): "replicasets",
    ("apps", "StatefulSet"): "statefulsets",
    ("apps", "DaemonSet"): "daemonsets",
    ("", "ReplicationController"): "replicationcontrollers",
}
"""Controllers of which is known that they make another pod in the place of a deleted one, and count it against nothing."""
ROUNDS = 3
REASON = "MadeAnew"
_TEMPLATE = "mlwarden.io/template"
"""Annotation of the Event that counts: for which template."""
_MINUTE = timedelta(minutes=1)
_FORGOTTEN = timedelta(hours=1)
"""How long the count stands after the last pod that it was about: as long as an API server keeps an Event."""
_REMEMBERED = 4096


@dataclass(kw_only=True)
class Rounds:
    """How often a pod of one owner was made anew.

    Attributes:
        template: of which template of the owner's.
        count: how often since one came back pinned.
        began: when the last one was, None where there was none.
        written: when the Event said so last.
        version: the Event's resource version; `""` where there is none.
        waiting: the pods that wait for their turn, by uid.
        free: uids of the pods that may be deleted in the minute since `began`.
        is_read: the Event was looked for.
        lock: one at a time reads and counts.
    """

    template: str = ""
    count: int = 0
    began: datetime | None = None
    written: datetime | None = None
    version: str = ""
    waiting: dict[str, Key] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    is_read: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one pod.

    Attributes:
        deleted: it was deleted, or is gone.
        reason: why it was not and never will be, for its message; `""` where it was, or will be.
        again: seconds until it may be tried again.
    """

    deleted: bool = False
    reason: str = ""
    again: float = 0.0


def kept(pod: Json) -> str:
    """Returns why a pod is never deleted, in words that follow "it is left, because"; `""` where it may be."""
    owner = controller_of(pod)
    if owner is None:
        return "no controller owns it, so nobody would make another"
    group, kind = str(owner.get("apiVersion", "")).rpartition("/")[0], str(owner.get("kind", ""))
    if (group, kind) in MAKERS:
        return ""
    if (group, kind) == ("batch", "Job"):
        return "its Job would count a deleted pod as a failure, against its backoffLimit"
    return f"it is not known whether its {kind[:60]} would make another"


class Recreation:
    """Deletes, within the bounds.

    Args:
        client: of the API server.
        component: who says so in Events.
        now: the clock.
    """

    def __init__(self, client: Client, *, component: str, now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._component, self._now = client, component, now
        self._rounds: OrderedDict[str, Rounds] = OrderedDict()

    async def recreate(self, pod: Json, why: str) -> Outcome:
        """Deletes a pod of which `kept` says nothing, if its owner may have another now.

        Args:
            pod: as stored.
            why: one line for the Event.

        Raises:
            ApiError: the API server did not answer, or refused.
        """
        owner = _owner(pod)
        rounds = self._rounds.setdefault(owner.uid, Rounds())
        self._rounds.move_to_end(owner.uid)
        while len(self._rounds) > _REMEMBERED:
            self._rounds.popitem(last=False)
        try:
            async with rounds.lock:
                outcome = await self._turn(pod, owner, rounds, why)
        except ConflictError:  # another replica wrote the Event: what it counted counts
            self._rounds.pop(owner.uid, None)
            return Outcome(again=1.0)
        return outcome if outcome is not None else await self._delete(pod, rounds, why)

    def helped(self, pod: Json) -> tuple[Key, ...]:
        """Notes a pod that came back pinned: its owner's are counted anew, and those that waited for that need wait no more.

        Returns:
            Which waited.
        """
        rounds = self._rounds.get(str((controller_of(pod) or {}).get("uid", "")))
        if rounds is None or rounds.began is None or not rounds.count or not _came_back_pinned(pod, rounds.began):
            return ()
        waited = tuple(rounds.waiting.values())
        rounds.count = 0
        rounds.free.update(rounds.waiting)
        rounds.waiting.clear()
        return waited

    async def _turn(self, pod: Json, owner: Subject, rounds: Rounds, why: str) -> Outcome | None:
        """None where this pod may be deleted now, which is counted then."""
        now, uid = self._now(), pod["metadata"]["uid"]
        if not rounds.is_read:
            await self._read(owner, rounds)
        if rounds.template != (template := _template(pod)):
            rounds.template, rounds.count = template, 0
        if rounds.written is not None and now - rounds.written >= _FORGOTTEN:
            rounds.count = 0
        since = now - rounds.began if rounds.began is not None else _MINUTE
        if since < _MINUTE:
            if uid in rounds.free:
                return None
            rounds.waiting[uid] = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            return Outcome(again=min((_MINUTE - since).total_seconds(), _MINUTE.total_seconds()))
        if rounds.count >= ROUNDS:
            if rounds.written is None or now - rounds.written >= AGAIN:
                await self._write(owner, rounds, rounds.count, now, why)
            return Outcome(reason=_in_vain(owner, rounds.count))
        await self._write(owner, rounds, rounds.count + 1, now, why)
        rounds.count, rounds.began = rounds.count + 1, now
        rounds.waiting.clear()
        rounds.free = {uid}
        return None

    async def _delete(self, pod: Json, rounds: Rounds, why: str) -> Outcome:
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                POD, metadata["name"], namespace=metadata["namespace"], version=metadata["resourceVersion"], uid=metadata["uid"]
            )
        except ConflictError:  # it changed; the watch brings it
            return Outcome(again=1.0)
        except NotFoundError:
            return Outcome(deleted=True)
        except (ForbiddenError, InvalidError):  # so it did not come back by its tag
            rounds.count = max(rounds.count - 1, 0)
            rounds.free.discard(metadata["uid"])
            raise
        rounds.free.discard(metadata["uid"])
        RECREATED.inc()
        LOG.info("pod %s/%s is deleted, so that another is made: %s", metadata["namespace"], metadata["name"], why)
        return Outcome(deleted=True)

    async def _read(self, owner: Subject, rounds: Rounds) -> None:
        """What the Event says; who may write Events there could as well delete the pods that it is about."""
        try:
            known = await self._client.get(EVENT, _name(owner), namespace=owner.namespace)
        except NotFoundError:
            rounds.is_read = True
            return
        rounds.version = known["metadata"]["resourceVersion"]
        rounds.template = (known["metadata"].get("annotations") or {}).get(_TEMPLATE, "")
        rounds.count, rounds.is_read = max(int(known.get("count") or 0), 0), True
        try:
            said = datetime.fromisoformat(str(known.get("lastTimestamp")))
        except ValueError:
            said = self._now()
        rounds.began = rounds.written = said if said.tzinfo else said.replace(tzinfo=UTC)

    async def _write(self, owner: Subject, rounds: Rounds, count: int, now: datetime, why: str) -> None:
        """Writes the Event that counts.

        Raises:
            ConflictError: it is not as it was read.
        """
        says = f"{why}; it is deleted so that {owner.kind} {owner.name} makes another"
        made = event(owner, component=self._component, reason=REASON, message=says, warning=False, now=now)
        annotations = {_TEMPLATE: rounds.template}
        stored = None
        if rounds.version:  # of one that is there the message stays: an Event that counts one more says the same
            metadata = {"resourceVersion": rounds.version, "annotations": annotations}
            change = {"metadata": metadata, "count": count, "lastTimestamp": made["lastTimestamp"]}
            try:
                stored = await self._client.patch(EVENT, _name(owner), change, namespace=owner.namespace)
            except NotFoundError:
                LOG.debug("the Event %s has expired", _name(owner))
        if stored is None:
            made["metadata"] |= {"name": _name(owner), "annotations": annotations}
            stored = await self._client.create(EVENT, {**made, "count": count}, namespace=owner.namespace)
        rounds.version, rounds.written = stored["metadata"]["resourceVersion"], now


def _in_vain(owner: Subject, times: int) -> str:
    """What is said of a pod that is left."""
    return (
        f"it was made anew {times} times already and came back by its tag each time, so mlwarden's webhook did not pin it; fix: name the"
        f" image by its digest in the template of {owner.kind} {owner.name}, or look why the webhook does not answer (kubectl describe"
        " mutatingwebhookconfiguration mlwarden) and delete the pod then"
    )


def _came_back_pinned(pod: Json, began: datetime) -> bool:
    """Whether a pod was made since, and with digests in its image volumes; the API server says the second."""
    try:
        created = datetime.fromisoformat(str(pod["metadata"].get("creationTimestamp")))
    except ValueError:
        return False
    workload = workloads.extract(pod)
    volumes = any(image.role is Role.VOLUME for image in workload.images)
    return created >= began.replace(microsecond=0) and volumes and not any(workloads.tagged_volumes(workload))


def _owner(pod: Json) -> Subject:
    owner = controller_of(pod) or {}
    return Subject(
        api_version=str(owner.get("apiVersion", "")),
        kind=str(owner.get("kind", "")),
        namespace=pod["metadata"]["namespace"],
        name=str(owner.get("name", "")),
        uid=str(owner.get("uid", "")),
    )


def _name(owner: Subject) -> str:
    """The name of the Event that counts for an owner."""
    said = hashlib.sha256(msgspec.json.encode([owner.uid, owner.kind])).hexdigest()[:16]
    return f"{owner.name[:200].rstrip('.-')}.anew-{said}"


def _template(pod: Json) -> str:
    """Which template of its owner's a pod is of, as the controller says; `""` where it says nothing (a ReplicaSet of no Deployment).

    Not what is in the pod: other webhooks add to it, and each time something else.
    """
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get("pod-template-hash") or labels.get("controller-revision-hash") or "")

"""The second one that deletes (ADR 17): a held pod that can never be released is deleted where its controller makes another that can.

An image volume cannot change after its creation (422). Where its tag was not resolved within the minute before, the webhook could not pin
it, and the pod would be held for ever: the replica that an autoscaler makes at three in the morning. When everything else about it is good
and its tags have just been resolved, it is deleted; the one that takes its place is pinned at its creation.

Bounds: only on the leader; only pods with a controller of `MAKERS`, with our gate, without a node, with uid and resource version as
preconditions (the API server holds us to it: the chart's policy `mlwarden-accounts-pods`); one round per owner and minute; at most three
rounds for one owner and template, counted anew when a pod of it was pinned as hoped. How many rounds there were is kept in an Event on the
owner, written before anything is deleted: another leader goes on from there.

Rejected: refreshing the tags of all templates every minute, so that the webhook could always pin (a registry and the API server would be
asked a thousand times a day for a pod that may come at night); pinning by an older resolution (what starts would not be what the tag says);
deleting what belongs to a Job (it counts a deleted pod as a failure), to a workflow (it ends), or to a kind we do not know.
"""

import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from prometheus_client import Counter

from mlwarden import workloads
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ConflictError, NotFoundError
from mlwarden.cluster.events import Subject, event
from mlwarden.cluster.kinds import EVENT, POD
from mlwarden.controllers.owners import controller_of
from mlwarden.errors import Error
from mlwarden.model import reference as references
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
_MINUTE = timedelta(minutes=1)
_ROUND = timedelta(seconds=15)
"""For so long after the first pod of a round its others are deleted, too."""
_REMEMBERED = 4096


class Rounds(msgspec.Struct, kw_only=True):
    """How often pods of one owner and template were made anew.

    Attributes:
        count: rounds since the last that helped.
        began: when the last one began; None where there was none.
    """

    count: int = 0
    began: datetime | None = None


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

    def __init__(self, client: Client, *, component: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
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
        name, owner = _ledger(pod)
        rounds, now = await self._known(name, pod), self._now()
        since = now - rounds.began if rounds.began is not None else None
        if since is None or since > _ROUND:
            if rounds.count >= ROUNDS:
                again = f"it was made anew {rounds.count} times already and came back by its tag each time"
                return Outcome(reason=f"{again}: does mlwarden's webhook answer? kubectl describe mutatingwebhookconfiguration mlwarden")
            if since is not None and since < _MINUTE:
                return Outcome(again=(_MINUTE - since).total_seconds())
            await self._begin(name, owner, rounds, pod, f"{why}; it is deleted so that {owner.kind} {owner.name} makes another")
        metadata = pod["metadata"]
        try:
            await self._client.delete(
                POD, metadata["name"], namespace=metadata["namespace"], version=metadata["resourceVersion"], uid=metadata["uid"]
            )
        except ConflictError:  # it changed; the watch brings it
            return Outcome(again=1.0)
        except NotFoundError:
            return Outcome(deleted=True)
        RECREATED.inc()
        LOG.info("pod %s/%s is deleted, so that another is made: %s", metadata["namespace"], metadata["name"], why)
        return Outcome(deleted=True)

    def helped(self, pod: Json) -> None:
        """A pod of this owner was released: what came back was pinned, and the rounds count anew."""
        if self._rounds and kept(pod) == "" and (known := self._rounds.get(_ledger(pod)[0])) is not None:
            known.count = 0

    async def _known(self, name: str, pod: Json) -> Rounds:
        known = self._rounds.get(name)
        if known is None:
            known = Rounds()
            try:
                known = _read(await self._client.get(EVENT, name, namespace=pod["metadata"]["namespace"]))
            except NotFoundError:
                LOG.debug("no pod of it was made anew: %s", name)
            self._rounds[name] = known
            while len(self._rounds) > _REMEMBERED:
                self._rounds.popitem(last=False)
        self._rounds.move_to_end(name)
        return known

    async def _begin(self, name: str, owner: Subject, rounds: Rounds, pod: Json, message: str) -> None:
        """Writes the Event that counts, then counts."""
        now, namespace = self._now(), pod["metadata"]["namespace"]
        made = event(owner, component=self._component, reason=REASON, message=message, warning=False, now=now)
        made["metadata"]["name"] = name
        made["count"] = rounds.count + 1
        try:
            await self._client.create(EVENT, made, namespace=namespace)
        except ConflictError:
            await self._client.patch(EVENT, name, {key: made[key] for key in ("count", "lastTimestamp", "message")}, namespace=namespace)
        rounds.count, rounds.began = rounds.count + 1, now


def _ledger(pod: Json) -> tuple[str, Subject]:
    """The name of the Event that counts for a pod's owner and template, and the owner."""
    metadata, owner = pod["metadata"], controller_of(pod) or {}
    subject = Subject(
        api_version=str(owner.get("apiVersion", "")),
        kind=str(owner.get("kind", "")),
        namespace=metadata["namespace"],
        name=str(owner.get("name", "")),
        uid=str(owner.get("uid", "")),
    )
    labels = metadata.get("labels") or {}
    template = labels.get("pod-template-hash") or labels.get("controller-revision-hash") or ""
    volumes = sorted(_references(pod))
    said = hashlib.sha256(msgspec.json.encode([subject.uid, subject.kind, str(template), volumes])).hexdigest()[:16]
    return f"{subject.name[:200].rstrip('.-')}.anew-{said}", subject


def _references(pod: Json) -> list[str]:
    """The images in volumes by name and tag, without digests: what comes back pinned is of the same template."""
    named = []
    for image in workloads.extract(pod).images:
        if image.role is Role.VOLUME:
            with contextlib.suppress(Error):
                parsed = references.parse(image.reference)
                named.append(f"{parsed.name}:{parsed.tag}")
    return named


def _read(known: Json) -> Rounds:
    """What an Event says; somebody who may write Events can only keep mlwarden from deleting his own pods."""
    try:
        began = datetime.fromisoformat(str(known.get("lastTimestamp")))
        return Rounds(count=int(known.get("count") or 0), began=began if began.tzinfo else began.replace(tzinfo=UTC))
    except ValueError:
        return Rounds(count=ROUNDS)

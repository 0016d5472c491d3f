"""Looks at every held pod, and again whenever something changed that its judgement rests on.

Level-triggered: a change only says *that* a pod is to be looked at, never what happened. The index from images to waiting pods keeps one
new scan from being a look at every pod; a slow sweep over all of them catches what no event announces (a scan that grows too old).

The leader looks at once, other replicas two seconds later at what is still held: the resource version in the PATCH makes a double release
harmless, so a leader that hangs holds nobody up. Only the leader asks for evidence and writes Events.
"""

import asyncio
import contextlib
import hashlib
import logging
import math
import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
from prometheus_client import Counter, Gauge, Histogram

from mlwarden import workloads
from mlwarden.checks.text import clean
from mlwarden.cluster import clock
from mlwarden.cluster.client import STRATEGIC_PATCH, Client
from mlwarden.cluster.errors import ApiError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from mlwarden.cluster.freshness import Freshness
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.kinds import POD
from mlwarden.cluster.snapshot import PLATFORM, POLICIES, REVOKED, Snapshot, SnapshotSource
from mlwarden.controllers.conditions import AFTER, Conditions
from mlwarden.controllers.queue import WorkQueue
from mlwarden.controllers.recreation import Outcome, Recreation
from mlwarden.controllers.refusals import Refusals, refused
from mlwarden.controllers.release import Judgement, bare_release, disowned, judge
from mlwarden.controllers.reporter import Reporter
from mlwarden.errors import ClusterError, Error
from mlwarden.evidence import store as evidence
from mlwarden.evidence.bounds import Unanswered
from mlwarden.evidence.requests import Requests, requester_for
from mlwarden.evidence.store import ImageEvidence
from mlwarden.model import reference as references
from mlwarden.model.finding import Decision
from mlwarden.model.workload import Json
from mlwarden.workloads import is_gated

LOG = logging.getLogger(__name__)

HELD = Gauge("mlwarden_held_pods", "Pods that carry the gate now.")
RELEASED = Counter("mlwarden_released_pods_total", "Pods released by this replica.")
RELEASE_SECONDS = Histogram(
    "mlwarden_release_seconds",
    "From a pod's creation (whole seconds) to its release.",
    buckets=(1, 2, 5, 10, 30, 60, 300, 900, 3600),
)
JUDGED = Counter("mlwarden_held_pods_judged_total", "Looks at a held pod.", ["decision"])

_FOLLOWER_WAITS = 2.0
_PATIENCE = 3.0  # seconds a pod waits before an Event says so: most wait for less
_SWEEP = 60.0
_INCOMPLETE = 1.0
_FULL = 30.0
"""Seconds until a pod is looked at again whose namespace has as many requests as it may: one that was answered makes room."""


class Releaser:
    """Releases what is good.

    Args:
        client: of the API server.
        source: of snapshots; subscribed to.
        reporter: writes Events.
        is_leader: whether this replica leads now.
        now: the clock.
        workers: how many pods are patched at the same time.
    """

    def __init__(
        self,
        client: Client,
        source: SnapshotSource,
        reporter: Reporter,
        *,
        is_leader: Callable[[], bool],
        now: Callable[[], datetime] = clock.now,
        workers: int = 16,
    ) -> None:
        self._client, self._source, self._reporter = client, source, reporter
        self._is_leader, self._now, self._workers = is_leader, now, workers
        self._unanswered = Unanswered(source.current.settings.evidence_per_namespace)
        source.read_evidence(self._unanswered.changed)
        self._requests = Requests(client, unanswered=self._unanswered, waits=self._waits)
        self._conditions = Conditions(client, now=now)
        self._recreation = Recreation(client, component=source.current.settings.releaser, now=now)
        self._queue = WorkQueue()
        self._images: dict[str, set[Key]] = {}
        self._named: dict[Key, frozenset[str]] = {}
        self._since: dict[Key, datetime] = {}
        self._refusals = Refusals()
        self._fresh = Freshness(client, source)
        self._policies = ""
        self.pods = Informer(
            client,
            POD,
            query={"fieldSelector": "spec.nodeName="},
            keep=lambda pod: _pack(pod) if is_gated(pod) else None,
            on_change=self._pod_changed,
        )
        source.subscribe(self._snapshot_changed)

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.pods.run())
                tasks.create_task(self._conditions.run())
                await self._source.ready.wait()
                self._policies = _digest(self._source.current)
                for _ in range(self._workers):
                    tasks.create_task(self._work())
                tasks.create_task(self._sweep())
        finally:
            self._queue.close()

    def look_at_everything(self) -> None:
        """Looks at every held pod: this replica has just become the leader."""
        self._enqueue((key for key in self._since), spread=0)

    # What makes a pod worth a look.

    def _pod_changed(self, key: Key, pod: Json | None) -> None:
        HELD.set(len(self.pods))
        if pod is None:
            self._forget(key)
            return
        self._since.setdefault(key, self._now())
        self._enqueue([key])

    def _snapshot_changed(self, snapshot: Snapshot, changes: frozenset[str]) -> None:
        if not changes.isdisjoint({POLICIES, REVOKED, PLATFORM}):
            self._policies = _digest(snapshot)
            self._enqueue(self._named_by(changes))  # those that it is about, before all others
            self._enqueue(self._since)
            return
        spaces = {change.removeprefix("namespace/") for change in changes if change.startswith("namespace/")}
        if spaces:
            self._enqueue(key for key in self._since if key[0] in spaces)
        self._enqueue(self._named_by(changes))

    def _named_by(self, changes: Iterable[str]) -> set[Key]:
        """The pods that name something that changed."""
        return {key for change in changes for key in self._images.get(change, ())}

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            self._enqueue(self._since, spread=_SWEEP / 2)

    def _enqueue(self, keys: Iterable[Key], *, spread: float = 0) -> None:
        leads = self._is_leader()
        every = tuple(keys)
        for number, key in enumerate(every):
            # Spread, or after an outage, when nobody leads yet, all replicas would release the same pods at the same time.
            wait = 0.0 if leads else _FOLLOWER_WAITS * random.uniform(1, 2)  # noqa: S311 -- hides nothing
            seconds = wait + spread * number / len(every)
            if seconds:
                self._queue.add_later(key, seconds)
            else:
                self._queue.add(key)

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        self._conditions.forget(key)
        self._refusals.forget(key)
        self._since.pop(key, None)
        for image in self._named.pop(key, ()):
            waiting = self._images.get(image)
            if waiting is not None:
                waiting.discard(key)
                if not waiting:
                    del self._images[image]

    # One pod.

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._look(key)
                self._queue.succeeded(key)
            except ApiError as error:
                LOG.warning("pod %s/%s: %s", *key, error)
                self._queue.retry(key)
            except Exception:  # a pod that makes us stumble stays held, and does not stop the others
                LOG.exception("pod %s/%s could not be judged", *key)
                self._queue.retry(key)
            finally:
                self._queue.done(key)

    async def _look(self, key: Key) -> None:
        packed = self.pods.get(key[1], namespace=key[0])
        pod = _unpack(packed) if packed is not None else None
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return
        snapshot = self._source.current
        if not snapshot.governed(key[0]):
            await self._release(key, pod, bare_release(pod, why="its namespace is not governed", now=self._now()))
            return
        if snapshot.missing:  # a replica that has not seen every policy yet must not call anything good
            self._queue.add_later(key, _INCOMPLETE)
            return
        await self._decide(key, pod, snapshot, seen=packed["seen"] if packed is not None else math.inf)

    async def _decide(self, key: Key, pod: Json, snapshot: Snapshot, *, seen: float) -> None:
        self._enqueue(self._recreation.helped(pod))
        judgement = self._judge(key, pod, snapshot)
        if judgement.patch is not None or judgement.recreate:  # by what was known a moment ago: once more, by what is at least as new
            snapshot = await self._fresh.snapshot(key[0], _about(pod, snapshot), since=seen)
            if snapshot.missing:
                self._queue.add_later(key, _INCOMPLETE)
                return
            judgement = self._judge(key, pod, snapshot)
        if judgement.patch is not None and (left := self._refusals.left(key, pod, self._now())):
            self._queue.add_later(key, left)
            return
        if judgement.pins and judgement.patch is not None:
            pinned = await self._patch(key, pod, judgement.patch)
            if pinned is None:
                return
            pod, judgement = pinned, self._judge(key, pinned, snapshot)
            if judgement.pins:
                raise ClusterError("something takes out again what was written into it (digests, nodes): a webhook on updates of pods?")
        if judgement.patch is not None:
            await self._release(key, pod, judgement.patch)
            return
        self._index(key, pod, snapshot)
        if self._is_leader():
            if judgement.recreate:
                judgement = await self._recreate(key, pod, judgement)
            await self._keep(key, pod, judgement, self._now())

    async def _recreate(self, key: Key, pod: Json, judgement: Judgement) -> Judgement:
        """Has another pod made in the place of one that can never be released; returns what there is to say of one that stays."""
        try:
            outcome = await self._recreation.recreate(pod, judgement.reason)
        except (ForbiddenError, InvalidError) as error:
            outcome = Outcome(reason=f"it cannot be made anew: {clean(str(error), 300)}")
        if outcome.deleted:
            return Judgement(decision=Decision.HOLD)
        if outcome.again:
            self._queue.add_later(key, outcome.again)
            return judgement
        return Judgement(decision=Decision.DENY, reason=f"{judgement.reason}; but {outcome.reason}")

    def _judge(self, key: Key, pod: Json, snapshot: Snapshot) -> Judgement:
        facts, broken = snapshot.facts(key[0], self._now()), dict(snapshot.broken)
        judgement = judge(pod, snapshot.policies, facts, snapshot.settings, broken=broken, revision=self._policies)
        JUDGED.labels(judgement.decision.value).inc()
        note = clock.CLOCK.note() if judgement.decision is Decision.HOLD else ""
        return replace(judgement, reason=f"{judgement.reason}; {note}") if note else judgement

    async def _release(self, key: Key, pod: Json, patch: dict[str, Json]) -> None:
        if await self._patch(key, pod, patch) is None:
            return
        self._queue.forget(key)
        self._refusals.forget(key)
        RELEASED.inc()
        self._conditions.released(key, pod)
        age = _age(pod, self._now())
        if age is not None:
            RELEASE_SECONDS.observe(age)

    async def _patch(self, key: Key, pod: Json, patch: dict[str, Json]) -> Json | None:
        """The pod as it is stored then, None where it is gone, has changed meanwhile, or something refuses the patch."""
        try:
            stored = await self._client.patch(POD, key[1], patch, namespace=key[0], content_type=STRATEGIC_PATCH)
        except NotFoundError:
            return None
        except ConflictError:  # it changed; the watch brings it, and if another replica was faster there is nothing left to do
            self._queue.add_later(key, 1.0)
            return None
        except (ForbiddenError, InvalidError) as error:  # an answer: somebody's admission does not let it pass
            if error.code == 401:
                raise
            now = self._now()
            self._queue.add_later(key, self._refusals.note(key, pod, now))
            if self._is_leader():
                await self._keep(key, pod, Judgement(decision=Decision.DENY, reason=refused(str(error))), now)
            return None
        return {**stored, "apiVersion": "v1", "kind": "Pod"}

    async def _keep(self, key: Key, pod: Json, judgement: Judgement, now: datetime) -> None:
        """It stays held: ask for what is missing, and say so to whoever looks; where there is something to say."""
        reason = judgement.reason
        if not reason:
            return
        if judgement.wanted:
            who = requester_for(workloads.extract(pod), key[0])
            if await self._requests.ensure(judgement.wanted, now, who):
                reason = f"{reason}; {self._unanswered.said(key[0])}"
                self._queue.add_later(key, _FULL)
        waited = (now - self._since.get(key, now)).total_seconds()
        denied = judgement.decision is Decision.DENY
        if denied:
            self._reporter.refused(pod, judgement.reason)
        elif waited >= _PATIENCE:
            self._reporter.held(pod, reason)
        if waited >= AFTER:
            self._conditions.held(key, pod, "NotReleased" if denied else "WaitsForEvidence", reason)
        if waited < AFTER or (waited < _PATIENCE and not denied):
            self._queue.add_later(key, (AFTER if waited < AFTER else _PATIENCE) - waited + 0.1)

    def _waits(self, request: ImageEvidence) -> bool:
        """Whether a held pod waits for what is asked there."""
        if request.is_resolution:
            return request.spec.references[0] in self._images
        return request.digest in self._images or any(each in self._images for each in request.spec.references)

    def _index(self, key: Key, pod: Json, snapshot: Snapshot) -> None:
        """Remembers which evidence this pod waits for; one that is gone meanwhile waits for nothing."""
        if key not in self._since:
            return
        names: set[str] = set()
        for image in workloads.extract(pod).images:
            names.add(image.reference)
            _, at, digest = image.reference.rpartition("@")
            if at:
                names.add(digest)
            resolution = snapshot.resolutions.get(image.reference)
            if resolution is not None and resolution.digest is not None:
                names.add(resolution.digest)
        before = self._named.get(key, frozenset())
        for gone in before - names:
            self._images.get(gone, set()).discard(key)
        for new in names - before:
            self._images.setdefault(new, set()).add(key)
        self._named[key] = frozenset(names)


def _about(pod: Json, snapshot: Snapshot) -> list[str]:
    """The names of the evidence that a pod was found good by."""
    names = []
    for image in workloads.extract(pod).images:
        with contextlib.suppress(Error):
            parsed = references.parse(image.reference)
            resolution = None if parsed.digest else snapshot.resolutions.get(image.reference)
            digest = parsed.digest or (resolution.digest if resolution is not None else None)
            names += [evidence.name_for(image.reference)] if resolution is not None else []
            if digest is not None:
                names += [evidence.digest_name(digest)] if digest in snapshot.images else []
                names += [evidence.signatures_name(digest)] if digest in snapshot.proofs else []
    return names


def _pack(pod: Json) -> dict[str, Json]:
    """A held pod as it is kept: decoded, a pod of a megabyte of nothing would take thirty."""
    ours = disowned(pod) is not None  # then the release gives it back
    metadata = {key: value for key, value in pod["metadata"].items() if key != "managedFields" or ours}
    # Items of a list do not say what they are; extraction goes by that.
    whole = {**pod, "apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    return {"packed": zlib.compress(msgspec.json.encode(whole), 1), "seen": asyncio.get_running_loop().time()}


def _unpack(packed: Json) -> Json:
    return msgspec.json.decode(zlib.decompress(packed["packed"]))


def _digest(snapshot: Snapshot) -> str:
    """What the policies are, in 12 hexadecimal digits: the same in every replica."""
    digest = hashlib.sha256()
    for compiled in snapshot.policies:
        digest.update(msgspec.json.encode(compiled.policy))
    for name, reason in sorted(snapshot.broken.items()):
        digest.update(f"{name}\0{reason}".encode())
    digest.update(msgspec.json.encode([snapshot.revoked.digests, list(snapshot.revoked.keys), list(snapshot.revoked.signers)]))
    return digest.hexdigest()[:12]


def _age(pod: Json, now: datetime) -> float | None:
    try:
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    except (KeyError, TypeError, ValueError):
        return None
    return max((now - created) / timedelta(seconds=1), 0.0)

"""Judges again what runs, when policies, evidence or revocations change, and says what would be refused now. On the leader.

Nothing here ends a pod, unless a policy or a revocation says `running: Evict` and the chart allows it (see `eviction`).

What is kept of ten thousand pods is their names and digests, in one index; a change of one digest looks at its pods alone, each read anew.
A change of the policies looks at everything, page by page and at half speed: releasing what waits comes first. So does a slow round, for
what no event announces (a scan that grows too old).

Unlike a new pod, a running one is judged by what it runs: tags do not matter any more, and what is not known yet is asked for in the
background and reported only when it turns out to be bad. A roll-out that audits reports as well, and evicts nothing.

What a node starts from a file of its own (a static pod) was judged by nobody before it ran, and nothing here can stop it: it is reported as
such, whatever is found, and counted in `mlwarden_running_pods_unjudged`.

Rejected: keeping the pods' specs (thirty times the memory, for a look every few days), and judging in the snapshot's listener (a policy
would stop every release until the last pod of the cluster was judged).
"""

import asyncio
import logging
import time
from collections import Counter as Count
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec
from prometheus_client import Gauge

from mlwarden import engine, workloads
from mlwarden.checks.text import clean
from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, NotFoundError
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.kinds import POD, REVOKED_ARTIFACT
from mlwarden.cluster.snapshot import PLATFORM, POLICIES, SIGNERS, Snapshot, SnapshotSource
from mlwarden.controllers.debugging import DebugContainers
from mlwarden.controllers.eviction import Evictions, kept
from mlwarden.controllers.imageids import as_running, digests
from mlwarden.controllers.queue import WorkQueue
from mlwarden.controllers.reporter import Reporter
from mlwarden.evidence.bounds import Unanswered
from mlwarden.evidence.requests import Requests, requester_for
from mlwarden.evidence.store import Purpose
from mlwarden.model.digest import Digest
from mlwarden.model.finding import Action, Decision, Finding, Outcome, Verdict
from mlwarden.model.revocation import Running
from mlwarden.model.workload import Json
from mlwarden.policy.account import MIRROR

LOG = logging.getLogger(__name__)
FAILING = Gauge("mlwarden_running_pods_failing", "Running pods that this policy would refuse now.", ["policy"])
UNJUDGED = Gauge("mlwarden_running_pods_unjudged", "Static pods of nodes in governed namespaces: they ran before anybody could judge them.")
KNOWN = Gauge("mlwarden_running_pods", "Bound pods of governed namespaces that the leader knows.")
_BOUND = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_GATHER = 2.0
_ROUND = 1800.0
_AGAIN = timedelta(minutes=15)
"""Until evidence about one digest is asked for again: an answer is a change, and every change is a look that may ask."""
_STEP = 0.02
"""Seconds of judging after which others get their turn."""
_REMEMBERED = 20_000
_TOLD = 10
"""Pods of one owner that get an Event of their own for one finding; the owner gets one in any case."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said about a running pod.

    Attributes:
        policies: those that would refuse it now.
        open: those that cannot tell at the moment.
        reason: one line for a person; `""` where nothing would.
        evict: one line where a policy or a revocation says that it shall go.
        wanted: digests about which evidence is missing or too old.
        unjudged: one line where it ran before anybody could judge it.
    """

    policies: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()
    reason: str = ""
    evict: str = ""
    wanted: tuple[str, ...] = ()
    unjudged: str = ""


def judge(pod: Json, snapshot: Snapshot, now: datetime) -> Judged:
    """Returns what there is to say about a pod as stored, by what it runs."""
    namespace, settings = pod["metadata"]["namespace"], snapshot.settings
    facts = msgspec.structs.replace(snapshot.facts(namespace, now), resolutions={})
    verdict = engine.evaluate(
        workloads.extract(as_running(pod, snapshot.revoked.digests)),
        snapshot.policies,
        facts,
        msgspec.structs.replace(settings, rollout="enforce"),
        holdable=True,
        broken=snapshot.broken,
    )
    wanted = tuple(reference for reference in verdict.wanted if "@" in reference)
    failing = tuple(each for each in verdict.findings if each.outcome is Outcome.FAIL and each.action == Action.DENY.value)
    unknown = frozenset(each.policy for each in verdict.findings if each.outcome is Outcome.UNKNOWN)
    unjudged = _unjudged(pod)
    if not failing:
        return Judged(open=unknown, wanted=wanted, unjudged=unjudged)
    enforced = settings.rollout == "enforce"
    said = "Would be refused now" if enforced else "Would be refused now, did the roll-out not only audit,"
    leaving = [each for each in failing if _goes(each, pod, snapshot)] if enforced else []
    return Judged(
        policies=frozenset(each.policy for each in failing),
        open=unknown,
        reason=engine.held(Verdict(decision=Decision.DENY, findings=failing), refused=said),
        evict=engine.held(Verdict(decision=Decision.DENY, findings=tuple(leaving)), refused="Eviction is asked for") if leaving else "",
        wanted=wanted,
        unjudged=unjudged,
    )


def _unjudged(pod: Json) -> str:
    if MIRROR not in (pod["metadata"].get("annotations") or {}):
        return ""
    node = clean((pod.get("spec") or {}).get("nodeName") or "its node", 253)
    return (
        f"Runs unjudged: {node} started it from a file of its own (a static pod), so nobody could judge it before, and nothing in the"
        " cluster can stop it; fix: make it an object of the API (a DaemonSet, or a pod that names its node), or remove that file"
    )


def _goes(finding: Finding, pod: Json, snapshot: Snapshot) -> bool:
    if finding.policy == engine.REVOKED:
        found = (snapshot.revoked.digests.get(Digest(digest)) for digest in digests(pod))
        return any(each is not None and each.spec.running is Running.EVICT for each in found)
    return any(each.name == finding.policy and each.policy.spec.running is Running.EVICT for each in snapshot.policies)


class RunningPods:
    """Keeps an eye on them.

    Args:
        client: of the API server.
        source: of snapshots; subscribed to.
        reporter: writes Events.
        evictions: what may be evicted, and how fast.
        now: the clock.
    """

    def __init__(
        self,
        client: Client,
        source: SnapshotSource,
        reporter: Reporter,
        evictions: Evictions,
        *,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._client, self._source, self._reporter, self._evictions, self._now = client, source, reporter, evictions, now
        unanswered = Unanswered(source.current.settings.evidence_per_namespace)
        source.read_evidence(unanswered.changed)
        self._requests = Requests(client, unanswered=unanswered, waits=None, again=_AGAIN)
        self._debugging = DebugContainers(client, now=now)
        self._leads = False
        self._forget_everything()
        source.subscribe(self._snapshot_changed)

    def _forget_everything(self) -> None:
        self.pods = Informer(self._client, POD, query={"fieldSelector": _BOUND}, keep=self._keep, on_change=self._pod_changed)
        self._queue = WorkQueue()
        self._leaving = WorkQueue()
        self._digests: dict[Key, tuple[str, ...]] = {}
        self._pods: dict[str, set[Key]] = {}
        self._failing: dict[Key, tuple[str, Judged]] = {}
        self._static: dict[Key, str] = {}
        self._counts: Count[str] = Count()
        self._told: Count[tuple[str, str]] = Count()
        self._written: dict[str, int] = {}
        self._places: set[str] = set()
        self._round = asyncio.Event()
        self._counted = asyncio.Event()
        FAILING.clear()
        KNOWN.set(0)
        UNJUDGED.set(0)

    async def lead(self) -> None:
        """Works until cancelled; another leader begins anew."""
        self._forget_everything()
        self._leads = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._debugging.run())
                tasks.create_task(self.pods.run())
                await self._source.ready.wait()
                await self.pods.synced.wait()
                for work in (self._work, self._work, self._leave, self._rounds, self._count):
                    tasks.create_task(work())
        finally:
            self._leads = False
            self._queue.close()
            self._leaving.close()
            self._forget_everything()

    # What makes a pod worth a look.

    def _keep(self, pod: Json) -> Json | None:
        metadata = pod["metadata"]
        if not self._source.current.governed(metadata["namespace"]):
            return None
        self._debugging.look(pod)
        return _packed(digests(pod), static=MIRROR in (metadata.get("annotations") or {}))

    def _pod_changed(self, key: Key, packed: Json | None) -> None:
        before, after = self._digests.get(key, ()), packed["digests"] if packed is not None else ()
        if packed is None:
            self._digests.pop(key, None)
            self._queue.forget(key)
            self._leaving.forget(key)
            self._set(key, "", Judged())
            self._static.pop(key, None)
            UNJUDGED.set(len(self._static))
        elif key not in self._digests or before != after:
            self._digests[key] = after
            if self.pods.synced.is_set() and (packed["static"] or not self._is_known(after)):
                self._queue.add_later(key, _GATHER)
        for digest in set(before) - set(after):
            self._pods[digest].discard(key)
            if not self._pods[digest]:
                del self._pods[digest]
        for digest in set(after) - set(before):
            self._pods.setdefault(digest, set()).add(key)
        if before != after and not self._source.current.revoked.digests.keys().isdisjoint({*before, *after}):
            self._counted.set()
        KNOWN.set(len(self._digests))

    def _is_known(self, found: tuple[str, ...]) -> bool:
        """Whether the release or the webhook judged this new pod by the very digests it runs: then a second look finds nothing."""
        snapshot = self._source.current
        return all(digest in snapshot.images and digest not in snapshot.revoked.digests for digest in found)

    def _snapshot_changed(self, _snapshot: Snapshot, changes: frozenset[str]) -> None:
        if not self._leads:
            return
        self._counted.set()
        if not changes.isdisjoint({POLICIES, SIGNERS, PLATFORM}):
            self._places.add("")
        self._places.update(each.removeprefix("namespace/") for each in changes if each.startswith("namespace/"))
        if self._places:
            self._round.set()
        for key in {key for change in changes for key in self._pods.get(change, ())}:
            self._queue.add(key)

    # Rounds over everything, or over one namespace.

    async def _rounds(self) -> None:
        places = {""}
        while True:
            try:
                for place in [""] if "" in places else sorted(places):
                    await self._look_at_all(place)
            except ApiError as error:
                LOG.warning("running pods: %s", error)
                self._places |= places
                self._round.set()
            try:
                await asyncio.wait_for(self._round.wait(), _ROUND)
            except TimeoutError:
                self._places.add("")
            await asyncio.sleep(_GATHER)
            self._round.clear()
            places, self._places = self._places, set()

    async def _look_at_all(self, namespace: str) -> None:
        began = time.monotonic()
        async for page in self._client.pages(POD, namespace=namespace, query={"fieldSelector": _BOUND}):
            for pod, unreadable in page.items:
                if not unreadable and (judged := self._judge(pod)) is not None:
                    await self._ask(judged.wanted, pod)
                spent = time.monotonic() - began
                if spent > _STEP:
                    await asyncio.sleep(spent)
                    began = time.monotonic()

    # One pod.

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._look(key)
                self._queue.succeeded(key)
            except NotFoundError:
                self._queue.forget(key)
            except ApiError as error:
                LOG.warning("running pod %s/%s: %s", *key, error)
                self._queue.retry(key)
            except Exception:  # one pod that makes us stumble does not stop the others
                LOG.exception("running pod %s/%s could not be judged", *key)
            finally:
                self._queue.done(key)

    async def _look(self, key: Key) -> None:
        pod = await self._client.get(POD, key[1], namespace=key[0])
        judged = self._judge(pod)
        if judged is None:
            return
        await self._ask(judged.wanted, pod)

    async def _ask(self, wanted: tuple[str, ...], pod: Json) -> None:
        """Asks in the background, as far as there is room: nobody waits for it, so nothing is taken away for it."""
        if wanted:
            stored = workloads.extract({**pod, "apiVersion": "v1", "kind": "Pod"})
            who = requester_for(stored, pod["metadata"]["namespace"], purpose=Purpose.RENEWAL)
            await self._requests.ensure(wanted, self._now(), who)

    async def _leave(self) -> None:
        """Evicts one after the other, each judged once more by what is stored and known at that moment."""
        while True:
            key = await self._leaving.get()
            try:
                await self._evictions.turn()
                pod = await self._client.get(POD, key[1], namespace=key[0])
                judged = self._judge(pod, leaves=True)
                again = await self._evictions.evict(pod, judged.evict) if judged is not None and judged.evict and not kept(pod) else 0
                self._leaving.succeeded(key)
                if again:
                    self._leaving.add_later(key, again)
                else:
                    self._leaving.forget(key)
            except NotFoundError:
                self._leaving.forget(key)
            except ApiError as error:
                LOG.warning("running pod %s/%s was not evicted: %s", *key, error)
                self._leaving.retry(key)
            except Exception:  # as above
                LOG.exception("running pod %s/%s could not be evicted", *key)
            finally:
                self._leaving.done(key)

    def _judge(self, pod: Json, *, leaves: bool = False) -> Judged | None:
        """What there is to say about a pod, having said it; None where it is nothing of ours any more."""
        metadata = pod["metadata"]
        key, snapshot = (metadata["namespace"], metadata["name"]), self._source.current
        running = pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"}
        if key not in self._digests or not running or metadata.get("deletionTimestamp") or not snapshot.governed(key[0]):
            return None
        judged = judge(pod, snapshot, self._now())
        if judged.evict:
            why = kept(pod) or ("" if self._evictions.allowed else "the chart's controller.eviction is off")
            note = f". It is not evicted: {why}" if why else ""
            judged = msgspec.structs.replace(judged, reason=judged.reason + note)
            if not why and not leaves:
                self._leaving.add(key)
        if judged.unjudged and self._static.get(key) != metadata["uid"]:
            self._static[key] = metadata["uid"]
            UNJUDGED.set(len(self._static))
            self._reporter.runs_unjudged(pod, judged.unjudged)
        known = self._failing.get(key)
        if known is not None and known[0] == metadata["uid"] and (still := known[1].policies & judged.open):
            # A finding is not over because its evidence is being renewed.
            judged = msgspec.structs.replace(judged, policies=judged.policies | still, reason=judged.reason or known[1].reason)
        self._set(key, metadata["uid"], judged)
        if judged.reason and (known is None or (known[0], known[1].reason) != (metadata["uid"], judged.reason)):
            self._tell(pod, judged.reason)
        return judged

    def _tell(self, pod: Json, reason: str) -> None:
        owners = [each.get("uid", "") for each in pod["metadata"].get("ownerReferences") or () if each.get("controller")]
        told = (str(owners[0]) if owners else pod["metadata"]["uid"], reason)
        if len(self._told) > _REMEMBERED:
            self._told.clear()
        self._told[told] += 1
        if self._told[told] <= _TOLD:
            self._reporter.would_be_refused(pod, reason)

    def _set(self, key: Key, uid: str, judged: Judged) -> None:
        known = self._failing.pop(key, None)
        before, after = known[1].policies if known else frozenset[str](), judged.policies
        if after:
            self._failing[key] = (uid, judged)
        self._counts.update(after - before)
        self._counts.subtract(before - after)
        for policy in after ^ before:
            FAILING.labels(policy).set(self._counts[policy])

    async def _count(self) -> None:
        """Writes into each revocation of a digest how many pods run it."""
        self._counted.set()
        while True:
            await self._counted.wait()
            await asyncio.sleep(_GATHER)
            self._counted.clear()
            pods: dict[str, set[Key]] = {}
            for digest, revocation in self._source.current.revoked.digests.items():
                pods.setdefault(revocation.name, set()).update(self._pods.get(digest, ()))
            for name, running in pods.items():
                count = len(running)
                if self._written.get(name) == count:
                    continue
                try:
                    status = {"status": {"runningPods": count}}
                    await self._client.patch(REVOKED_ARTIFACT, name, status, subresource="status")
                except NotFoundError:
                    continue
                except ApiError as error:
                    LOG.warning("revocation %s: %s", name, error)
                    self._counted.set()
                    continue
                self._written[name] = count


@lru_cache(4096)
def _packed(found: tuple[str, ...], *, static: bool) -> dict[str, Json]:
    """What is kept of a pod; replicas share one."""
    return {"digests": found, "static": static}

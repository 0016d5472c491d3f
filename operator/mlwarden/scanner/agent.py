"""The process with the token: claims what is in the queue, has the worker answer it, writes the answer.

The API server is the queue and the only memory. A claim is a status update under the resource version that was seen, so of several
replicas one wins; it holds for a lease that is renewed while the work goes on, so what a killed scanner had claimed is done by another. A
leader with a queue in memory was rejected: it would have to be rebuilt, and be right, after every crash.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from mlwarden.cluster import IMAGE_EVIDENCE, WARDEN_POLICY, ApiError, Client, ConflictError, Informer, InvalidError, clock
from mlwarden.errors import EvidenceError
from mlwarden.evidence import excuses, store
from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError, one_line
from mlwarden.evidence.history import Looked, definite, places
from mlwarden.evidence.store import Compared, ImageEvidence, Requester, SecondLook
from mlwarden.evidence.summary import KEPT_UNHEARD
from mlwarden.model.evidence import SIGNATURES, Phase, Scan
from mlwarden.model.reference import parse
from mlwarden.model.signing import Demand, Proof, Proven
from mlwarden.scanner import metrics
from mlwarden.scanner.agenda import Due, Terms, backoff, due, long_backoff
from mlwarden.scanner.canary import EVERY
from mlwarden.scanner.candidates import order, untried
from mlwarden.scanner.claim import Claim, LostError, put
from mlwarden.scanner.demands import Demands
from mlwarden.scanner.keys import GONE, Keys, material
from mlwarden.scanner.lane import DisplacedError, Lane, NoSlotError
from mlwarden.scanner.looks import ANSWERED, Findings, Looks, look_once, tried, with_materials
from mlwarden.scanner.protocol import Documented, PullCredential, Worker
from mlwarden.scanner.provenance import Writer
from mlwarden.scanner.pull import Given, PullSecrets
from mlwarden.scanner.refresh import Refresh
from mlwarden.scanner.second import SecondLooks
from mlwarden.scanner.setbacks import Setbacks

LOG = logging.getLogger(__name__)
RESOLVE, SCAN, VERIFY = "resolve", "scan", "verify"
_WORKER_POLL_SECONDS = 5.0
_WORKER_RETRY_SECONDS = 0.5
_KEYS_SECONDS = 30.0


def _now() -> datetime:
    return clock.now()


_TAKEN_BACK: dict[str, Any] = {
    "phase": Phase.PENDING,
    "digest": "",
    "scan": None,
    "proofs": (),
    "proven": "",
    "places": (),
    "at": None,
    "attempts": 0,
    "retry_at": None,
}


class Agent:
    """One scanner's side of the queue.

    Args:
        client: of the API server.
        worker: does the work.
        terms: identity, lease and maximum age.
        lanes: of `resolve`, `scan` and `verify`.
        keys: reads the keys that policies keep in Secrets.
        secrets: reads the pull Secrets of the pods that evidence is wanted for; None for anonymous pulls.
    """

    def __init__(
        self,
        *,
        client: Client,
        worker: Worker,
        terms: Terms,
        lanes: dict[str, Lane],
        keys: Keys,
        secrets: PullSecrets | None = None,
    ) -> None:
        self._client, self._worker, self._terms, self._lanes = client, worker, terms, lanes
        self._keys, self._materials, self._roots = keys, dict[str, str](), dict[str, str]()
        self._secrets = secrets
        self._known: dict[str, ImageEvidence] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._demands, self._setbacks = Demands(), Setbacks()
        self._unproven: asyncio.Queue[str] = asyncio.Queue()
        self.informer = Informer(client, IMAGE_EVIDENCE, on_change=self._changed, copy=False)
        self.policies = Informer(client, WARDEN_POLICY, on_change=self._policy_changed)
        self.worker_fit, self._unfit = asyncio.Event(), ""
        self._good_at: datetime | None = None
        self._unfit_at: datetime | None = None
        self._writer = Writer(terms.identity)
        self._second = SecondLooks(client, self._writer, terms.second_looks)
        self._disowned: asyncio.Queue[str] = asyncio.Queue()
        self._refresh = Refresh(client, worker, self._writer, known=self._known)
        for name, lane in lanes.items():
            metrics.QUEUE.labels(name).set_function(lane.agenda.__len__)
            metrics.RUNNING.labels(name).set_function(lane.pools.__len__)

    def ready(self) -> str:
        """Why it cannot work now, `""` where it can."""
        if not (self.informer.synced.is_set() and self.policies.synced.is_set()):
            return "the queue or the policies were not read yet"
        return "" if self.worker_fit.is_set() else self._unfit or "the worker does not answer"

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.policies.run())
            await self.policies.synced.wait()
            tasks.create_task(self.informer.run())
            tasks.create_task(self._watch_worker())
            tasks.create_task(self._watch_keys())
            tasks.create_task(self._prewarm())
            tasks.create_task(self._refresh.run())
            tasks.create_task(self._disown())
            for lane in self._lanes:
                tasks.create_task(self._dispatch(lane))

    def _changed(self, key: tuple[str, str], obj: dict[str, Any] | None) -> None:
        name = key[1]
        if name in self._news:
            self._news[name].set()
        self._known.pop(name, None)
        if obj is not None:
            try:
                self._known[name] = store.read(obj)
            except EvidenceError as error:
                LOG.warning("%s", error)
        if obj is None:
            self._writer.forget(name)
        self._look_who_wrote(name)
        self._plan(name)
        if _lane(name) == SCAN and obj is not None:
            self._unproven.put_nowait(name)

    def _look_who_wrote(self, name: str) -> None:
        known = self._known.get(name)
        self._second.changed(name, known)
        if known is None:
            return
        if not self.informer.synced.is_set():
            self._writer.adopt(known)
        elif self._writer.disowns(known):
            self._disowned.put_nowait(name)

    async def _disown(self) -> None:
        """Takes back what stands under our name and is not ours: somebody has our token."""
        while True:
            name = await self._disowned.get()
            known = self._known.get(name)
            if known is None or not self._writer.disowns(known):
                continue
            reason = f"it stands under the name of {self._writer.identity}, which did not write it: its token is used by somebody else"
            LOG.error("%s: %s; it is taken back", name, reason)
            look = SecondLook(by=self._writer.identity, of=self._writer.identity, at=_now(), outcome=Compared.FORGED, reason=reason)
            status = msgspec.structs.replace(known.status, **_TAKEN_BACK, reason=one_line(reason), second_look=look)
            try:
                self._known[name] = await put(self._client, known, status, self._writer)
            except LostError:
                continue  # it has changed: the watch brings what stands there now
            except ApiError as error:
                LOG.warning("%s: it cannot be taken back yet: %s", name, error)
                await asyncio.sleep(1)
                self._disowned.put_nowait(name)
                continue
            metrics.FORGED.inc()
            self._plan(name)

    def _policy_changed(self, key: tuple[str, str], obj: dict[str, Any] | None) -> None:
        if self._demands.changed(key[1], obj):
            self._plan_signatures()
            for name in [name for name in self._known if _lane(name) == SCAN]:
                self._unproven.put_nowait(name)

    def _plan_signatures(self) -> None:
        for name in [name for name in self._known if _lane(name) == VERIFY]:
            self._plan(name)

    def _plan(self, name: str) -> None:
        known, when, lane = self._known.get(name), None, _lane(name)
        if known is not None:
            when, again = self._due(lane, known), self._second.due(known)
            when = again if again is not None and (when is None or again.at < when.at) else when
            if when is not None:
                setback = self._setbacks.until(name, known.metadata.resource_version)
                when = msgspec.structs.replace(when, at=max(when.at, setback))
        self._lanes[lane].plan(name, when)

    def _due(self, lane: str, known: ImageEvidence) -> Due | None:
        demands = self._demands.about(known.spec.references) if lane == VERIFY else {}
        return due(known, self._terms, {demand: self._materials.get(demand, "") for demand in demands}, now=_now())

    def _is_second(self, lane: str, known: ImageEvidence) -> bool:
        """Whether it is looked at a second time now, and nobody wants another answer."""
        first = self._due(lane, known)
        return known.metadata.name in self._second and (first is None or first.at > _now())

    async def _watch_worker(self) -> None:
        while True:
            try:
                state = await self._worker.state()
            except TransientError as error:
                if self.worker_fit.is_set():
                    LOG.warning("%s", error)
                self._unfit = ""
                self.worker_fit.clear()
                metrics.WORKER_UP.set(0)
                await asyncio.sleep(_WORKER_RETRY_SECONDS)
                continue
            metrics.worker(state)
            self._refresh.database(state.database_at)
            self._lanes[SCAN].pools.limit(state.scans)
            self._good_at, self._roots = clock.heard_at(state.canary_at) or self._good_at, state.roots
            if state.unfit:
                await self._distrust(one_line(state.unfit))
            else:
                self._unfit, self._unfit_at = "", None
                self.worker_fit.set()
            await asyncio.sleep(_WORKER_POLL_SECONDS)

    async def _distrust(self, reason: str) -> None:
        """Stops, and takes back what was written since the tools were last known to be right; with each look, until it is done.

        What others wrote is theirs to take back, and so is what was written since this stopped.
        """
        self._unfit_at = self._unfit_at or _now()
        if not self._unfit:
            LOG.error("the scanner is not fit for use, and its evidence is taken back: %s", reason)
        self._unfit = f"the scanner is not fit for use: {reason}"
        self.worker_fit.clear()
        since = self._good_at or _now() - EVERY
        ours = ("", self._terms.identity)  # an older version did not write down whose an answer is
        for known in [known for known in self._known.values() if _made_between(known, since, self._unfit_at, ours)]:
            try:
                claim = await Claim.take(self._client, self._writer, self._terms.lease, known)
                await claim.finish({**_TAKEN_BACK, "reason": one_line(self._unfit)})
            except LostError:
                continue  # somebody is at it, or it has changed: the next look sees what became of it
            except ApiError as error:
                LOG.warning("%s: its evidence cannot be taken back yet: %s", known.metadata.name, error)
                return
            self._known[known.metadata.name] = claim.current

    async def _prewarm(self) -> None:
        """Sees to it that the signatures of every known digest are looked at once a policy demands any: before a pod waits for them."""
        while True:
            known = self._known.get(await self._unproven.get())
            if known is None or store.signatures_name(known.digest) in self._known:
                continue
            if self._demands.about(known.spec.references):
                try:
                    reference = known.spec.references[-1]
                    await self._ask_for(SIGNATURES + reference, _on_behalf(known, known.spec.named_by.get(reference, ())))
                except ApiError as error:
                    LOG.warning("signatures of %s cannot be asked for: %s", known.metadata.name, error)

    async def _watch_keys(self) -> None:
        """Notices that a key in a Secret or a trust root was exchanged: what was proven with the old one is looked at again."""
        while True:
            await self.worker_fit.wait()  # it says what its trust roots are
            materials = await self._keys.materials(self._demands.every, self._roots)
            if materials != self._materials:
                self._materials = materials
                self._plan_signatures()
            await asyncio.sleep(_KEYS_SECONDS)

    async def _dispatch(self, lane: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                turn = await self._lanes[lane].next(self.worker_fit)
                tasks.create_task(self._one(lane, turn.name))

    async def _one(self, lane: str, name: str) -> None:
        """One object, from claim to answer. Whatever happens, it is planned again."""
        outcome, known = "lost", self._known.get(name)
        with metrics.timed(lane):
            try:
                if known is not None:
                    outcome = await (self._look_again if self._is_second(lane, known) else self._answer)(lane, known)
                self._setbacks.over(name)
            except LostError:  # the watch will say what became of it
                self._setbacks.note(name, _now(), version=known.metadata.resource_version if known is not None else "")
            except ApiError as error:
                LOG.warning("%s: %s", name, error)
                outcome = "unwritten"
                self._setbacks.note(name, _now())
            except Exception:
                LOG.exception("%s", name)  # a defect of ours: one object must not end the scanner
                outcome = "defect"
                self._setbacks.note(name, _now())
            finally:
                self._lanes[lane].end(name)
                self._look_who_wrote(name)
                self._plan(name)
        metrics.FINISHED.labels(lane, outcome).inc()

    async def _answer(self, lane: str, known: ImageEvidence) -> str:
        """Claims, has it answered while the claim is renewed, and writes what came of it; returns the outcome for the metrics."""
        claim, slots = await Claim.take(self._client, self._writer, self._terms.lease, known), self._lanes[lane]
        outcome = "ready"
        try:
            async with claim.renewed():
                given = await self._secrets.credentials_for(known) if self._secrets is not None else Given()
                await slots.slot(known.metadata.name)
                async with slots.displaceable(known.metadata.name):
                    try:
                        change = await {RESOLVE: self._resolve, SCAN: self._scan, VERIFY: self._verify}[lane](claim, given.credentials)
                    except DefinitiveError as error:
                        raise given.explained(error) from None
        except NoSlotError:
            outcome, change = "given back", {}
        except DefinitiveError as error:
            outcome, change = "failed", _definitive(_as_claimed(known, claim), error, _now())
        except DisplacedError as error:
            outcome, change = "displaced", _transient(_as_claimed(known, claim), error, _now())
        except GatherError as error:
            outcome, change = "transient", _transient(_as_claimed(known, claim), error, _now())
        slots.write(known.metadata.name)
        try:
            await claim.finish(change)
        except InvalidError as error:
            LOG.warning("%s: the answer was refused: %s", known.metadata.name, error)
            outcome = "refused"
            await claim.finish(_transient(_as_claimed(known, claim), TransientError("the API server refused the worker's answer"), _now()))
        self._take_in(claim.current)
        return outcome

    async def _look_again(self, lane: str, known: ImageEvidence) -> str:
        """Makes an answer a second time, without a claim, and has it compared; returns the outcome for the metrics."""
        name, slots, began = known.metadata.name, self._lanes[lane], _now()
        try:
            given = await self._secrets.credentials_for(known) if self._secrets is not None else Given()
            await slots.slot(name)
            async with slots.displaceable(name):
                found = await self._proven(known, given.credentials) if lane == VERIFY else await self._seen_again(known, given.credentials)
        except NoSlotError:
            return "given back"
        except GatherError:
            self._second.failed(name)
            return "second look"
        slots.write(name)
        stored = await self._second.conclude(known, found, began)
        if stored is not None:
            self._take_in(stored)
        return "second look"

    def _take_in(self, stored: ImageEvidence) -> None:
        """What we have written is known before the watch brings it."""
        self._known[stored.metadata.name] = stored
        for each in self._second.suspect(stored, self._known):
            self._plan(each)

    async def _resolve(self, claim: Claim, credentials: tuple[PullCredential, ...]) -> dict[str, Any]:
        """What a tag points at. The digest's own evidence is asked for first: a scanner that dies in between has lost nothing."""
        known = claim.current
        began, reference = _now(), known.spec.references[0]
        found = await self._worker.resolve(reference, credentials)
        await self._ask_for(parse(reference).at(found), _on_behalf(known))
        return {**ANSWERED, "digest": found, "at": began, "answered": known.spec.requested_at}

    async def _scan(self, claim: Claim, credentials: tuple[PullCredential, ...]) -> dict[str, Any]:
        """The scan, dated here: a worker that was taken over must not make evidence that never grows old."""
        claimed, name = claim.current, claim.current.metadata.name

        async def into(of: ImageEvidence, first: str) -> tuple[Scan, Documented]:
            return await self._looked(of, await self._shown(of, claimed, credentials), first=first)

        async def find(of: ImageEvidence, references: tuple[str, ...]) -> str:
            return await self._worker.find(references, await self._shown(of, claimed, credentials))

        news = self._news.setdefault(name, asyncio.Event())
        try:
            known, (scan, heard) = await look_once(claimed, look=into, find=find, current=lambda: self._known.get(name), news=news)
        finally:
            del self._news[name]
        now, before, listened = _now(), known.status.scan, self._demands.excuses
        look = self._second.noticed(known, scan)
        scan = excuses.merged(before, scan, now, sources=listened, answered=store.answered(known), asked=heard.places)
        asked = places(tried(known, now), heard.places, known.spec.references)
        scan = msgspec.structs.replace(scan, scanned_at=now)
        change = {**ANSWERED, "scan": scan, "at": now, "answered": known.spec.requested_at, "places": asked}
        return {**change, "second_look": look} if look is not None else change

    async def _looked(
        self, known: ImageEvidence, credentials: tuple[PullCredential, ...], *, fresh: bool = False, first: str = ""
    ) -> tuple[Scan, Documented]:
        """What is in it, and what was said of that; what could not be heard excuses nothing."""
        references = tuple(dict.fromkeys((*filter(None, [first]), *order(known))))
        vex, _ = await self._keys.filled(self._demands.excuses)
        heard = Documented(documents=())
        if vex:
            with contextlib.suppress(GatherError):
                heard = await self._worker.documents(references, vex, credentials)
        scan = await self._worker.scan(references, credentials, heard.documents, fresh=fresh)
        return msgspec.structs.replace(scan, unheard=(*heard.unheard, *scan.unheard)[:KEPT_UNHEARD]), heard

    async def _proven(self, known: ImageEvidence, credentials: tuple[PullCredential, ...]) -> tuple[Proof, ...]:
        """What can be proven of what stands there, by a look of its own: one place that does not answer leaves open what is denied."""
        filled, _ = await self._keys.filled(self._demands.about(known.spec.references))
        looked = await self._worker.verify(order(known), filled, credentials) if filled else Looked(proofs=(), places=())
        found = with_materials(looked, {demand: material(filled[demand], self._roots) for demand in filled})
        proofs = found.proofs if self._second.is_last(known.metadata.name) else definite(found)
        return tuple(msgspec.structs.replace(proof, at=_now()) for proof in proofs)

    async def _shown(
        self, of: ImageEvidence, claimed: ImageEvidence, credentials: tuple[PullCredential, ...]
    ) -> tuple[PullCredential, ...]:
        """Who asked again may bring other credentials than who asked first."""
        return credentials if of is claimed or self._secrets is None else (await self._secrets.credentials_for(of)).credentials

    async def _seen_again(self, known: ImageEvidence, credentials: tuple[PullCredential, ...]) -> Scan:
        """What is in it, by a look of its own; that somebody took back an excuse is not forgotten by it."""
        scan, _ = await self._looked(known, credentials, fresh=True)
        return excuses.merged(known.status.scan, scan, _now(), sources=self._demands.excuses, answered={}, asked=())

    async def _verify(self, claim: Claim, credentials: tuple[PullCredential, ...]) -> dict[str, Any]:
        """What can be proven. What could not be found out this time leaves what was known, with its age, and is tried again."""
        known, name = claim.current, claim.current.metadata.name
        demands, roots = self._demands.about(known.spec.references), self._roots
        filled, failed = await self._keys.filled(demands)
        materials = {demand: material(filled[demand], roots) for demand in filled}

        async def ask(of: ImageEvidence, references: tuple[str, ...]) -> Looked:
            shown = await self._shown(of, known, credentials)
            looked = await self._worker.verify(references, filled, shown) if filled else Looked(proofs=(), places=())
            return with_materials(looked, materials)

        async def note(change: dict[str, Any]) -> None:
            with contextlib.suppress(InvalidError):  # said at the end, if it still is
                await claim.note(change)

        findings = Findings(known, _unasked(known, demands, failed))
        news = self._news.setdefault(name, asyncio.Event())
        try:
            looks = Looks(ask=ask, current=lambda: self._known.get(name), news=news, write=note, now=_now)
            change = await looks.run(known, findings)
        finally:
            del self._news[name]
        if not findings.open:
            return change
        again = _transient(known, TransientError(findings.open), change["at"])
        more = {name: again[name] for name in ("reason", "attempts", "retry_at")}
        return {**change, **more, "answered": known.status.answered}

    async def _ask_for(self, pinned: str, requester: Requester) -> None:
        """Sees to it that there is evidence, or a request for it, about a digest, on behalf of those who asked for its tag."""
        name = store.name_for(pinned)
        known = self._known.get(name)
        if known is None:
            try:
                await self._client.create(IMAGE_EVIDENCE, store.pending(pinned, requester))
            except ConflictError:
                known = store.read(await self._client.get(IMAGE_EVIDENCE, name))
        if known is None or known.status.phase is Phase.READY:
            return
        if store.canonical(pinned) not in known.spec.references or store.new_pullers(known, requester) or store.adds(known, requester):
            with contextlib.suppress(ConflictError):
                await self._client.patch(IMAGE_EVIDENCE, name, store.request(known, pinned, _now(), requester))


def _unasked(known: ImageEvidence, demands: Mapping[str, Demand], failed: Mapping[str, GatherError]) -> tuple[Proof, ...]:
    """Proofs of the demands whose key cannot be had."""
    was = {proof.demand: proof.material for proof in known.status.proofs}
    return tuple(
        Proof(
            demand=name,
            authority=demands[name].authority.name,
            outcome=Proven.UNKNOWN,
            reason=error.message,
            material=GONE if isinstance(error, DefinitiveError) else was.get(name, ""),
            at=_now(),
        )
        for name, error in failed.items()
    )


def _on_behalf(known: ImageEvidence, names: tuple[str, ...] = ()) -> Requester:
    """Who asked for the one asks for the next."""
    namespace = "".join((names or known.spec.namespaces)[-1:])
    return Requester(purpose=known.spec.purpose, namespace=namespace, pullers=known.spec.pullers)


def _made_between(known: ImageEvidence, since: datetime, until: datetime, by: Collection[str]) -> bool:
    """Whether the tools of one of these scanners said something about it in that time."""
    if known.status.phase is not Phase.READY or known.is_resolution or known.status.answered_by not in by:
        return False
    made = known.status.scan.scanned_at if known.status.scan is not None else known.status.at
    return made is not None and since < made <= until


def _lane(name: str) -> str:
    return {"tag": RESOLVE, "sha256": SCAN}.get(name.partition("-")[0], VERIFY)


def _as_claimed(known: ImageEvidence, claim: Claim) -> ImageEvidence:
    """The object with what was written meanwhile, and what was asked and had failed when it was claimed."""
    return msgspec.structs.replace(known, status=msgspec.structs.replace(claim.current.status, attempts=known.status.attempts))


def _definitive(known: ImageEvidence, error: DefinitiveError, now: datetime) -> dict[str, Any]:
    """What is written after a definitive failure. A scan that was made stays true: the digest is the same bytes, wherever it went."""
    change = _failed(known, error, now)
    change |= {"at": now, "answered": known.spec.requested_at, "retry_at": now + long_backoff(change["attempts"])}
    if known.status.scan is not None and known.status.phase is Phase.READY:
        return change
    return {**change, "phase": Phase.FAILED, "digest": ""}


def _transient(known: ImageEvidence, error: GatherError, now: datetime) -> dict[str, Any]:
    """What is written after a transient failure: what was known stays, with its time, so that who needs it fresher waits."""
    change = _failed(known, error, now)
    wait = max(timedelta(seconds=error.retry_after), timedelta() if error.retry_after else backoff(change["attempts"]))
    phase = Phase.READY if known.status.phase is Phase.READY else Phase.PENDING
    return {**change, "phase": phase, "retry_at": now + wait}


def _failed(known: ImageEvidence, error: GatherError, now: datetime) -> dict[str, Any]:
    """A repository that was not tried before begins anew: it is not for the failures of others."""
    attempts = 1 if untried(known) else known.status.attempts + 1
    change: dict[str, Any] = {"attempts": attempts, "reason": one_line(error.message)}
    return change if known.is_resolution else {**change, "places": tried(known, now)}

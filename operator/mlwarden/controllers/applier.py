"""Brings the generated objects into being, in the order that keeps the cluster working, and back when somebody changes them.

The order is the point. A guard that demands the gate before the gate is in force refuses every pod: so the gating policy is applied, a
dry-run pod is created until it comes back gated, and only then the guards go in. Where it does not come back gated in time,
MutatingAdmissionPolicy is not enforced here (being served proves nothing), and the webhook adds the gate instead.

Runs on the leader only. Every round compares what is stored with what was written; an object is written again when it changed or when
what it should be did.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec

from mlwarden import __version__, policy
from mlwarden.cluster import clock
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.kinds import CLUSTER_ROLE, SECRET
from mlwarden.cluster.snapshot import POLICIES, Snapshot, SnapshotSource
from mlwarden.controllers import acceptance, generated, names
from mlwarden.controllers.certificates import CA_SECRET, TLS_SECRET, Issued, data_of, issue, secret
from mlwarden.controllers.gating import Gate, Gating
from mlwarden.controllers.scope import ACCEPTED
from mlwarden.errors import ClusterError
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json
from mlwarden.policy.bindings import MANAGED_BY

LOG = logging.getLogger(__name__)
_GATHER = 0.3
_ROUND = 300.0
_RETRY = 2.0
_LATER = 10.0


class _RefusedPoliciesError(ClusterError):
    """Everything else was applied."""


class Applier:
    """Keeps the generated objects as they should be.

    Args:
        client: of the API server.
        settings: the chart's.
        source: of policies.
        now: the clock.

    Attributes:
        applied: set after the first complete round as leader: everything is in force.
        left: names of the cluster's own policies that the API server does not enforce, because all places are taken.
        gate: where the gate comes from, once known.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        source: SnapshotSource,
        *,
        now: Callable[[], datetime] = clock.now,
        on_left: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self._settings, self._source, self._now, self._on_left = client, settings, source, now, on_left
        self._gating = Gating(client, settings)
        self._wake = asyncio.Event()
        self._written: dict[tuple[str, str], tuple[str, str]] = {}
        self._anchor: Json | None = None
        self.applied = asyncio.Event()
        self.gate: Gate | None = None
        self.left: frozenset[str] = frozenset()
        selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
        self.informers = {
            kind: Informer(client, where, query={"labelSelector": selector}, on_change=self._changed)
            for kind, where in generated.KINDS.items()
            if kind != "WardenPolicy"
        }
        self.informers["WardenPolicy"] = source.policies
        source.subscribe(self._snapshot_changed)

    async def watch(self) -> None:
        """Keeps the copies of what is stored, until cancelled; on every replica."""
        async with asyncio.TaskGroup() as tasks:
            for kind, informer in self.informers.items():
                if kind == "WardenPolicy":  # the snapshot's
                    continue
                tasks.create_task(informer.run())

    async def lead(self) -> None:
        """Applies, and applies again whenever something changed, until cancelled; on the leader."""
        self._written.clear()
        self._gating.forget()
        try:
            while True:
                self._wake.clear()
                seconds = _ROUND
                try:
                    issued = await self.round()
                    seconds = min(_ROUND, max((issued.renew_at - self._now()).total_seconds(), 1.0))
                    if not self.applied.is_set():
                        LOG.info("everything generated is in force; the gate comes from the %s", self.gate)
                        self.applied.set()
                except ClusterError as error:
                    LOG.warning("not everything could be applied: %s", error)
                    seconds = _LATER if isinstance(error, _RefusedPoliciesError) else _RETRY
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), seconds)
                await asyncio.sleep(_GATHER)
        finally:
            self.applied.clear()

    async def round(self) -> Issued:
        """Applies everything once, in order.

        Raises:
            ClusterError: something could not be applied; what was applied before it stays.
        """
        await self._source.ready.wait()
        self._anchor = await self._read_anchor()
        issued = await self._certificates()
        policies = await self._accepted()
        refused = await self._apply_policies(policies)
        gate = self.gate = await self._gating.find(lambda: self._apply(generated.before_gate(self._settings, issued.bundle, enforced=True)))
        enforced = gate is Gate.POLICY
        before = generated.before_gate(self._settings, issued.bundle, enforced=enforced)
        await self._apply(before)
        await self._gating.in_force(gate)
        made = generated.after_gate(self._settings, self._source.current.policies, enforced=enforced)
        after = names.placed(made, self.informers["ValidatingAdmissionPolicy"])
        left, self.left = self.left, names.left(made, after)
        if left != self.left:
            self._on_left()
        await self._apply(after)
        await self._prune([*policies, *before, *after])
        if refused:
            raise _RefusedPoliciesError("; ".join(refused))
        return issued

    def _changed(self, _key: Key, _obj: Json | None) -> None:
        self._wake.set()

    def _snapshot_changed(self, _snapshot: Snapshot, changes: frozenset[str]) -> None:
        if POLICIES in changes:
            self._wake.set()

    async def _read_anchor(self) -> Json | None:
        try:
            return await self._client.get(CLUSTER_ROLE, self._settings.anchor)
        except NotFoundError:
            LOG.warning("there is no ClusterRole %s: what is generated will have no owner", self._settings.anchor)
            return None

    async def _certificates(self) -> Issued:
        """Issues what is due, and stores it; a Secret that somebody wrote meanwhile is read again."""
        held = {name: await self._secret(name) for name in (CA_SECRET, TLS_SECRET)}
        data = {name: data_of(obj) for name, obj in held.items()}
        issued = issue(self._settings, data[CA_SECRET], data[TLS_SECRET], now=self._now())
        for name, wanted in ((CA_SECRET, issued.ca), (TLS_SECRET, issued.tls)):
            if data[name] != wanted:
                await self._store(secret(self._settings, name, wanted), held[name])
        return issued

    async def _accepted(self) -> tuple[Mapping[str, Json], ...]:
        """Returns the policies that are to be in force, and stores what was accepted: before anything else is applied."""
        held = await self._secret(ACCEPTED)
        ours = held is not None and generated.is_owned(held, self._anchor)
        record = acceptance.decode(data_of(held)) if ours else None
        stored = [obj for obj in self.informers["WardenPolicy"] if generated.is_shipped(obj) and generated.is_owned(obj, self._anchor)]
        edited = {obj["metadata"]["name"] for obj in stored if generated.editors(obj)}
        if record is None and stored:
            record = acceptance.enforced(obj for obj in stored if obj["metadata"]["name"] not in edited)
        trusted = self._settings.trusted_registries
        planned = acceptance.plan(
            policy.shipped(trusted),
            record,
            version=__version__,
            accept=self._settings.packs_accept,
            edited=edited,
            decided=[policy.TRUSTED_REGISTRIES] if trusted else (),
        )
        wanted = acceptance.encode(planned.record)
        if not ours or data_of(held) != wanted:
            await self._store(secret(self._settings, ACCEPTED, wanted, kind="Opaque"), held)
            LOG.info("policies are those of %s; these only warn: %s", planned.record.version, ", ".join(planned.waiting) or "none")
        return planned.policies

    async def _secret(self, name: str) -> Json | None:
        try:
            return await self._client.get(SECRET, name, namespace=self._settings.namespace)
        except NotFoundError:
            return None

    async def _store(self, obj: Mapping[str, Json], held: Json | None) -> None:
        made, name = generated.owned(obj, self._anchor), obj["metadata"]["name"]
        if held is None:
            await self._client.create(SECRET, made, namespace=self._settings.namespace)
            return
        if held.get("type") != made["type"]:
            raise ClusterError(f"Secret {name} has type {held.get('type')}, which cannot be changed", hint=f"delete Secret {name}")
        made["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
        await self._client.update(SECRET, made)

    async def _apply_policies(self, policies: Iterable[Mapping[str, Json]]) -> list[str]:
        """Applies shipped policies, and returns which ones were refused.

        In an upgrade it is a webhook of the version before that refuses what it cannot read, and it stays until those of this version are
        ready, which they are when they have seen every policy: so meanwhile a harmless one stands in for it.
        """
        refused = []
        for obj in policies:
            try:
                await self._apply([obj])
            except (ForbiddenError, InvalidError) as error:
                refused.append(f"policy {obj['metadata']['name']}: {error}")
                if self.informers["WardenPolicy"].get(obj["metadata"]["name"]) is None:
                    await self._apply([acceptance.stand_in(obj, __version__)])
        return refused

    async def _apply(self, objects: Iterable[Mapping[str, Json]]) -> None:
        for obj in objects:
            kind, name = obj["kind"], obj["metadata"]["name"]
            stored = self.informers[kind].get(name)
            wanted = generated.owned(obj, self._anchor)
            said = hashlib.sha256(msgspec.json.encode(wanted, order="sorted")).hexdigest()
            if stored is not None and self._written.get((kind, name)) == (said, stored["metadata"]["resourceVersion"]):
                continue
            try:
                written = await self._client.apply(generated.KINDS[kind], wanted, force=kind != "WardenPolicy")
            except ConflictError as error:
                if kind != "WardenPolicy" or stored is None:
                    raise
                LOG.warning("shipped policy %s is left as somebody edited it: %s", name, error)
                written = stored
            self._written[kind, name] = (said, written["metadata"]["resourceVersion"])

    async def _prune(self, wanted: Iterable[Mapping[str, Json]]) -> None:
        """Removes what earlier versions or settings generated and these do not."""
        kept = {(obj["kind"], obj["metadata"]["name"]) for obj in wanted}
        for kind, informer in self.informers.items():
            if kind in generated.OPTIONAL and not self._gating.served:
                continue
            for stored in informer:
                name = stored["metadata"]["name"]
                if (kind, name) in kept or not generated.is_ours(stored):
                    continue
                if kind == "WardenPolicy" and (not generated.is_shipped(stored) or generated.editors(stored)):
                    continue
                LOG.info("removing %s %s: it is not wanted any more", kind, name)
                self._written.pop((kind, name), None)
                try:
                    await self._client.delete(generated.KINDS[kind], name)
                except (NotFoundError, ConflictError):
                    continue
                except ForbiddenError as error:  # of a version that gave it a name of its own: the chart's hook takes it away
                    LOG.warning("%s %s stays for now: %s", kind, name, error)


async def delete_all(client: Client, kinds: Iterable[str]) -> int:
    """Removes every generated object of these kinds, in their order, and returns how many there were."""
    selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
    count = 0
    for kind in kinds:
        try:
            stored = await client.list(generated.KINDS[kind], labelSelector=selector)
        except NotFoundError:  # an API server without this kind
            continue
        for obj in filter(generated.is_ours, stored):
            with contextlib.suppress(NotFoundError):
                await client.delete(generated.KINDS[kind], obj["metadata"]["name"])
                count += 1
    return count

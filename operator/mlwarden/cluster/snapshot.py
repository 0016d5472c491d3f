"""Everything an evaluation needs to know of the cluster, in one immutable value that is replaced by one assignment.

The request path reads `source.current` once and works on that; it never waits, never locks and never sees half a change. Policies are
compiled when they change, not when they are asked. Bursts are gathered: a thousand changes make one new snapshot.

Rejected: looking things up in the API server while a request waits, and mutable shared maps.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from mlwarden import policy
from mlwarden.cluster.client import Client
from mlwarden.cluster.configuration import Configuration
from mlwarden.cluster.indexes import Indexes
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.kinds import IMAGE_EVIDENCE, LIMIT_RANGE, NAMESPACE, NODE, REVOKED_ARTIFACT, WARDEN_POLICY
from mlwarden.cluster.waits import Recent
from mlwarden.errors import Error, PolicyError
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Facts, ImageFacts, Proofs, Resolution, Waits
from mlwarden.model.limits import Defaults
from mlwarden.model.platform import Platform
from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.revocation import Revocation, Revoked
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads.limits import by_namespace

LOG = logging.getLogger(__name__)
Convert = Callable[[Any], tuple[Digest, ImageFacts] | tuple[str, Resolution] | tuple[Digest, Proofs]]
"""`evidence.to_facts`: raises EvidenceError for what is no evidence."""
Listener = Callable[["Snapshot", frozenset[str]], None]
"""Called after each swap with what changed: `policies`, `namespace/NAME`, `revoked`, `platform`, `limits`, and what has new evidence.

With `revoked` come the digests that are revoked, or no longer; `signers` says that it is a key or a signer instead.
"""
Reader = Callable[[str, dict[str, Any] | None], None]
"""Told of each piece of evidence as stored, by its name; None where it is gone."""
POLICIES, REVOKED, SIGNERS, PLATFORM, LIMITS = "policies", "revoked", "signers", "platform", "limits"
_GATHER = 0.02
_PULSE = 6
"""Seconds after which each watch begins anew: what is judged by must give a sign of life more often than every ten."""
_NONE: Mapping[str, object] = MappingProxyType({})


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What was known at one moment.

    Attributes:
        revision: grows with every swap.
        settings: the chart's.
        policies: every policy that compiles, by name.
        broken: name → reason, of every policy that does not.
        missing: names of policies that come with mlwarden and are not known (yet): by such a snapshot nothing may be judged good.
        namespaces: name → the Namespace's metadata and nothing else.
        images: digest → evidence.
        resolutions: reference as written → what it pointed at.
        proofs: digest → what is known about its signatures.
        revoked: what must not run any more.
        waits: how long the last answers took.
        nodes: name → platform, `os/architecture`, of every node that says.
        platform: what the platform puts into pods.
        limits: namespace → what its LimitRanges fill into pods; None: not read (yet), or nobody's business here.
    """

    revision: int
    settings: Settings
    policies: tuple[CompiledPolicy, ...] = ()
    broken: Mapping[str, str] = {}
    missing: tuple[str, ...] = ()
    namespaces: Mapping[str, Mapping[str, Any]] = {}
    images: Mapping[Digest, ImageFacts] = {}
    resolutions: Mapping[str, Resolution] = {}
    proofs: Mapping[Digest, Proofs] = {}
    revoked: Revoked = Revoked()
    waits: Waits = Waits()
    nodes: Mapping[str, str] = {}
    platform: Platform = Platform()
    limits: Mapping[str, Defaults] | None = None

    def governed(self, namespace: str) -> bool:
        """Whether mlwarden has a say there: everywhere but where the compiled rule says never."""
        return namespace not in self.settings.never_governed

    def profile(self, namespace: str) -> str:
        """The profile in force: the namespace's label, else the default. A namespace not seen yet has the default.

        An empty label is a label: it names a profile that does not exist, for the gate's selectors as well.
        """
        labels = (self.namespaces.get(namespace) or {}).get("labels")
        label = labels.get(PROFILE_LABEL) if isinstance(labels, dict) else None
        return label if isinstance(label, str) else self.settings.default_profile

    def facts(
        self,
        namespace: str,
        now: datetime,
        *,
        user: Mapping[str, object] = _NONE,
        operation: str = "CREATE",
        old: Mapping[str, object] | None = None,
        plural: str = "",
        audience: str | None = None,
    ) -> Facts:
        """Everything from outside that an evaluation in `namespace` may use, and who hears of it (as in `Facts`)."""
        metadata = self.namespaces.get(namespace)
        return Facts(
            now=now,
            namespace={"metadata": metadata} if metadata is not None else {},
            profile=self.profile(namespace),
            user=user,
            operation=operation,
            old=old,
            plural=plural,
            images=self.images,
            resolutions=self.resolutions,
            proofs=self.proofs,
            revoked=self.revoked,
            waits=self.waits,
            nodes=self.nodes,
            platform=self.platform,
            limits=self.limits.get(namespace, Defaults()) if self.limits is not None else None,
            audience=audience,
        )


class SnapshotSource:
    """Keeps the snapshot current.

    Args:
        client: of the API server.
        settings: the chart's.
        convert: `evidence.to_facts`.
        templates: whether templates are judged by it, which LimitRanges are read for.

    Attributes:
        current: the snapshot; before `ready` is set it is empty and must not be judged by.
        ready: set when all five collections were read once.
    """

    def __init__(self, client: Client, settings: Settings, *, convert: Convert, templates: bool = False) -> None:
        self._convert = convert
        self._compiled: dict[str, CompiledPolicy] = {}
        self._broken: dict[str, str] = {}
        self._spaces: dict[str, Mapping[str, Any]] = {}
        self._images: dict[Digest, ImageFacts] = {}
        self._resolutions: dict[str, Resolution] = {}
        self._proofs: dict[Digest, Proofs] = {}
        self._about: dict[str, str] = {}
        self._platforms: dict[str, str] = {}
        self._revocations: dict[str, Revocation] = {}
        self._unreadable: dict[str, str] = {}
        self._revoked = Revoked()
        self._indexes = Indexes()
        self._recent = Recent()
        self._changes: set[str] = set()
        self._dirty = asyncio.Event()
        self._listeners: list[Listener] = []
        self._readers: list[Reader] = []
        self._expected = frozenset(each.name for each in policy.shipped()) if settings.shipped_policies else frozenset()
        self.current = Snapshot(revision=0, settings=settings, missing=tuple(sorted(self._expected)))
        self.ready = asyncio.Event()
        self.policies = Informer(client, WARDEN_POLICY, on_change=self._policy, pulse=_PULSE)
        self.namespaces = Informer(client, NAMESPACE, on_change=self._namespace, pulse=_PULSE)
        self.revocations = Informer(client, REVOKED_ARTIFACT, on_change=self._revocation, pulse=_PULSE)
        self.evidence = Informer(client, IMAGE_EVIDENCE, on_change=self._evidence_changed, copy=False, pulse=_PULSE)
        self.nodes = Informer(client, NODE, on_change=self._node, copy=False, pulse=_PULSE)
        self.configuration = Configuration(client, settings, lambda: self._changed(PLATFORM))
        ranges = Informer(client, LIMIT_RANGE, on_change=lambda *_: self._changed(LIMITS), on_synced=lambda: self._changed(LIMITS))
        self.ranges = ranges if templates else None

    @property
    def informers(self) -> tuple[Informer, ...]:
        """All of them, for probes and metrics."""
        return self.policies, self.namespaces, self.revocations, self.evidence, self.nodes

    @property
    def age(self) -> float:
        """Seconds since the stream that was silent for longest gave a sign of life."""
        return max(informer.age for informer in self.informers)

    def subscribe(self, listener: Listener) -> None:
        """Has `listener` called after every swap, from the event loop."""
        self._listeners.append(listener)

    def read_evidence(self, reader: Reader) -> None:
        """Has `reader` told of every piece of evidence as it changes, from the event loop."""
        self._readers.append(reader)

    async def run(self) -> None:
        """Keeps the snapshot current until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in (*self.informers, *self.configuration.informers, *((self.ranges,) if self.ranges is not None else ())):
                tasks.create_task(informer.run())
            for informer in self.informers:
                await informer.synced.wait()
            self._swap()
            gc.collect()
            gc.freeze()  # what is here now stays: the tail of latencies is the collector walking the imported modules
            self.ready.set()
            while True:
                await self._dirty.wait()
                await asyncio.sleep(_GATHER)
                self._swap()

    def settle(self) -> None:
        """Brings into the snapshot what has come and is still being gathered."""
        if self._dirty.is_set():
            self._swap()

    def _swap(self) -> None:
        self._dirty.clear()
        changes, self._changes = frozenset(self._changes), set()
        self.current = Snapshot(
            revision=self.current.revision + 1,
            settings=self.current.settings,
            policies=tuple(compiled for _, compiled in sorted(self._compiled.items())),
            broken=dict(self._broken),
            missing=tuple(sorted(self._expected - self._compiled.keys() - self._broken.keys())),
            namespaces=dict(self._spaces),
            images=dict(self._images),
            resolutions=dict(self._resolutions),
            proofs=dict(self._proofs),
            revoked=self._revoked,
            waits=self._recent.waits,
            nodes=dict(self._platforms),
            platform=self.configuration.platform,
            limits=self._limits() if LIMITS in changes else self.current.limits,
        )
        for listener in self._listeners:
            listener(self.current, changes)

    def _limits(self) -> dict[str, Defaults] | None:
        """What LimitRanges fill in, None where they were not read: worked out when one changes, not whenever evidence comes."""
        return by_namespace(self.ranges) if self.ranges is not None and self.ranges.synced.is_set() else None

    def _changed(self, what: str) -> None:
        self._changes.add(what)
        self._dirty.set()

    def _policy(self, key: Key, obj: dict[str, Any] | None) -> None:
        name = key[1]
        known = self._compiled.pop(name, None)
        self._broken.pop(name, None)
        if obj is not None:
            try:
                self._compiled[name] = self._compile(key, obj, known)
            except Error as error:
                LOG.warning("policy %s: %s", name, error)
                self._broken[name] = error.message
            except Exception as error:  # a defect of ours must not make a policy vanish
                LOG.exception("policy %s", name)
                self._broken[name] = f"{type(error).__name__}: {error}"
            if self._compiled.get(name) is known and known is not None:
                return
        self._changed(POLICIES)

    def _compile(self, key: Key, obj: dict[str, Any], known: CompiledPolicy | None) -> CompiledPolicy:
        if key in self.policies.unreadable:
            raise PolicyError(self.policies.unreadable[key])
        parsed = policy.parse(obj)
        return known if known is not None and known.policy == parsed else policy.compile_policy(parsed)

    def _namespace(self, key: Key, obj: dict[str, Any] | None) -> None:
        if obj is None:
            self._spaces.pop(key[1], None)
        else:
            metadata = obj.get("metadata") or {}
            self._spaces[key[1]] = {field: metadata.get(field) for field in ("name", "uid", "labels", "annotations") if metadata.get(field)}
        self._changed(f"namespace/{key[1]}")

    def _node(self, key: Key, obj: dict[str, Any] | None) -> None:
        platform = _platform(obj) if obj is not None else ""
        if self._platforms.get(key[1], "") == platform:  # a node says every few minutes that it lives
            return
        if platform:
            self._platforms[key[1]] = platform
        else:
            self._platforms.pop(key[1], None)
        self._changed(f"node/{key[1]}")

    def _revocation(self, key: Key, obj: dict[str, Any] | None) -> None:
        name = key[1]
        before = self._revocations.pop(name, None), self._unreadable.pop(name, "")
        if obj is not None:
            try:
                if key in self.revocations.unreadable:
                    raise PolicyError(self.revocations.unreadable[key])
                self._revocations[name] = policy.read_revocation(obj)
            except Error as error:
                LOG.warning("revocation %s: %s", name, error)
                self._unreadable[name] = error.message
        after = self._revocations.get(name), self._unreadable.get(name, "")
        if before == after:  # its status is the controller's own
            return
        self._revoke()
        if any(each is not None and not each.spec.digest for each in (before[0], after[0])):
            self._changed(SIGNERS)

    def _revoke(self) -> None:
        before = self._revoked.digests
        self._revoked = Revoked.of(self._revocations.values(), self._unreadable, self._indexes.related)
        self._changed(REVOKED)
        for each in before.keys() | self._revoked.digests.keys():
            if before.get(each) != self._revoked.digests.get(each):
                self._changed(each)

    def _evidence_changed(self, key: Key, obj: dict[str, Any] | None) -> None:
        for reader in self._readers:
            reader(key[1], obj)
        self._evidence(key, obj)

    def _evidence(self, key: Key, obj: dict[str, Any] | None) -> None:
        about = self._about.pop(key[1], None)
        facts: ImageFacts | None = None
        if about is not None:
            (self._proofs if key[1].startswith("signatures-") else self._images).pop(Digest(about), None)
            self._resolutions.pop(about, None)
        if obj is not None:
            try:
                subject, known = self._convert(obj)
            except Error as error:
                LOG.warning("evidence %s: %s", key[1], error)
            except Exception:  # no evidence is Unknown; the other evidence stands
                LOG.exception("evidence %s", key[1])
            else:
                self._about[key[1]] = about = str(subject)
                self._recent.note(about, known)
                match known:
                    case ImageFacts():
                        self._images[known.digest] = facts = known
                    case Proofs():
                        self._proofs[known.digest] = known
                    case _:
                        self._resolutions[about] = known
        if about is not None:
            self._changed(about)
            if key[1].startswith("sha256-") and not self._revoked.digests.keys().isdisjoint(self._indexes.note(Digest(about), facts)):
                self._revoke()


def _platform(node: dict[str, Any]) -> str:
    """What the kubelet says of itself, `""` where it does not."""
    status = node.get("status")
    found = status.get("nodeInfo") if isinstance(status, dict) else None
    said = [found.get(field) for field in ("operatingSystem", "architecture")] if isinstance(found, dict) else []
    return "/".join(map(str, said)) if said and all(said) else ""

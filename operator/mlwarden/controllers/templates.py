"""Asks for what the pods of a template will be judged by, before there are any: a Notebook, a RayCluster, a Deployment of no replicas.

Seen as they are stored, by the leader, and not by the webhook: what anybody can send to a webhook must have no effect. Of every kind of the
table that is served here one list is read, page by page, and then one watch; nothing is kept of an object but its generation. Lists are
read one after the other, so that large objects do not come together. A template whose images are all known costs an evaluation and no
request.

Rejected: informers (they keep or hand over whole collections at once; here an object is looked at, and the next one waits for that).
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from mlwarden import engine, workloads
from mlwarden.cluster import clock, decode
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, NotFoundError
from mlwarden.cluster.informer import ended
from mlwarden.cluster.kinds import Kind
from mlwarden.cluster.retries import pause
from mlwarden.cluster.snapshot import SnapshotSource
from mlwarden.evidence.bounds import Unanswered
from mlwarden.evidence.requests import Requests, requester_for
from mlwarden.model.workload import Json

LOG = logging.getLogger(__name__)
_DISCOVER = 30.0
"""Seconds between looks for kinds that were installed meanwhile."""
_PAGE = 20
"""Objects that are here at once, as bytes; decoded is one after the other, because one of a megabyte may take twenty."""
_STEP = 0.02
"""Seconds of judging after which others get their turn, for as long again."""
_QUICKEST, _SLOWEST = 2.0, 60.0
_KNOWN = 50_000
_PATIENCE = 5.0
"""Seconds in which a new namespace has to come to be known: its profile says what is asked."""
_BY_OTHERS = frozenset({"ReplicaSet", "Job"})
"""Made by Kubernetes' own controllers from a template that was looked at, where a controller owns them."""


class _Owner(msgspec.Struct, frozen=True):
    controller: bool | None = None


class _Metadata(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is read of an object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


_NOTHING = msgspec.Raw(b"")


class _Object(msgspec.Struct, frozen=True):
    """What is read of an object: neither its managed fields nor its status."""

    metadata: _Metadata
    spec: msgspec.Raw = _NOTHING
    template: msgspec.Raw = _NOTHING


_OBJECT = msgspec.json.Decoder(_Object)


class Templates:
    """Looks at templates.

    Args:
        client: of the API server.
        source: of snapshots.
        now: the clock.
    """

    def __init__(self, client: Client, source: SnapshotSource, *, now: Callable[[], datetime] = clock.now) -> None:
        self._client, self._source, self._now = client, source, now
        unanswered = Unanswered(source.current.settings.evidence_per_namespace)
        source.read_evidence(unanswered.changed)
        self._requests = Requests(client, unanswered=unanswered, waits=None)
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._changed = asyncio.Event()
        self._listing = asyncio.Lock()
        source.subscribe(lambda _snapshot, _changes: self._changed.set())

    async def lead(self) -> None:
        """Works until cancelled; another leader begins anew."""
        self._seen.clear()
        await self._source.ready.wait()
        followed: dict[Kind, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                for kind, name in await self._served():
                    if kind not in followed or followed[kind].done():
                        followed[kind] = tasks.create_task(self._follow(kind, name))
                await asyncio.sleep(_DISCOVER)

    async def _served(self) -> list[tuple[Kind, str]]:
        """Every kind of the table but pods that this API server has, as it prefers to serve it."""
        found: list[tuple[Kind, str]] = []
        groups: dict[str, dict[str, str]] = {}
        for row in workloads.sent():
            if row.kind != "Pod":
                groups.setdefault(row.group, {})[row.resource] = row.kind
        try:
            preferred = await self._preferred()
        except ApiError as error:
            LOG.warning("which kinds there are cannot be found out: %s", error)
            return []
        for group, resources in sorted(groups.items()):
            if group not in preferred:
                continue
            version = preferred[group]
            try:
                listed = await self._read(f"/apis/{group}/{version}" if group else f"/api/{version}")
            except NotFoundError:
                continue
            except ApiError as error:
                LOG.warning("which kinds there are in %s cannot be found out: %s", group or "the core group", error)
                continue
            found += [
                (Kind(group=group, version=version, plural=each["name"]), resources[each["name"]])
                for each in listed.get("resources") or ()
                if each.get("namespaced") and each.get("name") in resources and "watch" in (each.get("verbs") or ())
            ]
        return found

    async def _preferred(self) -> dict[str, str]:
        """Which version of each API group the server prefers: one question for all of them."""
        groups = (await self._read("/apis")).get("groups") or ()
        return {"": "v1"} | {each["name"]: str((each.get("preferredVersion") or {}).get("version") or "v1") for each in groups}

    async def _read(self, path: str) -> dict[str, Any]:
        return decode.whole(await self._client.request("GET", path))

    async def _follow(self, kind: Kind, name: str) -> None:
        """Looks at all objects of a kind, and at those that change, until it is not served any more."""
        version, failures = "", 0
        while True:
            try:
                version = version or await self._list(kind, name)
                version = await self._watch(kind, name, version)
                failures = 0
            except NotFoundError:
                return
            except ApiError as error:
                LOG.log(logging.DEBUG if failures else logging.INFO, "templates of %s: %s", kind.plural, error)
                version, failures = "", failures + 1
                await asyncio.sleep(pause(failures, first=_QUICKEST, longest=_SLOWEST))

    async def _list(self, kind: Kind, name: str) -> str:
        version = ""
        async with self._listing:
            async for page in self._client.pages(kind, read=lambda raw: ({"raw": raw}, ""), limit=_PAGE):
                version = page.version
                for item, _ in page.items:
                    await self._look(kind, name, read(item["raw"])[0])
        return version

    async def _watch(self, kind: Kind, name: str, version: str) -> str:
        async for line in self._client.watch(kind, version=version):
            if not line:
                continue
            event = decode.event(line)
            if event.type == "ERROR":
                raise ended(*decode.item(event.object))
            obj, _ = read(event.object)
            version = str((obj.get("metadata") or {}).get("resourceVersion") or version)
            if event.type in {"ADDED", "MODIFIED"}:
                await self._look(kind, name, obj)
        return version

    async def _look(self, kind: Kind, name: str, obj: Json) -> None:
        """Asks for what is missing, where the object says something new."""
        metadata = obj.get("metadata") or {}
        uid, generation = metadata.get("uid", ""), metadata.get("generation", 0)
        namespace = str(metadata.get("namespace") or "")
        owned = name in _BY_OTHERS and any(each.get("controller") for each in metadata.get("ownerReferences") or ())
        if owned or not uid or not self._source.current.governed(namespace) or (generation and self._seen.get(uid) == generation):
            return
        await self._known(namespace)
        try:
            await self._ask({**obj, "apiVersion": kind.api_version, "kind": name}, namespace, kind.plural)
        except Exception:  # one template that makes us stumble does not stop the others
            LOG.exception("template %s %s/%s", name, namespace, metadata.get("name"))
        self._seen[uid] = generation
        self._seen.move_to_end(uid)
        while len(self._seen) > _KNOWN:
            self._seen.popitem(last=False)

    async def _known(self, namespace: str) -> None:
        """Waits until a namespace is known, for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while namespace not in self._source.current.namespaces:
                    self._changed.clear()
                    await self._changed.wait()

    async def _ask(self, obj: Json, namespace: str, plural: str) -> None:
        loop, snapshot, now = asyncio.get_running_loop(), self._source.current, self._now()
        began, workload = loop.time(), workloads.extract(obj)
        facts = snapshot.facts(namespace, now, plural=plural)
        verdict = engine.evaluate(workload, snapshot.policies, facts, snapshot.settings, broken=snapshot.broken)
        spent = loop.time() - began
        if verdict.wanted and not verdict.is_refused:
            await self._requests.ensure(verdict.wanted, now, requester_for(workload, namespace))
        elif spent > _STEP:
            await asyncio.sleep(spent)
        else:
            await asyncio.sleep(0)


def read(raw: msgspec.Raw) -> tuple[dict[str, Any], str]:
    """Returns what is needed of a template, or all of it where it has another form than it should."""
    try:
        found = _OBJECT.decode(raw)
        obj: dict[str, Any] = {"metadata": msgspec.to_builtins(found.metadata)}
        for field, content in (("spec", found.spec), ("template", found.template)):
            if bytes(content):
                obj[field] = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode.item(raw)
    return obj, ""

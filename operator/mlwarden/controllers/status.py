"""`WardenPolicy` → status, as a kopf operator that runs while this replica leads.

kopf is right here: it lists and watches our own few resources, retries, and patches the status. Only `on.event` is used: level-triggered,
nothing is written on the object but its status. It is started anew with every leadership, so the first list brings every policy.

It has a thread and an event loop of its own. In ours it would take SIGTERM for itself, and at its end cancel every task that began after
it did, ours too (kopf/_core/reactor/running.py, `spawn_tasks`, `run_tasks`).

Rejected: kopf's peering (it pauses everybody when priorities are equal), its default login (it imports clients we do not need) and its
posting of log lines as Events.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Container, Mapping
from datetime import UTC, datetime
from typing import Any

import kopf
import msgspec

from mlwarden import policy
from mlwarden.cluster import clock
from mlwarden.controllers.acceptance import KEPT, WAITS
from mlwarden.controllers.generated import editors, is_shipped
from mlwarden.errors import ClusterError, Error
from mlwarden.model.workload import Json
from mlwarden.policy import ACCEPTED, COMPILED, READY

LOG = logging.getLogger(__name__)
SHIPPED = "Shipped"
"""Condition of a policy that came with mlwarden: True while it is as it came."""
INJECTED = "InjectedContainers"
"""Condition of a policy that asks of each container: False where it fails what the platform puts into pods."""
Injected = Callable[[policy.CompiledPolicy, datetime], tuple[bool, str] | None]
Status = Callable[[Mapping[str, Json], datetime], dict[str, Json]]
_NO_PLACE = (
    "webhook and release go by it, the API server itself does not: each of the hundred places for a cluster's own policies is taken; put"
    " policies together, or delete one that nobody needs"
)
Connection = Callable[[], kopf.ConnectionInfo]


def status_of(
    obj: Mapping[str, Json],
    now: datetime,
    injected: Injected = lambda _compiled, _now: None,
    *,
    left: Container[str] = (),
) -> dict[str, Json]:
    """Returns the status of a `WardenPolicy` as stored. Never raises: what cannot be read is a condition with the reason.

    Args:
        obj: as stored.
        now: the time.
        injected: whether what the platform puts into pods passes, and a line about it; None where there is nothing to say.
        left: names of the cluster's own policies that found no place in the API server.
    """
    metadata, before = obj.get("metadata") or {}, obj.get("status") or {}
    generation = metadata.get("generation") or 0
    requirement = ""
    try:
        parsed = policy.parse(obj)
        requirement = next(iter(obj["spec"]["requirement"]))
        compiled = policy.compile_policy(parsed)
    except Error as error:
        text = error.message[:1900]
        conditions = [
            _condition(READY, ok=False, reason="DoesNotCompile", message=f"Unknown wherever it would be in force: {text}"),
            _condition(COMPILED, ok=False, reason="DoesNotCompile", message=text),
        ]
    else:
        why_not, possible = policy.not_compiled(parsed), "NotPossible"
        if not why_not and parsed.name in left and not is_shipped(obj):
            why_not, possible = _NO_PLACE, "NoPlace"
        conditions = [
            _condition(READY, ok=True, reason="InForce", message=_where(parsed.spec.profiles)),
            _condition(
                COMPILED,
                ok=not why_not,
                reason=possible if why_not else "ByTheApiServer",
                message=why_not or _compiled(obj, parsed.name),
            ),
        ]
        if said := injected(compiled, now):
            ok, message = said
            conditions.append(_condition(INJECTED, ok=ok, reason="Passes" if ok else "Fails", message=message))
    if is_shipped(obj):
        who = ", ".join(editors(obj))
        edited = f"edited by {who} and left alone; delete it to have the shipped one back"
        conditions.append(_condition(SHIPPED, ok=not who, reason="Edited" if who else "AsShipped", message=edited if who else "as shipped"))
        conditions.append(_accepted(metadata.get("annotations") or {}))
    for condition in conditions:
        condition["observedGeneration"] = generation
        condition["lastTransitionTime"] = _since(before, condition, now)
    return {"observedGeneration": generation, "requirement": requirement, "conditions": conditions}


async def run(connection: Connection, status: Status = status_of, *, now: Callable[[], datetime] = clock.now) -> None:
    """Keeps the status of every policy until cancelled.

    Args:
        connection: how to reach the API server; asked again when credentials expire.
        status: returns the status of a policy as stored.
        now: the clock.
    """
    stop = threading.Event()
    work = asyncio.get_running_loop().run_in_executor(None, _operate, connection, status, now, stop)
    try:
        await asyncio.shield(work)
    finally:
        stop.set()
        await asyncio.shield(work)  # whoever leads next must not find us writing


def _operate(connection: Connection, status: Status, now: Callable[[], datetime], stop: threading.Event) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return connection()

    @kopf.on.event("mlwarden.io", "v1alpha1", "wardenpolicies", registry=registry)
    async def changed(body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
        obj = msgspec.to_builtins(dict(body))
        if obj.get("metadata", {}).get("deletionTimestamp"):
            return
        wanted = status(obj, now())
        if wanted != obj.get("status"):
            patch.status.update(wanted)

    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 240
    settings.networking.request_timeout = 15
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that signals are not its own here
    asyncio.run(kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True, stop_flag=stop))
    if not stop.is_set():
        raise ClusterError("the operator that keeps the policies' status ended by itself")


def _accepted(annotations: Mapping[str, Json]) -> dict[str, Json]:
    """Whether this is what is to be in force, or waits for the administrator."""
    if version := annotations.get(WAITS):
        text = f"new or changed in {version}: it only warns until the chart's packs.accept is {version}"
        return _condition(ACCEPTED, ok=False, reason="Waits", message=text)
    if version := annotations.get(KEPT):
        text = f"in force as it was before {version}, until the chart's packs.accept is {version}"
        return _condition(ACCEPTED, ok=True, reason="AsBefore", message=text)
    return _condition(ACCEPTED, ok=True, reason="Current", message="the shipped one is in force")


def _condition(kind: str, *, ok: bool, reason: str, message: str) -> dict[str, Json]:
    return {"type": kind, "status": "True" if ok else "False", "reason": reason, "message": message}


def _compiled(obj: Mapping[str, Json], name: str) -> str:
    where = f"mlwarden-policy-{name}" if is_shipped(obj) else f"mlwarden-own-… with the annotation mlwarden.io/policy: {name}"
    return f"ValidatingAdmissionPolicy {where}"


def _where(profiles: Mapping[str, Any]) -> str:
    return "in force: " + ", ".join(f"{name or '*'}: {action}" for name, action in sorted(profiles.items()))


def _since(before: Mapping[str, Json], condition: Mapping[str, Json], now: datetime) -> str:
    for known in before.get("conditions") or ():
        if isinstance(known, Mapping) and known.get("type") == condition["type"] and known.get("status") == condition["status"]:
            since = known.get("lastTransitionTime")
            if isinstance(since, str) and since:
                return since
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

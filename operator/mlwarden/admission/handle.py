"""From the bytes of a review to the bytes of the answer: a pure function of what is asked, where, what is known, and the time.

Every way out is an explicit decision. What cannot be read is refused in words, or, where not even a uid can be found, is no review (400).
What mlwarden does not know (an operation, a subresource, an object that is not of the kind it was sent as) is refused; nothing is allowed
because nobody thought of it. To delete starts nothing, and to connect starts nothing that was not judged: both pass.

`/mutate` tells the person at once: it refuses, warns, pins the tags of pods, and gives pinned ones their digest back. It may be down: the
gate inside the API server holds pods meanwhile. In a namespace that is not known yet (created milliseconds ago) it speaks by the default
profile: what decides is the gate.
`/validate` judges what cannot be held, and fails closed: ephemeral containers, and pods that name their node. In a namespace that is not
known yet it refuses with "try again", because the profile decides and nothing judges these again.
`/gate` adds the scheduling gate where the API server cannot.
`/policy` refuses a `WardenPolicy` that does not compile; one that came in while nobody answered is `Unknown` wherever it would be in force.

What was known when the API server was last heard of is not what is so: after ten seconds of silence nobody is judged by it (`outage`).
"""

import contextlib
import logging
from collections.abc import Mapping
from datetime import datetime

import msgspec

from mlwarden import engine, policy
from mlwarden.admission import debug, response, review
from mlwarden.admission.sender import ANYBODY, Sender
from mlwarden.checks.text import clean
from mlwarden.cluster import Snapshot
from mlwarden.cluster.events import Subject
from mlwarden.errors import Error, InputError
from mlwarden.evidence.requests import purpose_of
from mlwarden.evidence.store import Requester
from mlwarden.model.finding import Decision, Verdict
from mlwarden.model.policy import GATE
from mlwarden.model.workload import Json, Workload
from mlwarden.policy.account import MIRROR
from mlwarden.workloads import extract

LOG = logging.getLogger(__name__)
MUTATE, VALIDATE, GATE_PATH, POLICY = "/mutate", "/validate", "/gate", "/policy"
PATHS = frozenset({MUTATE, VALIDATE, GATE_PATH, POLICY})
OWN_ANNOTATIONS = ("mlwarden.io/judged", "mlwarden.io/break-glass")
"""What nobody brings along on a pod that is created; the same two as the gating policy takes off."""
EPHEMERAL = "ephemeralcontainers"
NEED_NOTHING = frozenset({GATE_PATH, POLICY})
"""What is answered without looking at a snapshot."""
_PASS = frozenset({"DELETE", "CONNECT"})
_NOTHING_RUNS = frozenset({"status", "scale"})


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back, and what is to be done about it.

    Attributes:
        status: HTTP status: 200 with a review, else plain text.
        body: the bytes.
        decision: for metrics: `allow`, `warn`, `hold`, `deny`, `skip`, `error`.
        wanted: image references whose evidence is to be asked for; empty on a dry run.
        requester: for whom.
        is_scarce: whether anybody could have sent this, so that only a few may be asked for.
        told: an Event to write; None on a dry run, and where anybody could have sent this.
    """

    status: int = 200
    body: bytes
    decision: str
    wanted: tuple[str, ...] = ()
    requester: Requester = Requester()
    is_scarce: bool = False
    told: debug.Told | None = None


def handle(body: bytes, path: str, snapshot: Snapshot, now: datetime, sender: Sender = ANYBODY) -> Answer:
    """Returns the answer to one review. Never raises.

    Args:
        body: as received, complete.
        path: one of `PATHS`.
        snapshot: what is known of the cluster.
        now: UTC.
        sender: who sent it.
    """
    try:
        request = review.read(body)
    except InputError as error:
        uid = review.uid_of(body)
        if not uid:
            return Answer(status=400, body=error.message.encode(), decision="error")
        return Answer(body=response.deny(uid, f"mlwarden refuses what it cannot read: {error.message}", code=400), decision="error")
    try:
        return _decide(request, path, snapshot, now, known=sender.speaks_for(request.resource.group))
    except RecursionError:
        return _refuse(request, "mlwarden refuses what it cannot read: the object is nested too deeply", code=400)
    except Exception:  # a defect of ours is a refusal with words; a 500 would be an allow wherever the failurePolicy is Ignore
        LOG.exception("review %s of %s", request.uid, request.resource)
        return _refuse(request, "mlwarden could not judge this because of an error of its own; its log has the details", code=503)


def outage(body: bytes, path: str, snapshot: Snapshot, silence: float) -> Answer:
    """Returns the answer while nothing is heard from the API server: none, so that each rule's failurePolicy decides.

    Except where it would refuse anyway, as far as is known: there the refusal is a sentence.

    Args:
        body: as received, complete.
        path: one that is not in `NEED_NOTHING`.
        snapshot: what was known.
        silence: seconds.
    """
    said = (
        f"mlwarden has heard nothing from the API server for {silence:.0f} s and does not judge by what it knew then: try again in a few"
        " seconds"
    )
    with contextlib.suppress(InputError):
        request = review.read(body)
        closed = path == VALIDATE or request.sub_resource == EPHEMERAL
        if closed and snapshot.settings.rollout != "audit" and snapshot.settings.holds(snapshot.profile(request.namespace or "")):
            return _refuse(request, said, code=503)
    return Answer(status=503, body=said.encode(), decision="error")


def _decide(request: review.Request, path: str, snapshot: Snapshot, now: datetime, *, known: bool) -> Answer:
    namespace = request.namespace or ""
    if _passes(request, path, snapshot):
        return Answer(body=response.allow(request.uid), decision="skip")
    obj, reason = request.object, _not_understood(request)
    if obj is None or reason:
        return _refuse(request, reason, code=400)
    if path == GATE_PATH:
        return _gate(request, obj)
    if path == POLICY:
        return _policy(request, obj)
    ephemeral = request.sub_resource == EPHEMERAL
    old = request.old_object if request.operation == "UPDATE" else None
    workload, back, unchanged = _changed(request, path, obj, old)
    if unchanged:
        return Answer(body=response.allow(request.uid, patch=back), decision="skip")
    if path == VALIDATE and namespace not in snapshot.namespaces:
        return _refuse(
            request, f"mlwarden has not seen the namespace {namespace!r} yet, and its profile decides: try again in a second", code=503
        )
    facts = snapshot.facts(
        namespace,
        now,
        user=request.user_info or {},
        operation=request.operation,
        old=old,
        plural=request.resource.resource,
        audience=namespace if known else "",
    )
    verdict = engine.evaluate(
        workload,
        snapshot.policies,
        facts,
        snapshot.settings,
        holdable=False if ephemeral or path == VALIDATE else None,
        broken=snapshot.broken,
    )
    audit, told = engine.audit(verdict), None
    # What is let pass by `/mutate` comes again to `/validate`, with its images as they will be stored.
    if ephemeral and (path == VALIDATE or verdict.decision is Decision.DENY):
        record, told = _debugging(request, workload, verdict)
        audit |= record
    # What is refused for what it is asks for nothing: or a thousand refused objects would be a thousand images to scan.
    refused, denied = verdict.is_refused, verdict.decision is Decision.DENY
    # What is stored is asked about by who sees it stored; here, only what is refused until something is known about it.
    asks = denied and namespace in snapshot.namespaces
    wanted = () if request.dry_run or refused or not asks else verdict.wanted
    requester = Requester(purpose=purpose_of(workload), namespace=namespace) if wanted else Requester()
    if denied:
        again = "" if refused else engine.again(verdict.wanted, facts)
        body = response.deny(request.uid, engine.refusal(verdict, workload.resource, again=again), audit=audit)
        return Answer(body=body, decision="deny", wanted=wanted, requester=requester, is_scarce=not known, told=told if known else None)
    warnings = engine.warnings(verdict) if path == MUTATE else ()
    pinned = [*response.pins(verdict.pins, obj), *response.kept_to(verdict.nodes, obj)] if path == MUTATE and workload.is_pod else []
    patch = [*back, *pinned]
    decision = "hold" if verdict.decision is Decision.HOLD else "warn" if warnings else "allow"
    body = response.allow(request.uid, warnings=warnings, audit=audit, patch=patch)
    return Answer(body=body, decision=decision, told=told if known else None)


def _changed(
    request: review.Request, path: str, obj: Mapping[str, Json], old: Mapping[str, Json] | None
) -> tuple[Workload, list[dict[str, Json]], bool]:
    """The workload as it will be, what an update gets back of what was written before, and whether it changes nothing that is judged."""
    namespace, name = request.namespace or "", request.name or ""
    workload = _placed(extract(obj), namespace, name)
    if old is None:
        return workload, [], False
    before, ephemeral = extract(old), request.sub_resource == EPHEMERAL
    back: list[dict[str, Json]] = []
    if path == MUTATE and not ephemeral:
        images = engine.restored(before, workload)
        back = [*response.pins(images, obj), *response.affinity(engine.restored_affinity(before, workload))]
        if images:
            workload = _placed(extract(engine.with_images(obj, images)), namespace, name)
    return workload, back, (_is_going(old) and not ephemeral) or not engine.relevant_change(before, workload)


def _passes(request: review.Request, path: str, snapshot: Snapshot) -> bool:
    """Whether there is nothing to judge, whatever it says."""
    # Policies have no namespace, and the pod that finds out whether the gate works is in our own.
    governed = path in {GATE_PATH, POLICY} or snapshot.governed(request.namespace or "")
    return request.operation in _PASS or not governed or request.sub_resource in _NOTHING_RUNS or _is_mirror(request)


def _is_mirror(request: review.Request) -> bool:
    """A node shows what it runs from a file of its own. It runs already, and to refuse it would only hide it."""
    groups, metadata = (request.user_info or {}).get("groups"), (request.object or {}).get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    shown = isinstance(annotations, Mapping) and MIRROR in annotations
    pod = (request.resource.resource, request.sub_resource or "", request.operation) == ("pods", "", "CREATE")
    return pod and shown and isinstance(groups, list) and "system:nodes" in groups


def _debugging(request: review.Request, workload: Workload, verdict: Verdict) -> tuple[dict[str, str], debug.Told | None]:
    """What is recorded about the debug containers that an update adds: audit annotations, and an Event unless nothing will happen."""
    name = (request.user_info or {}).get("username")
    person = name if isinstance(name, str) else ""
    containers = debug.added(workload.object, request.old_object, verdict.pins)
    if not containers:
        return {}, None
    metadata, resource = workload.object.get("metadata"), workload.resource
    uid = metadata.get("uid") if isinstance(metadata, Mapping) else None
    subject = Subject(
        api_version="v1", kind="Pod", namespace=resource.namespace, name=resource.name, uid=uid if isinstance(uid, str) else ""
    )
    told = None if request.dry_run else debug.told(containers, person, subject, verdict)
    return debug.annotations(containers, person), told


def _not_understood(request: review.Request) -> str:
    """What mlwarden does not know of a request, in words; `""` where it can be judged."""
    if request.operation not in {"CREATE", "UPDATE"}:
        return f"mlwarden does not know the operation {request.operation[:40]!r}"
    if request.sub_resource and (request.resource.resource, request.sub_resource) != ("pods", EPHEMERAL):
        return f"mlwarden does not know the subresource {request.sub_resource[:60]!r}"
    obj = request.object
    if obj is None:
        return f"mlwarden refuses a {request.operation} without an object"
    if obj.get("kind") != request.kind.kind or obj.get("apiVersion") != request.kind.api_version:
        return f"mlwarden refuses an object that is not the {request.kind.kind[:60]!r} it was sent as"
    return ""


def _placed(workload: Workload, namespace: str, name: str) -> Workload:
    """The workload with the request's namespace and name: on CREATE the object itself may not have them yet."""
    resource = workload.resource
    if resource.namespace == namespace and resource.name:
        return workload
    return msgspec.structs.replace(workload, resource=msgspec.structs.replace(resource, namespace=namespace, name=resource.name or name))


def _is_going(obj: Mapping[str, Json]) -> bool:
    """Being deleted: only finalizers are left to change, and nothing starts any more.

    Asked of the object as stored: anybody can write a deletion timestamp into an update, and the API server looks at it only after this.
    """
    metadata = obj.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp"))


def _gate(request: review.Request, obj: Mapping[str, Json]) -> Answer:
    spec, metadata = obj.get("spec"), obj.get("metadata")
    if request.operation != "CREATE" or request.resource.resource != "pods" or not isinstance(spec, dict):
        return _refuse(request, "mlwarden's gate is for pods that are created", code=400)
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    patch: list[dict[str, Json]] = [
        {"op": "remove", "path": "/metadata/annotations/" + key.replace("/", "~1")}
        for key in OWN_ANNOTATIONS
        if isinstance(annotations, dict) and key in annotations
    ]
    gates = spec.get("schedulingGates")
    if not isinstance(gates, list):
        patch.append({"op": "add", "path": "/spec/schedulingGates", "value": [{"name": GATE}]})
    elif not any(isinstance(gate, dict) and gate.get("name") == GATE for gate in gates):
        patch.append({"op": "add", "path": "/spec/schedulingGates/-", "value": {"name": GATE}})
    if spec.get("nodeName"):
        patch = [operation for operation in patch if operation["op"] == "remove"]
    return Answer(body=response.allow(request.uid, patch=patch), decision="hold")


def _policy(request: review.Request, obj: Mapping[str, Json]) -> Answer:
    if request.resource.resource != "wardenpolicies":
        return _refuse(request, f"mlwarden judges no {request.resource.resource[:60]!r} here", code=400)
    try:
        policy.compile_policy(policy.accepted(policy.parse(obj)))
    except Error as error:
        return Answer(
            body=response.deny(request.uid, f"this policy does not compile: {clean(error.message, 900)}", code=422), decision="deny"
        )
    return Answer(body=response.allow(request.uid), decision="allow")


def _refuse(request: review.Request, message: str, *, code: int) -> Answer:
    return Answer(body=response.deny(request.uid, message, code=code), decision="error")

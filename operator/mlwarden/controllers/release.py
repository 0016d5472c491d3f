"""What to do with one held pod, decided without I/O: release it, wait, or leave it where it is and say why.

The pod is judged as it is stored, so whatever changed it on the way in is judged, too. The release is one PATCH: it takes off our gate
only, leaves a seal, and carries the resource version it judged, so that a pod that changed meanwhile is judged again instead (409). Images
by tag are pinned before, while the pod is still held, and judged again as stored: the guard lets no image change in the request that
releases, or a webhook on updates could exchange it there.

Who writes a field owns it, as server-side apply sees it, so the release also gives back what the pinning took: otherwise the next apply of
the same manifest would be refused for a conflict with mlwarden.

Rejected: a JSON patch with a `test` on the resource version (a mismatch is a 422, which looks like any other invalid patch).
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlwarden import engine, workloads
from mlwarden.checks.text import NAME_LENGTH, VALUE_LENGTH, clean
from mlwarden.cluster.client import FIELD_MANAGER
from mlwarden.controllers.gate import JUDGED
from mlwarden.controllers.owners import controller_of
from mlwarden.controllers.recreation import kept
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Decision, Verdict
from mlwarden.model.policy import GATE, Settings
from mlwarden.model.workload import Image, Json
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads import nodes as places

_FRESH = timedelta(seconds=30)
"""How old a resolution may be for a pod to be made anew by it: the webhook believes it for a minute."""
_CONTAINER_PATH = re.compile(r"spec\.(containers|initContainers)\[(\d+)\]\.image")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is to be done.

    Attributes:
        decision: Admit releases, Hold waits, Deny leaves it held until something changes.
        patch: the strategic merge patch that releases or, where `pins`, pins; where decision is Admit.
        pins: the patch only pins images, and keeps the pod to the nodes they were judged for: what comes back is to be judged again.
        reason: one line for a person, where it is not released.
        wanted: image references whose evidence is missing.
        recreate: it is good and can never be released, and one made anew now could be.
    """

    decision: Decision
    patch: dict[str, Json] | None = None
    pins: bool = False
    reason: str = ""
    wanted: tuple[str, ...] = ()
    recreate: bool = False


def judge(
    pod: Json, policies: tuple[CompiledPolicy, ...], facts: Facts, settings: Settings, *, broken: dict[str, str], revision: str
) -> Judgement:
    """Returns what to do with a pod that carries our gate.

    Args:
        pod: as stored.
        policies: all there are.
        facts: with the namespace of the pod.
        settings: the chart's.
        broken: policies that do not compile.
        revision: of the policies and evidence it is judged by; part of the seal.
    """
    workload = workloads.extract(pod)
    verdict = engine.evaluate(workload, policies, facts, settings, holdable=True, broken=broken)
    if verdict.decision is Decision.DENY:
        return Judgement(decision=verdict.decision, reason=engine.held(verdict), wanted=verdict.wanted)
    fixed = list(workloads.tagged_volumes(workload))
    if verdict.decision is Decision.HOLD:
        if fixed and (left := kept(pod)):  # whatever is found out: nobody need wait for it to be told
            return Judgement(decision=Decision.DENY, reason=_never(fixed[0], verdict, left), wanted=verdict.wanted)
        return Judgement(decision=verdict.decision, reason=engine.held(verdict) + meanwhile(pod), wanted=verdict.wanted)
    stuck = [image for image in fixed if image.path in verdict.pins]
    if stuck:
        return _stuck(pod, stuck, verdict, facts)
    if verdict.pins or verdict.nodes is not None:
        return Judgement(decision=Decision.ADMIT, patch=pin_patch(pod, verdict), pins=True)
    return Judgement(decision=Decision.ADMIT, patch=release_patch(pod, seal=_seal(facts.now, revision)))


def dead_end(pod: Json, verdict: Verdict) -> str:
    """Returns why a pod that is not refused can never be released as it is, in one line for a person; `""` where it can."""
    fixed = list(workloads.tagged_volumes(workloads.extract(pod))) if verdict.decision is not Decision.DENY else []
    if verdict.decision is Decision.ADMIT:
        fixed = [image for image in fixed if image.path in verdict.pins]
    return _never(fixed[0], verdict, kept(pod)) if fixed else ""


def meanwhile(pod: Json) -> str:
    """Returns what goes on while a pod waits, to be appended to why it does."""
    owner = controller_of(pod) or {}
    if (owner.get("apiVersion"), owner.get("kind")) != ("batch/v1", "Job"):
        return ""
    return "; its Job's activeDeadlineSeconds, where it has one, runs meanwhile"


def _stuck(pod: Json, images: list[Image], verdict: Verdict, facts: Facts) -> Judgement:
    """A good pod that can never be released: made anew, where that is possible and its tags were resolved a moment ago."""
    left = kept(pod)
    reason = _never(images[0], verdict, left)
    if left:
        return Judgement(decision=Decision.DENY, reason=reason)
    if any(facts.now - facts.resolutions[image.reference].at > _FRESH for image in images):
        return Judgement(decision=Decision.HOLD, reason=reason, wanted=tuple(image.reference for image in images))
    return Judgement(decision=Decision.HOLD, reason=reason, recreate=True)


def _never(image: Image, verdict: Verdict, left: str) -> str:
    pinned = verdict.pins.get(image.path)
    held = (
        f"Not released: volume {clean(image.owner, NAME_LENGTH)} names its image by a tag, which may move between now and the start of the"
        " pod, and an image volume cannot be changed any more"
    )
    if not left:
        return f"{held}: its controller makes another, which is pinned at its creation"
    fix = f"create the pod again with {pinned}" if pinned else f"create the pod again with {clean(image.reference, VALUE_LENGTH)}@sha256:…"
    return f"{held}; {left}; fix: {fix}"


def pin_patch(pod: Json, verdict: Verdict) -> dict[str, Json]:
    """Returns the strategic merge patch that writes the digests that were judged, and where, into a pod that stays held."""
    spec: dict[str, Json] = {}
    for path, pinned in sorted(verdict.pins.items()):
        found = _CONTAINER_PATH.fullmatch(path)
        if found:
            field, index = found.group(1), int(found.group(2))
            spec.setdefault(field, []).append({"name": pod["spec"][field][index]["name"], "image": pinned})
    if verdict.nodes is not None:  # a list of alternatives has no key to merge by: it is written as a whole
        kept = places.required(pod["spec"], verdict.nodes)
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": kept}}
    return {"metadata": _precondition(pod), "spec": spec}


def release_patch(pod: Json, *, seal: str) -> dict[str, Json]:
    """Returns the strategic merge patch that releases a judged pod."""
    metadata = {**_precondition(pod), "annotations": {JUDGED: seal}}
    owners = disowned(pod)
    if owners is not None:
        metadata["managedFields"] = owners
    return {"metadata": metadata, "spec": {"schedulingGates": [{"name": GATE, "$patch": "delete"}]}}


def disowned(pod: Json) -> list[Json] | None:
    """Returns the managed fields of a pod in which mlwarden owns neither images nor affinity any more; None where it owns none."""
    known = pod["metadata"].get("managedFields")
    found, took = [], False
    for entry in known if isinstance(known, list) else ():
        if entry.get("manager") != FIELD_MANAGER or entry.get("operation") != "Update" or entry.get("subresource"):
            found.append(entry)
            continue
        fields = _without_pins(entry.get("fieldsV1") or {})
        took = took or fields != entry.get("fieldsV1")
        if fields:
            found.append({**entry, "fieldsV1": fields})
    return found if took else None


def _without_pins(fields: Json) -> Json:
    """A set of fields without the images of containers and the affinity, and without what is empty then."""
    spec = dict(fields.get("f:spec") or {})
    spec.pop("f:affinity", None)
    for field in ("f:containers", "f:initContainers"):
        listed = {
            key: rest for key, each in (spec.pop(field, None) or {}).items() if (rest := {k: v for k, v in each.items() if k != "f:image"})
        }
        if listed:
            spec[field] = listed
    others = {key: value for key, value in fields.items() if key != "f:spec"}
    return {**others, "f:spec": spec} if spec else others


def bare_release(pod: Json, *, why: str, now: datetime) -> dict[str, Json]:
    """Returns the patch that releases a pod nobody holds any more: its namespace is not governed, or mlwarden is being uninstalled."""
    return release_patch(pod, seal=json.dumps({"at": _instant(now), "because": why}, separators=(",", ":")))


def _precondition(pod: Json) -> dict[str, Json]:
    return {key: pod["metadata"][key] for key in ("uid", "resourceVersion")}


def _seal(now: datetime, revision: str) -> str:
    return json.dumps({"at": _instant(now), "revision": revision}, separators=(",", ":"))


def _instant(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Which policies an installation enforces: those that it enforced before, until the administrator accepts those of a newer version.

An upgrade must not refuse what ran the day before, and must not let in what was refused. So on an installation that exists a policy whose
spec changed stays in force as it was accepted, and the new version of it stands beside it, as `NAME-next`, with every action turned into
`Warn`; a new policy stands under its own name and warns; one that is no longer shipped stays. `packs.accept: VERSION` puts the new ones in
force and removes what they replace. A spec of which only the texts changed is no other policy.

What was accepted is kept as a record, a Secret in mlwarden's namespace, which the guard of its identity lets nobody else write. It goes
with the chart, so an install after an uninstall is a fresh one and enforces everything. Where there is no record but policies of this
installation, it comes from a version that kept none, or the record was lost: then what is stored and was not edited is what was enforced.

The objects themselves say what is in force: a process of the version before, which knows nothing of this, acts by the same policies while
the upgrade goes on, and so do the ValidatingAdmissionPolicies made from them.

Rejected: to weaken a changed policy to `Warn` as a whole (an upgrade would open what was closed), `.Release.IsUpgrade` (not true for who
renders the chart elsewhere), a mark in the WardenPolicy alone (gone with whoever deletes it to have the shipped one back).
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mlwarden import policy
from mlwarden.controllers.generated import PACK_LABEL
from mlwarden.errors import Error
from mlwarden.model.finding import Action, Severity
from mlwarden.model.policy import Fix, Policy, PolicySpec
from mlwarden.model.revocation import Running
from mlwarden.model.workload import Json
from mlwarden.policy.bindings import MANAGED_BY

LOG = logging.getLogger(__name__)
NEXT = "-next"
"""What is added to the name of a policy for the version of it that waits beside it."""
WAITS = "mlwarden.io/waits-for-version"
"""Annotation of a policy that only warns until this version is accepted."""
KEPT = "mlwarden.io/kept-until-version"
"""Annotation of a policy that stays as it was accepted until this version is."""
_REMEMBERED = 16


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it was accepted. The spec is kept as written: an older version may have had fields that this one does not read."""

    pack: str
    spec: dict[str, object]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation has accepted.

    Attributes:
        version: whose policies were last in force as a whole; "" where nobody knows.
        policies: name → the policy that is in force.
        packs: digests of all policies that were in force together once: going back to them surprises nobody.
    """

    version: str = ""
    policies: Mapping[str, Kept] = {}
    packs: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be in force.

    Attributes:
        record: to be stored before anything is applied.
        policies: the `WardenPolicy` objects to apply.
        waiting: names of those that only warn until they are accepted.
    """

    record: Record
    policies: tuple[dict[str, Json], ...]
    waiting: tuple[str, ...] = ()


def digest(spec: PolicySpec) -> str:
    """Returns what a policy does, in 16 hexadecimal digits: everything but its texts and its severity, which only sorts."""
    fixed = Fix(text="-")
    said = msgspec.structs.replace(spec, message="-", why="-", references=(), fix=fixed, severity=Severity.LOW)
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:16]


def plan(
    shipped: Sequence[Policy],
    record: Record | None,
    *,
    version: str,
    accept: str,
    edited: Iterable[str] = (),
    decided: Iterable[str] = (),
) -> Plan:
    """Returns what is to be in force, and what was accepted then.

    Args:
        shipped: the policies of this version.
        record: what this installation had accepted; None: there was none, it is a fresh one.
        version: this version.
        accept: the version that the administrator accepts.
        edited: names of policies that somebody has changed: they are theirs, and nothing waits to replace them.
        decided: names of policies that the administrator's own values make what they are: in force at once.
    """
    together = _together(shipped)
    if record is None or accept == version or together in record.packs:
        packs = tuple(dict.fromkeys((together, *(record.packs if record else ()))))[:_REMEMBERED]
        accepted = Record(version=version, policies={each.name: _kept(each) for each in shipped}, packs=packs)
        return Plan(record=accepted, policies=tuple(as_object(each) for each in shipped))
    theirs, now = frozenset(edited), {each.name: each for each in shipped}
    before, objects, waiting = _readable(record), [], []
    before |= {name: now[name] for name in decided if name in now}
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if new is not None and (old is None or digest(old.spec) == digest(new.spec)):
            if old is None:
                waiting.append(name)
            objects.append(as_object(new) if old else _warning(new, name, version))
            continue
        if old is not None:
            objects.append(as_object(old, {KEPT: version}))
        if new is not None and name not in theirs:
            waiting.append(name + NEXT)
            objects.append(_warning(new, name + NEXT, version))
    kept = {name: _kept(each) for name, each in before.items()}
    settled = all(KEPT not in obj["metadata"].get("annotations", {}) for obj in objects) and not waiting
    packs = tuple(dict.fromkeys((together, *record.packs)))[:_REMEMBERED] if settled else record.packs
    found = Record(version=version if settled else record.version, policies=kept, packs=packs)
    return Plan(record=found, policies=tuple(objects), waiting=tuple(waiting))


def enforced(stored: Iterable[Mapping[str, Json]]) -> Record:
    """Returns the record of an installation that has none, by its shipped policies as stored and not edited; of some that wait, nothing."""
    found = {}
    for obj in stored:
        metadata = obj["metadata"]
        if WAITS not in (metadata.get("annotations") or {}):
            pack = (metadata.get("labels") or {}).get(PACK_LABEL, "")
            found[metadata["name"]] = Kept(pack=str(pack), spec=obj.get("spec") or {})
    return Record(policies=found)


def encode(record: Record) -> dict[str, bytes]:
    """Returns the data of the Secret; the version also by itself, for the chart's notes."""
    return {"record.json": msgspec.json.encode(record, order="sorted"), "version": record.version.encode()}


def decode(data: Mapping[str, bytes]) -> Record | None:
    """Returns the record of the Secret's data, None where it is none."""
    try:
        return msgspec.json.decode(data.get("record.json", b""), type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def as_object(each: Policy, annotations: Mapping[str, str] | None = None) -> dict[str, Json]:
    """Returns a shipped policy as a `WardenPolicy` object."""
    metadata: dict[str, Json] = {"name": each.name, "labels": {**MANAGED_BY, PACK_LABEL: each.pack}}
    if annotations:
        metadata["annotations"] = dict(annotations)
    spec = {"severity": each.spec.severity.value, **msgspec.to_builtins(each.spec)}
    return {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": metadata, "spec": spec}


def stand_in(obj: Mapping[str, Json], version: str) -> dict[str, Json]:
    """Returns a policy of the same name and texts that lets everything pass, in words that every version reads."""
    spec = {field: obj["spec"][field] for field in ("severity", "message", "why", "fix") if field in obj["spec"]}
    spec |= {"profiles": {"*": Action.WARN.value}, "requirement": {"expression": {"expression": "true"}}}
    return {**obj, "metadata": {**obj["metadata"], "annotations": {WAITS: version}}, "spec": spec}


def _warning(each: Policy, name: str, version: str) -> dict[str, Json]:
    """The policy, warning wherever it would refuse; an Unknown never does more than a Fail."""
    profiles = {profile: Action.WARN if action is Action.DENY else action for profile, action in each.spec.profiles.items()}
    spec = msgspec.structs.replace(each.spec, profiles=profiles, running=Running.REPORT)
    return as_object(Policy(name=name, spec=spec, pack=each.pack), {WAITS: version})


def _readable(record: Record) -> dict[str, Policy]:
    found = {}
    for name, kept in record.policies.items():
        manifest = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": kept.spec}
        try:
            found[name] = policy.parse(manifest, pack=kept.pack)
            policy.compile_policy(found[name])
        except Error as error:  # by what cannot be read nothing can be judged; the new version of it warns
            LOG.warning("policy %s, as it was accepted, is given up: %s", name, error)
            found.pop(name, None)
    return found


def _kept(each: Policy) -> Kept:
    return Kept(pack=each.pack, spec=as_object(each)["spec"])


def _together(shipped: Iterable[Policy]) -> str:
    said = {each.name: digest(each.spec) for each in shipped}
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:16]

"""`ImageEvidence`: queue, store and memory of resolutions, in the API server.

Three shapes, told apart by name (docs/adr/0004-evidence-objects.md):

- `tag-<40 hex of sha256(reference)>`: what a tag pointed at, and when (`status.digest`, `status.at`).
- `sha256-<hex>`: what is in a digest (`status.scan`), and the repositories it can be pulled from.
- `signatures-<hex>`: what could be established about a digest's signatures and attestations (`status.proofs`).

What is wanted is named by one string: a reference as written, `repository@sha256:…`, or `signatures of repository@sha256:…`. One object
per question was chosen over one per digest: a broken scanner must not hold up signatures, nor an unsigned image its scan.

**The queue.** An object whose status has no answer is work. So is one that was asked for again: whoever needs a fresh answer (a
resolution older than 60 s, a scan older than the policy's `maxAge`) sets `spec.requestedAt` to now, and the scanner answers when that is
not the `status.answered` of the last answer. Comparing it with the time of the answer was rejected (two clocks), a counter or an
annotation, too (no order between requesters, no schema), and so was deleting and creating again (in between there is no evidence, and a
deletion is a right nobody else needs).

The name is derived from what it is about, and everything here checks it: an object that says something else than its name is not
evidence.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from mlwarden.errors import EvidenceError, InputError
from mlwarden.evidence.history import MAX_PLACES
from mlwarden.evidence.pullers import MAX_PULLERS, Puller
from mlwarden.model import reference as references
from mlwarden.model.digest import Digest, digest
from mlwarden.model.evidence import SIGNATURES, ImageFacts, Phase, Proofs, Resolution, Scan
from mlwarden.model.schema import Column, Rule, definition, rules
from mlwarden.model.signing import MAX_PROOFS, Place, Proof, Proven
from mlwarden.model.workload import Json

API_VERSION = "mlwarden.io/v1alpha1"
KIND = "ImageEvidence"
PLURAL = "imageevidences"
MAX_REFERENCES = 16
MAX_NAMESPACES = 8
INTEREST = timedelta(minutes=10)
"""Who waits says so again after that long, so that it is known that somebody still does."""
_WAITING = "waiting for the scanner"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)

_REFERENCES = msgspec.Meta(
    min_length=1,
    max_length=MAX_REFERENCES,
    extra_json_schema=rules(
        Rule(f"oldSelf.all(known, known in self) || oldSelf.size() == {MAX_REFERENCES}", "references are appended to, never changed")
    ),
)


_NAMESPACES = Annotated[tuple[Annotated[str, msgspec.Meta(max_length=63)], ...], msgspec.Meta(max_length=MAX_NAMESPACES)]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of what is on the wire; unknown fields are skipped, so that a newer version's objects can be read."""


class Metadata(_Wire, frozen=True, kw_only=True):
    """The part of ObjectMeta that is used."""

    name: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Purpose(StrEnum):
    """What an answer is for, which decides whose turn it is: a pod that is held, a template whose pods are still to come, or neither."""

    POD = "Pod"
    TEMPLATE = "Template"
    RENEWAL = "Renewal"


_URGENCY = tuple(Purpose)


class Requester(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks.

    Attributes:
        purpose: for a pod, for a template, or for what runs already.
        namespace: in which it waits.
        pullers: with whose pull Secrets the image may be pulled.
    """

    purpose: Purpose = Purpose.POD
    namespace: str = ""
    pullers: tuple[Puller, ...] = ()


class EvidenceSpec(_Wire, frozen=True, kw_only=True):
    """What is asked.

    Attributes:
        references: one image reference as written (`tag-…`), or up to 16 of `repository@sha256:…` to try in turn.
        requested_at: when an answer was last asked for; the scanner answers again when it is not `status.answered`.
        pullers: with whose pull Secrets it may be pulled, the newest last.
        purpose: the most urgent that it was asked for.
        namespaces: on whose behalf, the newest last; the scanner is fair among them.
        named_by: reference of a digest → namespaces that name it, the newest last; when the list is full, who names most makes room.
    """

    references: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=512)], ...], _REFERENCES]
    requested_at: datetime | None = None
    pullers: Annotated[tuple[Puller, ...], msgspec.Meta(max_length=MAX_PULLERS)] = ()
    purpose: Purpose = Purpose.POD
    namespaces: _NAMESPACES = ()
    named_by: Annotated[dict[str, _NAMESPACES], msgspec.Meta(max_length=MAX_REFERENCES)] = {}


class Compared(StrEnum):
    """What came of a second look at an answer."""

    AGREES = "Agrees"
    WORSE = "Worse"  # and is what stands there now
    CORRECTED = "Corrected"  # worse, as a newer database, another version or other settings explain; it stands there now
    FORGED = "Forged"  # whoever it names did not write it


class SecondLook(_Wire, frozen=True, kw_only=True):
    """An answer that was made a second time, or that its own author does not know.

    Attributes:
        by: the pod that looked again.
        of: the pod that had answered; empty where that is not written down.
        at: when.
        outcome: what came of it.
        reason: what was worse, one line.
    """

    by: Annotated[str, msgspec.Meta(max_length=253)]
    of: Annotated[str, msgspec.Meta(max_length=253)] = ""
    at: datetime
    outcome: Compared
    reason: Annotated[str, msgspec.Meta(max_length=400)] = ""


class EvidenceStatus(_Wire, frozen=True, kw_only=True):
    """What is known; written by the scanner alone.

    Attributes:
        phase: Pending, Ready or Failed.
        reason: why it is not Ready, or why the last refresh failed.
        digest: what the tag pointed at.
        at: when the answer was made: of a resolution, of a scan, or of a definitive failure.
        answered: the `spec.requestedAt` that was answered. Compared for equality: clocks of two processes are not.
        scan: the summary of the scan.
        proofs: what is known about signatures, by demand.
        proven: how many of them are verified, for people: `1 of 2`.
        answered_by: the pod that wrote this answer; the API server lets no other one write that name.
        second_look: what another look at this answer said, where there was one.
        places: which repositories were asked, and what they have answered.
        claimed_by: the scanner that is at it.
        claimed_until: from then on another may take it.
        attempts: failures in a row.
        retry_at: not before that, unless it is asked for again.
    """

    phase: Phase = Phase.PENDING
    reason: Annotated[str, msgspec.Meta(max_length=400)] = ""
    digest: Annotated[str, msgspec.Meta(max_length=71)] = ""
    at: datetime | None = None
    answered: datetime | None = None
    scan: Scan | None = None
    proofs: Annotated[tuple[Proof, ...], msgspec.Meta(max_length=MAX_PROOFS)] = ()
    proven: Annotated[str, msgspec.Meta(max_length=16)] = ""
    answered_by: Annotated[str, msgspec.Meta(max_length=253)] = ""
    second_look: SecondLook | None = None
    places: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_PLACES)] = ()
    claimed_by: Annotated[str, msgspec.Meta(max_length=253)] = ""
    claimed_until: datetime | None = None
    attempts: Annotated[int, msgspec.Meta(ge=0)] = 0
    retry_at: datetime | None = None


class ImageEvidence(_Wire, frozen=True, kw_only=True, omit_defaults=False):
    """The custom resource."""

    api_version: str = API_VERSION
    kind: str = KIND
    metadata: Metadata
    spec: EvidenceSpec
    status: EvidenceStatus = EvidenceStatus()

    @property
    def is_asked(self) -> bool:
        """Whether somebody asked (again) and has no answer yet."""
        asked = self.spec.requested_at
        return self.status.at is None or (asked is not None and asked != self.status.answered)

    @property
    def asked_last(self) -> datetime:
        """When somebody last said that they wait for it."""
        return max(self.spec.requested_at or _NEVER, self.metadata.creation_timestamp or _NEVER)

    @property
    def digest(self) -> Digest:
        """What it is about, where it is about a digest.

        Raises:
            InputError: it is about a tag.
        """
        return digest(f"sha256:{self.metadata.name.partition('-')[2]}")

    @property
    def is_resolution(self) -> bool:
        """Whether it is about a tag, not about a digest."""
        return self.metadata.name.startswith("tag-")

    @property
    def is_signatures(self) -> bool:
        """Whether it is about a digest's signatures."""
        return self.metadata.name.startswith("signatures-")


def name_for(wanted: str) -> str:
    """Returns the name of the object about what is wanted.

    Raises:
        InputError: if it names no image.
    """
    reference, signatures = _parts(wanted)
    parsed = references.parse(reference)
    if parsed.digest:
        return signatures_name(parsed.digest) if signatures else digest_name(parsed.digest)
    if signatures:
        raise InputError(f"{reference[:120]!r} is named without a digest, and signatures are of digests")
    return "tag-" + hashlib.sha256(reference.encode()).hexdigest()[:40]


def _parts(wanted: str) -> tuple[str, bool]:
    return wanted.removeprefix(SIGNATURES), wanted.startswith(SIGNATURES)


def digest_name(of: Digest) -> str:
    """Returns the name of the object about what is in a digest."""
    return of.replace(":", "-", 1)


def signatures_name(of: Digest) -> str:
    """Returns the name of the object about a digest's signatures."""
    return of.replace("sha256:", "signatures-", 1)


def canonical(wanted: str) -> str:
    """Returns what stands in `spec.references`: a tag as written, a digest as `registry/repository@sha256:…` without its tag.

    Raises:
        InputError: if it names no image.
    """
    reference, _ = _parts(wanted)
    parsed = references.parse(reference)
    return parsed.at(parsed.digest) if parsed.digest else reference


def pending(wanted: str, requester: Requester | None = None) -> dict[str, Json]:
    """Returns the object to create for what is wanted and has no evidence.

    Raises:
        InputError: if it names no image.
    """
    name, reference = name_for(wanted), canonical(wanted)
    named: dict[str, Json] = {}
    if requester is not None and requester.namespace and not name.startswith("tag-"):
        named["namedBy"] = {reference: [requester.namespace]}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "mlwarden"}},
        "spec": {"references": [reference], **_on_behalf(requester, ()), **_pulled_by((), requester), **named},
    }


def request(stored: ImageEvidence, wanted: str, now: datetime, requester: Requester | None = None) -> dict[str, Json]:
    """Returns the merge patch that asks again for what is `stored`, and names one more repository and puller to pull it with.

    Carries the resource version where it changes a list, so that two requesters do not undo each other: on a conflict read it again.
    The repository that is named now comes last, which is asked first. When the list is full a repository goes that only those name who
    name most: a namespace that fills it pushes out its own. What is on its way already is not asked for a second time: then only who waits
    is added.
    """
    spec: dict[str, Json] = {}
    if not stored.is_asked:
        spec = _on_behalf(requester, ())
    elif adds(stored, requester) and requester is not None:
        spec = _on_behalf(requester, stored.spec.namespaces if requester.purpose is stored.spec.purpose else ())
    place = {} if stored.is_resolution else _placed(stored.spec, canonical(wanted), requester)
    is_new = not stored.is_resolution and canonical(wanted) not in stored.spec.references
    if new := new_pullers(stored, requester):
        spec |= _pulled_by(stored.spec.pullers, requester)
    asks = is_new or new or not stored.is_asked or now - stored.asked_last >= INTEREST
    if asks or "namedBy" in place:
        spec |= place
    if asks:
        spec["requestedAt"] = asked_at(now)
    lists = {"references", "pullers", "namespaces", "namedBy"} & spec.keys()
    return {"metadata": {"resourceVersion": stored.metadata.resource_version}, "spec": spec} if lists else {"spec": spec}


def names(stored: ImageEvidence, wanted: str, requester: Requester | None) -> bool:
    """Whether it is known that a requester's namespace names the repository."""
    namespace = requester.namespace if requester is not None else ""
    known = stored.spec.named_by.get(canonical(wanted), ())
    return stored.is_resolution or not namespace or namespace in known or len(known) >= MAX_NAMESPACES


def _placed(spec: EvidenceSpec, reference: str, requester: Requester | None) -> dict[str, Json]:
    """What changes in the list of repositories when one is named: it comes last, and one makes room where there is none."""
    named_by = {known: spec.named_by.get(known, ()) for known in spec.references}
    before = named_by.pop(reference, ())
    gone = _most_named(named_by) if reference not in spec.references and len(named_by) >= MAX_REFERENCES else ""
    named_by.pop(gone, None)
    change: dict[str, Json] = {}
    order = [*named_by, reference]
    if order != list(spec.references):
        change["references"] = order
    namespace = requester.namespace if requester is not None else ""
    names: dict[str, Json] = {gone: None} if gone in spec.named_by else {}
    if namespace and namespace not in before and len(before) < MAX_NAMESPACES:
        names[reference] = [*before, namespace]
    return {**change, "namedBy": names} if names else change


def _most_named(named_by: Mapping[str, tuple[str, ...]]) -> str:
    """Of the repositories the oldest of those whose namespaces, each of them, name most."""
    counts = Counter(namespace for names in named_by.values() for namespace in names or ("",))
    return max(named_by, key=lambda reference: min(counts[namespace] for namespace in named_by[reference] or ("",)))


def asked_at(now: datetime) -> str:
    """Returns a time as it is written into `spec.requestedAt`."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def adds(stored: ImageEvidence, requester: Requester | None) -> bool:
    """Whether a requester is more urgent than those who wait for what is stored, or waits in another namespace."""
    if requester is None:
        return False
    more = _URGENCY.index(requester.purpose) < _URGENCY.index(stored.spec.purpose)
    as_urgent = requester.purpose is stored.spec.purpose and requester.purpose is not Purpose.RENEWAL  # for a renewal nobody waits
    return more or (as_urgent and bool(requester.namespace) and requester.namespace not in stored.spec.namespaces)


def _on_behalf(requester: Requester | None, known: tuple[str, ...]) -> dict[str, Json]:
    if requester is None:
        return {}
    others = [each for each in known if each != requester.namespace]
    namespaces = [*others, requester.namespace][-MAX_NAMESPACES:] if requester.namespace else others
    return {"purpose": requester.purpose.value, "namespaces": namespaces}


def new_pullers(stored: ImageEvidence, requester: Requester | None) -> bool:
    """Whether somebody else's credentials could make a difference to what is stored."""
    return requester is not None and not set(requester.pullers) <= set(stored.spec.pullers)


def _pulled_by(known: tuple[Puller, ...], requester: Requester | None) -> dict[str, Json]:
    pullers = tuple(dict.fromkeys((*known, *requester.pullers)))[-MAX_PULLERS:] if requester is not None else ()
    return {"pullers": msgspec.to_builtins(pullers)} if pullers else {}


def read(obj: Json) -> ImageEvidence:
    """Returns a decoded object, typed.

    Raises:
        EvidenceError: if it is not an `ImageEvidence` whose spec is about what its name says.
    """
    try:
        return checked(msgspec.convert(obj, ImageEvidence))
    except (msgspec.ValidationError, RecursionError) as error:
        raise EvidenceError(f"an ImageEvidence that cannot be read: {error}") from None


def checked(evidence: ImageEvidence) -> ImageEvidence:
    """Returns the same.

    Raises:
        EvidenceError: unless its spec is about what its name says.
    """
    try:
        about = SIGNATURES if evidence.is_signatures else ""
        names = {name_for(about + reference) for reference in evidence.spec.references}
    except InputError as error:
        raise EvidenceError(f"the ImageEvidence {evidence.metadata.name[:80]} is about no image: {error}") from None
    if names != {evidence.metadata.name} or evidence.kind != KIND or (evidence.is_resolution and len(evidence.spec.references) != 1):
        raise EvidenceError(f"the ImageEvidence {evidence.metadata.name[:80]} is about something else than its name says")
    return evidence


def _pulled_for(evidence: ImageEvidence) -> frozenset[str]:
    return frozenset(puller.namespace for puller in evidence.spec.pullers)


def to_facts(obj: Json | ImageEvidence) -> tuple[Digest, ImageFacts] | tuple[str, Resolution] | tuple[Digest, Proofs]:
    """Returns what an object says: about a digest, about a reference as written, or about a digest's signatures.

    Raises:
        EvidenceError: if it is not evidence; to be treated as if it were not there.
    """
    evidence = checked(obj) if isinstance(obj, ImageEvidence) else read(obj)
    status = evidence.status
    if evidence.is_signatures:
        about = evidence.digest
        proofs = {proof.demand: proof for proof in status.proofs}
        reason, asked_in = status.reason or _waiting(status.phase), answered(evidence)
        proven_by = Proofs(digest=about, phase=status.phase, reason=reason, proofs=proofs, answered=asked_in)
        return about, msgspec.structs.replace(proven_by, pulled_for=_pulled_for(evidence))
    asked = evidence.spec.requested_at or evidence.metadata.creation_timestamp
    if not evidence.is_resolution:
        about = evidence.digest
        if status.phase is Phase.READY and status.scan is None:
            return about, ImageFacts(digest=about, phase=Phase.FAILED, reason="the evidence says Ready without a scan")
        scan = status.scan if status.phase is Phase.READY else None
        reason = status.reason or _waiting(status.phase)
        return about, ImageFacts(
            digest=about,
            phase=status.phase,
            reason=reason,
            scan=scan,
            asked_at=asked,
            answered_at=status.at,
            pulled_for=_pulled_for(evidence),
            answered=answered(evidence),
        )
    reference, at = evidence.spec.references[0], status.at or _NEVER
    if status.phase is not Phase.READY:
        return reference, Resolution(digest=None, at=at, reason=status.reason or _waiting(status.phase), asked_at=asked)
    try:
        return reference, Resolution(digest=digest(status.digest), at=at, reason=status.reason, asked_at=asked)
    except InputError:
        return reference, Resolution(digest=None, at=at, reason="the evidence says Ready without a digest")


def places(evidence: ImageEvidence) -> tuple[Place, ...]:
    """Returns which repositories were asked. Before places were noted, an answer was one of all of them."""
    status = evidence.status
    said = {proof.demand: proof.at for proof in status.proofs if proof.outcome is not Proven.UNKNOWN}
    said |= {each.source: status.scan.scanned_at for each in status.scan.suppressed} if status.scan is not None else {}
    if status.places or not said:
        return status.places
    return tuple(Place(reference=reference, at=max(said.values()), answered=said) for reference in evidence.spec.references)


def answered(evidence: ImageEvidence) -> dict[str, Mapping[str, datetime]]:
    """Returns reference → demand → when it last had an answer there."""
    return {place.reference: place.answered for place in places(evidence)}


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of objects says together: the three mappings of `Facts`."""

    images: dict[Digest, ImageFacts]
    resolutions: dict[str, Resolution]
    proofs: dict[Digest, Proofs]


def collect(objects: Iterable[Json | ImageEvidence]) -> Known:
    """Returns what all objects say; what is no evidence is as if it were not there."""
    known = Known(images={}, resolutions={}, proofs={})
    for obj in objects:
        try:
            about, fact = to_facts(obj)
        except EvidenceError:
            continue
        match fact:
            case ImageFacts():
                known.images[fact.digest] = fact
            case Proofs():
                known.proofs[fact.digest] = fact
            case _:
                known.resolutions[about] = fact
    return known


def _waiting(phase: Phase) -> str:
    return _WAITING if phase is Phase.PENDING else ""


def proven(proofs: Collection[Proof]) -> str:
    """Returns how many of what was asked about signatures is verified, for people."""
    return f"{sum(proof.outcome is Proven.VERIFIED for proof in proofs)} of {len(proofs)}"


def encode(status: EvidenceStatus) -> dict[str, Json]:
    """Returns a status as it is written: without what is empty, because the API server refuses an explicit null."""
    body: dict[str, Json] = msgspec.to_builtins(status)
    if isinstance(scan := body.get("scan"), dict):
        body["scan"] = {key: value for key, value in scan.items() if value is not None}
    return {"phase": status.phase.value, **{key: value for key, value in body.items() if value is not None}}


def crd() -> dict[str, Json]:
    """Returns the CustomResourceDefinition, as applied to the cluster."""
    columns = (
        Column("Phase", ".status.phase"),
        Column("OS", ".status.scan.os"),
        Column("Critical", ".status.scan.counts.CRITICAL", "integer"),
        Column("High", ".status.scan.counts.HIGH", "integer"),
        Column("Proven", ".status.proven"),
        Column("Scanned", ".status.scan.scannedAt", "date"),
        Column("Age", ".metadata.creationTimestamp", "date"),
        Column("Image", ".spec.references[0]"),
        Column("Digest", ".status.digest", wide=True),
        Column("Answered By", ".status.answeredBy", wide=True),
        Column("Reason", ".status.reason", wide=True),
    )
    return definition(
        kind=KIND, plural=PLURAL, spec=EvidenceSpec, status=EvidenceStatus, columns=columns, short_names=("imgev",), own_rules=_OWN_RULES
    )


_OWN_RULES = (
    Rule(
        "self.metadata.name.matches('^(tag-[0-9a-f]{40}|(sha256|signatures)-[0-9a-f]{64})$')",
        "the name is derived from what the evidence is about: tag-<hash of the reference>, sha256-<digest> or signatures-<digest>",
    ),
    Rule(
        "self.metadata.name.startsWith('tag-') ? self.spec.references.size() == 1 && !self.spec.references[0].contains('@') : "
        "self.spec.references.all(known, known.endsWith('@sha256:' + self.metadata.name.split('-')[1]))",
        "every reference is about what the name says",
    ),
    Rule(
        "!has(self.status) || !has(self.status.phase) || self.status.phase != 'Ready' || "
        "(self.metadata.name.startsWith('tag-') ? has(self.status.digest) && has(self.status.at) : "
        "self.metadata.name.startsWith('sha256-') ? has(self.status.scan) : has(self.status.at))",
        "Ready means that there is an answer",
    ),
)

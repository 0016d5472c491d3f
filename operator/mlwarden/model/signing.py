"""Who may sign, what is asked about a signature, and what was found: plain values.

A policy names authorities. From them and from what it asks follow *demands*, each one question that one run of cosign can answer about one
digest; the answer is a *proof*. The check compares demands with proofs and never sees a signature, so a policy is judged without I/O and
the same everywhere. A demand is known by what it asks, not by the policy that asks it: two policies with the same key share one proof.

Rejected: evidence that says "signed by policy X" (a policy that was changed would go on being satisfied by what its predecessor asked).
"""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from mlwarden.model import glob
from mlwarden.model.schema import Rule, rules
from mlwarden.model.wire import Wire

Pem = Annotated[str, Meta(min_length=1, max_length=16384)]
Pattern = Annotated[str, Meta(max_length=512)]
Text = Annotated[str, Meta(max_length=512)]


class Identity(Wire, frozen=True, kw_only=True):
    """Who a certificate was given to, and by whom that was attested: each exactly, or by a regular expression.

    Attributes:
        issuer: the OpenID Connect issuer, exactly.
        issuer_reg_exp: RE2; it must match the whole issuer.
        subject: e-mail address or URI in the certificate, exactly.
        subject_reg_exp: RE2; it must match the whole subject.
    """

    RULES: ClassVar = (
        Rule("has(self.issuer) != has(self.issuerRegExp)", "exactly one of issuer and issuerRegExp"),
        Rule("has(self.subject) != has(self.subjectRegExp)", "exactly one of subject and subjectRegExp"),
    )

    issuer: Text = ""
    issuer_reg_exp: Pattern = ""
    subject: Text = ""
    subject_reg_exp: Pattern = ""

    def __post_init__(self) -> None:
        """Raises ValueError unless there is exactly one of each two."""
        if bool(self.issuer) == bool(self.issuer_reg_exp):
            raise ValueError("exactly one of issuer and issuerRegExp")
        if bool(self.subject) == bool(self.subject_reg_exp):
            raise ValueError("exactly one of subject and subjectRegExp")


class SecretKey(Wire, frozen=True, kw_only=True):
    """A public key in a Secret of mlwarden's own namespace that the chart lets the scanner read (`scanner.keySecrets`).

    Attributes:
        name: of the Secret.
        key: in its data.
    """

    name: Annotated[str, Meta(min_length=1, max_length=253, extra_json_schema={"pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"})]
    key: Annotated[str, Meta(min_length=1, max_length=253)] = "cosign.pub"


class Keyless(Wire, frozen=True, kw_only=True):
    """Short-lived certificates of Fulcio, or of one's own.

    Attributes:
        identities: any of them.
    """

    identities: Annotated[tuple[Identity, ...], Meta(min_length=1, max_length=10)]


class Certificate(Wire, frozen=True, kw_only=True):
    """Certificates of one's own authority, without Fulcio.

    Attributes:
        chain: PEM: intermediate certificates and the root, or the root alone.
        identities: any of them.
    """

    chain: Pem
    identities: Annotated[tuple[Identity, ...], Meta(min_length=1, max_length=10)]


class Authority(Wire, frozen=True, kw_only=True):
    """Somebody whose signature counts. Exactly one of `key`, `keySecret`, `keyless` and `certificate` (a KMS key will be one more).

    Attributes:
        name: what people call it; part of messages, not of the question.
        key: public key, PEM.
        key_secret: public key in a Secret.
        keyless: certificate of Fulcio, with an entry in a transparency log.
        certificate: certificate of one's own authority.
        log: a signature by key or certificate must be in a transparency log, too.
        trust_root: name of one of the chart's `scanner.trustRoots`; empty is Sigstore's public one.
    """

    RULES: ClassVar = (
        Rule(
            "[has(self.key), has(self.keySecret), has(self.keyless), has(self.certificate)].filter(given, given).size() == 1",
            "an authority is exactly one of key, keySecret, keyless and certificate",
        ),
    )

    name: Annotated[str, Meta(min_length=1, max_length=63)]
    key: Annotated[str, Meta(max_length=16384)] = ""
    key_secret: SecretKey | None = None
    keyless: Keyless | None = None
    certificate: Certificate | None = None
    log: bool = False
    trust_root: Annotated[str, Meta(max_length=63)] = ""

    def __post_init__(self) -> None:
        """Raises ValueError unless it is exactly one of them."""
        if sum((bool(self.key), *(each is not None for each in (self.key_secret, self.keyless, self.certificate)))) != 1:
            raise ValueError("an authority is exactly one of key, keySecret, keyless and certificate")

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Whose certificates count; none for a key."""
        return self.keyless.identities if self.keyless else self.certificate.identities if self.certificate else ()


class Demand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question about one digest.

    Attributes:
        authority: whose signature.
        predicate_type: URI of an attestation's predicate; empty: a signature of the image itself.
        condition: CEL over `predicate`, true where all is well; empty: none.
    """

    authority: Authority
    predicate_type: str = ""
    condition: str = ""

    @property
    def id(self) -> str:
        """16 hexadecimal digits that are the same for the same question."""
        asked = msgspec.structs.replace(self, authority=msgspec.structs.replace(self.authority, name="-"))
        return hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest()[:16]


MAX_PROOFS = 64
"""Demands about one image that are looked at, whoever makes them: what fits into one object, and into a minute of cosign."""


class Proven(StrEnum):
    """What came of a demand."""

    VERIFIED = "Verified"
    MISSING = "Missing"  # the registry has nothing of the kind
    INVALID = "Invalid"  # it has something, and it is not what was asked for
    UNKNOWN = "Unknown"  # it could not be found out


class Signer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who signed: a key, or an identity.

    Attributes:
        key: `sha256:<hex>` of the public key (DER, SubjectPublicKeyInfo).
        issuer: who attested the identity.
        subject: the identity.
    """

    key: Annotated[str, Meta(max_length=71)] = ""
    issuer: Text = ""
    subject: Text = ""

    def __str__(self) -> str:
        """As a person would say it."""
        return f"{self.subject} (attested by {self.issuer})" if self.subject else f"key {self.key[:19]}…"


MAX_ANSWERS = 8
"""Answers to one demand that are kept: the newest of each signer, and what was dated in the future."""


class Said(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What one signer answers to one demand.

    Attributes:
        outcome: Verified or Invalid.
        reason: why not Verified, one line.
        signer: who signed; None where that is not known.
        made_at: when what is attested was made, UTC, by its own word; where that lay in the future, when it was first seen.
        dated: its own date, where that lay in the future when it was first seen.
        at: when it was last seen, UTC.
    """

    outcome: Proven
    reason: Annotated[str, Meta(max_length=400)] = ""
    signer: Signer | None = None
    made_at: datetime | None = None
    dated: datetime | None = None
    at: datetime


class Proof(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was found out about one demand: the newest answer, and those that count where it is a revoked signer's.

    Attributes:
        demand: its id.
        authority: what the policy that first asked calls it, for people.
        outcome: Verified, Missing or Invalid.
        reason: why not Verified, one line.
        signer: who signed, where that is known.
        material: sha256 of the key or the trust root it was verified with, 16 hexadecimal digits.
        at: when it was found out, UTC.
        made_at: as in `Said`.
        dated: as in `Said`.
        others: answers that are older, the newest first.
    """

    demand: Annotated[str, Meta(max_length=16)]
    authority: Annotated[str, Meta(max_length=63)] = ""
    outcome: Proven
    reason: Annotated[str, Meta(max_length=400)] = ""
    signer: Signer | None = None
    material: Annotated[str, Meta(max_length=16)] = ""
    at: datetime
    made_at: datetime | None = None
    dated: datetime | None = None
    others: Annotated[tuple[Said, ...], Meta(max_length=MAX_ANSWERS)] = ()

    @property
    def answers(self) -> tuple[Said, ...]:
        """Whatever a signer answered, the newest first. That there is nothing, or nothing by whom it should be, is nobody's answer."""
        if self.outcome is Proven.VERIFIED or (self.outcome is Proven.INVALID and (self.signer is not None or self.made_at is not None)):
            return (self._first(), *self.others)
        return self.others

    def _first(self) -> Said:
        return Said(outcome=self.outcome, reason=self.reason, signer=self.signer, made_at=self.made_at, dated=self.dated, at=self.at)

    def by(self, answer: Said, *others: Said) -> "Proof":
        """Returns the same proof with another answer, and these behind it."""
        return msgspec.structs.replace(
            self,
            outcome=answer.outcome,
            reason=answer.reason,
            signer=answer.signer,
            made_at=answer.made_at,
            dated=answer.dated,
            at=answer.at,
            others=others,
        )


class Place(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A repository that was asked about a digest.

    Attributes:
        reference: `repository@sha256:…`.
        at: when it was last asked, UTC.
        reason: why not everything could be found out there then; empty where it could.
        answered: demand → when it last had an answer, UTC: that there is nothing is one, too.
    """

    reference: Annotated[str, Meta(max_length=512)]
    at: datetime
    reason: Annotated[str, Meta(max_length=200)] = ""
    answered: Annotated[dict[Annotated[str, Meta(max_length=16)], datetime], Meta(max_length=MAX_PROOFS)] = {}


_GLOB = r"[a-zA-Z0-9.*\[][a-zA-Z0-9._:*/\[\]-]*"
_MATCHING = rules(
    Rule("!self.contains('//')", "an image is named without a scheme and without empty segments"),
    Rule(
        "self.contains('/') || self.contains('**') || !self.matches('[.:@]|^localhost$')",
        "a registry has a repository behind it, HOST/** for all of them; tags and digests are no part of a name",
    ),
    Rule("self != '*'", "'*' matches no image: '**' is every image, docker.io/library/* the official ones of Docker Hub"),
    Rule("!self.matches('^[^/]*/.*[A-Z:]')", "names of repositories are lowercase, and tags are no part of them"),
)
ImageGlob = Annotated[str, Meta(min_length=1, max_length=255, extra_json_schema={"pattern": f"^{_GLOB}$", **_MATCHING})]
"""Which images: their names as in `mlwarden.model.glob`."""
_IMAGES = Annotated[tuple[ImageGlob, ...], Meta(min_length=1, max_length=64)]
_AUTHORITIES = Annotated[tuple[Authority, ...], Meta(min_length=1, max_length=10)]
_AGE = Annotated[str, Meta(max_length=8, extra_json_schema={"pattern": r"^[1-9][0-9]{0,5}[smhdw]$"})]
_ENOUGH = Rule(
    "!has(self.required) || self.required >= 1 && self.required <= self.authorities.size()",
    "required is between 1 and the number of authorities",
)


def _check(required: int, authorities: tuple[Authority, ...], images: tuple[str, ...]) -> None:
    # One that matches nothing beside others that do is refused where it is written (`policy.accepted`), and harmless where it is stored.
    useless = [glob.useless(each) for each in images]
    if all(useless):
        raise ValueError(f"images: {useless[0]}" if useless else "images names none")
    if not 1 <= required <= len(authorities):
        raise ValueError("required is between 1 and the number of authorities")
    if len({authority.name for authority in authorities}) != len(authorities):
        raise ValueError("two authorities have the same name")
    if len({Demand(authority=authority).id for authority in authorities}) != len(authorities):
        raise ValueError("two authorities are the same: one signature would count twice")


class ImageSignature(Wire, frozen=True, kw_only=True):
    """Does cosign verify this digest for enough of these authorities?

    Attributes:
        images: which images it is about, by name as it is written in an image, `*` for part of one segment, `**` for any number of them;
            the others are not asked.
        authorities: whose signatures count.
        required: how many of them must have signed.
        max_age: how long a signature that was verified is believed before it is looked at again.
    """

    RULES: ClassVar = (_ENOUGH,)

    images: _IMAGES = ("**",)
    authorities: _AUTHORITIES
    required: int = 1
    max_age: _AGE = "24h"

    def __post_init__(self) -> None:
        """Raises ValueError for what the CEL rules refuse."""
        _check(self.required, self.authorities, self.images)

    @property
    def demands(self) -> tuple[Demand, ...]:
        """One per authority, in their order."""
        return tuple(Demand(authority=authority) for authority in self.authorities)


class ImageAttestation(Wire, frozen=True, kw_only=True):
    """Is there a signed attestation of this type, fresh enough, whose content satisfies this CEL?

    Attributes:
        images: which images it is about, as in `imageSignature`.
        authorities: whose attestations count.
        required: how many of them must have attested it.
        predicate_type: URI of the predicate, or slsaprovenance, slsaprovenance02, slsaprovenance1, vuln, spdx, cyclonedx or openvex.
        condition: CEL over `predicate`, the attestation's content; true where all is well.
        fresh: how old what is attested may be (a scan, a build, a list of parts), by its own date; empty: any age.
        max_age: how long an attestation that was verified is believed before it is looked at again.
    """

    RULES: ClassVar = (_ENOUGH,)

    images: _IMAGES = ("**",)
    authorities: _AUTHORITIES
    required: int = 1
    predicate_type: Annotated[str, Meta(min_length=1, max_length=253)]
    condition: Annotated[str, Meta(max_length=16384)] = ""
    fresh: Annotated[str, Meta(max_length=8, extra_json_schema={"pattern": r"^([1-9][0-9]{0,5}[smhdw])?$"})] = ""
    max_age: _AGE = "24h"

    def __post_init__(self) -> None:
        """Raises ValueError for what the CEL rules refuse."""
        _check(self.required, self.authorities, self.images)
        if self.predicate_type not in PREDICATES and ":" not in self.predicate_type:
            raise ValueError(f"predicateType is a URI, or one of {', '.join(PREDICATES)}")

    @property
    def demands(self) -> tuple[Demand, ...]:
        """One per authority, in their order."""
        kind = PREDICATES.get(self.predicate_type, self.predicate_type)
        return tuple(Demand(authority=authority, predicate_type=kind, condition=self.condition) for authority in self.authorities)


PREDICATES = {
    "slsaprovenance": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
    "spdx": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "openvex": "https://openvex.dev/ns",
}
"""cosign's short names (`pkg/cosign/attestation`, `options/predicate.go`)."""

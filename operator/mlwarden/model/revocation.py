"""What must not run any more, whoever signed it and however clean its scan was: plain values.

A revocation names one thing: a digest, a key, or a signer. A digest is judged by the engine itself, in every governed namespace and without
exceptions. A key or a signer is never judged alone: the checks of signatures do not count what it signed, and where too little is left the
policy that asked fails in its own words.

Rejected: an end date. What was revoked for a reason does not become good by waiting; whoever knows better deletes the object, and the audit
log says who that was.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Annotated, ClassVar, Protocol

import msgspec
from msgspec import Meta

from mlwarden.model.digest import Digest
from mlwarden.model.schema import Rule, rules

_SHA256 = Meta(max_length=71, extra_json_schema={"pattern": "^sha256:[0-9a-f]{64}$"})
_LINE = rules(Rule("!self.matches('[\\r\\n]')", "one line, without line breaks"))


class Running(StrEnum):
    """What happens to pods that run already when they would be refused now."""

    REPORT = "Report"
    EVICT = "Evict"


class Signed(Protocol):
    """Whoever made a signature: a key by its fingerprint, or an identity. What is not known is empty."""

    @property
    def key(self) -> str:
        """`sha256:<hex>` of the public key (DER, SubjectPublicKeyInfo)."""

    @property
    def issuer(self) -> str:
        """Who attested the identity."""

    @property
    def subject(self) -> str:
        """The identity."""


class RevokedSigner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An identity in certificates, to the letter.

    Attributes:
        issuer: the OpenID Connect issuer.
        subject: e-mail address or URI in the certificate.
    """

    issuer: Annotated[str, Meta(min_length=1, max_length=512)]
    subject: Annotated[str, Meta(min_length=1, max_length=512)]


class RevocationSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Exactly one of `digest`, `key` and `signer`, and why. Unknown fields are skipped: a newer version's objects must still revoke.

    Attributes:
        digest: 'sha256:…' of an image, index or manifest.
        key: 'sha256:…' of a public key (DER, SubjectPublicKeyInfo); what it signed does not count as signed.
        signer: an identity; what it signed does not count as signed.
        reason: why, one line; whoever is refused reads it.
        reference: a ticket or an advisory, one line.
        running: what happens to pods that run it: they are reported, or also evicted where the chart allows that.
    """

    RULES: ClassVar = (
        Rule(
            "[has(self.digest), has(self.key), has(self.signer)].filter(given, given).size() == 1",
            "a revocation names exactly one of digest, key and signer",
        ),
    )

    digest: Annotated[str, _SHA256] = ""
    key: Annotated[str, _SHA256] = ""
    signer: RevokedSigner | None = None
    reason: Annotated[str, Meta(min_length=1, max_length=300, extra_json_schema=_LINE)]
    reference: Annotated[str, Meta(max_length=300, extra_json_schema=_LINE)] = ""
    running: Running = Running.REPORT


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """A revocation by its name."""

    name: str
    spec: RevocationSpec


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is revoked, by what it names.

    Attributes:
        digests: digest → its revocation; with what is known to belong to a digest that is named: the manifests of an index, and the
            indexes of a manifest.
        keys: fingerprint → its revocation.
        signers: issuer and subject → its revocation.
        unreadable: revocations nobody can read, name → reason; never skipped.
    """

    digests: Mapping[Digest, Revocation] = {}
    keys: Mapping[str, Revocation] = {}
    signers: Mapping[tuple[str, str], Revocation] = {}
    unreadable: Mapping[str, str] = {}

    @classmethod
    def of(
        cls,
        revocations: Iterable[Revocation],
        unreadable: Mapping[str, str] | None = None,
        related: Callable[[Digest], Iterable[Digest]] = lambda _digest: (),
    ) -> "Revoked":
        """Returns them by what they name; of two that name the same, the one whose name sorts first speaks.

        Args:
            revocations: all of them.
            unreadable: those that nobody can read, name → reason.
            related: what is revoked together with a digest that is named. One step and no more: that an index is not to run because of one
                of its manifests says nothing of the others.
        """
        digests: dict[Digest, Revocation] = {}
        keys: dict[str, Revocation] = {}
        signers: dict[tuple[str, str], Revocation] = {}
        for each in sorted(revocations, key=lambda each: each.name, reverse=True):
            if each.spec.digest:
                digests[Digest(each.spec.digest)] = each
            if each.spec.key:
                keys[each.spec.key] = each
            if each.spec.signer is not None:
                signers[each.spec.signer.issuer, each.spec.signer.subject] = each
        with_it: dict[Digest, Revocation] = {}
        for named, each in sorted(digests.items(), key=lambda item: item[1].name, reverse=True):
            with_it.update(dict.fromkeys(sorted(related(named)), each))
        digests = with_it | digests
        return cls(digests=digests, keys=keys, signers=signers, unreadable=dict(unreadable or {}))

    def signer(self, signed: Signed) -> Revocation | None:
        """Returns what revokes the key or the identity that made a signature, None where nothing does."""
        found = self.keys.get(signed.key) if signed.key else None
        return found or self.signers.get((signed.issuer, signed.subject))

"""What cosign printed, read by us and believed no further than we can see.

cosign's `verify` counts attestations among the signatures: an attestation that an image *fails* a scan, signed with the release key, is a
"valid signature" of it. And `verify-attestation` has reported success for types that nobody attested (CVE-2022-35929). So type, subject and
predicate are compared here, exactly, and no result is a failure whatever the exit code.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlwarden.evidence.failure import TransientError
from mlwarden.model.digest import Digest
from mlwarden.model.signing import Signer

SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""Predicate type of a signature in a bundle."""
SIGNATURE_TYPES = frozenset({"cosign container image signature", SIGNATURE})
"""`critical.type` of a signature, in the older form and in bundles."""
_NOTHING = "cosign says that it verified, and not what"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENTS = frozenset({"https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1"})
_DATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "https://cosign.sigstore.dev/attestation/vuln/v1": (("metadata", "scanFinishedOn"),),
    "https://in-toto.io/attestation/vulns/v0.1": (("metadata", "scanFinishedOn"),),
    "https://slsa.dev/provenance/v1": (("runDetails", "metadata", "finishedOn"), ("runDetails", "metadata", "startedOn")),
    "https://slsa.dev/provenance/v0.2": (("metadata", "buildFinishedOn"),),
    "https://cyclonedx.org/bom": (("metadata", "timestamp"),),
    "https://spdx.dev/Document": (("creationInfo", "created"),),
    "https://openvex.dev/ns": (("timestamp",),),
}
"""Where each predicate says when what it attests was made; the first that is there."""


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """One verified attestation.

    Attributes:
        predicate: what was attested, decoded JSON.
        signer: by whom.
        made_at: when what it attests was made, by its own word, UTC; None where it does not say.
    """

    predicate: Any
    signer: Signer
    made_at: datetime | None = None


class Attestations(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one type.

    Attributes:
        found: verified, the newest first.
        reason: why there is something that does not count; empty where all of it does, or there is nothing.
    """

    found: tuple[Attested, ...] = ()
    reason: str = ""


class _Image(msgspec.Struct, frozen=True, rename="kebab"):
    docker_manifest_digest: str


class _Critical(msgspec.Struct, frozen=True):
    image: _Image
    type: str


class Signature(msgspec.Struct, frozen=True):
    """One element of what `cosign verify -o json` prints."""

    critical: _Critical
    optional: dict[str, Any] | None = None


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str


class _Subject(msgspec.Struct, frozen=True):
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, rename={"kind": "_type", "predicate_type": "predicateType"}):
    kind: str
    predicate_type: str
    subject: list[_Subject]
    predicate: Any = None


def signatures(output: bytes, digest: Digest) -> tuple[list[Signature], int]:
    """Returns the signatures of this digest, and how many signatures of other digests cosign believes to have verified.

    Raises:
        TransientError: it is not what cosign prints.
    """
    try:
        printed = msgspec.json.decode(output, type=list[Signature] | None)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise TransientError("cosign's answer is not what it should be, or not whole") from None
    if not printed:
        raise TransientError(_NOTHING)
    signed = [each for each in printed if each.critical.type in SIGNATURE_TYPES]
    ours = [each for each in signed if each.critical.image.docker_manifest_digest == digest]
    return ours, len(signed) - len(ours)


def predicates(output: bytes, digest: Digest, predicate_type: str) -> tuple[list[Any], int]:
    """Returns the predicates of this type about this digest, and how many envelopes hold something else.

    Raises:
        TransientError: it is not what cosign prints.
    """
    found: list[Any] = []
    others = 0
    try:
        for line in output.splitlines():
            if not line.strip():
                continue
            envelope = msgspec.json.decode(line, type=_Envelope)
            if envelope.payload_type != _PAYLOAD:
                others += 1
                continue
            statement = msgspec.json.decode(base64.b64decode(envelope.payload, validate=True), type=_Statement)
            ours = any(subject.digest.get("sha256") == digest.removeprefix("sha256:") for subject in statement.subject)
            if ours and statement.kind in _STATEMENTS and statement.predicate_type == predicate_type:
                found.append(statement.predicate)
            else:
                others += 1
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, RecursionError):
        raise TransientError("cosign's answer is not what it should be, or not whole") from None
    if not found and not others:
        raise TransientError(_NOTHING)
    return found, others


def made_at(predicate: Any, predicate_type: str) -> datetime | None:
    """Returns when what a predicate attests was made, UTC; None where it does not say, or not in which time zone."""
    for path in _DATES.get(predicate_type, ()):
        value = predicate
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and (found := _time(value)) is not None:
            return found
    return None


def _time(text: str) -> datetime | None:
    try:
        found = msgspec.convert(text, datetime)
        # Go writes the year 1 where it has no time.
        return found.astimezone(UTC) if found.tzinfo is not None and found.year > 1970 else None
    except (msgspec.ValidationError, OverflowError, ValueError):
        return None

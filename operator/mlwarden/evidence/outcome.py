"""What one run of cosign means.

Three answers and no more: Verified where what cosign printed says so about exactly this digest, Missing where the registry was heard to say
that there is nothing, Invalid where there is something and it is not what was asked for. Everything else is no answer.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from mlwarden import cel
from mlwarden.evidence import attestations, exchanges, process
from mlwarden.evidence.attestations import Attested
from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.tool import Pull
from mlwarden.model.signing import Demand, Proven, Signer

_FUTURE = timedelta(minutes=5)
_TRUST = ("setting trusted material", "setting up clients and keys")
_CONFIGURED = ("loading trusted root", "loading public key", "parsing reference")
_NOTHING = ("no signatures found", "no matching attestations:")
_NO_MATCH = ("no matching signatures:", "no matching attestations:", "no certificate found on signature")
_OTHER_KEY = ("invalid signature when validating ASN.1 encoded signature", "accepted signatures do not match threshold")
_OTHER_TYPE = "none of the attestations matched the predicate type"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one question came to.

    Attributes:
        outcome: Verified, Missing or Invalid.
        reason: why not Verified.
        signer: where Verified.
        predicates: what was attested, where attestations were asked for and Verified.
    """

    outcome: Proven
    reason: str = ""
    signer: Signer | None = None
    predicates: tuple[Any, ...] = ()


def read(done: process.Completed, pull: Pull, demand: Demand) -> tuple[Outcome, bool]:
    """Returns what a run of `verify` or `verify-attestation` means, and whether it looked at the older form of storage.

    Args:
        done: the run, with `--verbose`.
        pull: the image.
        demand: the question.

    Raises:
        DefinitiveError, TransientError: it means nothing.
    """
    if done.code < 0:
        raise TransientError(
            f"cosign was killed by signal {-done.code}", hint="more memory for the scanner, where that is the kernel's doing"
        )
    seen = exchanges.read(done.errors)
    older = seen.asked(_tag(pull, demand))
    if done.code > 0:
        return _failed(done, seen, pull, demand), older
    if demand.predicate_type:
        found = _attestations(done, pull, demand)
    elif (found := _signatures(done, pull, demand)).outcome is Proven.VERIFIED:
        return found, older
    # What could not be fetched could be the signature, or a newer attestation.
    _heard_everything(done, seen)
    return found, older


def _heard_everything(done: process.Completed, seen: exchanges.Exchanges) -> None:
    if (trouble := seen.trouble()) is not None:
        raise trouble
    if done.cut:
        raise TransientError("cosign said more about this image than is kept", hint="fewer signatures on this image")


def _failed(done: process.Completed, seen: exchanges.Exchanges, pull: Pull, demand: Demand) -> Outcome:
    """In this order: what we did wrong, what the registry did not answer, and only then what cosign thinks of the image."""
    said = re.sub(r"\?\S*", "?…", exchanges.said(done.errors)).rstrip() or "it did not say why"
    if any(each in said for each in _CONFIGURED):
        raise DefinitiveError(f"cosign cannot use what it was given: {one_line(said, 200)}")
    if said.startswith(_TRUST):
        raise TransientError(
            f"Sigstore's trust root cannot be fetched: {one_line(said, 160)}",
            hint="give the scanner the file, as one of scanner.trustRoots",
        )
    _heard_everything(done, seen)
    if said.startswith(_OTHER_TYPE):
        others = one_line(said.rpartition("found: ")[2], 120)
        return Outcome(outcome=Proven.MISSING, reason=f"there is no {demand.predicate_type}, only {others}")
    if said in _NOTHING:
        if not seen.absent(_tag(pull, demand)):
            raise TransientError("cosign found nothing, and the registry was not heard to say so")
        return Outcome(outcome=Proven.MISSING, reason=f"there is no {'attestation' if demand.predicate_type else 'signature'}")
    if said.startswith(_NO_MATCH):
        return Outcome(outcome=Proven.INVALID, reason=_other(said, demand))
    raise TransientError(f"cosign failed ({done.code}): {one_line(said, 200)}")


def _other(said: str, demand: Demand) -> str:
    """Why what is there does not count; cosign's words where they say more than that the key does not fit."""
    if not demand.authority.identities and not demand.authority.log and any(each in said for each in _OTHER_KEY):
        return f"there is one, and not by the key of {demand.authority.name}"
    return f"not by {demand.authority.name}: {_reason(said)}"


def judged(verified: Sequence[Outcome], demand: Demand, now: datetime) -> tuple[Outcome, datetime | None]:
    """Returns what the attested predicates of all forms of storage mean under the demand's condition, and when what they attest was made.

    The newest decides: an older scan without findings says nothing beside today's. Where several are equally new, or none has a date, all
    of them must satisfy the condition.
    """
    known = dated(verified, demand.predicate_type)
    if not known:
        return verified[0], None
    found = msgspec.structs.replace(verified[0], signer=known[0].signer)
    made_at = known[0].made_at
    if made_at is not None and made_at > now + _FUTURE:
        return Outcome(outcome=Proven.INVALID, reason=f"it says that it was made in the future ({made_at:%Y-%m-%dT%H:%M:%SZ})"), None
    if not demand.condition:
        return found, made_at
    try:
        program = cel.compile(demand.condition, variables=("predicate",), expect=bool)
    except cel.CelError as error:
        raise DefinitiveError(f"the condition does not compile: {one_line(error.message)}", hint=error.hint) from None
    for each in known:
        if each.made_at != made_at:
            break
        try:
            if not program({"predicate": cel.strip_nulls(each.predicate)}):
                return Outcome(outcome=Proven.INVALID, reason="what it attests does not satisfy the condition"), made_at
        except cel.EvaluationError as error:
            reason = f"the condition has no value for what it attests: {one_line(str(error), 160)}"
            return Outcome(outcome=Proven.INVALID, reason=reason), made_at
    return found, made_at


def _signatures(done: process.Completed, pull: Pull, demand: Demand) -> Outcome:
    ours, others = attestations.signatures(done.output, pull.digest)
    if ours:
        return Outcome(outcome=Proven.VERIFIED)
    if others:
        return Outcome(outcome=Proven.INVALID, reason="it is a signature of another image")
    return Outcome(outcome=Proven.MISSING, reason=f"there is no signature by {demand.authority.name}, only attestations")


def _attestations(done: process.Completed, pull: Pull, demand: Demand) -> Outcome:
    found, others = attestations.predicates(done.output, pull.digest, demand.predicate_type)
    if found:
        return Outcome(outcome=Proven.VERIFIED, predicates=tuple(found))
    return Outcome(outcome=Proven.INVALID, reason=f"{others} attestations are of another image or of another type")


def dated(verified: Sequence[Outcome], predicate_type: str) -> tuple[Attested, ...]:
    """Returns what was attested with its dates, newest first, in whichever form it is stored."""
    found = [
        Attested(predicate=each, signer=outcome.signer, made_at=attestations.made_at(each, predicate_type))
        for outcome in verified
        if outcome.signer is not None
        for each in outcome.predicates
    ]
    oldest = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(found, key=lambda each: each.made_at or oldest, reverse=True))


def _tag(pull: Pull, demand: Demand) -> str:
    """End of the path of the older form's tag."""
    return f"/manifests/{pull.digest.replace(':', '-')}.{'att' if demand.predicate_type else 'sig'}"


def _reason(said: str) -> str:
    """Cosign's reason without its own nesting: the last and most telling part of each attempt."""
    return one_line(said.partition(":")[2] or said, 240)

"""What one run of cosign means.

Three answers and no more: Verified where what cosign printed says so about exactly this digest, Missing where the registry was heard to say
that there is nothing, Invalid where there is something and it is not what was asked for. Everything else is no answer.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from mlwarden import cel
from mlwarden.evidence import attestations, exchanges, process
from mlwarden.evidence.attestations import Attested
from mlwarden.evidence.failure import DefinitiveError, TransientError, one_line
from mlwarden.evidence.tool import Pull
from mlwarden.model.signing import Demand, Proven, Said, Signer

_MOST_FUTURE = 3
"""Attestations of one signer that are dated in the future and looked at."""
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


def answers(verified: Sequence[Outcome], demand: Demand, now: datetime) -> tuple[Said, ...]:
    """Returns what the attested predicates of all forms of storage mean under the demand's condition, signer by signer.

    Of each signer the newest decides: an older scan without findings says nothing beside today's. Where several are equally new, or
    none has a date, all of them must satisfy the condition. Those from the future are beside it, with their dates: what they count as
    depends on when they were first seen.

    Raises:
        DefinitiveError: the condition is none.
    """
    by_signer: dict[Signer, dict[datetime | None, list[Attested]]] = {}
    for each in dated(verified, demand.predicate_type):
        by_signer.setdefault(each.signer, {}).setdefault(each.made_at, []).append(each)
    satisfied = _condition(demand)
    found: list[Said] = []
    for signer, by_date in by_signer.items():
        future = [made_at for made_at in by_date if made_at is not None and made_at > now]
        counting = [*future[:_MOST_FUTURE], *[made_at for made_at in by_date if made_at not in future][:1]]
        for made_at in counting:
            reason = next((reason for each in by_date[made_at] if (reason := satisfied(each))), "")
            outcome = Proven.INVALID if reason else Proven.VERIFIED
            found.append(Said(outcome=outcome, reason=one_line(reason), signer=signer, made_at=made_at, at=now))
    return tuple(found)


def _condition(demand: Demand) -> Callable[[Attested], str]:
    """Why what is attested does not satisfy the condition; `""` where it does."""
    if not demand.condition:
        return lambda _: ""
    try:
        program = cel.compile(demand.condition, variables=("predicate",), expect=bool)
    except cel.CelError as error:
        raise DefinitiveError(f"the condition does not compile: {one_line(error.message)}", hint=error.hint) from None

    def satisfied(attested: Attested) -> str:
        try:
            good = program({"predicate": cel.strip_nulls(attested.predicate)})
        except cel.EvaluationError as error:
            return f"the condition has no value for what it attests: {one_line(str(error), 160)}"
        return "" if good else "what it attests does not satisfy the condition"

    return satisfied


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

"""What `imageSignature` and `imageAttestation` have in common: enough demands with a proof.

A proof counts as long as the policy believes it; that something is not signed is believed for a minute only, because people sign right
after they push, and right after they were refused. What is missing, old or could not be found out is `Unknown` with the reason, and so is
an outcome that could still change: of three authorities of which two must have signed, one failure decides nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta

import msgspec

from mlwarden.checks.age import spoken
from mlwarden.checks.answer import Answer
from mlwarden.checks.resolved import BROKEN, Subject, because, unknown
from mlwarden.checks.text import NAME_LENGTH, REASON_LENGTH, clean
from mlwarden.model.evidence import SIGNATURES, Facts, Phase, Proofs
from mlwarden.model.finding import Outcome
from mlwarden.model.revocation import Revocation, Revoked
from mlwarden.model.signing import MAX_PROOFS, Demand, Proof, Proven, Signer

NEGATIVE_AGE = timedelta(seconds=60)
"""How long it is believed that something is not signed."""
SKEW = timedelta(minutes=5)
"""How far the scanner's clock may be ahead of ours."""
_SHOWN = 3


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy wants to have proven.

    Attributes:
        demands: by id, one per authority.
        required: how many of them.
        max_age: how long a proof counts.
        noun: what is looked for: `signature`, `attestation`.
        fine: why a verified proof does not count after all; `""` where it does.
    """

    demands: Mapping[str, Demand]
    required: int
    max_age: timedelta
    noun: str
    fine: Callable[[Proof], str]


def proven(subject: Subject, asked: Asked, facts: Facts) -> Answer:
    """Returns whether enough of what is asked was proven about one image."""
    known = facts.proofs.get(subject.digest)
    wanted = SIGNATURES + subject.at
    states = _once(_state(name, demand, subject, asked, facts) for name, demand in asked.demands.items())
    good = [state for state in states if state.outcome is Outcome.PASS]
    if len(good) >= asked.required:
        return Answer(outcome=Outcome.PASS, element="", path="")
    open_ = [state for state in states if state.outcome is Outcome.UNKNOWN]
    if len(good) + len(open_) >= asked.required:
        reason = _not_there(known) or f"{_listed(open_)}"
        fix = BROKEN if known is not None and known.phase is Phase.FAILED else ""
        return unknown(clean(f"the {asked.noun}s of image {subject.name} {reason}"), fix=fix, wanted=wanted)
    failed = [state for state in states if state.outcome is Outcome.FAIL]
    of = f"{len(good)} of the {asked.required} {asked.noun}s it needs" if asked.required > 1 else f"no {asked.noun} that counts"
    # Asked for again although it is known: somebody may have signed it a moment ago.
    return Answer(outcome=Outcome.FAIL, element="", path="", message=clean(f"it has {of}: {_listed(failed)}"), wanted=wanted)


class _State(msgspec.Struct, frozen=True):
    outcome: Outcome
    said: str = ""
    name: str = ""
    signer: Signer | None = None


def _once(states: Iterable[_State]) -> list[_State]:
    """Every signer counts for one authority: the first that was satisfied by it. One key in a policy and in a Secret is one key."""
    taken: dict[Signer, str] = {}
    found: list[_State] = []
    for state in states:
        if state.outcome is Outcome.PASS and state.signer is not None and taken.setdefault(state.signer, state.name) != state.name:
            found.append(
                _State(Outcome.FAIL, clean(f"{state.name}: signed by {state.signer}, which counts for {taken[state.signer]} already"))
            )
        else:
            found.append(state)
    return found


def _state(wanted: str, demand: Demand, subject: Subject, asked: Asked, facts: Facts) -> _State:
    name, known = clean(demand.authority.name, NAME_LENGTH), facts.proofs.get(subject.digest)
    proof = known.proofs.get(wanted) if known is not None else None
    if proof is None and known is not None and len(known.proofs) >= MAX_PROOFS:
        said = f"are not looked at for {name}: the policies want more than {MAX_PROOFS} different things proven about this image"
        return _State(Outcome.UNKNOWN, said)
    if known is None or proof is None:
        return _State(Outcome.UNKNOWN, f"have not been looked at for {name} yet")
    if proof.outcome is Proven.UNKNOWN:
        return _State(Outcome.UNKNOWN, f"could not be looked at for {name}{because(proof.reason)}")
    proof, revoked = _counting(proof, facts.revoked)
    looked = proof.at if _anywhere(proof, demand) else known.answered.get(subject.at, {}).get(wanted)
    if looked is None:
        return _State(Outcome.UNKNOWN, f"have not been looked at for {name} in the repository that is named here")
    age = facts.now - looked
    if age < -SKEW:
        return _State(Outcome.UNKNOWN, f"were looked at in the future for {name}, by the scanner's clock")
    if proof.outcome is not Proven.VERIFIED:
        if age > NEGATIVE_AGE:
            return _State(Outcome.UNKNOWN, f"did not satisfy {name} {spoken(age)} ago and are being looked at again")
        return _State(Outcome.FAIL, f"{name}: {clean(proof.reason, REASON_LENGTH) or proof.outcome.value}")
    if age > asked.max_age:
        return _State(Outcome.UNKNOWN, f"were verified for {name} {spoken(age)} ago, which is too long")
    if revoked is not None:
        return _State(Outcome.FAIL, clean(f"{name}: signed by {proof.signer}, which is revoked: {revoked.spec.reason}"))
    return _verified(name, proof, asked, facts)


def _counting(proof: Proof, revoked: Revoked) -> tuple[Proof, Revocation | None]:
    """The proof by the newest answer whose signer is not revoked; where all are, as it is, and what revokes the newest."""
    answers = proof.answers
    taken = [revoked.signer(answer.signer) if answer.signer is not None else None for answer in answers]
    for number, answer in enumerate(answers):
        if taken[number] is None:
            return proof.by(answer, *answers[number + 1 :]), None
    return (proof.by(answers[0], *answers[1:]), taken[0]) if answers else (proof, None)


def _anywhere(proof: Proof, demand: Demand) -> bool:
    """Whether it counts wherever it was found: a signature does, it is of a digest.

    That there is none, and that an attestation is the newest, only the repository that is named here can say: what is known of copies
    elsewhere is not known of it.
    """
    return proof.outcome is Proven.VERIFIED and not demand.predicate_type


def _verified(name: str, proof: Proof, asked: Asked, facts: Facts) -> _State:
    """One of which nobody knows who made it could be by a revoked key or signer."""
    if proof.signer is None and (facts.revoked.keys or facts.revoked.signers):
        return _State(Outcome.UNKNOWN, f"were verified for {name}, but not who signed, and there are revoked keys or signers")
    why = asked.fine(proof)
    return _State(Outcome.FAIL, f"{name}: {why}") if why else _State(Outcome.PASS, name=name, signer=proof.signer)


def _not_there(known: Proofs | None) -> str:
    if known is None:
        return "have not been looked at yet"
    match known.phase:
        case Phase.PENDING:
            return f"are being looked at{because(known.reason)}"
        case Phase.FAILED:
            return f"cannot be looked at{because(known.reason)}"
        case Phase.READY:
            return ""


def _listed(states: Iterable[_State]) -> str:
    said = [state.said for state in states]
    rest = len(said) - _SHOWN
    return "; ".join([*said[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])

"""What is known about a demand after one more look. Pure: the time is an argument.

Whoever copies an image leaves behind what speaks against it. So what was found once is not forgotten because another look did not see it:

- Of each signer the newest answer is kept; an older one never takes its place, wherever it was found. That an attestation failed is only
  over when its signer has attested something newer.
- What verified, and is not there any more, is forgotten when every place that had an answer before was asked again and says so.
- What has no date cannot be newer than anything: a failure goes on to count until every place says otherwise.
- A date in the future counts as the time it was first seen, so that it stands neither before nor after everything that is still to come.

Rejected: to keep, for each repository, what it said (whoever may name repositories decides what falls out of such a list).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from mlwarden.model.signing import MAX_ANSWERS, MAX_PROOFS, Place, Proof, Proven, Said

MAX_PLACES = 32
GONE_AFTER = timedelta(days=7)
"""A place that had no answer for so long keeps nothing from being over."""
_OLDEST = datetime(1, 1, 1, tzinfo=UTC)


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of looking.

    Attributes:
        proofs: one for each demand: what all places together say.
        places: one for each repository that was to be asked.
    """

    proofs: tuple[Proof, ...]
    places: tuple[Place, ...]


def newest_first(answers: Iterable[Said]) -> list[Said]:
    """Returns answers in the order in which they decide; of those of the same time the one that fails comes first."""
    return sorted(answers, key=_order, reverse=True)


def _order(answer: Said) -> tuple[datetime, bool, bool]:
    return answer.made_at or _OLDEST, answer.outcome is not Proven.VERIFIED, answer.signer is not None


def together(proofs: Sequence[Proof]) -> Proof:
    """Returns what several looks at the same time say about one demand, with the dates as they are written.

    What nobody answered is `Unknown` only where no place could be asked: that there is nothing in one is an answer about that one.
    """
    answers = newest_first({(each.signer, each.made_at): each for each in newest_first(_all(proofs))[::-1]}.values())
    first = min(proofs, key=lambda proof: (Proven.INVALID, Proven.MISSING, Proven.UNKNOWN, Proven.VERIFIED).index(proof.outcome))
    return first.by(*answers[:MAX_ANSWERS]) if answers else msgspec.structs.replace(first, others=())


def merged(before: Proof | None, made: Proof, now: datetime, *, complete: bool) -> Proof:
    """Returns what is known after a look.

    Args:
        before: what was known, None where nothing was.
        made: what the look said, `together`.
        now: the time.
        complete: every place that had an answer before was asked again.
    """
    known = before if before is not None and before.material == made.material else None
    if made.outcome is Proven.UNKNOWN:
        # What could not be found out leaves what was known, with its age.
        return known if known is not None and known.outcome is not Proven.UNKNOWN else msgspec.structs.replace(made, at=now)
    old = known.answers if known is not None else ()
    new = [_seen(each, old, now) for each in made.answers]
    kept = [each for each in old if _stays(each, new, complete=complete)]
    replaced = {_key(each) for each in kept}
    answers = _bounded(newest_first([*kept, *(each for each in new if _key(each) not in replaced)]))
    if not answers:
        return msgspec.structs.replace(made, at=now, others=())
    found = made.by(*answers)
    # That it fails is known as of now: this look has found nothing newer.
    return found if found.outcome is Proven.VERIFIED else msgspec.structs.replace(found, at=now)


def _all(proofs: Iterable[Proof]) -> list[Said]:
    return [answer for proof in proofs for answer in proof.answers]


def _key(answer: Said) -> tuple[object, ...]:
    return answer.signer, answer.dated or answer.made_at


def _seen(answer: Said, old: Sequence[Said], now: datetime) -> Said:
    """An answer with the time at which its date counts."""
    first = next((each for each in old if each.dated is not None and _key(each) == _key(answer)), None)
    if first is not None:
        return msgspec.structs.replace(answer, made_at=first.made_at, dated=first.dated, at=now)
    if answer.made_at is not None and answer.made_at > now:
        return msgspec.structs.replace(answer, made_at=now, dated=answer.made_at, at=now)
    return msgspec.structs.replace(answer, at=now)


def _stays(answer: Said, new: Sequence[Said], *, complete: bool) -> bool:
    """Whether what was known goes on to count beside what was seen now."""
    again = next((each for each in new if _key(each) == _key(answer)), None)
    if again is not None:
        return not complete and answer.outcome is not Proven.VERIFIED and again.outcome is Proven.VERIFIED
    unknown_signer = answer.signer is None and any(each.made_at == answer.made_at and each.outcome is answer.outcome for each in new)
    return not unknown_signer and (not complete or (answer.outcome is not Proven.VERIFIED and answer.made_at is not None))


def _bounded(answers: Sequence[Said]) -> list[Said]:
    """The newest of each signer, and what was dated in the future, so that it is not seen for the first time again."""
    signers: set[object] = set()
    found = [each for each in answers if each.signer not in signers and not signers.add(each.signer)]  # type: ignore[func-returns-value]
    more = [each for each in answers if each.dated is not None and each not in found]
    return newest_first([*found, *more][:MAX_ANSWERS])


def definite(looked: Looked) -> tuple[Proof, ...]:
    """Returns the proofs of a look, where what is not verified is only said when every place has answered."""
    silent = {proof.demand for proof in looked.proofs if any(proof.demand not in place.answered for place in looked.places)}
    return tuple(
        msgspec.structs.replace(proof, outcome=Proven.UNKNOWN, signer=None, made_at=None, dated=None, others=())
        if proof.demand in silent and proof.outcome is not Proven.VERIFIED
        else proof
        for proof in looked.proofs
    )


def is_complete(demand: str, before: Mapping[str, Mapping[str, datetime]], answered: Collection[str], now: datetime) -> bool:
    """Whether every place that had an answer to a demand has answered again.

    Args:
        demand: its id.
        before: reference → demand → when it last had an answer.
        answered: references that have answered it now.
        now: the time.
    """
    return all(reference in answered for reference, said in before.items() if demand in said and now - said[demand] < GONE_AFTER)


def places(before: Sequence[Place], made: Iterable[Place], named: Collection[str]) -> tuple[Place, ...]:
    """Returns what is known about places after a look; those that somebody names stay longest, then those that were asked last.

    Args:
        before: what was known.
        made: of those that were asked now.
        named: references that somebody names.
    """
    found = {each.reference: each for each in before}
    for each in made:
        last = found.get(each.reference)
        said = sorted(({**last.answered, **each.answered} if last is not None else each.answered).items(), key=lambda item: item[1])
        found[each.reference] = msgspec.structs.replace(each, answered=dict(said[-MAX_PROOFS:]))
    ranked = sorted(found.values(), key=lambda each: (each.reference in named, each.at), reverse=True)[:MAX_PLACES]
    return tuple(sorted(ranked, key=lambda each: each.reference))

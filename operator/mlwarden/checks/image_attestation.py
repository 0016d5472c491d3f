"""`imageAttestation`: is there a signed attestation of this type, fresh enough, whose content satisfies this CEL?

The content is megabytes and stays with the scanner, which evaluates the CEL on what cosign verified. How old what is attested may be is
decided here, by the date in the attestation: time goes on while evidence stays.
"""

from collections.abc import Callable, Iterator

from mlwarden.checks.age import duration, spoken
from mlwarden.checks.answer import Answer
from mlwarden.checks.proven import SKEW, Asked, proven
from mlwarden.checks.resolved import per_image
from mlwarden.checks.view import View
from mlwarden.model.evidence import Facts
from mlwarden.model.signing import ImageAttestation, Proof
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.images import about

REQUIREMENT = "image_attestation"


def judge(compiled: CompiledPolicy, view: View, facts: Facts) -> Iterator[Answer]:
    """Yields one answer per image reference that the policy is about."""
    spec = compiled.policy.spec
    requirement = spec.requirement.image_attestation
    if requirement is None:
        return
    asked = _asked(compiled, requirement, facts)
    yield from per_image(
        view, facts, spec, lambda subject: proven(subject, asked, facts), about=lambda text: about(requirement.images, text)
    )


def _asked(compiled: CompiledPolicy, requirement: ImageAttestation, facts: Facts) -> Asked:
    limit = duration(requirement.max_age)
    if limit is None:
        raise ValueError(f"maxAge {requirement.max_age!r} is not a duration")
    return Asked(
        demands=compiled.demands, required=requirement.required, max_age=limit, noun="attestation", fine=_fresh(requirement.fresh, facts)
    )


def _fresh(text: str, facts: Facts) -> Callable[[Proof], str]:
    limit = duration(text)
    if text and limit is None:
        raise ValueError(f"fresh {text!r} is not a duration")

    def fine(proof: Proof) -> str:
        if limit is None:
            return ""
        if proof.made_at is None:
            return "what is attested has no date"
        age = facts.now - proof.made_at
        if age < -SKEW:
            return "what is attested is dated in the future"
        return f"what is attested is {spoken(age)} old, and the policy wants {text}" if age > limit else ""

    return fine

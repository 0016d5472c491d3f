"""`imageSignature`: does cosign verify this digest for enough of these authorities?"""

from collections.abc import Iterator

from mlwarden.checks.age import duration
from mlwarden.checks.answer import Answer
from mlwarden.checks.proven import Asked, proven
from mlwarden.checks.resolved import per_image
from mlwarden.checks.view import View
from mlwarden.model.evidence import Facts
from mlwarden.model.signing import ImageSignature
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.images import about

REQUIREMENT = "image_signature"


def judge(compiled: CompiledPolicy, view: View, facts: Facts) -> Iterator[Answer]:
    """Yields one answer per image reference that the policy is about."""
    spec = compiled.policy.spec
    requirement = spec.requirement.image_signature
    if requirement is None:
        return
    asked = _asked(compiled, requirement)
    yield from per_image(
        view, facts, spec, lambda subject: proven(subject, asked, facts), about=lambda text: about(requirement.images, text)
    )


def _asked(compiled: CompiledPolicy, requirement: ImageSignature) -> Asked:
    limit = duration(requirement.max_age)
    if limit is None:
        raise ValueError(f"maxAge {requirement.max_age!r} is not a duration")
    return Asked(demands=compiled.demands, required=requirement.required, max_age=limit, noun="signature", fine=lambda _: "")

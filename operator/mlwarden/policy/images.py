"""Which images a policy is about, and what is asked about them.

A registry that answers to a second name, or by its address, is another registry here: a policy about some images wants one beside it that
says where images may come from.
"""

from collections.abc import Iterable

from mlwarden.errors import Error
from mlwarden.model import glob
from mlwarden.model import reference as references
from mlwarden.model.signing import Demand
from mlwarden.policy.compiled import CompiledPolicy


def about(globs: Iterable[str], reference: str) -> bool:
    """Whether any of the globs matches the image. A reference that cannot be read is every policy's business."""
    try:
        parsed = references.parse(reference)
    except Error:
        return True
    return any(glob.matches(each, parsed) for each in globs)


def demanded(policies: Iterable[CompiledPolicy], named: Iterable[str]) -> dict[str, Demand]:
    """Returns what policies want proven about an image that goes by any of these names, by id."""
    names = tuple(named)
    found: dict[str, Demand] = {}
    for compiled in policies:
        requirement = compiled.policy.spec.requirement
        asked = requirement.image_signature or requirement.image_attestation
        if asked and any(about(asked.images, name) for name in names):
            found.update(compiled.demands)
    return found


def excuses(policies: Iterable[CompiledPolicy]) -> dict[str, Demand]:
    """Returns which VEX documents any policy would listen to, by id."""
    return {name: demand for compiled in policies for name, demand in compiled.vex.items()}

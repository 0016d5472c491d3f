"""Which images a policy is about: globs over the name an image has in full, `registry/repository`.

Anchored at both ends and segment by segment: `*` never crosses a `/`, so `registry.example.com/*` is no way to mean
`registry.example.com.evil.org/x` (Portieris 0.14.2 had it otherwise). What is compared is the normalised name: `python` is
`docker.io/library/python`, in whatever case and with whatever default port its host is written. A registry that answers to a second name,
or by its address, is another registry here: a policy about some images wants one beside it that says where images may come from.

By hand and not by a regular expression: the name is the workload's author's, and several stars would backtrack.
"""

import functools
import re
from collections.abc import Iterable

from mlwarden.errors import Error
from mlwarden.model import reference as references
from mlwarden.model.signing import Demand
from mlwarden.policy.compiled import CompiledPolicy

_TOKENS = re.compile(r"\*+|[^*]+")
_ZEROS = re.compile(r":0+(?=[0-9]+$)")
"""Before a port, which is the same one with them."""
_HUB = frozenset({"registry-1.docker.io", "registry.docker.io", "registry.hub.docker.com"})


def about(globs: Iterable[str], reference: str) -> bool:
    """Whether any of the globs matches the image. A reference that cannot be read is every policy's business."""
    try:
        parsed = references.parse(reference)
    except Error:
        return True
    host = _ZEROS.sub(":", parsed.registry.lower()).removesuffix(":443")
    name = f"{'docker.io' if host in _HUB else host}/{parsed.repository}"
    return any(_matches(glob, name) for glob in globs)


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


@functools.lru_cache(maxsize=16384)
def _matches(glob: str, name: str) -> bool:
    """One pass over the glob with every position of the name it may have reached."""
    host, slash, rest = glob.partition("/")
    reached = {0}
    for token in _TOKENS.findall(f"{host.lower()}{slash}{rest}"):
        if token[0] != "*":
            reached = {position + len(token) for position in reached if name.startswith(token, position)}
        elif reached:
            ends = {min(reached): len(name)} if len(token) > 1 else {position: _segment_end(name, position) for position in reached}
            reached = {end for position, last in ends.items() for end in range(position, last + 1)}
    return len(name) in reached


def _segment_end(name: str, position: int) -> int:
    end = name.find("/", position)
    return len(name) if end < 0 else end

"""What the policies of the cluster want to have proven, and about which images.

From the policies themselves: a pod that waits asks for signatures and does not say whose. A policy that does not compile demands nothing;
where it is in force it is `Unknown` by itself.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mlwarden import policy
from mlwarden.errors import Error
from mlwarden.model.signing import Demand
from mlwarden.policy.images import about

LOG = logging.getLogger(__name__)


class Demands:
    """The demands of all policies."""

    def __init__(self) -> None:
        self._by_policy: dict[str, tuple[tuple[str, ...], Mapping[str, Demand]]] = {}

    def changed(self, name: str, obj: Mapping[str, Any] | None) -> bool:
        """Takes in a policy as it is now, None where it is gone; returns whether that changes any demand."""
        before = self._by_policy.pop(name, None)
        if obj is not None:
            try:
                compiled = policy.compile_policy(policy.parse(obj))
            except Error as error:
                LOG.warning("policy %s: %s", name, error)
            else:
                requirement = compiled.policy.spec.requirement
                if asked := requirement.image_signature or requirement.image_attestation:
                    self._by_policy[name] = (asked.images, compiled.demands)
        return before != self._by_policy.get(name)

    def about(self, references: Iterable[str]) -> dict[str, Demand]:
        """Returns what is to be proven about an image that goes by any of these names."""
        names = tuple(references)
        return {
            key: demand
            for globs, demands in self._by_policy.values()
            if any(about(globs, name) for name in names)
            for key, demand in demands.items()
        }

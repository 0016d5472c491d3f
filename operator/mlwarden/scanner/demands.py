"""What the policies of the cluster want to have proven, and about which images.

From the policies themselves: a pod that waits asks for signatures and does not say whose. A policy that does not compile demands nothing;
where it is in force it is `Unknown` by itself.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from mlwarden import policy
from mlwarden.errors import Error
from mlwarden.model.signing import MAX_PROOFS, Demand
from mlwarden.policy import CompiledPolicy
from mlwarden.policy.images import demanded, excuses

LOG = logging.getLogger(__name__)


class Demands:
    """The demands of all policies."""

    def __init__(self) -> None:
        self._policies: dict[str, CompiledPolicy] = {}

    def changed(self, name: str, obj: Mapping[str, Any] | None) -> bool:
        """Takes in a policy as it is now, None where it is gone; returns whether that changes any demand."""
        before, now = self._policies.pop(name, None), None
        if obj is not None:
            try:
                now = policy.compile_policy(policy.parse(obj))
            except Error as error:
                LOG.warning("policy %s: %s", name, error)
        if now is not None and (now.demands or now.vex):
            self._policies[name] = now
        kept = self._policies.get(name)
        return (before.policy if before else None) != (kept.policy if kept else None)

    @property
    def excuses(self) -> dict[str, Demand]:
        """Whose VEX documents any policy listens to, by id."""
        return excuses(self._policies.values())

    @property
    def every(self) -> dict[str, Demand]:
        """All demands, by id."""
        return {name: demand for compiled in self._policies.values() for name, demand in compiled.demands.items()}

    def about(self, references: Iterable[str]) -> dict[str, Demand]:
        """Returns what is to be proven about an image that goes by any of these names: as much as there is room for in one object."""
        found = demanded(self._policies.values(), references)
        return {name: found[name] for name in sorted(found)[:MAX_PROOFS]}

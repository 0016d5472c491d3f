"""Where the gate comes from on this cluster, found out by trying.

That MutatingAdmissionPolicy is served, accepts our policy and lists it proves nothing: with the admission plugin off no pod is gated. So
a pod is created with `dryRun=All` in mlwarden's own namespace, where a binding of the same policy matches its label, and looked at. The
label carries the policy's revision, so that an older one in force does not answer for a new one.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, NotFoundError, UnreachableError
from mlwarden.cluster.kinds import POD
from mlwarden.controllers.gate import probe_pod
from mlwarden.errors import ClusterError
from mlwarden.model.policy import Settings
from mlwarden.workloads import is_gated

LOG = logging.getLogger(__name__)
_PATIENCE = 20.0
_POLL = 0.2
_SURE = 3  # in a row: behind a load balancer there are several API servers


class Gate(StrEnum):
    """Who adds the gate."""

    POLICY = "gating policy"
    WEBHOOK = "webhook"
    NOBODY = "roll-out: nothing is held"


class Gating:
    """Finds out who adds the gate, and remembers it.

    Args:
        client: of the API server.
        settings: `gate` says `auto`, `policy` or `webhook`.
        patience: seconds until a gating policy counts as not enforced.

    Attributes:
        served: the API server has the kinds of the gating policy.
    """

    def __init__(self, client: Client, settings: Settings, *, patience: float = _PATIENCE) -> None:
        self._client, self._settings, self._patience = client, settings, patience
        self._found: Gate | None = None
        self.served = True

    def forget(self) -> None:
        """Finds out again the next time."""
        self._found = None

    async def find(self, apply: Callable[[], Awaitable[None]]) -> Gate:
        """Returns who adds the gate here.

        Args:
            apply: applies the gating policy and its bindings; called where that is needed to find out.

        Raises:
            ClusterError: the settings demand the policy, and it is not enforced; or the API server could not be asked.
        """
        if self._settings.rollout == "audit":
            return Gate.NOBODY
        if self._settings.gate == "webhook":
            return Gate.WEBHOOK
        if self._found is None:
            self._found = await self._try(apply)
        if self._found is Gate.WEBHOOK and self._settings.gate == "policy":
            self._found = None
            raise ClusterError(
                "the gating policy has no effect: MutatingAdmissionPolicy is not enforced by this API server",
                hint="Kubernetes 1.36 has it on; set gate to auto or webhook for older ones",
            )
        return self._found

    async def in_force(self, gate: Gate) -> None:
        """Waits until the gate, as last applied, really appears on a pod.

        Raises:
            ClusterError: it does not. What demands the gate must not go in.
        """
        if gate is Gate.NOBODY:
            return
        if not await self._gated():
            self._found = None
            raise ClusterError(f"no gate appears on a pod, which the {gate} should add", hint="is the webhook running?")

    async def _try(self, apply: Callable[[], Awaitable[None]]) -> Gate:
        try:
            await apply()
        except NotFoundError:
            LOG.warning("this API server has no MutatingAdmissionPolicy: the webhook adds the gate, and fails closed")
            self.served = False
            return Gate.WEBHOOK
        self.served = True
        if await self._gated():
            return Gate.POLICY
        LOG.warning("MutatingAdmissionPolicy is served but not enforced: the webhook adds the gate, and fails closed")
        return Gate.WEBHOOK

    async def _gated(self) -> bool:
        deadline = time.monotonic() + self._patience
        seen = 0
        reason = ""
        while time.monotonic() < deadline:
            try:
                pod = await self._client.create(POD, probe_pod(self._settings), namespace=self._settings.namespace, dry_run=True)
            except UnreachableError:
                raise
            except ApiError as error:  # a quota, another webhook: it says nothing about the gate
                reason, seen = str(error), 0
            else:
                seen = seen + 1 if is_gated(pod) else 0
                if seen == _SURE:
                    return True
            await asyncio.sleep(_POLL)
        if reason:
            raise ClusterError(f"the pod that shows whether the gate works cannot be created: {reason}")
        return False

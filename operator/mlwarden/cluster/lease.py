"""Leadership by an own coordination.k8s.io Lease.

Written here because none of the clients at hand does it right (kopf has none; the official asynchronous one keeps leading while the API
server is gone). The rule is client-go's: whoever holds the Lease renews it every `retry` seconds; a leader that could not renew for `renew`
seconds stops leading, before anybody else may start, which is `duration` seconds after the last renewal *as the others saw it change*
(clocks are not compared).
"""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime
from typing import Any

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, NotFoundError
from mlwarden.cluster.kinds import LEASE

LOG = logging.getLogger(__name__)


class Lease:
    """One candidate for one Lease.

    Args:
        client: of the API server.
        name: of the Lease.
        namespace: of the Lease.
        identity: unique among the candidates.
        duration: seconds without a change after which others take over.
        renew: seconds without success after which the leader steps down; less than `duration`.
        retry: seconds between attempts.

    Attributes:
        leading: set while this candidate leads.
        following: set while it does not.
    """

    def __init__(
        self, client: Client, *, name: str, namespace: str, identity: str, duration: float = 15.0, renew: float = 10.0, retry: float = 2.0
    ) -> None:
        if not retry < renew < duration:
            raise ValueError("retry < renew < duration")
        self._client, self._name, self._namespace, self._identity = client, name, namespace, identity
        self._duration, self._renew, self._retry = duration, renew, retry
        self._seen: tuple[str, float] = ("", time.monotonic())
        self._renewed = 0.0
        self.holder = ""
        self.leading = asyncio.Event()
        self.following = asyncio.Event()
        self.following.set()

    @property
    def is_leader(self) -> bool:
        """Whether this candidate may write now: it holds the Lease and renewed it recently enough."""
        return self.leading.is_set() and time.monotonic() - self._renewed < self._renew

    async def run(self) -> None:
        """Tries to lead until cancelled; gives the Lease back at the end."""
        try:
            while True:
                started, renewed = time.monotonic(), self._renewed
                try:
                    held = await asyncio.wait_for(self._try(started), timeout=self._within(self._retry * 2))
                except (ApiError, TimeoutError) as error:
                    LOG.warning("lease %s: %s", self._name, error or "no answer in time")
                    held = self.is_leader
                if time.monotonic() - renewed >= self._renew:  # it lapsed, if only because this process was busy: nobody wrote meanwhile
                    self._set(leading=False)
                self._set(leading=held)
                await asyncio.sleep(self._within(self._retry))
        finally:
            if self.leading.is_set():
                self._set(leading=False)
                with contextlib.suppress(ApiError, TimeoutError, asyncio.CancelledError):
                    await asyncio.wait_for(self._release(), timeout=2)

    def _within(self, seconds: float) -> float:
        """At most `seconds`, and for a leader no longer than until it has to step down."""
        left = self._renewed + self._renew - time.monotonic()
        return max(0.05, min(seconds, left)) if self.leading.is_set() else seconds

    def _set(self, *, leading: bool) -> None:
        if leading and not self.leading.is_set():
            LOG.info("lease %s: leading as %s", self._name, self._identity)
            self.following.clear()
            self.leading.set()
        elif not leading and self.leading.is_set():
            LOG.warning("lease %s: no longer leading", self._name)
            self.leading.clear()
            self.following.set()

    async def _try(self, started: float) -> bool:
        """One attempt; True where we hold the Lease now."""
        try:
            lease = await self._client.get(LEASE, self._name, namespace=self._namespace)
        except NotFoundError:
            body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec(0, acquired=True)}
            lease = await self._client.create(
                LEASE, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **body}, namespace=self._namespace
            )
            self._renewed, self.holder = started, self._identity
            return True
        spec = lease.get("spec") or {}
        self.holder = spec.get("holderIdentity") or ""
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, started)
        ours = self.holder == self._identity
        if not ours and self.holder and started - self._seen[1] < float(spec.get("leaseDurationSeconds") or self._duration):
            return False
        lease["spec"] = self._spec(int(spec.get("leaseTransitions") or 0) + (not ours), acquired=not ours, since=spec.get("acquireTime"))
        try:
            written = await self._client.update(LEASE, lease)
        except ConflictError:
            return False
        self._seen = (written["metadata"]["resourceVersion"], started)
        self._renewed, self.holder = started, self._identity
        return True

    def _spec(self, transitions: int, *, acquired: bool, since: str | None = None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._duration),
            "acquireTime": now if acquired or not since else since,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    async def _release(self) -> None:
        lease = await self._client.get(LEASE, self._name, namespace=self._namespace)
        if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
            lease["spec"]["holderIdentity"] = ""
            await self._client.update(LEASE, lease)

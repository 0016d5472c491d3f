"""Evicts a running pod, where a policy or a revocation says so and the chart allows it; the API server has the last word.

Through `pods/eviction`, so that a PodDisruptionBudget bounds it: what it refuses (429) is asked again later. A few a minute in all: a
policy that was wrong must be noticed before it has emptied the cluster. An Event first: nobody should have to guess who ended their pod.

Never evicted is what nobody would start again: a pod without a controller is somebody's work. Nor a mirror pod: the kubelet's file starts
it again whatever we do. Rejected: deleting (it knows no budget), and scaling the owner to zero (it is not ours, and GitOps puts it back).
"""

import asyncio
import logging
from collections import deque

from prometheus_client import Counter

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from mlwarden.cluster.kinds import POD
from mlwarden.controllers.reporter import Reporter
from mlwarden.model.workload import Json
from mlwarden.policy.account import MIRROR

LOG = logging.getLogger(__name__)
EVICTED = Counter("mlwarden_evicted_pods_total", "Running pods that were evicted because a policy or a revocation says so.")
_BUDGET = 30.0
"""Seconds until a PodDisruptionBudget that refused is asked again."""
_MINUTE = 60.0


def kept(pod: Json) -> str:
    """Returns why a pod is never evicted, `""` where it may be."""
    metadata = pod["metadata"]
    if MIRROR in (metadata.get("annotations") or {}):
        return "it is a static pod of its node"
    controllers = [each for each in metadata.get("ownerReferences") or () if isinstance(each, dict) and each.get("controller") is True]
    if not controllers:
        return "no controller owns it, so nothing would start it again"
    return "it is a static pod of its node" if controllers[0].get("kind") == "Node" else ""


class Evictions:
    """Evicts, at most so many pods a minute.

    Args:
        client: of the API server.
        reporter: writes the Event that comes first.
        allowed: the chart's `controller.eviction`.
        per_minute: how many.
    """

    def __init__(self, client: Client, reporter: Reporter, *, allowed: bool, per_minute: int) -> None:
        self._client, self._reporter = client, reporter
        self.allowed = allowed
        self._recent: deque[float] = deque(maxlen=per_minute)

    async def turn(self) -> None:
        """Waits until one more may be evicted."""
        if len(self._recent) == self._recent.maxlen:
            await asyncio.sleep(max(self._recent[0] + _MINUTE - asyncio.get_running_loop().time(), 0))

    async def evict(self, pod: Json, reason: str) -> float:
        """Evicts a pod that was just read and judged, after `turn`.

        Returns after how many seconds to look again, 0 where it is done or cannot be.

        Raises:
            ApiError: it was not evicted, and it is worth trying again.
        """
        metadata = pod["metadata"]
        await self._reporter.evicts(pod, reason)
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": {"preconditions": preconditions},
        }
        try:
            await self._client.create(POD, body, namespace=metadata["namespace"], name=metadata["name"], subresource="eviction")
        except NotFoundError:
            return 0
        except ConflictError:
            return 1.0
        except ForbiddenError as error:
            LOG.error("nothing is evicted: %s; the chart's controller.eviction grants it", error)  # noqa: TRY400 -- the error says it all
            return 0
        except ApiError as error:
            if error.code != 429:
                raise
            LOG.info("pod %s/%s is not evicted yet: %s", metadata["namespace"], metadata["name"], error)
            return _BUDGET
        self._recent.append(asyncio.get_running_loop().time())
        EVICTED.inc()
        LOG.info("pod %s/%s was evicted: %s", metadata["namespace"], metadata["name"], reason)
        return 0

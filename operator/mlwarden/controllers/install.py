"""The chart's hooks: `mlwarden crds` before it is installed or upgraded, `mlwarden free` before it is uninstalled.

`free` leaves no pod behind that nobody would ever release. It first takes the Lease and keeps it, so that no controller puts back what is
taken away; then goes what refuses (webhooks, guards), then what gates, and last the gates themselves, until none is left and none comes.

Custom resource definitions are applied here and not by Helm: Helm never upgrades those in `crds/`, and cannot install one and its objects
together from `templates/`. They stay when the chart goes, and with them the policies.
"""

import argparse
import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from mlwarden import evidence, policy
from mlwarden.cluster import clock
from mlwarden.cluster.client import MERGE_PATCH, STRATEGIC_PATCH, Client
from mlwarden.cluster.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from mlwarden.cluster.kinds import CLUSTER_ROLE, CRD, LEASE, POD
from mlwarden.controllers import generated
from mlwarden.controllers import main as controller
from mlwarden.controllers.applier import delete_all
from mlwarden.controllers.gate import is_gated
from mlwarden.controllers.release import bare_release
from mlwarden.errors import ClusterError
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json

LOG = logging.getLogger(__name__)
HOLDER = "mlwarden-free"
_PATIENCE = 200.0
_POLL = 0.5
_QUIET = 8
"""Rounds in a row without anything generated and without a held pod, until it is over."""
_TOGETHER = 16

Say = Callable[[str], None]


def crds() -> list[dict[str, Json]]:
    """Returns every CustomResourceDefinition of mlwarden."""
    return [policy.crd(), policy.revocation_crd(), evidence.crd()]


async def apply_crds(client: Client, *, say: Say, patience: float = 60.0) -> None:
    """Applies them, and waits until their objects can be created.

    Raises:
        ClusterError: they were refused, or are not established in time.
    """
    for crd in crds():
        name = crd["metadata"]["name"]
        await client.apply(CRD, crd)
        deadline = time.monotonic() + patience
        while not _established(await client.get(CRD, name)):
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} is not established", hint=f"kubectl describe crd {name}")
            await asyncio.sleep(_POLL)
        say(f"{name} is established")


async def free(client: Client, settings: Settings, *, say: Say, patience: float = _PATIENCE) -> int:
    """Takes away what refuses and gates, releases everything that is held, and returns how many pods that were.

    Raises:
        ClusterError: pods are still held in the end.
    """
    deadline = time.monotonic() + patience
    released, quiet, taken = 0, 0, False
    while quiet < _QUIET:
        taken = taken or await _take_lease(client, settings)
        removed = await delete_all(client, (kind for kind in generated.KINDS if kind != "WardenPolicy"))
        held = await _held(client)
        freed = await _release_all(client, held)
        released += freed
        if removed or freed:
            say(f"removed {removed} generated objects, released {freed} pods")
        quiet = quiet + 1 if taken and not removed and not held else 0
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{len(held)} pods are still held",
                hint="kubectl get pods -A --field-selector=status.phase=Pending; run `mlwarden free` again",
            )
        await asyncio.sleep(_POLL)
    return released


def main(argv: Sequence[str]) -> int:
    """Runs one of the two hooks; the first argument is its name."""
    command, *rest = argv
    parser = argparse.ArgumentParser(
        prog=f"mlwarden {command}",
        description={
            "crds": "Applies mlwarden's custom resource definitions and waits until they are established.",
            "free": "Removes webhooks, guards and the gate, and releases every held pod. The chart does this before it is uninstalled.",
        }[command],
        epilog=f"example: mlwarden {command} --kubeconfig ~/.kube/config",
    )
    controller.add_connection(parser)
    parser.add_argument("--settings", default=os.environ.get("MLWARDEN_SETTINGS", ""), metavar="FILE", help="the chart's settings (YAML)")
    arguments = parser.parse_args(rest)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_run(command, arguments))
    return 0


async def _run(command: str, arguments: argparse.Namespace) -> None:
    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    async with await controller.connect(arguments) as client:
        if command == "crds":
            await apply_crds(client, say=say)
        else:
            released = await free(client, controller.read_settings(arguments.settings), say=say)
            say(f"nothing is held any more; {released} pods were released")


def _established(crd: Json) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()
    return any(condition.get("type") == "Established" and condition.get("status") == "True" for condition in conditions)


async def _take_lease(client: Client, settings: Settings) -> bool:
    """Takes the Lease from whoever has it. From now on the anchor owns it: it goes with the chart, and a new install need not wait.

    Returns whether it did: after an upgrade that got stuck a guard of the version before does not know this account, and has to go first.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {
        "holderIdentity": f"{HOLDER}-{socket.gethostname()}",
        "leaseDurationSeconds": 120,
        "acquireTime": now,
        "renewTime": now,
    }
    metadata: dict[str, Json] = {"name": controller.LEASE, "namespace": settings.namespace}
    try:
        metadata["ownerReferences"] = [generated.owner_reference(await client.get(CLUSTER_ROLE, settings.anchor))]
    except (NotFoundError, ApiError) as error:
        LOG.warning("the anchor cannot be read: %s", error)
    try:
        body = {"metadata": metadata, "spec": spec}
        await client.patch(LEASE, controller.LEASE, body, namespace=settings.namespace, content_type=MERGE_PATCH)
    except NotFoundError:
        LOG.info("nobody leads")
    except ForbiddenError as error:
        LOG.warning("the Lease cannot be taken yet: %s", error)
        return False
    return True


async def _held(client: Client) -> list[Json]:
    pods = await client.list(POD, fieldSelector="spec.nodeName=")
    return [pod for pod in pods if is_gated(pod)]


async def _release_all(client: Client, pods: Sequence[Json]) -> int:
    """Releases pods, several at a time; returns how many. What changed meanwhile is met again in the next round."""
    limit = asyncio.Semaphore(_TOGETHER)

    async def release(pod: Json) -> bool:
        metadata = pod["metadata"]
        patch = bare_release(pod, why="mlwarden is being uninstalled", now=clock.now())
        async with limit:
            try:
                await client.patch(POD, metadata["name"], patch, namespace=metadata["namespace"], content_type=STRATEGIC_PATCH)
            except (ConflictError, NotFoundError):
                return False
            except ApiError as error:
                LOG.warning("pod %s/%s: %s", metadata["namespace"], metadata["name"], error)
                return False
            return True

    return sum(await asyncio.gather(*map(release, pods)))

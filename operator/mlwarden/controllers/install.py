"""The chart's hooks: `mlwarden crds` before it is installed or upgraded, `mlwarden prune` after an upgrade, `mlwarden free` before the end.

`free` leaves no pod behind that nobody would ever release. It first takes the Lease and keeps it, so that no controller puts back what is
taken away; then goes what refuses (webhooks, guards), then what gates, and last the gates themselves, until none is left and none comes.

`prune` takes away what an earlier version compiled under names that this one does not use: the controller may write its own names only.

Custom resource definitions are applied here and not by Helm: Helm never upgrades those in `crds/`, and cannot install one and its objects
together from `templates/`. They stay when the chart goes, and with them the policies.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from mlwarden import evidence, policy
from mlwarden.cluster import clock, definitions
from mlwarden.cluster.client import MERGE_PATCH, STRATEGIC_PATCH, Client
from mlwarden.cluster.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from mlwarden.cluster.kinds import CLUSTER_ROLE, CRD, LEASE, POD, WARDEN_POLICY
from mlwarden.controllers import generated, names
from mlwarden.controllers import main as controller
from mlwarden.controllers.applier import delete_all
from mlwarden.controllers.release import bare_release
from mlwarden.errors import ClusterError
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json
from mlwarden.policy.bindings import MANAGED_BY, PREFIX
from mlwarden.workloads import is_gated

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
        while why_not := definitions.why_not(await client.get(CRD, name)):
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} {why_not}", hint=f"kubectl describe crd {name}")
            await asyncio.sleep(_POLL)
        say(f"{name} is established")


async def prune(client: Client, *, say: Say, patience: float = 60.0) -> int:
    """Removes what is compiled under a name of an earlier version, once its policy is in force under one of this version's.

    Returns how many objects went. What has no successor in time stays: in force twice does no harm, not at all would.
    """
    kinds = ("ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy")
    known = {kind: frozenset(names.known()[generated.KINDS[kind].plural]) for kind in kinds}
    deadline, removed = time.monotonic() + patience, 0
    while True:
        stored = {kind: await _generated(client, kind) for kind in kinds}
        needed = {each["metadata"]["name"] for each in await client.list(WARDEN_POLICY)}
        covered = {names.whose(each) for each in stored["ValidatingAdmissionPolicy"]}
        waiting = 0
        old = [(kind, each) for kind, every in stored.items() for each in every if each["metadata"]["name"] not in known[kind]]
        for kind, each in old:
            name = each["metadata"]["name"]
            of = (each["spec"].get("policyName") or name).removeprefix(PREFIX)
            if of in needed - covered:
                waiting += 1
                continue
            with contextlib.suppress(NotFoundError):
                await client.delete(generated.KINDS[kind], name)
                removed += 1
                say(f"removed {kind} {name}")
        if not waiting or time.monotonic() > deadline:
            return removed
        await asyncio.sleep(_POLL)


async def _generated(client: Client, kind: str) -> list[Json]:
    selector = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
    return [each for each in await client.list(generated.KINDS[kind], labelSelector=selector) if generated.is_ours(each)]


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
    """Runs one of the hooks; the first argument is its name."""
    command, *rest = argv
    parser = argparse.ArgumentParser(
        prog=f"mlwarden {command}",
        description={
            "crds": "Applies mlwarden's custom resource definitions and waits until they are established.",
            "prune": "Removes what an earlier version compiled under names of its own. The chart does this after an upgrade.",
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
        elif command == "prune":
            say(f"{await prune(client, say=say)} objects of an earlier version were removed")
        else:
            released = await free(client, controller.read_settings(arguments.settings), say=say)
            say(f"nothing is held any more; {released} pods were released")


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

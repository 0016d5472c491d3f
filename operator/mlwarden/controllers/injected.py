"""What policies find in what the platform puts into pods, said once per cluster: as a condition of each policy that asks.

Every pod with such a container has the same finding, and none of their authors can do anything about it. Its administrator reads it here.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from mlwarden import checks, workloads
from mlwarden.checks.text import clean
from mlwarden.cluster import clock
from mlwarden.cluster.client import MERGE_PATCH, Client
from mlwarden.cluster.errors import ApiError, NotFoundError
from mlwarden.cluster.kinds import WARDEN_POLICY
from mlwarden.cluster.snapshot import PLATFORM, Snapshot, SnapshotSource
from mlwarden.controllers.status import LOG, status_of
from mlwarden.engine.injected import asks
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.platform import Injected, Platform
from mlwarden.model.workload import Json
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads import injectors


def found(compiled: CompiledPolicy, platform: Platform, now: datetime) -> tuple[bool, str] | None:
    """Returns whether what the platform adds passes a policy, and a line about it; None where that is not asked, or nothing is added."""
    described = [each for each in platform.injected if injectors.row_of(each).is_whole]
    if not described or not asks(compiled):
        return None
    failing = [each for each in described if _fails(compiled, each, now)]
    if not failing:
        return True, "what the platform puts into pods passes"
    told = "; ".join(f"{injectors.named(each)}: in {injectors.mended_in(each)}" for each in failing)
    return False, clean(f"fails what the platform puts into every pod of its kind: {told}: {compiled.policy.spec.fix.text}", 1900)


def _fails(compiled: CompiledPolicy, injected: Injected, now: datetime) -> bool:
    pod = workloads.extract(injectors.alone(injected))
    answers = checks.judge(compiled, pod, Facts(now=now, namespace={}, profile=""))
    return any(answer.outcome is Outcome.FAIL for answer in answers)


class Told:
    """Brings the conditions up to date when something else than the policy changes; whoever keeps the status does it when a policy does.

    Args:
        client: of the API server.
        source: policies as stored, and the platform's configuration.
        left: names of the policies for which the API server has no place.
    """

    def __init__(self, client: Client, source: SnapshotSource, *, left: Callable[[], frozenset[str]] = frozenset) -> None:
        self._client, self._source, self._left = client, source, left
        self._changed = asyncio.Event()
        source.subscribe(self._snapshot_changed)

    async def lead(self) -> None:
        """Works until cancelled."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            for obj in self._source.policies:
                wanted = self.status(obj, clock.now())
                if wanted != obj.get("status"):
                    await self._write(obj["metadata"]["name"], wanted)

    def look_again(self) -> None:
        """Which policies have a place has changed."""
        self._changed.set()

    def status(self, obj: Mapping[str, Json], now: datetime) -> dict[str, Json]:
        """Returns the status of a policy as stored, by what is known now."""
        return status_of(obj, now, self.condition, left=self._left())

    def condition(self, compiled: CompiledPolicy, now: datetime) -> tuple[bool, str] | None:
        """Returns what `found` says by what is known now."""
        return found(compiled, self._source.current.platform, now)

    async def _write(self, name: str, wanted: dict[str, object]) -> None:
        try:
            await self._client.patch(WARDEN_POLICY, name, {"status": wanted}, subresource="status", content_type=MERGE_PATCH)
        except NotFoundError:
            LOG.debug("policy %s is gone", name)
        except ApiError as error:
            LOG.warning("policy %s: its status could not be written: %s", name, error)

    def _snapshot_changed(self, _snapshot: Snapshot, changes: frozenset[str]) -> None:
        if PLATFORM in changes:
            self._changed.set()

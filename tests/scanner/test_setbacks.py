"""What comes to nothing is not tried again at once: 1,180 claims in 3 s were answered 409 for one object."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlwarden.cluster import ApiError, ConflictError
from mlwarden.evidence import store
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.model.evidence import Scan
from mlwarden.scanner import agent as agents
from mlwarden.scanner import lane as lanes
from mlwarden.scanner.agenda import Terms
from mlwarden.scanner.agent import RESOLVE, SCAN, VERIFY, Agent
from mlwarden.scanner.lane import Lane
from mlwarden.scanner.setbacks import Setbacks

NOW = datetime(2026, 11, 30, tzinfo=UTC)
STUCK, *OTHERS = [f"sha256-{digit * 64}" for digit in "abcdef"]


def test_each_try_in_a_row_waits_twice_as_long_up_to_a_minute() -> None:
    setbacks, waits = Setbacks(), []
    for _ in range(9):
        setbacks.note("x", NOW, version="7")
        waits.append((setbacks.until("x", "7") - NOW).total_seconds())
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_an_object_that_has_changed_is_tried_at_once_and_begins_anew() -> None:
    setbacks = Setbacks()
    for _ in range(5):
        setbacks.note("x", NOW, version="7")
    assert setbacks.until("x", "8") < NOW
    assert setbacks.until("y", "7") < NOW
    setbacks.note("x", NOW, version="8")
    assert setbacks.until("x", "8") == NOW + timedelta(seconds=0.5)


def test_a_failure_that_is_not_about_one_version_is_not_ended_by_another() -> None:
    setbacks = Setbacks()
    setbacks.note("x", NOW)
    setbacks.note("x", NOW)
    assert setbacks.until("x", "9") == NOW + timedelta(seconds=1)
    setbacks.over("x")
    assert setbacks.until("x", "9") < NOW


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


class Server:
    """Refuses every status of one object."""

    def __init__(self, error: ApiError) -> None:
        self.error, self.tries, self.finished = error, 0, set[str]()

    async def update(self, _kind: object, body: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert subresource == "status"
        if body["metadata"]["name"] == STUCK:
            self.tries += 1
            raise self.error
        if "claimedBy" not in body["status"]:
            self.finished.add(body["metadata"]["name"])
        return {**body, "metadata": {**body["metadata"], "resourceVersion": "8"}}


class Worker:
    async def scan(self, *_: object, **_options: object) -> Scan:
        return Scan(scanner="trivy 0.72.0", scanned_at=NOW)


class Keys:
    async def filled(self, _demands: object) -> tuple[dict[str, object], dict[str, object]]:
        return {}, {}


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [ConflictError("it has changed", code=409), ApiError("no quorum", code=500)])
async def test_an_object_whose_claim_is_refused_is_tried_once_for_each_pause_and_others_go_on(
    error: ApiError, monkeypatch: pytest.MonkeyPatch, attack: Callable[[str, str, str], None]
) -> None:
    clock, server = Clock(), Server(error)
    for module in (lanes, agents):
        monkeypatch.setattr(module, "_now", clock)
    terms = Terms(identity="us", started=clock.at, lease=timedelta(seconds=45), max_age=timedelta(hours=24))
    queues = {name: Lane(fast=1, total=1) for name in (RESOLVE, SCAN, VERIFY)}
    agent = Agent(client=server, worker=Worker(), terms=terms, lanes=queues, keys=Keys())  # type: ignore[arg-type]
    agent.worker_fit.set()
    for name in (STUCK, *OTHERS):
        spec = EvidenceSpec(references=(f"r.example/team/model@{name.replace('-', ':')}",))
        found = ImageEvidence(metadata=Metadata(name=name, uid="1", resource_version="7"), spec=spec, status=EvidenceStatus())
        agent._changed(("", name), msgspec.to_builtins(found) | {"apiVersion": store.API_VERSION, "kind": store.KIND})
    work = asyncio.create_task(agent._dispatch(SCAN))
    try:
        await until(lambda: server.finished == set(OTHERS))
        assert server.tries == 1
        for seconds in (0.5, 1, 2):
            tries = server.tries
            clock.at += timedelta(seconds=seconds)
            await until(lambda tries=tries: server.tries > tries)  # type: ignore[misc]
        assert server.tries == 4
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    if error.code == 409:
        attack("a claim that is answered 409", "1,180 PUTs in 3 s for one object", f"{server.tries} PUTs in {0.5 + 1 + 2:g} s")

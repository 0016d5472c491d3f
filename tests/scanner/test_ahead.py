"""What becomes of an object that is claimed before there is a slot for it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import msgspec
import pytest

from mlwarden.cluster import ConflictError
from mlwarden.evidence import store
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.model.evidence import Phase, Scan
from mlwarden.scanner import lane as lanes
from mlwarden.scanner.agenda import Terms
from mlwarden.scanner.agent import RESOLVE, SCAN, VERIFY, Agent
from mlwarden.scanner.lane import Lane

NAMES = [f"sha256-{digit * 64}" for digit in "abcd"]


def pending(name: str) -> ImageEvidence:
    reference = f"r.example/team/model@{name.replace('-', ':')}"
    return ImageEvidence(metadata=Metadata(name=name, uid="1"), spec=EvidenceSpec(references=(reference,)), status=EvidenceStatus())


@pytest.fixture(autouse=True)
def stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every scan is done in no time, however busy the machine."""
    now = datetime.now(UTC)
    monkeypatch.setattr(lanes, "_now", lambda: now)


class Server:
    """Takes every status, but of what another scanner has claimed."""

    def __init__(self, *others: str) -> None:
        self._others, self.written = others, dict[str, list[dict[str, Any]]]()

    async def update(self, _kind: object, body: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert subresource == "status"
        name = body["metadata"]["name"]
        if name in self._others:
            raise ConflictError("it has changed", code=409)
        self.written.setdefault(name, []).append(body["status"])
        return body


class Worker:
    """Scans for as long as the test wants."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Semaphore(0)

    async def scan(self, references: tuple[str, ...], *_: object, fresh: bool) -> Scan:
        assert not fresh
        self.asked.append(f"sha256-{references[0].rpartition(':')[2]}")
        await self.go.acquire()
        return Scan(scanner="trivy 0.72.0", scanned_at=datetime.now(UTC))


class Keys:
    """Nobody names any."""

    async def filled(self, _demands: object) -> tuple[dict[str, object], dict[str, object]]:
        return {}, {}


class Scanner:
    """An agent with one slot and one claim ahead, between a server and a worker that do what the test wants."""

    def __init__(self, server: Server) -> None:
        self.server, self.worker = server, Worker()
        terms = Terms(identity="us", started=datetime.now(UTC), lease=timedelta(seconds=45), max_age=timedelta(hours=24))
        self.lanes = {name: Lane(fast=1, total=2, ahead=1) for name in (RESOLVE, SCAN, VERIFY)}
        self.agent = Agent(client=server, worker=self.worker, terms=terms, lanes=self.lanes, keys=Keys())  # type: ignore[arg-type]
        self.agent.worker_fit.set()
        for name in NAMES:
            self.agent._changed(("", name), msgspec.to_builtins(pending(name)) | {"apiVersion": store.API_VERSION, "kind": store.KIND})

    async def __aenter__(self) -> Self:
        self._work = asyncio.create_task(self.agent._dispatch(SCAN))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def until_claimed(self, name: str) -> None:
        async with asyncio.timeout(20):
            while not any(status.get("claimedBy") for status in self.server.written.get(name, [])):
                await asyncio.sleep(0.001)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.worker.asked) < count:
                await asyncio.sleep(0.001)

    async def until_free(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while name not in self.server.written or "claimedBy" in self.server.written[name][-1]:
                await asyncio.sleep(0.001)
        return self.server.written[name][-1]


async def test_what_is_claimed_ahead_is_claimed_in_the_api_server_and_not_yet_scanned() -> None:
    async with Scanner(Server()) as scanner:
        scanner.worker.go.release()
        await scanner.until_claimed(NAMES[2])
        await scanner.until_asked(2)
        assert scanner.worker.asked == NAMES[:2]
        assert NAMES[3] not in scanner.server.written
        assert scanner.server.written[NAMES[2]][-1]["claimedBy"] == "us"
        assert "claimedUntil" in scanner.server.written[NAMES[2]][-1], "it is free again when we are killed"


async def test_what_is_given_back_is_as_if_it_had_not_been_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PATIENCE", 0.05)
    async with Scanner(Server()) as scanner:
        scanner.worker.go.release()
        status = await scanner.until_free(NAMES[2])
        assert status == {"phase": Phase.PENDING}
        assert scanner.worker.asked == NAMES[:2]


async def test_what_another_scanner_has_claimed_is_left_to_it_and_the_next_one_is_claimed() -> None:
    async with Scanner(Server(NAMES[2])) as scanner:
        scanner.worker.go.release()
        await scanner.until_claimed(NAMES[3])
        scanner.worker.go.release()
        async with asyncio.timeout(20):
            while len(scanner.worker.asked) < 3:
                await asyncio.sleep(0.001)
        assert scanner.worker.asked == [NAMES[0], NAMES[1], NAMES[3]]

"""Of two scanners one has tools that are broken and stay so."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlwarden.evidence import store
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.model.evidence import Phase, Scan
from mlwarden.scanner.agenda import Terms
from mlwarden.scanner.agent import RESOLVE, SCAN, VERIFY, Agent
from mlwarden.scanner.lane import Lane

NAME = "sha256-" + "a" * 64


def scanned(by: str = "broken") -> EvidenceStatus:
    now = datetime.now(UTC)
    return EvidenceStatus(phase=Phase.READY, at=now, scan=Scan(scanner="trivy 0.72.0", scanned_at=now), answered_by=by)


class Server:
    """Takes every status."""

    async def update(self, _kind: object, body: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert subresource == "status"
        return body


def agent(*known: ImageEvidence) -> Agent:
    terms = Terms(identity="broken", started=datetime.now(UTC), lease=timedelta(seconds=45), max_age=timedelta(hours=24))
    lanes = {name: Lane(fast=1, total=1) for name in (RESOLVE, SCAN, VERIFY)}
    made = Agent(client=Server(), worker=None, terms=terms, lanes=lanes, keys=None)  # type: ignore[arg-type]
    made._known |= {each.metadata.name: each for each in known}
    return made


@pytest.mark.parametrize(("by", "phase"), [("broken", Phase.PENDING), ("", Phase.PENDING), ("another", Phase.READY)])
async def test_a_scanner_whose_tools_broke_takes_back_what_it_said_itself(by: str, phase: Phase) -> None:
    """Nobody wrote down in an older version whose an answer was."""
    reference = f"r.example/team/model@sha256:{'a' * 64}"
    known = ImageEvidence(metadata=Metadata(name=NAME), spec=EvidenceSpec(references=(reference,)), status=scanned(by))
    broken = agent(known)
    await broken._distrust("trivy did not find what it must")
    assert broken._known[NAME].status.phase is phase


async def test_what_was_said_since_stays() -> None:
    reference = f"r.example/team/model@sha256:{'a' * 64}"
    first = ImageEvidence(metadata=Metadata(name=NAME), spec=EvidenceSpec(references=(reference,)), status=scanned())
    broken = agent(first)
    await broken._distrust("trivy did not find what it must")
    taken_back = broken._known[NAME]
    assert taken_back.status.phase is Phase.PENDING
    assert taken_back.status.scan is None
    assert "not fit for use" in taken_back.status.reason

    again = store.checked(msgspec.structs.replace(taken_back, status=scanned()))
    broken._known[NAME] = again
    for _ in range(3):
        await broken._distrust("trivy did not find what it must")
    assert broken._known[NAME] == again

"""One registry never gets every slot: what hangs there must not stop everybody else's scans."""

from datetime import UTC, datetime, timedelta

import pytest

from mlwarden.evidence.store import EvidenceSpec, ImageEvidence, Metadata
from mlwarden.scanner.agenda import Terms
from mlwarden.scanner.agent import RESOLVE, SCAN, Agent

TERMS = Terms(identity="me", started=datetime(2026, 11, 24, tzinfo=UTC), lease=timedelta(seconds=45), max_age=timedelta(0))


def known(agent: Agent, letter: str, registry: str) -> str:
    name = f"sha256-{letter * 64}"
    spec = EvidenceSpec(references=(f"{registry}/app@sha256:{letter * 64}",))
    agent._known[name] = ImageEvidence(metadata=Metadata(name=name), spec=spec)
    return name


@pytest.mark.parametrize(("slots", "at_once"), [(1, 1), (2, 1), (3, 2)])
def test_a_registry_gets_all_slots_but_one(slots: int, at_once: int) -> None:
    agent = Agent(client=None, worker=None, terms=TERMS, slots={SCAN: slots, RESOLVE: 4}, keys=None)  # type: ignore[arg-type]  # neither is asked
    running = 0
    for letter in "abcd":
        name = known(agent, letter, "slow.example")
        if not agent._may(SCAN, name):
            break
        agent._running[name] = agent._host(name)
        running += 1
    assert running == at_once
    assert slots == 1 or agent._may(SCAN, known(agent, "e", "other.example"))

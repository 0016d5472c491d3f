"""The work queue: each key once, later each time it fails, and from the beginning after a success."""

import asyncio

import pytest

from mlwarden.controllers.queue import WorkQueue


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds after which something was to be looked at again."""
    found: list[float] = []
    monkeypatch.setattr(WorkQueue, "add_later", lambda _self, _key, seconds: found.append(seconds))
    return found


async def test_a_success_makes_the_next_failure_the_first(delays: list[float]) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(9):
        queue.retry("pod")
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
    queue.succeeded("pod")
    queue.retry("pod")
    assert delays[-1] == delays[0]


async def test_a_success_does_not_cancel_what_was_to_be_looked_at_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_later("pod", 0.01)
    queue.succeeded("pod")
    assert await asyncio.wait_for(queue.get(), 5) == "pod"


async def test_what_is_forgotten_is_not_looked_at_later() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_later("gone", 0.01)
    queue.forget("gone")
    queue.add_later("pod", 0.02)
    assert await asyncio.wait_for(queue.get(), 5) == "pod"
    assert not len(queue)

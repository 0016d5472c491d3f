"""The work queue: each key once, later each time it fails, and from the beginning after a success."""

import asyncio

import pytest

from mlwarden.controllers.queue import WorkQueue

POD, GONE = ("n", "pod"), ("n", "gone")


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds after which something was to be looked at again."""
    found: list[float] = []
    monkeypatch.setattr(WorkQueue, "add_later", lambda _self, _key, seconds: found.append(seconds))
    return found


async def test_a_success_makes_the_next_failure_the_first(delays: list[float]) -> None:
    queue = WorkQueue()
    for _ in range(9):
        queue.retry(POD)
    assert delays == sorted(delays)
    assert delays[-1] == 30.0
    queue.succeeded(POD)
    queue.retry(POD)
    assert delays[-1] == delays[0]


async def test_a_success_does_not_cancel_what_was_to_be_looked_at_later() -> None:
    queue = WorkQueue()
    queue.add_later(POD, 0.01)
    queue.succeeded(POD)
    assert await asyncio.wait_for(queue.get(), 5) == POD


async def test_what_is_forgotten_is_not_looked_at_later() -> None:
    queue = WorkQueue()
    queue.add_later(GONE, 0.01)
    queue.forget(GONE)
    queue.add_later(POD, 0.02)
    assert await asyncio.wait_for(queue.get(), 5) == POD
    assert not len(queue)


async def test_a_namespace_with_thousands_delays_nobody_else() -> None:
    queue = WorkQueue()
    for number in range(1000):
        queue.add(("flood", str(number)))
    for _ in range(10):
        queue.done(await queue.get())
    queue.add(("other", "pod"))
    taken = [await queue.get() for _ in range(3)]
    assert ("other", "pod") in taken
    for key in taken:
        queue.done(key)
    rest = [await queue.get() for _ in range(len(queue))]
    assert [int(name) for _, name in rest] == sorted(int(name) for _, name in rest)  # within one, first come, first served
    assert len({*taken, *rest}) == 991


async def test_a_queue_that_is_never_empty_lets_others_work_too() -> None:
    """A worker whose looks wait for nothing must not keep the Lease from being renewed."""
    queue, looked, heard = WorkQueue(), 0, list[int]()
    for number in range(1000):
        queue.add(("flood", str(number)))

    async def others() -> None:
        heard.append(looked)

    task = asyncio.create_task(others())
    while len(queue):
        key = await queue.get()
        looked += 1
        queue.done(key)
    await task
    assert heard[0] <= 1

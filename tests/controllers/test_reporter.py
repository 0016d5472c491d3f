"""Which Events are written first, and which are not written at all, where the API server is slower than what happens."""

import asyncio
from typing import Any

from mlwarden.controllers import reporter
from mlwarden.controllers.reporter import DROPPED, Reporter


class SlowServer:
    """Takes Events one after the other, and only when it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open = asyncio.Event()

    async def create(self, _kind: Any, made: dict[str, Any], *, namespace: str) -> None:
        assert namespace == "n"
        await self.open.wait()
        self.written.append(f"{made['reason']} {made['involvedObject']['name']}")


def pod(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": name, "uid": name}, "spec": {"huge": "x" * 1000}}


async def test_what_is_refused_is_said_before_what_merely_waits() -> None:
    server = SlowServer()
    subject = Reporter(server)  # type: ignore[arg-type]
    for number in range(50):
        subject.held(pod(f"waits-{number}"), "it waits")
    subject.refused(pod("bad"), "it has a hole")
    subject.would_be_refused(pod("runs"), "it has a hole")
    task = asyncio.create_task(subject.run())
    server.open.set()
    await asyncio.wait_for(_all(server, 52), 10)
    task.cancel()
    assert server.written[:2] == ["WouldBeRefusedNow runs", "NotReleased bad"]


async def test_what_waits_does_not_push_out_what_is_refused_and_is_said_later_if_it_still_waits(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_QUEUE", 3)
    server = SlowServer()
    subject = Reporter(server)  # type: ignore[arg-type]
    dropped = DROPPED._value.get()
    for number in range(5):
        subject.held(pod(f"waits-{number}"), "it waits")
    subject.refused(pod("bad"), "it has a hole")
    assert DROPPED._value.get() == dropped + 2
    task = asyncio.create_task(subject.run())
    server.open.set()
    await asyncio.wait_for(_all(server, 4), 10)
    subject.held(pod("waits-4"), "it waits")  # judged again
    await asyncio.wait_for(_all(server, 5), 10)
    task.cancel()
    assert server.written[-1] == "Held waits-4"


async def test_what_runs_is_said_before_what_is_refused_and_is_not_pushed_out_by_it(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_QUEUE", 3)
    server = SlowServer()
    subject = Reporter(server)  # type: ignore[arg-type]
    for number in range(5):
        subject.refused(pod(f"bad-{number}"), "it has a hole")
    subject.would_be_refused(pod("runs"), "it was revoked")
    task = asyncio.create_task(subject.run())
    server.open.set()
    await asyncio.wait_for(_all(server, 4), 10)
    task.cancel()
    assert server.written[0] == "WouldBeRefusedNow runs"


async def _all(server: SlowServer, count: int) -> None:
    while len(server.written) < count:
        await asyncio.sleep(0.01)

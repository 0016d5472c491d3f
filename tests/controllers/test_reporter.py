"""Which Events are written first, and which are not written at all, where the API server is slower than what happens."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from mlwarden.cluster.errors import ApiError, ForbiddenError, UnreachableError
from mlwarden.controllers import reporter
from mlwarden.controllers.reporter import DROPPED, Reporter


class SlowServer:
    """Takes Events one after the other, and only when it is told to."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.open = asyncio.Event()

    async def create(self, _kind: Any, made: dict[str, Any], *, namespace: str) -> None:
        assert namespace in {"n", "m"}
        await self.open.wait()
        self.written.append(f"{made['reason']} {made['involvedObject']['name']}")


def pod(name: str, namespace: str = "n") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": name},
        "spec": {"huge": "x" * 1000},
    }


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


async def test_a_namespace_with_many_events_neither_delays_nor_drops_those_of_another(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_QUEUE", 100)
    server = SlowServer()
    subject = Reporter(server)  # type: ignore[arg-type]
    for number in range(200):
        subject.refused(pod(f"bad-{number}"), "it has a hole")
    subject.refused(pod("other", "m"), "it has a hole")
    task = asyncio.create_task(subject.run())
    server.open.set()
    await asyncio.wait_for(_all(server, 101), 10)
    task.cancel()
    assert "NotReleased other" in server.written[:2]


class Refusing:
    """An API server that refuses Events and owners at first: `refuses` of each, by what it is about."""

    def __init__(self, error: ApiError, **refuses: int) -> None:
        self._error, self._refuses = error, refuses
        self.written: list[str] = []

    def _answers(self, what: str) -> None:
        if self._refuses.get(what, 0) > 0:
            self._refuses[what] -= 1
            raise self._error

    async def create(self, _kind: Any, made: dict[str, Any], *, namespace: str) -> None:
        assert namespace == "n"
        self._answers(made["involvedObject"]["kind"])
        self.written.append(f"{made['reason']} {made['involvedObject']['kind']}")

    async def get(self, _kind: Any, name: str, *, namespace: str) -> dict[str, Any]:
        self._answers("owner")
        return {"metadata": {"namespace": namespace, "name": name, "uid": "u"}}


def owned(name: str) -> dict[str, Any]:
    reference = {"apiVersion": "kubeflow.org/v1", "kind": "Notebook", "name": "nb", "uid": "u", "controller": True}
    return {**(made := pod(name)), "metadata": {**made["metadata"], "ownerReferences": [reference]}}


@pytest.mark.parametrize("refuses", [{"Pod": 2}, {"Notebook": 2}, {"owner": 2}, {"Pod": 1, "owner": 1, "Notebook": 1}])
async def test_an_event_that_could_not_be_written_is_tried_again_and_written_once(monkeypatch: Any, refuses: dict[str, int]) -> None:
    monkeypatch.setattr(reporter, "_AGAIN", (0, 0, 0, 0))
    server = Refusing(ForbiddenError("no", code=403), **refuses)
    subject = Reporter(server)  # type: ignore[arg-type]
    task = asyncio.create_task(subject.run())
    subject.refused(owned("bad"), "it has a hole")
    await asyncio.wait_for(_all(server, 2), 10)
    subject.refused(owned("bad"), "it has a hole")  # said lately
    subject.held(owned("waits"), "it waits")
    await asyncio.wait_for(_all(server, 4), 10)
    task.cancel()
    assert server.written == ["NotReleased Pod", "NotReleased Notebook", "Held Pod", "Held Notebook"]


async def test_an_event_that_is_never_taken_is_given_up_and_said_when_it_is_true_again(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_AGAIN", (0, 0))
    dropped = DROPPED._value.get()
    server = Refusing(UnreachableError("nothing"), Pod=3)
    subject = Reporter(server)  # type: ignore[arg-type]
    task = asyncio.create_task(subject.run())
    subject.refused(owned("bad"), "it has a hole")
    await asyncio.wait_for(_until(lambda: DROPPED._value.get() == dropped + 1), 10)
    subject.refused(owned("bad"), "it has a hole")
    await asyncio.wait_for(_all(server, 2), 10)
    task.cancel()
    assert server.written == ["NotReleased Pod", "NotReleased Notebook"]


async def test_where_the_root_is_never_told_the_event_on_the_pod_stands(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_AGAIN", (0, 0))
    server = Refusing(ForbiddenError("no", code=403), owner=100)
    subject = Reporter(server)  # type: ignore[arg-type]
    task = asyncio.create_task(subject.run())
    subject.refused(owned("bad"), "it has a hole")
    subject.held(owned("waits"), "it waits")
    await asyncio.wait_for(_all(server, 2), 10)
    await asyncio.wait_for(_until(lambda: not any(turns.total() for turns in subject._turns.values())), 10)
    task.cancel()
    assert server.written == ["NotReleased Pod", "Held Pod"]


async def test_what_is_tried_again_counts_as_waiting(monkeypatch: Any) -> None:
    monkeypatch.setattr(reporter, "_AGAIN", (60,))
    monkeypatch.setattr(reporter, "_QUEUE", 3)
    dropped = DROPPED._value.get()
    server = Refusing(UnreachableError("nothing"), Pod=1000)
    subject = Reporter(server)  # type: ignore[arg-type]
    task = asyncio.create_task(subject.run())
    for number in range(3):
        subject.refused(owned(f"bad-{number}"), "it has a hole")
    await asyncio.wait_for(_until(lambda: server._refuses["Pod"] == 997), 10)
    subject.refused(owned("bad-4"), "it has a hole")
    assert DROPPED._value.get() == dropped + 1
    task.cancel()


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def _all(server: SlowServer | Refusing, count: int) -> None:
    while len(server.written) < count:
        await asyncio.sleep(0.01)

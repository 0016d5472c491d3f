"""Turns in the order in which they are given out, with work that takes as long as the test wants."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from mlwarden.scanner import lane as lanes
from mlwarden.scanner.agenda import Due, Rank
from mlwarden.scanner.lane import DisplacedError, Lane

START = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = START
        monkeypatch.setattr(lanes, "_now", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def fit() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def wanted(namespace: str, host: str, *, rank: Rank = Rank.HELD, since: datetime = START) -> Due:
    return Due(at=START, rank=rank, since=since, namespaces=(namespace,), host=host)


async def test_the_order_in_which_a_queue_is_worked_off(clock: Clock, fit: asyncio.Event) -> None:
    """One slot: by urgency, then in turn for those who wait, then by who waits longest."""
    lane, order = Lane(fast=1, total=1), []
    for number in range(3):
        lane.plan(f"renewal-{number}", wanted("", "one.example", rank=Rank.RENEWAL))
        lane.plan(f"many-{number}", wanted("many", "one.example", since=START - timedelta(seconds=9 - number)))
        lane.plan(f"few-{number}", wanted("few", "two.example", since=START - timedelta(seconds=number)))
        lane.plan(f"template-{number}", wanted("few", "two.example", rank=Rank.TEMPLATE, since=START - timedelta(hours=1)))
    while len(lane.agenda):
        name = (await lane.next(fit)).name
        order.append(name)
        lane.end(name)
    assert order[:6] == ["many-0", "few-2", "many-1", "few-1", "many-2", "few-0"]
    assert {name.partition("-")[0] for name in order[6:9]} == {"template"}
    assert {name.partition("-")[0] for name in order[9:]} == {"renewal"}


async def test_a_thousand_images_of_three_namespaces_do_not_stand_before_one_of_a_fourth(clock: Clock, fit: asyncio.Event) -> None:
    lane = Lane(fast=1, total=1)
    for number in range(1000):
        lane.plan(f"many-{number}", wanted(f"many-{number % 3}", "one.example", since=START - timedelta(hours=1)))
    for _ in range(7):
        lane.end((await lane.next(fit)).name)
    lane.plan("few", wanted("few", "one.example"))
    assert (await lane.next(fit)).name == "few"


async def test_with_two_slots_a_namespace_with_many_leaves_one_to_another(clock: Clock, fit: asyncio.Event) -> None:
    lane = Lane(fast=2, total=2)
    for number in range(50):
        lane.plan(f"many-{number}", wanted("many", "one.example", since=START - timedelta(hours=1)))
    lane.plan("few", wanted("few", "two.example"))
    assert {(await lane.next(fit)).namespace for _ in range(2)} == {"many", "few"}


async def test_slow_ones_everywhere_make_room_for_who_was_never_tried(clock: Clock, fit: asyncio.Event) -> None:
    lane, started = Lane(fast=1, total=2), asyncio.Event()
    for name in ("slow-1", "slow-2"):
        lane.plan(name, wanted(name, f"{name}.example"))

    async def hang(name: str) -> None:
        try:
            async with lane.displaceable(name):
                started.set()
                await asyncio.Event().wait()
        finally:
            lane.end(name)

    work = {}
    for _ in range(2):
        name = (await lane.next(fit)).name
        work[name] = asyncio.create_task(hang(name))
    await started.wait()
    lane.plan("honest", wanted("honest", "honest.example"))
    next_one = asyncio.create_task(lane.next(fit))
    await asyncio.sleep(0)
    assert not next_one.done()
    clock.now += timedelta(seconds=61)
    lane.plan("other", None)  # whatever wakes it: in life a minute does
    async with asyncio.timeout(20):
        assert (await next_one).name == "honest"
        done, rest = await asyncio.wait(work.values(), return_when=asyncio.FIRST_COMPLETED)
    assert len(rest) == 1
    with pytest.raises(DisplacedError, match="after 61 s, and will have more time"):
        await done.pop()
    rest.pop().cancel()


async def test_nothing_starts_while_there_is_no_worker(clock: Clock) -> None:
    lane, fit = Lane(fast=1, total=1), asyncio.Event()
    lane.plan("a", wanted("a", "a.example"))
    turn = asyncio.create_task(lane.next(fit))
    await asyncio.sleep(0)
    assert not turn.done()
    fit.set()
    async with asyncio.timeout(20):
        assert (await turn).name == "a"

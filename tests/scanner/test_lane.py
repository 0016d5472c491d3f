"""Turns in the order in which they are given out, with work that takes as long as the test wants."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from mlwarden.scanner import lane as lanes
from mlwarden.scanner.agenda import Due, Rank
from mlwarden.scanner.lane import DisplacedError, Lane, NoSlotError

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
    lane, started = Lane(fast=1, total=2), asyncio.Semaphore(0)
    for name in ("slow-1", "slow-2"):
        lane.plan(name, wanted(name, f"{name}.example"))

    async def hang(name: str) -> None:
        try:
            await lane.slot(name)
            async with lane.displaceable(name):
                started.release()
                await asyncio.Event().wait()
        finally:
            lane.end(name)

    work = {}
    for _ in range(2):
        name = (await lane.next(fit)).name
        work[name] = asyncio.create_task(hang(name))
    next_one = asyncio.create_task(lane.next(fit))
    for _ in work:
        await started.acquire()
    lane.plan("honest", wanted("honest", "honest.example"))
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


class Dispatched:
    """A lane that is worked off as the agent does it, each scan as long as the test wants."""

    def __init__(self, lane: Lane, fit: asyncio.Event) -> None:
        self.lane, self._fit = lane, fit
        self.claimed: list[str] = []
        self.started: list[str] = []
        self.given_back: list[str] = []
        self.over: dict[str, asyncio.Event] = {}
        self._tasks = {asyncio.create_task(self._dispatch())}

    async def _dispatch(self) -> None:
        while True:
            name = (await self.lane.next(self._fit)).name
            self.claimed.append(name)
            self._tasks.add(asyncio.create_task(self._one(name)))

    async def _one(self, name: str) -> None:
        over = self.over[name] = asyncio.Event()
        try:
            await self.lane.slot(name)
            async with self.lane.displaceable(name):
                self.started.append(name)
                await over.wait()
        except NoSlotError:
            self.given_back.append(name)
        finally:
            self.lane.end(name)

    async def settle(self) -> None:
        """Everything that can happen without anything else happening has."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self.over[name].set()
        await self.settle()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def one_slot(clock: Clock, fit: asyncio.Event) -> AsyncIterator[Dispatched]:
    """One slot and one ahead, four images of one namespace, the first of which was done at once."""
    dispatched = Dispatched(Lane(fast=1, total=2, ahead=1), fit)
    for number in range(4):
        dispatched.lane.plan(f"many-{number}", wanted("many", "one.example", since=START - timedelta(seconds=9 - number)))
    await dispatched.settle()
    await dispatched.end("many-0")
    yield dispatched
    await dispatched.stop()


async def test_the_next_one_is_claimed_while_the_slot_is_taken_and_starts_when_it_is_free(one_slot: Dispatched) -> None:
    assert one_slot.claimed == ["many-0", "many-1", "many-2"]
    assert one_slot.started == ["many-0", "many-1"]
    await one_slot.end("many-1")
    assert one_slot.started == ["many-0", "many-1", "many-2"]


async def test_nothing_is_claimed_ahead_where_nobody_knows_how_long_a_scan_takes(clock: Clock, fit: asyncio.Event) -> None:
    dispatched = Dispatched(Lane(fast=1, total=2, ahead=1), fit)
    for number in range(2):
        dispatched.lane.plan(f"many-{number}", wanted("many", "one.example"))
    await dispatched.settle()
    assert dispatched.claimed == ["many-0"]
    clock.now += timedelta(seconds=30)
    await dispatched.end("many-0")
    dispatched.lane.plan("many-2", wanted("many", "one.example"))
    await dispatched.settle()
    assert dispatched.claimed == ["many-0", "many-1"], "the last one took half a minute"
    await dispatched.stop()


async def test_a_held_pod_that_comes_later_is_scanned_before_a_template_that_was_claimed_ahead(clock: Clock, fit: asyncio.Event) -> None:
    dispatched = Dispatched(Lane(fast=1, total=2, ahead=1), fit)
    for number in range(3):
        dispatched.lane.plan(f"template-{number}", wanted("team", "one.example", rank=Rank.TEMPLATE, since=START + number * timedelta(1)))
    await dispatched.settle()
    await dispatched.end("template-0")
    assert dispatched.claimed == ["template-0", "template-1", "template-2"]
    dispatched.lane.plan("held", wanted("team", "one.example"))
    await dispatched.settle()
    await dispatched.end("template-1")
    assert dispatched.started == ["template-0", "template-1", "held"]
    await dispatched.end("held")
    assert dispatched.started[-1] == "template-2"
    await dispatched.stop()


async def test_a_namespace_that_comes_later_does_not_wait_for_what_was_claimed_ahead(one_slot: Dispatched) -> None:
    one_slot.lane.plan("few", wanted("few", "one.example"))
    await one_slot.settle()
    await one_slot.end("many-1")
    assert one_slot.started == ["many-0", "many-1", "few"]


async def test_what_was_claimed_ahead_and_is_lost_leaves_its_place_to_the_next(one_slot: Dispatched) -> None:
    """Another scanner has it, or it is gone: the agent ends it."""
    one_slot.lane.end("many-2")
    await one_slot.settle()
    assert one_slot.claimed[-1] == "many-3"
    await one_slot.end("many-1")
    assert one_slot.started[-1] == "many-3"


async def test_what_was_claimed_ahead_is_given_back_where_no_slot_comes_free_soon(
    one_slot: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else is claimed ahead then."""
    monkeypatch.setattr(lanes, "PATIENCE", 0)
    one_slot.lane.end("many-2")
    await one_slot.settle()
    assert one_slot.given_back == ["many-3"]
    one_slot.lane.plan("many-3", wanted("many", "one.example"))
    await one_slot.settle()
    assert one_slot.claimed.count("many-3") == 1
    await one_slot.end("many-1")
    assert one_slot.claimed.count("many-3") == 2

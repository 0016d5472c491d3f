"""What belongs to one namespace does not wait for what belongs to another. The worker is made up; the clock does not matter."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.history import Looked
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.model.evidence import Phase
from mlwarden.model.signing import Place, Proof, Proven, Signer
from mlwarden.scanner.candidates import sides, untried
from mlwarden.scanner.looks import Findings, Looks, look_once

HEX = "a" * 64
NOW = datetime(2026, 11, 30, tzinfo=UTC)
KEY = Signer(key="sha256:" + "b" * 64)


def at(repository: str) -> str:
    return f"r.example/{repository}@sha256:{HEX}"


HOME, COPY = at("team/home"), at("evil/copy")


def evidence(named_by: dict[str, tuple[str, ...]], **changes: Any) -> ImageEvidence:
    spec = EvidenceSpec(references=tuple(named_by), named_by=named_by, requested_at=changes.pop("requested_at", None))
    return ImageEvidence(metadata=Metadata(name=f"signatures-{HEX}"), spec=spec, status=EvidenceStatus(**changes))


def test_repositories_are_asked_apart_by_who_names_them_and_what_several_name_is_of_who_names_least() -> None:
    hanging = {at(f"evil/{number}"): ("evil",) for number in range(3)}
    found = sides(evidence({HOME: ("evil", "team"), at("old/unnamed"): (), **hanging}))
    assert (HOME,) in found
    assert tuple(reversed(hanging)) in found


def test_a_repository_that_was_named_since_the_last_try_is_seen() -> None:
    tried = (Place(reference=COPY, at=NOW),)
    assert untried(evidence({COPY: ("evil",), HOME: ("team",)}, places=tried))
    assert not untried(evidence({COPY: ("evil",)}, places=tried))
    assert not untried(evidence({COPY: ("evil",)}))


class World:
    """A worker whose answers come when the test wants, and an object that it may change."""

    def __init__(self, known: ImageEvidence) -> None:
        self.known, self.news = known, asyncio.Event()
        self.asked: list[tuple[str, ...]] = []
        self.answers: dict[str, asyncio.Queue[Looked | Exception]] = {each: asyncio.Queue() for each in (HOME, COPY)}
        self.written: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def ask(self, _of: ImageEvidence, side: tuple[str, ...]) -> Looked:
        self.asked.append(side)
        answer = await self.answers[side[0]].get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self) -> asyncio.Task[dict[str, Any]]:
        looks = Looks(ask=self.ask, current=lambda: self.known, news=self.news, write=self.written.put, now=lambda: NOW)
        return asyncio.create_task(looks.run(self.known, Findings(self.known)))

    def ask_again(self, requested_at: datetime) -> None:
        self.known = msgspec.structs.replace(self.known, spec=msgspec.structs.replace(self.known.spec, requested_at=requested_at))
        self.news.set()


def looked(reference: str, outcome: Proven, made_at: datetime | None = None) -> Looked:
    signer = KEY if made_at is not None else None
    proof = Proof(demand="one", outcome=outcome, at=NOW, made_at=made_at, signer=signer)
    return Looked(proofs=(proof,), places=(Place(reference=reference, at=NOW, answered={"one": NOW}),))


async def test_an_answer_is_written_while_another_namespaces_repository_hangs() -> None:
    world = World(evidence({HOME: ("team",), COPY: ("evil",)}, requested_at=NOW))
    async with asyncio.timeout(20):
        work = world.start()
        world.answers[HOME].put_nowait(looked(HOME, Proven.VERIFIED, NOW))
        written = await world.written.get()
        assert written["phase"] is Phase.READY
        assert written["proofs"][0].outcome is Proven.VERIFIED
        assert written["answered"] == NOW
        assert [place.reference for place in written["places"]] == [HOME]
        assert not work.done()
        world.answers[COPY].put_nowait(TransientError("it hangs"))
        assert (await work)["proofs"][0].outcome is Proven.VERIFIED


async def test_who_asks_again_meanwhile_is_answered_meanwhile() -> None:
    world = World(evidence({COPY: ("evil",), HOME: ("team",)}, requested_at=NOW))
    async with asyncio.timeout(20):
        work = world.start()
        world.answers[HOME].put_nowait(looked(HOME, Proven.MISSING))
        assert (await world.written.get())["proofs"][0].outcome is Proven.MISSING
        world.ask_again(NOW + timedelta(seconds=9))
        world.answers[HOME].put_nowait(looked(HOME, Proven.VERIFIED, NOW))
        written = await world.written.get()
        assert written["proofs"][0].outcome is Proven.VERIFIED
        assert written["answered"] == NOW + timedelta(seconds=9)
        assert world.asked.count((HOME,)) == 2
        assert world.asked.count((COPY,)) == 1
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_a_copy_that_answers_last_does_not_replace_what_the_repository_said() -> None:
    world = World(evidence({HOME: ("team",), COPY: ("evil",)}))
    async with asyncio.timeout(20):
        work = world.start()
        world.answers[HOME].put_nowait(looked(HOME, Proven.INVALID, NOW))
        await world.written.get()
        world.answers[COPY].put_nowait(looked(COPY, Proven.VERIFIED, NOW - timedelta(days=9)))
        final = await work
    assert (final["proofs"][0].outcome, final["proofs"][0].made_at) == (Proven.INVALID, NOW)
    assert [place.reference for place in final["places"]] == sorted([HOME, COPY])


async def test_where_no_side_has_an_answer_the_reason_is_told_and_nothing_is_written() -> None:
    world = World(evidence({HOME: ("team",), COPY: ("evil",)}))
    async with asyncio.timeout(20):
        work = world.start()
        for each in (HOME, COPY):
            world.answers[each].put_nowait(TransientError("the worker is gone"))
        with pytest.raises(TransientError, match="the worker is gone"):
            await work
    assert world.written.empty()


class Scans:
    """Looks that come to an end when the test wants."""

    def __init__(self, known: ImageEvidence) -> None:
        self.known, self.news, self.began = known, asyncio.Event(), list[str]()
        self.ends: dict[str, asyncio.Event] = {}
        self.has: set[str] = set()

    async def look(self, of: ImageEvidence, first: str) -> str:
        first = first or of.spec.references[-1]
        self.began.append(first)
        await self.ends.setdefault(first, asyncio.Event()).wait()
        return first

    async def find(self, _of: ImageEvidence, references: tuple[str, ...]) -> str:
        for each in references:
            if each in self.has:
                return each
        await asyncio.Event().wait()
        raise AssertionError

    def start(self) -> asyncio.Task[tuple[ImageEvidence, str]]:
        return asyncio.create_task(look_once(self.known, look=self.look, find=self.find, current=lambda: self.known, news=self.news))

    async def name(self, reference: str, *, began: int) -> None:
        """A repository is named; returns when so many looks have begun."""
        named_by = {**self.known.spec.named_by, reference: ("x",)}
        spec = msgspec.structs.replace(self.known.spec, references=tuple(named_by), named_by=named_by)
        self.known = msgspec.structs.replace(self.known, spec=spec)
        self.news.set()
        while self.news.is_set() or len(self.began) < began:
            await asyncio.sleep(0.001)


async def test_a_scan_begins_anew_where_a_repository_that_has_the_image_is_named_while_others_hang() -> None:
    scans = Scans(evidence({COPY: ("evil",)}))
    scans.has.add(HOME)
    async with asyncio.timeout(20):
        work = scans.start()
        await scans.name(at("evil/another"), began=1)
        await scans.name(HOME, began=2)
        assert scans.began == [COPY, HOME]
        scans.ends[HOME].set()
        known, found = await work
    assert found == HOME
    assert HOME in known.spec.references


async def test_a_scan_begins_anew_once_so_that_nobody_keeps_it_from_an_end() -> None:
    scans = Scans(evidence({HOME: ("team",)}))
    others = [at(f"evil/{number}") for number in range(3)]
    scans.has.update(others)
    async with asyncio.timeout(20):
        work = scans.start()
        for each in others:
            await scans.name(each, began=2) if each == others[0] else scans.news.set()
        scans.ends[others[0]].set()
        assert (await work)[1] == others[0]
    assert scans.began == [HOME, others[0]]

"""Tools that find nothing, and tools that say yes, are noticed: with the real trivy and the real cosign."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlwarden.embedded import trivydb
from mlwarden.embedded.build import binary
from mlwarden.evidence.cosign import Cosign
from mlwarden.evidence.failure import TransientError
from mlwarden.evidence.tool import Pull
from mlwarden.evidence.trivy import Trivy
from mlwarden.model.signing import Demand, Proof, Proven
from mlwarden.scanner import canary as canaries
from mlwarden.scanner.canary import EVERY, Canary, UnfitError, of_cosign, of_trivy
from mlwarden.scanner.exhibits import Suspect, exhibited

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def trivy(tmp_path: Path, *advisories: trivydb.Advisory) -> Trivy:
    database = trivydb.make_database(tmp_path / "cache", advisories)
    return Trivy(binary=binary("trivy"), cache=database, scratch=tmp_path)


async def test_a_database_that_knows_the_suspect_is_good(tmp_path: Path) -> None:
    canary = of_trivy(trivy(tmp_path, *trivydb.ADVISORIES), Suspect())
    await canary.ensure()
    assert canary.good_at is not None
    canary.believable()


async def test_a_database_that_was_emptied_makes_the_scanner_unfit_and_a_whole_one_fit_again(tmp_path: Path) -> None:
    canary = of_trivy(trivy(tmp_path, *trivydb.ADVISORIES[1:]), Suspect())
    with pytest.raises(UnfitError, match=r"trivy did not find CVE-2025-32434 in torch 2\.5\.1"):
        await canary.ensure()
    with pytest.raises(UnfitError):
        canary.believable()
    trivydb.make_database(tmp_path / "cache")
    await canary.ensure()
    canary.believable()


async def test_without_a_database_nothing_is_known(tmp_path: Path) -> None:
    canary = of_trivy(Trivy(binary=binary("trivy"), cache=tmp_path / "none", scratch=tmp_path), Suspect())
    with pytest.raises(TransientError, match="no vulnerability database"):
        await canary.ensure()
    assert (canary.good_at, canary.unfit) == (None, "")


async def test_the_real_cosign_tells_the_three_images_apart(tmp_path: Path) -> None:
    await of_cosign(Cosign(binary=binary("cosign"), scratch=tmp_path)).ensure()


class Always:
    """Says the same of everything."""

    def __init__(self, answer: Callable[[Pull, Demand], Proven]) -> None:
        self._answer = answer

    async def establish(self, pull: Pull, demand: Demand) -> Proof:
        """As `evidence.proofs.Verifier`."""
        return Proof(demand=demand.id, outcome=self._answer(pull, demand), reason="as told", at=NOW)


async def test_a_cosign_that_says_yes_to_everything_or_no_to_everything_is_not_fit() -> None:
    with pytest.raises(UnfitError, match="verified an image that nobody signed"):
        await of_cosign(Always(lambda _pull, _demand: Proven.VERIFIED)).ensure()
    with pytest.raises(UnfitError, match="did not verify a good signature"):
        await of_cosign(Always(lambda _pull, _demand: Proven.MISSING)).ensure()
    asked = iter([Proven.MISSING, Proven.VERIFIED])
    with pytest.raises(UnfitError, match="by another key"):
        await of_cosign(Always(lambda _pull, _demand: next(asked))).ensure()


async def test_a_cosign_that_could_not_be_asked_is_not_called_unfit() -> None:
    canary = of_cosign(Always(lambda _pull, _demand: Proven.UNKNOWN))
    with pytest.raises(TransientError, match="could not try itself out: as told"):
        await canary.ensure()
    assert not canary.unfit


async def test_the_registry_is_gone_when_nobody_asks_any_more() -> None:
    async with exhibited(Suspect()) as exhibits:
        host, _, port = exhibits.signed.image.partition("/")[0].partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, int(port))


async def test_it_is_asked_every_hour_and_with_every_new_database_and_believed_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        """Says `moment`."""

        moment = NOW

        @classmethod
        def now(cls, _zone: object = None) -> datetime:
            return cls.moment

    monkeypatch.setattr(canaries, "datetime", Clock)
    asked, data, fails = [], [NOW], [False]

    async def ask() -> None:
        asked.append(Clock.moment)
        if fails[0]:
            raise TransientError("out of memory")

    canary = Canary(ask, data=lambda: data[0])
    await canary.ensure()
    await canary.ensure()
    assert len(asked) == 1
    data[0] += timedelta(seconds=1)
    await canary.ensure()
    assert len(asked) == 2
    Clock.moment += EVERY
    fails[0] = True
    await canary.ensure()
    assert len(asked) == 3, "it was asked again, and what it said an hour ago counts for one hour more"
    Clock.moment += EVERY
    with pytest.raises(TransientError, match="could not try itself out"):
        await canary.ensure()

"""Fifteen poisoned references do not stand before an honest one for ever, wherever they are in the list."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlwarden.evidence.failure import DefinitiveError, GatherError, TransientError
from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.scanner.candidates import in_turn, order, registry

HEX = "a" * 64


def evidence(*repositories: str, attempts: int = 0) -> ImageEvidence:
    references = tuple(f"{repository}@sha256:{HEX}" for repository in repositories)
    return ImageEvidence(
        metadata=Metadata(name=f"sha256-{HEX}"), spec=EvidenceSpec(references=references), status=EvidenceStatus(attempts=attempts)
    )


def tried(*repositories: str, attempts: int = 0) -> list[str]:
    return [reference.partition("@")[0] for reference in order(evidence(*repositories, attempts=attempts))]


def test_who_asks_now_is_tried_first() -> None:
    assert tried("evil.example/a", "evil.example/b", "good.example/x") == ["good.example/x", "evil.example/b", "evil.example/a"]


def test_fifteen_repositories_of_one_registry_cost_one_try() -> None:
    poisoned = [f"evil.example/{number}" for number in range(15)]
    assert tried("good.example/x", *poisoned)[1] == "good.example/x"


def test_each_failure_begins_one_further() -> None:
    repositories = ("a.example/x", "b.example/x", "c.example/x")
    assert [tried(*repositories, attempts=attempts)[0] for attempts in range(4)] == [
        "c.example/x",
        "b.example/x",
        "a.example/x",
        "c.example/x",
    ]


REPOSITORIES = st.lists(
    st.sampled_from([f"{host}.example/{name}" for host in "abc" for name in "xyz"]), min_size=1, max_size=9, unique=True
)


@given(REPOSITORIES)
def test_every_reference_is_tried_each_time_and_comes_first_at_some_time(repositories: list[str]) -> None:
    firsts = set()
    for attempts in range(3 * 9):
        found = tried(*repositories, attempts=attempts)
        assert sorted(found) == sorted(repositories)
        firsts.add(found[0])
    assert firsts == set(repositories)


def test_what_is_no_reference_has_no_registry() -> None:
    assert registry("No Reference") == ""


async def there(candidate: str) -> None:
    """What hangs hangs already when it is asked whether it has it."""
    if candidate.startswith("dead"):
        await asyncio.Event().wait()
    if candidate.startswith("none"):
        raise DefinitiveError(f"{candidate} is not there")


async def test_registries_that_hang_stand_before_nobody_however_long_there_is() -> None:
    async def look(candidate: str) -> str:
        return candidate

    async with asyncio.timeout(20):
        assert await in_turn([*(f"dead-{number}" for number in range(15)), "none", "good"], 900, look, there=there) == "good"


async def test_who_asks_now_is_looked_into_first_also_where_it_is_a_little_slower() -> None:
    async def slow(candidate: str) -> None:
        await asyncio.sleep(0.05 if candidate == "now" else 0)

    async def look(candidate: str) -> str:
        return candidate

    assert await in_turn(["now", "before"], 900, look, there=slow) == "now"


async def test_what_hangs_takes_half_of_the_time_that_is_left_and_the_next_is_tried() -> None:
    seen = []

    async def look(candidate: str) -> str:
        seen.append(candidate)
        if candidate.startswith("hang"):
            await asyncio.Event().wait()
        return candidate

    async with asyncio.timeout(20):
        assert await in_turn(["hang-1", "hang-2", "good", "never"], 1, look, there=there) == "good"
    assert seen == ["hang-1", "hang-2", "good"]


async def test_all_that_hang_end_within_the_time_for_all_of_them() -> None:
    async def look(_candidate: str) -> str:
        await asyncio.Event().wait()
        return ""

    async with asyncio.timeout(20):
        with pytest.raises(TransientError, match="took more than"):
            await in_turn(["a", "b", "c"], 0.1, look, there=there)


async def test_one_that_may_have_it_is_worth_another_try_and_none_that_has_it_is_not() -> None:
    def failing(*failures: GatherError) -> Callable[[str], Awaitable[str]]:
        left = iter(failures)

        async def look(_candidate: str) -> str:
            raise next(left)

        return look

    with pytest.raises(TransientError, match="down"):
        await in_turn(["a", "b"], 9, failing(DefinitiveError("not there"), TransientError("down")), there=there)
    with pytest.raises(DefinitiveError, match="not there"):
        await in_turn(["a", "b"], 9, failing(DefinitiveError("not there"), DefinitiveError("denied")), there=there)
    with pytest.raises(DefinitiveError, match="nobody said"):
        await in_turn([], 9, failing(), there=there)

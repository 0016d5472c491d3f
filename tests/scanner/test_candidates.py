"""Fifteen poisoned references do not stand before an honest one for ever, wherever they are in the list."""

from hypothesis import given
from hypothesis import strategies as st

from mlwarden.evidence.store import EvidenceSpec, EvidenceStatus, ImageEvidence, Metadata
from mlwarden.scanner.candidates import order, registry, shares

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


@given(st.integers(1, 16))
def test_no_reference_takes_more_than_half_of_the_time_unless_it_is_alone(count: int) -> None:
    times = shares(900, count)
    assert len(times) == count
    assert sum(times) <= 900.001
    assert max(times) == (900 if count == 1 else 450)

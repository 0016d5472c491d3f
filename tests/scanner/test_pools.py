"""Whoever has nothing running waits for a minute at most, whatever the others do."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.scanner.pools import SLOW, Pools, Running

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def start(pools: Pools, name: str, *, namespace: str, host: str, began: datetime = NOW, attempts: int = 0, rank: int = 0) -> None:
    pools.claim(name, Running(began=began, rank=rank, namespace=namespace, host=host, attempts=attempts))
    pools.start(name, began)


def claim(pools: Pools, name: str, *, namespace: str, host: str = "one.example", rank: int = 0) -> None:
    pools.claim(name, Running(began=NOW, rank=rank, namespace=namespace, host=host))


def test_one_registry_and_namespace_alone_has_all_fast_slots_and_no_more() -> None:
    pools = Pools(fast=3, total=6)
    running = 0
    while pools.may("team", "one.example", NOW):
        start(pools, str(running), namespace="team", host="one.example")
        running += 1
    assert running == 3


def test_whose_namespace_and_registry_have_nothing_running_starts_beyond_the_fast_slots() -> None:
    pools = Pools(fast=2, total=3)
    for name in "ab":
        start(pools, name, namespace="team", host="slow.example")
    assert not pools.may("team", "other.example", NOW)
    assert not pools.may("other", "slow.example", NOW)
    assert pools.may("other", "other.example", NOW)


def test_what_is_slow_leaves_its_fast_slot_to_others() -> None:
    pools = Pools(fast=2, total=4)
    for name in "ab":
        start(pools, name, namespace="team", host="slow.example")
    assert not pools.may("team", "slow.example", NOW + SLOW - timedelta(seconds=1))
    assert pools.next_change(NOW) == NOW + SLOW
    assert pools.may("team", "slow.example", NOW + SLOW)


def test_any_number_of_slow_registries_make_room_for_one_that_has_nothing_running() -> None:
    pools = Pools(fast=2, total=4)
    for number in range(4):
        start(pools, str(number), namespace=f"slow-{number}", host=f"slow-{number}.example", began=NOW + number * timedelta(seconds=1))
    assert not pools.may("new", "new.example", NOW + MINUTE)
    assert pools.displace("new", "new.example", NOW + MINUTE - timedelta(seconds=1)) is None
    assert pools.displace("new", "new.example", NOW + MINUTE) == "0"
    assert pools.displace("another", "another.example", NOW + 5 * MINUTE) is None, "one at a time"
    pools.end("0")
    assert pools.may("new", "new.example", NOW + MINUTE)


def test_the_namespace_with_the_most_running_makes_room_and_who_has_as_many_may_not_ask_for_it() -> None:
    pools = Pools(fast=3, total=3)
    start(pools, "large", namespace="honest", host="one.example", began=NOW - 10 * MINUTE)
    for name in ("hog-1", "hog-2"):
        start(pools, name, namespace="hog", host="two.example", began=NOW - 2 * MINUTE)
    assert pools.displace("hog", "two.example", NOW) is None
    assert pools.displace("new", "three.example", NOW) == "hog-2"


def test_a_renewal_makes_room_first() -> None:
    pools = Pools(fast=2, total=2)
    start(pools, "held", namespace="a", host="a.example", began=NOW - 9 * MINUTE)
    start(pools, "renewal", namespace="b", host="b.example", began=NOW - 2 * MINUTE, rank=2)
    assert pools.displace("new", "new.example", NOW) == "renewal"


def test_each_time_it_was_displaced_it_has_twice_as_long() -> None:
    for attempts, minutes in ((0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (9, 16)):
        pools = Pools(fast=1, total=1)
        start(pools, "large", namespace="a", host="a.example", attempts=attempts)
        assert pools.displace("new", "new.example", NOW + minutes * MINUTE - timedelta(seconds=1)) is None
        assert pools.displace("new", "new.example", NOW + minutes * MINUTE) == "large"


def test_no_more_run_than_the_memory_of_the_worker_allows() -> None:
    pools = Pools(fast=3, total=6)
    pools.limit(1)
    start(pools, "a", namespace="a", host="a.example")
    assert not pools.may("b", "b.example", NOW)
    pools.limit(0)
    assert pools.may("b", "b.example", NOW)


def full(*, slow: int = 2) -> Pools:
    """Two slots, both taken by one namespace."""
    pools = Pools(fast=2, total=2 + slow)
    for name in "ab":
        start(pools, name, namespace="many", host="one.example")
    return pools


def test_so_many_are_claimed_ahead_and_no_more() -> None:
    pools, claimed = full(), 0
    while pools.may_claim(NOW, ahead=1)(0, "many", "one.example"):
        claim(pools, f"next-{claimed}", namespace="many")
        claimed += 1
    assert claimed == 1
    assert not full().may_claim(NOW)(0, "many", "one.example"), "nothing is where nothing may be"


def test_what_is_claimed_has_no_slot_until_one_is_free() -> None:
    pools = full()
    claim(pools, "next", namespace="many")
    assert pools.first({"next"}, NOW) is None
    pools.end("a")
    assert pools.first({"next"}, NOW) == "next"
    assert pools.first(set(), NOW) is None, "its claim is not written yet"
    assert not pools.may("many", "one.example", NOW), "the slot is spoken for"


def test_a_held_pod_is_claimed_beside_what_is_claimed_ahead_and_has_the_next_slot() -> None:
    pools = full()
    claim(pools, "renewal", namespace="", rank=2)
    may = pools.may_claim(NOW, ahead=1)
    assert not may(2, "other", "one.example"), "no more renewals than that"
    assert may(0, "many", "one.example")
    claim(pools, "held", namespace="many", rank=0)
    assert not may(0, "many", "one.example"), "it does not come before the one that is claimed"
    pools.end("a")
    assert pools.first({"renewal", "held"}, NOW) == "held"


def test_who_has_least_has_the_next_slot_before_what_was_claimed_ahead() -> None:
    pools = full()
    claim(pools, "many", namespace="many")
    assert pools.may_claim(NOW, ahead=1)(0, "few", "one.example")
    claim(pools, "few", namespace="few")
    pools.end("a")
    assert pools.first({"many", "few"}, NOW) == "few"


def test_what_is_claimed_ahead_and_has_nothing_running_is_a_guest_beyond_the_fast_slots() -> None:
    pools = full()
    claim(pools, "hog", namespace="many")
    claim(pools, "new", namespace="new", host="new.example")
    assert pools.first({"hog", "new"}, NOW) == "new"


def test_never_more_are_claimed_than_may_run() -> None:
    pools = full(slow=0)
    claim(pools, "renewal", namespace="", rank=2)
    claim(pools, "template", namespace="team", rank=1)
    assert not pools.may_claim(NOW, ahead=1)(0, "other", "other.example")


ATTACK = st.lists(st.tuples(st.sampled_from(["hog-1", "hog-2", "hog-3"]), st.integers(0, 20), st.integers(1, 50)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(ATTACK, st.integers(1, 4), st.integers(0, 4))
def test_whatever_others_start_a_newcomer_waits_for_a_minute_at_most(attack: list[tuple[str, int, int]], fast: int, more: int) -> None:
    """All of theirs hang for ever, and were never tried before."""
    pools, now = Pools(fast=fast, total=fast + more), NOW
    for number, (namespace, host, seconds) in enumerate(attack):
        now += timedelta(seconds=seconds)
        if pools.may(namespace, f"{host}.example", now):
            start(pools, str(number), namespace=namespace, host=f"{host}.example", began=now)
    later = now + SLOW
    if not pools.may("newcomer", "honest.example", later):
        gone = pools.displace("newcomer", "honest.example", later)
        assert gone is not None
        pools.end(gone)
    assert pools.may("newcomer", "honest.example", later)

"""Whose time it is: the API server's, as far as its answers bound it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlwarden.checks.resolved import young
from mlwarden.cluster import NAMESPACE, Client, clock
from mlwarden.cluster import client as clients
from mlwarden.cluster.clock import NOTABLE, Clock
from mlwarden.model.digest import Digest
from mlwarden.model.evidence import Resolution

START = 1_790_000_000.0


def date(seconds: float) -> str:
    """As a server writes it: cut to a whole second."""
    return format_datetime(datetime.fromtimestamp(int(seconds), UTC), usegmt=True)


def hears(subject: Clock, *, ahead: float, at: float, there: float = 0.01, back: float = 0.01) -> None:
    """One request of a process whose server is `ahead` seconds before it."""
    subject.heard(date(at + there + ahead), sent=at, received=at + there + back)


latencies = st.floats(0.0, 2.0)


@settings(deadline=None)
@given(ahead=st.floats(-1e6, 1e6), answers=st.lists(st.tuples(st.floats(0, 5000), latencies, latencies), min_size=1, max_size=20))
def test_the_correction_is_never_further_off_than_the_best_answer_allows(ahead: float, answers: list[tuple[float, float, float]]) -> None:
    subject = Clock()
    for after, there, back in answers:
        hears(subject, ahead=ahead, at=START + after, there=there, back=back)
    best = min(there + back for _, there, back in answers) + 1.0
    assert abs(subject.offset - ahead) <= best + 1e-3
    assert abs(subject.offset) <= abs(ahead) + 1e-3, "corrected no further than the answers demand"


@pytest.mark.parametrize("ahead", [0.0, 0.4, -0.4])
def test_clocks_that_may_agree_are_not_corrected(ahead: float) -> None:
    subject = Clock()
    for number in range(50):
        hears(subject, ahead=ahead, at=START + number * 1.37, there=0.6, back=0.6)
    assert subject.offset == 0.0
    assert subject.note() == ""


def test_a_clock_that_is_set_is_followed_at_the_next_answer() -> None:
    subject = Clock()
    for ahead in (95.0, 0.0, -3600.0, 0.0):
        hears(subject, ahead=ahead, at=START)
        assert abs(subject.offset - ahead) <= 1.1


def test_an_answer_without_a_date_or_with_none_that_can_be_read_changes_nothing() -> None:
    subject = Clock()
    for nothing in (None, "", "yesterday", "Mon, 99 Foo 2026 25:61:61 GMT", "\x1b[31m"):
        subject.heard(nothing, sent=START, received=START)
    assert subject.offset == 0.0


@pytest.mark.parametrize(("ahead", "says"), [(95.0, "about 90 s behind the API server's"), (-95.0, "about 90 s ahead of the API server's")])
def test_what_is_far_off_is_said_in_words_that_stay_the_same(ahead: float, says: str) -> None:
    subject = Clock()
    hears(subject, ahead=ahead, at=START)
    assert says in subject.note()
    assert clock.OFFSET._value.get() == subject.offset
    hears(subject, ahead=NOTABLE - 2, at=START)
    assert subject.note() == ""


@pytest.mark.cluster
@pytest.mark.parametrize("ahead", [95, -95, 86400])
async def test_a_process_whose_clock_is_wrong_judges_tags_by_the_api_servers(
    client: Client, monkeypatch: pytest.MonkeyPatch, attack: Any, ahead: int
) -> None:
    now, skew = datetime.now(UTC), timedelta(seconds=ahead)

    class Skewed(datetime):
        """The clock of a node without NTP."""

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + skew

    real = clients.time.time
    monkeypatch.setattr(clients, "time", type("Time", (), {"time": staticmethod(lambda: real() + ahead)}))
    monkeypatch.setattr(clock, "datetime", Skewed)
    monkeypatch.setattr(clock, "CLOCK", Clock())
    monkeypatch.setattr(clients, "CLOCK", clock.CLOCK)
    resolved = Resolution(digest=Digest("sha256:" + "a" * 64), at=now)
    assert not young(resolved, clock.now()), "before the API server was heard"
    await client.get(NAMESPACE, "default")
    assert abs((clock.now() - datetime.now(UTC)).total_seconds()) < 3
    assert young(resolved, clock.now())
    assert clock.CLOCK.note()
    own = clock.heard_at(datetime.now(UTC) + skew)
    assert own is not None
    assert young(Resolution(digest=resolved.digest, at=own), datetime.now(UTC))
    attack(
        f"a clock {ahead} s off on the releaser's node",
        "every tag is held for ever",
        "judged by the API server's clock, and said in the hold",
    )

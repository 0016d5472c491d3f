"""What is to be done, when, and what first. Pure: the time is an argument.

The state of an object says when it is next due; nothing is remembered between processes but that state. Two ranks: an answer that
somebody waits for comes before one that is only being renewed, and within a rank the one that waits longest comes first.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import msgspec

from mlwarden.evidence.store import EvidenceStatus, ImageEvidence, Purpose
from mlwarden.model.evidence import Phase

AGAIN_RESOLUTION = timedelta(seconds=2)
AGAIN_SIGNATURES = timedelta(seconds=5)
AGAIN_SCAN = timedelta(seconds=30)
"""Asking again sooner than that after an answer waits until then."""
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Due(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """When an object is due, and how urgent it is then: the lower rank first, then who has waited since earlier."""

    at: datetime
    rank: int
    since: datetime


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What decides when something is due.

    Attributes:
        identity: this scanner's, as in `claimedBy`.
        started: when this process started.
        lease: how long a claim holds.
        max_age: a scan older than this is made again; zero for never.
    """

    identity: str
    started: datetime
    lease: timedelta
    max_age: timedelta


def due(evidence: ImageEvidence, terms: Terms, demanded: Mapping[str, str] = MappingProxyType({})) -> Due | None:
    """Returns when there is work to do for an object, None for never (unless it changes).

    Args:
        evidence: the object.
        terms: of this scanner.
        demanded: what policies want proven about it, where it is about signatures: demand → the key it is now to be proven with, `""`
            where that does not change.
    """
    status, asked = evidence.status, evidence.spec.requested_at
    free = _free(status, terms)
    later = max(free, status.retry_at or _EVER)
    since = asked or evidence.metadata.creation_timestamp or _EVER
    rank = int(evidence.spec.purpose is Purpose.RENEWAL)
    if status.phase is Phase.PENDING or status.at is None:
        # Who has been tried waits behind who has not: a registry that hangs must not be tried for ever before everybody else.
        return Due(at=later, rank=rank, since=max(since, status.retry_at or _EVER))
    if evidence.is_asked and asked is not None:
        again = status.at + _again(evidence)
        # A definitive failure is asked about again at once: somebody may have pushed the image. A rate limit is not.
        return Due(at=max(free if status.phase is Phase.FAILED else later, again), rank=rank, since=asked)
    if status.phase is Phase.FAILED:
        return Due(at=later, rank=1, since=status.at) if status.retry_at else None
    made_with = {proof.demand: proof.material for proof in status.proofs}
    if any(name not in made_with or (key and key != made_with[name]) for name, key in demanded.items()):
        return Due(at=later, rank=1, since=status.at)
    if evidence.is_resolution or not terms.max_age:
        return None
    return Due(at=max(later, status.at + terms.max_age), rank=1, since=status.at)


def _again(evidence: ImageEvidence) -> timedelta:
    if evidence.is_resolution:
        return AGAIN_RESOLUTION
    return AGAIN_SIGNATURES if evidence.is_signatures else AGAIN_SCAN


def _free(status: EvidenceStatus, terms: Terms) -> datetime:
    """From when on this scanner may claim it. A claim under our own name from before this process started is nobody's."""
    if not status.claimed_by or status.claimed_until is None:
        return _EVER
    if status.claimed_by == terms.identity and status.claimed_until < terms.started + terms.lease:
        return _EVER
    return status.claimed_until


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many transient failures in a row: 2 s, doubling, at most ten minutes; an hour from the twelfth on."""
    return timedelta(seconds=min(2.0 * 2 ** (attempts - 1), 600)) if attempts < 12 else timedelta(hours=1)


def long_backoff(attempts: int) -> timedelta:
    """How long to wait after a definitive failure that nobody asks about again: an hour, doubling, at most a day."""
    return timedelta(hours=min(2 ** (attempts - 1), 24) if attempts < 6 else 24)


class Agenda:
    """Names of objects with when they are due; gives out one at a time."""

    def __init__(self) -> None:
        self._current: dict[str, Due] = {}
        self._later: list[tuple[datetime, int, str, Due]] = []
        self._now: list[tuple[int, datetime, int, str, Due]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._current)

    def put(self, name: str, when: Due | None) -> None:
        """Replaces what is known about an object."""
        if when is None:
            self._current.pop(name, None)
            return
        self._current[name] = when
        heapq.heappush(self._later, (when.at, next(self._order), name, when))

    def take(self, now: datetime, *, may: Callable[[str], bool] = lambda _name: True) -> str | None:
        """Returns what to do next, and forgets it; None where nothing is due that may be done now."""
        while self._later and self._later[0][0] <= now:
            _, order, name, when = heapq.heappop(self._later)
            if self._current.get(name) is when:
                heapq.heappush(self._now, (when.rank, when.since, order, name, when))
        aside: list[tuple[int, datetime, int, str, Due]] = []
        found = None
        while self._now and found is None:
            item = heapq.heappop(self._now)
            *_, name, when = item
            if self._current.get(name) is not when:
                continue
            if may(name):
                del self._current[name]
                found = name
            else:
                aside.append(item)
        for item in aside:
            heapq.heappush(self._now, item)
        return found

    def next_at(self) -> datetime | None:
        """When the next one that is not due yet will be."""
        while self._later and self._current.get(self._later[0][2]) is not self._later[0][3]:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

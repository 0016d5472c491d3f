"""What is to be done, when, and what first. Pure: the time is an argument.

The state of an object says when it is next due; nothing is remembered between processes but that state. Four ranks: what a pod is held
for, what a template will need, what is only being renewed, and what nobody has asked about for an hour (its pod is gone). Within a rank
the namespace with the least running comes first (of several, the one that had no turn for longest), then the registry likewise, then who
waits longest: one namespace with a thousand images does not stand before another with one.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from mlwarden.evidence.store import EvidenceStatus, ImageEvidence, Purpose
from mlwarden.model.evidence import Phase
from mlwarden.scanner.candidates import order, registry, untried

AGAIN_RESOLUTION = timedelta(seconds=2)
AGAIN_SIGNATURES = timedelta(seconds=5)
AGAIN_SCAN = timedelta(seconds=30)
"""Asking again sooner than that after an answer waits until then."""
INTEREST = timedelta(hours=1)
"""Who still waits asks again more often than that (`evidence.requests`)."""
SKEW = timedelta(minutes=5)
"""How far another scanner's clock may be ahead of ours."""
LONGEST_TRANSIENT, LONGEST = timedelta(hours=1), timedelta(days=1)
"""What is waited at most after a transient and after a definitive failure."""
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Rank(IntEnum):
    """How urgent: the lower first."""

    HELD = 0
    TEMPLATE = 1
    RENEWAL = 2
    FORGOTTEN = 3


class Due(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """When an object is due, and how urgent it is then.

    Attributes:
        at: not before that.
        rank: the lower first.
        since: since when it waits; who was tried, since then.
        until: from then on nobody waits for it any more; None for never.
        namespaces: on whose behalf; it has its turn as soon as it is that of one of them.
        host: the registry that will be tried first.
        attempts: failures in a row.
    """

    at: datetime
    rank: Rank
    since: datetime
    until: datetime | None = None
    namespaces: tuple[str, ...] = ("",)
    host: str = ""
    attempts: int = 0


_RANKS = {Purpose.POD: Rank.HELD, Purpose.TEMPLATE: Rank.TEMPLATE, Purpose.RENEWAL: Rank.RENEWAL}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What decides when something is due.

    Attributes:
        identity: this scanner's, as in `claimedBy`.
        started: when this process started.
        lease: how long a claim holds.
        max_age: a scan older than this is made again; zero for never.
        second_looks: of all answers, how many are made again by somebody else: from 0 to 1.
    """

    identity: str
    started: datetime
    lease: timedelta
    max_age: timedelta
    second_looks: float = 0.0


def due(
    evidence: ImageEvidence, terms: Terms, demanded: Mapping[str, str] = MappingProxyType({}), *, now: datetime | None = None
) -> Due | None:
    """Returns when there is work to do for an object, None for never (unless it changes).

    Dates that no scanner would write (a claim until next year, an answer of tomorrow) put nothing off for longer than honest ones do:
    whoever has a scanner's token could stop all others with them.

    Args:
        evidence: the object.
        terms: of this scanner.
        demanded: what policies want proven about it, where it is about signatures: demand → the key it is now to be proven with, `""`
            where that does not change.
        now: the time; None: every date is believed.
    """
    evidence = _believed(evidence, terms, now) if now is not None else evidence
    status, asked = evidence.status, evidence.spec.requested_at
    free = _free(status, terms)
    later = free if untried(evidence) else max(free, status.retry_at or _EVER)
    if status.phase is Phase.PENDING or status.at is None:
        since = evidence.metadata.creation_timestamp or asked or _EVER
        # Who has been tried waits behind who has not: a registry that hangs must not be tried for ever before everybody else.
        return _wanted(evidence, at=later, since=max(since, status.retry_at or _EVER))
    if untried(evidence):  # also where it was named in the same moment as one that was answered
        return _wanted(evidence, at=free, since=asked or status.at)
    if evidence.is_asked and asked is not None:
        # A definitive failure is asked about again at once: somebody may have pushed the image. A rate limit is not.
        return _wanted(evidence, at=max(free if status.phase is Phase.FAILED else later, status.at + _again(evidence)), since=asked)
    if status.phase is Phase.FAILED:
        return renewal(evidence, later) if status.retry_at else None
    made_with = {proof.demand: proof.material for proof in status.proofs}
    if any(name not in made_with or (key and key != made_with[name]) for name, key in demanded.items()):
        return renewal(evidence, later)
    if status.scan is not None and status.scan.manifests and not status.scan.platforms and status.at < terms.started:
        return renewal(evidence, later)  # by a version that did not write down what it left out
    if evidence.is_resolution or not terms.max_age:
        return None
    return renewal(evidence, max(later, status.at + terms.max_age))


def _believed(evidence: ImageEvidence, terms: Terms, now: datetime) -> ImageEvidence:
    """The object, its dates no later than another scanner's clock and ours may make them."""
    status, ahead = evidence.status, now + SKEW
    latest = {
        "at": ahead,
        "claimed_until": ahead + terms.lease,
        "retry_at": ahead + (LONGEST_TRANSIENT if status.phase is Phase.PENDING else LONGEST),
    }
    late = {name: most for name, most in latest.items() if (at := getattr(status, name)) is not None and at > most}
    return msgspec.structs.replace(evidence, status=msgspec.structs.replace(status, **late)) if late else evidence


def _wanted(evidence: ImageEvidence, *, at: datetime, since: datetime) -> Due:
    """Somebody waits for it, or did."""
    spec = evidence.spec
    return Due(
        at=at,
        rank=_RANKS[spec.purpose],
        since=since,
        until=evidence.asked_last + INTEREST,
        namespaces=spec.namespaces or ("",),
        host=registry(order(evidence)[0]),
        attempts=evidence.status.attempts,
    )


def renewal(evidence: ImageEvidence, at: datetime) -> Due:
    """Returns when it is due where nobody waits for it. Renewals are on nobody's behalf: they are fair among registries."""
    host, since = registry(order(evidence)[0]), evidence.status.at or _EVER
    return Due(at=at, rank=Rank.RENEWAL, since=since, host=host, attempts=evidence.status.attempts)


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
    return timedelta(seconds=min(2.0 * 2 ** (attempts - 1), 600)) if attempts < 12 else LONGEST_TRANSIENT


def long_backoff(attempts: int) -> timedelta:
    """How long to wait after a definitive failure that nobody asks about again: an hour, doubling, at most a day."""
    return min(timedelta(hours=2 ** (min(attempts, 6) - 1)), LONGEST)


_Turns = Callable[[str, str], tuple[int, ...]]


class _Queue(NamedTuple):
    rank: Rank
    namespace: str
    host: str
    tried: bool


class _Item(NamedTuple):
    since: datetime
    number: int
    name: str
    when: Due


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and on whose behalf."""

    name: str
    when: Due
    rank: Rank
    namespace: str


class Agenda:
    """Names of objects with when they are due; gives out one at a time.

    Due ones stand in one queue per rank, namespace, registry, and whether they were tried before; one on behalf of several namespaces
    stands in several. The namespace with the least running is found by looking at the head of each.
    """

    def __init__(self) -> None:
        self._current: dict[str, Due] = {}
        self._later: list[tuple[datetime, int, str, Due]] = []
        self._queues: dict[_Queue, list[_Item]] = {}
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

    def take(
        self,
        now: datetime,
        *,
        may: Callable[[Rank, str, str], bool] = lambda _rank, _namespace, _host: True,
        turn: _Turns = lambda _namespace, _host: (0, 0),
    ) -> Turn | None:
        """Returns what to do next, and forgets it; None where nothing is due that may be done now.

        Args:
            now: the time.
            may: whether one of a rank, namespace and registry may be done now.
            turn: the least comes first (`Pools.turn`).
        """
        found = self._first(now, lambda queue: may(queue.rank, queue.namespace, queue.host), turn)
        if found is not None:
            del self._current[found.name]
        return found

    def waiting(self, now: datetime, *, turn: _Turns = lambda _namespace, _host: (0, 0)) -> Turn | None:
        """Returns the first that somebody waits for, that is due and was never tried; it stays."""
        return self._first(now, lambda queue: queue.rank <= Rank.TEMPLATE and not queue.tried, turn)

    def next_at(self) -> datetime | None:
        """When the next one that is not due yet will be."""
        while self._later and self._current.get(self._later[0][2]) is not self._later[0][3]:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def _first(self, now: datetime, wanted: Callable[[_Queue], bool], turn: _Turns) -> Turn | None:
        while self._later and self._later[0][0] <= now:
            _, number, name, when = heapq.heappop(self._later)
            if self._current.get(name) is when:
                for namespace in when.namespaces:
                    self._push(_Queue(_rank(when, now), namespace, when.host, bool(when.attempts)), _Item(when.since, number, name, when))
        best: tuple[tuple[object, ...], Turn] | None = None
        for queue in list(self._queues):
            item = self._head(queue, now)
            if item is None or not wanted(queue):
                continue
            key = (queue.rank, *turn(queue.namespace, queue.host), item.since, item.number)
            if best is None or key < best[0]:
                best = (key, Turn(name=item.name, when=item.when, rank=queue.rank, namespace=queue.namespace))
        return best[1] if best else None

    def _push(self, queue: _Queue, item: _Item) -> None:
        heapq.heappush(self._queues.setdefault(queue, []), item)

    def _head(self, queue: _Queue, now: datetime) -> _Item | None:
        """The first of a queue that still is what it was; those that nobody waits for any more go to the queue below."""
        items = self._queues[queue]
        while items:
            item = items[0]
            if self._current.get(item.name) is not item.when:
                heapq.heappop(items)
            elif (rank := _rank(item.when, now)) is not queue.rank:
                self._push(queue._replace(rank=rank), heapq.heappop(items))
            else:
                return item
        del self._queues[queue]
        return None


def _rank(when: Due, now: datetime) -> Rank:
    return Rank.FORGOTTEN if when.until is not None and when.until <= now else when.rank

"""Who may run at the same time, and who has to go when others wait. Pure: the time is an argument.

A slow image (8 GB, or a registry that sends a byte a second) must not stop small ones, whoever asks for it and however many there are:

- What has run for longer than a minute is *slow*. It no longer counts as one of the `fast` slots, as long as there is room in `total`.
- The room beyond `fast` is also for *guests*: whose namespace and registry have nothing running starts at once, while somebody else has
  all fast slots.
- When there is no room at all and somebody waits who was never tried, a slow one is displaced: one whose namespace, or else whose
  registry, runs more than the waiting one's. It is tried again, each time for twice as long before it can be displaced.

So a namespace that has nothing running waits for a minute at most, whatever the others do.

What is claimed before a slot is free for it counts for its namespace and registry like what runs, and has no slot. Whoever comes before
everything that is claimed may be claimed, too, and has its slot first: what was claimed ahead never stands before a held pod.

A slot reserved for each registry was rejected (there can be hundreds of them, and one registry alone would never get all slots), and so
was killing slow scans at a fixed time (a large image would never be scanned).
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable, Container
from datetime import datetime, timedelta

import msgspec

SLOW = timedelta(seconds=60)
_REMEMBERED = 10_000
_DOUBLINGS = 4
"""A scan that was displaced four times runs for sixteen minutes before it may be displaced again: longer than most may take at all."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """One that runs, or is claimed.

    Attributes:
        began: when; of one that is claimed, since when it is.
        rank: how urgent it was; lower is more.
        namespace: on whose behalf, empty where nobody knows.
        host: the registry that is tried first.
        attempts: failures in a row before this try.
    """

    began: datetime
    rank: int
    namespace: str
    host: str
    attempts: int = 0

    def slow_at(self) -> datetime:
        """From then on it has no fast slot."""
        return self.began + SLOW

    def displaced_at(self) -> datetime:
        """From then on it may have to make room."""
        return self.began + SLOW * (1 << min(self.attempts, _DOUBLINGS))


class Pools:
    """What runs in one lane.

    Args:
        fast: how many that are not slow.
        total: how many altogether.
    """

    def __init__(self, *, fast: int, total: int) -> None:
        self._fast, self._total = fast, max(fast, total)
        self._limit = self._total
        self._running: dict[str, Running] = {}
        self._claimed: dict[str, Running] = {}
        self._before: dict[str, tuple[int, int]] = {}  # what is claimed → when its namespace and its registry had their turn before
        self._leaving: set[str] = set()
        self._starts = itertools.count(1)
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()  # kind and name → number of its last start

    def __contains__(self, name: str) -> bool:
        return name in self._running or name in self._claimed

    def __len__(self) -> int:
        return len(self._running)

    def limit(self, most: int) -> None:
        """Never more than so many from now on; 0 for as many as were asked for."""
        self._limit = min(self._total, most) if most > 0 else self._total

    def claim(self, name: str, claimed: Running) -> None:
        """It had its turn, and waits for its slot."""
        _, of_namespace, _, of_host = self.turn(claimed.namespace, claimed.host)
        self._claimed[name], self._before[name] = claimed, (of_namespace, of_host)
        number = next(self._starts)
        for key in (("namespace", claimed.namespace), ("host", claimed.host)):
            self._last[key] = number
            self._last.move_to_end(key)
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)

    def start(self, name: str, now: datetime) -> None:
        """One that is claimed runs."""
        self._running[name] = msgspec.structs.replace(self._claimed.pop(name), began=now)
        self._before.pop(name, None)

    def end(self, name: str) -> None:
        """It neither runs nor waits for its slot any more."""
        self._running.pop(name, None)
        self._claimed.pop(name, None)
        self._before.pop(name, None)
        self._leaving.discard(name)

    def load(self, namespace: str, host: str) -> tuple[int, int]:
        """How many run or are claimed for this namespace and from this registry."""
        running = [*self._running.values(), *self._claimed.values()]
        return sum(each.namespace == namespace for each in running), sum(each.host == host for each in running)

    def turn(self, namespace: str, host: str) -> tuple[int, int, int, int]:
        """The lower, the sooner it is its turn: who has least running, of those who had none for longest; registries likewise."""
        of_namespace, of_host = self.load(namespace, host)
        return of_namespace, self._last.get(("namespace", namespace), 0), of_host, self._last.get(("host", host), 0)

    def may(self, namespace: str, host: str, now: datetime) -> bool:
        """Whether there is a slot for one more, beside what is claimed."""
        if len(self) + len(self._claimed) >= self._limit:
            return False
        return self._busy(now) + len(self._claimed) < self._fast or self.load(namespace, host) == (0, 0)

    def may_claim(self, now: datetime, *, ahead: int = 0) -> Callable[[int, str, str], bool]:
        """Returns whether one more of a rank, namespace and registry may be claimed now.

        Args:
            now: the time.
            ahead: how many for which there is no slot yet; and whoever comes before all of them.
        """

        def may(rank: int, namespace: str, host: str) -> bool:
            if self.may(namespace, host, now):
                return True
            if not ahead or len(self._claimed) >= self._total:
                return False
            if self._busy(now) + len(self._claimed) < self._fast + ahead:
                return True
            return all((rank, *self.turn(namespace, host)) < self._place(name) for name in self._claimed)

        return may

    def first(self, ready: Container[str], now: datetime) -> str | None:
        """Which of those that are claimed, and ready, has the next slot; None where there is no slot."""
        if len(self) >= self._limit:
            return None
        free, running = self._busy(now) < self._fast, self._running.values()
        may = [
            name
            for name, each in self._claimed.items()
            if name in ready and (free or not any(each.namespace == other.namespace or each.host == other.host for other in running))
        ]
        return min(may, key=self._place, default=None)

    def _busy(self, now: datetime) -> int:
        """How many fast slots are taken."""
        return sum(now < each.slow_at() for each in self._running.values())

    def _place(self, name: str) -> tuple[int, ...]:
        """The lower, the sooner one that is claimed has a slot: its rank and its `turn`, as if it were not claimed."""
        claimed, before = self._claimed[name], self._before[name]
        of_namespace, of_host = self.load(claimed.namespace, claimed.host)
        return claimed.rank, of_namespace - 1, before[0], of_host - 1, before[1]

    def displace(self, namespace: str, host: str, now: datetime) -> str | None:
        """Who has to make room for one that may not start and was never tried; None where nobody has to. One at a time."""
        if self._leaving:
            return None
        load = self.load(namespace, host)
        found = [
            (each.rank, self.load(each.namespace, each.host), now - each.displaced_at(), name)
            for name, each in self._running.items()
            if each.displaced_at() <= now and self.load(each.namespace, each.host) > load
        ]
        if not found:
            return None
        name = max(found)[-1]
        self._leaving.add(name)
        return name

    def next_change(self, now: datetime) -> datetime | None:
        """When time alone will next change an answer of this."""
        moments = [moment for each in self._running.values() for moment in (each.slow_at(), each.displaced_at()) if moment > now]
        return min(moments, default=None)

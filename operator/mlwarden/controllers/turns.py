"""Whose turn it is: start-time fair queueing, by which what waits of one lane (a namespace) delays what waits of another by one item each.

Every item has a round: one more than the last of its lane, and none that has passed already. Who takes the lowest round first serves all
lanes alike, whatever one of them has waiting; and within a lane it is first come, first served.

Rejected: a queue per lane and a list of lanes (a lane that empties and fills again comes twice, or never).
"""

from collections import Counter
from collections.abc import Hashable
from typing import Generic, TypeVar

L = TypeVar("L", bound=Hashable)


class Turns(Generic[L]):
    """Gives out rounds, and knows how many items each lane has."""

    def __init__(self) -> None:
        self._round = 0
        self._last: dict[L, int] = {}
        self._many = Counter[L]()
        self._all = 0

    def many(self, lane: L) -> int:
        """How many items of a lane there are."""
        return self._many[lane]

    def total(self) -> int:
        """How many items there are."""
        return self._all

    def enter(self, lane: L) -> None:
        """One item more."""
        self._many[lane] += 1
        self._all += 1

    def leave(self, lane: L) -> None:
        """One item less; a lane without any is forgotten."""
        self._many[lane] -= 1
        self._all -= 1
        if self._many[lane] <= 0:
            del self._many[lane]
            self._last.pop(lane, None)

    def next(self, lane: L) -> int:
        """Returns the round of a lane's next item."""
        found = self._last[lane] = max(self._round, self._last.get(lane, -1) + 1)
        return found

    def began(self, number: int) -> None:
        """An item of that round is taken."""
        self._round = max(self._round, number)

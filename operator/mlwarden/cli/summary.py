"""The summary of `mlwarden check`: by policy, then by object, one line each.

Made while objects go by: there may be more of them than memory holds. Rejected: every finding at once, which for a repository is a thousand
lines in front of the one number that somebody looks for.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from mlwarden.checks.text import clean
from mlwarden.cli import repair
from mlwarden.cli.judging import Judged
from mlwarden.cli.spill import Spill
from mlwarden.model.finding import Decision, Finding
from mlwarden.workloads import Standing

OBJECTS = 100
"""Lines of objects; the others are counted."""
_MESSAGE = 100
_ACTIONS = {"Deny": "denied", "Hold": "held", "Warn": "warned"}


class State(StrEnum):
    """What came of an object about which there is something to say, the worst first."""

    DENIED = "denied"
    HELD = "held"
    WARNED = "warned"
    UNKNOWN = "unknown"
    NOTED = "noted"


class Line(NamedTuple):
    """A line and what it is about, for its colour; None for a heading."""

    state: State | None
    text: str


class Summary:
    """What is counted while objects go by.

    Args:
        everything: name every object, however many there are.
    """

    def __init__(self, *, everything: bool) -> None:
        self._limit = None if everything else OBJECTS
        self._policies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._objects: dict[State, Spill[str]] = {state: Spill() for state in State}
        self._counts: Counter[State] = Counter()
        self._first: Judged | None = None
        self.edits = 0

    def add(self, item: Judged) -> None:
        """Counts one object."""
        found = item.told
        state = _state(item, found)
        if state is None:
            return
        self._first = self._first or item
        self._counts[state] += 1
        if self._limit is None or self._counts[state] <= self._limit:
            self._objects[state].append(_line(item, state, found))
        # a policy counts an object once, as the worst that it says of it
        for name, said in _worst(found).items():
            self._policies[name]["Noted" if state is State.NOTED else said] += 1
        if state is State.DENIED and item.verdict and not repair.reason(item.origin):
            self.edits += len(item.verdict.edits)

    @property
    def told(self) -> int:
        """How many objects there is something to say about."""
        return self._counts.total()

    @property
    def only(self) -> Judged | None:
        """The object that there is something to say about, where it is the only one."""
        return self._first if self.told == 1 else None

    def lines(self) -> Iterator[Line]:
        """Yields the lines; none where there is nothing to tell."""
        if not self._counts:
            return
        if self._policies:
            yield Line(None, "by policy:")
        for name, counts in sorted(self._policies.items(), key=lambda item: ([-item[1][action] for action in _ACTIONS], item[0])):
            said = ", ".join(f"{counts[action]} {word}" for action, word in {**_ACTIONS, "Noted": "noted"}.items() if counts[action])
            yield Line(next((State(_ACTIONS[action]) for action in _ACTIONS if counts[action]), State.NOTED), f"  {clean(name)}: {said}")
        yield Line(None, "by object:")
        shown = 0
        for state, lines in self._objects.items():
            for line in lines:
                if shown == self._limit:
                    break
                shown += 1
                yield Line(state, line)
        if shown < self._counts.total():
            yield Line(None, f"  and {self._counts.total() - shown} more: --verbose shows all of them")

    def close(self) -> None:
        """Gives the room back."""
        for spill in self._objects.values():
            spill.close()


def _state(item: Judged, found: list[Finding]) -> State | None:
    if item.standing is Standing.UNKNOWN and not found:
        return State.UNKNOWN
    if not found:
        return None
    if item.decision is None:
        return State.NOTED
    return {Decision.DENY: State.DENIED, Decision.HOLD: State.HELD, Decision.ADMIT: State.WARNED}[item.decision]


def _line(item: Judged, state: State, found: list[Finding]) -> str:
    said = "its kind is not understood"
    if found:
        others = len(_worst(found)) - 1
        more = f" and {others} more {'policy' if others == 1 else 'policies'}" if others else ""
        said = f"{clean(found[0].policy)}: {clean(found[0].message, _MESSAGE)}{more}"
    pods = "its pods: " if item.standing in {Standing.PODS, Standing.CLUSTER} else ""
    return f"  {state.value:7}  {place(item)}: {clean(str(item.resource), 400)}: {pods}{said}"


def _worst(found: list[Finding]) -> dict[str, str]:
    """What each policy says at worst, in the order of the findings, which is the worst first."""
    return {each.policy: each.action for each in reversed(found)}


def place(item: Judged) -> str:
    """Returns where an object is, as an editor or a person finds it: of something rendered there is no line to go to."""
    origin = item.origin
    return clean(origin.label if origin.rendered or not origin.line else f"{origin.file}:{origin.line}", 400)

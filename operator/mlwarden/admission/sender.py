"""Who sends a review. A port that every pod reaches is not the API server's alone, and what anybody can send must have no effect.

A client certificate (`webhook.clientCA`) says that the API server speaks, for everything; a token of KEP-6060 (`tokens`) says so for some
API groups. Whoever has neither gets an answer and nothing else comes of it: no Event, nothing about an image, and no evidence beyond the
few requests that `Scarce` lets through for what is never stored, `kubectl debug`, where nobody else could ask.
"""

from collections import OrderedDict

import msgspec

PER_MINUTE = 10
"""References of one namespace about which evidence is asked for in a minute, by one replica."""
_MINUTE = 60.0
_NAMESPACES = 10_000


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends a review.

    Attributes:
        groups: API groups of whose objects it may speak; `*` is all of them.
    """

    groups: frozenset[str] = frozenset()

    def speaks_for(self, group: str) -> bool:
        """Whether it is the API server, speaking of an object of this API group."""
        return "*" in self.groups or group in self.groups


ANYBODY = Sender()
API_SERVER = Sender(groups=frozenset({"*"}))


class Scarce:
    """What may be asked for on behalf of anybody: few references for each namespace and minute. The same one again is no other."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, tuple[float, set[str]]] = OrderedDict()

    def let(self, namespace: str, wanted: tuple[str, ...], now: float) -> tuple[str, ...]:
        """Returns those that may be asked for; `now` in seconds of any clock that goes forward."""
        began, asked = self._asked.pop(namespace, (now, set[str]()))
        if now - began >= _MINUTE:
            began, asked = now, set()
        allowed = []
        for each in wanted:
            if each in asked or len(asked) < PER_MINUTE:
                asked.add(each)
                allowed.append(each)
        self._asked[namespace] = began, asked
        if len(self._asked) > _NAMESPACES:
            self._asked.popitem(last=False)
        return tuple(allowed)

"""How long an object is left alone after a try that came to nothing. Pure: the time is an argument.

What is due is taken as soon as there is a slot. A try that changes nothing leaves it due, so without a pause it would be tried again at
once, and for ever: a claim that is answered 409 while the watch is behind, an answer that the API server does not take, a defect of ours.
A pause inside the try was rejected: it would keep a slot from others, and its length would know nothing of the tries before.
"""

from collections import OrderedDict
from datetime import UTC, datetime, timedelta

import msgspec

_FIRST, _LONGEST = timedelta(seconds=0.5), timedelta(seconds=60)
_DOUBLINGS = 7
_REMEMBERED = 10_000
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class _Setback(msgspec.Struct, frozen=True):
    version: str
    tries: int
    until: datetime


class Setbacks:
    """By the names of objects."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Setback] = OrderedDict()

    def note(self, name: str, now: datetime, *, version: str = "") -> None:
        """A try came to nothing: half a second, doubling with each in a row, at most a minute.

        Args:
            name: of the object.
            now: the time.
            version: its resourceVersion, where only that one is left alone: whoever changed it has said something new.
        """
        last = self._known.pop(name, None)
        tries = last.tries + 1 if last is not None and version in {"", last.version} else 1
        pause = min(_FIRST * (1 << min(tries - 1, _DOUBLINGS)), _LONGEST)
        self._known[name] = _Setback(version, tries, now + pause)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def over(self, name: str) -> None:
        """A try came to something."""
        self._known.pop(name, None)

    def until(self, name: str, version: str) -> datetime:
        """From when on it may be tried again, as it is now."""
        last = self._known.get(name)
        return last.until if last is not None and last.version in {"", version} else _EVER

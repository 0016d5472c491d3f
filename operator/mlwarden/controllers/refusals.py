"""A release that the API server refuses is an answer with a reason, and not tried again at once and for ever.

Somebody else's admission judges the request that takes the gate off: OpenShift's SCC admission, a webhook of another product, a quota. What
it says is what the person must read, who sees a pod that mlwarden found good and that does not start. It is tried again when the pod
changes, and otherwise after 5 s, 20 s, 80 s and so on up to every ten minutes: somebody may put it right elsewhere.
"""

from datetime import datetime, timedelta

import msgspec

from mlwarden.checks.text import clean
from mlwarden.cluster.informer import Key
from mlwarden.model.workload import Json

_FIRST, _FACTOR, _LONGEST = 5.0, 4.0, 600.0
_LENGTH = 500


class _Refusal(msgspec.Struct, frozen=True):
    """Of which state of a pod, how often, and until when it stands."""

    state: tuple[str, str]
    count: int
    until: datetime


class Refusals:
    """The releases that were refused."""

    def __init__(self) -> None:
        self._known: dict[Key, _Refusal] = {}

    def note(self, key: Key, pod: Json, now: datetime) -> float:
        """Remembers that the release of `pod` was refused; returns the seconds after which to try again."""
        known, state = self._known.get(key), _state(pod)
        count = known.count + 1 if known is not None and known.state == state else 0
        seconds = min(_FIRST * _FACTOR**count, _LONGEST)
        self._known[key] = _Refusal(state, min(count, 10), now + timedelta(seconds=seconds))
        return seconds

    def left(self, key: Key, pod: Json, now: datetime) -> float:
        """Returns for how many seconds more the release of this very pod is not tried; 0 where it may be."""
        known = self._known.get(key)
        if known is None or known.state != _state(pod):
            return 0.0
        return max((known.until - now).total_seconds(), 0.0)

    def forget(self, key: Key) -> None:
        """The pod was released, or is gone."""
        self._known.pop(key, None)


def refused(message: str) -> str:
    """Returns what is said of a pod whose release was refused: `message` is the API server's answer."""
    said = clean(message.partition(": ")[2] or message, _LENGTH)
    hint = ""
    if "security context constraint" in said:
        hint = (
            "; fix: OpenShift judges the release as mlwarden's account: let it use the constraint that the pod was admitted by"
            " (oc adm policy add-scc-to-user), see docs/held-elsewhere.md"
        )
    return f"Not released: mlwarden found it good, and the API server refuses the release: {said}{hint}"


def _state(pod: Json) -> tuple[str, str]:
    """What of a pod a refusal is about: its spec, which a status that somebody writes does not change."""
    metadata = pod["metadata"]
    return metadata["uid"], str(metadata.get("generation") or metadata["resourceVersion"])

"""Who wrote which answer, and whether it was us.

Each answer carries the name of the pod that wrote it. The API server sees to it that no token writes another pod's name
(`controllers.guards`), so an answer in our name that we did not write was written with our token by somebody else. That is noticed at once
and for certain, where a second look finds it by chance: we remember what we wrote.

Rejected: a signature by a key of the process (whoever has the token may well have the key, and who verifies would need to know it).
"""

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Iterator

import msgspec

from mlwarden.evidence.store import EvidenceStatus, ImageEvidence

_LAST = 32
"""Answers about one object that are remembered: a write whose outcome is not known is tried again, and each repository has an answer."""
_ENCODER = msgspec.json.Encoder(order="deterministic")


def answer(name: str, status: EvidenceStatus) -> bytes:
    """Returns what tells an answer about an object from every other: all that judges go by.

    Of a tag that is the time, too. Elsewhere time alone is no answer: who could not reach a registry has not said again what others said.
    """
    places = [(place.reference, place.answered) for place in status.places if place.answered]
    said = [status.phase, status.digest, status.scan, status.proofs, places, status.at if name.startswith("tag-") else None]
    return hashlib.sha256(_ENCODER.encode(said)).digest()[:16]


class Writer:
    """Writes our name, and remembers what it stands under.

    Args:
        identity: the name of this pod.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._written: dict[str, deque[bytes]] = {}
        self._writing = Counter[str]()

    @contextlib.contextmanager
    def writing(self, seen: ImageEvidence, status: EvidenceStatus) -> Iterator[EvidenceStatus]:
        """The body writes what this yields: the same status, or, where it is another answer than was seen, one with our name in it."""
        name = seen.metadata.name
        if answer(name, status) == answer(name, seen.status):
            yield status
            return
        look = status.second_look if status.second_look is not seen.status.second_look else None  # one about the answer before is over
        status = msgspec.structs.replace(status, answered_by=self.identity, second_look=look)
        self._remember(name, status)
        self._writing[name] += 1
        try:
            yield status
        finally:
            self._writing[name] -= 1
            if not self._writing[name]:
                del self._writing[name]

    def adopt(self, stored: ImageEvidence) -> None:
        """Takes an answer for ours: it was there when we started (our container may have been started again), or came back from a write."""
        if stored.status.answered_by == self.identity:
            self._remember(stored.metadata.name, stored.status)

    def forget(self, name: str) -> None:
        """The object is gone."""
        self._written.pop(name, None)

    def disowns(self, stored: ImageEvidence) -> bool:
        """Whether an answer stands under our name that we did not write. Nothing is said of it while we write another one there."""
        name = stored.metadata.name
        if stored.status.answered_by != self.identity or name in self._writing:
            return False
        return answer(name, stored.status) not in self._written.get(name, ())

    def _remember(self, name: str, status: EvidenceStatus) -> None:
        known = self._written.setdefault(name, deque(maxlen=_LAST))
        if (said := answer(name, status)) not in known:
            known.append(said)

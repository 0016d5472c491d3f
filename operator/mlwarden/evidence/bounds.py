"""How many requests for evidence may wait for an answer in the name of one namespace.

Whoever may create pods makes requests for evidence, and each of them is an object that every process holds. So each namespace has a
number of its own (`scanner.perNamespace`): what one of them asks for is never in the way of another's. Beyond it the oldest request that
no held pod waits for makes room for the new one; where held pods wait for all of them, the next pod waits without one, and says so.

Counted is what has no answer, or was asked about again after a failure. What has one is in no queue; `controllers.forget` bounds that.

Rejected: a count that is asked of the API server before each request (a list of everything, for every pod), one number for the cluster (the
tenant who fills it stops all others), and ResourceQuota (evidence has no namespace).
"""

import itertools
from collections.abc import Callable, Iterator, Mapping

from mlwarden.errors import EvidenceError
from mlwarden.evidence.store import ImageEvidence, Purpose, read
from mlwarden.model.evidence import Phase
from mlwarden.model.workload import Json

NEW = 20
"""Requests in the name of a namespace that nobody has seen yet."""
Waits = Callable[[ImageEvidence], bool]
"""Whether a held pod waits for what is asked there."""


class Unanswered:
    """The requests without an answer, by namespace. Kept current by whoever watches evidence.

    Args:
        most: how many there may be for each namespace.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._requests: dict[str, ImageEvidence] = {}
        self._namespaces: dict[str, set[str]] = {}
        self._numbers: dict[str, int] = {}
        self._count = itertools.count()
        self._strangers: dict[str, str] = {}

    def changed(self, name: str, obj: Mapping[str, Json] | ImageEvidence | None) -> None:
        """Takes in an object as it is now, None where it is gone."""
        before = self._requests.pop(name, None)
        for namespace in before.spec.namespaces if before is not None else ():
            of = self._namespaces[namespace]
            of.discard(name)
            if not of:
                del self._namespaces[namespace]
        self._strangers.pop(name, None)
        try:
            now = _unanswered(obj)
        except EvidenceError:
            now = None
            self._strangers |= _version(name, obj)
        if now is None:
            self._numbers.pop(name, None)
        else:
            self._numbers.setdefault(name, next(self._count))
            self._requests[name] = now
            for namespace in now.spec.namespaces:
                self._namespaces.setdefault(namespace, set()).add(name)

    def __len__(self) -> int:
        return len(self._requests)

    def knows(self, name: str) -> bool:
        """Whether this is a request that waits for its answer."""
        return name in self._requests

    def count(self, namespace: str) -> int:
        """How many wait in the name of a namespace."""
        return len(self._namespaces.get(namespace, ()))

    def is_full(self, namespace: str) -> bool:
        """Whether a namespace has as many as it may."""
        return bool(namespace) and self.count(namespace) >= self.most

    def makes_room(self, namespace: str, waits: Waits) -> ImageEvidence | None:
        """Returns the oldest request of this namespace alone that no held pod waits for, one that no scanner is at where there is any."""
        own = (self._requests[name] for name in self._namespaces.get(namespace, ()))
        free = (each for each in own if _is_own(each, namespace) and not waits(each))
        return min(free, key=lambda each: (bool(each.status.claimed_by), self._age(each)), default=None)

    def surplus(self, slack: int, exists: Callable[[str], bool]) -> Iterator[ImageEvidence]:
        """Yields what is there beyond `most` and `slack` for a namespace, the newest first: what came last pushes nothing out.

        Args:
            slack: how many more than `most`.
            exists: whether a namespace is known. One that is not may have been made a moment ago, and has no more than `NEW`.
        """
        for namespace, names in list(self._namespaces.items()):
            beyond = len(names) - (self.most + slack if exists(namespace) else NEW)
            if beyond > 0:
                every = sorted((self._requests[name] for name in names), key=self._age, reverse=True)
                yield from [each for each in every if _is_own(each, namespace)][:beyond]

    def strangers(self) -> list[tuple[str, str]]:
        """Returns names and versions of what is not about what its name says, the newest first, beyond `NEW` that are left for a person.

        Nobody who asks makes those, they count for no namespace, and no scanner answers them.
        """
        return list(self._strangers.items())[NEW:][::-1]

    def _age(self, request: ImageEvidence) -> tuple[bool, float, int]:
        """The lower, the older. Creation has whole seconds; within one it is who was seen first."""
        created = request.metadata.creation_timestamp
        return created is None, created.timestamp() if created else 0.0, self._numbers[request.metadata.name]

    def said(self, namespace: str) -> str:
        """Why a pod of this namespace waits without a request of its own."""
        return (
            f"namespace {namespace} has as many requests for evidence without an answer as it may ({self.most}, scanner.perNamespace), and"
            " held pods wait for all of them: what this one needs is asked for when one was answered; fix: delete held pods whose images"
            " cannot be had"
        )


def _is_own(request: ImageEvidence, namespace: str) -> bool:
    """Whether nobody else asked for it, and it is not going already: a finalizer would have it deleted again and again."""
    return request.spec.namespaces == (namespace,) and request.metadata.deletion_timestamp is None


def by_purpose(request: ImageEvidence) -> bool:
    """Whether a pod waits for it, as far as the request says: a process that does not watch held pods takes its word."""
    return request.spec.purpose is Purpose.POD


def _version(name: str, obj: Mapping[str, Json] | ImageEvidence | None) -> dict[str, str]:
    metadata = obj.get("metadata") if isinstance(obj, Mapping) else None
    if not isinstance(metadata, Mapping) or metadata.get("deletionTimestamp"):
        return {}
    return {name: str(metadata.get("resourceVersion") or "")}


def _unanswered(obj: Mapping[str, Json] | ImageEvidence | None) -> ImageEvidence | None:
    """The object, where it waits for an answer. Raises EvidenceError where it is not evidence."""
    if obj is None:
        return None
    if not isinstance(obj, ImageEvidence):
        status = obj.get("status")
        if isinstance(status, Mapping) and status.get("phase") == Phase.READY.value:  # most are, and need not be read for it
            return None
        obj = read(dict(obj))
    return obj if obj.is_asked and obj.status.phase is not Phase.READY else None

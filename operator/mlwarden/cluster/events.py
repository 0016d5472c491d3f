"""Events: how a person who looks at a pod, or at what made it, learns why it waits.

The API server keeps Events for an hour and counts them against its storage: the same thing about the same object is one Event whose count
grows, written again at most every ten minutes. The name is derived from what it says, so a restarted controller finds its own.

Rejected: kopf's events (one per call, no deduplication), events.k8s.io with series (kubectl shows them no better, and the API server has
to convert).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlwarden.model.workload import Json

AGAIN = timedelta(minutes=10)
_REMEMBERED = 20_000
_MESSAGE_BYTES = 1024  # core/v1 validation.go, NoteLengthLimit


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The object an Event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, obj: Json) -> "Subject":
        """Returns the reference to an object as stored."""
        metadata = obj["metadata"]
        return cls(
            api_version=obj.get("apiVersion") or "v1",
            kind=obj.get("kind") or "Pod",  # items of a list do not say it, and only pods are listed here
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata.get("uid", ""),
        )


def event(subject: Subject, *, component: str, reason: str, message: str, warning: bool, now: datetime, about: str = "") -> dict[str, Json]:
    """Returns the core/v1 Event to create.

    Args:
        subject: the object it is about.
        component: who says it.
        reason: one word.
        message: one line.
        warning: somebody should look.
        now: when.
        about: what it tells of, where that may be told in several ways and only the first counts; else the message.
    """
    text = message.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    namespace = subject.namespace or "default"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": _name(subject, reason, about or text), "namespace": namespace},
        "involvedObject": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
        "reason": reason,
        "message": text,
        "type": "Warning" if warning else "Normal",
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": component,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


DEBUG = "DebugContainer"
"""The reason of an Event about an ephemeral container, whoever writes it."""


def debugged(names: Iterable[str]) -> str:
    """Returns what two Events have in common that tell of the same debug containers."""
    return f"added: {' '.join(sorted(names))}"


class Said:
    """What has been said lately, so that it is not said again for every pod of a thousand."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, datetime] = OrderedDict()

    def is_new(self, made: Json, now: datetime) -> bool:
        """Whether this Event should be written now; remembers that it was."""
        key = f"{made['metadata']['namespace']}/{made['metadata']['name']}"
        last = self._said.get(key)
        if last is not None and now - last < AGAIN:
            return False
        self._said[key] = now
        self._said.move_to_end(key)
        while len(self._said) > _REMEMBERED:
            self._said.popitem(last=False)
        return True

    def forget(self, made: Json) -> None:
        """It could not be written."""
        self._said.pop(f"{made['metadata']['namespace']}/{made['metadata']['name']}", None)


def _name(subject: Subject, reason: str, message: str) -> str:
    said = hashlib.sha256(f"{subject.uid}\0{subject.kind}\0{reason}\0{message}".encode()).hexdigest()[:16]
    return f"{subject.name[:200].rstrip('.-')}.{said}"

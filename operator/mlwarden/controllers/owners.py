"""From a pod to what a person made: the Event has to be where they look, which is the Notebook and not `nb-x7f-0`.

An owner reference is a claim of whoever wrote the pod. It is followed only to an object that exists in the same namespace with that very
uid, through owners that are controllers, and not for ever. That there is none is remembered for a while only where the API server said so:
what it refused or did not answer is asked again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlwarden import workloads
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, NotFoundError
from mlwarden.cluster.events import Subject
from mlwarden.cluster.kinds import Kind
from mlwarden.model.workload import Json

_HOPS = 6
_REMEMBERED = 4096
_FRESH = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Root:
    """What was found on the way from a pod to its root.

    Attributes:
        subject: the topmost controller that could be verified, None where the pod has none.
        unread: why the next one could not be read; None where `subject` is the answer.
    """

    subject: Subject | None = None
    unread: ApiError | None = None


class Owners:
    """Finds roots, and remembers them for a while: a thousand pods of one owner are one walk."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, ...], tuple[datetime, Root]] = OrderedDict()

    async def root(self, pod: Json, now: datetime) -> Root:
        """Returns the root of a pod, as far as it can be told now."""
        reference = _readable(controller_of(pod))
        if reference is None:
            return Root()
        # By everything that is claimed: a reference with somebody else's uid must not find what was verified for them.
        claim = (pod["metadata"].get("namespace", ""), *(reference[field] for field in ("apiVersion", "kind", "name", "uid")))
        known = self._known.get(claim)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        root = await self._walk(pod)
        if root.unread is None:
            self._known[claim] = (now, root)
            self._known.move_to_end(claim)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return root

    async def _walk(self, pod: Json) -> Root:
        namespace, found, current = pod["metadata"].get("namespace", ""), None, pod
        for _ in range(_HOPS):
            reference = _readable(controller_of(current))
            if reference is None:
                break
            try:
                owner = await self._read(reference, namespace)
            except ApiError as error:
                return Root(subject=found, unread=error)
            if owner is None:
                break
            current = {**owner, "apiVersion": reference["apiVersion"], "kind": reference["kind"]}
            found = Subject.of(current)
        return Root(subject=found)

    async def _read(self, reference: Json, namespace: str) -> Json | None:
        """The object that a reference names, None where there is none, or another of that name.

        Raises:
            ApiError: whether there is one could not be told.
        """
        plural = workloads.resource_of(reference["kind"], reference["apiVersion"])
        if not plural:
            return None
        group, _, version = reference["apiVersion"].rpartition("/")
        try:
            owner = await self._client.get(Kind(group=group, version=version, plural=plural), reference["name"], namespace=namespace)
        except NotFoundError:
            return None
        return owner if owner.get("metadata", {}).get("uid") == reference["uid"] else None


def controller_of(obj: Json) -> Mapping[str, Any] | None:
    """Returns the owner reference of an object's controller."""
    for reference in obj.get("metadata", {}).get("ownerReferences") or ():
        if isinstance(reference, dict) and reference.get("controller") is True:
            return reference
    return None


def _readable(reference: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The same, None where it does not say what to read."""
    if reference is None:
        return None
    parts = [reference.get(key) for key in ("apiVersion", "kind", "name", "uid")]
    return reference if all(isinstance(part, str) and part for part in parts) else None

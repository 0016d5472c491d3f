"""A local copy of a collection, kept by one list and one watch.

Level-triggered: whoever listens is told which object changed, and looks at what is stored now. A stream that falls silent or ends is taken
up again where it stopped; one that is too old (410) leads to a new list, and what vanished meanwhile is reported as deleted. An object that
cannot be read is named in `unreadable` and delivered as its metadata alone; it is never fatal and never skipped.

Rejected: kopf's indices (quadratic in the number of objects at start), the official client's informer (threads, a second decoder).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mlwarden.cluster import decode
from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, GoneError, UnreachableError
from mlwarden.cluster.kinds import Kind
from mlwarden.cluster.retries import pause

LOG = logging.getLogger(__name__)
Key = tuple[str, str]
"""Namespace and name."""
Change = Callable[[Key, dict[str, Any] | None], None]
"""Called with the object as it is now, or None where it is gone."""
_QUICKEST, _SLOWEST = 0.2, 8.0
"""Seconds between attempts. The slowest is what an outage of the API server lasts longer for us than for others."""
_STEADY = 10.0
"""Seconds after which a watch was a good one, even if nothing happened."""
_NOT_SERVED = 404
_ATTEMPTS = 3
"""How often a watch is taken up where it stopped, before a new list: the server that is back may have another past."""


class Informer:
    """A copy of one collection.

    Args:
        client: of the API server.
        kind: what to copy.
        namespace: one namespace, or all.
        query: labelSelector and fieldSelector.
        keep: what to store of an object; None means it is not wanted (and counts as absent).
        on_change: called for every change, in order, from the event loop; must not block.
        copy: False where `on_change` keeps what is to be kept: then an object is here by its name alone, and takes memory once.
        pulse: seconds after which a watch ends and begins anew. Its last bookmark comes two seconds earlier, so that `age` stays below
            the larger of the two parts as long as the API server answers, however little happens.
        optional: a kind that is not served is a collection without objects, until it is.
        on_synced: called after the first complete list.

    Attributes:
        kind: what it is a copy of.
        synced: set after the first complete list.
        unreadable: the objects that cannot be read, and why.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        *,
        namespace: str = "",
        query: Mapping[str, str] | None = None,
        keep: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda obj: obj,
        on_change: Change = lambda _key, _obj: None,
        copy: bool = True,
        pulse: int = 60,
        optional: bool = False,
        on_synced: Callable[[], None] = lambda: None,
    ) -> None:
        self._client, self.kind, self._namespace, self._query = client, kind, namespace, dict(query or {})
        self._keep, self._on_change, self._copy, self._pulse = keep, on_change, copy, pulse
        self._optional, self._on_synced = optional, on_synced
        self._store: dict[Key, tuple[str, dict[str, Any]]] = {}
        self._version = ""  # to go on from; empty where a list is needed
        self._failures, self._said = 0, ""
        self._heard = time.monotonic()
        self.synced = asyncio.Event()
        self.unreadable: dict[Key, str] = {}

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([obj for _, obj in self._store.values()])

    def get(self, name: str, *, namespace: str = "") -> dict[str, Any] | None:
        """Returns the object as last seen."""
        return self._store.get((namespace, name), ("", None))[1]

    def version(self, key: Key) -> str:
        """Returns the resource version of an object as last seen, `""` where it is not there."""
        return self._store.get(key, ("", {}))[0]

    @property
    def versions(self) -> dict[Key, str]:
        """The resource version of every object, as last seen."""
        return {key: version for key, (version, _) in self._store.items()}

    @property
    def age(self) -> float:
        """Seconds since the last sign of life: a page of a list, a watch that was accepted, an event, a bookmark."""
        return time.monotonic() - self._heard

    async def run(self) -> None:
        """Keeps the copy until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                continue
            except GoneError:
                self._version = ""
                LOG.info("%s: the watch is too far behind; listing again", self.kind.plural)
            except ApiError as error:
                absent = self._optional and error.code == _NOT_SERVED
                if absent:
                    self._complete(set())
                if not isinstance(error, UnreachableError) or self._failures >= _ATTEMPTS:
                    self._version = ""
                said = str(error)
                LOG.log(logging.DEBUG if absent or said == self._said else logging.WARNING, "%s: %s", self.kind.plural, said)
                self._said = said  # an outage is one line, not one every few seconds
            self._failures += 1
            await asyncio.sleep(pause(self._failures, first=_QUICKEST, longest=_SLOWEST))

    async def _list(self) -> None:
        found: set[Key] = set()
        version = ""
        async for page in self._client.pages(self.kind, namespace=self._namespace, query=self._query):
            version = page.version
            self._heard = time.monotonic()
            for obj, unreadable in page.items:
                key = self._put(obj, unreadable)
                if key is not None:
                    found.add(key)
        self._complete(found)
        self._version = version

    def _complete(self, found: set[Key]) -> None:
        """All there is was read: what is not among it is gone."""
        for key in [key for key in self._store if key not in found]:
            self._drop(key)
        for key in [key for key in self.unreadable if key not in found]:
            del self.unreadable[key]
        if not self.synced.is_set():
            self.synced.set()
            self._on_synced()

    async def _watch(self) -> None:
        """Follows one watch to its end."""
        began, events = time.monotonic(), 0
        seconds = self._pulse
        silence = seconds + min(20.0, seconds)
        watch = self._client.watch(
            self.kind, version=self._version, namespace=self._namespace, query=self._query, seconds=seconds, silence=silence
        )
        async with contextlib.aclosing(watch) as lines:
            async for line in lines:
                self._heard = time.monotonic()
                if line:
                    self._event(line)
                    events, self._failures = events + 1, 0
        if not events and time.monotonic() - began < min(_STEADY, seconds / 2):
            raise UnreachableError("the watch ended at once")  # without a pause this would be a flood of requests
        self._failures = 0

    def _event(self, line: bytes) -> None:
        event = decode.event(line)
        obj, unreadable = decode.item(event.object)
        if event.type == "ERROR":
            raise ended(obj, unreadable)
        if event.type == "DELETED":
            self._deleted(obj)
        elif event.type != "BOOKMARK":
            self._put(obj, unreadable)
        self._version = _version(obj) or self._version

    def _put(self, obj: dict[str, Any], unreadable: str) -> Key | None:
        key = _key(obj)
        if key is None:
            LOG.error("%s: an object without a name: %s", self.kind.plural, unreadable)
            return None
        version = _version(obj)
        known = self._store.get(key)
        if known is not None and version and known[0] == version:
            return key
        if unreadable:
            LOG.error("%s %s: %s", self.kind.plural, "/".join(filter(None, key)), unreadable)
            self.unreadable[key] = unreadable
        else:
            self.unreadable.pop(key, None)
        try:
            kept = self._keep(obj)
        except Exception:  # one object must not end the copy of all the others
            LOG.exception("%s %s", self.kind.plural, key)
            kept = None
        if kept is None:
            self._drop(key)
        else:
            self._store[key] = (version, kept if self._copy else {})
            self._tell(key, kept)
        return key

    def _deleted(self, obj: dict[str, Any]) -> None:
        key = _key(obj)
        if key is not None:
            self._drop(key)
            self.unreadable.pop(key, None)

    def _drop(self, key: Key) -> None:
        if self._store.pop(key, None) is not None:
            self._tell(key, None)

    def _tell(self, key: Key, obj: dict[str, Any] | None) -> None:
        try:
            self._on_change(key, obj)
        except Exception:  # as above
            LOG.exception("%s %s", self.kind.plural, key)


def ended(status: Mapping[str, Any], unreadable: str = "") -> ApiError:
    """Returns the error that a watch ended with."""
    code = status.get("code", 0)
    message = f"the watch ended: {status.get('message') or unreadable}"
    return GoneError(message, code=code) if code == 410 else ApiError(message, code=code)


def _key(obj: Mapping[str, Any]) -> Key | None:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return None
    return str(metadata.get("namespace") or ""), metadata["name"]


def _version(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""

"""A local copy of a collection, kept by one list and one watch.

Level-triggered: whoever listens is told which object changed, and looks at what is stored now. A stream that falls silent, ends or is too
old
(410) leads to a new list; what vanished meanwhile is reported as deleted. An object that cannot be decoded is counted, never fatal.

Rejected: kopf's indices (quadratic in the number of objects at start), the official client's informer (threads, a second decoder).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from mlwarden.cluster.client import Client
from mlwarden.cluster.errors import ApiError, GoneError
from mlwarden.cluster.kinds import Kind

LOG = logging.getLogger(__name__)
Key = tuple[str, str]
"""Namespace and name."""
Change = Callable[[Key, dict[str, Any] | None], None]
"""Called with the object as it is now, or None where it is gone."""
_SLOWEST = 30.0


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Informer:
    """A copy of one collection.

    Args:
        client: of the API server.
        kind: what to copy.
        namespace: one namespace, or all.
        query: labelSelector and fieldSelector.
        keep: what to store of an object; None means it is not wanted (and counts as absent).
        on_change: called for every change, in order, from the event loop; must not block.

    Attributes:
        synced: set after the first complete list.
        malformed: how many objects could not be decoded.
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
    ) -> None:
        self._client, self._kind, self._namespace, self._query = client, kind, namespace, dict(query or {})
        self._keep, self._on_change = keep, on_change
        self._store: dict[Key, dict[str, Any]] = {}
        self._heard = time.monotonic()
        self.synced = asyncio.Event()
        self.malformed = 0

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(tuple(self._store.values()))

    def get(self, name: str, *, namespace: str = "") -> dict[str, Any] | None:
        """Returns the object as last seen."""
        return self._store.get((namespace, name))

    @property
    def age(self) -> float:
        """Seconds since the last sign of life: an event, a bookmark, a list."""
        return time.monotonic() - self._heard

    async def run(self) -> None:
        """Keeps the copy until cancelled."""
        delay = 0.2
        while True:
            try:
                version = await self._list()
                delay = 0.2
                while True:
                    version = await self._watch(version)
            except GoneError:
                continue
            except ApiError as error:
                LOG.warning("%s: %s; again in %.1f s", self._kind.plural, error, delay)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 -- spreads retries, hides nothing
            delay = min(delay * 2, _SLOWEST if self.synced.is_set() else 5.0)

    async def _list(self) -> str:
        found: set[Key] = set()
        version = ""
        pages = self._client.pages(self._kind, namespace=self._namespace, query=self._query)
        async for page in pages:
            version = page.version
            self.malformed += page.malformed
            self._heard = time.monotonic()
            for obj in page.items:
                key = _key(obj)
                if key is not None:
                    found.add(key)
                    self._put(key, obj)
        for key in [key for key in self._store if key not in found]:
            self._drop(key)
        self.synced.set()
        return version

    async def _watch(self, version: str) -> str:
        """Follows one watch to its end; returns the version to go on from."""
        decoder = msgspec.json.Decoder(_Event)
        self._heard = time.monotonic()
        async for line in self._client.watch(self._kind, version=version, namespace=self._namespace, query=self._query):
            self._heard = time.monotonic()
            try:
                event = decoder.decode(line)
                obj: dict[str, Any] = msgspec.json.decode(event.object, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                self.malformed += 1
                continue
            if event.type == "ERROR":
                code = obj.get("code", 0)
                message = f"watch of {self._kind.plural}: {obj.get('message')}"
                raise GoneError(message, code=code) if code == 410 else ApiError(message, code=code)
            key = _key(obj)
            version = _version(obj) or version
            if event.type == "BOOKMARK" or key is None:
                continue
            if event.type == "DELETED":
                self._drop(key)
            else:
                self._put(key, obj)
        return version

    def _put(self, key: Key, obj: dict[str, Any]) -> None:
        kept = self._keep(obj)
        if kept is None:
            self._drop(key)
            return
        known = self._store.get(key)
        self._store[key] = kept
        if known is None or _version(known) != _version(kept):
            self._on_change(key, kept)

    def _drop(self, key: Key) -> None:
        if self._store.pop(key, None) is not None:
            self._on_change(key, None)


def _key(obj: Mapping[str, Any]) -> Key | None:
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return None
    return str(metadata.get("namespace") or ""), metadata["name"]


def _version(obj: Mapping[str, Any]) -> str:
    metadata = obj.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""

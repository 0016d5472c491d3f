"""The configuration of the platform's injectors, followed: what they put into pods, as they themselves read it.

Each is one object or a few; most clusters have only some of them. A kind that is not served and a namespace that is not there are no
configuration, which is known; what was not read yet, or may not be read, is named in `unread`, and containers that may be of that injector
are not known to be anybody's. Nobody waits for it at the start: until it is read such pods are held.

ConfigMaps are asked for by name in the one namespace where the injector has its own, which the administrator names: anybody can make one
of that name elsewhere, and who may create namespaces even in the usual one, where the injector is not installed. A cluster-scoped object
is its administrator's anyway.
"""

from collections.abc import Callable
from typing import Any

from mlwarden.cluster.client import Client
from mlwarden.cluster.informer import Informer, Key
from mlwarden.cluster.kinds import CONFIG_MAP, DEPLOYMENT, STORAGE_CONTAINER
from mlwarden.model.platform import Injected, Platform
from mlwarden.model.policy import Settings
from mlwarden.workloads.injectors import INJECTORS, Source, described

_NAMED = {
    Source.KSERVE: ("kserve", CONFIG_MAP),
    Source.KNATIVE: ("knative", CONFIG_MAP),
    Source.ISTIO: ("istio", CONFIG_MAP),
    Source.ARGO: ("argo", DEPLOYMENT),
}
"""Source → the entry of `settings.platform` with its namespace, and the kind. A source is called what its object is called."""


class Configuration:
    """Follows what every injector is configured by.

    Args:
        client: of the API server.
        settings: the chart's.
        on_change: called when any of it changed.
    """

    def __init__(self, client: Client, settings: Settings, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._found: dict[tuple[Source, Key], tuple[Injected, ...]] = {}
        containers = self._changed(Source.STORAGE_CONTAINERS)
        self._informers: dict[Source, Informer] = {
            Source.STORAGE_CONTAINERS: Informer(
                client, STORAGE_CONTAINER, on_change=containers, copy=False, optional=True, on_synced=on_change
            )
        }
        for source, (entry, kind) in _NAMED.items():
            if namespace := settings.platform.get(entry):
                query = {"fieldSelector": f"metadata.name={source}"}
                self._informers[source] = Informer(
                    client, kind, namespace=namespace, query=query, on_change=self._changed(source), copy=False, on_synced=on_change
                )

    @property
    def informers(self) -> tuple[Informer, ...]:
        """All of them, to be run."""
        return tuple(self._informers.values())

    @property
    def platform(self) -> Platform:
        """What is known now."""
        unsynced = {source for source, informer in self._informers.items() if not informer.synced.is_set() or informer.unreadable}
        return Platform(
            injected=tuple(each for _, found in sorted(self._found.items()) for each in found),
            unread=frozenset(row.name for row in INJECTORS if not unsynced.isdisjoint(row.sources)),
        )

    def _changed(self, source: Source) -> Callable[[Key, dict[str, Any] | None], None]:
        def changed(key: Key, obj: dict[str, Any] | None) -> None:
            self._found[source, key] = described(source, obj) if obj is not None else ()
            self._on_change()

        return changed

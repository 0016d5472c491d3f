"""What the platform puts into pods, and what a namespace fills in: as the cluster's configuration says, never as a pod says."""

from collections.abc import Mapping

import msgspec

from mlwarden.model.workload import Json


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """One container that the platform adds to pods, as its configuration in the cluster describes it.

    Attributes:
        injector: name of the row in the table of injectors.
        source: which configuration says so, for a person: `ClusterStorageContainer default`.
        body: the container as described; what an injector fills in for each pod is not in it.
        models: regular expressions of the models' addresses that it is added for; empty for any.
    """

    injector: str
    source: str
    body: Mapping[str, Json]
    models: tuple[str, ...] = ()


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """The platform's configuration, as far as it was read.

    Attributes:
        injected: every container that is added to pods.
        unread: names of injectors whose configuration could not be read (yet), in whole or in part.
    """

    injected: tuple[Injected, ...] = ()
    unread: frozenset[str] = frozenset()

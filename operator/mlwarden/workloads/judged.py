"""Of which objects the cluster asks mlwarden: one place for the webhook's rules, the rights to read owners of pods, and what `check` says.

A cluster-scoped kind has no namespace and so no profile: its pods are judged where they are made. A kind outside the table is never sent,
but its pods are. A kind in which no pod is found and that is not known to run nothing is not understood, which is no good news.
"""

from collections.abc import Iterator
from enum import StrEnum

from mlwarden.model.workload import Resource, Workload
from mlwarden.workloads.builtin import CLUSTER_SCOPED, OF_OPERATORS, RUNS_NOTHING
from mlwarden.workloads.kinds import KINDS, Kind

_TABLE: dict[tuple[str, str], Kind] = {(row.group, row.kind): row for row in KINDS}


class Standing(StrEnum):
    """What the cluster does about an object.

    Attributes:
        SENT: it asks about the object.
        NOTHING: it has nothing to ask: a kind of Kubernetes, or one of an operator, that has no field for a pod.
        PODS: it asks about the pods that somebody makes of it, never about the object.
        CLUSTER: the same, of a kind of the table that belongs to no namespace.
        UNKNOWN: nobody knows whether anything runs: the kind is not understood.
        EXEMPT: it never asks about anything in this namespace.
    """

    SENT = "sent"
    NOTHING = "nothing"
    PODS = "pods"
    CLUSTER = "cluster"
    UNKNOWN = "unknown"
    EXEMPT = "exempt"


def sent() -> Iterator[Kind]:
    """Yields the row of every kind that the cluster asks about."""
    return (row for row in KINDS if row.namespaced)


def standing(workload: Workload) -> Standing:
    """Returns what the cluster does about an object in a namespace that is governed."""
    row = _row(workload.resource)
    if row is not None:
        return Standing.SENT if row.namespaced else Standing.CLUSTER
    if workload.resource.kind in RUNS_NOTHING.get(workload.resource.group, ()):
        return Standing.NOTHING
    if workload.pods:
        return Standing.PODS
    return Standing.NOTHING if workload.resource.kind in OF_OPERATORS.get(workload.resource.group, ()) else Standing.UNKNOWN


def _row(resource: Resource) -> Kind | None:
    return _TABLE.get((resource.group, resource.kind))


def is_namespaced(resource: Resource) -> bool:
    """Whether objects of a kind belong to a namespace; most do, so those of a kind that nobody here knows are taken to."""
    row = _row(resource)
    if row is not None:
        return row.namespaced
    if resource.kind in RUNS_NOTHING.get(resource.group, ()):
        return resource.kind not in CLUSTER_SCOPED.get(resource.group, ())
    return True

"""The table of kinds: where, in each, pods are described, and how its operator composes them. Pure data; a new kind is one row."""

from mlwarden.workloads.kinds import core, notebooks, pipelines, serving, training
from mlwarden.workloads.kinds.place import SCALE, Default, Kind, Place, Shape

__all__ = ["KINDS", "SCALE", "Default", "Kind", "Place", "Shape"]

KINDS: tuple[Kind, ...] = (*core.KINDS, *notebooks.KINDS, *training.KINDS, *serving.KINDS, *pipelines.KINDS)

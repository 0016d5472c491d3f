"""What a workload would run: every pod spec in it, with its containers and images, whatever kind it is."""

from mlwarden.workloads.extract import extract, resource_of, scale_of, template_as_pod
from mlwarden.workloads.kinds import KINDS, Kind, Shape

__all__ = ["KINDS", "Kind", "Shape", "extract", "resource_of", "scale_of", "template_as_pod"]
